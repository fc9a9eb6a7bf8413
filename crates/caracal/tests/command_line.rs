//! The command line as a person meets it: what it says, how it ends, and that nothing is damaged when it refuses.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "command_line/benchmarks.rs"]
mod benchmarks;
mod support;

use std::path::Path;

use http::StatusCode;
use serde_json::{Value, json};
use support::{Addressed, Http, Running, Tenant, caracal, refused_up, run, upstream};

#[test]
fn every_command_helps() {
    for arguments in [
        &["--help"][..],
        &["up", "--help"],
        &["serve", "--help"],
        &["config", "check", "--help"],
        &["migrate", "--help"],
        &["demo", "--help"],
        &["bench", "--help"],
        &["status", "--help"],
        &["backup", "--help"],
        &["restore", "--help"],
        &["audit", "--help"],
    ] {
        let said = run(caracal().args(arguments));
        assert_eq!(said.code, Some(0), "{arguments:?}");
        assert!(said.stdout.contains("Usage:"), "{arguments:?}: {}", said.stdout);
    }
    for arguments in [&[][..], &["help"], &["-h"]] {
        let said = run(caracal().args(arguments));
        assert_eq!((said.code, said.stdout.contains("Usage:")), (Some(0), true), "{arguments:?}");
    }
    for arguments in [&["fly"][..], &["up", "--port-offset", "x"], &["audit", "forge"], &["up", "--bind", "nowhere"]] {
        let said = run(caracal().args(arguments));
        assert_eq!((said.code, said.stdout.is_empty()), (Some(1), true), "{arguments:?}: {}", said.stdout);
        assert!(said.stderr.contains("Usage:") || said.stderr.contains("--help"), "{arguments:?}: {}", said.stderr);
    }
}

#[test]
fn version_is_for_people_and_for_machines() {
    for argument in ["version", "-v", "--version"] {
        let said = run(caracal().arg(argument));
        assert_eq!((said.code, said.stdout.lines().count()), (Some(0), 5), "{}", said.stdout);
    }
    let said = run(caracal().args(["version", "--json"]));
    let version: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(
        (version["binary"].as_str(), version["version"].as_str()),
        (Some("caracal"), Some(env!("CARGO_PKG_VERSION")))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_starts_answers_drains_and_starts_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut system = Running::start(directory.path());
    assert_eq!(system.ready["ready"], true);
    for service in ["api", "sts", "gateway", "coordinator", "audit"] {
        let health =
            Http::new().send(http::Method::GET, &format!("{}/health", system.url(service)), &[], "").await.unwrap();
        assert_eq!(health.status, StatusCode::OK, "{service}");
    }
    let offset = system.offset.to_string();
    let said = run(caracal().args(["status", "--ready", "--json", "--port-offset", &offset]));
    assert_eq!(said.code, Some(0), "{}", said.stdout);
    let status: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((status["mode"].as_str(), status["services"].as_array().unwrap().len()), (Some("ready"), 5));
    let token = system.admin_token();
    assert!(system.terminate(), "a drained system ends with 0");
    let said = run(caracal().args(["status", "--port-offset", &offset]));
    assert_eq!(said.code, Some(1));
    assert!(said.stdout.contains("unreachable"), "{}", said.stdout);
    let again = Running::start(directory.path());
    assert_eq!(again.admin_token(), token, "later starts keep the keys");
}

#[test]
fn a_busy_port_is_named_and_the_data_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let system = Running::start(directory.path());
    let other = tempfile::tempdir().unwrap();
    let offset = system.offset.to_string();
    let said = run(caracal().args(["up", "--port-offset", &offset, "--data-dir"]).arg(other.path()));
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("the port is in use") && said.stderr.contains("--port-offset"), "{}", said.stderr);
    assert_eq!(std::fs::read_dir(other.path()).unwrap().count(), 0);
}

mod settings {
    use super::*;

    #[test]
    fn config_check_says_every_mistake_and_what_would_be_read() {
        let data = tempfile::tempdir().unwrap();
        let check = |environment: &[(&str, &str)], more: &[&str]| {
            let mut command = caracal();
            command.envs(environment.iter().copied()).args(["config", "check", "--data-dir"]).arg(data.path());
            run(command.args(more))
        };
        let good = check(&[], &[]);
        assert_eq!(good.code, Some(0), "{}", good.stderr);
        assert!(good.stdout.starts_with("mode dev, engine embedded, roles api, sts, gateway, audit, coordinator\n"));
        assert!(good.stdout.ends_with("Nothing is wrong.\n") && good.stderr.is_empty(), "{}", good.stdout);
        let wrong = [("CARACAL_MODE", "prod"), ("STS_TIMEOUT", "soon"), ("AUDIT_HMAC_KEY", "00ff")];
        let bad = check(&wrong, &[]);
        assert_eq!(bad.code, Some(1));
        for (name, _) in wrong {
            assert!(bad.stderr.contains(&format!("caracal: {name}: ")), "{}", bad.stderr);
        }
        let json = check(&wrong, &["--json"]);
        assert_eq!((json.code, json.stderr.as_str()), (Some(1), ""));
        let json: Value = serde_json::from_str(&json.stdout).unwrap();
        assert_eq!((json["ok"].as_bool(), json["mistakes"].as_array().unwrap().len()), (Some(false), 3));
        let shown = json["variables"].as_array().unwrap().iter().find(|shown| shown["name"] == "AUDIT_HMAC_KEY");
        assert_eq!(
            shown.unwrap(),
            &serde_json::json!({"name": "AUDIT_HMAC_KEY", "value": "set", "source": "environment"})
        );
        let split = check(&[], &["--roles", "sts,nobody"]);
        assert!(split.stderr.contains("`nobody` is none of api, sts, gateway, audit, coordinator"), "{}", split.stderr);
        assert_eq!(std::fs::read_dir(data.path()).unwrap().count(), 0, "nothing was made");
    }

    #[test]
    fn a_part_of_the_roles_is_refused_on_the_embedded_store() {
        let said = run(caracal().args(["serve", "--roles", "sts,gateway", "--data-dir", "/nonexistent"]));
        assert_eq!(said.code, Some(1));
        assert!(said.stderr.contains("--roles: the embedded store belongs to one process"), "{}", said.stderr);
        let said = run(caracal().args(["serve", "--roles", "web"]));
        assert!(said.code == Some(1) && said.stderr.contains("`web` is none of"), "{}", said.stderr);
    }

    #[test]
    fn files_of_the_current_directory_never_take_effect() {
        let here = tempfile::tempdir().unwrap();
        for name in [".env", ".env.local", ".env.production", ".env.development", "caracal.env", "local.env", "dev.env"]
        {
            std::fs::write(here.path().join(name), "CARACAL_MODE=prod\nCARACAL_ADMIN_TOKEN=cat_planted\n").unwrap();
        }
        let said = run(caracal().current_dir(here.path()).args(["config", "check"]));
        assert_eq!(said.code, Some(0), "{}", said.stderr);
    }

    #[test]
    fn an_environment_file_fills_in_and_a_malformed_one_is_skipped_with_a_warning() {
        let here = tempfile::tempdir().unwrap();
        let file = here.path().join("settings");
        let check = |content: &str| {
            std::fs::write(&file, content).unwrap();
            run(caracal().env("CARACAL_ENV_FILE", &file).args(["config", "check"]))
        };
        let filled = check("CARACAL_MODE=prod\n");
        assert!(filled.code == Some(1) && filled.stderr.contains("`prod` is none of"), "{}", filled.stderr);
        let skipped = check("CARACAL_MODE=prod\nSECRET_STORE_KEK 0123456789\n");
        assert_eq!(skipped.code, Some(0), "{}", skipped.stderr);
        assert!(skipped.stderr.contains("line 2") && !skipped.stderr.contains("0123456789"), "{}", skipped.stderr);
        // A start says so, too.
        let started = run(caracal().env("CARACAL_ENV_FILE", &file).args(["serve", "--roles", "web"]));
        assert!(started.stderr.contains("warning: CARACAL_ENV_FILE"), "{}", started.stderr);
    }
}

mod t17_rollback {
    use super::*;

    #[test]
    fn two_processes_never_own_one_store() {
        let directory = tempfile::tempdir().unwrap();
        let _system = Running::start(directory.path());
        let said = refused_up(directory.path(), caracal);
        assert_eq!(said.code, Some(1));
        assert!(said.stderr.contains("in use by another process"), "{}", said.stderr);
    }
}

mod t05_secrets {
    use super::*;

    #[test]
    fn a_wrong_key_encryption_key_is_refused_and_nothing_is_damaged() {
        let directory = tempfile::tempdir().unwrap();
        Running::start(directory.path()).terminate();
        let wrong = "8f3d9a712c45e6b0d18f2a4c6e9b3d57a1c4f8020e6a9c3d5b7f1a2c4e6d8b90";
        let said = refused_up(directory.path(), || {
            let mut command = caracal();
            command.env("SECRET_STORE_KEK", wrong);
            command
        });
        assert_eq!(said.code, Some(1));
        assert!(said.stderr.contains("SECRET_STORE_KEK") && !said.stderr.contains(wrong), "{}", said.stderr);
        Running::start(directory.path());
    }

    #[test]
    fn weak_keys_stop_the_start() {
        let directory = tempfile::tempdir().unwrap();
        for (name, value) in [
            ("SECRET_STORE_KEK", "aa".repeat(32)),
            ("AUDIT_HMAC_KEY", "00ff".to_owned()),
            ("CARACAL_MODE", "prod".to_owned()),
        ] {
            let said = refused_up(directory.path(), || {
                let mut command = caracal();
                command.env(name, &value);
                command
            });
            assert_eq!(said.code, Some(1), "{name}");
            assert!(said.stderr.contains(name), "{name}: {}", said.stderr);
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_data_directory_is_the_owner_s_alone() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        Running::start(&data).terminate();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&data), 0o700);
        assert_eq!(mode(&data.join("secrets")), 0o700);
        for entry in std::fs::read_dir(data.join("secrets")).unwrap() {
            assert_eq!(mode(&entry.unwrap().path()), 0o600);
        }
        assert_eq!(mode(&data.join("caracal.db")), 0o600);
        assert_eq!(mode(&data.join("heads.log")), 0o600);
    }
}

#[test]
fn a_foreign_file_is_left_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("caracal.db");
    std::fs::write(&file, b"somebody else's data").unwrap();
    let said = refused_up(directory.path(), caracal);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("not a Caracal store"), "{}", said.stderr);
    assert_eq!(std::fs::read(&file).unwrap(), b"somebody else's data");
}

#[test]
fn a_data_directory_that_is_a_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("data");
    std::fs::write(&file, b"x").unwrap();
    let said = refused_up(&file, caracal);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("can't use"), "{}", said.stderr);
}

mod t06_evidence {
    use super::*;

    #[test]
    fn verifying_what_is_not_there_is_no_success() {
        let directory = tempfile::tempdir().unwrap();
        let said = run(caracal().args(["audit", "verify", "--data-dir"]).arg(directory.path()));
        assert_eq!(said.code, Some(1), "{}", said.stdout);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_running_ledger_verifies_and_a_cut_tail_shows() {
        let directory = tempfile::tempdir().unwrap();
        let mut system = Running::start(directory.path());
        let http = Http::new();
        let tenant = Tenant::provision(&http, &system, &upstream().await).await;
        tenant.exchange(&http, &system, &[("scope", "agent:lifecycle")]).await.unwrap();
        let verify = || run(caracal().args(["audit", "verify", "--json", "--data-dir"]).arg(directory.path()));
        let said = verify();
        assert_eq!(said.code, Some(0), "beside the running system: {} {}", said.stdout, said.stderr);
        // An older copy of the store under newer heads: what is gone is the end of the chain.
        let old = tempfile::tempdir().unwrap();
        for file in ["caracal.db", "caracal.db-wal"] {
            std::fs::copy(directory.path().join(file), old.path().join(file)).unwrap();
        }
        tenant.exchange(&http, &system, &[("scope", "agent:lifecycle")]).await.unwrap();
        assert!(system.terminate());
        assert_eq!(verify().code, Some(0));
        std::fs::remove_file(directory.path().join("caracal.db")).unwrap();
        for file in ["caracal.db", "caracal.db-wal"] {
            std::fs::copy(old.path().join(file), directory.path().join(file)).unwrap();
        }
        let said = verify();
        assert_eq!(said.code, Some(1), "{}", said.stdout);
        assert!(said.stdout.contains("tail"), "{}", said.stdout);
        let said = refused_up(directory.path(), caracal);
        assert_eq!(said.code, Some(1), "an older store would revive what was taken back");
        assert!(said.stderr.contains("heads.log"), "{}", said.stderr);
        // The way out that the message names.
        std::fs::write(directory.path().join("heads.log"), "").unwrap();
        assert!(Running::start(directory.path()).terminate());
    }

    /// Without its heads, a store whose end was cut off would verify.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_ledger_whose_heads_were_taken_away_is_started_only_knowingly() {
        let directory = tempfile::tempdir().unwrap();
        let http = Http::new();
        let mut system = Running::start(directory.path());
        let tenant = Tenant::provision(&http, &system, &upstream().await).await;
        tenant.exchange(&http, &system, &[("scope", "agent:lifecycle")]).await.unwrap();
        assert!(system.terminate());
        std::fs::remove_file(directory.path().join("heads.log")).unwrap();
        for _ in 0..2 {
            let said = refused_up(directory.path(), caracal);
            assert_eq!(said.code, Some(1));
            assert!(
                said.stderr.contains("heads.log is missing") && said.stderr.contains("empty file"),
                "{}",
                said.stderr
            );
        }
        std::fs::write(directory.path().join("heads.log"), "").unwrap();
        assert!(Running::start(directory.path()).terminate());
    }
}

#[test]
fn the_demo_goes_as_told() {
    let said = run(caracal().args(["demo", "--json"]));
    let told: Value = serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{} {}", said.stdout, said.stderr));
    assert_eq!((said.code, &told["ok"]), (Some(0), &Value::Bool(true)), "{told:#}");
    let steps: Vec<&str> =
        told["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(
        steps,
        [
            "start",
            "provision",
            "delegate",
            "allowed_call",
            "out_of_scope",
            "replay",
            "narrowed_child",
            "revocation",
            "trace",
            "verify",
            "tamper"
        ]
    );
}

/// A disk that takes no more: files can't grow past `blocks` of 512 bytes, and the write fails instead of a signal.
#[cfg(unix)]
mod t08_availability {
    use std::process::Command;

    use super::*;

    fn on_a_small_disk(blocks: u32) -> Command {
        let mut shell = Command::new("sh");
        shell.env_clear().env("HOME", "/nonexistent").env("LOG_LEVEL", "off");
        shell.args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"")]);
        shell.arg(env!("CARGO_BIN_EXE_caracal"));
        shell
    }

    #[test]
    fn a_first_start_on_a_full_disk_says_so_and_the_next_one_works() {
        let directory = tempfile::tempdir().unwrap();
        let said = refused_up(directory.path(), || on_a_small_disk(40));
        assert_eq!(said.code, Some(1), "{} {}", said.stdout, said.stderr);
        assert!(said.stderr.contains("caracal.db"), "{}", said.stderr);
        Running::start(directory.path());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_disk_that_fills_up_is_answered_with_503_and_nothing_acknowledged_is_lost() {
        let directory = tempfile::tempdir().unwrap();
        let http = Http::new();
        let mut system = Running::start_by(on_a_small_disk(4_000), directory.path());
        let tenant = Tenant::provision(&http, &system, &upstream().await).await;
        let mut granted = Vec::new();
        let refused = loop {
            assert!(granted.len() < 5_000, "the disk never filled up");
            let answer = tenant.exchange(&http, &system, &[("scope", "agent:lifecycle")]).await.unwrap();
            if answer.status != StatusCode::OK {
                break answer;
            }
            granted.push(answer.request_id());
        };
        assert_eq!(
            (refused.status, refused.text("error")),
            (StatusCode::SERVICE_UNAVAILABLE, "sts_unavailable".into())
        );
        assert!(refused.headers.contains_key("retry-after"));
        let jwks = format!("{}/.well-known/jwks.json?zone_id={}", system.url("sts"), tenant.zone);
        let alive = http.send(http::Method::GET, &jwks, &[], "").await.unwrap();
        assert_eq!(alive.status, StatusCode::OK, "reads go on");
        system.kill();
        let said = run(caracal().args(["audit", "verify", "--data-dir"]).arg(directory.path()));
        assert_eq!(said.code, Some(0), "{} {}", said.stdout, said.stderr);
        let system = Running::start(directory.path());
        for request in granted.iter().rev().take(20) {
            let url = format!("{}/v1/zones/{}/audit/by-request/{request}", system.url("api"), tenant.zone);
            let events = http.json(http::Method::GET, &url, &system.admin_token(), None).await.unwrap();
            assert_eq!(events.status, StatusCode::OK, "the evidence of {request} is gone");
        }
        let again = tenant.exchange(&http, &system, &[("scope", "agent:lifecycle")]).await.unwrap();
        assert_eq!(again.status, StatusCode::OK, "it heals when there is space again: {}", again.json());
    }
}

mod config_check {
    use super::*;

    fn check(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, Value) {
        let mut command = caracal();
        command.args(["config", "check", "--json"]).args(arguments).envs(environment.iter().copied());
        let said = run(&mut command);
        (said.code, serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{} {}", said.stdout, said.stderr)))
    }

    fn value<'r>(report: &'r Value, name: &str) -> (&'r str, &'r str) {
        let lines = report["variables"].as_array().unwrap();
        let line = lines.iter().find(|line| line["name"] == name).unwrap_or_else(|| panic!("no {name}"));
        (line["value"].as_str().unwrap(), line["source"].as_str().unwrap())
    }

    #[test]
    fn all_mistakes_are_told_at_once_and_no_secret_is() {
        let (code, report) = check(
            &["--roles", "gateway,web"],
            &[
                ("CARACAL_MODE", "prod"),
                ("TRUST_PROXY", "perhaps"),
                ("DATABASE_URL", "postgres://app:hunter2@db.example/caracal"),
                ("AUDIT_HMAC_KEY", "abc123"),
            ],
        );
        assert_eq!((code, &report["ok"]), (Some(1), &json!(false)));
        let names: Vec<_> = report["mistakes"].as_array().unwrap().iter().map(|said| said["name"].clone()).collect();
        for name in ["CARACAL_MODE", "--roles", "REDIS_URL", "STS_URL", "TRUST_PROXY", "STREAMS_HMAC_KEY"] {
            assert!(names.contains(&json!(name)), "{name} is not among {names:?}");
        }
        assert_eq!(value(&report, "DATABASE_URL"), ("set", "environment"));
        let text = report.to_string();
        assert!(!text.contains("hunter2") && !text.contains("abc123"), "{text}");
    }

    #[test]
    fn what_is_set_is_shown_with_who_set_it() {
        let directory = tempfile::tempdir().unwrap();
        let (key, file) = (directory.path().join("key"), directory.path().join("caracal.env"));
        std::fs::write(&key, "0123456789abcdef".repeat(4)).unwrap();
        std::fs::write(&file, "# limits\nexport SWEEPER_BATCH_SIZE=7\nLOG_LEVEL=\"debug\"\n\n").unwrap();
        let environment = [
            ("CARACAL_ENV_FILE", file.to_str().unwrap()),
            ("AUDIT_HMAC_KEY_FILE", key.to_str().unwrap()),
            ("LOG_LEVEL", "warn"),
        ];
        let (code, report) = check(&[], &environment);
        assert_eq!((code, &report["engine"], &report["mode"]), (Some(0), &json!("embedded"), &json!("dev")));
        assert_eq!(value(&report, "SWEEPER_BATCH_SIZE"), ("7", "environment file"));
        assert_eq!(value(&report, "LOG_LEVEL"), ("warn", "environment"), "a file fills only what is not set");
        assert_eq!(value(&report, "AUDIT_HMAC_KEY"), ("set", "file"));
        assert_eq!(value(&report, "STS_TIMEOUT"), ("5s", "default"));
        assert!(
            run(caracal().args(["config", "check"]).env("HOME", directory.path())).stdout.contains("Nothing is wrong")
        );
        assert!(!directory.path().join(".local").exists(), "looking makes nothing");
    }

    /// Contract, control-cli-deploy.md §7.1: a malformed file is skipped, and one that lies around is never read.
    #[test]
    fn t10_release_a_malformed_file_is_skipped_and_one_that_lies_around_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(".env"), "SWEEPER_BATCH_SIZE=9\n").unwrap();
        let malformed = directory.path().join("malformed.env");
        std::fs::write(&malformed, "SWEEPER_BATCH_SIZE=8\nthis is no setting\n").unwrap();
        let mut command = caracal();
        command.current_dir(directory.path()).args(["config", "check", "--json"]).env("CARACAL_ENV_FILE", &malformed);
        let said = run(&mut command);
        assert!(said.stderr.contains("line 2"), "{}", said.stderr);
        let report: Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!(value(&report, "SWEEPER_BATCH_SIZE"), ("500", "default"));
    }
}
