//! One zone with one application, two sessions, one delegation and one resource; and the exchanges it allows.

use std::str::FromStr;

use serde_json::{Value, json};

use crate::Timestamp;
use crate::approval::{Approver, Binding, Hold, Privacy};
use crate::delegation::{Constraints, Edge, EdgeStatus};
use crate::exchange::{
    ApprovalTier, Asserted, Caller, Client, Connection, Counsel, Facts, Outcome, PolicyAnswer, PolicyQuestion, Rate,
    Request, ResourceFacts, ResourceNames, SubjectToken, decide,
};
use crate::federation::{IdTokenClaims, PresentedIdToken, Registration, VerifiedIdToken};
use crate::mandate::Claims;
use crate::record::{RecordFacts, RecordStatus, SubjectKind};
use crate::resource::{
    AttachedProvider, Operation, OperationEnforcement, ProviderKind, Resource, ResourceIdentifier, ResourceRef,
    UpstreamCall,
};
use crate::scope::{Requested, Scope, Scopes};
use crate::session::{Life, SessionFacts, SessionStatus};

/// Second 10,000 and a half: fractions must not matter.
pub(super) const NOW_MICROS: i64 = 10_000_500_000;

pub(super) fn now() -> Timestamp {
    Timestamp::from_micros(NOW_MICROS)
}

/// `now` and so many seconds.
pub(super) fn later(seconds: i64) -> Timestamp {
    Timestamp::from_micros(NOW_MICROS + seconds * 1_000_000)
}

pub(super) fn id<T: FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().unwrap()
}

pub(super) fn scopes(text: &str) -> Scopes {
    Scopes::from_list(text.split_whitespace().map(|scope| Scope::parse(scope).unwrap()).collect())
}

pub(super) fn constraints(value: Value) -> Constraints {
    Constraints::parse_value(&value).unwrap()
}

pub(super) fn identifier(text: &str) -> ResourceIdentifier {
    ResourceIdentifier::parse(text).unwrap()
}

pub(super) fn row(row: &str, name: &str) -> ResourceRef {
    ResourceRef { id: id(row), identifier: identifier(name) }
}

/// An edge of application `app-1`, live for 3000 s, `docs:read docs:write`, tied to `resource://docs` by name.
pub(super) fn edge(name: &str, parent: Option<&str>, source: &str, target: &str) -> Edge {
    Edge {
        id: id(name),
        zone: id("z-1"),
        parent: parent.map(id),
        source: id(source),
        target: id(target),
        issuer: id("app-1"),
        receiver: id("app-1"),
        resource: None,
        scopes: scopes("docs:read docs:write"),
        constraints: Some(constraints(json!({"resources": ["resource://docs"]}))),
        status: EdgeStatus::Active,
        expires_at: later(3_000),
    }
}

pub(super) fn record(name: &str) -> RecordFacts {
    RecordFacts {
        id: id(name),
        zone: id("z-1"),
        kind: SubjectKind::Application,
        subject: "app-1".into(),
        client: id("app-1"),
        parent: None,
        status: RecordStatus::Active,
        expires_at: later(3_500),
    }
}

pub(super) fn session(name: &str) -> SessionFacts {
    SessionFacts {
        id: id(name),
        zone: id("z-1"),
        application: id("app-1"),
        parent: None,
        subject_record: id("rec-anchor"),
        labels: vec!["reader".into()],
        depth: 0,
        status: SessionStatus::Active,
        started_at: now(),
        life: Life::Task { ttl_seconds: 3_600 },
    }
}

pub(super) fn resource(row_id: &str, name: &str) -> Resource {
    Resource {
        zone: id("z-1"),
        name: row(row_id, name),
        has_upstream: true,
        scopes: scopes("docs:read docs:write"),
        operations: vec![Operation {
            method: "GET".into(),
            path: "/docs/{id}".into(),
            scope: Scope::parse("docs:read").unwrap(),
        }],
        enforcement: OperationEnforcement::Enforced,
        provider: Some(AttachedProvider { id: id("prov-1"), kind: Some(ProviderKind::ApiKey) }),
    }
}

pub(super) fn found(requested: &str, resource: Resource) -> ResourceFacts {
    ResourceFacts {
        requested: requested.into(),
        resource,
        upstream: Some("https://docs.example".into()),
        connection: Connection::NotProvisioned,
    }
}

/// What policy and the limiter say, and what they were asked.
pub(super) struct Advice {
    pub(super) rate: Rate,
    pub(super) answer: PolicyAnswer,
    pub(super) asked: Vec<String>,
    pub(super) counted: Vec<String>,
}

impl Counsel for Advice {
    fn rate(&mut self, resource: &Resource) -> Rate {
        self.counted.push(resource.name.identifier.to_string());
        self.rate
    }

    fn policy(&mut self, question: &PolicyQuestion<'_>) -> PolicyAnswer {
        self.asked.push(question.resource.name.identifier.to_string());
        self.answer.clone()
    }
}

pub(super) fn allow() -> PolicyAnswer {
    PolicyAnswer::Allow { determining: vec!["caracal-docs-mint".into()], diagnostics: json!([]), tiers: vec![] }
}

pub(super) fn allow_if_approved(tier: &str) -> PolicyAnswer {
    let tier = ApprovalTier { tier: tier.into(), approver: None, ttl_seconds: None, privacy: None };
    PolicyAnswer::Allow { determining: vec![], diagnostics: json!([]), tiers: vec![tier] }
}

pub(super) fn deny(reason: &str) -> PolicyAnswer {
    PolicyAnswer::Deny { reason: reason.into(), determining: vec![], diagnostics: json!([{"reason": reason}]) }
}

/// A hold of `app-1` for session `s-2` that waits for an operator for an hour.
pub(super) fn hold() -> Hold {
    Hold {
        id: id("0b9f7a9e-8f52-4a51-9d2c-6f3f5d1f0a11"),
        zone: id("z-1"),
        principal: "app-1".into(),
        record: None,
        application: Some(id("app-1")),
        session: Some(id("s-2")),
        delegation: Some(id("e-1")),
        labels: vec!["reader".into()],
        requesting: vec![id("rec-anchor")],
        tier: "payments".into(),
        approver: Approver::Operator,
        privacy: Privacy::Identified,
        subject_anchor: None,
        binding: Binding::parse(&"a".repeat(64)).unwrap(),
        expires_at: later(3_600),
        approved_at: None,
        rejected_at: None,
        consumed: None,
    }
}

/// A request, the facts it meets and the advice given: change one thing and see.
pub(super) struct Case {
    pub(super) request: Request,
    pub(super) facts: Facts,
    pub(super) advice: Advice,
}

impl Case {
    pub(super) fn decide(&mut self) -> Outcome {
        decide(&self.request, &self.facts, &mut self.advice)
    }

    /// The refusal's name, or `granted`.
    pub(super) fn name(&mut self) -> &'static str {
        self.decide().refusal().map_or("granted", |refusal| refusal.name())
    }

    pub(super) fn subject(&mut self) -> &mut Claims {
        self.facts.subject.as_mut().unwrap()
    }

    pub(super) fn record(&mut self, name: &str) -> &mut RecordFacts {
        self.facts.records.iter_mut().find(|record| record.id.as_str() == name).unwrap()
    }

    pub(super) fn session(&mut self, name: &str) -> &mut SessionFacts {
        self.facts.sessions.iter_mut().find(|session| session.id.as_str() == name).unwrap()
    }

    pub(super) fn leaf(&mut self) -> &mut Edge {
        self.facts.lineage.last_mut().unwrap()
    }

    pub(super) fn resource(&mut self) -> &mut Resource {
        &mut self.facts.resources[0].resource
    }
}

/// `agent:lifecycle` on the resource, for the application itself.
pub(super) fn bootstrap() -> Case {
    let mut facts = Facts::none("caracal-control");
    facts.now = Some(now());
    facts.client = Some(Client { id: id("app-1"), zone: id("z-1"), expires_at: None, control: None });
    facts.resources = vec![found("resource://docs", resource("res-1", "resource://docs"))];
    let request = Request {
        zone: id("z-1"),
        application: id("app-1"),
        caller: Caller::Application,
        subject_token: SubjectToken::None,
        resources: ResourceNames::parse(["resource://docs"]).unwrap(),
        scope: Requested::new(Scopes::from_text("agent:lifecycle")),
        record: Asserted::Absent,
        session: Asserted::Absent,
        delegation: Asserted::Absent,
        ttl_seconds: None,
        approval_id: None,
    };
    let advice = Advice { rate: Rate::Within, answer: allow(), asked: vec![], counted: vec![] };
    Case { request, facts, advice }
}

/// `docs:read` for session `s-2`, through edge `e-1` from session `s-1`.
pub(super) fn mint() -> Case {
    let mut case = bootstrap();
    case.request.scope = Requested::new(Scopes::from_text("docs:read"));
    case.request.session = Asserted::Id(id("s-2"));
    case.request.delegation = Asserted::Id(id("e-1"));
    case.facts.records = vec![record("rec-anchor")];
    case.facts.sessions = vec![session("s-1"), session("s-2")];
    case.facts.lineage = vec![edge("e-1", None, "s-1", "s-2")];
    case.facts.epoch = Some(7);
    case
}

pub(super) fn claims(value: Value) -> Claims {
    Claims::parse(value.as_object().unwrap()).unwrap()
}

/// The mandate that [`mint`] ends in, presented by the Gateway for `GET /docs/7`.
pub(super) fn gateway() -> Case {
    let mut case = mint();
    case.request.caller = Caller::Gateway(UpstreamCall { method: "GET".into(), path: "/docs/7".into() });
    case.request.subject_token = SubjectToken::AccessToken;
    case.request.scope = Requested::new(Scopes::none());
    case.request.session = Asserted::Absent;
    case.request.delegation = Asserted::Absent;
    case.facts.records.push(RecordFacts { expires_at: later(900), ..record("rec-mint") });
    case.facts.subject = Some(claims(json!({
        "iss": "http://issuer", "aud": ["http://issuer"], "sub": "app-1", "exp": 10_900, "iat": 10_000,
        "jti": "jti-1", "zone_id": "z-1", "client_id": "app-1", "sid": "rec-mint", "root_sid": "rec-root",
        "use": "gateway", "sub_type": "application", "scope": "docs:read", "target": ["resource://docs"],
        "agent_session_id": "s-2", "delegation_edge_id": "e-1",
    })));
    case
}

/// A session mandate presented by the application itself.
pub(super) fn direct() -> Case {
    let mut case = bootstrap();
    case.request.subject_token = SubjectToken::AccessToken;
    case.facts.records = vec![record("rec-anchor")];
    case.facts.subject = Some(claims(json!({
        "iss": "http://issuer", "aud": ["http://issuer"], "sub": "app-1", "exp": 10_900, "iat": 10_000,
        "jti": "jti-1", "zone_id": "z-1", "client_id": "app-1", "sid": "rec-anchor", "root_sid": "rec-anchor",
        "use": "session", "sub_type": "application", "scope": "agent:lifecycle",
    })));
    case
}

pub(super) fn registration() -> Registration {
    Registration {
        id: id("idp-1"),
        issuer: "https://idp.example".into(),
        jwks_url: "https://idp.example/keys".into(),
        audience: "caracal".into(),
    }
}

/// What the identity provider says of `user-1`, for 600 s.
pub(super) fn id_token() -> Value {
    json!({"iss": "https://idp.example", "aud": "caracal", "sub": "user-1", "exp": 10_600, "iat": 10_000})
}

pub(super) fn presented(claims: &Value) -> PresentedIdToken {
    let claims = IdTokenClaims::parse(claims.as_object().unwrap());
    PresentedIdToken {
        verified: claims.map(|claims| VerifiedIdToken { claims, under: registration() }),
        registration: Some(registration()),
    }
}

/// A verified id_token, relayed by the application.
pub(super) fn federation() -> Case {
    let mut case = bootstrap();
    case.request.subject_token = SubjectToken::IdToken;
    case.request.resources = ResourceNames::default();
    case.request.scope = Requested::new(Scopes::none());
    case.facts.resources.clear();
    case.facts.federation = Some(presented(&id_token()));
    case
}
