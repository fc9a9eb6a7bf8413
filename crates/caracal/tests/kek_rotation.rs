//! The key-encryption key is replaced, as an operator does it: on one machine, and on servers while everything runs.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use caracal_testkit::{Database, Redis};
use serde_json::Value;
use support::cluster::{Deployment, Through, until};
use support::{Addressed, Http, Running, Said, Tenant, caracal, run, upstream};

const NEW: &str = "9f3a4c1d22e07b58a1c6d4e8f70b39255d1e8a6c47f2903b6ae1d5c8047b92f6";

fn command(environment: &[(&str, &str)], arguments: &[&str]) -> Command {
    let mut command = caracal();
    command.envs(environment.iter().copied()).args(["secrets", "rewrap", "--json"]).args(arguments);
    command
}

fn report(said: &Said) -> Value {
    serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{} {}", said.stdout, said.stderr))
}

/// A governed call, whose credential was sealed.
async fn a_call_succeeds(http: &Http, system: &impl Addressed, tenant: &Tenant, lent: (&str, &str)) {
    let mandate = tenant.mint(http, system, lent).await.unwrap().text("access_token");
    let called = tenant.call(http, system, &mandate).await.unwrap();
    assert_eq!(called.status.as_u16(), 200, "{}", called.json());
}

/// Moves the key file aside, as the book says. Returns where it is now.
fn set_aside(data: &Path) -> String {
    let (file, aside) = (data.join("secrets/secretStoreKek"), data.join("secrets/secretStoreKek.previous"));
    std::fs::rename(file, &aside).unwrap();
    aside.to_str().unwrap().to_owned()
}

mod t05_secrets {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn on_one_machine_a_system_with_both_keys_seals_everything_anew_by_itself() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let (http, at) = (Http::new(), data.to_str().unwrap().to_owned());
        let mut system = Running::start(&data);
        let tenant = Tenant::provision(&http, &system, &upstream().await).await;
        let lent = tenant.delegation(&http, &system).await;
        a_call_succeeds(&http, &system, &tenant, (&lent.0, &lent.1)).await;
        // Beside the running system nothing can be sealed anew, but it can be counted.
        let busy = run(&mut command(&[], &["--data-dir", &at]));
        assert!(busy.code == Some(1) && busy.stderr.contains("in use"), "{} {}", busy.stdout, busy.stderr);
        assert!(system.terminate());
        let previous = set_aside(&data);
        let both = [("SECRET_STORE_KEK_PREVIOUS_FILE", previous.as_str())];
        let refused = support::refused_up(&data, caracal);
        assert!(refused.stderr.contains("SECRET_STORE_KEK_PREVIOUS"), "{}", refused.stderr);
        let mut system = Running::start_with(&data, &both);
        a_call_succeeds(&http, &system, &tenant, (&lent.0, &lent.1)).await;
        until("everything is sealed anew", async || {
            run(&mut command(&both, &["--check", "--data-dir", &at])).code == Some(0)
        })
        .await;
        assert!(system.terminate());
        std::fs::remove_file(previous).unwrap();
        let system = Running::start(&data);
        a_call_succeeds(&http, &system, &tenant, (&lent.0, &lent.1)).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stopped_system_is_sealed_anew_by_the_command() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let (http, at) = (Http::new(), data.to_str().unwrap().to_owned());
        let mut system = Running::start(&data);
        let tenant = Tenant::provision(&http, &system, &upstream().await).await;
        let lent = tenant.delegation(&http, &system).await;
        assert!(system.terminate());
        let previous = set_aside(&data);
        let both = [("SECRET_STORE_KEK_PREVIOUS_FILE", previous.as_str())];
        // Counting makes no key, so there is none.
        let check = run(&mut command(&both, &["--check", "--data-dir", &at]));
        assert!(check.code == Some(1) && check.stderr.contains("there is no key-encryption key"), "{}", check.stderr);
        let done = run(&mut command(&both, &["--data-dir", &at]));
        let told = report(&done);
        assert_eq!((done.code, &told["done"], &told["failed"]), (Some(0), &true.into(), &0.into()), "{told}");
        assert!(told["rewrapped"].as_u64().unwrap() >= 3, "{told}");
        let again = report(&run(&mut command(&both, &["--data-dir", &at])));
        assert_eq!((&again["done"], &again["rewrapped"]), (&true.into(), &0.into()));
        std::fs::remove_file(previous).unwrap();
        let system = Running::start(&data);
        a_call_succeeds(&http, &system, &tenant, (&lent.0, &lent.1)).await;
        let nowhere = directory.path().join("nowhere");
        let nothing = run(&mut command(&[], &["--data-dir", nowhere.to_str().unwrap()]));
        assert_eq!(nothing.code, Some(1));
        assert!(!nowhere.exists(), "it was made by being asked for");
    }

    /// Opened everywhere first, used everywhere second, sealed anew third, the old one gone last: nobody ever meets what it
    /// can't open. In the middle the command is killed.
    #[tokio::test(flavor = "multi_thread")]
    async fn on_servers_everything_is_sealed_anew_while_everything_runs() {
        let (database, redis) = (Database::create().unwrap(), Redis::start().unwrap());
        let mut deployment = Deployment::new(&database.url(), &redis.url());
        let old = deployment.told("SECRET_STORE_KEK").to_owned();
        let roles = "api,sts,gateway,coordinator,audit";
        let (http, upstream) = (Http::new(), upstream().await);
        let first = deployment.serve("first", roles);
        let token = deployment.admin_token.clone();
        let through = |system: &Running| Through::one(system, &token);
        let seen = through(&first);
        let tenant = Tenant::provision(&http, &seen, &upstream).await;
        let lent = tenant.delegation(&http, &seen).await;
        a_call_succeeds(&http, &seen, &tenant, (&lent.0, &lent.1)).await;
        let mut set = |current: &str, previous: &str| {
            deployment.environment.retain(|(name, _)| !name.starts_with("SECRET_STORE_KEK"));
            deployment.environment.push(("SECRET_STORE_KEK".to_owned(), current.to_owned()));
            deployment.environment.push(("SECRET_STORE_KEK_PREVIOUS".to_owned(), previous.to_owned()));
            deployment.environment.clone()
        };
        let opens_both = set(&old, NEW);
        let second = Running::serve(roles, &directory(&first, "second"), &opens_both);
        drop(first);
        let seals_new = set(NEW, &old);
        let third = Running::serve(roles, &directory(&second, "third"), &seals_new);
        let systems = [through(&second), through(&third)];
        let filler = Tenant::provision(&http, &systems[1], &upstream).await;
        let environment: Vec<(&str, &str)> =
            seals_new.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let check = report(&run(&mut command(&environment, &["--check"])));
        assert_eq!((&check["done"], &check["check"]), (&false.into(), &true.into()), "{check}");
        let mut killed = command(&environment, &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        killed.kill().unwrap();
        killed.wait().unwrap();
        for system in &systems {
            a_call_succeeds(&http, system, &tenant, (&lent.0, &lent.1)).await;
        }
        let done = run(&mut command(&environment, &[]));
        assert_eq!((done.code, &report(&done)["done"]), (Some(0), &true.into()), "{} {}", done.stdout, done.stderr);
        for system in &systems {
            a_call_succeeds(&http, system, &tenant, (&lent.0, &lent.1)).await;
            let lent = filler.delegation(&http, system).await;
            a_call_succeeds(&http, system, &filler, (&lent.0, &lent.1)).await;
        }
        drop((second, third));
        let alone: Vec<_> = seals_new.iter().filter(|(name, _)| name != "SECRET_STORE_KEK_PREVIOUS").cloned().collect();
        let fourth = Running::serve(roles, &deployment.place("fourth"), &alone);
        a_call_succeeds(&http, &through(&fourth), &tenant, (&lent.0, &lent.1)).await;
        deployment.verify_ledger();
    }
}

fn directory(beside: &Running, name: &str) -> std::path::PathBuf {
    beside.data_dir.parent().unwrap().join(name)
}
