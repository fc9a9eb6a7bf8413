//! The inventory of the threat model is read off the sources as text. Here it is held to the tables that the product
//! itself is made from: a route that the reader of text overlooked would be missing on one side.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The lines of one kind, as docs/threat-model/inventory.toml has them.
fn lines(kind: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/threat-model/inventory.toml");
    let inventory = fs::read_to_string(path).unwrap();
    let section = inventory.split(&format!("\n[{kind}]\n")).nth(1).unwrap().split("\n[").next().unwrap();
    let found: BTreeSet<String> =
        section.lines().filter_map(|line| line.split('"').nth(1)).map(str::to_owned).collect();
    assert!(!found.is_empty(), "{kind}");
    found
}

fn routes_of(service: &str) -> BTreeSet<String> {
    lines("route").iter().filter_map(|line| line.strip_prefix(&format!("{service} "))).map(str::to_owned).collect()
}

#[test]
fn t11_drift_admin_serves_the_routes_of_the_inventory_with_the_capability_it_says_and_no_other() {
    let outside_the_table =
        ["GET /docs", "GET /docs/openapi.json", "GET /health", "GET /metrics", "GET /ready"].map(str::to_owned);
    let served: BTreeSet<String> = caracal_admin::route_list()
        .into_iter()
        .map(|route| {
            let reach = match (route.is_public, route.in_zone, route.for_everybody) {
                (true, ..) => "public",
                (_, true, _) => "zone",
                (.., true) => "catalogue",
                _ => "more than one zone",
            };
            format!("{} {} needs {:?}, reaches {reach}", route.method, route.path, route.needs)
        })
        .map(|line| line.replace("needs Nothing", "needs nothing").replace("needs Read", "needs read"))
        .map(|line| line.replace("needs Write", "needs write").replace("needs Approve", "needs approve"))
        .collect();
    let written: BTreeSet<String> = routes_of("admin")
        .into_iter()
        .filter(|line| !outside_the_table.contains(line))
        .map(|line| line.replace("reaches zones", "reaches more than one zone"))
        .map(|line| line.replace("reaches deployment", "reaches more than one zone"))
        .collect();
    assert_eq!(served, written);
}

#[test]
fn t11_drift_the_coordinator_serves_the_routes_of_the_inventory_and_no_other() {
    let served = caracal_coordinator::ROUTES.iter().map(|(method, path)| format!("{method} {path}")).collect();
    assert_eq!(routes_of("coordinator"), served);
}

#[test]
fn t11_drift_the_topics_and_settings_of_the_inventory_are_those_there_are() {
    let published = caracal_stream::TOPICS.into_iter();
    let brought = [caracal_stream::AUDIT_EVENTS, caracal_stream::AUDIT_DEAD_LETTERS];
    assert_eq!(lines("topic"), published.chain(brought).map(str::to_owned).collect());
    let read = caracal::settings::VARIABLES.iter().map(|variable| variable.name.to_owned()).collect();
    assert_eq!(lines("setting"), read);
}
