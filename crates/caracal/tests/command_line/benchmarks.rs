//! `caracal bench` as a person meets it. The numbers are the machine's; what they are made of is ours.

use caracal_testkit::{Database, Redis};
use http::Method;
use serde_json::Value;

use super::support::{Addressed, Http, Running, Said, caracal, run};

/// Short runs; a benchmark that is meant takes longer.
fn bench(flags: &[&str]) -> Said {
    run(caracal().args(["bench", "--seconds", "0.4", "--warm-up", "0", "--workers", "2"]).args(flags))
}

/// The last line of a run that ended well.
fn said(ended: &Said) -> Value {
    assert_eq!(ended.code, Some(0), "{} {}", ended.stdout, ended.stderr);
    serde_json::from_str(ended.stdout.lines().last().unwrap()).unwrap()
}

fn number(said: &Value, pointer: &str) -> f64 {
    said.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer}: {said}"))
}

/// What must be in the last line of every run, whatever was measured.
fn has_the_shape(said: &Value, what: &str) {
    assert_eq!((said["what"].as_str(), number(said, "/errors")), (Some(what), 0.0), "{said}");
    for positive in ["p50_ms", "p99_ms", "per_second", "calls"] {
        assert!(number(said, &format!("/{what}/{positive}")) > 0.0, "{positive}: {said}");
    }
    for part in ["sign_us", "verify_us", "decision_us", "commit_us"] {
        assert!(number(said, &format!("/floor/{part}")) > 0.0, "{part}: {said}");
    }
    let calls = number(said, &format!("/{what}/calls"));
    for (_, phase) in said["phases"].as_object().unwrap() {
        let steps: Vec<(u64, u64)> = serde_json::from_value(phase["histogram"].clone()).unwrap();
        assert_eq!(steps.iter().map(|(_, count)| *count as f64).sum::<f64>(), calls, "{said}");
    }
}

/// Two mandates are signed for a governed call, each is made durable, and there is no database server to wait for.
#[test]
fn a_benchmark_measures_a_system_of_its_own_and_says_what_a_call_is_made_of() {
    let place = tempfile::tempdir().unwrap();
    let (plot, old) = (place.path().join("latency.svg"), place.path().join("old.json"));
    let first = bench(&["--json", "--plot", plot.to_str().unwrap()]);
    let found = said(&first);
    has_the_shape(&found, "governed");
    for positive in ["commits_per_call", "changes_per_call"] {
        assert!(number(&found, &format!("/governed/{positive}")) > 0.0, "{positive}: {found}");
    }
    // Calls under way when counting begins are counted at the end only.
    let calls = number(&found, "/governed/calls");
    assert!((number(&found, "/governed/signatures_per_call") - 2.0).abs() <= 4.5 / calls, "{found}");
    assert_eq!(number(&found, "/governed/round_trips_per_call"), 0.0);
    if cfg!(target_os = "linux") {
        for positive in ["/governed/server_cpu_us_per_call", "/governed/client_cpu_us_per_call", "/rss_mib"] {
            assert!(number(&found, positive) > 0.0, "{positive}: {found}");
        }
        for positive in ["/floor/proxy_us", "/floor/commit_cpu_us", "/floor/call_cpu_us", "/ratio_to_floor"] {
            assert!(number(&found, positive) > 0.0, "{positive}: {found}");
        }
        let ratio = number(&found, "/governed/server_cpu_us_per_call") / number(&found, "/floor/call_cpu_us");
        assert!((number(&found, "/ratio_to_floor") - ratio).abs() < 1e-6, "{found}");
    }
    let drawn = std::fs::read_to_string(&plot).unwrap();
    assert_eq!(drawn.matches("<polyline").count(), 3, "{drawn}");
    // Compared with itself, nothing has changed, and what did not change is told from what can't be compared.
    std::fs::write(&old, &first.stdout).unwrap();
    let other = bench(&["--what", "mint", "--compare", old.to_str().unwrap()]);
    assert_eq!((other.code, other.stdout.as_str()), (Some(1), ""));
    assert!(other.stderr.contains("the earlier run measured `governed`, this one `mint`"), "{}", other.stderr);
}

#[test]
fn an_open_loop_offers_what_it_is_told_to_and_compares_in_a_table() {
    let place = tempfile::tempdir().unwrap();
    let old = place.path().join("old.json");
    let first = bench(&["--what", "mint", "--rate", "100", "--json"]);
    let found = said(&first);
    has_the_shape(&found, "mint");
    assert_eq!((found["loop"].as_str(), number(&found, "/unsent")), (Some("open"), 0.0));
    // What is due is a matter of the clock and not of the answers; the second that is measured may be a little longer.
    assert!((35.0..=80.0).contains(&number(&found, "/mint/calls")), "{found}");
    std::fs::write(&old, &first.stdout).unwrap();
    let second = bench(&["--what", "mint", "--rate", "150", "--compare", old.to_str().unwrap()]);
    assert_eq!(second.code, Some(0), "{}", second.stderr);
    for part in
        ["since due", "per second", "bare proxy", "mint.per_second", "`rate` is not the same: 100.0 before, 150.0 now"]
    {
        assert!(second.stdout.contains(part), "{part}: {}", second.stdout);
    }
    // Nobody looks at a terminal here.
    assert_eq!(second.stderr, "");
}

/// What a call adds to a bare proxy is set against what its parts cost by themselves, and the sums are those of what was
/// measured.
#[test]
#[cfg(target_os = "linux")]
fn a_call_is_set_against_a_bare_proxy_and_its_own_parts() {
    let found = said(&bench(&["--parts", "--json"]));
    for part in ["governed_us", "mint_us", "form_us", "exchanged_us", "nonce_us", "proxy_us", "record_us"] {
        assert!(number(&found, &format!("/measured/{part}")) > 0.0, "{part}: {found}");
    }
    let measured = |part: &str| number(&found, &format!("/measured/{part}"));
    let call = measured("governed_us") - measured("mint_us");
    let exchange = measured("exchanged_us") - measured("mint_us") - measured("form_us") - measured("nonce_us");
    let together = measured("proxy_us") + exchange + measured("record_us");
    for (sum, member) in [(call, "/call_us"), (together, "/together_us"), (call / together, "/ratio")] {
        assert!((number(&found, member) - sum).abs() < 1e-6, "{member}: {found}");
    }
    let shown = bench(&["--parts"]);
    assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""));
    for part in ["a proxy that decides nothing", "+ one exchange", "+ the record", "= together"] {
        assert!(shown.stdout.contains(part), "{part}: {}", shown.stdout);
    }
}

fn zones(system: &Running) -> Value {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (url, token) = (format!("{}/v1/zones", system.url("api")), system.admin_token());
    runtime.block_on(Http::new().json(Method::GET, &url, &token, None)).unwrap().json()
}

/// Each unit against one system that runs already, which has no zone of theirs afterwards.
#[test]
fn each_unit_is_measured_on_a_running_system_and_its_zone_goes() {
    let directory = tempfile::tempdir().unwrap();
    let unlimited = [
        ("STS_MINT_RATE_LIMIT_PER_MIN", "1000000000"),
        ("COORDINATOR_RATE_LIMIT_PER_MIN", "0"),
        ("VERIFY_RATE_LIMIT_PER_MIN", "0"),
        ("API_V1_RATE_LIMIT_PER_MIN", "0"),
    ];
    let system = Running::start_with(directory.path(), &unlimited);
    let (offset, pid) = (system.offset.to_string(), system.child.id().to_string());
    let token = system.ready["admin_token_file"].as_str().unwrap().to_owned();
    let on_it = |what: &str| {
        let mut command = caracal();
        command.env("CARACAL_ADMIN_TOKEN_FILE", &token).args(["bench", "--json", "--what", what]);
        command.args(["--seconds", "0.4", "--warm-up", "0", "--workers", "1", "--target", "127.0.0.1"]);
        run(command.args(["--port-offset", &offset, "--server-pid", &pid]))
    };
    std::thread::scope(|scope| {
        let units = ["mint", "verify", "cycle", "delegate", "append", "list", "search", "manage"];
        let runs: Vec<_> = units.map(|what| (what, scope.spawn(move || on_it(what)))).into();
        for (what, run) in runs {
            let ended = run.join().unwrap();
            let found = said(&ended);
            has_the_shape(&found, what);
            assert_eq!((found["engine"].as_str(), ended.stderr.as_str()), (Some("target"), ""), "{what}");
        }
    });
    let zones = zones(&system);
    let names: Vec<&str> = zones["items"].as_array().unwrap().iter().filter_map(|zone| zone["name"].as_str()).collect();
    assert!(!names.iter().any(|name| name.starts_with("Bench")), "{names:?}");
    let refused = run(caracal().args(["bench", "--target", "127.0.0.1", "--port-offset", &offset]));
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""));
    assert!(refused.stderr.contains("CARACAL_ADMIN_TOKEN"), "{}", refused.stderr);
}

#[test]
fn on_servers_a_mint_waits_for_them() {
    let (database, redis) = (Database::create().unwrap(), Redis::start().unwrap());
    let mut command = caracal();
    command.env("CARACAL_BENCH_POSTGRES_URL", database.url()).env("CARACAL_BENCH_REDIS_URL", redis.url());
    command.args(["bench", "--json", "--what", "mint", "--seconds", "0.4", "--warm-up", "0", "--workers", "2"]);
    let found = said(&run(&mut command));
    has_the_shape(&found, "mint");
    assert_eq!(found["engine"], "postgresql");
    assert!(number(&found, "/mint/round_trips_per_call") > 1.0, "{found}");
}

/// Whatever it does with more than it can do, it does not let a used mandate through again, and it comes back.
#[test]
fn beyond_its_capacity_a_system_lets_no_used_mandate_through_again() {
    let ended = bench(&["--overload", "--json"]);
    let found: Value = serde_json::from_str(ended.stdout.lines().last().unwrap_or_default())
        .unwrap_or_else(|_| panic!("{} {}", ended.stdout, ended.stderr));
    let steps = found["overload"]["steps"].as_array().unwrap();
    let times: Vec<f64> = steps.iter().map(|step| number(step, "/times")).collect();
    assert_eq!(times, [1.0, 2.0, 5.0]);
    let capacity = number(&found, "/governed/per_second");
    for step in steps {
        assert!((number(step, "/offered_per_second") / capacity - number(step, "/times")).abs() < 1e-9, "{found}");
        // When they are answered is the machine's affair: a step is shorter here than a burst may be.
        assert!(number(step, "/calls") > 0.0 && number(step, "/goodput_per_second") >= 0.0, "{found}");
        assert_eq!(number(step, "/violations"), 0.0, "{found}");
    }
    assert!(number(&found, "/overload/recovery_ms") >= 0.0, "{found}");
}

#[test]
fn a_benchmark_that_makes_no_sense_is_refused_before_anything_is_started() {
    for (flags, why) in [
        (&["--workers", "0"][..], "at least one caller"),
        (&["--seconds", "0"], "a tenth of a second"),
        (&["--rate", "0"], "--rate is calls a second"),
        (&["--compare", "/nonexistent/old.json"], "can't read `/nonexistent/old.json`"),
    ] {
        let ended = run(caracal().arg("bench").args(flags));
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{flags:?}");
        assert!(ended.stderr.contains(why), "{flags:?}: {}", ended.stderr);
    }
}
