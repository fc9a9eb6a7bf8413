//! Where a zone's approval events are sent (contract: admin-api.md §5.10). Who sends them: [`crate::notifications`].

pub(crate) mod create;
pub(crate) mod deliveries;
pub(crate) mod list;
pub(crate) mod read;
pub(crate) mod remove;
pub(crate) mod rotate_secret;
pub(crate) mod update;
mod url;

use caracal_authority::{NotificationSinkId, Timestamp, ZoneId};
use caracal_crypto::{SecretText, chance, encoding};
use caracal_ledger::EventType;
use caracal_store::ZoneRead;
use caracal_store::notification_sinks::{self, Sink};
use serde::Serialize;

use crate::input::{Fields, Form, Mismatch, Text};
use crate::openapi::shape::described;
use crate::problem::Refusal;

const INVALID: &str = "invalid_sink";
const NAME: Text = Text::exact(1, 120);
const URL: Text = Text::exact(1, 2048);

/// The events of approvals, which a sink gets that names none.
pub(crate) const APPROVALS: [&str; 3] = ["step_up_issued", "step_up_decided", "step_up_consumed"];

/// Every event that can be sent, in the order in which a sink's are stored: the contract's three, then all others that are
/// recorded, for whoever collects security events of many systems.
pub(crate) fn all_types() -> Vec<&'static str> {
    let others = EventType::ALL.iter().map(EventType::as_str).filter(|name| !APPROVALS.contains(name));
    APPROVALS.into_iter().chain(others).collect()
}

const EVENT: Form = Form {
    pattern: "^[a-z]+([._][a-z]+)*$",
    is: |name| all_types().contains(&name),
    what: "expected a type of event that is recorded, such as step_up_issued or token_exchange",
};

described! {
    /// A sink as answers show it: of its secret nothing.
    #[derive(Serialize)]
    pub(crate) struct View<'a> {
        id: &'a NotificationSinkId,
        zone_id: &'a ZoneId,
        name: &'a str,
        url: &'a str,
        event_types: &'a [String],
        active: bool,
        consecutive_failures: i64,
        last_success_at: Option<Timestamp>,
        last_failure_at: Option<Timestamp>,
        last_error: Option<&'a str>,
        created_at: Timestamp,
        updated_at: Timestamp,
    }
}

impl<'a> From<&'a Sink> for View<'a> {
    fn from(row: &'a Sink) -> Self {
        Self {
            id: &row.id,
            zone_id: &row.zone_id,
            name: &row.name,
            url: &row.url,
            event_types: &row.event_types,
            active: row.active,
            consecutive_failures: row.consecutive_failures,
            last_success_at: row.last_success_at,
            last_failure_at: row.last_failure_at,
            last_error: row.last_error.as_deref(),
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

described! {
    /// The same in the one answer that shows the secret.
    #[derive(Serialize)]
    struct WithSecret<'a> {
        #[serde(flatten)]
        shown: View<'a>,
        secret: &'a str,
    }
}

impl<'a> WithSecret<'a> {
    fn of(row: &'a Sink, secret: &'a SecretText) -> Self {
        Self { shown: row.into(), secret: secret.expose() }
    }
}

/// `nsk_` and 192 random bits in hex.
fn draw_secret() -> Result<SecretText, Refusal> {
    Ok(SecretText::new(format!("nsk_{}", encoding::hex(&chance::random_bytes::<24>()?))))
}

async fn existing(tx: &mut ZoneRead<'_>, id: &NotificationSinkId) -> Result<Sink, Refusal> {
    notification_sinks::lookup(tx, id).await?.ok_or_else(missing)
}

fn missing() -> Refusal {
    Refusal::missing("sink_not_found")
}

/// The member `event_types`: some of [`all_types`], each once and in their order.
fn event_types(fields: &mut Fields) -> Result<Option<Vec<String>>, Mismatch> {
    let all = all_types();
    let Some(named) = fields.texts("event_types", (1, all.len()), Text::exact(1, 64).like(EVENT))? else {
        return Ok(None);
    };
    let wanted = |known: &&str| named.iter().any(|name| name == known);
    Ok(Some(all.into_iter().filter(wanted).map(str::to_owned).collect()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_can_be_sent_is_what_is_recorded_and_the_events_of_approvals_come_first() {
        let all = all_types();
        assert_eq!(all[..3], APPROVALS);
        assert!(EventType::ALL.iter().all(|known| all.contains(&known.as_str())) && all.len() == EventType::ALL.len());
    }

    #[test]
    fn types_are_kept_once_and_in_their_order() {
        let read =
            |types: serde_json::Value| event_types(&mut Fields::of(Some(json!({"event_types": types}))).unwrap());
        let expected = ["step_up_issued", "step_up_consumed", "token_exchange"].map(str::to_owned).to_vec();
        let given = json!(["token_exchange", "step_up_consumed", "step_up_issued", "step_up_consumed"]);
        assert_eq!(read(given).unwrap(), Some(expected));
        let too_many = json!(vec![APPROVALS[0]; all_types().len() + 1]);
        for bad in [json!([]), json!(["step_up"]), json!(null), json!("step_up_issued"), too_many] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_secret_is_nsk_and_48_hex_digits() {
        let secret = draw_secret().unwrap();
        let digits = secret.expose().strip_prefix("nsk_").unwrap();
        assert!(digits.len() == 48 && digits.bytes().all(|byte| b"0123456789abcdef".contains(&byte)));
        assert_ne!(secret.expose(), draw_secret().unwrap().expose());
    }
}
