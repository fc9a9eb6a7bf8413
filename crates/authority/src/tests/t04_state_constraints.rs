//! The constraints of a delegation are sent by callers and read back from a store: whatever they are, they are refused with
//! a code of the contract, or they lie within every bound and say the same when written and read again. The fuzz target
//! `constraints` asks the same of bytes.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::delegation::{Constraints, MAX_BUDGET, MAX_HOPS};

const KNOWN: [&str; 8] =
    ["resources", "max_hops", "max_depth", "budget", "ttl_seconds", "expires_at", "policy_approved", "broad_reason"];

/// Values that fit some member, and values that fit none; numbers on and beside every bound.
fn value() -> impl Strategy<Value = Value> {
    let number = prop::sample::select(vec![-1, 0, 1, 9, 10, 11, 63, 64, 65, 86_399, 86_400, 86_401, i64::MAX]);
    let leaf = prop_oneof![
        4 => number.prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
        2 => prop::sample::select(vec![
            "2030-01-01T00:00Z", "2030-02-30T00:00:00Z", "resource://a", "", "x", "1", "a\nb",
        ]).prop_map(Value::from),
        1 => any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 80, 70, |inner| {
        prop_oneof![
            3 => prop::collection::vec(Just(json!("resource://a")), 62..67).prop_map(Value::from),
            2 => prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            1 => prop::collection::hash_map("[a-z]{1,8}", inner, 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn constraints() -> impl Strategy<Value = Map<String, Value>> {
    let name = prop_oneof![
        20 => prop::sample::select(KNOWN.to_vec()).prop_map(str::to_owned),
        1 => any::<String>(),
        1 => prop::sample::select(vec!["MAX_HOPS", "max_hops ", "ttl", "__proto__"]).prop_map(str::to_owned),
    ];
    prop::collection::vec((name, value()), 0..4).prop_map(|members| members.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_accepted_is_bounded_and_says_the_same_again(object in constraints()) {
        match Constraints::parse(&object) {
            Ok(parsed) => {
                prop_assert!((1..=MAX_HOPS).contains(&parsed.hops()));
                prop_assert!(parsed.budget().is_none_or(|budget| (1..=MAX_BUDGET).contains(&budget)));
                prop_assert!(parsed.ttl_seconds().is_none_or(|ttl| (1..=86_400).contains(&ttl)));
                prop_assert!(parsed.resources().len() <= 64);
                prop_assert!(object.keys().all(|key| KNOWN.contains(&key.as_str())));
                let written = parsed.to_json();
                prop_assert!(object.keys().all(|key| written.contains_key(key)), "{object:?} became {written:?}");
                prop_assert_eq!(Constraints::parse(&written), Ok(parsed));
            }
            Err(fault) => {
                let code = fault.code();
                let of_a_member = KNOWN.iter().any(|key| code == format!("invalid_{key}"));
                prop_assert!(of_a_member || code == "invalid_delegation_constraint", "{code}");
            }
        }
    }

    #[test]
    fn one_unknown_member_refuses_all_of_them(mut object in constraints(), name in "[a-z_]{1,12}") {
        prop_assume!(!KNOWN.contains(&name.as_str()));
        object.insert(name, json!(true));
        prop_assert!(Constraints::parse(&object).is_err());
    }
}

#[test]
fn constraints_nested_beyond_reason_are_refused_and_the_process_lives() {
    // Deeper than any text could be read to, as a store of another kind might hand it over.
    let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    for key in KNOWN {
        let object = Map::from_iter([(key.to_owned(), deep.clone())]);
        assert!(Constraints::parse(&object).is_err(), "{key}");
    }
}
