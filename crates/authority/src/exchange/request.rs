//! What a caller asks for, after the form has been parsed (contract: sts.md §3.2, §3.6).

use std::str::FromStr;

use crate::control::SCOPE_PREFIX;
use crate::mandate::{Claims, Use};
use crate::resource::UpstreamCall;
use crate::scope::{Requested, Scopes};
use crate::{AgentSessionId, ApplicationId, AuthorityRecordId, EdgeId, ZoneId};

/// A reference as the caller wrote it. Text that is no id names nothing, so it ends where an unknown id ends (403),
/// not as a malformed request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Asserted<T> {
    /// No such field, or an empty one.
    #[default]
    Absent,
    /// An id.
    Id(T),
    /// Text that cannot be an id.
    NotAnId,
}

impl<T: FromStr> Asserted<T> {
    /// From the form field, which may be absent.
    pub fn parse(field: Option<&str>) -> Self {
        match field {
            None | Some("") => Self::Absent,
            Some(text) => text.parse().map_or(Self::NotAnId, Self::Id),
        }
    }
}

impl<T> Asserted<T> {
    /// Whether the caller asserted nothing.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// The id, when there is one.
    pub fn id(&self) -> Option<&T> {
        match self {
            Self::Id(id) => Some(id),
            Self::Absent | Self::NotAnId => None,
        }
    }
}

/// Who sent the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// The application itself, with its secret.
    Application,
    /// The Gateway, whose signature verified, on the application's behalf; with what will go upstream. An unsigned
    /// caller's method and path never become one of these.
    Gateway(UpstreamCall),
}

/// Whether a subject token came along, and which type it claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SubjectToken {
    /// None.
    None,
    /// A mandate.
    AccessToken,
    /// An identity provider's token.
    IdToken,
}

/// An empty `resource` field (400).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a resource is empty")]
pub struct EmptyResource;

/// The requested resource names: trimmed, distinct, byte-sorted. A name is an identifier or a row id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResourceNames(Vec<String>);

impl ResourceNames {
    /// From the `resource` fields, in any order.
    pub fn parse<'a>(fields: impl IntoIterator<Item = &'a str>) -> Result<Self, EmptyResource> {
        let mut names = fields
            .into_iter()
            .map(|field| Some(field.trim().to_owned()).filter(|name| !name.is_empty()).ok_or(EmptyResource))
            .collect::<Result<Vec<_>, _>>()?;
        names.sort_unstable();
        names.dedup();
        Ok(Self(names))
    }

    /// Whether nothing is requested.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// One token exchange request.
#[derive(Debug, Clone)]
pub struct Request {
    /// The zone it names.
    pub zone: ZoneId,
    /// The application it names.
    pub application: ApplicationId,
    /// Who sent it.
    pub caller: Caller,
    /// What it presents.
    pub subject_token: SubjectToken,
    /// For which resources.
    pub resources: ResourceNames,
    /// Which scopes.
    pub scope: Requested<Scopes>,
    /// `session_id`.
    pub record: Asserted<AuthorityRecordId>,
    /// `agent_session_id`.
    pub session: Asserted<AgentSessionId>,
    /// `delegation_edge_id`.
    pub delegation: Asserted<EdgeId>,
    /// `ttl_seconds`.
    pub ttl_seconds: Option<i64>,
    /// `approval_id`, non-empty.
    pub approval_id: Option<String>,
}

/// The shape of an exchange (contract: sts.md §3.6). A control key's request has the shape of a bootstrap, and ends in a
/// resource mandate for the control audience.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// An application asks for itself.
    Bootstrap,
    /// An application asks for one of its sessions, without a delegation.
    SessionBound,
    /// An application asks for one of its sessions, through a delegation to it.
    DelegatedMint,
    /// The Gateway trades a presented mandate for a resource mandate.
    GatewayExchange,
    /// An application presents a session mandate: decided, never minted.
    DirectExchange,
    /// An identity provider's token.
    Federation,
}

impl Class {
    /// The class of mandate this class of exchange ends in; nothing when it never ends in one.
    pub fn yields(self) -> Option<Use> {
        match self {
            Self::Bootstrap | Self::SessionBound | Self::Federation => Some(Use::Session),
            Self::DelegatedMint => Some(Use::Gateway),
            Self::GatewayExchange => Some(Use::Resource),
            Self::DirectExchange => None,
        }
    }
}

impl Request {
    /// Whether the Gateway signed it.
    pub fn is_gateway(&self) -> bool {
        matches!(self.caller, Caller::Gateway(_))
    }

    /// What will go upstream, from the Gateway only.
    pub fn upstream_call(&self) -> Option<&UpstreamCall> {
        match &self.caller {
            Caller::Gateway(call) => Some(call),
            Caller::Application => None,
        }
    }

    /// Whether it has the shape of a control key's request: an application asks for itself alone, for nothing but the
    /// control audience and control scopes (contract: sts.md §3.5).
    pub fn is_for_control(&self, control_audience: &str) -> bool {
        self.class() == Class::Bootstrap
            && self.record.is_absent()
            && !self.resources.is_empty()
            && self.resources.iter().all(|name| name == control_audience)
            && !self.scope.get().is_empty()
            && self.scope.get().listed().iter().all(|scope| scope.as_str().starts_with(SCOPE_PREFIX))
    }

    /// Its shape.
    pub fn class(&self) -> Class {
        match (self.subject_token, &self.caller) {
            (SubjectToken::IdToken, _) => Class::Federation,
            (_, Caller::Gateway(_)) => Class::GatewayExchange,
            (SubjectToken::AccessToken, Caller::Application) => Class::DirectExchange,
            (SubjectToken::None, Caller::Application) if !self.delegation.is_absent() => Class::DelegatedMint,
            (SubjectToken::None, Caller::Application) if !self.session.is_absent() => Class::SessionBound,
            (SubjectToken::None, Caller::Application) => Class::Bootstrap,
        }
    }
}

/// What a request refers to once the presented mandate has had its say: what the snapshot must contain beside the
/// client, the requested resources and the time. The session brings the record it is anchored to, the edge its whole
/// lineage and its source session with that session's record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct References {
    /// The authority record.
    pub record: Option<AuthorityRecordId>,
    /// The governed session.
    pub session: Option<AgentSessionId>,
    /// The delegation.
    pub delegation: Option<EdgeId>,
}

impl References {
    /// The references of `request` with the verified claims of its subject token, which fill what the form leaves
    /// empty. A contradiction between them is for the decision to refuse.
    pub fn of(request: &Request, subject: Option<&Claims>) -> Self {
        Self {
            record: pick(&request.record, subject.and_then(|claims| claims.record.as_ref())),
            session: pick(&request.session, subject.and_then(|claims| claims.session.as_ref())),
            delegation: pick(&request.delegation, subject.and_then(|claims| claims.delegation.as_ref())),
        }
    }
}

fn pick<T: Clone>(asserted: &Asserted<T>, presented: Option<&T>) -> Option<T> {
    presented.or(asserted.id()).cloned()
}
