//! What an operator hands to an auditor, and what the auditor does with it: by the built binary, on both engines.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../audit/tests/audit/parquet.rs"]
mod parquet;
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use caracal_testkit::{Database, Redis};
use serde_json::{Value, json};
use support::cluster::{Deployment, Through};
use support::{Addressed, Http, Running, Said, Tenant, caracal, run, upstream};

/// A ledger with some events, and the way to ask for it.
struct Ledger {
    place: tempfile::TempDir,
    /// Variables and flags with which commands find it.
    environment: Vec<(String, String)>,
    flags: Vec<String>,
    zone: String,
    /// The last request that happened.
    request: String,
    tenant: Tenant,
    system: Through,
    http: Http,
    _running: Running,
    _servers: Option<(Database, Redis)>,
}

impl Ledger {
    async fn embedded() -> Self {
        let place = tempfile::tempdir().unwrap();
        let data_dir = place.path().join("data");
        let running = Running::start(&data_dir);
        let flags = vec!["--data-dir".to_owned(), data_dir.to_str().unwrap().to_owned()];
        let token = running.admin_token();
        Self::with(place, (Vec::new(), flags), (running, token), None).await
    }

    async fn on_servers() -> Self {
        let (database, redis) = (Database::create().unwrap(), Redis::start().unwrap());
        let deployment = Deployment::new(&database.url(), &redis.url());
        let running = deployment.serve("all", "api,coordinator,audit,sts");
        let Deployment { directory: place, environment, admin_token } = deployment;
        Self::with(place, (environment, Vec::new()), (running, admin_token), Some((database, redis))).await
    }

    async fn with(
        place: tempfile::TempDir,
        (environment, flags): (Vec<(String, String)>, Vec<String>),
        (running, admin_token): (Running, String),
        servers: Option<(Database, Redis)>,
    ) -> Self {
        let http = Http::new();
        let (control, sts) = (running.urls.clone(), running.url("sts"));
        let system = Through { control, sts, gateway: String::new(), admin_token };
        let tenant = Tenant::provision(&http, &system, &upstream().await).await;
        let zone = tenant.zone.clone();
        let request = String::new();
        let mut ledger = Self {
            place,
            environment,
            flags,
            zone,
            request,
            tenant,
            system,
            http,
            _running: running,
            _servers: servers,
        };
        for _ in 0..3 {
            ledger.grant().await;
        }
        ledger
    }

    /// One more event.
    async fn grant(&mut self) {
        let granted = self.tenant.exchange(&self.http, &self.system, &[("scope", "agent:lifecycle")]).await.unwrap();
        assert_eq!(granted.status, 200, "{}", granted.json());
        self.request = granted.request_id();
    }

    fn audit(&self, arguments: &[&str]) -> Command {
        let mut command = caracal();
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("HOME", self.place.path()).arg("audit").args(arguments).args(&self.flags);
        command
    }

    fn export(&self, out: &Path, more: &[&str]) -> Said {
        let out = out.to_str().unwrap();
        run(self
            .audit(&[&["export", "--zone", &self.zone, "--out", out][..], more].concat())
            .current_dir(self.place.path()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// The names beside the data that an export could have left.
    fn left(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.place.path()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name.contains("parquet") || name.contains("export"));
        names.sort();
        names
    }
}

fn sha256_of(path: &Path) -> String {
    let said = run(Command::new("sha256sum").arg(path));
    said.stdout.split(' ').next().unwrap().to_owned()
}

async fn a_zone_s_events_go_into_a_file(ledger: &Ledger) {
    let (all, some) = (ledger.path("all.parquet"), PathBuf::from("some.parquet"));
    let said = ledger.export(&all, &["--json"]);
    assert_eq!(said.code, Some(0), "beside the running system: {}", said.stderr);
    let report: Value = serde_json::from_str(&said.stdout).unwrap();
    let rows = parquet::rows(&std::fs::read(&all).unwrap());
    assert!(rows.len() >= 3 && rows.iter().all(|row| row["zone_id"] == json!(ledger.zone)), "{rows:?}");
    let seqs: Vec<i64> = rows.iter().map(|row| row["chain_seq"].as_i64().unwrap()).collect();
    assert_eq!(seqs, (1..=i64::try_from(rows.len()).unwrap()).collect::<Vec<_>>());
    let size = std::fs::metadata(&all).unwrap().len();
    assert_eq!(
        report,
        json!({
            "file": all, "zone_id": ledger.zone, "rows": rows.len(), "first_seq": 1, "last_seq": rows.len(),
            "head_seq": rows.len(), "removed_through_seq": null, "bytes": size, "sha256": sha256_of(&all),
        })
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(
            std::fs::metadata(&all).unwrap().permissions().mode() & 0o777,
            0o600,
            "events are not for everybody"
        );
    }
    // For people, into the directory that one is in.
    let said = ledger.export(&some, &["--from", "2", "--to", "3"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(said.stdout.contains("2 events of zone") && said.stdout.contains("2 to 3"), "{}", said.stdout);
    assert!(said.stdout.contains(&sha256_of(&ledger.path("some.parquet"))), "{}", said.stdout);
    let two = parquet::rows(&std::fs::read(ledger.path("some.parquet")).unwrap());
    assert_eq!(two, rows[1..3]);
    assert_eq!(ledger.left(), ["all.parquet", "some.parquet"], "and no draft");
}

fn what_can_t_be_exported_says_why_and_leaves_nothing(ledger: &Ledger) {
    let out = ledger.path("none.parquet");
    let taken = ledger.path("taken.parquet");
    std::fs::write(&taken, "mine").unwrap();
    let refused = |out: &Path, more: &[&str], expected: &str| {
        let said = ledger.export(out, more);
        assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""), "{more:?}: {}", said.stdout);
        assert!(said.stderr.contains(expected), "{more:?}: {}", said.stderr);
    };
    refused(&taken, &[], "is there already");
    assert_eq!(std::fs::read(&taken).unwrap(), b"mine");
    std::fs::remove_file(&taken).unwrap();
    refused(Path::new("-"), &[], "not for standard output");
    refused(&ledger.path("nowhere/x.parquet"), &[], "No such file");
    refused(&out, &["--from", "3", "--to", "2"], "before it begins at 3");
    refused(&out, &["--from", "9000"], "the chain ends at");
    refused(&out, &["--from", "0"], "0 is not in 1..");
    refused(&out, &["--to", "99999999999999999999"], "invalid value");
    let zone = |zone: &str| run(&mut ledger.audit(&["export", "--zone", zone, "--out", out.to_str().unwrap()]));
    let said = zone("0199c0de-0000-7000-8000-000000000000");
    assert!(said.code == Some(1) && said.stderr.contains("there is no zone"), "{}", said.stderr);
    let said = zone("no zone");
    assert!(said.code == Some(1) && said.stderr.contains("is no zone's id"), "{}", said.stderr);
    assert_eq!(ledger.left(), Vec::<String>::new());
}

/// Who asked for what, how it was decided, why: on one page, and nothing else about other requests.
async fn a_request_is_told_top_to_bottom(ledger: &mut Ledger) {
    let asked = [("scope", "notes:read"), ("resource", "resource://no\u{1b}where")];
    let denied = ledger.tenant.exchange(&ledger.http, &ledger.system, &asked).await.unwrap();
    assert_ne!(denied.status, 200, "{}", denied.json());
    let request = denied.request_id();
    let said = run(&mut ledger.audit(&["explain", &request]));
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{}", said.stdout);
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(lines[0], format!("request {request} in zone {}: deny", ledger.zone));
    assert!(said.stdout.contains("token_exchange  deny  resource_not_found  (position "), "{}", said.stdout);
    assert!(said.stdout.contains(&format!("application_id {}", ledger.tenant.application)), "{}", said.stdout);
    assert!(said.stdout.contains("resource://no\\u{1b}where"), "what a caller sent does nothing here: {}", said.stdout);
    assert!(!said.stdout.contains('\u{1b}') && !said.stdout.contains(&ledger.request), "{}", said.stdout);
    let place = |part: &str| said.stdout.find(part).unwrap_or_else(|| panic!("{part}: {}", said.stdout));
    assert!(place("  who ") < place("  asked "), "{}", said.stdout);
    // The same for machines, and of a request that was granted.
    let said = run(&mut ledger.audit(&["explain", &request, "--json"]));
    let told: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((&told["request_id"], &told["final_decision"]), (&json!(request), &json!("deny")));
    assert_eq!(told["events"][0]["evaluation_status"], "resource_not_found");
    let said = run(&mut ledger.audit(&["explain", &ledger.request, "--zone", &ledger.zone]));
    assert!(said.code == Some(0) && said.stdout.contains(": allow\n"), "{} {}", said.stdout, said.stderr);
    for (arguments, why) in [
        (&["explain", "no-such"][..], "no zone has a request `no-such`"),
        (&["explain", "no-such", "--zone", &ledger.zone], "has no request `no-such`"),
        (&["explain", &request, "--zone", "no zone"], "is no zone's id"),
    ] {
        let said = run(&mut ledger.audit(arguments));
        assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(said.stderr.contains(why), "{arguments:?}: {}", said.stderr);
    }
}

/// The auditor's part, offline: what is genuine verifies, and nothing else does, however it looks.
async fn nothing_but_the_evidence_verifies(ledger: &mut Ledger) {
    let text = |command: &mut Command| {
        let said = run(command);
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        said.stdout
    };
    let place = ledger.place.path().to_owned();
    let file = |name: &str, content: &[u8]| {
        let path = place.join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    // Waits for the tree.
    text(&mut ledger.audit(&["prove", &ledger.request, "--out", "-"]));
    let key = text(&mut ledger.audit(&["log-key", "--zone", &ledger.zone]));
    let held = file("held", text(&mut ledger.audit(&["checkpoint", "--zone", &ledger.zone])).as_bytes());
    ledger.grant().await;
    let ledger = &*ledger;
    let proven = text(&mut ledger.audit(&["prove", &ledger.request, "--out", "-", "--since", &held]));
    let key_file = file("log.key", key.as_bytes());
    // Without the system's settings, as who has nothing but what was sent.
    let verify = |name: &str, content: &[u8], more: &[&str]| {
        let evidence = file(name, content);
        run(caracal().args(["audit", "verify", &evidence, "--json"]).args(more))
    };
    for more in [&["--log-key", key.trim()][..], &["--log-key", &key_file], &["--log-key", &key_file, "--since", &held]]
    {
        let said = verify("genuine", proven.as_bytes(), more);
        let verdict: Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!((said.code, &verdict["verified"]), (Some(0), &json!(true)), "{verdict}");
        assert_eq!(verdict["events"][0]["request_id"], json!(ledger.request));
    }
    // Every value of the file, one after the other; what it names as its key is nobody's word.
    let genuine: Value = serde_json::from_str(&proven).unwrap();
    let mut places = Vec::new();
    walk(&genuine, &mut String::new(), &mut places);
    assert!(places.len() > 15, "{places:?}");
    for place in places.iter().filter(|place| *place != "/log_key") {
        for change in changes(genuine.pointer(place).unwrap()) {
            let mut forged = genuine.clone();
            *forged.pointer_mut(place).unwrap() = change.clone();
            let said = verify("forged", forged.to_string().as_bytes(), &["--log-key", &key_file, "--since", &held]);
            assert_eq!(said.code, Some(1), "{place} as {change}: {}", said.stdout);
            let verdict: Value = serde_json::from_str(&said.stdout).unwrap();
            assert_eq!(verdict["verified"], json!(false), "{place} as {change}");
        }
    }
    let cut = proven.len() / 2;
    for garbage in [
        &b""[..],
        b"null",
        b"[]",
        b"{}",
        &[0; 64],
        &[0xff; 64],
        "[".repeat(100_000).as_bytes(),
        &proven.as_bytes()[..cut],
    ] {
        let said = verify("garbage", garbage, &["--log-key", &key_file]);
        assert_eq!(said.code, Some(1), "{}", said.stdout);
        let verdict: Value = serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{}", said.stderr));
        let reason = verdict["reason"].as_str().unwrap();
        assert!(verdict["verified"] == json!(false) && reason.contains("evidence file"), "{verdict}");
        assert!(!reason.contains("EvidenceFile"), "a name of the program's, not of the user's: {reason}");
    }
    for wrong in ["nowhere", "a+b+c", "/", &held] {
        let said = verify("genuine", proven.as_bytes(), &["--log-key", wrong]);
        assert!(said.code == Some(1) && said.stdout.is_empty() && !said.stderr.is_empty(), "{wrong}: {}", said.stdout);
    }
    // A file without an end is not read to its end.
    #[cfg(target_os = "linux")]
    {
        let said = run(caracal().args(["audit", "verify", "/dev/zero", "--log-key", &key_file]));
        assert!(said.code == Some(1) && said.stderr.contains("larger than"), "{}", said.stderr);
    }
}

/// Where the values of a document are, as JSON pointers.
fn walk(value: &Value, place: &mut String, found: &mut Vec<String>) {
    let mut inside = |name: String, value: &Value| {
        let before = place.len();
        place.push_str(&format!("/{name}"));
        walk(value, place, found);
        place.truncate(before);
    };
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| inside(name.clone(), value)),
        Value::Array(items) => items.iter().enumerate().for_each(|(index, value)| inside(index.to_string(), value)),
        _ => found.push(place.clone()),
    }
}

/// What a value could be instead.
fn changes(value: &Value) -> Vec<Value> {
    match value {
        Value::String(text) => vec![json!(format!("{text}x")), json!(null)],
        Value::Number(number) => {
            vec![json!(number.as_i64().unwrap() + 1), json!(u64::MAX), json!(1e300)]
        }
        Value::Null => vec![json!("x"), json!(0)],
        other => panic!("neither text nor number: {other}"),
    }
}

/// A disk that takes no more: files can't grow past `blocks` of 512 bytes.
#[cfg(unix)]
fn a_full_disk_keeps_nothing_of_it(ledger: &Ledger, blocks: u32) {
    let out = ledger.path("large.parquet");
    let export = ledger.audit(&["export", "--zone", &ledger.zone, "--out", out.to_str().unwrap()]);
    let mut shell = Command::new("sh");
    shell.env_clear().envs(export.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"")]);
    let said = run(shell.arg(export.get_program()).args(export.get_args()));
    assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""), "{}", said.stderr);
    assert!(said.stderr.contains("large.parquet") && said.stderr.contains("make room"), "{}", said.stderr);
    assert_eq!(ledger.left(), Vec::<String>::new());
}

mod t06_evidence {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_zone_is_exported_on_demand_from_the_embedded_store() {
        let ledger = Ledger::embedded().await;
        #[cfg(unix)]
        a_full_disk_keeps_nothing_of_it(&ledger, 2);
        what_can_t_be_exported_says_why_and_leaves_nothing(&ledger);
        a_zone_s_events_go_into_a_file(&ledger).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_request_is_explained_to_whoever_has_the_ledger() {
        a_request_is_told_top_to_bottom(&mut Ledger::embedded().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_proven_verifies_offline_and_nothing_else_does() {
        nothing_but_the_evidence_verifies(&mut Ledger::embedded().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_zone_is_exported_and_a_request_proven_from_servers() {
        let mut ledger = Ledger::on_servers().await;
        a_request_is_told_top_to_bottom(&mut ledger).await;
        nothing_but_the_evidence_verifies(&mut ledger).await;
        what_can_t_be_exported_says_why_and_leaves_nothing(&ledger);
        a_zone_s_events_go_into_a_file(&ledger).await;
    }
}
