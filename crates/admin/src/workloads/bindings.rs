//! Which variable of a workload's environment gets which credential (contract: admin-api.md §5.3).
//!
//! A variable's name must not turn what is launched into something else: a name that makes a loader or an interpreter
//! load code is refused, whoever asks. The launcher refuses it once more.

use std::collections::HashSet;

use caracal_store::workloads::{Binding, OnFailure};
use serde_json::json;

use crate::input::{Fields, Mismatch, ONE_LINE, Text};
use crate::problem::Refusal;

const MOST: usize = 64;
const MOST_SCOPES: usize = 32;
const ENV: Text = Text::trimmed(1, 200);
const RESOURCE: Text = Text::trimmed(1, 500);
const SCOPE: Text = Text::trimmed(1, 200).like(ONE_LINE);

/// Names under which a value is code: what a loader or an interpreter reads at its start.
const HOOKS: [&str; 6] =
    ["NODE_OPTIONS", "BUN_OPTIONS", "LD_PRELOAD", "LD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES", "DYLD_LIBRARY_PATH"];

/// The member `bindings`, when it is there. What the names may be is judged later, with other codes.
pub(super) fn read(fields: &mut Fields) -> Result<Option<Vec<Binding>>, Mismatch> {
    let Some(items) = fields.objects("bindings", (0, MOST))? else { return Ok(None) };
    items.into_iter().map(binding).collect::<Result<_, _>>().map(Some)
}

fn binding(mut fields: Fields) -> Result<Binding, Mismatch> {
    let env = fields.required_text("env", ENV)?;
    let resource = fields.required_text("resource", RESOURCE)?;
    let scopes = fields.texts("scopes", (0, MOST_SCOPES), SCOPE)?.unwrap_or_default();
    let optional = fields.flag("optional")?.unwrap_or(false);
    let on_failure = match fields.choice("on_failure", &["warn", "error"])? {
        Some("warn") => OnFailure::Warn,
        Some(_) | None => OnFailure::Error,
    };
    fields.nothing_else()?;
    // What happens without it is a question of optional ones alone.
    Ok(Binding { env, resource, scopes, optional, on_failure: optional.then_some(on_failure) })
}

/// Judges the variables: each is one that may be set, and is bound once.
pub(super) fn check(bindings: &[Binding]) -> Result<(), Refusal> {
    let mut seen = HashSet::new();
    for Binding { env, .. } in bindings {
        let refuse = |code, why: &str| Err(Refusal::invalid(code).describe(why).details(json!({ "env": env })));
        if !is_name(env) {
            return refuse(
                "invalid_credential_env",
                "a variable's name is letters, digits and _, and starts with no digit",
            );
        }
        if HOOKS.iter().any(|hook| hook.eq_ignore_ascii_case(env)) {
            return refuse("invalid_credential_env", "under this name a value would be loaded as code");
        }
        if !seen.insert(env) {
            return refuse("duplicate_credential_env", "two bindings name the same variable");
        }
    }
    Ok(())
}

fn is_name(env: &str) -> bool {
    env.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && env.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn taken(bindings: &Value) -> Result<Vec<Binding>, Mismatch> {
        read(&mut Fields::of(Some(json!({ "bindings": bindings }))).unwrap()).map(Option::unwrap)
    }

    #[test]
    fn a_binding_is_stored_without_what_goes_without_saying() {
        let binding = |members: Value| {
            let mut whole = json!({"env": " A ", "resource": " resource://a "});
            whole.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
            serde_json::to_value(taken(&json!([whole])).unwrap()).unwrap()[0].clone()
        };
        let bare = json!({"env": "A", "resource": "resource://a"});
        assert_eq!(binding(json!({})), bare);
        assert_eq!(binding(json!({"scopes": [], "optional": false, "on_failure": "warn"})), bare);
        assert_eq!(
            binding(json!({"optional": true, "scopes": [" b "]})),
            json!({"env": "A", "resource": "resource://a", "scopes": ["b"], "optional": true, "on_failure": "error"})
        );
        assert_eq!(binding(json!({"optional": true, "on_failure": "warn"}))["on_failure"], "warn");
    }

    #[test]
    fn a_binding_that_is_none_is_refused_whole() {
        let one = |members: Value| json!([members]);
        for bad in [
            one(json!({})),
            one(json!({"env": "A"})),
            one(json!({"env": " ", "resource": "r"})),
            one(json!({"env": "A", "resource": " "})),
            one(json!({"env": "A", "resource": "r".repeat(501)})),
            one(json!({"env": "A".repeat(201), "resource": "r"})),
            one(json!({"env": "A", "resource": "r", "scopes": [""]})),
            one(json!({"env": "A", "resource": "r", "scopes": ["a\nb"]})),
            one(json!({"env": "A", "resource": "r", "scopes": vec!["s"; 33]})),
            one(json!({"env": "A", "resource": "r", "optional": 1})),
            one(json!({"env": "A", "resource": "r", "on_failure": "ignore"})),
            one(json!({"env": "A", "resource": "r", "value": "x"})),
            json!(vec![json!({"env": "A", "resource": "r"}); 65]),
            json!({}),
            json!(["A"]),
        ] {
            assert!(taken(&bad).is_err(), "{bad}");
        }
        assert_eq!(taken(&json!([])).unwrap(), []);
    }

    #[test]
    fn a_variable_that_would_load_code_or_is_bound_twice_is_refused() {
        let bound = |env: &str| Binding {
            env: env.to_owned(),
            resource: "r".to_owned(),
            scopes: Vec::new(),
            optional: false,
            on_failure: None,
        };
        for (names, code) in [
            (&["A", "_b", "a", "A1_"][..], None),
            (&["LD_PRELOAD"], Some("invalid_credential_env")),
            (&["A", "ld_preload"], Some("invalid_credential_env")),
            (&["Node_Options"], Some("invalid_credential_env")),
            (&["dyld_library_path"], Some("invalid_credential_env")),
            (&["1A"], Some("invalid_credential_env")),
            (&["A-B"], Some("invalid_credential_env")),
            (&["Ä"], Some("invalid_credential_env")),
            (&["A=B"], Some("invalid_credential_env")),
            (&["A", "B", "A"], Some("duplicate_credential_env")),
        ] {
            let bindings: Vec<Binding> = names.iter().map(|env| bound(env)).collect();
            let refused = check(&bindings).err().and_then(|refusal| refusal.problem.code().map(str::to_owned));
            assert_eq!(refused.as_deref(), code, "{names:?}");
        }
    }

    proptest! {
        /// Whatever is sent, what is accepted can be a line `NAME=value` of an environment.
        #[test]
        fn an_accepted_name_is_a_name_on_every_platform(env in "\\PC{0,12}|[A-Za-z_=\\-0-9]{1,8}") {
            let accepted = taken(&json!([{"env": env, "resource": "r"}])).is_ok_and(|bindings| check(&bindings).is_ok());
            if accepted {
                let name = env.trim();
                prop_assert!(name.is_ascii() && !name.contains(['=', '\0', ' ', '-', '%']));
                prop_assert!(!name.as_bytes()[0].is_ascii_digit());
            }
        }
    }
}
