//! Traits: capability markers of an application (contract: admin-api.md §5.2).
//!
//! A trait of the namespace `control` makes an application a key to the Control endpoint, so only global tokens may give
//! one, and only in a form that Control knows.

use std::collections::HashSet;

use caracal_authority::Timestamp;

use crate::problem::Refusal;

const MAX: usize = 64;
const MAX_LENGTH: usize = 128;
const MAX_TTL: std::ops::RangeInclusive<u32> = 60..=900;

/// Nouns of control scopes and the verbs each knows.
const CONTROL_SCOPES: [(&str, &[&str]); 12] = [
    ("app", &["read", "write", "delete"]),
    ("resource", &["read", "write", "delete"]),
    ("identity-provider", &["read", "write", "delete"]),
    ("policy", &["read", "write", "delete"]),
    ("policy-set", &["read", "write", "delete"]),
    ("workload", &["read", "write", "delete"]),
    ("grant", &["read", "write", "delete"]),
    ("session", &["read", "write", "delete"]),
    ("delegation", &["read", "delete"]),
    ("approval", &["read"]),
    ("audit", &["read"]),
    ("authority-record", &["read"]),
];
const EXPLAIN: &str = "control:explain:read";

/// Judges a list of traits that a token wants to give. The first failure is the answer, always 403.
pub(super) fn check(traits: &[String], is_global: bool) -> Result<(), Refusal> {
    let refuse = |code: &'static str, text: String| Err(Refusal::forbidden(code).describe(text));
    if traits.len() > MAX {
        return refuse("trait_count_exceeded", format!("an application has at most {MAX} traits"));
    }
    let mut seen = HashSet::new();
    let (mut has_ttl, mut has_end) = (false, false);
    for name in traits {
        if !is_well_formed(name) {
            let expected = "starts with a letter and has 1 to 128 letters, digits and . _ : -";
            return refuse("trait_invalid", format!("a trait {expected}"));
        }
        if !seen.insert(name.as_str()) {
            return refuse("trait_duplicate", format!("`{name}` is there twice"));
        }
        let (namespace, rest) = name.split_once(':').unwrap_or((name, ""));
        if is_restricted(namespace) && !is_global {
            return refuse("trait_forbidden", format!("traits of `{namespace}` are given by global tokens only"));
        }
        if namespace == "control" && !is_control_trait(rest, &mut has_ttl, &mut has_end) {
            return refuse(
                "trait_invalid",
                format!("`{name}` is no control trait, or one of its kind is there already"),
            );
        }
    }
    Ok(())
}

/// Whether the secret of an application with these traits may be replaced by a token. Who has the secret of a control key
/// has the key, so a token that could not give the traits can't take them over with a secret of its own either
/// (threat T12).
pub(super) fn guard_secret(traits: &[String], is_global: bool) -> Result<(), Refusal> {
    match traits.iter().map(|name| namespace(name)).find(|namespace| is_restricted(namespace)) {
        Some(namespace) if !is_global => Err(Refusal::forbidden("trait_forbidden")
            .describe(format!("applications with traits of `{namespace}` get secrets from global tokens only"))),
        _ => Ok(()),
    }
}

fn namespace(name: &str) -> &str {
    name.split_once(':').map_or(name, |(namespace, _)| namespace)
}

fn is_restricted(namespace: &str) -> bool {
    matches!(namespace, "control" | "caracal.sys")
}

fn is_well_formed(name: &str) -> bool {
    let mut bytes = name.bytes();
    (1..=MAX_LENGTH).contains(&name.len())
        && bytes.next().is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-'))
}

/// Whether `control:<rest>` is a trait that Control knows; at most one of each bound.
fn is_control_trait(rest: &str, has_ttl: &mut bool, has_end: &mut bool) -> bool {
    if let Some(scope) = rest.strip_prefix("scope:") {
        return is_control_scope(scope);
    }
    if let Some(seconds) = rest.strip_prefix("max-ttl:") {
        let is_plain = seconds.bytes().all(|byte| byte.is_ascii_digit()) && !seconds.starts_with('0');
        let is_bounded = seconds.parse().is_ok_and(|seconds: u32| MAX_TTL.contains(&seconds));
        return is_plain && is_bounded && !std::mem::replace(has_ttl, true);
    }
    if let Some(end) = rest.strip_prefix("expires:") {
        return Timestamp::parse(end).is_ok() && !std::mem::replace(has_end, true);
    }
    rest == "invoke"
}

fn is_control_scope(scope: &str) -> bool {
    let mut parts = scope.split(':');
    let (Some("control"), Some(noun), Some(verb), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    scope == EXPLAIN || CONTROL_SCOPES.iter().any(|(known, verbs)| *known == noun && verbs.contains(&verb))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_as(traits: &[&str], is_global: bool) -> Result<(), String> {
        let traits: Vec<String> = traits.iter().map(|name| (*name).to_owned()).collect();
        check(&traits, is_global).map_err(|refusal| {
            assert_eq!(refusal.problem.status(), http::StatusCode::FORBIDDEN);
            refusal.problem.code().unwrap().to_owned()
        })
    }

    #[test]
    fn traits_are_judged_by_the_contracts_table() {
        let many: Vec<String> = (0..65).map(|n| format!("t{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let long = format!("a{}", "b".repeat(128));
        for (traits, code) in [
            (&many[..64], None),
            (&many[..], Some("trait_count_exceeded")),
            (&["a", "a"], Some("trait_duplicate")),
            (&["1x"], Some("trait_invalid")),
            (&[""], Some("trait_invalid")),
            (&["a b"], Some("trait_invalid")),
            (&[&long[..128]], None),
            (&[&long], Some("trait_invalid")),
            (&["control:invoke", "control:max-ttl:60", "control:expires:2030-01-01T00:00:00.000Z"], None),
            (&["control:max-ttl:59"], Some("trait_invalid")),
            (&["control:max-ttl:901"], Some("trait_invalid")),
            (&["control:max-ttl:060"], Some("trait_invalid")),
            (&["control:max-ttl:60", "control:max-ttl:61"], Some("trait_invalid")),
            (&["control:expires:soon"], Some("trait_invalid")),
            (&["control:scope:control:app:read", "control:scope:control:explain:read"], None),
            (&["control:scope:control:approval:write"], Some("trait_invalid")),
            (&["control:scope:control:delegation:write"], Some("trait_invalid")),
            (&["control:scope:app:read"], Some("trait_invalid")),
            (&["control"], Some("trait_invalid")),
            (&["control:anything"], Some("trait_invalid")),
            (&["caracal.sys:x", "custom:x"], None),
        ] {
            assert_eq!(check_as(traits, true).err().as_deref(), code, "{traits:?}");
        }
    }

    #[test]
    fn t12_foothold_a_zone_token_gives_no_control_traits() {
        for forbidden in ["control:invoke", "control", "caracal.sys", "caracal.sys:x"] {
            assert_eq!(check_as(&[forbidden], false), Err("trait_forbidden".to_owned()), "{forbidden}");
        }
        assert_eq!(check_as(&["controls:x", "own:control"], false), Ok(()));
    }
}
