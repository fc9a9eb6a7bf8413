//! What a decision will look at, asked of a server together with the opening of its snapshot.
//!
//! A decision looks at some ten rows, and each is a statement. Embedded, a statement is a function call; on a server it is
//! a round trip, and a decision that made ten of them would spend its time on the way. But nearly all of those rows are
//! named before anything is read: by the request, or by a row that the request names. So whoever decides says what it
//! knows ([`Named`]), the engine sends one statement for each kind of row behind the one that opens the snapshot, and
//! waits once for all the answers.
//!
//! The statements are in a form that leaves a server's planner one way. With `OR` over a subquery, `IN`, or a join it reads all
//! rows of the zone: always, or as long as it takes a table that has just grown for a small one.
//!
//! The repositories do not know of this. An answer is kept under the statement and the parameters it answers, so a
//! repository that runs that statement in this snapshot finds it answered. What was not foreseen is asked then: one
//! more round trip, the same facts.

use std::borrow::Cow;

use caracal_authority::{AgentSessionId, ApplicationId, ApprovalId, AuthorityRecordId, EdgeId, WorkloadId, ZoneId};

use crate::value::{Bind, Param, Row, Value};
use crate::{
    applications, approvals, delegations, policy_sets, provider_connections, providers, records, resources,
    sealed_secrets, sessions, signing_keys, subject_issuers, workloads, zones,
};

/// What is known of a decision before anything was read. Whatever is named here may be missing, or be somebody else's.
#[derive(Debug, Clone, Copy, Default, Hash)]
pub struct Named<'n> {
    /// The application that asks.
    pub application: Option<&'n ApplicationId>,
    /// The workload that asks, instead of an application.
    pub workload: Option<&'n WorkloadId>,
    /// The authority record it stands on.
    pub record: Option<&'n AuthorityRecordId>,
    /// The session it is for: comes with the record it is anchored to.
    pub session: Option<&'n AgentSessionId>,
    /// The delegation it uses: comes with its ancestors, the resources they are bound to, and the session that lends
    /// through it.
    pub delegation: Option<&'n EdgeId>,
    /// Names of the resources it wants: come with their providers.
    pub resources: &'n [&'n str],
    /// Whether the providers' secrets are needed too.
    pub secrets: bool,
    /// Whose accounts at those providers are needed too.
    pub account_of: Option<&'n str>,
    /// The approval it brings.
    pub approval: Option<&'n ApprovalId>,
    /// The identity provider that is to have vouched for a user.
    pub subject_issuer: Option<&'n str>,
}

/// A statement by a table's key. Used by the lookups themselves too, so that one can stand for the other.
pub(crate) fn by_id(table: &str, columns: &str) -> String {
    format!("SELECT {columns} FROM {table} WHERE zone_id = ?1 AND id = ?2")
}

/// A statement that is sent ahead.
pub(crate) struct Ask {
    pub(crate) sql: Cow<'static, str>,
    pub(crate) params: Vec<Value>,
    answers: Answers,
}

/// What the rows of a statement are an answer to.
enum Answers {
    /// The statement itself.
    Itself,
    /// Each row is the answer to the lookup of its key, which is its second column. Those named are known to be missing
    /// when there is no row for them.
    Lookups { sql: String, named: Vec<Value> },
    /// The second column of each row is the answer to `sql` for the first.
    Values { sql: &'static str },
    /// For each provider, which is the fourth column, the first row is the answer to `sql` for it and `whose`.
    FirstOfProviders { sql: String, whose: [Value; 2] },
}

/// Answers that are at hand, of one snapshot.
#[derive(Default)]
pub(crate) struct Ahead {
    known: Vec<(Cow<'static, str>, Vec<Value>, Vec<Row>)>,
}

impl Ahead {
    /// Keeps the answer to `ask`, asked in `zone`.
    pub(crate) fn keep(&mut self, zone: &ZoneId, ask: Ask, rows: Vec<Row>) {
        let zone = Value::Text(zone.as_str().to_owned());
        match ask.answers {
            Answers::Itself => self.known.push((ask.sql, ask.params, rows)),
            Answers::Values { sql } => {
                for row in rows {
                    let mut values = row.values.into_iter();
                    let (Some(key), Some(value)) = (values.next(), values.next()) else { continue };
                    self.known.push((sql.into(), vec![zone.clone(), key], vec![Row { values: vec![value] }]));
                }
            }
            Answers::FirstOfProviders { sql, whose: [subject, shared] } => {
                let mut last = None;
                for row in rows {
                    let Some(provider) = row.values.get(3).cloned() else { continue };
                    if last.as_ref() != Some(&provider) {
                        let params = vec![zone.clone(), provider.clone(), subject.clone(), shared.clone()];
                        self.known.push((sql.clone().into(), params, vec![row]));
                    }
                    last = Some(provider);
                }
            }
            Answers::Lookups { sql, named } => {
                for id in named {
                    if rows.iter().all(|row| row.values.get(1) != Some(&id)) {
                        self.known.push((sql.clone().into(), vec![zone.clone(), id], Vec::new()));
                    }
                }
                for row in rows {
                    let Some(id) = row.values.get(1).cloned() else { continue };
                    self.known.push((sql.clone().into(), vec![zone.clone(), id], vec![row]));
                }
            }
        }
    }

    /// The answer to `sql`, if it is at hand.
    pub(crate) fn find(&self, sql: &str, params: &[Param<'_>]) -> Option<Vec<Row>> {
        let is_asked = |given: &[Value]| {
            given.len() == params.len() && given.iter().zip(params).all(|(value, param)| value.is_bound_as(*param))
        };
        self.known.iter().find(|(text, given, _)| text == sql && is_asked(given)).map(|(_, _, rows)| rows.clone())
    }
}

/// The edge named at ?2 and its ancestors. `UNION` ends a line that bites its own tail. `OFFSET 0` has each ancestor looked
/// up (see [`looked_up`]).
const LINE: &str = "WITH RECURSIVE line (id, parent) AS (
       SELECT id, parent_edge_id FROM delegation_edges WHERE zone_id = ?1 AND id = ?2
       UNION SELECT e.id, e.parent_edge_id FROM line l, LATERAL (
         SELECT id, parent_edge_id FROM delegation_edges WHERE zone_id = ?1 AND id = l.parent OFFSET 0) e)";

impl Named<'_> {
    /// The statements to send, in the order of their answers.
    pub(crate) fn asks(&self, zone: &ZoneId) -> Vec<Ask> {
        let zone = Value::Text(zone.as_str().to_owned());
        let itself = |sql: Cow<'static, str>, params: Vec<Value>| Ask { sql, params, answers: Answers::Itself };
        let of_zone = |sql: Cow<'static, str>| itself(sql, vec![zone.clone()]);
        let mut asks = Vec::new();
        if let Some(application) = self.application {
            asks.push(itself(
                by_id("applications", applications::COLUMNS).into(),
                vec![zone.clone(), text(application)],
            ));
            asks.push(of_zone(zones::lookup_sql().into()));
            asks.push(of_zone(policy_sets::FIND_ACTIVE.into()));
            asks.push(of_zone(signing_keys::TURNS.into()));
        }
        if let Some(workload) = self.workload {
            asks.push(itself(by_id("workloads", workloads::COLUMNS).into(), vec![zone.clone(), text(workload)]));
            asks.push(of_zone(zones::lookup_sql().into()));
            asks.push(of_zone(policy_sets::FIND_ACTIVE.into()));
        }
        if let Some(issuer) = self.subject_issuer {
            let params = vec![zone.clone(), Value::Text(issuer.to_owned())];
            asks.push(itself(subject_issuers::find_by_issuer_sql().into(), params));
        }
        if self.record.is_some() || self.session.is_some() || self.delegation.is_some() {
            asks.push(self.records(&zone));
        }
        if self.session.is_some() || self.delegation.is_some() {
            asks.push(self.sessions(&zone));
        }
        if let Some(edge) = self.delegation {
            let named = vec![text(edge)];
            let (edges, bound) = (delegations::COLUMNS, resources::COLUMNS);
            asks.push(Ask {
                sql: format!("{LINE} {}", looked_up("delegation_edges", edges, "SELECT id FROM line")).into(),
                params: vec![zone.clone(), text(edge)],
                answers: Answers::Lookups { sql: by_id("delegation_edges", edges), named },
            });
            let bound_to = looked_up("delegation_edges", "resource_id AS id", "SELECT id FROM line");
            asks.push(Ask {
                sql: format!("{LINE} {}", looked_up("resources", bound, &bound_to)).into(),
                params: vec![zone.clone(), text(edge)],
                answers: Answers::Lookups { sql: by_id("resources", bound), named: Vec::new() },
            });
            asks.push(of_zone(delegations::EPOCH.into()));
        }
        if let Some(approval) = self.approval {
            asks.push(itself(by_id("approvals", approvals::COLUMNS).into(), vec![zone.clone(), text(approval)]));
        }
        for name in self.resources {
            let params = || vec![zone.clone(), Value::Text((*name).to_owned())];
            asks.push(itself(resources::find_by_name_sql().into(), params()));
            asks.push(Ask {
                sql: format!(
                    "SELECT {} FROM providers WHERE zone_id = ?1 AND id IN (SELECT credential_provider_id FROM resources
                       WHERE zone_id = ?1 AND archived_at IS NULL AND (identifier = ?2 OR id = ?2))",
                    providers::COLUMNS
                )
                .into(),
                params: params(),
                answers: Answers::Lookups { sql: by_id("providers", providers::COLUMNS), named: Vec::new() },
            });
            if self.secrets {
                asks.push(Ask {
                    sql: sealed_secrets::OF_A_RESOURCE.into(),
                    params: params(),
                    answers: Answers::Values { sql: sealed_secrets::LOOKUP },
                });
            }
        }
        if let Some(subject) = self.account_of {
            asks.extend(self.resources.iter().map(|name| accounts(&zone, name, subject)));
        }
        asks
    }

    /// The record named, and those that the sessions are anchored to.
    fn records(&self, zone: &Value) -> Ask {
        let columns = records::COLUMNS;
        let lender = "SELECT source_session_id AS id FROM delegation_edges WHERE zone_id = ?1 AND id = ?4";
        let sessions = format!("SELECT CAST(?3 AS text) AS id UNION {lender}");
        let anchors = looked_up("agent_sessions", "subject_record_id AS id", &sessions);
        let anchors = format!("SELECT CAST(?2 AS text) AS id UNION {anchors}");
        Ask {
            sql: looked_up("authority_records", columns, &anchors).into(),
            params: vec![zone.clone(), maybe(self.record), maybe(self.session), maybe(self.delegation)],
            answers: Answers::Lookups {
                sql: by_id("authority_records", columns),
                named: self.record.iter().map(text).collect(),
            },
        }
    }

    /// The session named, and the one that lends through the delegation.
    fn sessions(&self, zone: &Value) -> Ask {
        let columns = sessions::COLUMNS;
        let lender = "SELECT source_session_id AS id FROM delegation_edges WHERE zone_id = ?1 AND id = ?3";
        let sessions = format!("SELECT CAST(?2 AS text) AS id UNION {lender}");
        Ask {
            sql: looked_up("agent_sessions", columns, &sessions).into(),
            params: vec![zone.clone(), maybe(self.session), maybe(self.delegation)],
            answers: Answers::Lookups {
                sql: by_id("agent_sessions", columns),
                named: self.session.iter().map(text).collect(),
            },
        }
    }
}

/// The accounts that `subject` may use at the provider of a resource.
fn accounts(zone: &Value, resource: &str, subject: &str) -> Ask {
    let text = |text: &str| Value::Text(text.to_owned());
    let (subject, shared) = (text(subject), text(provider_connections::SHARED_SUBJECT));
    Ask {
        sql: format!(
            "SELECT {} FROM provider_connections
             WHERE zone_id = ?1 AND provider_id IN (SELECT credential_provider_id FROM resources
               WHERE zone_id = ?1 AND archived_at IS NULL AND (identifier = ?2 OR id = ?2))
               AND subject_id IN (?3, ?4) AND status = 'active'
             ORDER BY provider_id, CASE WHEN subject_id = ?3 THEN 0 ELSE 1 END, created_at DESC, id DESC",
            provider_connections::COLUMNS
        )
        .into(),
        params: vec![zone.clone(), text(resource), subject.clone(), shared.clone()],
        answers: Answers::FirstOfProviders { sql: provider_connections::find_usable_sql(), whose: [subject, shared] },
    }
}

/// The rows of `table` whose ids the statement `ids` gives, each looked up by its key. `OFFSET 0` is what leaves no other way.
fn looked_up(table: &str, columns: &str, ids: &str) -> String {
    format!(
        "SELECT found.* FROM ({ids}) wanted, LATERAL (
           SELECT {columns} FROM {table} WHERE zone_id = ?1 AND id = wanted.id OFFSET 0) found"
    )
}

fn text(id: &impl Bind) -> Value {
    Value::from_param(id.bind())
}

fn maybe(id: Option<&impl Bind>) -> Value {
    id.map_or(Value::Null, text)
}
