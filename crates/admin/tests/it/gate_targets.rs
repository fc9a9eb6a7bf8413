//! Any target, spelled in any way, by any method: what the gate says is what the one route says that it names, read as a
//! router reads it; and of everything that was tried, nothing is left.

use std::cell::Cell;

use caracal_admin::{AdminConfig, Needs, RouteInfo, route_list};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::world::World;

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// What somebody does to a target so that two readers take it for two.
#[derive(Debug, Clone)]
enum Twist {
    /// Escapes a character, with the digits in either case.
    Escape(Index, bool),
    /// Puts a text at the beginning of a segment.
    Insert(Index, &'static str),
    /// Writes a character in the other case.
    Case(Index),
    /// Puts a text behind everything.
    Append(&'static str),
}

fn twists() -> impl Strategy<Value = Vec<Twist>> {
    let one = prop_oneof![
        4 => (any::<Index>(), any::<bool>()).prop_map(|(at, upper)| Twist::Escape(at, upper)),
        2 => (any::<Index>(), select(vec!["/", "./", "x/../", "%2e%2e/", "%2F", ";a/"])).prop_map(|(at, text)| Twist::Insert(at, text)),
        1 => any::<Index>().prop_map(Twist::Case),
        1 => select(vec!["/", "?", "?zone=x&dry_run=true", "%00", ";a", "/approve"]).prop_map(Twist::Append),
    ];
    proptest::collection::vec(one, 0..4)
}

fn twisted(path: &str, twists: &[Twist]) -> String {
    let mut path = path.to_owned();
    for twist in twists {
        match twist {
            Twist::Escape(at, upper) => {
                let at = at.index(path.len());
                let byte = path.as_bytes()[at];
                if byte.is_ascii_alphanumeric() || byte == b'-' {
                    let escape = if *upper { format!("%{byte:02X}") } else { format!("%{byte:02x}") };
                    path.replace_range(at..=at, &escape);
                }
            }
            Twist::Insert(at, text) => {
                let slashes: Vec<usize> = path.match_indices('/').map(|(at, _)| at + 1).collect();
                path.insert_str(slashes[at.index(slashes.len())], text);
            }
            Twist::Case(at) => {
                let at = at.index(path.len());
                let letter = path.as_bytes()[at].to_ascii_uppercase();
                path.replace_range(at..=at, &char::from(letter).to_string());
            }
            Twist::Append(text) => path.push_str(text),
        }
    }
    path
}

/// The text behind escapes that are taken off once; `None` where they are none.
fn unescaped(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, more @ ..] = rest {
        if *first == b'%' {
            let digits = std::str::from_utf8(more.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &more[2..];
        } else {
            bytes.push(*first);
            rest = more;
        }
    }
    String::from_utf8(bytes).ok()
}

/// The zone that a path names as the route's, if it is a path of the route: fixed segments as they are written, and
/// something in the place of each other one.
fn named(route: &RouteInfo, path: &str) -> Option<String> {
    let (mut zone, mut segments) = (String::new(), path.split('/'));
    for part in route.path.split('/') {
        if part.starts_with("{*") {
            return (!segments.next()?.is_empty()).then_some(zone);
        }
        let segment = segments.next()?;
        match part {
            "{zone}" => zone = unescaped(segment)?,
            _ if part.starts_with('{') => drop(unescaped(segment).filter(|text| !text.is_empty())?),
            fixed if fixed != segment => return None,
            _ => {}
        }
    }
    segments.next().is_none().then_some(zone)
}

/// What an administrator sees of a zone.
async fn state(world: &World, zone: &str) -> Vec<Value> {
    let mut seen = Vec::new();
    for of in ["", "/applications", "/providers", "/resources", "/policies", "/policy-sets", "/grants", "/workloads"] {
        seen.push(world.get(&format!("/v1/zones/{zone}{of}")).await.is(200));
    }
    seen
}

#[test]
fn t01_control_plane_no_target_however_it_is_spelt_is_more_than_the_route_it_names() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let closed: Vec<RouteInfo> = route_list().into_iter().filter(|route| route.in_zone && !route.is_public).collect();
    let (world, own, other, token, reader, app) = runtime.block_on(async {
        let open = AdminConfig { requests_per_minute: 0, auth_failures_per_minute: 0, ..AdminConfig::default() };
        let world = World::with(open).await;
        let (own, other) = (world.zone("Own").await, world.zone("Other").await);
        let body = json!({"name": "Bot", "registration_method": "managed"});
        let app = world.create(&format!("/v1/zones/{other}/applications"), body).await;
        let (token, reader) = (world.mint("write", Some(&own)).await, world.mint("read", Some(&other)).await);
        (world, own, other, token, reader, app)
    });
    let before = runtime.block_on(state(&world, &other));
    let mut runner = TestRunner::new(Config { cases: 600, failure_persistence: None, ..Config::default() });
    let targets = (0..closed.len(), select(METHODS.to_vec()), any::<bool>(), twists(), any::<bool>());
    let (plain_matches, twisted_matches, passed) = (Cell::new(0_u32), Cell::new(0_u32), Cell::new(0_u32));
    runner
        .run(&targets, |(route, drawn, as_it_is, twists, absolute)| {
            let route = &closed[route];
            let method = if as_it_is { route.method.as_str() } else { drawn };
            let filled = route.path.replace("{zone}", &other).replace("{id}", &app);
            let parts = filled.split('/').map(|part| if part.starts_with('{') { "x-1" } else { part });
            let plain = twisted(&parts.collect::<Vec<_>>().join("/"), &twists);
            let target = if absolute { format!("http://{own}{plain}") } else { plain.clone() };
            let path = plain.split('?').next().unwrap();
            // Of routes that are alike, a router takes the one with the fewest open places.
            let found = closed
                .iter()
                .filter(|route| route.method.as_str() == method)
                .filter_map(|route| Some((route, named(route, path)?)))
                .min_by_key(|(route, _)| route.path.matches('{').count());
            let ask = |token: Option<&str>| runtime.block_on(world.call_as(token, method, &target, None));
            let told = |answer: &crate::world::Answer| {
                let body: Value = serde_json::from_str(&answer.text).unwrap_or_default();
                (answer.status.as_u16(), body["error"].as_str().unwrap_or_default().to_owned())
            };
            let none_matched = [(404, "not_found"), (400, "bad_request"), (414, "uri_too_long")];
            let is = |said: &(u16, String), of: &[(u16, &str)]| of.contains(&(said.0, said.1.as_str()));

            // Who has nothing is told nothing, not even whether there is such a route.
            let stranger = told(&ask(None));
            let not_ours = [&[(401, "invalid_admin_token")][..], &none_matched].concat();
            prop_assert!(
                is(&stranger, if found.is_none() { &not_ours } else { &not_ours[..1] }),
                "{stranger:?} {target}"
            );

            // Who may write elsewhere is elsewhere, whatever zone the target seems to name.
            let foreign = told(&ask(Some(&token)));
            let expected: &[(u16, &str)] = if found.is_some() {
                &[(403, "admin_token_zone_mismatch"), (403, "approve_capability_required")]
            } else {
                &none_matched
            };
            prop_assert!(is(&foreign, expected), "{foreign:?} {method} {target}");

            // Who may only read here changes nothing, and is refused nowhere else.
            let reading = told(&ask(Some(&reader)));
            match found {
                None => prop_assert!(is(&reading, &none_matched), "{reading:?} {method} {target}"),
                Some((route, zone)) => {
                    let may = route.needs == Needs::Read && zone == other;
                    prop_assert_eq!(reading.0 == 403, !may, "{:?} {} {}", reading, method, target);
                    let matched = if twists.is_empty() { &plain_matches } else { &twisted_matches };
                    matched.set(matched.get() + 1);
                    passed.set(passed.get() + u32::from(may));
                }
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(runtime.block_on(state(&world, &other)), before);
    // Else nothing was tried: routes as they are, routes in another spelling, and what a reader may read.
    for count in [plain_matches, twisted_matches, passed] {
        assert!(count.get() > 20, "{count:?}");
    }
}
