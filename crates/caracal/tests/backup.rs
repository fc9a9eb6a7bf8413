//! A backup beside a running system, and what is left of the past when it comes back. Read by an outsider: the command
//! line and public routes only.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::path::Path;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use support::{Addressed, Http, Running, Said, Tenant, caracal, refused_up, run, upstream};

/// Ports change from start to start, and with them the issuer unless it is named: then every older mandate would be
/// refused as somebody else's, whatever became of its record.
fn start(data_dir: &Path) -> Running {
    Running::start_with(data_dir, &[("ISSUER_URL", "http://issuer.test")])
}

fn backup(data_dir: &Path, to: &Path, more: &[&str]) -> Said {
    run(caracal().arg("backup").arg("--data-dir").arg(data_dir).arg("--to").arg(to).args(more))
}

fn restore(from: &Path, data_dir: &Path, secrets: &Path, more: &[&str]) -> Said {
    let mut command = caracal();
    command.arg("restore").arg("--from").arg(from).arg("--data-dir").arg(data_dir);
    run(command.arg("--secrets").arg(secrets).args(more))
}

fn verified(data_dir: &Path) {
    let said = run(caracal().args(["audit", "verify", "--data-dir"]).arg(data_dir));
    assert_eq!(said.code, Some(0), "{} {}", said.stdout, said.stderr);
}

fn json_of(said: &Said) -> Value {
    assert_eq!(said.code, Some(0), "{} {}", said.stdout, said.stderr);
    serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{}", said.stdout))
}

mod t17_rollback {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_that_was_used_or_revoked_after_the_backup_comes_back() {
        let place = tempfile::tempdir().unwrap();
        let (data, archive) = (place.path().join("data"), place.path().join("backup.tar"));
        let restored = place.path().join("restored");
        let http = Http::new();
        let mut system = start(&data);
        let tenant = Tenant::provision(&http, &system, &upstream().await).await;
        let (session, edge) = tenant.delegation(&http, &system).await;
        let lifecycle = tenant.exchange(&http, &system, &[("scope", "agent:lifecycle")]).await.unwrap();
        let lifecycle = lifecycle.text("access_token");
        let keyed = started(&http, &system, &tenant, &lifecycle, "key-before").await;
        assert_eq!(keyed.0, StatusCode::CREATED);
        let mint = async || tenant.mint(&http, &system, (&session, &edge)).await.unwrap().text("access_token");
        let [spent_before, spent_after, never_spent] = [mint().await, mint().await, mint().await];
        assert_eq!(tenant.call(&http, &system, &spent_before).await.unwrap().status, StatusCode::OK);

        let made = json_of(&backup(&data, &archive, &["--json"]));
        assert_eq!((&made["sealed"], &made["manifest"]["with_secrets"]), (&json!(true), &json!(false)));

        assert_eq!(tenant.call(&http, &system, &spent_after).await.unwrap().status, StatusCode::OK);
        let minted_after = tenant.mint(&http, &system, (&session, &edge)).await.unwrap().text("access_token");
        assert_eq!(tenant.revoke(&http, &system, &edge).await.unwrap().status, StatusCode::OK);
        assert!(system.terminate());

        let told = json_of(&restore(&archive, &restored, &data.join("secrets"), &["--json"]));
        assert_eq!((&told["vouched_for_by"], &told["has_secrets"]), (&json!("key"), &json!(true)));
        let ended = ["sessions", "delegations"].map(|kind| told["ended"][kind].as_u64().unwrap());
        assert_eq!(ended, [3, 1], "{told}");
        verified(&restored);
        let system = start(&restored);

        for (what, mandate) in [
            ("used before the backup", &spent_before),
            ("used after the backup", &spent_after),
            ("never used", &never_spent),
            ("minted after the backup", &minted_after),
        ] {
            let refused = tenant.call(&http, &system, mandate).await.unwrap();
            assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{what}: {}", refused.json());
        }
        let refused = tenant.mint(&http, &system, (&session, &edge)).await.unwrap();
        assert_ne!(refused.status, StatusCode::OK, "the delegation is in force again");
        let (status, _) = started(&http, &system, &tenant, &lifecycle, "another").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "a lifecycle mandate of the past still starts sessions");

        // What the operator set up is there, and agents start anew.
        let lifecycle = tenant.exchange(&http, &system, &[("scope", "agent:lifecycle")]).await.unwrap();
        let lifecycle = lifecycle.text("access_token");
        let (status, answer) = started(&http, &system, &tenant, &lifecycle, "key-before").await;
        assert_eq!(status, StatusCode::CONFLICT, "a spent key brought its effect about again: {answer}");
        let (session, edge) = tenant.delegation(&http, &system).await;
        let mandate = tenant.mint(&http, &system, (&session, &edge)).await.unwrap().text("access_token");
        assert_eq!(tenant.call(&http, &system, &mandate).await.unwrap().status, StatusCode::OK);
    }

    async fn started(
        http: &Http,
        system: &Running,
        tenant: &Tenant,
        lifecycle: &str,
        key: &str,
    ) -> (StatusCode, Value) {
        let body = json!({"application_id": tenant.application, "labels": ["reader"], "ttl_seconds": 3600});
        let bearer = format!("Bearer {lifecycle}");
        let headers =
            [("authorization", bearer.as_str()), ("content-type", "application/json"), ("idempotency-key", key)];
        let url = format!("{}/zones/{}/agents", system.url("coordinator"), tenant.zone);
        let answer = http.send(Method::POST, &url, &headers, body.to_string()).await.unwrap();
        (answer.status, answer.json())
    }

    #[test]
    fn a_copy_that_was_put_into_a_store_s_place_does_not_start() {
        let place = tempfile::tempdir().unwrap();
        let (data, archive) = (place.path().join("data"), place.path().join("backup.tar"));
        assert!(Running::start(&data).terminate());
        assert_eq!(backup(&data, &archive, &[]).code, Some(0));
        let mut members = tar::Archive::new(std::fs::File::open(&archive).unwrap());
        let mut entries = members.entries().unwrap().map(Result::unwrap);
        let mut store = entries.find(|entry| entry.path_bytes().as_ref() == b"store.db").unwrap();
        store.unpack(data.join("caracal.db")).unwrap();
        let said = refused_up(&data, caracal);
        assert_eq!(said.code, Some(1));
        assert!(said.stderr.contains("caracal restore"), "{}", said.stderr);
    }

    #[test]
    fn a_directory_in_use_is_not_restored_over() {
        let place = tempfile::tempdir().unwrap();
        let (data, archive) = (place.path().join("data"), place.path().join("backup.tar"));
        let mut system = Running::start(&data);
        assert_eq!(backup(&data, &archive, &[]).code, Some(0));
        let said = restore(&archive, &data, &data.join("secrets"), &[]);
        assert!(said.code == Some(1) && said.stderr.contains("is not empty"), "{}", said.stderr);
        assert!(system.terminate());
        verified(&data);
    }
}

#[test]
fn both_say_what_they_did_and_what_is_left_to_do() {
    let place = tempfile::tempdir().unwrap();
    let (data, archive) = (place.path().join("data"), place.path().join("backup.tar"));
    assert!(Running::start(&data).terminate());
    let said = backup(&data, &archive, &[]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    assert!(said.stdout.contains("by the audit key") && said.stdout.contains("not in it"), "{}", said.stdout);
    let said = backup(&data, &archive, &[]);
    assert!(said.code == Some(1) && said.stderr.contains("--force"), "{}", said.stderr);
    let said = backup(&data, &archive, &["--force", "--with-secrets"]);
    assert!(said.code == Some(0) && said.stdout.contains("every secret"), "{}", said.stdout);

    let target = place.path().join("restored");
    let bring_back = |more: &[&str]| {
        let mut command = caracal();
        command.arg("restore").arg("--from").arg(&archive).arg("--data-dir").arg(&target);
        run(command.args(more))
    };
    let said = bring_back(&[]);
    assert!(said.code == Some(1) && said.stderr.contains("--accept-unsealed"), "{}", said.stderr);
    assert!(!target.exists());
    let said = bring_back(&["--accept-unsealed"]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    assert!(said.stdout.contains("nothing but itself") && said.stdout.contains("rotated"), "{}", said.stdout);
    let system = Running::start(&target);
    let token = std::fs::read_to_string(data.join("secrets/caracalAdminToken")).unwrap();
    assert_eq!(system.admin_token(), token.trim(), "the keys came along");
}

#[test]
fn a_database_on_a_server_has_its_own_tools() {
    let place = tempfile::tempdir().unwrap();
    let mut command = caracal();
    command.env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none").args(["backup", "--to"]);
    let said = run(command.arg(place.path().join("backup.tar")));
    assert!(said.code == Some(1) && said.stderr.contains("the server's own tools"), "{}", said.stderr);
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

/// The disk is full: what was there stays, and nothing half is left.
#[cfg(unix)]
#[test]
fn t08_availability_a_full_disk_leaves_nothing_half() {
    let place = tempfile::tempdir().unwrap();
    let (data, out) = (place.path().join("data"), place.path().join("out"));
    assert!(Running::start(&data).terminate());
    std::fs::create_dir(&out).unwrap();
    let on_a_small_disk = |arguments: &[&std::ffi::OsStr]| {
        let mut shell = std::process::Command::new("sh");
        shell.env_clear().env("HOME", "/nonexistent");
        shell.args(["-c", "trap '' XFSZ; ulimit -f 100; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_caracal")]);
        run(shell.args(arguments))
    };
    let archive = out.join("backup.tar");
    let [from, to] = [data.as_os_str(), archive.as_os_str()];
    let said = on_a_small_disk(&["backup".as_ref(), "--data-dir".as_ref(), from, "--to".as_ref(), to]);
    assert_eq!(said.code, Some(1), "{} {}", said.stdout, said.stderr);
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 0, "{}", said.stderr);

    let elsewhere = place.path().join("backup.tar");
    assert_eq!(backup(&data, &elsewhere, &["--with-secrets"]).code, Some(0));
    let target = out.join("restored");
    let [from, to] = [elsewhere.as_os_str(), target.as_os_str()];
    let arguments =
        ["restore".as_ref(), "--accept-unsealed".as_ref(), "--from".as_ref(), from, "--data-dir".as_ref(), to];
    let said = on_a_small_disk(&arguments);
    assert_eq!(said.code, Some(1), "{} {}", said.stdout, said.stderr);
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 0, "{}", said.stderr);
}
