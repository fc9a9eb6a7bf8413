//! What waits for a human: raising it, asking after it, deciding it (contract: sts.md §7).
//!
//! - `holds`: a hold as it is stored, recorded and told. That it is raised, and spent, is the exchange's.
//! - `status`: who asked for authority asks whether it was approved, and waits.
//! - `waiters`: how they wait without asking the store each for themselves.
//! - `decision`: the user for whom an agent works says yes or no. Operators do so through the Admin API.

pub(crate) mod decision;
pub(crate) mod holds;
pub(crate) mod status;
pub(crate) mod waiters;

use std::time::Duration;

use caracal_authority::ApprovalId;
use caracal_authority::Timestamp;
use caracal_authority::approval::HoldState;
use serde::Serialize;

/// What a held request is told to do (§7.3).
pub(crate) const CHALLENGE: &str = r#"Bearer error="interaction_required""#;

/// The longest that one request waits for a decision, in seconds (§7.6).
const LONGEST_WAIT: Duration = Duration::from_secs(25);

/// What anybody who knows the id is told, and nothing else: neither who decided, nor what was asked (§7.6).
#[derive(Serialize)]
struct Told<'t> {
    id: &'t ApprovalId,
    state: &'static str,
    expires_at: String,
}

impl<'t> Told<'t> {
    fn of(id: &'t ApprovalId, state: HoldState, expires_at: Timestamp) -> Self {
        Self { id, state: state.as_str(), expires_at: expires_at.to_seconds_text() }
    }
}

/// The id of a path. Ids of holds are UUIDs; anything else names none.
fn approval_id(text: &str) -> Option<ApprovalId> {
    if is_uuid(text) { ApprovalId::parse(&text.to_ascii_lowercase()).ok() } else { None }
}

/// Whether `text` has the form of a UUID, in either case.
pub(crate) fn is_uuid(text: &str) -> bool {
    let digits = |part: &str, length| part.len() == length && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut parts = text.split('-');
    let is_uuid = [8, 4, 4, 4, 12].into_iter().all(|length| parts.next().is_some_and(|part| digits(part, length)));
    is_uuid && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::approval_id;

    #[test]
    fn only_a_uuid_names_a_hold() {
        let good = "0b9f7a9e-8f52-4a51-9d2c-6f3f5d1f0a11";
        assert_eq!(approval_id(good).unwrap().as_str(), good);
        assert_eq!(approval_id(&good.to_uppercase()).unwrap().as_str(), good);
        for bad in ["", "x", &good[1..], &format!("{good}-"), &format!("{good}0"), &good.replace('-', "_"), "a-1"] {
            assert!(approval_id(bad).is_none(), "{bad}");
        }
    }
}
