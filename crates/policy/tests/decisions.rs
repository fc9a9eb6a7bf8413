//! The table "Edge cases worth a test: decision" of the contract, row by row, and the corners of its §4.2.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of a test file are test code")]

mod world;

use caracal_policy::{Bundle, DenyReason, Input, NO_ACTIVE_POLICY_SET, Verdict, decide};
use serde_json::{Value, json};
use world::*;

#[track_caller]
fn check(bundle: &Bundle, input: &Input, expected: &str) {
    let found = outcome(bundle, input);
    // A plain allowance has no diagnostics.
    let found = found.strip_suffix(" []").unwrap_or(&found);
    assert_eq!(found, expected);
}

#[track_caller]
fn check_base(input: &Input, expected: &str) {
    check(&load(&[BASE]).unwrap(), input, expected);
}

const PAY_MINT: &str = "allow caracal-pay-mint";

#[test]
fn a_mint_inside_every_bound_is_allowed() {
    check_base(&mint(), PAY_MINT);
}

#[test]
fn bootstrap_needs_the_lifecycle_scope_alone_and_an_owned_resource() {
    check_base(&bootstrap(), "allow caracal-bootstrap");
    let mut twice = bootstrap();
    twice.context.requested_scopes.push("agent:lifecycle".into());
    check_base(&twice, "allow caracal-bootstrap");

    let mut foreign = bootstrap();
    foreign.principal.id = "app-2".into();
    let mut extra = bootstrap();
    extra.context.requested_scopes.push("n:read".into());
    let mut none = bootstrap();
    none.context.requested_scopes.clear();
    for input in [foreign, extra, none] {
        check_base(&input, "deny no_rule_matched");
    }
}

#[test]
fn a_mint_needs_the_owner_and_a_known_resource() {
    let mut foreign = mint();
    foreign.principal.id = "app-2".into();
    let mut unknown = mint();
    unknown.resource.identifier = "resource://unknown".into();
    let mut other_case = mint();
    other_case.resource.identifier = "resource://N".into();
    for input in [foreign, unknown, other_case] {
        check_base(&input, "deny resource_not_granted");
    }
}

#[test]
fn t02_sts_policy_a_mint_never_exceeds_its_edge() {
    check_base(&mint_of(&["n:pay", "n:read"], &["n:pay"]), "deny delegation_scope_exceeded");
    check_base(&mint_of(&["n:pay"], &[]), "deny delegation_scope_exceeded");
}

#[test]
fn one_label_must_hold_every_wanted_scope() {
    let mut read_only = mint_of(&["n:pay", "n:read"], &["n:pay", "n:read"]);
    read_only.principal.labels = strings(&["ro"]);
    for input in [read_only, mint_as(&[]), mint_as(&["exec2"])] {
        check_base(&input, "deny role_scope_mismatch");
    }
    let split = load(&[r#"
        app_ids := {"pay": "app-1"}
        grants := {"resource://n": {"application": "pay", "roles": {"a": ["n:pay"], "b": ["n:read"]}}}
    "#])
    .unwrap();
    let mut both = mint_of(&["n:pay", "n:read"], &["n:pay", "n:read"]);
    both.principal.labels = strings(&["a", "b"]);
    check(&split, &both, "deny role_scope_mismatch");
}

#[test]
fn what_is_no_mint_matches_no_rule() {
    let lifecycle = mint_of(&["n:pay", "agent:lifecycle"], &["n:pay", "agent:lifecycle"]);
    let empty = mint_of(&[], &["n:pay"]);
    let mut with_subject = mint();
    with_subject.context.subject_claims = Some(json!({"sub": "x"}).as_object().unwrap().clone());
    let mut without_session = mint();
    without_session.context.agent_session_id = None;
    let mut empty_edge_id = mint();
    empty_edge_id.delegation_edge.as_mut().unwrap().id.clear();
    for input in [lifecycle, empty, with_subject, without_session, empty_edge_id, shapeless(), Input::default()] {
        check_base(&input, "deny no_rule_matched");
    }
    let null_scopes: Input = serde_json::from_value({
        let mut value = serde_json::to_value(mint()).unwrap();
        value["context"]["requested_scopes"] = Value::Null;
        value
    })
    .unwrap();
    check_base(&null_scopes, "deny no_rule_matched");
}

#[test]
fn ownership_goes_through_the_binding_key_of_the_grant() {
    let grants = |key: &str| {
        format!(r#"grants := {{"resource://n": {{"application": "{key}", "roles": {{"exec": ["n:pay"]}}}}}}"#)
    };
    let two_keys = format!("app_ids := {{\"a\": \"app-1\", \"b\": \"app-1\"}}\n{}", grants("b"));
    check(&load(&[&two_keys]).unwrap(), &mint(), "allow caracal-b-mint");
    let others = format!("app_ids := {{\"pay\": \"app-1\", \"support\": \"app-other\"}}\n{}", grants("support"));
    check(&load(&[&others]).unwrap(), &mint(), "deny resource_not_granted");
    let unbound = format!("app_ids := {{\"pay\": \"app-1\"}}\n{}", grants("nobody"));
    check(&load(&[&unbound]).unwrap(), &mint(), "deny resource_not_granted");
}

#[test]
fn empty_data_grants_nothing() {
    check(&load(&["grants := {}\napp_ids := {}"]).unwrap(), &mint(), "deny resource_not_granted");
    let nothing = load(&[]).unwrap();
    check(&nothing, &mint(), "deny resource_not_granted");
    check(&nothing, &bootstrap(), "deny no_rule_matched");
    check(&nothing, &presented(), "deny resource_not_granted");
}

#[test]
fn restrict_freezes_every_shape_when_it_has_an_element() {
    for empty in ["{}", "[]", "set()"] {
        check(&base_and(&format!("restrict := {empty}")), &mint(), PAY_MINT);
    }
    for frozen in [r#"{"x"}"#, r#"["x"]"#, r#"{"a": false}"#, "{false}", "[null]"] {
        let bundle = base_and(&format!("restrict := {frozen}"));
        for input in [mint(), presented(), bootstrap(), workload(), shapeless()] {
            check(&bundle, &input, "deny restriction_active");
        }
    }
    check(&base_and("restrict contains \"x\""), &mint(), "deny restriction_active");
    check(&base_and("restrict[\"x\"] := false"), &mint(), "deny restriction_active");
}

#[test]
fn confinement_caps_sessions_that_carry_the_label() {
    let rule = r#"{"label_prefix": "customer:", "scopes": ["n:read"]}"#;
    let confined = mint_as(&["exec", "customer:a"]);
    for collection in [format!("[{rule}]"), format!("{{{rule}}}"), format!("{{\"a\": {rule}}}")] {
        let bundle = base_and(&format!("confinement := {collection}"));
        check(&bundle, &confined, "deny confinement_violation");
        check(&bundle, &mint(), PAY_MINT);
    }
    check(&base_and(&format!("confinement contains {rule}")), &confined, "deny confinement_violation");
    check(&base_and(&format!("confinement.a := {rule}")), &confined, "deny confinement_violation");
}

#[test]
fn an_unreadable_confinement_denies_every_mint() {
    for value in ["null", "5", "\"x\"", "true", "[{\"scopes\": [\"n:pay\"]}]", "[\"x\"]", "[[]]"] {
        let bundle = base_and(&format!("confinement := {value}"));
        check(&bundle, &mint(), "deny confinement_violation");
        check(&bundle, &presented(), "allow caracal-pay-use");
    }
    check(&base_and("confinement := [{\"label_prefix\": \"ex\"}]"), &mint(), "deny confinement_violation");
    check(&base_and("confinement := [{\"label_prefix\": \"zz\"}]"), &mint(), PAY_MINT);
}

#[test]
fn an_empty_prefix_spares_only_sessions_without_labels() {
    let bundle = base_and("confinement := [{\"label_prefix\": \"\", \"scopes\": [\"n:read\"]}]");
    check(&bundle, &mint(), "deny confinement_violation");
    check(&bundle, &mint_as(&[]), "deny role_scope_mismatch");
}

const RISK: &str = "risk := [{\"scope\": \"n:pay\", \"tier\": \"money\"}]\n";

#[test]
fn classified_scopes_are_reported_and_declared_tiers_hold_the_mint() {
    check(&base_and(RISK), &mint(), r#"allow caracal-pay-mint [{"risk":[{"scope":"n:pay","tier":"money"}]}]"#);
    let gated = base_and(&format!("{RISK}approval_tiers := [{{\"tier\": \"money\"}}, {{\"tier\": \"money\"}}]"));
    check(
        &gated,
        &mint(),
        "allow caracal-pay-mint [{\"step_up_required\":{\"type\":\"human_approval\",\"tiers\":[{\"tier\":\"money\"}]}},\
         {\"risk\":[{\"scope\":\"n:pay\",\"tier\":\"money\"}]}]",
    );
    check(
        &gated,
        &mint_of(&["n:pay", "n:pay"], &["n:pay"]),
        "allow caracal-pay-mint [{\"step_up_required\":{\"type\":\"human_approval\",\"tiers\":[{\"tier\":\"money\"}]}},\
         {\"risk\":[{\"scope\":\"n:pay\",\"tier\":\"money\"},{\"scope\":\"n:pay\",\"tier\":\"money\"}]}]",
    );
    check(&base_and("approval_tiers := [{\"tier\": \"money\"}]"), &mint(), PAY_MINT);
    check(&gated, &mint_of(&["n:read"], &["n:read"]), PAY_MINT);
}

#[test]
fn declarations_stand_in_the_languages_order_and_verbatim() {
    let bundle = base_and(
        r#"
        risk := [{"scope": "n:pay", "tier": "m"}, {"scope": "n:read", "tier": "l"}, {"scope": "n:a", "tier": "a"}]
        approval_tiers := [
            {"tier": "a"},
            {"tier": "l", "privacy": "anonymous"},
            {"tier": "m", "approver": "any"},
            {"tier": "m", "approver": "any", "ttl_seconds": 900.0},
            {"tier": "m", "approver": "any", "ttl_seconds": 60, "note": {"b": [1, {2}], "a": null}},
            {"tier": "unused"},
        ]
        "#,
    );
    let mut input = mint_of(&["n:read", "n:pay"], &["n:pay", "n:read"]);
    input.delegation_edge.as_mut().unwrap().scopes.push("n:a".into());
    let verdict = decide(&bundle, &input).unwrap();
    assert_eq!(
        serde_json::to_string(&verdict.diagnostics()).unwrap(),
        "[{\"step_up_required\":{\"type\":\"human_approval\",\"tiers\":[\
         {\"approver\":\"any\",\"note\":{\"a\":null,\"b\":[1,[2]]},\"tier\":\"m\",\"ttl_seconds\":60},\
         {\"approver\":\"any\",\"tier\":\"m\"},\
         {\"approver\":\"any\",\"tier\":\"m\",\"ttl_seconds\":900.0},\
         {\"privacy\":\"anonymous\",\"tier\":\"l\"}]}},\
         {\"risk\":[{\"scope\":\"n:pay\",\"tier\":\"m\"},{\"scope\":\"n:read\",\"tier\":\"l\"}]}]"
    );
    let tiers = &verdict.step_up().unwrap().tiers;
    assert_eq!(tiers.iter().map(|tier| tier.ttl_seconds).collect::<Vec<_>>(), [Some(60), None, Some(900), None]);
    assert_eq!(tiers[3].privacy.unwrap().as_str(), "anonymous");
    assert_eq!(tiers[0].approver.unwrap().as_str(), "any");
}

#[test]
fn malformed_risk_fails_every_mint_and_nothing_else() {
    for value in [
        "[{\"scope\": \"n:pay\"}]",
        "[{\"scope\": \"n:pay\", \"tier\": \"\"}]",
        "[{\"scope\": \"n:pay\", \"tier\": 3}]",
        "[{\"scope\": \"\", \"tier\": \"m\"}]",
        "[\"n:pay\"]",
        "{\"a\": {\"scope\": \"n:pay\", \"tier\": \"m\"}}",
        "{{\"scope\": \"n:pay\", \"tier\": \"m\"}}",
        "null",
        "5",
    ] {
        let bundle = base_and(&format!("risk := {value}"));
        check(&bundle, &mint(), "deny malformed_risk_data");
        check(&bundle, &workload(), "deny malformed_risk_data");
        check(&bundle, &bootstrap(), "allow caracal-bootstrap");
        check(&bundle, &presented(), "allow caracal-pay-use");
        check(&bundle, &shapeless(), "deny no_rule_matched");
    }
    check(&base_and("default risk := []"), &mint(), PAY_MINT);
    let part = base_and("risk contains {\"scope\": \"n:pay\", \"tier\": \"m\"}");
    check(&part, &mint(), "deny malformed_risk_data");
}

#[test]
fn one_bad_declaration_fails_every_mint() {
    for declaration in [
        "{\"tier\": \"unused\", \"approver\": \"root\"}",
        "{\"tier\": \"unused\", \"approver\": null}",
        "{\"tier\": \"unused\", \"privacy\": \"hidden\"}",
        "{\"tier\": \"unused\", \"ttl_seconds\": 0}",
        "{\"tier\": \"unused\", \"ttl_seconds\": -1}",
        "{\"tier\": \"unused\", \"ttl_seconds\": 1.5}",
        "{\"tier\": \"unused\", \"ttl_seconds\": null}",
        "{\"tier\": \"unused\", \"ttl_seconds\": \"soon\"}",
        "{\"tier\": \"unused\", \"ttl_seconds\": 99999999999999999999}",
        "{\"tier\": \"\"}",
        "{\"tier\": 1}",
        "{}",
        "\"unused\"",
    ] {
        let bundle = base_and(&format!("{RISK}approval_tiers := [{{\"tier\": \"money\"}}, {declaration}]"));
        check(&bundle, &mint(), "deny malformed_approval_data");
        check(&bundle, &workload(), "deny malformed_approval_data");
        check(&bundle, &bootstrap(), "allow caracal-bootstrap");
        check(&bundle, &presented(), "allow caracal-pay-use");
    }
}

#[test]
fn malformed_data_is_looked_at_in_the_ladders_order() {
    let both = "risk := [{\"scope\": \"n:pay\"}]\napproval_tiers := [{\"x\": 1}]\n";
    check(&base_and(both), &mint(), "deny malformed_risk_data");
    check(&base_and(&format!("{both}restrict := {{\"q\"}}")), &mint(), "deny restriction_active");
    let mut foreign = mint();
    foreign.principal.id = "app-2".into();
    check(&base_and(both), &foreign, "deny malformed_risk_data");
}

#[test]
fn a_scope_with_two_tiers_has_no_answer_where_it_is_minted() {
    let doubly = base_and(
        "risk := [{\"scope\": \"n:pay\", \"tier\": \"money\"}, {\"scope\": \"n:pay\", \"tier\": \"high\"}, \
         {\"scope\": \"n:read\", \"tier\": \"high\"}]",
    );
    check(&doubly, &mint(), "error");
    check(
        &doubly,
        &mint_of(&["n:read"], &["n:read"]),
        "allow caracal-pay-mint [{\"risk\":[{\"scope\":\"n:read\",\"tier\":\"high\"}]}]",
    );
    check(&doubly, &bootstrap(), "allow caracal-bootstrap");
    check(&doubly, &mint_as(&["ro"]), "deny role_scope_mismatch");
    let mut launch = workload();
    launch.context.requested_scopes = strings(&["n:pay"]);
    check(&doubly, &launch, "error");
    let twice_the_same =
        base_and("risk := [{\"scope\": \"n:pay\", \"tier\": \"money\"}, {\"scope\": \"n:pay\", \"tier\": \"money\"}]");
    check(&twice_the_same, &mint(), r#"allow caracal-pay-mint [{"risk":[{"scope":"n:pay","tier":"money"}]}]"#);
}

#[test]
fn a_presented_mandate_is_checked_against_its_target() {
    let with_target =
        |target: Value| presented_with(json!({"delegation_edge_id": "e-1", "target": target, "scope": "n:pay"}));
    check_base(&with_target(json!(["resource://m", "resource://n"])), "allow caracal-pay-use");
    for target in [json!(["resource://m"]), json!("resource://n"), json!([]), json!({"a": "resource://n"}), json!(null)]
    {
        check_base(&with_target(target), "deny mandate_target_mismatch");
    }
    check_base(&presented_with(json!({"delegation_edge_id": "e-1", "scope": "n:pay"})), "deny mandate_target_mismatch");
}

#[test]
fn carried_scopes_are_separated_by_spaces_alone() {
    let with_scope =
        |scope: Value| presented_with(json!({"delegation_edge_id": "e-1", "target": ["resource://n"], "scope": scope}));
    check_base(&with_scope(json!("n:pay  n:read")), "allow caracal-pay-use");
    check_base(&with_scope(json!("n:pay\tn:read")), "deny role_scope_mismatch");
    for scope in [json!(["n:pay"]), json!(""), json!("  "), json!(7)] {
        check_base(&with_scope(scope), "deny no_rule_matched");
    }
    check_base(
        &presented_with(json!({"delegation_edge_id": "e-1", "target": ["resource://n"]})),
        "deny no_rule_matched",
    );
}

#[test]
fn use_asks_for_no_scopes_and_names_its_delegation() {
    let mut asking = presented();
    asking.context.requested_scopes = strings(&["n:pay"]);
    check_base(&asking, "deny no_rule_matched");
    check_base(
        &presented_with(json!({"delegation_edge_id": "", "target": ["resource://n"], "scope": "n:pay"})),
        "deny no_rule_matched",
    );
    check_base(&presented_with(json!({"target": ["resource://n"], "scope": "n:pay"})), "deny no_rule_matched");
}

#[test]
fn use_by_a_non_owner_is_not_granted() {
    let mut foreign = presented();
    foreign.principal.id = "app-2".into();
    check_base(&foreign, "deny resource_not_granted");
}

#[test]
fn workload_launches_need_no_grant_and_can_be_held() {
    let nothing = load(&[]).unwrap();
    check(&nothing, &workload(), "allow caracal-workload-mint");
    let mut without_scopes = workload();
    without_scopes.context.requested_scopes.clear();
    check(&nothing, &without_scopes, "allow caracal-workload-mint");
    let gated = load(&["risk := [{\"scope\": \"n:read\", \"tier\": \"s\"}]\n\
         approval_tiers := [{\"tier\": \"s\", \"ttl_seconds\": 600}]"])
    .unwrap();
    check(
        &gated,
        &workload(),
        "allow caracal-workload-mint [{\"step_up_required\":{\"type\":\"human_approval\",\"tiers\":\
         [{\"tier\":\"s\",\"ttl_seconds\":600}]}},{\"risk\":[{\"scope\":\"n:read\",\"tier\":\"s\"}]}]",
    );

    let mut exchange = workload();
    exchange.action.id = caracal_policy::ActionId::TokenExchange;
    let mut with_subject = workload();
    with_subject.context.subject_claims = Some(json!({"sub": "x"}).as_object().unwrap().clone());
    let mut with_edge = workload();
    with_edge.delegation_edge = mint().delegation_edge;
    for input in [exchange, with_subject, with_edge] {
        check_base(&input, "deny no_rule_matched");
    }
}

#[test]
fn a_workload_asking_for_the_lifecycle_scope_answers_by_its_own_row() {
    let mut launch = workload();
    launch.context.requested_scopes = strings(&["agent:lifecycle"]);
    check_base(&launch, "allow caracal-workload-mint");
    check(&base_and("risk := null"), &launch, "deny no_rule_matched");
    launch.principal.id = "app-1".into();
    check_base(&launch, "allow caracal-workload-mint");
}

#[test]
fn role_scopes_may_be_any_collection_and_a_scalar_holds_nothing() {
    let role = |scopes: &str| {
        load(&[&format!(
            "app_ids := {{\"pay\": \"app-1\"}}\n\
             grants := {{\"resource://n\": {{\"application\": \"pay\", \"roles\": {{\"exec\": {scopes}}}}}}}"
        )])
        .unwrap()
    };
    for scopes in ["[\"n:pay\"]", "{\"n:pay\"}", "{\"a\": \"n:pay\"}", "[1, \"n:pay\"]"] {
        check(&role(scopes), &mint(), PAY_MINT);
    }
    for scopes in ["\"n:pay\"", "null", "5", "[]", "{}", "{\"n:pay\": 1}", "[[\"n:pay\"]]"] {
        check(&role(scopes), &mint(), "deny role_scope_mismatch");
    }
}

#[test]
fn a_defective_grant_beside_a_good_one_just_grants_nothing() {
    let bundle = load(&[r#"
        app_ids := {"pay": "app-1", "num": 5, 7: "app-1"}
        grants := {
            "resource://n": {"application": "pay", "roles": {"exec": ["n:pay"]}},
            "resource://b": {"roles": {"exec": ["n:pay"]}}, "resource://c": 5, "resource://d": {"application": 7},
            "resource://e": {"application": "pay", "roles": ["exec"]},
            "resource://f": {"application": "num", "roles": {"exec": ["n:pay"]}},
            9: {},
        }
    "#])
    .unwrap();
    check(&bundle, &mint(), PAY_MINT);
    for (identifier, expected) in [
        ("resource://b", "deny resource_not_granted"),
        ("resource://c", "deny resource_not_granted"),
        ("resource://d", "deny resource_not_granted"),
        ("resource://e", "deny role_scope_mismatch"),
        ("resource://f", "deny resource_not_granted"),
        ("9", "deny resource_not_granted"),
    ] {
        let mut input = mint();
        input.resource.identifier = identifier.into();
        check(&bundle, &input, expected);
    }
}

#[test]
fn partial_rules_merge_across_documents() {
    let bundle = load(&[
        "grants[\"resource://n\"] := {\"application\": \"pay\", \"roles\": {\"exec\": [\"n:pay\"]}}\n\
         app_ids[\"other\"] := \"app-9\"",
        "app_ids[\"pay\"] := \"app-1\"\napp_ids.pay := \"app-1\"\nrisk := []",
        "risk := []",
    ])
    .unwrap();
    check(&bundle, &mint(), PAY_MINT);
}

#[test]
fn a_default_stands_only_until_a_rule_replaces_it() {
    let ids = "default app_ids := {\"pay\": \"app-1\"}";
    let grants = "grants := {\"resource://n\": {\"application\": \"pay\", \"roles\": {\"exec\": [\"n:pay\"]}}}";
    check(&load(&[ids, grants]).unwrap(), &mint(), PAY_MINT);
    check(&load(&[ids, grants, "app_ids := {}"]).unwrap(), &mint(), "deny resource_not_granted");
}

#[test]
fn what_documents_may_not_read_does_not_change_the_answer() {
    let mut input = mint();
    input.context.challenge_resolved = true;
    input.resource.scopes.clear();
    input.action.method = Some("POST".into());
    input.action.path = Some("/pay".into());
    input.principal.registration_method = Some("dcr".into());
    input.principal.lifecycle = Some("service".into());
    input.delegation_edge.as_mut().unwrap().constraints_json = Some(json!({"max_hops": 1}));
    check_base(&input, PAY_MINT);
}

#[test]
fn a_zone_without_active_set_denies_everything() {
    let bundle = Bundle::no_active_policy_set();
    assert_eq!(bundle.manifest(), NO_ACTIVE_POLICY_SET);
    assert_eq!(bundle.manifest_sha256(), None);
    for input in [mint(), presented(), bootstrap(), workload(), shapeless()] {
        check(&bundle, &input, "deny no_active_policy_set");
    }
}

#[test]
fn the_result_document_has_the_contracts_shape() {
    let allowed = decide(&load(&[BASE]).unwrap(), &mint()).unwrap();
    assert_eq!(
        serde_json::to_string(&allowed).unwrap(),
        "{\"decision\":\"allow\",\"evaluation_status\":\"complete\",\
         \"determining_policies\":[{\"policy\":\"caracal-pay-mint\"}],\"diagnostics\":[]}"
    );
    assert_eq!(
        serde_json::to_string(&Verdict::Deny(DenyReason::RoleScopeMismatch)).unwrap(),
        "{\"decision\":\"deny\",\"evaluation_status\":\"complete\",\"determining_policies\":[],\
         \"diagnostics\":[{\"reason\":\"role_scope_mismatch\"}]}"
    );
}
