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
    _running: Running,
    _servers: Option<(Database, Redis)>,
}

impl Ledger {
    async fn embedded() -> Self {
        let place = tempfile::tempdir().unwrap();
        let data_dir = place.path().join("data");
        let running = Running::start(&data_dir);
        let zone = happened(&running).await;
        let flags = vec!["--data-dir".to_owned(), data_dir.to_str().unwrap().to_owned()];
        Self { place, environment: Vec::new(), flags, zone, _running: running, _servers: None }
    }

    async fn on_servers() -> Self {
        let (database, redis) = (Database::create().unwrap(), Redis::start().unwrap());
        let deployment = Deployment::new(&database.url(), &redis.url());
        let running = deployment.serve("all", "api,coordinator,audit,sts");
        let through = Through {
            control: running.urls.clone(),
            sts: running.url("sts"),
            gateway: String::new(),
            admin_token: deployment.admin_token.clone(),
        };
        let zone = happened(&through).await;
        let Deployment { directory: place, environment, .. } = deployment;
        Self { place, environment, flags: Vec::new(), zone, _running: running, _servers: Some((database, redis)) }
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

/// Three grants to an application; gives its zone.
async fn happened(system: &impl Addressed) -> String {
    let http = Http::new();
    let tenant = Tenant::provision(&http, system, &upstream().await).await;
    for _ in 0..3 {
        let granted = tenant.exchange(&http, system, &[("scope", "agent:lifecycle")]).await.unwrap();
        assert_eq!(granted.status, 200, "{}", granted.json());
    }
    tenant.zone
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
    async fn a_zone_is_exported_on_demand_from_servers() {
        let ledger = Ledger::on_servers().await;
        what_can_t_be_exported_says_why_and_leaves_nothing(&ledger);
        a_zone_s_events_go_into_a_file(&ledger).await;
    }
}
