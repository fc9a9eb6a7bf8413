//! Declared operations: which call needs which scope (README D18).
//!
//! A path is exact, or a template: a segment `{name}` stands for one segment, a final `**` for the rest. What looks like
//! a template and is none is refused here, for at the Gateway it would be an exact path that nothing ever matches.

use std::collections::HashSet;

use caracal_store::resources::Operation;

use super::fields::RawOperation;
use crate::problem::Refusal;

/// The operations of a body as they are stored: methods trimmed and in upper case, paths trimmed.
pub(super) fn normalise(raw: &[RawOperation]) -> Vec<Operation> {
    let tidy = |raw: &RawOperation| Operation {
        method: raw.method.trim().to_uppercase(),
        path: raw.path.trim().to_owned(),
        scope: raw.scope.clone(),
    };
    raw.iter().map(tidy).collect()
}

/// Judges operations together with the scopes of their resource.
pub(super) fn check(operations: &[Operation], scopes: &[String]) -> Result<(), Refusal> {
    let mut seen = HashSet::new();
    for Operation { method, path, scope } in operations {
        if method.is_empty() || path.is_empty() {
            return Err(Refusal::invalid("operation_method_and_path_required"));
        }
        if !path.starts_with('/') {
            return Err(Refusal::invalid("operation_path_must_be_absolute"));
        }
        // It could split a line of what is signed later.
        if method.chars().chain(path.chars()).any(char::is_control) {
            return Err(Refusal::invalid("invalid_resource").describe("operations hold no control characters"));
        }
        if let Some(what) = template_defect(path) {
            return Err(Refusal::invalid("invalid_resource").describe(format!("operation path {path:?}: {what}")));
        }
        if !scopes.contains(scope) {
            return Err(Refusal::invalid("operation_scope_not_in_resource_scopes")
                .describe(format!("{scope:?} is not a scope of the resource")));
        }
        if !seen.insert((method, path)) {
            return Err(Refusal::invalid("operation_duplicate").describe(format!("{method} {path} is there twice")));
        }
    }
    Ok(())
}

fn template_defect(path: &str) -> Option<&'static str> {
    let mut segments = path.split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        if segment.contains("**") && !(segment == "**" && is_last) {
            return Some("** stands alone, as the last segment");
        }
        if segment.contains(['{', '}']) && !is_parameter(segment) {
            return Some("{name} stands alone in its segment; a name is letters, digits and _");
        }
    }
    None
}

fn is_parameter(segment: &str) -> bool {
    let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default();
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_all(operations: &[(&str, &str, &str)]) -> Result<(), String> {
        let raw: Vec<RawOperation> = operations
            .iter()
            .map(|(method, path, scope)| RawOperation {
                method: (*method).to_owned(),
                path: (*path).to_owned(),
                scope: (*scope).to_owned(),
            })
            .collect();
        let scopes = ["read".to_owned(), "write".to_owned()];
        check(&normalise(&raw), &scopes).map_err(|refusal| refusal.problem.code().unwrap().to_owned())
    }

    #[test]
    fn operations_are_judged_by_the_contracts_codes() {
        for (operations, code) in [
            (&[("GET", "/a", "read"), ("POST", "/a", "write")][..], None),
            (&[("get ", " /a", "read"), ("GET", "/a", "write")], Some("operation_duplicate")),
            (&[(" ", "/a", "read")], Some("operation_method_and_path_required")),
            (&[("GET", "  ", "read")], Some("operation_method_and_path_required")),
            (&[("GET", "a", "read")], Some("operation_path_must_be_absolute")),
            (&[("GET", "/a", "delete")], Some("operation_scope_not_in_resource_scopes")),
            (&[("GET", "/a\nb", "read")], Some("invalid_resource")),
            (&[("GE\u{1f}T", "/a", "read")], Some("invalid_resource")),
        ] {
            assert_eq!(check_all(operations).err().as_deref(), code, "{operations:?}");
        }
    }

    #[test]
    fn a_template_is_whole_segments_and_a_final_double_star() {
        for (path, good) in [
            ("/", true),
            ("/v1/*", true),
            ("/books/{id}", true),
            ("/books/{id}/pages/{page_2}", true),
            ("/v1/**", true),
            ("/**", true),
            ("/v1/**/x", false),
            ("/v1/a**", false),
            ("/v1/***", false),
            ("/a/{id}.json", false),
            ("/a/{}", false),
            ("/a/{1}", false),
            ("/a/{b-c}", false),
            ("/a/}{", false),
        ] {
            assert_eq!(check_all(&[("GET", path, "read")]).is_ok(), good, "{path}");
        }
    }

    #[test]
    fn a_template_that_is_accepted_is_one_at_the_gateway() {
        for (declared, actual) in [("/books/{id}", "/books/7"), ("/v1/**", "/v1/a/b"), ("/v1/*", "/v1/*")] {
            assert!(caracal_authority::resource::path_matches(declared, actual), "{declared}");
        }
    }
}
