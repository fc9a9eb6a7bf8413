//! Documents that must be evaluated: what they come to, what is refused, and what nobody can do with one
//! (policy.md §2, §7.3, §14.2, §14.4, security property 8).

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of a test file are test code")]

mod world;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use caracal_policy::{
    Budget, Bundle, Document, EvaluationError, Evaluators, Input, ParsedDocument, decide, decide_evaluated,
};
use proptest::prelude::*;
use world::*;

/// Tests share their processors with other tests: where time is not the subject it must not decide.
const UNHURRIED: Budget = Budget { time: Duration::from_secs(20) };

/// On a thread as deep as the product's.
fn deeply<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, answer) = mpsc::channel();
    Evaluators::of_process().submit("test", move || drop(sender.send(job()))).unwrap();
    answer.recv().unwrap()
}

/// Decision and policy or reason, or the error, of a question by the base data and more rules.
#[track_caller]
fn decided(rules: &[&str], input: &Input) -> String {
    let documents: Vec<&str> = std::iter::once(BASE).chain(rules.iter().copied()).collect();
    let bundle = build(&documents).unwrap_or_else(|defects| panic!("{rules:?}: {}", defects[0]));
    let values = match bundle.evaluate(input, UNHURRIED) {
        Ok(values) => values,
        Err(error) => return error.to_string(),
    };
    match decide_evaluated(&bundle, &values, input) {
        Ok(verdict) => outcome_of(&verdict),
        Err(error) => error.to_string(),
    }
}

/// `code @ line:column` of the first defect.
fn refused(rules: &str) -> String {
    match build(&[BASE, rules]) {
        Ok(_) => "accepted".to_owned(),
        Err(defects) => {
            let defect = &defects[0];
            format!("{} @ {}:{}", defect.kind.code(), defect.at.line, defect.at.column)
        }
    }
}

const ALLOWED: &str = "allow caracal-pay-mint []";
const FROZEN: &str = "deny restriction_active";

#[test]
fn conditions_on_the_question_decide() {
    let by = |id: &str| {
        let mut input = mint();
        input.principal.id = id.into();
        input
    };
    let rule = "restrict contains \"m\" if input.principal.id == \"app-1\"";
    assert_eq!(decided(&[rule], &by("app-1")), FROZEN);
    assert_eq!(decided(&[rule], &by("app-2")), "deny resource_not_granted");
    for (rules, expected) in [
        ("restrict := {\"a\"} if input.principal.id == \"q\"", ALLOWED),
        ("default restrict := {}\nrestrict := {\"x\"} if input.resource.identifier == \"resource://n\"", FROZEN),
        (
            "restrict := {\"a\"} if {\n input.principal.id == \"q\"\n} else := {\"b\"} if input.action.id == \"Other\"",
            ALLOWED,
        ),
        ("restrict contains l if { some l in input.principal.labels; startswith(l, \"ex\") }", FROZEN),
        (
            "restrict contains msg if { msg := sprintf(\"%s in %v\", [input.principal.id, input.principal.labels]) }",
            FROZEN,
        ),
        ("import input.principal as p\nrestrict contains \"x\" if p.id == \"app-1\"", FROZEN),
        ("restrict contains \"x\" if every l in input.principal.labels { l == \"exec\" }", FROZEN),
        ("restrict contains \"x\" if input.context.trace_id", ALLOWED),
        ("restrict contains \"x\" if count(input.context.requested_scopes) > 1", ALLOWED),
        (
            "risk := []\nrestrict[k] := true if { some k, v in {\"a\": 1, \"b\": 2}; v > count(input.principal.labels) }",
            FROZEN,
        ),
        (
            "confinement contains {\"label_prefix\": l, \"scopes\": [\"n:read\"]} if some l in input.principal.labels",
            "deny confinement_violation",
        ),
        (
            "risk := [{\"scope\": s, \"tier\": \"money\"} | some s in input.context.requested_scopes]",
            "allow caracal-pay-mint [{\"risk\":[{\"scope\":\"n:pay\",\"tier\":\"money\"}]}]",
        ),
    ] {
        assert_eq!(decided(&[rules], &mint()), expected, "{rules}");
    }
}

#[test]
fn a_root_may_read_another_in_every_spelling() {
    for read in [
        "grants[r].application == \"pay\"",
        "data.caracal.authz.grants[r].application == \"pay\"",
        "data[\"caracal\"][\"authz\"][\"grants\"][r].application == \"pay\"",
        "a.grants[r].application == \"pay\"",
        "g[r].application == \"pay\"",
        "some r, g2 in grants; g2.application == \"pay\"",
        "x := grants[r]; x.application == \"pay\"",
    ] {
        let rules = format!(
            "import data.caracal.authz as a\nimport data.caracal.authz.grants as g\n\
             restrict contains r if {{ {read}; r == input.resource.identifier }}"
        );
        assert_eq!(decided(&[&rules], &mint()), FROZEN, "{read}");
        let other = rules.replace("r == input.resource.identifier", "r == input.resource.id");
        assert_eq!(decided(&[&other], &mint()), ALLOWED, "{read}");
    }
    // One that depends on the question, read by one that then does, too.
    let chain = "risk := [{\"scope\": s, \"tier\": \"t\"} | some s in input.context.requested_scopes]\n\
                 restrict contains e.scope if { some e in risk; e.tier == \"t\" }";
    assert_eq!(decided(&[chain], &mint()), FROZEN);
}

/// Found by fuzzing: the engine puts some of its complaints into column zero.
#[test]
fn a_complaint_of_the_engine_has_its_place_in_the_text() {
    let text = "package caracal.authz\nimport rego.#v0\nrisk := []\n";
    let refusal = ParsedDocument::parse(text).unwrap_err();
    assert_eq!((refusal.at.line, refusal.at.column), (3, 1), "{refusal:?}");
}

/// Found by fuzzing: which of several unknown names was told was a matter of chance.
#[test]
fn of_several_names_that_nobody_assigns_it_is_always_the_same_that_is_told() {
    let text = "package caracal.authz\nimport rego.v1\nrestrict := {nuld: {}, tuue: {}, axe: 1, box: 2, cue: 3}\n";
    for _ in 0..32 {
        let refusal = ParsedDocument::parse(text).unwrap_err();
        assert!(refusal.to_string().contains("`axe`"), "{refusal}");
    }
}

#[test]
fn what_does_not_depend_on_the_question_is_evaluated_once() {
    let bundle = build(&[
        "app_ids := {\"pay\": \"app-1\"}\ngrants := {r: {\"application\": \"pay\", \"roles\": {\"exec\": [\"n:pay\"]}} | \
         some r in [\"resource://n\", \"resource://m\"]}",
        "restrict contains \"b\" if count(grants) > 2",
    ])
    .unwrap();
    assert!(!bundle.must_be_evaluated());
    assert_eq!(outcome_of(&decide(&bundle, &mint()).unwrap()), ALLOWED);
}

/// A stored document with one good entry is taken (policy.md §2.1), also while that entry is absent.
#[test]
fn a_defective_grant_beside_a_good_one_with_a_condition_just_grants_nothing() {
    let text = "package caracal.authz\nimport rego.v1\napp_ids := {\"pay\": \"app-1\"}\ngrants[\"resource://m\"] := 1\n\
                grants[\"resource://n\"] := {\"application\": \"pay\", \"roles\": {\"exec\": [\"n:pay\"]}} if \
                input.principal.id == \"app-1\"";
    let bundle = Bundle::load(&[Document { policy_version_id: "v", content: text }]).unwrap();
    let outcome = |id: &str| {
        let mut input = mint();
        input.principal.id = id.into();
        let values = bundle.evaluate(&input, UNHURRIED).unwrap();
        outcome_of(&decide_evaluated(&bundle, &values, &input).unwrap())
    };
    assert_eq!(outcome("app-1"), ALLOWED);
    assert_eq!(outcome("app-2"), "deny resource_not_granted");
    let alone = text.split_once("\ngrants[\"resource://n\"]").unwrap().0;
    let refused = Bundle::load(&[Document { policy_version_id: "v", content: alone }]).unwrap_err();
    assert_eq!(refused[0].kind.code(), "defective_grants");
}

#[test]
fn documents_merge_as_if_they_were_one() {
    let partial = "restrict contains \"a\" if input.principal.id == \"q\"";
    assert_eq!(decided(&[partial, "restrict contains \"b\""], &mint()), FROZEN);
    assert_eq!(decided(&[partial, partial], &mint()), ALLOWED);
    // Two documents that give one root as a whole agree, or there is no decision.
    let whole = |value: &str| format!("restrict := {value} if input.principal.id == \"app-1\"");
    assert_eq!(decided(&[&whole("{\"x\"}"), &whole("{\"x\"}")], &mint()), FROZEN);
    assert!(decided(&[&whole("{\"x\"}"), &whole("{\"y\"}")], &mint()).contains("conflicts"));
    assert!(decided(&[&whole("{\"x\"}"), "restrict := {}"], &mint()).contains("already defined with another value"));
    // A member from a condition and the same one written out.
    let member = "risk := []\napp_ids[\"q\"] := \"app-9\" if input.action.id == \"TokenExchange\"";
    let documents = |other: &str| {
        let base = "risk := []\napp_ids[\"pay\"] := \"app-1\"\ngrants := {\"resource://n\": {\"application\": \"pay\", \"roles\": \
                    {\"exec\": [\"n:pay\"]}}}";
        let bundle = build(&[base, member, other]).unwrap();
        match bundle.evaluate(&mint(), UNHURRIED) {
            Ok(values) => outcome_of(&decide_evaluated(&bundle, &values, &mint()).unwrap()),
            Err(error) => error.to_string(),
        }
    };
    assert_eq!(documents("risk := []\napp_ids[\"q\"] := \"app-9\""), ALLOWED);
    assert!(documents("risk := []\napp_ids[\"q\"] := \"app-8\"").contains("already defined with another value"));
}

#[test]
fn an_undefined_argument_is_not_a_truth_when_it_is_negated() {
    for (condition, expected) in [
        ("not startswith(input.principal.lifecycle, \"ta\")", ALLOWED),
        ("not input.principal.lifecycle", FROZEN),
        ("not input.principal.lifecycle == \"task\"", FROZEN),
        ("not input.principal.lifecycle != \"task\"", ALLOWED),
        ("not input.principal.id == \"q\"", FROZEN),
        ("not count(input.principal.missing) == 1", ALLOWED),
        ("not \"x\" in input.principal.missing", ALLOWED),
        ("not \"x\" in input.principal.labels", FROZEN),
        ("not startswith(input.principal.id, \"ap\")", ALLOWED),
        ("not startswith(input.principal.id, \"q\")", FROZEN),
    ] {
        for rule in [
            format!("restrict contains \"x\" if {condition}"),
            format!("restrict contains \"x\" if {{\n {condition}\n}}"),
            format!("restrict contains \"x\" if {{ some l in input.principal.labels; {condition} }}"),
        ] {
            assert_eq!(decided(&[&rule], &mint()), expected, "{rule}");
        }
    }
    for condition in
        ["not startswith(input.principal.labels[_], \"e\")", "not startswith(input.principal.labels[i], \"e\")"]
    {
        assert!(
            refused(&format!("restrict contains \"x\" if {condition}")).starts_with("not_evaluable"),
            "{condition}"
        );
    }
}

#[test]
fn nothing_is_in_null_or_in_a_string() {
    for collection in ["null", "\"abc\"", "5", "input.principal.id", "input.missing"] {
        let rule = format!("restrict contains x if {{ some x in {collection}; input.principal }}");
        assert_eq!(decided(&[&rule], &mint()), ALLOWED, "{collection}");
    }
}

#[test]
fn what_a_function_can_not_compute_is_undefined() {
    for condition in ["1 / 0 == 1", "to_number(\"abc\") == 1", "to_number(\"1e999999999\") > 1", "count(5) == 1"] {
        assert_eq!(decided(&[&format!("restrict contains \"x\" if {condition}")], &mint()), ALLOWED, "{condition}");
    }
    for condition in [
        "to_number(\"12\") == 12",
        "time.parse_rfc3339_ns(\"2026-01-01T00:00:00Z\") == 1767225600000000000",
        "print(\"a\", 1)",
        "concat(\"-\", [\"a\", \"b\"]) == \"a-b\"",
        "replace(\"aba\", \"a\", \"c\") == \"cbc\"",
        "900.0 == 900",
    ] {
        assert_eq!(decided(&[&format!("restrict contains \"x\" if {condition}")], &mint()), FROZEN, "{condition}");
    }
}

#[test]
fn what_can_not_be_served_is_refused_to_its_author_with_its_place() {
    let long = format!("restrict contains \"x\" if 1{} > 0", " + 1".repeat(100));
    let many = format!("restrict contains \"x\" if {{\n{}}}", "input.a == 1\n".repeat(80));
    let compared = format!("restrict contains 1 if {{ {{{}}} == input.a }}", "input.a, ".repeat(40));
    for (rules, expected) in [
        // Who depends on whom.
        ("restrict contains \"x\" if restrict[\"y\"]", "recursive_definition @ 6:1"),
        ("restrict contains \"x\" if data.caracal.authz.restrict[\"y\"]", "recursive_definition @ 6:1"),
        ("restrict contains \"x\" if count(risk) > 0\nrisk := [] if count(restrict) > 0", "recursive_definition @ 6:1"),
        ("import data.caracal.authz as x\nrestrict contains \"x\" if x.restrict.y", "recursive_definition @ 7:1"),
        ("import data.caracal as x\nrestrict contains \"x\" if x[\"authz\"].restrict.y", "recursive_definition @ 7:1"),
        // What is defined nowhere: for OPA an unsafe variable.
        ("restrict contains \"x\" if confinement[_].scopes", "undefined_root @ 6:1"),
        ("app_ids := {\"pay\": \"app-1\"}\nrestrict contains \"x\" if count(risk) == 1", "undefined_root @ 7:1"),
        // What is referred to.
        ("restrict contains x if { some n; x := data.caracal.authz[n] }", "foreign_reference @ 6:39"),
        ("restrict contains x if { x := data[input.a] }", "foreign_reference @ 6:31"),
        ("restrict contains x if { x := data }", "foreign_reference @ 6:31"),
        ("restrict contains x if { x := data.caracal.authz }", "foreign_reference @ 6:31"),
        ("restrict contains \"x\" if data.other.y", "foreign_reference @ 6:26"),
        ("import data.other\nrestrict contains \"x\" if other.y", "foreign_reference @ 7:26"),
        ("restrict contains \"x\" if data.caracal.authz.result", "foreign_reference @ 6:26"),
        // What is called.
        ("restrict contains \"x\" if walk(input, [p, v])", "function_not_available @ 6:26"),
        ("restrict contains \"x\" if numbers.range(1, 1000000000)[0] == 1", "function_not_available @ 6:26"),
        ("restrict contains \"x\" if sprintf(\"%1000000000d\", [1]) == \"\"", "function_not_available @ 6:26"),
        ("restrict contains \"x\" if sprintf(input.a, [1]) == \"\"", "function_not_available @ 6:26"),
        ("restrict contains \"x\" if replace(input.a, input.b, input.c) == \"\"", "function_not_available @ 6:26"),
        ("restrict contains \"x\" if concat(input.a, input.b) == \"\"", "function_not_available @ 6:26"),
        ("restrict contains \"x\" if bits.lsh(1, 1000000000) > 1", "function_not_available @ 6:26"),
        ("restrict contains \"x\" if regex.match(\"a\", input.a)", "function_not_available @ 6:26"),
        ("restrict contains \"x\" if json.unmarshal(input.a)", "function_not_available @ 6:26"),
        ("restrict contains \"x\" if product(input.a) > 1", "function_not_available @ 6:26"),
        ("restrict contains \"x\" if foo(1)", "function_not_available @ 6:26"),
        ("restrict contains \"x\" if time.now_ns () > 1", "text_check_failed @ 6:26"),
        ("restrict contains \"x\" if time[\"now_ns\"]() > 1", "function_not_available @ 6:26"),
        ("restrict contains \"x\" if http[\"send\"]({})", "function_not_available @ 6:26"),
        ("restrict contains \"x\" if __measured(1)", "not_evaluable @ 6:26"),
        ("restrict contains \"x\" if { split(input.a, \".\", x) }", "function_not_available @ 6:28"),
        // What is replaced.
        ("restrict contains \"x\" if count(input.a) == 1 with count as 1", "not_evaluable @ 6:46"),
        ("restrict contains \"x\" if input.a with data.caracal.authz.grants as {}", "not_evaluable @ 6:34"),
        (
            "restrict contains \"x\" if { count(risk) == 1 with input as {} }\nrisk := [] if input.a",
            "not_evaluable @ 6:1",
        ),
        // Heads.
        ("restrict(x) := {x}", "root_is_a_function @ 6:1"),
        ("grants.a.b := 1", "text_check_failed @ 1:1"),
        ("restrict.a.b := input.x\nrisk := []", "not_evaluable @ 6:1"),
        ("restrict contains \"x\" if input.a else := {\"y\"}", "not_evaluable @ 6:34"),
        ("restrict contains x if input.a", "not_evaluable @ 6:1"),
        ("restrict contains x", "not_evaluable @ 6:1"),
        ("restrict := true if input.a", "malformed_data @ 6:1"),
        ("restrict if input.a", "malformed_data @ 6:1"),
        ("restrict := \"x\" if input.a", "malformed_data @ 6:1"),
        ("default restrict := input.x", "syntax_error @ 6:1"),
        ("restrict contains \"x\" if input.a\nrestrict := {\"y\"} if input.b", "mixed_definition_forms @ 7:1"),
        ("restrict[\"x\"] := 1 if input.a\nrestrict contains \"y\" if input.b", "mixed_definition_forms @ 7:1"),
        ("restrict contains \"x\" if input.a\nrisk := []\nrestrict[\"y\"] := 1", "mixed_definition_forms @ 8:1"),
        // Names.
        ("restrict contains \"x\" if { some grants in input.a; grants == 1 }", "not_evaluable @ 6:33"),
        ("restrict contains \"x\" if { some input; input == 1 }", "not_evaluable @ 6:33"),
        ("import input.a as p\nrestrict contains \"x\" if { some p in input.b; p == 1 }", "not_evaluable @ 7:33"),
        ("import input.grants\nrestrict contains \"x\" if grants.a", "not_evaluable @ 6:1"),
        // Bounds.
        (&long, "not_evaluable @ 6:284"),
        (&many, "not_evaluable @ 6:26"),
        ("restrict contains \"x\" if input.a > 1e100", "not_evaluable @ 6:36"),
        ("restrict contains \"x\" if input.a > 11111111111111111111111111111111111111111", "not_evaluable @ 6:36"),
        (&compared, "not_evaluable @ 6:26"),
        ("restrict contains \"x\" if { [a, b] = [c, d] }", "not_evaluable @ 6:28"),
        ("restrict contains $\"x\" if input.a", "not_evaluable @ 6:19"),
        ("restrict contains \"x\" if y == 1", "not_evaluable @ 6:1"),
        ("restrict contains \"x\" if { y > 1 }", "not_evaluable @ 6:1"),
        ("restrict contains \"x\" if input.a == ", "not_evaluable"),
        ("restrict[\"x\"] { input.a }\nrisk := []", "not_evaluable"),
    ] {
        let found = refused(rules);
        assert!(found.starts_with(expected), "{rules}\n{found} instead of {expected}");
    }
    let unfinished = "# caracal:data-document\npackage caracal.authz\nrestrict contains \"x\" if input.a\nrisk = []\n";
    assert!(
        Bundle::build(&[Document { policy_version_id: "pv", content: unfinished }]).is_err(),
        "`if` needs an import"
    );
}

#[test]
fn older_text_means_what_it_meant() {
    let bundle = |content: &str| Bundle::load(&[Document { policy_version_id: "pv", content }]);
    let old = "package caracal.authz\n\
               grants = {\"resource://n\": {\"application\": \"pay\", \"roles\": {\"exec\": [\"n:pay\"]}}} { true }\n\
               app_ids[\"pay\"] = \"app-1\" { 1 == 1 }\n\
               restrict[\"x\"] { input.principal.id == \"app-2\" }\n";
    let bundle = bundle(old).unwrap();
    let values = bundle.evaluate(&mint(), UNHURRIED).unwrap();
    assert_eq!(outcome_of(&decide_evaluated(&bundle, &values, &mint()).unwrap()), ALLOWED);
}

#[test]
fn values_for_another_question_or_another_bundle_decide_nothing() {
    let rule = "restrict contains \"m\" if input.principal.id == \"q\"";
    let (bundle, other) = (build(&[BASE, rule]).unwrap(), build(&[BASE, rule, "risk := []"]).unwrap());
    let values = bundle.evaluate(&mint(), UNHURRIED).unwrap();
    assert!(decide_evaluated(&bundle, &values, &mint()).unwrap().is_allow());
    assert_eq!(decide_evaluated(&bundle, &values, &bootstrap()), Err(EvaluationError::NotEvaluated));
    assert_eq!(decide_evaluated(&other, &values, &mint()), Err(EvaluationError::NotEvaluated));
    assert_eq!(decide(&bundle, &mint()), Err(EvaluationError::NotEvaluated));
}

#[test]
fn what_comes_out_malformed_is_no_answer_or_closes() {
    for (rule, expected) in [
        ("risk := input.principal", "deny malformed_risk_data"),
        ("approval_tiers := [{\"tier\": input.principal.id, \"ttl_seconds\": 0}]", "deny malformed_approval_data"),
        ("confinement := input.principal.id", "deny confinement_violation"),
        ("confinement := [{\"label_prefix\": 5, \"scopes\": input.principal.labels}]", "must be a string"),
        ("restrict := input.principal.id", "must be a set"),
        ("restrict := object.get(input, \"nothing\", 5)", "must be a set"),
        (
            "risk := [{\"scope\": \"n:pay\", \"tier\": t} | some t in [\"a\", input.principal.id]]",
            "classified with more than one tier",
        ),
    ] {
        let bundle = load(&[BASE, rule]).unwrap();
        let answer = match bundle.evaluate(&mint(), UNHURRIED) {
            Ok(values) => match decide_evaluated(&bundle, &values, &mint()) {
                Ok(verdict) => outcome_of(&verdict),
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        assert!(answer.contains(expected), "{rule}: {answer}");
    }
}

/// How long the slowest thread of this test may take for something that is bounded in milliseconds: other tests run
/// beside it, without optimisation.
const SOON: Duration = Duration::from_secs(10);

/// What a question comes to with the product's budget, and that it comes soon.
#[track_caller]
fn hostile(rules: &str) -> EvaluationError {
    let rules = rules.to_owned();
    deeply(move || {
        let bundle = load(&[BASE, &rules]).unwrap_or_else(|defects| panic!("{rules}: {}", defects[0]));
        let started = Instant::now();
        let error = bundle.evaluate(&mint(), Budget::QUESTION).map(drop).unwrap_err();
        assert!(started.elapsed() < SOON, "{rules}: {:?}", started.elapsed());
        error
    })
}

#[test]
fn a_document_that_takes_long_is_given_up() {
    let join = "some a in xs; some b in xs; some c in xs; a + b + c == -1";
    let list = format!("xs := [{}]", "1, ".repeat(208));
    for rule in [
        format!("restrict contains \"x\" if {{ input.principal; {list}; {join} }}"),
        format!("restrict contains \"x\" if {{ input.principal; {list}; count([1 | {join}]) == 1 }}"),
        format!("restrict contains \"x\" if {{ input.principal; {list}; every q in [1 | {join}] {{ q == 1 }} }}"),
    ] {
        assert!(matches!(hostile(&rule), EvaluationError::TookTooLong { .. }), "{rule}");
    }
}

#[test]
fn a_value_that_holds_itself_many_times_is_given_up_before_it_is_compared() {
    let doubled = |first: &str, step: fn(usize) -> String| {
        let lines: String = (0..60).map(|n| format!("{}\n", step(n))).collect();
        format!("restrict contains \"x\" if {{\na0 := {first}\n{lines}a60 == a59 }}")
    };
    for rule in [
        doubled("[input]", |n| format!("a{} := [a{n}, a{n}]", n + 1)),
        doubled("{\"a\": input}", |n| format!("a{} := {{\"a\": a{n}, \"b\": a{n}}}", n + 1)),
        doubled("[input]", |n| format!("a{} := array.concat(a{n}, a{n})", n + 1)),
        doubled("input.principal.id", |n| format!("a{} := sprintf(\"%v%v\", [a{n}, a{n}])", n + 1)),
        doubled("input.principal.id", |n| format!("a{} := concat(\"\", [a{n}, a{n}])", n + 1)),
        doubled("[input]", |n| format!("a{} := [x | some i in [1, 2]; x := a{n}]", n + 1)),
        doubled("99999999 + count(input)", |n| format!("a{} := a{n} * a{n}", n + 1)),
        doubled("[input]", |n| format!("a{} = [a{n}, a{n}]", n + 1)),
    ] {
        let error = hostile(&rule);
        assert!(
            matches!(error, EvaluationError::TooLarge { .. } | EvaluationError::TookTooLong { .. }),
            "{error}\n{rule}"
        );
    }
}

#[test]
fn hostile_texts_are_refused_in_no_time() {
    let nested =
        |open: &str, close: &str| format!("restrict := {{\"x\": {}1{}}} if input.a", open.repeat(20), close.repeat(20));
    let texts = [
        nested("[", "]"),
        nested("{", "}"),
        nested("(", ")"),
        nested("{\"a\": ", "}"),
        format!("restrict := {}", "(".repeat(256 << 10)),
        format!("restrict contains \"x\" if {}input.a", "-".repeat(60_000)),
        format!("restrict contains \"x\" if input{}", ".a".repeat(30_000)),
        format!("restrict contains \"x\" if input{}", "[0]".repeat(20_000)),
        format!("restrict contains \"x\" if 1{} > 0", "\n+ 1".repeat(15_000)),
        format!("restrict contains \"x\" if 1{} > 0", " +\n1".repeat(15_000)),
        format!("restrict contains \"x\" if {}1", "not ".repeat(15_000)),
        format!("restrict contains \"x\" if {{ {} }}", "some x in [1]\n".repeat(4_000)),
        format!(
            "restrict := [{}] if input.a",
            "{\"a\": {\"a\": {\"a\": {\"a\": {\"a\": {\"a\": {\"a\": 1}}}}}}}, ".repeat(1_000)
        ),
        format!("restrict contains \"x\" if input.a{}", " with input as {}".repeat(3_000)),
        "restrict contains \"x\" if input.a == 1e999999999".to_owned(),
        format!("restrict contains \"x\" if input.a == 1{}", "0".repeat(60_000)),
    ];
    for text in texts {
        let start: String = text.chars().take(60).collect();
        let (taken, refused) = deeply(move || {
            let started = Instant::now();
            let refused = load(&[BASE, &text]).is_err();
            (started.elapsed(), refused)
        });
        assert!(refused, "{start}");
        assert!(taken < SOON, "{start}: {taken:?}");
    }
}

/// The stack is as deep as what is let through needs, without optimisation, too.
#[test]
fn the_deepest_documents_let_through_fit_the_stack() {
    let bodies: String = (0..60).map(|n| format!("some x{n} in [1]\n")).collect();
    let mut nested = bodies.clone();
    for _ in 0..6 {
        nested = format!("{bodies}count([1 | {nested}]) == 1\n");
    }
    let chain = |inner: &str| format!("1{} + {inner}", " + 1".repeat(58));
    let mut sums = chain("1");
    for _ in 0..7 {
        sums = chain(&format!("({sums})"));
    }
    for rule in [
        format!("restrict contains \"x\" if {{ input.principal\n{bodies}}}"),
        format!("restrict contains \"x\" if {{ input.principal\n{nested}}}"),
        format!("restrict contains \"x\" if {{ input.principal; {sums} > 1 }}"),
        format!("restrict contains \"x\" if {{ input.principal; y := {}1; y > 1 }}", "-".repeat(50)),
        format!("restrict contains \"x\" if {{ input.principal; not input{} }}", ".a".repeat(60)),
        format!("restrict contains \"x\" if {{ input.principal; input{} }}", "[_]".repeat(60)),
    ] {
        let outcome = deeply(move || load(&[BASE, &rule]).map(|bundle| bundle.evaluate(&mint(), UNHURRIED).map(drop)));
        // Whatever it comes to, this thread is still there to say so.
        drop(outcome);
    }
}

/// Pieces of documents: what the reader looks for, in any order.
fn pieces() -> impl Strategy<Value = String> {
    const PIECES: [&str; 60] = [
        "restrict",
        "grants",
        "app_ids",
        "risk",
        "contains",
        "if",
        "else",
        "default",
        "not",
        "some",
        "every",
        "in",
        "with",
        "as",
        "input",
        "data",
        "data.caracal.authz.grants",
        "import data.caracal.authz as a",
        "a.restrict",
        "x",
        "y",
        "_",
        ":=",
        "=",
        "==",
        "!=",
        "<",
        "+",
        "-",
        "*",
        "/",
        "|",
        "&",
        ",",
        ";",
        ":",
        ".",
        "[",
        "]",
        "{",
        "}",
        "(",
        ")",
        "\"s\"",
        "`r`",
        "1",
        "1e9",
        "true",
        "null",
        "count(x)",
        "sprintf(\"%v\", [x])",
        "startswith",
        "set()",
        "input.principal.id",
        "input.principal.labels[_]",
        "{x | some x in [1]}",
        "\n",
        "\n",
        " ",
        "# c\n",
    ];
    proptest::collection::vec(proptest::sample::select(&PIECES[..]), 1..40).prop_map(|pieces| pieces.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// POLICY-8: whatever the text, it is refused with a place in it, or evaluated to an answer or an error, in bounded time;
    /// and without grants nothing is allowed.
    #[test]
    fn no_text_does_more_than_answer(body in pieces(), whole in pieces()) {
        let rules = [
            format!("restrict contains \"x\" if {{ {body} }}"),
            format!("risk := {body}"),
            whole,
        ];
        for rules in rules {
            let (taken, outcome) = deeply(move || {
                let started = Instant::now();
                let outcome = match load(&[&rules]) {
                    Ok(bundle) => match bundle.evaluate(&mint(), Budget::QUESTION) {
                        Ok(values) => decide_evaluated(&bundle, &values, &mint()).is_ok_and(|verdict| verdict.is_allow()),
                        Err(_) => false,
                    },
                    Err(defects) => defects.is_empty() || defects[0].at.line == 0,
                };
                (started.elapsed(), outcome)
            });
            prop_assert!(!outcome);
            prop_assert!(taken < SOON, "{taken:?}");
        }
    }
}
