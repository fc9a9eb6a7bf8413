//! The literal subset: what is read, as what, and where the rest is refused.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of a test file are test code")]

use caracal_policy::{ParsedDocument, Value};

#[test]
fn keyword_rules_need_their_import() {
    let bare = |rules: &str| format!("# caracal:data-document\npackage caracal.authz\n{rules}\n");
    let kind =
        |content: &str| ParsedDocument::parse_literal(content).map_or_else(|refusal| refusal.kind.code(), |_| "ok");
    assert_eq!(kind(&bare("restrict contains \"x\"")), "syntax_error");
    assert_eq!(kind(&bare("restrict contains \"x\" if true")), "syntax_error");
    assert_eq!(kind(&bare("grants = {}\napp_ids[\"pay\"] = \"app-1\"")), "ok");
    for import in ["rego.v1", "future.keywords", "future.keywords.contains"] {
        assert_eq!(kind(&bare(&format!("import {import}\nrestrict contains \"x\""))), "ok", "{import}");
    }
    assert_eq!(kind(&bare("import future.keywords.in\nrestrict contains \"x\"")), "syntax_error");
    assert_eq!(kind(&bare("import rego.v1\nimport future.keywords\nrisk := []")), "syntax_error");
    assert_eq!(kind(&bare("risk := []\nimport rego.v1")), "syntax_error");
    assert_eq!(kind(&bare("import data.foo\nrisk := []")), "outside_literal_subset");
}

/// The value of `restrict := …` as JSON.
fn value_of(literal: &str) -> serde_json::Value {
    let bundle = format!("package caracal.authz\nimport rego.v1\nrestrict := {literal}");
    let document = ParsedDocument::parse(&bundle).unwrap_or_else(|refusal| panic!("{literal}: {refusal}"));
    serde_json::to_value(document.value_of(caracal_policy::Root::Restrict).unwrap()).unwrap()
}

#[test]
fn literals_are_read_as_the_language_means_them() {
    use serde_json::json;
    for (literal, expected) in [
        ("[\n  1, # one\n  2,\n]", json!([1, 2])),
        ("{\"a\": {`b`: [true, false, null]},}", json!({"a": {"b": [true, false, null]}})),
        ("{\"b\", \"a\", \"b\",}", json!(["a", "b"])),
        ("set()", json!([])),
        ("set( )", json!([])),
        ("{}", json!({})),
        ("[]", json!([])),
        ("\n\n{1.0, 1}", json!([1.0])),
        ("[-1, 0, 18446744073709551615, 1.5e3]", json!([-1, 0, 18446744073709551615_u64, 1500.0])),
        (r#"["\u00e9\n\t\"\\\/\b\f\r", "\ud83d\ude00", "é"]"#, json!(["é\n\t\"\\/\u{8}\u{c}\r", "😀", "é"])),
        ("[`a\\n\n\"b`]", json!(["a\\n\n\"b"])),
        ("{1: \"a\", [2]: \"b\"}", json!({"1": "a", "[2]": "b"})),
        ("{\"a\": 1, \"a\": 2}", json!({"a": 2})),
    ] {
        assert_eq!(value_of(literal), expected, "{literal}");
    }
}

#[test]
fn what_is_no_literal_is_refused_where_it_stands() {
    for (rules, code, line, column) in [
        ("restrict := [1 2]", "syntax_error", 3, 16),
        ("restrict := [1,,2]", "syntax_error", 3, 16),
        ("restrict := [,]", "syntax_error", 3, 14),
        ("restrict := {\"a\": 1, \"b\"}", "syntax_error", 3, 25),
        ("restrict := {\"a\", \"b\": 1}", "syntax_error", 3, 22),
        ("restrict := [01]", "syntax_error", 3, 14),
        ("restrict := [1x]", "syntax_error", 3, 14),
        ("restrict := [- 1]", "syntax_error", 3, 14),
        ("restrict := [\"\\x\"]", "syntax_error", 3, 15),
        ("restrict := [\"\\ud800\"]", "syntax_error", 3, 15),
        ("restrict := [\"a\tb\"]", "syntax_error", 3, 16),
        ("restrict := [\"a\nb\"]", "syntax_error", 3, 14),
        ("restrict := [`a", "syntax_error", 3, 14),
        ("restrict := [1", "syntax_error", 3, 15),
        ("restrict :=", "syntax_error", 3, 12),
        ("restrict == []", "syntax_error", 3, 10),
        ("restrict", "syntax_error", 3, 9),
        ("restrict := [\u{a0}1]", "syntax_error", 3, 14),
        ("default restrict", "syntax_error", 3, 9),
        ("default restrict contains 1", "syntax_error", 3, 9),
        ("restrict := [] risk := []", "syntax_error", 3, 16),
        ("restrict := []; risk := []", "syntax_error", 3, 15),
        ("restrict := [1] - [1]", "outside_literal_subset", 3, 17),
        ("restrict := {1}\n- {1}", "outside_literal_subset", 4, 1),
        ("restrict := {1}\n{ false }", "outside_literal_subset", 4, 1),
        ("restrict := {1}\nif false", "outside_literal_subset", 4, 1),
        ("restrict := {1} { true }", "outside_literal_subset", 3, 17),
        ("restrict := {1} else := {}", "outside_literal_subset", 3, 17),
        ("restrict := {1: 2}[1]", "outside_literal_subset", 3, 19),
        ("restrict := {x | some x in [1]}", "outside_literal_subset", 3, 14),
        ("restrict := {1 | true}", "outside_literal_subset", 3, 16),
        ("restrict := [1 | true]", "outside_literal_subset", 3, 16),
        ("restrict := [1 + 1]", "outside_literal_subset", 3, 16),
        ("restrict := [(1)]", "outside_literal_subset", 3, 14),
        ("restrict := [input.a]", "outside_literal_subset", 3, 14),
        ("restrict := [upper(\"a\")]", "outside_literal_subset", 3, 14),
        ("restrict := [$\"a{1}\"]", "not_evaluable", 3, 14),
        ("restrict[x] := 1", "outside_literal_subset", 3, 10),
        ("restrict[\"a\"][\"b\"] := 1", "not_evaluable", 3, 14),
        ("restrict.a.b := 1", "not_evaluable", 3, 11),
        ("restrict[\"a\"]", "not_evaluable", 3, 1),
        ("restrict[\"a\"] { true }", "outside_literal_subset", 3, 15),
        ("helper := 1", "rule_not_allowed", 3, 1),
        ("default result := 1", "rule_not_allowed", 3, 9),
        ("restrict(x) := 1", "root_is_a_function", 3, 1),
    ] {
        let content = format!("package caracal.authz\nimport rego.v1\n{rules}");
        let refusal = ParsedDocument::parse_literal(&content).expect_err(rules);
        let found = (refusal.kind.code(), refusal.at.line, refusal.at.column);
        assert_eq!(found, (code, line, column), "{rules}: {refusal}");
    }
}

#[test]
fn the_head_of_a_document_is_exact() {
    for (content, code) in [
        ("", "syntax_error"),
        ("grants := {}", "syntax_error"),
        ("package", "syntax_error"),
        ("package caracal.authz grants := {}", "syntax_error"),
        ("package other\ngrants := {}", "foreign_package"),
        ("package caracal.authz.sub\ngrants := {}", "foreign_package"),
        ("package caracal[\"authz\"]\ngrants := {}", "foreign_package"),
        ("package caracal.authz\nimport rego.v1 as v1", "not_evaluable"),
    ] {
        assert_eq!(ParsedDocument::parse(content).unwrap_err().kind.code(), code, "{content}");
    }
    for content in [
        "package caracal.authz",
        "\u{feff}# c\r\n\r\n  package\tcaracal.authz # c\r\nimport rego.v1\r\nrisk := []\r\n# end",
    ] {
        assert!(ParsedDocument::parse(content).is_ok(), "{content}");
    }
}

#[test]
fn nesting_is_bounded() {
    let nested =
        |depth: usize| format!("package caracal.authz\nrestrict := {}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(ParsedDocument::parse(&nested(64)).is_ok());
    assert_eq!(ParsedDocument::parse(&nested(65)).unwrap_err().kind.code(), "nested_too_deep");
}

#[test]
fn equality_and_order_look_at_values_not_at_spelling() {
    let parsed = ParsedDocument::parse("package caracal.authz\nrisk := [ 1.0,`a` ]\nrestrict := [1, \"a\"]").unwrap();
    let value = |root| parsed.value_of(root).unwrap();
    assert_eq!(value(caracal_policy::Root::Risk), value(caracal_policy::Root::Restrict));
    assert!(matches!(value(caracal_policy::Root::Risk).value, Value::Array(_)));
}
