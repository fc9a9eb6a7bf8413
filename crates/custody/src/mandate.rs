//! From a bearer text to claims that may be believed.
//!
//! Two steps with a type between them. [`verify`] takes the token apart, picks the key by the zone the token itself
//! names and the `kid` of its header, and checks the signature: a token of one zone is never tried against the keys of
//! another. What comes out is [`SignedClaims`]: signed by that zone, but not yet in force. [`SignedClaims::accept`] then
//! looks at issuer, audience, class and time, and yields typed [`Claims`].

use caracal_authority::mandate::{Claims, ClaimsFault, Expected, NotAccepted};
use caracal_authority::{Timestamp, ZoneId};
use caracal_crypto::jws::{ALG, UnverifiedToken};
use serde_json::{Map, Value};

use crate::{CustodyError, VerificationKeys};

/// A token that was not verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Not a compact JWS with JSON object parts, or without a usable zone.
    #[error("the token is malformed")]
    Malformed,
    /// Another algorithm than ES256, no `kid`, or one that is not a key of the token's zone.
    #[error("the token names no key of its zone")]
    UnknownKey,
    /// The key did not sign this.
    #[error("the signature does not verify")]
    BadSignature,
    /// The keys could not be read; the token may be good.
    #[error("the zone's keys can't be read")]
    Unavailable(#[source] CustodyError),
}

/// Claims whose signature by their own zone was verified. Nothing else about them was.
#[derive(Debug, Clone)]
pub struct SignedClaims {
    zone: ZoneId,
    kid: String,
    raw: Map<String, Value>,
}

/// Verifies the signature of `token` with the key of the zone it names.
pub async fn verify(keys: &dyn VerificationKeys, token: &str) -> Result<SignedClaims, VerifyError> {
    let token = UnverifiedToken::parse(token).map_err(|_| VerifyError::Malformed)?;
    let zone = token.claims().get("zone_id").and_then(Value::as_str).ok_or(VerifyError::Malformed)?;
    let zone = ZoneId::parse(zone).map_err(|_| VerifyError::Malformed)?;
    if token.alg() != Some(ALG) {
        return Err(VerifyError::UnknownKey);
    }
    let kid = token.kid().ok_or(VerifyError::UnknownKey)?;
    let key = keys.verification_key(&zone, kid).await.map_err(VerifyError::Unavailable)?;
    token.verify_once(&key.ok_or(VerifyError::UnknownKey)?).map_err(|_| VerifyError::BadSignature)?;
    Ok(SignedClaims { zone, kid: kid.to_owned(), raw: token.claims().clone() })
}

impl SignedClaims {
    /// The zone whose key signed.
    pub fn zone(&self) -> &ZoneId {
        &self.zone
    }

    /// The key that signed.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// All members, as signed.
    pub fn raw(&self) -> &Map<String, Value> {
        &self.raw
    }

    /// A member that is text and not empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.raw.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// The claims, typed. A claim of the wrong JSON type is an error, not an absence.
    pub fn claims(&self) -> Result<Claims, ClaimsFault> {
        Claims::parse(&self.raw)
    }

    /// The claims, if they are meant for whom `expected` describes and in force at `now`
    /// (contract: sts.md §3.7 step 5).
    pub fn accept(&self, expected: &Expected<'_>, now: Timestamp) -> Result<Claims, ClaimRefusal> {
        let claims = self.claims()?;
        claims.accept(expected, now.as_seconds())?;
        Ok(claims)
    }
}

/// Why signed claims are not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimRefusal {
    /// A claim is missing or malformed.
    #[error(transparent)]
    Fault(#[from] ClaimsFault),
    /// The claims are not for this reader, or not now.
    #[error(transparent)]
    NotAccepted(#[from] NotAccepted),
}
