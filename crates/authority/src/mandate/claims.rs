//! Claims of a mandate whose signature has been verified, read strictly: a claim of the wrong JSON type is invalid,
//! not absent (contract: sdk-and-verify.md §11.3).

use serde_json::{Map, Value};

use super::{ChainHop, Use};
use crate::record::SubjectKind;
use crate::scope::Scopes;
use crate::{AgentSessionId, ApplicationId, AuthorityRecordId, EdgeId, MandateId, ZoneId};

/// Clock leeway between issuer and verifier, in seconds.
const LEEWAY_SECONDS: i64 = 60;

/// The claims of a mandate. `sid` may be absent: what that means differs by reader (401, 403 or a narrower view).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// `iss`.
    pub issuer: String,
    /// `sub`.
    pub subject: String,
    /// `aud`, a string or an array on the wire.
    pub audience: Vec<String>,
    /// `exp`, Unix seconds.
    pub expires_at: i64,
    /// `iat`, Unix seconds.
    pub issued_at: i64,
    /// `nbf`, Unix seconds. Caracal never sets it, and honours it.
    pub not_before: Option<i64>,
    /// `jti`.
    pub jti: MandateId,
    /// `zone_id`.
    pub zone: ZoneId,
    /// `client_id`.
    pub client: ApplicationId,
    /// `sid`.
    pub record: Option<AuthorityRecordId>,
    /// `root_sid`.
    pub root_record: Option<AuthorityRecordId>,
    /// `use`.
    pub r#use: Use,
    /// `sub_type`.
    pub kind: SubjectKind,
    /// `scope`; empty when absent.
    pub scope: Scopes,
    /// `target`; empty when absent.
    pub target: Vec<String>,
    /// `agent_session_id`.
    pub session: Option<AgentSessionId>,
    /// `delegation_edge_id`.
    pub delegation: Option<EdgeId>,
    /// `source_session_id`.
    pub source_session: Option<AgentSessionId>,
    /// `target_session_id`.
    pub target_session: Option<AgentSessionId>,
    /// `delegation_path`.
    pub path: Vec<EdgeId>,
    /// `delegation_chain`.
    pub chain: Vec<ChainHop>,
    /// `hop_count`; 0 when absent.
    pub hop_count: u64,
    /// `delegation_graph_epoch`.
    pub epoch: Option<u64>,
}

/// What is wrong with a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// A required claim is absent, null or empty.
    Missing,
    /// It has the wrong JSON type, or a value no such claim can have.
    Invalid,
}

/// Claims that are not those of a mandate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the claim `{claim}` is {}", match .problem { Problem::Missing => "missing", Problem::Invalid => "invalid" })]
pub struct ClaimsFault {
    /// The claim's name.
    pub claim: &'static str,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What a reader of a mandate insists on; every field comes from its own configuration or route.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The issuer's URL.
    pub issuer: &'a str,
    /// An audience the mandate must be addressed to.
    pub audience: &'a str,
    /// The zone whose keys verified the signature.
    pub zone: &'a ZoneId,
    /// The class.
    pub r#use: Use,
}

/// Why genuine claims are not for this reader, or not now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAccepted {
    /// Another issuer.
    #[error("another issuer")]
    Issuer,
    /// Not addressed to the reader.
    #[error("another audience")]
    Audience,
    /// Another zone.
    #[error("another zone")]
    Zone,
    /// Another class.
    #[error("another use")]
    Use,
    /// Past `exp`, leeway included.
    #[error("expired")]
    Expired,
    /// `iat` or `nbf` ahead of the clock, leeway included.
    #[error("not valid yet")]
    NotYet,
}

impl Claims {
    /// Reads verified claims. Unknown claims are ignored; optional ones may be absent, and ids null or empty.
    pub fn parse(object: &Map<String, Value>) -> Result<Self, ClaimsFault> {
        let claims = Reader(object);
        Ok(Self {
            issuer: claims.required("iss", text)?,
            subject: claims.required("sub", text)?,
            audience: claims.required("aud", |value| match value {
                Value::String(one) => some_text(one).map(|one| vec![one]),
                other => texts(other),
            })?,
            expires_at: claims.required("exp", seconds)?,
            issued_at: claims.required("iat", seconds)?,
            not_before: claims.optional("nbf", seconds)?,
            jti: claims.required("jti", id)?,
            zone: claims.required("zone_id", id)?,
            client: claims.required("client_id", id)?,
            record: claims.optional_id("sid")?,
            root_record: claims.optional_id("root_sid")?,
            r#use: claims.required("use", |value| match value.as_str()? {
                "session" => Some(Use::Session),
                "gateway" => Some(Use::Gateway),
                "resource" => Some(Use::Resource),
                _ => None,
            })?,
            kind: claims.required("sub_type", |value| value.as_str().and_then(SubjectKind::parse))?,
            scope: claims.optional("scope", |value| value.as_str().map(Scopes::from_text))?.unwrap_or_default(),
            target: claims.optional("target", texts)?.unwrap_or_default(),
            session: claims.optional_id("agent_session_id")?,
            delegation: claims.optional_id("delegation_edge_id")?,
            source_session: claims.optional_id("source_session_id")?,
            target_session: claims.optional_id("target_session_id")?,
            path: claims
                .optional("delegation_path", |value| value.as_array()?.iter().map(id).collect())?
                .unwrap_or_default(),
            chain: claims
                .optional("delegation_chain", |value| value.as_array()?.iter().map(hop).collect())?
                .unwrap_or_default(),
            hop_count: claims.optional("hop_count", Value::as_u64)?.unwrap_or_default(),
            epoch: claims.optional("delegation_graph_epoch", Value::as_u64)?,
        })
    }

    /// Whether these claims are for the reader, at `now` in Unix seconds of its own clock (contract: sts.md §3.7
    /// step 5). The leeway is for skew between clocks; nothing minted from these claims outlives `exp` itself.
    pub fn accept(&self, expected: &Expected<'_>, now: i64) -> Result<(), NotAccepted> {
        let check = |holds: bool, otherwise| if holds { Ok(()) } else { Err(otherwise) };
        let latest_start = now.saturating_add(LEEWAY_SECONDS);
        check(self.issuer == expected.issuer, NotAccepted::Issuer)?;
        check(self.audience.iter().any(|audience| audience == expected.audience), NotAccepted::Audience)?;
        check(self.zone == *expected.zone, NotAccepted::Zone)?;
        check(self.r#use == expected.r#use, NotAccepted::Use)?;
        check(self.expires_at.saturating_add(LEEWAY_SECONDS) > now, NotAccepted::Expired)?;
        check(self.issued_at <= latest_start, NotAccepted::NotYet)?;
        check(self.not_before.is_none_or(|start| start <= latest_start), NotAccepted::NotYet)
    }
}

struct Reader<'a>(&'a Map<String, Value>);

impl Reader<'_> {
    fn required<T>(&self, claim: &'static str, read: impl FnOnce(&Value) -> Option<T>) -> Result<T, ClaimsFault> {
        match self.0.get(claim) {
            None | Some(Value::Null) => Err(ClaimsFault { claim, problem: Problem::Missing }),
            Some(Value::String(empty)) if empty.is_empty() => Err(ClaimsFault { claim, problem: Problem::Missing }),
            Some(value) => read(value).ok_or(ClaimsFault { claim, problem: Problem::Invalid }),
        }
    }

    fn optional<T>(
        &self,
        claim: &'static str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, ClaimsFault> {
        let read = |value| read(value).ok_or(ClaimsFault { claim, problem: Problem::Invalid });
        self.0.get(claim).map(read).transpose()
    }

    /// Ids alone may also be null or empty instead of absent.
    fn optional_id<T: std::str::FromStr>(&self, claim: &'static str) -> Result<Option<T>, ClaimsFault> {
        match self.0.get(claim) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(empty)) if empty.is_empty() => Ok(None),
            Some(value) => id(value).map(Some).ok_or(ClaimsFault { claim, problem: Problem::Invalid }),
        }
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().and_then(some_text)
}

fn some_text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(text).collect()
}

/// A non-negative integer; `1.0`, `"1"` and `-1` are not.
fn seconds(value: &Value) -> Option<i64> {
    value.as_i64().filter(|seconds| *seconds >= 0)
}

fn id<T: std::str::FromStr>(value: &Value) -> Option<T> {
    value.as_str()?.parse().ok()
}

fn hop(value: &Value) -> Option<ChainHop> {
    let hop = Reader(value.as_object()?);
    Some(ChainHop {
        application_id: hop.required("application_id", id).ok()?,
        agent_session_id: hop.optional_id("agent_session_id").ok()?,
        delegation_edge_id: hop.optional_id("delegation_edge_id").ok()?,
    })
}
