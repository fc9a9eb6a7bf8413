//! Users of a zone's identity providers: what their tokens have to say to be believed (contract: sts.md §4).
//!
//! Whoever logs users in keeps the keys; a zone registers it ([`Registration`]) and takes its word for who somebody is.
//! The word goes no further than that: a name from outside stays apart from names of ours ([`ExternalSubject`]), is
//! kept byte for byte, and holds nothing that could make it look like another one to a person.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::{SubjectIssuerId, Timestamp};

/// Clock leeway between an identity provider and us, in seconds.
const LEEWAY_SECONDS: i64 = 60;
/// Longest subject, in bytes.
const LONGEST_SUBJECT: usize = 512;
/// What names of ours begin with, such as the subject of connections that a whole zone shares.
const RESERVED: &str = "caracal:";

/// An identity provider whose users a zone takes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Its row.
    pub id: SubjectIssuerId,
    /// `iss` of its tokens, byte for byte.
    pub issuer: String,
    /// Where its keys are.
    pub jwks_url: String,
    /// What `aud` of its tokens contains.
    pub audience: String,
}

impl Registration {
    /// Whether a signature that was verified under `other` is verified under this one: the same registration, which
    /// still has its keys in the same place.
    pub fn has_keys_of(&self, other: &Self) -> bool {
        self.id == other.id && self.issuer == other.issuer && self.jwks_url == other.jwks_url
    }
}

/// What is wrong with a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubjectFault {
    /// There is none, or it is no text.
    #[error("is missing")]
    Missing,
    /// Longer than 512 bytes.
    #[error("is longer than 512 bytes")]
    TooLong,
    /// It begins like a name of ours.
    #[error("begins with `caracal:`, which is reserved")]
    Reserved,
    /// A control character, one that turns the direction of text around, or the sign for text that was damaged.
    #[error("holds a character that must not be in a name")]
    Character,
    /// White space at an end.
    #[error("begins or ends with white space")]
    Padded,
}

/// The `sub` of an identity provider's token, byte for byte as it was signed.
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalSubject(String);

impl ExternalSubject {
    /// Takes a subject as it is or not at all: one that was mended would be another one.
    pub fn parse(text: &str) -> Result<Self, SubjectFault> {
        if text.is_empty() {
            return Err(SubjectFault::Missing);
        }
        if text.len() > LONGEST_SUBJECT {
            return Err(SubjectFault::TooLong);
        }
        if text.starts_with(RESERVED) {
            return Err(SubjectFault::Reserved);
        }
        if text.chars().any(misleads) {
            return Err(SubjectFault::Character);
        }
        if text.trim() != text {
            return Err(SubjectFault::Padded);
        }
        Ok(Self(text.to_owned()))
    }

    /// The subject.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Who somebody is belongs into a record and a mandate, not into logs.
impl std::fmt::Debug for ExternalSubject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ExternalSubject(…)")
    }
}

fn misleads(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | char::REPLACEMENT_CHARACTER)
}

/// Why an id_token is not believed. The name of each is the `reason` of its evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FederationFault {
    /// No compact JWS of a JSON object, too long, or with an extension that has to be understood.
    #[error("the id_token is malformed")]
    Malformed,
    /// `iss` is that of no registration in force.
    #[error("the issuer of the id_token is not registered in this zone")]
    IssuerNotRegistered,
    /// Symmetric, none, or unknown.
    #[error("the id_token's algorithm is not accepted: expected RS256, RS384, RS512, ES256, ES384 or ES512")]
    AlgorithmNotAccepted,
    /// No `kid`.
    #[error("the id_token names no key")]
    KeyNotNamed,
    /// The issuer publishes no key of that `kid`.
    #[error("the issuer publishes no key that the id_token names")]
    KeyUnknown,
    /// What is at the registered address is no key set, or must not be asked for.
    #[error("the issuer's registered jwks_url has no usable key set, or must not be reached")]
    KeysUnusable,
    /// The registered address does not answer. No verdict on the token.
    #[error("the issuer's keys cannot be fetched now")]
    KeysUnreachable,
    /// The key did not sign this.
    #[error("the id_token's signature does not verify")]
    SignatureInvalid,
    /// A claim is missing or of the wrong type.
    #[error("the id_token's claim `{0}` is missing or invalid")]
    ClaimInvalid(&'static str),
    /// Not meant for the registered audience.
    #[error("the id_token is meant for another audience")]
    AudienceMismatch,
    /// Past `exp`, leeway included.
    #[error("the id_token has expired")]
    Expired,
    /// `iat` or `nbf` ahead of the clock, leeway included.
    #[error("the id_token is not valid yet")]
    NotYetValid,
    /// A `sub` that can't be a user's.
    #[error("the id_token's `sub` {0}")]
    SubjectInvalid(SubjectFault),
}

impl FederationFault {
    /// The reason token of its evidence.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "token_malformed",
            Self::IssuerNotRegistered => "issuer_not_registered",
            Self::AlgorithmNotAccepted => "algorithm_not_accepted",
            Self::KeyNotNamed => "key_not_named",
            Self::KeyUnknown => "key_unknown",
            Self::KeysUnusable => "keys_unusable",
            Self::KeysUnreachable => "keys_unreachable",
            Self::SignatureInvalid => "signature_invalid",
            Self::ClaimInvalid(_) => "claim_invalid",
            Self::AudienceMismatch => "audience_mismatch",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::SubjectInvalid(_) => "subject_invalid",
        }
    }
}

/// The claims of an id_token, read strictly: one of the wrong JSON type is invalid, not absent.
#[derive(Clone, PartialEq, Eq)]
pub struct IdTokenClaims {
    issuer: String,
    audience: Vec<String>,
    subject: Option<String>,
    expires_at: i64,
    issued_at: Option<i64>,
    not_before: Option<i64>,
}

impl std::fmt::Debug for IdTokenClaims {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdTokenClaims").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// What an id_token that is believed says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Believed {
    /// Who it is.
    pub subject: ExternalSubject,
    /// Until when it is believed; nothing made of it lives on after that.
    pub until: Timestamp,
}

impl IdTokenClaims {
    /// Reads the members of a token whose signature was verified.
    pub fn parse(object: &Map<String, Value>) -> Result<Self, FederationFault> {
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let audience = |value: &Value| match value {
            Value::Array(listed) => listed.iter().map(text).collect(),
            one => text(one).map(|one| vec![one]),
        };
        Ok(Self {
            issuer: required(object, "iss", text)?,
            audience: required(object, "aud", audience)?,
            subject: object.get("sub").and_then(Value::as_str).map(str::to_owned),
            expires_at: required(object, "exp", seconds)?,
            issued_at: optional(object, "iat", seconds)?,
            not_before: optional(object, "nbf", seconds)?,
        })
    }

    /// Whether the token is believed under `registration` at `now`. There is no verdict on the signature here.
    pub fn accept(&self, registration: &Registration, now: Timestamp) -> Result<Believed, FederationFault> {
        let latest_start = now.as_seconds().saturating_add(LEEWAY_SECONDS);
        let end = Timestamp::from_seconds(self.expires_at);
        let end_with_leeway = Timestamp::from_seconds(self.expires_at.saturating_add(LEEWAY_SECONDS));
        // No mandate lives for less.
        let leaves_a_second = |end: Timestamp| now.until(end) >= Duration::from_secs(1);
        if self.issuer != registration.issuer {
            return Err(FederationFault::IssuerNotRegistered);
        }
        if !self.audience.contains(&registration.audience) {
            return Err(FederationFault::AudienceMismatch);
        }
        if !leaves_a_second(end_with_leeway) {
            return Err(FederationFault::Expired);
        }
        if [self.issued_at, self.not_before].into_iter().flatten().any(|start| start > latest_start) {
            return Err(FederationFault::NotYetValid);
        }
        let subject = self.subject.as_deref().ok_or(SubjectFault::Missing).and_then(ExternalSubject::parse);
        let subject = subject.map_err(FederationFault::SubjectInvalid)?;
        // Its own end bounds what is made of it. To a clock that is ahead that end may have passed already; then what
        // is left of the leeway does.
        Ok(Believed { subject, until: if leaves_a_second(end) { end } else { end_with_leeway } })
    }
}

fn required<T>(
    object: &Map<String, Value>,
    claim: &'static str,
    read: impl FnOnce(&Value) -> Option<T>,
) -> Result<T, FederationFault> {
    object.get(claim).and_then(read).ok_or(FederationFault::ClaimInvalid(claim))
}

fn optional<T>(
    object: &Map<String, Value>,
    claim: &'static str,
    read: impl FnOnce(&Value) -> Option<T>,
) -> Result<Option<T>, FederationFault> {
    object.get(claim).map(|value| read(value).ok_or(FederationFault::ClaimInvalid(claim))).transpose()
}

/// A NumericDate (RFC 7519 §2): a number of seconds, with a fraction where somebody writes one, which is cut off.
fn seconds(value: &Value) -> Option<i64> {
    const LAST: f64 = 9_007_199_254_740_992.0; // 2^53: beyond it there are no fractions, and no dates either
    match value.as_i64() {
        Some(whole) => (whole >= 0).then_some(whole),
        #[allow(clippy::cast_possible_truncation, reason = "cut off on purpose, within bounds that were checked")]
        None => value.as_f64().filter(|number| (0.0..=LAST).contains(number)).map(|number| number as i64),
    }
}

/// A token whose signature was verified, and the registration that said where the keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedIdToken {
    /// What it says.
    pub claims: IdTokenClaims,
    /// Under which registration its signature was verified.
    pub under: Registration,
}

/// What is known of a presented id_token when the exchange is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentedIdToken {
    /// Whether its signature is genuine, or why that is not known.
    pub verified: Result<VerifiedIdToken, FederationFault>,
    /// The registration in force under its `iss`, as the snapshot has it.
    pub registration: Option<Registration>,
}

impl PresentedIdToken {
    /// Whether it is believed at `now`. A registration that is gone, or has its keys elsewhere by now, vouches for
    /// nothing that was verified before.
    pub fn accept(&self, now: Timestamp) -> Result<Believed, FederationFault> {
        let token = self.verified.as_ref().map_err(|fault| *fault)?;
        let in_force = self.registration.as_ref().filter(|registration| registration.has_keys_of(&token.under));
        token.claims.accept(in_force.ok_or(FederationFault::IssuerNotRegistered)?, now)
    }
}
