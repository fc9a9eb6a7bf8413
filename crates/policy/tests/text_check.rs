//! The text check: its codes and their precedence, the consequences listed in policy.md §7.1, and the rows of the
//! table "Edge cases worth a test: authoring" that a text alone decides.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of a test file are test code")]

use caracal_policy::text::{self, MAX_DOCUMENT_UNITS, TextDefect};
use caracal_policy::{ParsedDocument, Position};

const HEADER: &str = "# caracal:data-document\npackage caracal.authz\nimport rego.v1\n";

/// The wire code of a text, `ok` if it passes.
fn code(content: &str) -> String {
    text::check(content).map_or_else(|TextDefect { code, .. }| code.to_string(), |_| "ok".into())
}

#[track_caller]
fn check(content: &str, expected: &str) {
    assert_eq!(code(content), expected, "{content:?}");
}

#[track_caller]
fn check_rules(rules: &str, expected: &str) {
    check(&format!("{HEADER}{rules}"), expected);
}

#[test]
fn the_first_failing_row_names_the_code() {
    check("", "empty_policy");
    check("x := \"oops", "unterminated_string");
    check("{", "unbalanced_delimiters");
    check("default allow = false", "missing_package_declaration");
    check("package 9x\nhttp.send(1)", "invalid_package_name");
    check("package other\nhttp.send(1)", "forbidden_builtin:http.send");
    check("package other\nresult := 1", "must_use_package_caracal_authz");
    check("package caracal.authz\ndefault allow = false", "must_be_data_document");
    check_rules("helper := 1\nresult := 1", "data_document_must_not_define_result");
    check_rules("", "data_document_must_define_data");
    check_rules("grants := {}\nhelper := 1\nother := 2", "data_document_rule_not_allowed:helper");
    check_rules("grants := {}", "ok");
}

#[test]
fn length_is_counted_in_utf16_units_and_bounded() {
    let padded = |units: usize, filler: &str| {
        let head = format!("{HEADER}grants := {{}}\n#");
        let rest = (units - head.len()) / filler.encode_utf16().count();
        let tail = (units - head.len()) % filler.encode_utf16().count();
        format!("{head}{}{}", filler.repeat(rest), "x".repeat(tail))
    };
    for filler in ["x", "é", "€", "😀"] {
        let longest = padded(MAX_DOCUMENT_UNITS, filler);
        assert_eq!(longest.encode_utf16().count(), MAX_DOCUMENT_UNITS);
        check(&longest, "ok");
        assert!(ParsedDocument::parse(&longest).is_ok());
        let longer = padded(MAX_DOCUMENT_UNITS + 1, filler);
        check(&longer, "content_too_large");
        assert_eq!(ParsedDocument::parse(&longer).unwrap_err().kind.code(), "document_too_long");
    }
}

#[test]
fn strings_and_comments_hide_what_is_in_them() {
    check_rules("grants := {\"# { ( [\": {}} # } ] ) \" `", "ok");
    check_rules("grants := {`raw \" \n } # `: {}}", "ok");
    check_rules("grants := {\"a\\\"}\": {}}", "ok");
    check_rules("grants := {\"a\\\\\": {}}", "ok");
    check_rules("grants := {\"a\n\": {}}", "unterminated_string");
    check_rules("grants := {\"a\\\n\": {}}", "unterminated_string");
    check_rules("grants := {`a", "unterminated_string");
    check_rules("grants := {\"time.now_ns()\": {}}", "ok");
    check_rules("grants := {} # http.send(", "ok");
}

#[test]
fn brackets_must_pair_up() {
    for rules in ["grants := {", "grants := }", "grants := {(})", "grants := [)", "grants := ]["] {
        check_rules(rules, "unbalanced_delimiters");
    }
}

#[test]
fn the_package_line_is_found_and_judged() {
    let with_package = |line: &str| format!("# caracal:data-document\n{line}\ngrants := {{}}\n");
    for (line, expected) in [
        ("  package\tcaracal.authz", "ok"),
        ("package caracal.authz # comment", "ok"),
        ("package caracal.authz\npackage other", "ok"),
        ("package other\npackage caracal.authz", "must_use_package_caracal_authz"),
        ("package caracal[\"authz\"]", "must_use_package_caracal_authz"),
        ("package caracal.authz.sub", "must_use_package_caracal_authz"),
        ("package caracal.authz.", "invalid_package_name"),
        ("package .caracal", "invalid_package_name"),
        ("package caracal..authz", "invalid_package_name"),
        ("packagecaracal.authz", "missing_package_declaration"),
        ("# package caracal.authz", "missing_package_declaration"),
        ("x package caracal.authz", "missing_package_declaration"),
        ("package", "missing_package_declaration"),
    ] {
        check(&with_package(line), expected);
    }
}

#[test]
fn only_a_line_feed_ends_a_line() {
    check(&format!("{HEADER}grants := {{}}\n").replace('\n', "\r"), "missing_package_declaration");
    check(&format!("{HEADER}grants := {{}}\n").replace('\n', "\r\n"), "ok");
    check(&format!("\u{feff}{HEADER}grants := {{}}\n"), "ok");
    check("# caracal:data-document\n\u{feff}package caracal.authz\ngrants := {}", "ok");
}

#[test]
fn the_directive_is_a_line_of_its_own() {
    let with_directive = |line: &str| format!("{line}\npackage caracal.authz\ngrants := {{}}\n");
    for (line, expected) in [
        ("#caracal:data-document", "ok"),
        ("  #\t caracal:data-document and more", "ok"),
        ("# caracal:data-document-v2", "ok"),
        ("# caracal:data-documentX", "must_be_data_document"),
        ("# caracal:data-document_", "must_be_data_document"),
        ("## caracal:data-document", "must_be_data_document"),
        ("# Caracal:data-document", "must_be_data_document"),
    ] {
        check(&with_directive(line), expected);
    }
    check("package caracal.authz # caracal:data-document\ngrants := {}", "must_be_data_document");
    check("package caracal.authz\ngrants := {}\n# caracal:data-document", "ok");
}

#[test]
fn forbidden_calls_are_reported_in_list_order() {
    check_rules("grants := {} if rand.intn(\"a\", 2) == http.send({})", "forbidden_builtin:http.send");
    check_rules("grants := {} if rand.intn  (\"a\", 2)", "forbidden_builtin:rand.intn");
    check_rules("grants := {} if time.now_ns\n()", "forbidden_builtin:time.now_ns");
    for harmless in [
        "x_http.send(1)",
        "my.http.send(1)",
        "http.send",
        "http[\"send\"]({})",
        "http.sender(1)",
        "net.cidr_contains_matches(1, 2)",
    ] {
        check_rules(&format!("grants := {{}} if {harmless}"), "ok");
    }
}

#[test]
fn rules_are_detected_as_text() {
    for (rules, expected) in [
        ("grants[\"a\"] := {}", "data_document_must_define_data"),
        ("grants.a := {}", "data_document_must_define_data"),
        ("restrict[\"x\"] { true }", "data_document_must_define_data"),
        ("grants[\"a\"] := {}\nrisk := []", "ok"),
        ("result[\"a\"] := 1\ngrants := {}", "ok"),
        ("grants(x) := {}", "ok"),
        ("default grants := {}", "ok"),
        ("default\tgrants = {}", "ok"),
        // The reference takes these for rules; ours looks at brackets, as the contract lets it.
        ("restrict contains \"x\" if {\n y := input.a\n}", "ok"),
        ("restrict contains \"x\" if {\n foo == 1\n}", "ok"),
        ("restrict contains \"x\" if {\n count(input.a) == 1\n}", "ok"),
        ("restrict contains \"x\" if {\n y := input.a\n}\nhelper(f(1)) := 1", "data_document_rule_not_allowed:helper"),
        ("restrict contains \"x\" if {\n y := input.a\n}\nresult := 1", "data_document_must_not_define_result"),
        (
            "restrict contains \"x\" if {\n input.a == 1\n some k in x\n every v in y { v }\n not z\n \
             startswith(a, \"b\")\n}",
            "ok",
        ),
        ("restrict := {\"a\"} if { input.x } else := {}", "ok"),
        ("helper if true\ngrants := {}", "data_document_rule_not_allowed:helper"),
        ("helper { true }\ngrants := {}", "data_document_rule_not_allowed:helper"),
        ("helper contains 1\ngrants := {}", "data_document_rule_not_allowed:helper"),
        ("containsX := 1\ngrants := {}", "data_document_rule_not_allowed:containsX"),
        ("Grants := {}", "data_document_rule_not_allowed:Grants"),
    ] {
        check_rules(rules, expected);
    }
}

#[test]
fn a_text_defect_names_its_place() {
    let at = |content: &str| text::check(content).unwrap_err().at;
    assert_eq!(at(&format!("{HEADER}grants := {{}}\n  hélper := \"é\"\n  hx := 1")), Position { line: 6, column: 3 });
    assert_eq!(at(&format!("{HEADER}risk := [`a\nb`, `é`, (]")), Position { line: 5, column: 11 });
    assert_eq!(at("package caracal.authz\n  \"open"), Position { line: 2, column: 3 });
    assert_eq!(at(&format!("{HEADER}restrict contains 1 if # c\n  http.send(1)")), Position { line: 5, column: 3 });
    let message = text::check("package caracal.authz\nx := (").unwrap_err().to_string();
    assert_eq!(message, "line 2, column 6: this bracket has no partner");
}

#[test]
fn a_valid_text_is_previewed() {
    let content = format!(
        "{HEADER}grants := {{}} # input.hidden\napp_ids := {{}}\nrestrict contains \"input.no\" if {{\n \
         input.principal.id == data.caracal.authz.app_ids[\"x\"]\n input.principal[\"id\"]\n myinput.a\n x.input.b\n}}\n\
         restrict contains {{\"decision\" : \"deny\"}}\n"
    );
    let validation = text::check(&content).unwrap().validation();
    assert_eq!(
        serde_json::to_value(&validation).unwrap(),
        serde_json::json!({
            "valid": true, "schema_version": "2026-05-20", "input_schema_version": "2026-05-20",
            "output_contract": {"package": "caracal.authz", "rule": "result", "decision": ["allow", "deny"],
                                "evaluation_status": ["complete"]},
            "preview": {"package": "caracal.authz", "rules": ["app_ids", "grants", "restrict"],
                        "default_result": false, "decisions": ["deny"],
                        "inputs_referenced": ["input.principal", "input.principal.id"],
                        "data_referenced": ["data.caracal.authz.app_ids"]}
        })
    );
}
