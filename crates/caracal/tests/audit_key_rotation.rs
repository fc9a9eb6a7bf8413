//! The audit key is replaced, as an operator does it: on one machine, where keys lie in files, and on servers.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use caracal_crypto::hmac::HmacKey;
use caracal_ledger::ChainKey;
use caracal_testkit::{Database, Redis};
use rusqlite::Connection;
use serde_json::{Value, json};
use support::cluster::{Deployment, Through, until};
use support::{Addressed, Http, Running, Said, Tenant, caracal, port_offset, run, upstream};

const NEW: &str = "9f3a4c1d22e07b58a1c6d4e8f70b39255d1e8a6c47f2903b6ae1d5c8047b92f6";

/// The public name of a key.
fn name(hex: &str) -> String {
    ChainKey::id(&HmacKey::from_hex(hex.trim()).unwrap(), 0).unwrap()
}

async fn a_call_succeeds(http: &Http, system: &impl Addressed, tenant: &Tenant) {
    let lent = tenant.delegation(http, system).await;
    let mandate = tenant.mint(http, system, (&lent.0, &lent.1)).await.unwrap().text("access_token");
    let called = tenant.call(http, system, &mandate).await.unwrap();
    assert_eq!(called.status.as_u16(), 200, "{}", called.json());
}

fn verify(data: &Path, environment: &[(&str, &str)]) -> (Said, Value) {
    let mut command = caracal();
    command.envs(environment.iter().copied()).args(["audit", "verify", "--json", "--data-dir"]).arg(data);
    let said = run(&mut command);
    let report = serde_json::from_str(&said.stdout).unwrap_or_default();
    (said, report)
}

/// What is wrong, and in how many places.
fn problems(report: &Value) -> Vec<String> {
    let chains = report["chains"].as_array().unwrap();
    let findings = chains.iter().flat_map(|chain| chain["findings"].as_array().unwrap());
    findings.map(|finding| finding["problem"].as_str().unwrap().to_owned()).collect()
}

/// A copy of a data directory that is not in use, to which `sql` was done past everything that forbids it.
fn tampered(data: &Path, sql: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in ["caracal.db", "heads.log", "secrets/auditHmacKey", "secrets/auditHmacKeyPrevious"] {
        let to = copy.path().join(file);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(data.join(file), to).unwrap();
    }
    let connection = Connection::open(copy.path().join("caracal.db")).unwrap();
    let free = ["audit_events_are_not_changed", "admin_audit_events_are_not_changed"]
        .map(|trigger| format!("DROP TRIGGER IF EXISTS {trigger};"))
        .concat();
    connection.execute_batch(&format!("{free} {sql}")).unwrap();
    copy
}

/// The ids of the keys that rows of both chains name, in the order of their use, with one of a row of each.
fn key_ids(data: &Path, table: &str) -> Vec<(Option<String>, String)> {
    let connection = Connection::open(data.join("caracal.db")).unwrap();
    let sql = format!("SELECT key_id, max(id) FROM {table} GROUP BY key_id ORDER BY min(rowid)");
    let mut statement = connection.prepare(&sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

/// Starts, and is killed as soon as the first of the files is the new key's.
fn killed_while_it_renews(data: &Path, new: &str) {
    let mut up = caracal();
    up.args(["up", "--json", "--port-offset", &port_offset().to_string(), "--data-dir"]).arg(data);
    let mut child = up.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !std::fs::read_to_string(data.join("heads.log")).unwrap().contains(new) {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

fn refused(mut command: Command) -> String {
    let said = run(&mut command);
    assert_ne!(said.code, Some(0), "{}", said.stdout);
    said.stderr
}

mod t06_evidence_key_rotation {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn on_one_machine_the_ledger_goes_on_under_the_new_key_and_verifies_under_both() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let secret = |file: &str| data.join("secrets").join(file);
        let http = Http::new();
        let mut system = Running::start(&data);
        let tenant = Tenant::provision(&http, &system, &upstream().await).await;
        a_call_succeeds(&http, &system, &tenant).await;
        let archive: PathBuf = directory.path().join("before.tar");
        let made = run(caracal().args(["backup", "--data-dir"]).arg(&data).arg("--to").arg(&archive));
        assert_eq!(made.code, Some(0), "{}", made.stderr);
        assert!(system.terminate());
        let old = std::fs::read_to_string(secret("auditHmacKey")).unwrap();

        // The key alone is replaced: that is refused, says why, and leaves everything as it was.
        std::fs::remove_file(secret("auditHmacKey")).unwrap();
        let heads = std::fs::read(data.join("heads.log")).unwrap();
        let refused = support::refused_up(&data, caracal).stderr;
        assert!(refused.contains("AUDIT_HMAC_KEY_PREVIOUS") && refused.contains(&name(&old)), "{refused}");
        assert_eq!(std::fs::read(data.join("heads.log")).unwrap(), heads);
        let new = std::fs::read_to_string(secret("auditHmacKey")).unwrap();
        assert_eq!(verify(&data, &[("AUDIT_HMAC_KEY", old.trim())]).0.code, Some(0));
        let (said, _) = verify(&data, &[]);
        assert!(said.code == Some(1) && said.stderr.contains("not at hand"), "{} {}", said.stdout, said.stderr);

        // With the old one beside it the ledger goes on, wherever the first start is cut off.
        std::fs::write(secret("auditHmacKeyPrevious"), &old).unwrap();
        killed_while_it_renews(&data, &name(&new));
        let mut system = Running::start(&data);
        a_call_succeeds(&http, &system, &tenant).await;
        let (said, report) = verify(&data, &[]);
        assert!(said.code == Some(0) && report["intact"] == true, "{} {}", said.stdout, said.stderr);
        assert!(system.terminate());
        let rows = ["audit_events", "admin_audit_events"].map(|table| key_ids(&data, table));
        for named in &rows {
            let ids: Vec<_> = named.iter().map(|(id, _)| id.clone()).collect();
            assert_eq!(ids, [Some(name(&old)), Some(name(&new))]);
        }

        // Without the old key it can't be verified, which is not what is said of what was altered.
        let alone = tampered(&data, "");
        std::fs::remove_file(alone.path().join("secrets/auditHmacKeyPrevious")).unwrap();
        let (said, report) = verify(alone.path(), &[]);
        assert_eq!(said.code, Some(1));
        assert!(problems(&report).iter().all(|problem| problem == "unknown_key"), "{report}");
        assert_eq!(report["first_broken"]["key_id"], name(&old), "{report}");
        for [(_, of_old), (_, of_new)] in
            [rows[0][..].try_into().unwrap(), rows[1][..].try_into().unwrap()] as [&[(Option<String>, String); 2]; 2]
        {
            for id in [of_old, of_new] {
                let sql = ["audit_events", "admin_audit_events"]
                    .map(|table| format!("UPDATE {table} SET request_id = 'other' WHERE id = '{id}';"))
                    .concat();
                let (said, report) = verify(tampered(&data, &sql).path(), &[]);
                assert_eq!(said.code, Some(1));
                assert!(problems(&report).contains(&"content_mismatch".to_owned()), "{report}");
            }
        }

        // Whoever has the old key makes nothing today.
        let connection = Connection::open(data.join("caracal.db")).unwrap();
        let last = "SELECT id, content_sha256, prev_content_sha256 FROM audit_events ORDER BY rowid DESC LIMIT 1";
        let (id, content, prev): (String, String, String) =
            connection.query_row(last, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        let seal = HmacKey::from_hex(old.trim()).unwrap().sign_hex(&[content.as_bytes(), b"|", prev.as_bytes()]);
        let forged =
            format!("UPDATE audit_events SET chain_hmac = '{seal}', key_id = '{}' WHERE id = '{id}'", name(&old));
        let (said, report) = verify(tampered(&data, &forged).path(), &[]);
        assert!(said.code == Some(1) && report["first_broken"]["problem"] == "replaced_key", "{report}");
        std::fs::write(secret("auditHmacKey"), &old).unwrap();
        std::fs::write(secret("auditHmacKeyPrevious"), &new).unwrap();
        let heads = std::fs::read(data.join("heads.log")).unwrap();
        let refused = support::refused_up(&data, caracal).stderr;
        assert_eq!(std::fs::read(data.join("heads.log")).unwrap(), heads);
        assert!(refused.contains("was replaced") && refused.contains(&name(&new)), "{refused}");

        // A backup of before comes back under the key of before, and goes on under the new one.
        std::fs::write(secret("auditHmacKey"), &new).unwrap();
        std::fs::write(secret("auditHmacKeyPrevious"), &old).unwrap();
        let restored = directory.path().join("restored");
        let mut restore = caracal();
        restore.args(["restore", "--from"]).arg(&archive).arg("--data-dir").arg(&restored);
        let said = run(restore.arg("--secrets").arg(data.join("secrets")));
        assert_eq!(said.code, Some(0), "{} {}", said.stdout, said.stderr);
        let mut system = Running::start(&restored);
        assert!(system.terminate());
        assert_eq!(verify(&restored, &[]).0.code, Some(0));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn on_servers_nobody_goes_on_under_the_old_key_once_the_new_one_is_in_use() {
        let (database, redis) = (Database::create().unwrap(), Redis::start().unwrap());
        let mut deployment = Deployment::new(&database.url(), &redis.url());
        let old = deployment.told("AUDIT_HMAC_KEY").to_owned();
        let roles = "api,sts,gateway,coordinator,audit";
        let (http, upstream) = (Http::new(), upstream().await);
        let first = deployment.serve("first", roles);
        let token = deployment.admin_token.clone();
        let through = |system: &Running| Through::one(system, &token);
        let tenant = Tenant::provision(&http, &through(&first), &upstream).await;
        a_call_succeeds(&http, &through(&first), &tenant).await;

        deployment.environment.retain(|(name, _)| name != "AUDIT_HMAC_KEY");
        deployment.environment.push(("AUDIT_HMAC_KEY".to_owned(), NEW.to_owned()));
        let mut without = caracal();
        without.envs(deployment.environment.iter().map(|(name, value)| (name, value)));
        without.args(["serve", "--roles", roles, "--port-offset", &port_offset().to_string(), "--data-dir"]);
        without.arg(deployment.place("without"));
        let said = refused(without);
        assert!(said.contains("AUDIT_HMAC_KEY_PREVIOUS") && said.contains(&name(&old)), "{said}");

        deployment.environment.push(("AUDIT_HMAC_KEY_PREVIOUS".to_owned(), old.clone()));
        let second = deployment.serve("second", roles);
        a_call_succeeds(&http, &through(&second), &tenant).await;
        // Nobody stopped the first one. It is refused what it would have to seal, and nothing of it is done.
        let renamed = |system: &Running| {
            let url = format!("{}/v1/zones/{}", system.url("api"), tenant.zone);
            let (http, token) = (&http, &token);
            async move { http.json(http::Method::PATCH, &url, token, Some(json!({"name": "renamed"}))).await.unwrap() }
        };
        let admitted = renamed(&second).await;
        assert_eq!(admitted.status.as_u16(), 200, "{}", admitted.json());
        let late = renamed(&first).await;
        assert_eq!(late.status.as_u16(), 503, "{}", late.json());
        let ids = database.run("SELECT DISTINCT key_id FROM audit_events ORDER BY 1").unwrap();
        let mut expected = [name(&old), name(NEW)];
        expected.sort();
        assert_eq!(ids.lines().collect::<Vec<_>>(), expected);
        drop(first);
        deployment.verify_ledger();
        until("the sweep found it in order", async || {
            let url = format!("{}/ready", second.url("audit"));
            http.json(http::Method::GET, &url, "", None).await.is_some_and(|answer| answer.status.as_u16() == 200)
        })
        .await;
    }
}
