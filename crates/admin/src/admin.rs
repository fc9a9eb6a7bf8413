//! The service: its settings, what it stands on, and its router.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::routing::{MethodFilter, get, on};
use caracal_authority::Timestamp;
use caracal_crypto::chance::{ChanceUnavailable, uuid_v4, uuid_v7};
use caracal_crypto::client_secret::SecretVerifier;
use caracal_crypto::hmac::{HmacKey, KeyError};
use caracal_crypto::SecretText;
use caracal_custody::SealedSecrets;
use caracal_http::{Face, FreshId, Profile};
use caracal_ledger::{AnonymousDenials, Ledger};
use caracal_store::Store;
use tokio::sync::watch;
use tower_layer_of_face::layer;

use crate::evidence::Recorder;
use crate::gate;
use crate::health;
use crate::limits::Limits;
use crate::routes::ROUTES;
use crate::runtime::PolicyRuntime;
use crate::{account, problem::Refusal};
