//! Mandates: the claims of a short-lived signed token (contract: sts.md §5), written by [`MandateClaims`] and read
//! back by [`Claims`].
//!
//! Three classes that can never stand in for one another. A *session* mandate speaks to the Coordinator and is
//! addressed to the issuer. A *gateway* mandate is one-shot, addressed to the issuer too, because the Gateway trades it
//! there for a *resource* mandate, the only class addressed to a resource, which the issuer accepts from nobody.

mod claims;

pub use claims::{Claims, ClaimsFault, Expected, NotAccepted, Problem};

use serde::{Deserialize, Serialize};

use crate::lifetime::Lifetime;
use crate::record::SubjectKind;
use crate::resource::ResourceIdentifier;
use crate::{AgentSessionId, ApplicationId, AuthorityRecordId, EdgeId, MandateId, ZoneId};

/// Longest mandate the Gateway and the Coordinator accept, in bytes.
pub const MAX_TOKEN_BYTES: usize = 4096;
/// An ES256 signature, base64url without padding.
const SIGNATURE_BYTES: usize = 86;

/// What a mandate may be used for: the `use` claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    /// Speaking to the Coordinator; reusable.
    Session,
    /// One call through the Gateway.
    Gateway,
    /// A resource, by whoever verifies it there.
    Resource,
}

impl Use {
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Gateway => "gateway",
            Self::Resource => "resource",
        }
    }
}

/// One element of `delegation_chain`: the issuing side of an edge, or the final receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainHop {
    /// The application.
    pub application_id: ApplicationId,
    /// Its session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_session_id: Option<AgentSessionId>,
    /// The edge it lends through; the receiver lends through none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delegation_edge_id: Option<EdgeId>,
}

/// What a mandate says of the delegation it was minted through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelegationClaims {
    /// The presented edge.
    pub edge: EdgeId,
    /// The session that lends through it.
    pub source: AgentSessionId,
    /// The session that receives.
    pub target: AgentSessionId,
    /// Edge ids, root first.
    pub path: Vec<EdgeId>,
    /// Who lent to whom.
    pub chain: Vec<ChainHop>,
    /// The zone's delegation epoch at issuance.
    pub epoch: u64,
}

/// What every class of mandate says.
#[derive(Debug, Clone)]
pub struct Core<'a> {
    /// The issuer's URL, verbatim.
    pub issuer: &'a str,
    /// Zone.
    pub zone: &'a ZoneId,
    /// The application that made the exchange.
    pub client: &'a ApplicationId,
    /// The application id, or a user's `sub`.
    pub subject: &'a str,
    /// Whom it speaks for.
    pub kind: SubjectKind,
    /// The record just created for it.
    pub record: &'a AuthorityRecordId,
    /// Its own id.
    pub jti: &'a MandateId,
    /// Its life.
    pub lifetime: Lifetime,
    /// The granted scopes as text; may be empty.
    pub scope: &'a str,
    /// The granted resources; may be empty.
    pub targets: Vec<ResourceIdentifier>,
}

/// The claims of a mandate as they are signed. Optional claims are left out when empty or zero, never sent as such.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MandateClaims {
    iss: String,
    sub: String,
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    jti: MandateId,
    zone_id: ZoneId,
    client_id: ApplicationId,
    sid: AuthorityRecordId,
    root_sid: AuthorityRecordId,
    r#use: Use,
    sub_type: SubjectKind,
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    target: Vec<ResourceIdentifier>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_session_id: Option<AgentSessionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delegation_edge_id: Option<EdgeId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_session_id: Option<AgentSessionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_session_id: Option<AgentSessionId>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    delegation_path: Vec<EdgeId>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    delegation_chain: Vec<ChainHop>,
    #[serde(skip_serializing_if = "is_zero_hops")]
    hop_count: usize,
    #[serde(skip_serializing_if = "is_zero_epoch")]
    delegation_graph_epoch: u64,
}

/// Claims that no mandate of [`MAX_TOKEN_BYTES`] can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the mandate would have {bytes} bytes, above {MAX_TOKEN_BYTES}")]
pub struct TooLarge {
    /// Its size.
    pub bytes: usize,
}

impl MandateClaims {
    /// A session mandate: to the issuer, its own root.
    pub fn session(core: Core<'_>, session: Option<AgentSessionId>) -> Self {
        let issuer = core.issuer.to_owned();
        Self::new(core, Use::Session, vec![issuer], None, session, None)
    }

    /// A gateway mandate: to the issuer, its own root, through one delegation to one session.
    pub fn gateway(core: Core<'_>, session: AgentSessionId, delegation: DelegationClaims) -> Self {
        let issuer = core.issuer.to_owned();
        Self::new(core, Use::Gateway, vec![issuer], None, Some(session), Some(delegation))
    }

    /// A resource mandate: to the granted resources, under the root of the presented mandate.
    pub fn resource(
        core: Core<'_>,
        root: Option<AuthorityRecordId>,
        session: Option<AgentSessionId>,
        delegation: Option<DelegationClaims>,
    ) -> Self {
        let audience = core.targets.iter().map(ToString::to_string).collect();
        Self::new(core, Use::Resource, audience, root, session, delegation)
    }

    fn new(
        core: Core<'_>,
        r#use: Use,
        aud: Vec<String>,
        root: Option<AuthorityRecordId>,
        session: Option<AgentSessionId>,
        delegation: Option<DelegationClaims>,
    ) -> Self {
        let mut claims = Self {
            iss: core.issuer.to_owned(),
            sub: core.subject.to_owned(),
            aud,
            exp: core.lifetime.expires_at_seconds(),
            iat: core.lifetime.issued_at(),
            jti: core.jti.clone(),
            zone_id: core.zone.clone(),
            client_id: core.client.clone(),
            sid: core.record.clone(),
            root_sid: root.unwrap_or_else(|| core.record.clone()),
            r#use,
            sub_type: core.kind,
            scope: core.scope.to_owned(),
            target: core.targets,
            agent_session_id: session,
            delegation_edge_id: None,
            source_session_id: None,
            target_session_id: None,
            delegation_path: Vec::new(),
            delegation_chain: Vec::new(),
            hop_count: 0,
            delegation_graph_epoch: 0,
        };
        if let Some(delegation) = delegation {
            claims.delegation_edge_id = Some(delegation.edge);
            claims.source_session_id = Some(delegation.source);
            claims.target_session_id = Some(delegation.target);
            claims.hop_count = delegation.path.len();
            claims.delegation_path = delegation.path;
            claims.delegation_chain = delegation.chain;
            claims.delegation_graph_epoch = delegation.epoch;
        }
        claims
    }

    /// Its own id.
    pub fn jti(&self) -> &MandateId {
        &self.jti
    }

    /// The payload to sign, under a JOSE header of `header_bytes` bytes of JSON, never larger than a mandate may be.
    ///
    /// A deep lineage would exceed [`MAX_TOKEN_BYTES`] by naming everything twice. Then, and only then, the chain
    /// leaves out what other claims already say: first the edge ids (`delegation_path` has them in the same order),
    /// then the session ids. Both members are optional for every verifier; the applications always stay.
    pub fn to_payload(mut self, header_bytes: usize) -> Result<Vec<u8>, TooLarge> {
        let forget: [fn(&mut ChainHop); 3] =
            [|_| {}, |hop| hop.delegation_edge_id = None, |hop| hop.agent_session_id = None];
        let mut bytes = 0;
        for forget in forget {
            self.delegation_chain.iter_mut().for_each(forget);
            // Serialising typed claims cannot fail; if it ever did, the mandate would not exist.
            let payload = serde_json::to_vec(&self).map_err(|_| TooLarge { bytes: usize::MAX })?;
            bytes = token_bytes(header_bytes, payload.len());
            if bytes <= MAX_TOKEN_BYTES {
                return Ok(payload);
            }
        }
        Err(TooLarge { bytes })
    }
}

/// The size of a compact ES256 token, in bytes, from the sizes of its header and payload as JSON.
pub fn token_bytes(header: usize, payload: usize) -> usize {
    let base64url = |bytes: usize| (bytes * 4).div_ceil(3);
    base64url(header) + 1 + base64url(payload) + 1 + SIGNATURE_BYTES
}

fn is_zero_hops(value: &usize) -> bool {
    *value == 0
}

fn is_zero_epoch(value: &u64) -> bool {
    *value == 0
}
