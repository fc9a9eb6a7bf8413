//! What makes a bundle and what one is refused for: to an author, and when it is loaded (policy.md §2.1, §7.3, §9).

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of a test file are test code")]

mod world;

use caracal_policy::{Bundle, Document, TEMPLATES, text};
use world::*;

const HEADER: &str = "# caracal:data-document\npackage caracal.authz\nimport rego.v1\n";

#[test]
fn every_template_passes_every_check_and_does_nothing_yet() {
    let catalog: Vec<_> = TEMPLATES.iter().map(|template| (template.id, template.name)).collect();
    assert_eq!(
        catalog,
        [
            ("application-bindings", "Application Bindings"),
            ("resource-grants", "Resource Grants"),
            ("label-confinement", "Label Confinement"),
            ("zone-restriction", "Zone Restriction"),
        ]
    );
    for template in &TEMPLATES {
        let document = Document { policy_version_id: template.id, content: template.content };
        let bundle = Bundle::build(&[document]).unwrap_or_else(|defects| panic!("{}: {}", template.id, defects[0]));
        assert_ne!(outcome(&bundle, &mint()), "deny restriction_active");
        let mut lines = template.content.lines().filter(|line| !line.is_empty());
        let head = [lines.next(), lines.next(), lines.next()];
        assert_eq!(head, [Some("# caracal:data-document"), Some("package caracal.authz"), Some("import rego.v1")]);
        assert!(!template.description.is_empty());
    }
    let all: Vec<_> = TEMPLATES
        .iter()
        .map(|template| Document { policy_version_id: template.id, content: template.content })
        .collect();
    assert!(Bundle::build(&all).is_ok());
}

#[test]
fn the_empty_document_of_the_clients_loads_and_denies() {
    let content = "# caracal:data-document\npackage caracal.authz\nimport rego.v1\napp_ids := {}\ngrants := {}\n";
    let bundle = Bundle::build(&[Document { policy_version_id: "pv-1", content }]).unwrap();
    assert_eq!(outcome(&bundle, &mint()), "deny resource_not_granted");
}

#[test]
fn a_long_one_line_document_of_the_clients_is_read() {
    let grants: serde_json::Map<_, _> = (0..2000)
        .map(|n| {
            (format!("resource://{n:05}"), serde_json::json!({"application": "app-1", "roles": {"app-1": ["n:read"]}}))
        })
        .collect();
    let content =
        format!("{HEADER}app_ids := {{\"app-1\":\"app-1\"}}\ngrants := {}\n", serde_json::Value::Object(grants));
    let bundle = Bundle::build(&[Document { policy_version_id: "pv-1", content: &content }]).unwrap();
    let mut input = mint_of(&["n:read"], &["n:read"]);
    input.principal.labels = strings(&["app-1"]);
    for (identifier, expected) in [
        ("resource://00000", "allow caracal-app-1-mint []"),
        ("resource://01999", "allow caracal-app-1-mint []"),
        ("resource://02000", "deny resource_not_granted"),
    ] {
        input.resource.identifier = identifier.into();
        assert_eq!(outcome(&bundle, &input), expected);
    }
}

/// `code @ document:line:column` of every defect.
fn defects(result: Result<Bundle, Vec<caracal_policy::BundleDefect>>) -> Vec<String> {
    match result {
        Ok(_) => Vec::new(),
        Err(defects) => defects
            .iter()
            .map(|defect| {
                format!("{} @ {}:{}:{}", defect.kind.code(), defect.document, defect.at.line, defect.at.column)
            })
            .collect(),
    }
}

/// Refused whoever asks: the author and the loader.
#[track_caller]
fn refused(documents: &[&str], expected: &str) {
    assert_eq!(defects(build(documents)), [expected], "built");
    assert_eq!(defects(load(documents)), [expected], "loaded");
}

#[test]
fn contradicting_documents_are_refused_with_both_places() {
    for (one, other) in [
        (
            "grants := {\"x\": {\"application\": \"a\", \"roles\": {}}}",
            "grants := {\"y\": {\"application\": \"a\", \"roles\": {}}}",
        ),
        ("app_ids := {\"a\": \"x\"}", "app_ids := {}"),
        ("confinement := []", "confinement := [{\"label_prefix\": \"a\", \"scopes\": []}]"),
        ("restrict := {\"x\"}", "restrict := {\"y\"}"),
        ("risk := []", "risk := [{\"scope\": \"a\", \"tier\": \"b\"}]"),
        ("approval_tiers := []", "approval_tiers := [{\"tier\": \"b\"}]"),
    ] {
        refused(&[one, other], "conflicting_definitions @ 1:6:1");
        refused(&[&format!("{one}\n{other}")], "conflicting_definitions @ 0:7:1");
        assert!(build(&[one, one]).is_ok(), "equal values are fine");
    }
    let defects = build(&["risk := []", "\n\nrisk := [1]"]).unwrap_err();
    assert_eq!(
        defects[0].to_string(),
        "policy version `pv-2`, line 8, column 1: `risk` is already defined with another value at line 6 of `pv-1`"
    );
    assert!(build(&["restrict := {\"a\": 1, \"b\": [1]}", "restrict := {\"b\": [1.0], \"a\": 1e0}"]).is_ok());
    let part = |value: u8| format!("risk := []\nrestrict[\"k\"] := {value}");
    refused(&[&part(1), &part(2)], "conflicting_definitions @ 1:7:10");
}

#[test]
fn one_root_has_one_form_and_one_default() {
    let entry = "{\"application\": \"a\", \"roles\": {}}";
    let with_data = |rule: &str| format!("risk := []\n{rule}");
    let whole = format!("grants := {{\"x\": {entry}}}");
    let part = with_data(&format!("grants[\"y\"] := {entry}"));
    refused(&[&whole, &part], "mixed_definition_forms @ 1:7:1");
    refused(&[&part, &whole], "mixed_definition_forms @ 1:6:1");
    refused(&["restrict contains 1", &with_data("restrict[\"y\"] := 1")], "mixed_definition_forms @ 1:7:1");
    refused(&["default restrict := {}", "restrict contains 1"], "mixed_definition_forms @ 1:6:1");
    refused(&["default risk := []", "default risk := []"], "two_defaults @ 1:6:9");
}

#[test]
fn a_restrict_that_is_no_collection_is_refused() {
    for scalar in ["\"freeze\"", "true", "false", "1", "null"] {
        refused(&[&format!("restrict := {scalar}")], "malformed_data @ 0:6:13");
    }
}

#[test]
fn app_ids_and_grants_that_can_name_nothing_are_refused() {
    for scalar in ["\"app-1\"", "true", "1", "null"] {
        refused(&[&format!("app_ids := {scalar}")], "malformed_data @ 0:6:12");
        refused(&[&format!("grants := {scalar}")], "malformed_data @ 0:6:11");
    }
    refused(&["grants := [1]"], "malformed_data @ 0:6:11");
    for (entries, member) in [
        ("{\"x\": {\"roles\": {}}}", "application"),
        ("{\"x\": {\"application\": \"a\"}}", "roles"),
        ("{\"x\": {\"application\": \"a\"}, \"y\": 5}", "roles"),
    ] {
        let found = load(&[&format!("grants := {entries}")]).unwrap_err();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].kind.code(), "defective_grants");
        assert!(found[0].to_string().contains(member));
        assert!(build(&[&format!("grants := {entries}")]).is_err());
    }
}

#[test]
fn a_prefix_that_is_no_string_is_refused_not_ignored() {
    refused(&["confinement := [{\"label_prefix\": 5, \"scopes\": []}]"], "malformed_data @ 0:6:34");
}

/// What decision time tolerates (and denies for), an author is told.
#[test]
fn malformed_shapes_are_refused_to_authors_and_tolerated_when_stored() {
    // `^` marks the place; GOOD stands for the start of `grants` with a good entry.
    for marked in [
        r#"app_ids := ^["app-1"]"#,
        r#"app_ids := ^{"a"}"#,
        r#"app_ids := {"a": ^5}"#,
        r#"app_ids := {"a": ^""}"#,
        r#"app_ids := {^5: "a"}"#,
        r#"GOOD"x": ^5}"#,
        r#"GOOD"x": ^{"roles": {}}}"#,
        r#"GOOD"x": ^{"application": "a"}}"#,
        r#"GOOD"x": {"application": ^5, "roles": {}}}"#,
        r#"GOOD"x": {"application": "a", "roles": ^[]}}"#,
        r#"GOOD"x": {"application": "a", "roles": {"l": ^"s"}}}"#,
        r#"GOOD"x": {"application": "a", "roles": {"l": [^5]}}}"#,
        r#"GOOD"x": {"application": "a", "roles": {^5: []}}}"#,
        r#"GOOD^5: {"application": "a", "roles": {}}}"#,
        r#"confinement := ^null"#,
        r#"confinement := [^"a"]"#,
        r#"confinement := [^{"scopes": []}]"#,
        r#"confinement := [^{"label_prefix": "a"}]"#,
        r#"confinement := [{"label_prefix": "a", "scopes": ^"b"}]"#,
        r#"confinement := [{"label_prefix": "a", "scopes": [^1]}]"#,
        r#"risk := ^{}"#,
        r#"risk := [^5]"#,
        r#"risk := [^{"scope": "a"}]"#,
        r#"risk := [{"scope": "a", "tier": ^""}]"#,
        r#"approval_tiers := ^{}"#,
        r#"approval_tiers := [{"tier": "a", "approver": ^"root"}]"#,
        r#"approval_tiers := [{"tier": "a", "privacy": ^1}]"#,
        r#"approval_tiers := [{"tier": "a", "ttl_seconds": ^1.5}]"#,
    ] {
        let marked = marked.replace("GOOD", r#"grants := {"g": {"application": "a", "roles": {}}, "#);
        let (column, rules) = (marked.find('^').unwrap() + 1, marked.replace('^', ""));
        assert_eq!(defects(build(&[&rules])), [format!("malformed_data @ 0:6:{column}")], "{rules}");
        assert!(load(&[&rules]).is_ok(), "{rules}");
    }
    let doubly = "risk := [{\"scope\": \"a\", \"tier\": \"x\"}, {\"scope\": \"a\", \"tier\": \"y\"}]";
    assert_eq!(defects(build(&[doubly])), ["doubly_classified_scope @ 0:6:39"]);
    assert!(load(&[doubly]).is_ok());
    let repeated = "restrict := {\"a\": 1, \"a\": 2}";
    assert_eq!(defects(build(&[repeated])), ["repeated_key @ 0:6:22"]);
    assert!(load(&[repeated]).is_ok());
    assert!(build(&["restrict := {\"a\": 1, \"a\": 1}"]).is_ok());
}

#[test]
fn messages_say_what_is_wrong_and_where() {
    let message = |rules: &str| build(&[rules]).unwrap_err()[0].to_string();
    assert_eq!(
        message("app_ids := {}\ngrants := {\"resource://n\": {\"aplication\": \"a\", \"roles\": {}}}"),
        "policy version `pv-1`, line 7, column 28: `grants[\"resource://n\"].application` must be a binding key, and \
         is missing"
    );
    assert_eq!(
        message("restrict contains \"x\" if regex.match(\"a\", input.principal.id)"),
        "policy version `pv-1`, line 6, column 26: `regex.match` is not a function available to policy"
    );
    assert_eq!(
        message("grants := {r: {} | some r in [1]}"),
        "policy version `pv-1`, line 6, column 1: `a key of grants` must be a resource identifier, a string, and is a \
         number"
    );
}

#[test]
fn all_defects_are_told_at_once_up_to_a_bound() {
    let found = build(&["risk := [1]", "helper := 1", "restrict := {x}"]).unwrap_err();
    let codes: Vec<_> = found.iter().map(|defect| (defect.document, defect.kind.code())).collect();
    assert_eq!(codes, [(1, "text_check_failed"), (2, "not_evaluable")]);
    let many = format!("risk := [{}]", "1, ".repeat(50_000));
    assert_eq!(build(&[&many]).unwrap_err().len(), 32);
}

/// What the text check lets through although no bundle may contain it.
#[test]
fn what_only_looks_valid_is_refused_by_the_bundle() {
    for (rules, expected) in [
        ("restrict(x) := {}", "root_is_a_function"),
        ("result[\"a\"] := 1\nrisk := []", "rule_not_allowed"),
        ("helper[\"a\"] := 1\nrisk := []", "rule_not_allowed"),
        ("risk := []\npackage other", "syntax_error"),
        ("restrict := {http[\"send\"]({})}", "function_not_available"),
        ("restrict := {time.now_ns}", "not_evaluable"),
        ("restrict := 5 if true", "malformed_data"),
        ("restrict := {restrict}", "recursive_definition"),
    ] {
        assert!(text::check(&document(rules)).is_ok(), "{rules}");
        assert_eq!(build(&[rules]).unwrap_err()[0].kind.code(), expected, "{rules}");
        assert_eq!(load(&[rules]).unwrap_err()[0].kind.code(), expected, "{rules}");
    }
}
