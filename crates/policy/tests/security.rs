//! The security properties of the policy layer, by table and for generated data (contract: policy.md, "Security
//! properties to hold").

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of a test file are test code")]

mod world;

mod t02_sts_policy {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fmt::Write;

    use caracal_policy::{
        Bundle, ContentSha256, DenyReason, Document, Input, LIFECYCLE_SCOPE, LoadError, ManifestSha256, ParsedDocument,
        PolicyCache, PrincipalKind, StoredDocument, Verdict, decide, text,
    };
    use proptest::prelude::*;
    use proptest::strategy::ValueTree as _;
    use serde_json::{Value, json};

    use crate::world::*;

    /// POLICY-1.
    #[test]
    fn unknown_shape_no_data_and_no_active_set_authorise_nothing() {
        let base = load(&[BASE]).unwrap();
        let no_data = load(&[]).unwrap();
        let none_active = Bundle::no_active_policy_set();
        for (bundle, input, reason) in [
            (&base, Input::default(), DenyReason::NoRuleMatched),
            (&base, shapeless(), DenyReason::NoRuleMatched),
            (&no_data, mint(), DenyReason::ResourceNotGranted),
            (&no_data, bootstrap(), DenyReason::NoRuleMatched),
            (&no_data, presented(), DenyReason::ResourceNotGranted),
            (&none_active, mint(), DenyReason::NoActivePolicySet),
            (&none_active, workload(), DenyReason::NoActivePolicySet),
        ] {
            assert_eq!(decide(bundle, &input), Ok(Verdict::Deny(reason)));
        }
        assert!(!Verdict::default().is_allow());
        let mut unknown_kind = workload();
        unknown_kind.principal.kind = PrincipalKind::Other("workload".into());
        assert!(!decide(&base, &unknown_kind).unwrap().is_allow());
    }

    /// POLICY-2.
    #[test]
    fn a_document_defines_nothing_but_the_six_roots_in_any_head_form() {
        for head in [
            "result := 1",
            "result = 1",
            "default result := 1",
            "result contains 1",
            "result[\"a\"] := 1",
            "result.decision := \"allow\"",
            "result if true",
            "result { true }",
            "result(x) := 1",
            "owned := 1",
            "app_ids_ := {}",
            "Grants := {}",
        ] {
            let rules = format!("risk := []\n{head}");
            for defects in [load(&[&rules]).unwrap_err(), build(&[&rules]).unwrap_err()] {
                assert!(["rule_not_allowed", "text_check_failed"].contains(&defects[0].kind.code()), "{head}");
            }
        }
        // On one line with a root, where the text check does not see it.
        assert!(load(&["risk := [] result := 1"]).is_err());
        assert!(load(&["risk := []; result := 1"]).is_err());
    }

    /// POLICY-5.
    #[test]
    fn a_malformed_classification_never_removes_a_gate() {
        let gated = "risk := [{\"scope\": \"n:pay\", \"tier\": \"m\"}]\napproval_tiers := [{\"tier\": \"m\"}]";
        let bundle = base_and(gated);
        assert!(decide(&bundle, &mint()).unwrap().step_up().is_some());
        for broken in [
            gated.replace("\"n:pay\"", "5"),
            gated.replace("\"scope\"", "\"scop\""),
            gated.replace("}]\n", "}, 1]\n"),
            gated.replace("{\"tier\": \"m\"}]", "{\"tier\": \"m\"}, {}]"),
            gated.replace("{\"tier\": \"m\"}]", "{\"tier\": \"m\", \"ttl_seconds\": 1e400}]"),
            gated.replace("[{\"tier\": \"m\"}]", "{\"m\": {\"tier\": \"m\"}}"),
        ] {
            assert_ne!(broken, gated);
            for input in [mint(), workload()] {
                assert!(!decide(&base_and(&broken), &input).unwrap().is_allow(), "{broken}");
            }
            assert!(build(&[BASE, &broken]).is_err(), "{broken}");
        }
    }

    /// POLICY-6.
    #[test]
    fn a_frozen_zone_decides_nothing() {
        let bundle = base_and("restrict := {\"incident\"}");
        for input in [mint(), presented(), bootstrap(), workload(), shapeless()] {
            assert_eq!(decide(&bundle, &input), Ok(Verdict::Deny(DenyReason::RestrictionActive)));
        }
    }

    /// POLICY-7.
    #[test]
    fn narrowing_a_grant_stops_presented_mandates() {
        let narrowed = |roles: &str| {
            load(&[&format!(
                "app_ids := {{\"pay\": \"app-1\"}}\n\
                 grants := {{\"resource://n\": {{\"application\": \"pay\", \"roles\": {roles}}}}}"
            )])
            .unwrap()
        };
        assert!(decide(&narrowed("{\"exec\": [\"n:pay\"]}"), &presented()).unwrap().is_allow());
        for roles in ["{\"exec\": [\"n:read\"]}", "{\"exec\": []}", "{\"other\": [\"n:pay\"]}", "{}"] {
            let verdict = decide(&narrowed(roles), &presented());
            assert_eq!(verdict, Ok(Verdict::Deny(DenyReason::RoleScopeMismatch)), "{roles}");
        }
        let rebound = load(&[&BASE.replace("app-1", "app-2")]).unwrap();
        assert_eq!(decide(&rebound, &presented()), Ok(Verdict::Deny(DenyReason::ResourceNotGranted)));
    }

    /// POLICY-8: what an evaluator would have to run is refused, and in one pass over the text.
    #[test]
    fn hostile_documents_are_refused_and_the_process_lives() {
        let longest = text::MAX_DOCUMENT_UNITS - 100;
        let filled = |open: &str| open.repeat(longest / open.len());
        let hostile = [
            format!("restrict := {}", filled("(")),
            format!("restrict := {}", filled("[")),
            format!("restrict := {}", filled("{")),
            format!("restrict := {}", filled("{[")),
            format!("restrict := {}", filled("{0:")),
            format!("restrict := {}", filled("set(")),
            format!("restrict := {}", filled("\"\\u")),
            format!("restrict := {}", filled("`")),
            format!("restrict := {}", filled("-")),
            format!("restrict := {}", filled("9")),
            format!("restrict := {}", filled("a.")),
            filled("restrict := "),
            // Through the text check and into its preview.
            format!("restrict contains 1 if {}x", filled("input.")),
            format!("restrict contains 1 if {}x", filled("data.")),
            format!("restrict contains 1 if {}x", filled("input.a ")),
            filled("default\n"),
            filled("grants\n"),
            filled("http.send "),
            filled("\"decision\" "),
            filled("input.a("),
            format!("confinement := {}1{}", "[".repeat(20), "]".repeat(20)),
            "restrict contains \"x\" if restrict[\"y\"]".into(),
            "restrict contains \"x\" if count(grants) > 0\ngrants := {r: {} | restrict[r]}".into(),
            "restrict contains x if { some x in numbers.range(1, 3000); some y in numbers.range(1, 3000); x == y }"
                .into(),
            "restrict := {x | x := numbers.range(1, 1000000000)[_]}".into(),
            "restrict contains \"x\" if time.now_ns() > 0".into(),
            "restrict := {http.send({\"url\": \"http://127.0.0.1\"})}".into(),
        ];
        for rules in &hostile {
            let _ = text::check(&document(rules)).map(|checked| checked.preview());
            assert!(build(&[BASE, rules]).is_err(), "{}", &rules[..rules.len().min(60)]);
            // Twenty brackets are only data, and data cannot allow.
            let loaded = load(&[BASE, rules]);
            assert!(loaded.is_err() || !decide(&loaded.unwrap(), &mint()).unwrap().is_allow());
        }
        for blank in [filled("#"), filled("\n"), filled(" \t\r")] {
            let _ = text::check(&document(&blank)).map(|checked| checked.preview());
            assert!(decide(&load(&[BASE, &blank]).unwrap(), &mint()).unwrap().is_allow());
        }
    }

    /// POLICY-8: data that is only large costs what it weighs.
    #[test]
    fn the_largest_documents_are_read_and_decided() {
        let scopes: Vec<String> = (0..20_000).map(|n| format!("\"s:{n}\"")).collect();
        let large = load(&[&format!(
            "app_ids := {{\"pay\": \"app-1\"}}\n\
             grants := {{\"resource://n\": {{\"application\": \"pay\", \"roles\": {{\"exec\": [{}]}}}}}}",
            scopes.join(",")
        )])
        .unwrap();
        let wanted: Vec<String> = (0..20_000).map(|n| format!("s:{n}")).collect();
        let mut input = mint();
        input.context.requested_scopes = wanted.clone();
        input.delegation_edge.as_mut().unwrap().scopes = wanted;
        assert!(decide(&large, &input).unwrap().is_allow());
    }

    /// POLICY-8: what is small as text may be large once it is read, and many such documents would fill the memory of
    /// the process that decides for every zone.
    #[test]
    fn a_bundle_is_bounded_by_what_it_weighs_once_it_is_read() {
        let padded = |n: usize| {
            let entry = format!("grants[\"resource://{n}\"] := {{\"application\": \"pay\", \"roles\": {{}}, \"x\": [");
            let filler = (text::MAX_DOCUMENT_UNITS - 300) / 2;
            document(&format!("risk := []\n{entry}{}]}}", "1,".repeat(filler)))
        };
        let texts: Vec<String> = (0..8).map(padded).collect();
        let ids: Vec<String> = (0..8).map(|n| format!("pv-{n}")).collect();
        let documents: Vec<Document<'_>> = ids
            .iter()
            .zip(&texts)
            .map(|(policy_version_id, content)| Document { policy_version_id, content })
            .collect();
        assert!(Bundle::build(&documents[..2]).is_ok(), "each is a document like others");
        for refused in [Bundle::build(&documents), Bundle::load(&documents)] {
            let defects = refused.unwrap_err();
            assert_eq!((defects.len(), defects[0].kind.code(), defects[0].document), (1, "bundle_too_large", 2));
        }
        let cache = PolicyCache::default();
        let stored: Vec<StoredDocument<'_>> = documents
            .iter()
            .map(|document| StoredDocument {
                policy_version_id: document.policy_version_id,
                content: document.content,
                content_sha256: ContentSha256::of(document.content),
            })
            .collect();
        let manifest = ManifestSha256::of(ids.iter().map(String::as_str));
        let refused = cache.load(manifest, &stored);
        assert!(matches!(&refused, Err(LoadError::Defective(defects)) if defects[0].kind.code() == "bundle_too_large"));
        assert!(cache.bundle(manifest).is_none());
    }

    // ---- For all data and requests ----

    const SCOPES: [&str; 4] = ["n:a", "n:b", "n:c", LIFECYCLE_SCOPE];
    const LABELS: [&str; 4] = ["exec", "ro", "customer:a", "e"];
    const PREFIXES: [&str; 5] = ["customer:", "e", "", "ro", "zz"];
    const KEYS: [&str; 2] = ["k1", "k2"];
    const IDS: [&str; 4] = ["app-1", "app-1", "app-1", "app-2"];
    const RESOURCES: [&str; 2] = ["resource://n", "resource://m"];
    const TIERS: [&str; 2] = ["lo", "hi"];

    /// A zone's data, kept as JSON so that the properties can read it without the crate's own index.
    #[derive(Debug, Clone)]
    struct Zone {
        app_ids: Value,
        grants: Value,
        confinement: Option<Value>,
        restrict: Option<Value>,
        risk: Option<Value>,
        approval_tiers: Option<Value>,
    }

    impl Zone {
        fn load(&self) -> Option<Bundle> {
            let mut rules = String::new();
            for (root, value) in [
                ("app_ids", Some(&self.app_ids)),
                ("grants", Some(&self.grants)),
                ("confinement", self.confinement.as_ref()),
                ("restrict", self.restrict.as_ref()),
                ("risk", self.risk.as_ref()),
                ("approval_tiers", self.approval_tiers.as_ref()),
            ] {
                if let Some(value) = value {
                    writeln!(rules, "{root} := {value}").unwrap();
                }
            }
            load(&[&rules]).ok()
        }
    }

    fn some_of(names: &'static [&'static str], min: usize, max: usize) -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec(prop::sample::select(names).prop_map(str::to_owned), min..=max)
    }

    fn grants() -> impl Strategy<Value = Value> {
        let roles = prop::collection::btree_map(prop::sample::select(&LABELS[..]), some_of(&SCOPES, 2, 8), 2..5);
        let entry = prop_oneof![
            16 => (prop::sample::select(&KEYS[..]), roles)
                .prop_map(|(key, roles)| json!({"application": key, "roles": roles})),
            1 => Just(json!({"application": "k1"})),
            1 => Just(json!(5)),
        ];
        prop::collection::btree_map(prop::sample::select(&RESOURCES[..]), entry, 1..3).prop_map(|map| json!(map))
    }

    fn confinement_rule() -> impl Strategy<Value = Value> {
        prop_oneof![
            12 => (prop::sample::select(&PREFIXES[..]), some_of(&SCOPES, 1, 8))
                .prop_map(|(prefix, scopes)| json!({"label_prefix": prefix, "scopes": scopes})),
            1 => prop::sample::select(&PREFIXES[..]).prop_map(|prefix| json!({"label_prefix": prefix})),
            1 => Just(json!({"scopes": []})),
        ]
    }

    fn classification() -> impl Strategy<Value = Value> {
        prop_oneof![
            30 => (prop::sample::select(&SCOPES[..]), prop::sample::select(&TIERS[..]))
                .prop_map(|(scope, tier)| json!({"scope": scope, "tier": tier})),
            1 => Just(json!({"scope": "n:a"})),
        ]
    }

    fn declaration() -> impl Strategy<Value = Value> {
        prop_oneof![
            30 => prop::sample::select(&TIERS[..]).prop_map(|tier| json!({"tier": tier, "ttl_seconds": 60})),
            1 => Just(json!({"tier": "lo", "ttl_seconds": 0})),
        ]
    }

    fn list(element: impl Strategy<Value = Value>) -> impl Strategy<Value = Option<Value>> {
        prop::option::weighted(0.7, prop::collection::vec(element, 0..4).prop_map(Value::Array))
    }

    fn zone() -> impl Strategy<Value = Zone> {
        let bound = prop::sample::select(&IDS[..]);
        let app_ids = (bound.clone(), bound).prop_map(|(one, two)| json!({"k1": one, "k2": two}));
        let restrict = prop_oneof![20 => Just(None), 1 => Just(Some(json!([]))), 1 => Just(Some(json!(["x"])))];
        (app_ids, grants(), list(confinement_rule()), restrict, list(classification()), list(declaration())).prop_map(
            |(app_ids, grants, confinement, restrict, risk, approval_tiers)| Zone {
                app_ids,
                grants,
                confinement,
                restrict,
                risk,
                approval_tiers,
            },
        )
    }

    /// A request near one of the shapes.
    fn request() -> impl Strategy<Value = Input> {
        let shape = prop_oneof![
            6 => Just(mint as fn() -> Input), 3 => Just(presented as fn() -> Input),
            2 => Just(bootstrap as fn() -> Input), 2 => Just(workload as fn() -> Input),
            1 => Just(shapeless as fn() -> Input),
        ];
        let pick = (prop::sample::select(&IDS[..]), prop::sample::select(&RESOURCES[..]));
        (shape, pick, some_of(&LABELS, 0, 4), some_of(&SCOPES[..3], 1, 2), some_of(&SCOPES, 2, 10)).prop_map(
            |(shape, (id, identifier), labels, wanted, edge)| {
                let mut input = shape();
                input.resource.identifier = identifier.into();
                if input.principal.kind == PrincipalKind::Workload {
                    input.context.requested_scopes = wanted;
                    return input;
                }
                input.principal.id = id.into();
                input.principal.labels = labels;
                if let Some(delegation) = input.delegation_edge.as_mut() {
                    delegation.scopes = edge;
                    input.context.requested_scopes = wanted.clone();
                }
                if let Some(claims) = input.context.subject_claims.as_mut() {
                    input.context.requested_scopes.clear();
                    claims.insert("scope".into(), Value::from(wanted.join(" ")));
                    claims.insert("target".into(), json!([identifier]));
                }
                input
            },
        )
    }

    /// Allow, deny or no answer; only the first gives authority.
    fn allows(bundle: &Bundle, input: &Input) -> bool {
        decide(bundle, input).is_ok_and(|verdict| verdict.is_allow())
    }

    fn set(value: &Value) -> BTreeSet<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// The properties below say nothing about requests that are denied anyway: enough must be allowed.
    #[test]
    fn the_generated_requests_reach_every_kind_of_allowance() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let mut allowed: BTreeMap<&str, usize> = BTreeMap::new();
        for _ in 0..2_000 {
            let (zone, input) = (zone(), request()).new_tree(&mut runner).unwrap().current();
            if let Some(bundle) = zone.load()
                && let Ok(Verdict::Allow(allowance)) = decide(&bundle, &input)
            {
                let kind = ["bootstrap", "workload-mint", "-mint", "-use"];
                let kind = kind.into_iter().find(|kind| allowance.policy.ends_with(kind)).unwrap();
                *allowed.entry(kind).or_default() += 1;
                *allowed.entry("held").or_default() += usize::from(allowance.step_up.is_some());
            }
        }
        for kind in ["bootstrap", "workload-mint", "-mint", "-use", "held"] {
            assert!(allowed.get(kind).copied().unwrap_or_default() > 20, "{kind}: {allowed:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        /// POLICY-3, POLICY-4: owned resource ∩ edge scopes ∩ one role ∩ confinement.
        #[test]
        fn a_mint_stays_inside_every_bound(zone in zone(), input in request()) {
            let Some(bundle) = zone.load() else { return Ok(()) };
            let Ok(Verdict::Allow(allowance)) = decide(&bundle, &input) else { return Ok(()) };
            if !allowance.policy.ends_with("-mint") || &*allowance.policy == "caracal-workload-mint" {
                return Ok(());
            }
            let wanted: BTreeSet<String> = input.context.requested_scopes.iter().cloned().collect();
            prop_assert!(!wanted.is_empty() && !wanted.contains(LIFECYCLE_SCOPE));

            let entry = &zone.grants[&input.resource.identifier];
            let key = entry["application"].as_str().unwrap();
            prop_assert_eq!(&zone.app_ids[key], &json!(input.principal.id));
            prop_assert_eq!(&*allowance.policy, format!("caracal-{key}-mint"));

            let edge: BTreeSet<String> = input.delegation_edge.as_ref().unwrap().scopes.iter().cloned().collect();
            prop_assert!(wanted.is_subset(&edge));

            let labels = &input.principal.labels;
            prop_assert!(labels.iter().any(|label| wanted.is_subset(&set(&entry["roles"][label]))));

            for rule in zone.confinement.iter().filter_map(Value::as_array).flatten() {
                let prefix = rule["label_prefix"].as_str().unwrap();
                if labels.iter().any(|label| label.starts_with(prefix)) {
                    prop_assert!(wanted.is_subset(&set(&rule["scopes"])));
                }
            }
        }

        /// POLICY-3: `restrict` can only subtract.
        #[test]
        fn a_reason_to_freeze_never_allows_more(zone in zone(), input in request()) {
            let mut frozen = zone;
            frozen.restrict = Some(json!({"x": true}));
            let Some(after) = frozen.load() else { return Ok(()) };
            prop_assert_eq!(decide(&after, &input), Ok(Verdict::Deny(DenyReason::RestrictionActive)));
        }

        /// POLICY-3: a confinement rule can only subtract.
        #[test]
        fn a_confinement_rule_never_allows_more(zone in zone(), rule in confinement_rule(), input in request()) {
            let Some(before) = zone.load() else { return Ok(()) };
            let mut confined = zone.clone();
            let mut rules = zone.confinement.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
            rules.push(rule);
            confined.confinement = Some(Value::Array(rules));
            let after = confined.load().unwrap();
            prop_assert!(!allows(&after, &input) || allows(&before, &input));
        }

        /// POLICY-3, POLICY-5: a classification or a declaration, good or bad, can only gate or subtract.
        #[test]
        fn a_tier_never_allows_more_and_never_removes_a_gate(
            zone in zone(), risk in classification(), tier in declaration(), input in request()
        ) {
            let Some(before) = zone.load() else { return Ok(()) };
            let push = |list: &Option<Value>, element: Value| {
                let mut elements = list.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
                elements.push(element);
                Some(Value::Array(elements))
            };
            let mut classified = zone.clone();
            classified.risk = push(&zone.risk, risk);
            let mut declared = zone.clone();
            declared.approval_tiers = push(&zone.approval_tiers, tier);
            for zone in [classified, declared] {
                let after = zone.load().unwrap();
                prop_assert!(!allows(&after, &input) || allows(&before, &input));
                if let (Ok(before), Ok(after)) = (decide(&before, &input), decide(&after, &input))
                    && before.step_up().is_some() && after.is_allow()
                {
                    prop_assert!(after.step_up().is_some());
                }
            }
        }

        /// POLICY-7: what a presented mandate carries is within one current role of an owned resource.
        #[test]
        fn use_stays_within_the_current_role(zone in zone(), input in request()) {
            let Some(bundle) = zone.load() else { return Ok(()) };
            let Ok(Verdict::Allow(allowance)) = decide(&bundle, &input) else { return Ok(()) };
            if !allowance.policy.ends_with("-use") {
                return Ok(());
            }
            let claims = input.context.subject_claims.as_ref().unwrap();
            prop_assert!(set(&claims["target"]).contains(&input.resource.identifier));
            let carried: BTreeSet<String> = claims["scope"].as_str().unwrap().split(' ').map(str::to_owned).collect();
            let entry = &zone.grants[&input.resource.identifier];
            prop_assert_eq!(&zone.app_ids[entry["application"].as_str().unwrap()], &json!(input.principal.id));
            prop_assert!(input.principal.labels.iter().any(|label| carried.is_subset(&set(&entry["roles"][label]))));
        }

        /// What an author may store is what a decision reads: the strict way in never means something else.
        #[test]
        fn what_is_built_decides_as_what_is_loaded(zone in zone(), input in request()) {
            let mut rules = format!("app_ids := {}\ngrants := {}\n", zone.app_ids, zone.grants);
            for (root, value) in [("confinement", &zone.confinement), ("risk", &zone.risk)] {
                if let Some(value) = value {
                    writeln!(rules, "{root} := {value}").unwrap();
                }
            }
            if let Ok(built) = build(&[&rules]) {
                prop_assert_eq!(decide(&built, &input), decide(&load(&[&rules]).unwrap(), &input));
            }
        }
    }

    /// Text near the grammar: tokens in any order.
    fn token_soup() -> impl Strategy<Value = String> {
        let token = prop_oneof![
            prop::sample::select(
                &[
                    "package",
                    " caracal.authz",
                    "import",
                    " rego.v1",
                    "\n",
                    " ",
                    "grants",
                    "restrict",
                    "app_ids",
                    ":=",
                    "=",
                    "==",
                    "{",
                    "}",
                    "[",
                    "]",
                    "(",
                    ")",
                    ",",
                    ":",
                    "\"a\"",
                    "\"",
                    "`",
                    "#",
                    "\\",
                    "1",
                    "-1.5e3",
                    "null",
                    "true",
                    "set()",
                    "set(",
                    "contains",
                    "if",
                    "default",
                    "|",
                    ".",
                    "é",
                    "\u{feff}",
                    "\r",
                    "$",
                    "input.a",
                    "result",
                    "\u{0}",
                ][..]
            )
            .prop_map(str::to_owned),
            "\\PC",
        ];
        prop::collection::vec(token, 0..60).prop_map(|tokens| tokens.concat())
    }

    /// A value in our notation, spaced and commented at will, beside what it means.
    fn spelled(value: &Value, blanks: &mut dyn Iterator<Item = &'static str>, out: &mut String) {
        let mut blank = |out: &mut String| out.push_str(blanks.next().unwrap_or(" "));
        match value {
            Value::Array(elements) => {
                out.push('[');
                for element in elements {
                    spelled(element, blanks, out);
                    out.push(',');
                }
                out.push(']');
            }
            Value::Object(members) => {
                out.push('{');
                for (key, value) in members {
                    write!(out, "{}:", Value::from(key.as_str())).unwrap();
                    spelled(value, blanks, out);
                    out.push(',');
                }
                out.push('}');
            }
            scalar => {
                blank(out);
                write!(out, "{scalar}").unwrap();
                blank(out);
            }
        }
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e12..1e12_f64).prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        scalar.prop_recursive(6, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(".{0,6}", inner, 0..6).prop_map(|map| json!(map)),
            ]
        })
    }

    /// What is read, as JSON text: numbers must keep their digits, which a binary float would not prove.
    fn read(literal: &str) -> String {
        let content = format!("package caracal.authz\nrestrict := {literal}\n");
        let document = ParsedDocument::parse(&content).unwrap_or_else(|refusal| panic!("{refusal}: {content}"));
        serde_json::to_string(document.value_of(caracal_policy::Root::Restrict).unwrap()).unwrap()
    }

    proptest! {
        /// POLICY-8: no text crashes the readers.
        #[test]
        fn no_text_panics(text in prop_oneof![any::<String>(), token_soup()]) {
            for content in [text.clone(), document(&text), format!("package caracal.authz\n{text}")] {
                let documents = [Document { policy_version_id: "pv", content: &content }];
                let built = Bundle::build(&documents);
                let loaded = Bundle::load(&documents);
                prop_assert!(built.is_err() || loaded.is_ok(), "what is built can be loaded");
                let _ = text::check(&content).map(|checked| checked.validation());
            }
        }

        /// Compact, pretty, or spaced and commented at will: a JSON value is read as itself.
        #[test]
        fn json_is_read_as_itself(value in json_value(), blanks in prop::collection::vec(
            prop::sample::select(&["", " ", "\n", "\t", " # ] } \" ` \n", "\r\n"][..]), 0..40)
        ) {
            let text = value.to_string();
            prop_assert_eq!(&read(&text), &text);
            prop_assert_eq!(&read(&serde_json::to_string_pretty(&value).unwrap()), &text);
            let mut out = String::new();
            spelled(&value, &mut blanks.into_iter().cycle(), &mut out);
            prop_assert_eq!(&read(&out), &text);
        }
    }
}
