//! The constraints of an edge: a strict JSON object (contract: coordinator.md §6.2).

use serde_json::{Map, Value};

use crate::Timestamp;
use crate::resource::ResourceIdentifier;

/// Largest `max_hops`.
pub const MAX_HOPS: u8 = 10;
/// Largest `budget`.
pub const MAX_BUDGET: u8 = 64;
const MAX_RESOURCES: usize = 64;
const MAX_REASON_CHARS: usize = 256;
const BROAD_REASON: &str = "resource_null_delegation";

/// Every key there is, in the order in which a faulty one is reported.
const KEYS: [&str; 8] =
    ["resources", "max_hops", "max_depth", "budget", "ttl_seconds", "expires_at", "policy_approved", "broad_reason"];

/// Parsed, normalised constraints. Every field is within its bounds, and `max_depth` never contradicts `max_hops`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Constraints {
    resources: Option<Vec<ResourceIdentifier>>,
    max_hops: Option<u8>,
    max_depth: Option<u8>,
    budget: Option<u8>,
    ttl_seconds: Option<u32>,
    expires_at: Option<Timestamp>,
    policy_approved: Option<bool>,
    broad_reason: Option<String>,
}

/// Constraints that mean nothing: the first fault in the contract's precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintFault {
    /// A known key with a value out of its bounds or of the wrong type; `null` is a wrong type.
    #[error("the constraint `{0}` is out of bounds")]
    Invalid(&'static str),
    /// `max_depth` is another name for `max_hops`, and they differ.
    #[error("`max_depth` and `max_hops` differ")]
    HopsContradict,
    /// A key nobody knows, or no JSON object at all.
    #[error("unknown constraint")]
    Unknown,
}

impl ConstraintFault {
    /// The Coordinator's error code (400).
    pub fn code(self) -> &'static str {
        match self {
            Self::Invalid("resources") => "invalid_resources",
            Self::Invalid("max_hops") | Self::HopsContradict => "invalid_max_hops",
            Self::Invalid("max_depth") => "invalid_max_depth",
            Self::Invalid("budget") => "invalid_budget",
            Self::Invalid("ttl_seconds") => "invalid_ttl_seconds",
            Self::Invalid("expires_at") => "invalid_expires_at",
            Self::Invalid("policy_approved") => "invalid_policy_approved",
            Self::Invalid("broad_reason") => "invalid_broad_reason",
            Self::Invalid(_) | Self::Unknown => "invalid_delegation_constraint",
        }
    }
}

impl Constraints {
    /// No constraint of its own.
    pub fn none() -> Self {
        Self::default()
    }

    /// Parses and normalises. A faulty known key is reported before an unknown one, both before a contradiction;
    /// `max_depth` alone also sets `max_hops`.
    pub fn parse(object: &Map<String, Value>) -> Result<Self, ConstraintFault> {
        let mut parsed = Self {
            resources: known(object, "resources", resources)?,
            max_hops: known(object, "max_hops", |value| small(value, MAX_HOPS))?,
            max_depth: known(object, "max_depth", |value| small(value, MAX_HOPS))?,
            budget: known(object, "budget", |value| small(value, MAX_BUDGET))?,
            ttl_seconds: known(object, "ttl_seconds", |value| {
                value.as_u64().and_then(|ttl| u32::try_from(ttl).ok()).filter(|ttl| (1..=86_400).contains(ttl))
            })?,
            expires_at: known(object, "expires_at", |value| value.as_str().and_then(parse_date_time))?,
            policy_approved: known(object, "policy_approved", Value::as_bool)?,
            broad_reason: known(object, "broad_reason", reason)?,
        };
        if object.keys().any(|key| !KEYS.contains(&key.as_str())) {
            return Err(ConstraintFault::Unknown);
        }
        match (parsed.max_hops, parsed.max_depth) {
            (Some(hops), Some(depth)) if hops != depth => return Err(ConstraintFault::HopsContradict),
            (None, Some(depth)) => parsed.max_hops = Some(depth),
            _ => {}
        }
        Ok(parsed)
    }

    /// Parses any JSON value: what is not an object is [`ConstraintFault::Unknown`].
    pub fn parse_value(value: &Value) -> Result<Self, ConstraintFault> {
        value.as_object().ok_or(ConstraintFault::Unknown).and_then(Self::parse)
    }

    /// The ttl of the request body, unless the constraints have one of their own.
    #[must_use]
    pub fn with_default_ttl(mut self, ttl_seconds: Option<u32>) -> Self {
        self.ttl_seconds = self.ttl_seconds.or(ttl_seconds);
        self
    }

    /// What a broad edge, one that names no resource, says about itself.
    #[must_use]
    pub fn marked_broad(mut self) -> Self {
        self.policy_approved = Some(true);
        self.broad_reason.get_or_insert_with(|| BROAD_REASON.to_owned());
        self
    }

    pub(super) fn with_default_budget(mut self, budget: u8) -> Self {
        self.budget.get_or_insert(budget);
        self
    }

    /// Named resources; empty means the constraint does not speak of resources.
    pub fn resources(&self) -> &[ResourceIdentifier] {
        self.resources.as_deref().unwrap_or_default()
    }

    /// Edges from this one on, itself included: `max_hops`, 1 when unset.
    pub fn hops(&self) -> u8 {
        self.max_hops.unwrap_or(1)
    }

    /// Most scope elements a child may list.
    pub fn budget(&self) -> Option<u8> {
        self.budget
    }

    /// Longest life of a mandate minted through the edge, in seconds.
    pub fn ttl_seconds(&self) -> Option<u32> {
        self.ttl_seconds
    }

    /// The instant past which nothing minted through the edge lives.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// Why the edge names no resource.
    pub fn broad_reason(&self) -> Option<&str> {
        self.broad_reason.as_deref()
    }

    /// `constraints_json`: what is set, nothing else. Parses back to an equal value.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut object = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                object.insert(key.to_owned(), value);
            }
        };
        put("resources", self.resources.as_ref().map(|names| names.iter().map(ResourceIdentifier::as_str).collect()));
        put("max_hops", self.max_hops.map(Value::from));
        put("max_depth", self.max_depth.map(Value::from));
        put("budget", self.budget.map(Value::from));
        put("ttl_seconds", self.ttl_seconds.map(Value::from));
        put("expires_at", self.expires_at.map(|at| at.to_millis_text().into()));
        put("policy_approved", self.policy_approved.map(Value::from));
        put("broad_reason", self.broad_reason.clone().map(Value::from));
        object
    }
}

/// `YYYY-MM-DDTHH:MM[:SS[.f+]]Z` of a request, calendar-valid, cut to milliseconds: the precision it is shown with, so
/// that what is stored and what is shown are the same instant.
pub fn parse_date_time(text: &str) -> Option<Timestamp> {
    let body = text.strip_suffix('Z')?;
    let (whole, fraction) = body.split_once('.').unwrap_or((body, "0"));
    let seconds = match whole.len() {
        16 => ":00",
        19 => "",
        _ => return None,
    };
    let fraction_fits = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    if !fraction_fits || (whole.len() == 16 && body.contains('.')) {
        return None;
    }
    let millis: String = fraction.chars().take(3).collect();
    Timestamp::parse(&format!("{whole}{seconds}.{millis}Z")).ok()
}

fn known<T>(
    object: &Map<String, Value>,
    key: &'static str,
    parse: impl FnOnce(&Value) -> Option<T>,
) -> Result<Option<T>, ConstraintFault> {
    object.get(key).map(|value| parse(value).ok_or(ConstraintFault::Invalid(key))).transpose()
}

fn small(value: &Value, most: u8) -> Option<u8> {
    value.as_u64().and_then(|number| u8::try_from(number).ok()).filter(|number| (1..=most).contains(number))
}

fn resources(value: &Value) -> Option<Vec<ResourceIdentifier>> {
    let names = value.as_array().filter(|names| names.len() <= MAX_RESOURCES)?;
    names.iter().map(|name| name.as_str().and_then(|name| ResourceIdentifier::parse(name).ok())).collect()
}

fn reason(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    let fits = (1..=MAX_REASON_CHARS).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: Value) -> Result<Constraints, &'static str> {
        Constraints::parse_value(&value).map_err(ConstraintFault::code)
    }

    #[test]
    fn each_key_has_its_bounds_and_its_code() {
        let many: Vec<String> = (0..65).map(|index| format!("resource://{index}")).collect();
        for (value, code) in [
            (json!([]), "invalid_delegation_constraint"),
            (json!(null), "invalid_delegation_constraint"),
            (json!({"surprise": 1}), "invalid_delegation_constraint"),
            (json!({"resources": "a"}), "invalid_resources"),
            (json!({"resources": [""]}), "invalid_resources"),
            (json!({"resources": [1]}), "invalid_resources"),
            (json!({"resources": null}), "invalid_resources"),
            (json!({"resources": many}), "invalid_resources"),
            (json!({"max_hops": 0}), "invalid_max_hops"),
            (json!({"max_hops": 11}), "invalid_max_hops"),
            (json!({"max_hops": -1}), "invalid_max_hops"),
            (json!({"max_hops": 1.5}), "invalid_max_hops"),
            (json!({"max_hops": "1"}), "invalid_max_hops"),
            (json!({"max_depth": 11}), "invalid_max_depth"),
            (json!({"max_depth": 2, "max_hops": 3}), "invalid_max_hops"),
            (json!({"max_depth": 3, "max_hops": 2}), "invalid_max_hops"),
            (json!({"budget": 0}), "invalid_budget"),
            (json!({"budget": 65}), "invalid_budget"),
            (json!({"ttl_seconds": 0}), "invalid_ttl_seconds"),
            (json!({"ttl_seconds": 86_401}), "invalid_ttl_seconds"),
            (json!({"expires_at": "2030-01-01"}), "invalid_expires_at"),
            (json!({"expires_at": 1}), "invalid_expires_at"),
            (json!({"policy_approved": "yes"}), "invalid_policy_approved"),
            (json!({"broad_reason": ""}), "invalid_broad_reason"),
            (json!({"broad_reason": "x".repeat(257)}), "invalid_broad_reason"),
            (json!({"broad_reason": "a\nb"}), "invalid_broad_reason"),
        ] {
            assert_eq!(parse(value.clone()), Err(code), "{value}");
        }
    }

    #[test]
    fn a_known_fault_is_reported_before_an_unknown_key_and_that_before_a_contradiction() {
        assert_eq!(parse(json!({"aaa": 1, "max_hops": 0})), Err("invalid_max_hops"));
        assert_eq!(parse(json!({"budget": 0, "resources": [""]})), Err("invalid_resources"));
        assert_eq!(parse(json!({"max_depth": 2, "max_hops": 3, "zzz": 1})), Err("invalid_delegation_constraint"));
    }

    #[test]
    fn depth_is_another_name_for_hops() {
        let by_depth = parse(json!({"max_depth": 3})).unwrap();
        assert_eq!(by_depth.hops(), 3);
        assert_eq!(Value::Object(by_depth.to_json()), json!({"max_depth": 3, "max_hops": 3}));
        assert_eq!(parse(json!({"max_depth": 3, "max_hops": 3})).unwrap(), by_depth);
        assert_eq!(Constraints::none().hops(), 1);
    }

    #[test]
    fn what_is_written_parses_back() {
        let full = parse(json!({
            "resources": ["resource://a"], "max_hops": 10, "budget": 64, "ttl_seconds": 86_400,
            "expires_at": "2030-01-01T00:00Z", "policy_approved": false, "broad_reason": "x",
        }))
        .unwrap();
        assert_eq!(Constraints::parse(&full.to_json()), Ok(full.clone()));
        assert_eq!(full.to_json().get("expires_at"), Some(&json!("2030-01-01T00:00:00.000Z")));
        assert_eq!(Constraints::parse(&Map::new()), Ok(Constraints::none()));
        assert_eq!(parse(json!({"resources": []})).unwrap().resources(), []);
    }

    #[test]
    fn the_body_ttl_fills_only_a_gap_and_broad_edges_say_why() {
        assert_eq!(parse(json!({"ttl_seconds": 500})).unwrap().with_default_ttl(Some(600)).ttl_seconds(), Some(500));
        assert_eq!(Constraints::none().with_default_ttl(Some(600)).ttl_seconds(), Some(600));
        let broad = parse(json!({"policy_approved": false})).unwrap().marked_broad();
        assert_eq!(Value::Object(broad.to_json()), json!({"policy_approved": true, "broad_reason": BROAD_REASON}));
        assert_eq!(parse(json!({"broad_reason": "audit"})).unwrap().marked_broad().broad_reason(), Some("audit"));
    }

    #[test]
    fn only_utc_instants_of_the_calendar_are_accepted() {
        let exact = Timestamp::parse("2030-01-01T10:20:30.123Z").unwrap();
        for (text, expected) in [
            ("2030-01-01T10:20:30.123Z", Some(exact)),
            ("2030-01-01T10:20:30.123999999999999999999999Z", Some(exact)),
            ("2030-01-01T10:20Z", Timestamp::parse("2030-01-01T10:20:00Z").ok()),
            ("2030-01-01T10:20.5Z", None),
            ("2030-01-01T10:20:30.Z", None),
            ("2030-01-01T10:20:30.1xZ", None),
            ("2030-01-01T10:20:30+00:00", None),
            ("2030-01-01T10:20:30z", None),
            ("2030-01-01t10:20:30Z", None),
            ("2030-02-30T10:20:30Z", None),
            ("2030-01-01T24:00:00Z", None),
            ("2030-01-01T23:59:60Z", None),
            ("2030-01-01", None),
            ("", None),
            ("2030-01-01T10:2\u{e9}Z", None),
        ] {
            assert_eq!(parse_date_time(text), expected, "{text}");
        }
    }
}
