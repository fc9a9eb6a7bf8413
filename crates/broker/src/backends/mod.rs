//! Stores of sealed envelopes that are not ours (contract: sts.md §10.6, audit-and-streams.md §9.3). Each speaks its own
//! protocol; all get ciphertext, are reached over TLS or on loopback, and have ten seconds. A [`Bucket`] is reached alike and
//! keeps evidence.
//!
//! Where a cloud hands out credentials to what runs in it, it does so at link-local addresses, without TLS, to whoever
//! asks. No tenant may ever choose such an address, so they stand in this code, and a client reaches them where it was
//! made for them ([`OperatorClient::reaching`](caracal_http::egress::OperatorClient::reaching)) and nowhere else.

mod aws;
mod azure;
mod bucket;
mod cached;
mod custom;
mod google;
mod infisical;
mod lent;
mod oauth;
mod sigv4;
mod vault;
mod web;

pub use aws::{AwsBackend, AwsCredentials, AwsKeys, AwsSettings, ContainerAuthorization};
pub use azure::{AzureBackend, AzureCloud, AzureCredentials, AzureSettings};
pub use bucket::{Bucket, BucketSettings, Kept, ObjectLock, is_bucket_name};
pub use cached::CachedBackend;
pub use custom::CustomBackend;
pub use google::{
    BadServiceAccount, GoogleBackend, GoogleCredentials, GoogleSettings, ServiceAccount, is_google_project,
};
pub use infisical::{InfisicalBackend, InfisicalSettings};
pub use vault::{VaultBackend, VaultSettings};
pub use web::{BackendUrl, BadBackendUrl};
