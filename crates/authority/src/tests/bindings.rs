//! What an approval is bound to (contract: sts.md §7.5, README D34).

use proptest::prelude::*;

use super::fixtures::{id, identifier, resource};
use crate::approval::{Binding, Bound, PolicyStamp, ResourceRow};
use crate::resource::{OperationEnforcement, ProviderKind, Resource};

fn stamp(version: &str, manifest: &str, contract: &str, sha: &str) -> PolicyStamp {
    PolicyStamp {
        version: version.into(),
        manifest: manifest.into(),
        contract: contract.into(),
        contract_sha: sha.into(),
    }
}

#[test]
fn the_published_vectors_hold() {
    let policy = stamp("psv-1", "m1", "2026-07-12", "c1");
    let bound = Bound {
        resources: &[" Resource://B ", "resource://a"],
        scopes: &["pay", "pay"],
        principal: "app-1",
        session: "s-1",
        delegation: "d-1",
        application: "app-1",
        policy: Some(&policy),
        ..Bound::default()
    };
    let expected = "fc8f35635790face2e8cc096f9948522c78f2bc21142c431e2a3296e4c22cc91";
    assert_eq!(Binding::of(&bound).as_str(), expected);
    let empty = "3c75525cc05b94029cd0a8ee52de42d8ac0c187bd050d8e78ae74b045df6b6d4";
    assert_eq!(Binding::of(&Bound::default()).as_str(), empty);
}

#[test]
fn only_lower_case_digits_are_a_binding() {
    let good = "0123456789abcdef".repeat(4);
    assert_eq!(Binding::parse(&good).unwrap().as_str(), good);
    for bad in [good.to_uppercase(), good[1..].to_owned(), format!("{good}0"), good.replace('f', "g"), String::new()] {
        assert!(Binding::parse(&bad).is_err(), "{bad}");
    }
}

/// The binding of `docs:read` on `row`, asked for by `name`.
fn of_row(name: &str, row: &Resource, upstream: Option<&str>) -> Binding {
    let policy = stamp("psv-1", "m1", "v", "c");
    Binding::of(&Bound {
        resources: &[name],
        rows: &[ResourceRow { resource: row, upstream }],
        scopes: &["docs:read"],
        principal: "app-1",
        application: "app-1",
        policy: Some(&policy),
        ..Bound::default()
    })
}

mod t14_automation {
    use super::*;

    type Change = (&'static str, fn(&mut Resource));

    #[test]
    fn what_stands_behind_a_name_is_approved_with_it() {
        let docs = resource("res-1", "resource://docs");
        let approved = of_row("resource://docs", &docs, Some("https://docs.example"));
        let changes: [Change; 7] = [
            ("re-created", |row| row.name.id = id("res-2")),
            ("another operation", |row| row.operations[0].method = "DELETE".into()),
            ("another path", |row| row.operations[0].path = "/docs/**".into()),
            ("no floor", |row| row.enforcement = OperationEnforcement::TransportUniform),
            ("another provider", |row| row.provider.as_mut().unwrap().id = id("prov-2")),
            ("another kind of provider", |row| {
                row.provider.as_mut().unwrap().kind = Some(ProviderKind::BearerToken);
            }),
            ("renamed", |row| row.name.identifier = identifier("resource://Docs")),
        ];
        for (what, change) in changes {
            let mut row = docs.clone();
            change(&mut row);
            assert_ne!(of_row("resource://docs", &row, Some("https://docs.example")), approved, "{what}");
        }
        assert_ne!(of_row("resource://docs", &docs, Some("https://evil.example")), approved);
        assert_ne!(of_row("resource://docs", &docs, None), approved);
        assert_ne!(of_row("Resource://docs", &docs, Some("https://docs.example")), approved, "names keep their case");
        assert_eq!(of_row(" resource://docs ", &docs, Some("https://docs.example")), approved);
    }

    #[test]
    fn every_reference_is_bound() {
        let docs = resource("res-1", "resource://docs");
        let rows = [ResourceRow { resource: &docs, upstream: None }];
        let policy = stamp("a", "b", "c", "d");
        let bound = Bound { rows: &rows, resources: &["r"], scopes: &["s"], policy: Some(&policy), ..Bound::default() };
        let others = ["abcd", "xbcd", "axcd", "abxd", "abcx"].map(|text| {
            let parts: Vec<&str> = text.split("").filter(|part| !part.is_empty()).collect();
            stamp(parts[0], parts[1], parts[2], parts[3])
        });
        let mut all = vec![
            Bound { principal: "x", ..bound },
            Bound { record: "x", ..bound },
            Bound { session: "x", ..bound },
            Bound { delegation: "x", ..bound },
            Bound { application: "x", ..bound },
            Bound { scopes: &["s", "x"], ..bound },
            Bound { resources: &["r", "x"], ..bound },
            Bound { policy: None, ..bound },
        ];
        all.extend(others.iter().map(|policy| Bound { policy: Some(policy), ..bound }));
        let distinct: std::collections::HashSet<Binding> = all.iter().map(Binding::of).collect();
        assert_eq!(distinct.len(), all.len());
        assert!(distinct.contains(&Binding::of(&bound)), "the first stamp is the same");
    }

    #[test]
    fn no_separator_within_a_text_moves_the_border_between_two() {
        let docs = resource("res-1", "resource://docs");
        let rows = [ResourceRow { resource: &docs, upstream: None }];
        let bound = Bound { rows: &rows, ..Bound::default() };
        let moved = [
            Bound { resources: &["a\nb"], ..bound },
            Bound { resources: &["a", "b"], ..bound },
            Bound { resources: &["a"], scopes: &["b\0principal\0c"], principal: "", ..bound },
            Bound { resources: &["a\0scopes\0b"], principal: "c", ..bound },
            Bound { resources: &["a"], scopes: &["b"], principal: "c", ..bound },
        ];
        let distinct: std::collections::HashSet<Binding> = moved.iter().map(Binding::of).collect();
        assert_eq!(distinct.len(), moved.len());
    }
}

proptest! {
    #[test]
    fn order_and_repetition_of_names_and_scopes_do_not_matter(
        mut resources in prop::collection::vec("[a-zA-Z:/]{1,8}", 1..5),
        mut scopes in prop::collection::vec("[a-z:]{1,8}", 0..5),
    ) {
        let docs = resource("res-1", "resource://docs");
        let rows = [ResourceRow { resource: &docs, upstream: None }];
        let of = |resources: &[String], scopes: &[String]| {
            let resources: Vec<&str> = resources.iter().map(String::as_str).collect();
            let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
            Binding::of(&Bound { resources: &resources, scopes: &scopes, rows: &rows, ..Bound::default() })
        };
        let one = of(&resources, &scopes);
        resources.reverse();
        scopes.reverse();
        resources.push(resources[0].clone());
        scopes.extend(scopes.first().cloned());
        prop_assert_eq!(one, of(&resources, &scopes));
    }

    #[test]
    fn different_scopes_are_different_bindings(one in "[a-c]{1,3}( [a-c]{1,3}){0,2}", other in "[a-c]{1,3}( [a-c]{1,3}){0,2}") {
        let docs = resource("res-1", "resource://docs");
        let rows = [ResourceRow { resource: &docs, upstream: None }];
        let set = |text: &str| text.split(' ').map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
        let of = |text: &str| {
            let scopes: Vec<&str> = text.split(' ').collect();
            Binding::of(&Bound { scopes: &scopes, rows: &rows, ..Bound::default() })
        };
        prop_assert_eq!(of(&one) == of(&other), set(&one) == set(&other));
    }
}
