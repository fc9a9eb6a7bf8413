//! Roles, the shared engine, and what `caracal config check` says of them.

use super::*;

fn serve(roles: &str) -> UpFlags {
    UpFlags { roles: Some(roles.to_owned()), ..flags("127.0.0.1") }
}

/// Everything that any role needs, but for `without`, and with `more`.
fn given(without: &[&str], more: &[(&str, &str)]) -> Environment {
    let all = [
        ("DATABASE_URL", "postgres://u:pa55word@127.0.0.1/d"),
        ("REDIS_URL", "redis://:pa55word@127.0.0.1:6379/"),
        ("ISSUER_URL", "https://sts.example"),
        ("STS_URL", "http://sts:8080"),
        ("SECRET_STORE_KEK", KEY),
        ("AUDIT_HMAC_KEY", KEY),
        ("GATEWAY_STS_HMAC_KEY", KEY),
        ("STREAMS_HMAC_KEY", KEY),
        ("IDEMPOTENCY_HMAC_KEY", KEY),
        ("ADMIN_TOKEN_HMAC_KEY", KEY),
        ("CARACAL_ADMIN_TOKEN", KEY),
        ("CARACAL_COORDINATOR_TOKEN", KEY),
    ];
    let kept = all.iter().filter(|(name, _)| !without.contains(name) && !more.iter().any(|(new, _)| new == name));
    kept.chain(more).copied().collect()
}

fn mistakes(flags: &UpFlags, environment: &Environment) -> Vec<Mistake> {
    Settings::read(flags, environment).err().map(|Mistakes(found)| found).unwrap_or_default()
}

/// The names of what is wrong.
fn wrong(flags: &UpFlags, environment: &Environment) -> Vec<String> {
    mistakes(flags, environment).into_iter().map(|mistake| mistake.name).collect()
}

const STABLE: (&str, &str) = ("CARACAL_MODE", "stable");

#[test]
fn roles_are_names_of_services_in_any_order() {
    let roles = |list: &str| Settings::read(&serve(list), &given(&[], &[])).unwrap().roles;
    assert_eq!(roles("gateway, sts ,,sts"), [Service::Sts, Service::Gateway]);
    assert_eq!(roles("api,coordinator,audit,gateway,sts"), Service::ALL);
    assert_eq!(Settings::read(&flags("127.0.0.1"), &given(&[], &[])).unwrap().roles, Service::ALL);
    for list in ["", " , "] {
        let [mistake] = &mistakes(&serve(list), &given(&[], &[]))[..] else { panic!("{list}") };
        assert!(mistake.what.contains("api, sts, gateway, audit, coordinator"), "{mistake}");
    }
    let [first, second] = &mistakes(&serve("sts,web,STS"), &given(&[], &[]))[..] else { panic!() };
    assert!(first.what.starts_with("`web` is none of api, sts"), "{first}");
    assert!(second.what.starts_with("`STS` is none of"), "{second}");
}

#[test]
fn the_embedded_store_runs_all_roles_or_none() {
    let [mistake] = &mistakes(&serve("sts,gateway"), &Environment::default())[..] else { panic!() };
    assert!(mistake.name == "--roles" && mistake.what.contains("one process"), "{mistake}");
    assert!(mistake.what.contains("DATABASE_URL"), "{mistake}");
    let all = serve("sts,gateway,api,audit,coordinator");
    assert!(matches!(Settings::read(&all, &Environment::default()).unwrap().engine, Engine::Embedded));
    assert!(matches!(Settings::read(&serve("sts"), &given(&[], &[])).unwrap().engine, Engine::Shared(_)));
}

#[test]
fn both_servers_or_none() {
    assert_eq!(wrong(&serve("sts"), &given(&["REDIS_URL"], &[])), ["REDIS_URL"]);
    assert!(wrong(&flags("127.0.0.1"), &given(&["DATABASE_URL"], &[])).contains(&"REDIS_URL".to_owned()));
}

/// On servers no key is made up, and no role asks for one that it has no use for.
#[test]
fn t05_secrets_every_role_asks_for_its_own_keys_and_no_other() {
    let none = [
        "SECRET_STORE_KEK",
        "AUDIT_HMAC_KEY",
        "GATEWAY_STS_HMAC_KEY",
        "STREAMS_HMAC_KEY",
        "IDEMPOTENCY_HMAC_KEY",
        "ADMIN_TOKEN_HMAC_KEY",
        "CARACAL_ADMIN_TOKEN",
        "CARACAL_COORDINATOR_TOKEN",
    ];
    for (role, mut needs) in [
        ("api", vec!["CARACAL_ADMIN_TOKEN", "SECRET_STORE_KEK", "AUDIT_HMAC_KEY", "ADMIN_TOKEN_HMAC_KEY"]),
        ("sts", vec!["SECRET_STORE_KEK", "AUDIT_HMAC_KEY", "GATEWAY_STS_HMAC_KEY"]),
        ("gateway", vec!["AUDIT_HMAC_KEY", "GATEWAY_STS_HMAC_KEY"]),
        ("audit", vec!["AUDIT_HMAC_KEY"]),
        ("coordinator", vec!["CARACAL_COORDINATOR_TOKEN", "AUDIT_HMAC_KEY", "IDEMPOTENCY_HMAC_KEY"]),
    ] {
        needs.push("STREAMS_HMAC_KEY");
        let found = mistakes(&serve(role), &given(&none, &[]));
        let names: Vec<&str> = found.iter().map(|mistake| mistake.name.as_str()).collect();
        assert_eq!(names, needs, "{role}");
        assert!(found.iter().all(|mistake| mistake.what.contains(&format!("{}_FILE", mistake.name))), "{found:?}");
        let others: Vec<&str> = none.into_iter().filter(|name| !needs.contains(name)).collect();
        let settings = Settings::read(&serve(role), &given(&others, &[]));
        assert!(settings.is_ok(), "{role}: {:?}", settings.err());
    }
    assert_eq!(wrong(&flags("127.0.0.1"), &given(&none, &[])).len(), none.len());
}

#[test]
fn a_role_reads_no_variable_of_another() {
    let foreign = [
        ("API_BODY_LIMIT_BYTES", "x"),
        ("READ_TIMEOUT", "1s"),
        ("IDEMPOTENCY_HMAC_KEY", "weak"),
        ("SECRET_STORE_KEK_FILE", "/nowhere"),
        ("GATEWAY_STS_HMAC_KEY_FILE", "/nowhere"),
        ("STS_URL", "nonsense"),
        ("ISSUER_URL", "nonsense"),
    ];
    let environment = given(&["SECRET_STORE_KEK", "GATEWAY_STS_HMAC_KEY"], &foreign);
    assert_eq!(wrong(&serve("audit"), &environment), Vec::<String>::new());
    let gateway = wrong(&serve("gateway"), &environment);
    assert_eq!(gateway, ["STS_URL", "READ_TIMEOUT", "GATEWAY_STS_HMAC_KEY_FILE"]);
}

#[test]
fn all_mistakes_of_settings_and_keys_are_reported_together() {
    let environment = given(
        &["STREAMS_HMAC_KEY"],
        &[
            STABLE,
            ("STS_TIMEOUT", "0s"),
            ("AUDIT_HMAC_KEY", "00ff"),
            ("REDIS_URL", "redis://:pa55word@cache.example:6379"),
        ],
    );
    let found = mistakes(&serve("gateway"), &environment);
    let names: Vec<&str> = found.iter().map(|mistake| mistake.name.as_str()).collect();
    assert_eq!(names, ["REDIS_URL", "STS_TIMEOUT", "STREAMS_HMAC_KEY", "AUDIT_HMAC_KEY"]);
    assert!(!Mistakes(found).to_string().contains("pa55word"));
    // Without DATABASE_URL weak keys are found as early.
    assert_eq!(wrong(&flags("127.0.0.1"), &Environment::of([("AUDIT_HMAC_KEY", "00ff")])), ["AUDIT_HMAC_KEY"]);
}

#[test]
fn t05_secrets_published_modes_speak_in_the_clear_to_neighbours_only() {
    let judged = |name: &str, value: &str, mode: &str| {
        wrong(&serve("gateway"), &given(&[], &[("CARACAL_MODE", mode), (name, value)])).contains(&name.to_owned())
    };
    for (name, near) in [
        ("DATABASE_URL", "postgres://u:p@db/d?sslmode=disable"),
        ("DATABASE_URL", "postgres://u:p@[::1]/d"),
        ("DATABASE_URL", "postgresql://u@%2Fvar%2Frun%2Fpostgresql/d"),
        ("DATABASE_URL", "postgres://u:p@db.example/d"),
        ("DATABASE_URL", "postgres://u:p@db.example/d?sslmode=verify-full"),
        ("REDIS_URL", "redis://redis:6379"),
        ("REDIS_URL", "redis://[::1]:6379/0"),
        ("REDIS_URL", "rediss://u:p@cache.example:6380/1"),
        ("STS_URL", "http://sts:8080"),
        ("STS_URL", "https://sts.example"),
    ] {
        assert!(!judged(name, near, "stable") && !judged(name, near, "dev"), "{near}");
    }
    for (name, far) in [
        ("DATABASE_URL", "postgres://u:p@db.example/d?sslmode=disable"),
        ("DATABASE_URL", "postgres://u:p@10.0.0.5/d?sslmode=disable"),
        ("DATABASE_URL", "postgres://u:p@db,db.example/d?sslmode=disable"),
        ("REDIS_URL", "redis://u:p@cache.example:6379"),
        ("REDIS_URL", "redis://10.0.0.5"),
        ("STS_URL", "http://sts.example"),
    ] {
        assert!(judged(name, far, "stable") && judged(name, far, "rc") && !judged(name, far, "dev"), "{far}");
    }
    for (name, bad) in [
        ("DATABASE_URL", "mysql://u:p@db/d"),
        ("DATABASE_URL", "postgres://u:p@db"),
        ("REDIS_URL", "cache:6379"),
        ("REDIS_URL", "http://cache"),
        ("REDIS_URL", "redis://"),
        ("REDIS_URL", "redis://u:p@:6379"),
        ("REDIS_URL", "redis://cache:port"),
        ("STS_URL", "sts:8080"),
        ("STS_URL", "https://u:p@sts"),
    ] {
        assert!(judged(name, bad, "dev"), "{bad}");
    }
}

#[test]
fn t05_secrets_switches_that_weaken_stop_a_published_start() {
    for name in ["INSECURE_STS", "INSECURE_HTTP", "JTI_FAIL_OPEN"] {
        for value in ["true", "1", "yes", "T", " True "] {
            assert_eq!(wrong(&serve("gateway"), &given(&[], &[STABLE, (name, value)])), [name], "{value}");
        }
        for (mode, value) in [("stable", "false"), ("stable", ""), ("dev", "true")] {
            let environment = given(&[], &[("CARACAL_MODE", mode), (name, value)]);
            assert_eq!(wrong(&serve("gateway"), &environment), Vec::<String>::new(), "{mode} {value}");
        }
    }
}

#[test]
fn a_gateway_asks_the_sts_beside_it_or_the_one_it_is_told() {
    let environment = given(&["STS_URL"], &[]);
    assert_eq!(wrong(&serve("gateway"), &environment), ["STS_URL"]);
    // Whoever holds no key-encryption key has the keys of zones from the STS.
    assert_eq!(wrong(&serve("coordinator,audit"), &environment), ["STS_URL"]);
    assert!(Settings::read(&serve("coordinator,api"), &environment).unwrap().sts_url.is_none());
    assert!(Settings::read(&serve("gateway,sts"), &environment).unwrap().sts_url.is_none());
    assert!(Settings::read(&serve("gateway"), &given(&[], &[])).unwrap().sts_url.is_some());
    assert!(Settings::read(&serve("gateway,sts"), &given(&[], &[])).unwrap().sts_url.is_none());
    assert!(Settings::read(&serve("api"), &environment).is_ok());
}

#[test]
fn only_those_who_name_the_issuer_are_told_it() {
    for (role, needed) in [("api", false), ("sts", true), ("gateway", false), ("audit", false), ("coordinator", true)] {
        let found = wrong(&serve(role), &given(&["ISSUER_URL"], &[]));
        assert_eq!(found == ["ISSUER_URL"], needed, "{role}: {found:?}");
    }
}

#[test]
fn a_process_of_one_role_may_be_told_its_port() {
    let port = |roles: &str, mode: &str, port: &str| {
        Settings::read(&serve(roles), &given(&[], &[("CARACAL_MODE", mode), ("PORT", port)]))
            .map(|settings| settings.roles.iter().map(|role| settings.port(*role)).collect::<Vec<_>>())
            .map_err(|Mistakes(found)| {
                found.into_iter().map(|mistake| mistake.to_string()).collect::<Vec<_>>().join("; ")
            })
    };
    assert_eq!(port("api", "stable", "80"), Ok(vec![80]));
    assert_eq!(port("coordinator", "rc", "4001"), Ok(vec![4001]));
    assert_eq!(port("sts", "dev", "9000"), Ok(vec![9000]));
    for (role, fixed) in [("sts", "8080"), ("gateway", "8081"), ("audit", "9090")] {
        assert_eq!(port(role, "stable", fixed), Ok(vec![fixed.parse().unwrap()]));
        assert!(port(role, "stable", "9000").unwrap_err().contains(&format!("PORT: must be {fixed} for {role}")));
    }
    for bad in ["0", "65536", "http", "-1"] {
        assert!(port("api", "dev", bad).unwrap_err().contains("1 to 65535"), "{bad}");
    }
    assert!(port("api,sts", "dev", "80").unwrap_err().contains("--port-offset"));
    let moved = UpFlags { port_offset: 10, ..serve("api") };
    assert_eq!(wrong(&moved, &given(&[], &[("PORT", "80")])), ["PORT"]);
    // On one person's machine it is another program's.
    let up = Settings::read(&flags("127.0.0.1"), &Environment::of([("PORT", "80")])).unwrap();
    assert_eq!(up.port(Service::Api), 3000);
}

#[test]
fn one_limit_has_two_names_in_the_contract() {
    let tuning = |pairs: &[(&str, &str)]| match Settings::read(&serve("sts"), &given(&[], pairs)) {
        Ok(Settings { engine: Engine::Shared(tuning), .. }) => Ok(tuning),
        Ok(_) => panic!("embedded"),
        Err(Mistakes(found)) => Err(found.into_iter().map(|mistake| mistake.name).collect::<Vec<_>>()),
    };
    let found = tuning(&[("DB_MAX_CONNS", "7"), ("DB_CONNECT_TIMEOUT", "1500ms"), ("DB_MAX_CONN_IDLE", "5m")]).unwrap();
    assert_eq!((found.connections, found.connect_timeout), (7, Duration::from_millis(1500)));
    assert_eq!(found.idle_timeout, Duration::from_secs(300));
    let found =
        tuning(&[("DB_POOL_MAX", "7"), ("DB_CONNECTION_TIMEOUT_MS", "1500"), ("DB_IDLE_TIMEOUT_MS", "9")]).unwrap();
    assert_eq!((found.connections, found.connect_timeout), (7, Duration::from_millis(1500)));
    assert_eq!(found.idle_timeout, Duration::from_millis(9));
    assert!(tuning(&[("DB_POOL_MAX", "7"), ("DB_MAX_CONNS", "7")]).is_ok());
    assert!(tuning(&[("DB_CONNECTION_TIMEOUT_MS", "1500"), ("DB_CONNECT_TIMEOUT", "1500ms")]).is_ok());
    assert_eq!(tuning(&[("DB_POOL_MAX", "7"), ("DB_MAX_CONNS", "8")]).unwrap_err(), ["DB_MAX_CONNS"]);
    assert_eq!(tuning(&[("DB_MAX_CONNS", "x")]).unwrap_err(), ["DB_MAX_CONNS"]);
    assert_eq!(tuning(&[("DB_CONNECT_TIMEOUT", "5")]).unwrap_err(), ["DB_CONNECT_TIMEOUT"]);
}

mod t05_secrets {
    use super::*;

    #[test]
    fn no_password_or_key_is_printed_wherever_settings_are() {
        let bad = [
            ("DATABASE_URL", "postgres://u:pa55word@db.example:x/d"),
            ("REDIS_URL", "redis://u:pa55word@cache:x"),
            ("STS_URL", "https://u:pa55word@sts"),
            ("ISSUER_URL", "https://u:pa55word@issuer"),
            ("UPSTREAM_HOST_ALLOWLIST", "https://u:pa55word@x"),
            ("AUDIT_HMAC_KEY", "0123pa55word"),
        ];
        for environment in [given(&[], &[]), given(&[], &bad), given(&["DATABASE_URL", "REDIS_URL"], &bad[2..])] {
            for flags in [serve("sts,gateway"), flags("127.0.0.1")] {
                let checked = Checked::of(&flags, &environment);
                let said = [
                    format!("{:?}", Settings::read(&flags, &environment)),
                    format!("{checked:?}"),
                    serde_json::to_string(&checked).unwrap(),
                    format!("{environment:?}"),
                ];
                for text in said {
                    assert!(!text.contains("pa55word") && !text.contains(KEY), "{text}");
                }
            }
        }
    }
}

mod check {
    use super::*;

    fn shown(checked: &Checked, name: &str) -> Option<(String, String)> {
        let found = checked.variables.iter().find(|shown| shown.name == name)?;
        Some((found.value.clone(), found.source.clone()))
    }

    fn pair(value: &str, source: &str) -> Option<(String, String)> {
        Some((value.to_owned(), source.to_owned()))
    }

    #[test]
    fn every_variable_is_shown_with_its_source() {
        let directory = tempfile::tempdir().unwrap();
        let key_file = directory.path().join("key");
        std::fs::write(&key_file, KEY).unwrap();
        let env_file = directory.path().join("caracal.env");
        std::fs::write(&env_file, "STS_TIMEOUT=2s\nUPSTREAM_TIMEOUT=1s\n").unwrap();
        let environment = given(
            &["STREAMS_HMAC_KEY"],
            &[
                ("STREAMS_HMAC_KEY_FILE", key_file.to_str().unwrap()),
                ("CARACAL_ENV_FILE", env_file.to_str().unwrap()),
                ("UPSTREAM_TIMEOUT", "3s"),
                ("OUTBOX_LOCK_SEC", "30"),
            ],
        );
        let checked = Checked::of(&serve("gateway"), &environment);
        assert_eq!((checked.ok, checked.engine, checked.mode.as_str()), (true, "postgres", "dev"));
        assert_eq!(checked.roles, ["gateway"]);
        for (name, expected) in [
            ("STREAMS_HMAC_KEY", pair("set", "file")),
            ("STS_TIMEOUT", pair("2s", "environment file")),
            ("UPSTREAM_TIMEOUT", pair("3s", "environment")),
            ("READ_TIMEOUT", pair("45s", "default")),
            ("CARACAL_MODE", pair("dev", "default")),
            ("DATABASE_URL", pair("set", "environment")),
            ("METRICS_BEARER", pair("not set", "default")),
            ("PORT", pair("gateway 8081", "default")),
            ("API_BODY_LIMIT_BYTES", None),
            ("CARACAL_COORDINATOR_TOKEN", None),
        ] {
            assert_eq!(shown(&checked, name), expected, "{name}");
        }
        assert_eq!(checked.notes, ["OUTBOX_LOCK_SEC has no effect: the relay is elected and locks no rows"]);
    }

    #[test]
    fn of_the_embedded_engine_it_shows_what_lies_in_the_data_directory_and_makes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let flags = UpFlags { data_dir: Some(directory.path().to_owned()), ..flags("127.0.0.1") };
        let checked = Checked::of(&flags, &Environment::default());
        assert!(checked.ok && checked.mistakes.is_empty());
        assert_eq!(shown(&checked, "SECRET_STORE_KEK"), pair("not set", "default"));
        assert_eq!(shown(&checked, "ISSUER_URL"), pair("http://127.0.0.1:8080", "default"));
        assert_eq!(shown(&checked, "DB_POOL_MAX"), None, "of no interest without DATABASE_URL");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        SecretFiles::in_data_dir(directory.path()).load_or_create(&Environment::default()).unwrap();
        let checked = Checked::of(&flags, &Environment::default());
        assert_eq!(shown(&checked, "SECRET_STORE_KEK"), pair("set", "data directory"));
        std::fs::write(directory.path().join("secrets/auditHmacKey"), "00ff\n").unwrap();
        let checked = Checked::of(&flags, &Environment::default());
        assert_eq!((checked.ok, checked.mistakes[0].name.as_str()), (false, "AUDIT_HMAC_KEY"));
    }

    #[test]
    fn with_mistakes_it_still_shows_everything() {
        let checked = Checked::of(&serve("sts,nobody"), &given(&["AUDIT_HMAC_KEY"], &[("CARACAL_MODE", "prod")]));
        let names: Vec<&str> = checked.mistakes.iter().map(|mistake| mistake.name.as_str()).collect();
        assert_eq!(names, ["--roles", "CARACAL_MODE", "AUDIT_HMAC_KEY"]);
        assert!(!checked.ok && shown(&checked, "DB_POOL_MAX") == pair("20", "default"));
    }
}
