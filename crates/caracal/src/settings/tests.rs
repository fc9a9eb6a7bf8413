use super::*;

mod backends;
mod distributed;
mod export;

fn flags(bind: &str) -> UpFlags {
    UpFlags { data_dir: Some(PathBuf::from("/nowhere")), bind: bind.parse().unwrap(), port_offset: 0, roles: None }
}

#[test]
fn loopback_is_dev_and_anything_reachable_is_stable() {
    let none = Environment::default();
    assert_eq!(Settings::read(&flags("127.0.0.1"), &none).unwrap().mode, Mode::Dev);
    assert_eq!(Settings::read(&flags("::1"), &none).unwrap().mode, Mode::Dev);
    assert_eq!(Settings::read(&flags("0.0.0.0"), &none).unwrap().mode, Mode::Stable);
    let rc = Environment::of([("CARACAL_MODE", " RC ")]);
    assert_eq!(Settings::read(&flags("127.0.0.1"), &rc).unwrap().mode, Mode::Rc);
}

#[test]
fn every_mistake_is_reported_at_once() {
    let environment = Environment::of([
        ("CARACAL_MODE", "prod"),
        ("ISSUER_URL", "https://user@issuer/?x=1"),
        ("TRUST_PROXY", "perhaps"),
        ("STS_SECRET_VERIFY_CONCURRENCY", "0"),
    ]);
    let mistakes = Settings::read(&UpFlags { port_offset: 60_000, ..flags("127.0.0.1") }, &environment).unwrap_err();
    let names: Vec<&str> = mistakes.0.iter().map(|mistake| mistake.name.as_str()).collect();
    assert_eq!(names, ["CARACAL_MODE", "ISSUER_URL", "TRUST_PROXY", "STS_SECRET_VERIFY_CONCURRENCY", "--port-offset"]);
}

#[test]
fn limits_and_times_of_every_service_are_read() {
    let environment = Environment::of([
        ("ADMIN_AUTH_FAIL_LIMIT_PER_MIN", "0"),
        ("REQUEST_TIMEOUT_MS", "1500"),
        ("SWEEPER_BATCH_SIZE", "7"),
        ("UPSTREAM_TIMEOUT", "1m30s"),
        ("STS_TIMEOUT", "500ms"),
        ("READ_TIMEOUT", "2m"),
    ]);
    let settings = Settings::read(&flags("127.0.0.1"), &environment).unwrap();
    assert_eq!(settings.api.auth_failures_per_minute, 0);
    assert_eq!(settings.body_deadline, Duration::from_millis(1_500));
    assert_eq!(settings.coordinator.sweep_batch, 7);
    assert_eq!(settings.gateway.upstream_timeout, Duration::from_secs(90));
    assert_eq!(settings.gateway.sts_timeout, Duration::from_millis(500));
}

#[test]
fn a_certificate_comes_with_its_key_and_operators_with_an_address() {
    let read = |given: &[(&str, &str)]| Settings::read(&flags("127.0.0.1"), &given.iter().copied().collect());
    let wrong = |given: &[(&str, &str)]| -> Vec<String> {
        read(given).unwrap_err().0.into_iter().map(|mistake| mistake.name).collect()
    };
    let gateway = read(&[]).unwrap().gateway;
    assert_eq!((gateway.tls, gateway.cleartext_http2, gateway.operator_address), (None, false, None));
    let both = [("TLS_CERT_FILE", "/c.pem"), ("TLS_KEY_FILE", "/k.pem"), ("GATEWAY_OPERATOR_ADDRESS", "[::1]:9081")];
    let gateway = read(&both).unwrap().gateway;
    let files = TlsFiles { certificate: "/c.pem".into(), key: "/k.pem".into() };
    assert_eq!((gateway.tls, gateway.operator_address), (Some(files), "[::1]:9081".parse().ok()));
    assert_eq!(wrong(&[("TLS_CERT_FILE", "/c.pem")]), ["TLS_KEY_FILE"]);
    assert_eq!(wrong(&[("TLS_KEY_FILE", "/k.pem")]), ["TLS_CERT_FILE"]);
    for none in ["9081", "localhost:9081", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999"] {
        assert_eq!(wrong(&[("GATEWAY_OPERATOR_ADDRESS", none)]), ["GATEWAY_OPERATOR_ADDRESS"], "{none}");
    }
}

#[test]
fn times_need_a_unit_and_a_length_and_a_request_outlasts_its_parts() {
    for (name, value) in
        [("IDLE_TIMEOUT", "30"), ("IDLE_TIMEOUT", "0s"), ("IDLE_TIMEOUT", "-1s"), ("READ_TIMEOUT", "35s")]
    {
        let mistakes = Settings::read(&flags("127.0.0.1"), &Environment::of([(name, value)])).unwrap_err();
        let names: Vec<&str> = mistakes.0.iter().map(|mistake| mistake.name.as_str()).collect();
        assert_eq!(names, [name], "{value}");
    }
}

#[test]
fn a_clock_is_put_wrong_in_development_only() {
    let read = |mode, offset| {
        let environment = Environment::of([("CARACAL_MODE", mode), ("CARACAL_DEV_CLOCK_OFFSET_MS", offset)]);
        Settings::read(&flags("127.0.0.1"), &environment).map(|settings| settings.clock_offset_ms).map_err(|mistakes| {
            let names: Vec<_> = mistakes.0.into_iter().map(|mistake| mistake.name).collect();
            names.join(",")
        })
    };
    assert_eq!((read("dev", "-60000"), read("dev", "60000")), (Ok(-60_000), Ok(60_000)));
    let refused = || Err("CARACAL_DEV_CLOCK_OFFSET_MS".to_owned());
    for (mode, offset) in [("rc", "1"), ("stable", "-60000"), ("stable", "0"), ("dev", "1s"), ("dev", "86400001")] {
        assert_eq!(read(mode, offset), refused(), "{mode} {offset}");
    }
}

#[test]
fn a_token_that_can_be_guessed_is_refused() {
    let read = |token| Settings::read(&flags("127.0.0.1"), &Environment::of([("STS_ADMIN_TOKEN", token)]));
    let mistakes = read("letmein").unwrap_err();
    assert_eq!(mistakes.0[0].name, "STS_ADMIN_TOKEN");
    assert!(!mistakes.to_string().contains("letmein"));
    assert!(read(KEY).is_ok());
}

/// A variable that is documented and read by nobody would be set in vain, and one that is read and not documented would
/// not be found.
#[test]
fn the_operators_table_is_what_is_read() {
    let source = [
        include_str!("mod.rs"),
        include_str!("services.rs"),
        include_str!("secrets.rs"),
        include_str!("variables.rs"),
        include_str!("engine.rs"),
        include_str!("environment.rs"),
        include_str!("backend.rs"),
        include_str!("clouds.rs"),
        include_str!("logs.rs"),
        include_str!("audit.rs"),
        include_str!("export.rs"),
    ];
    for variable in VARIABLES {
        let read = source.concat().matches(&format!("\"{}\"", variable.name)).count();
        assert!(read > 1, "{} is documented and not read", variable.name);
    }
}

/// The defaults that the table names are those that hold.
#[test]
fn an_environment_of_the_documented_defaults_changes_nothing() {
    let literal =
        VARIABLES.iter().filter(|variable| variable.default.starts_with(|first: char| first.is_ascii_digit()));
    let pairs: Vec<(&str, &str)> = literal.map(|variable| (variable.name, variable.default)).collect();
    assert!(pairs.len() > 20);
    let said = Settings::read(&flags("127.0.0.1"), &Environment::from_iter(pairs)).unwrap();
    let unsaid = Settings::read(&flags("127.0.0.1"), &Environment::default()).unwrap();
    assert_eq!(format!("{said:?}"), format!("{unsaid:?}"));
}

const KEY: &str = "9d3c5e0f7a1b2c4d6e8fa0b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f5";

/// What a process on servers is given at least.
const SERVERS: [(&str, &str); 11] = [
    ("DATABASE_URL", "postgres://app:hunter2@127.0.0.1/caracal"),
    ("REDIS_URL", "redis://:hunter2@127.0.0.1/"),
    ("ISSUER_URL", "https://sts.example"),
    ("SECRET_STORE_KEK", KEY),
    ("AUDIT_HMAC_KEY", KEY),
    ("GATEWAY_STS_HMAC_KEY", KEY),
    ("STREAMS_HMAC_KEY", KEY),
    ("IDEMPOTENCY_HMAC_KEY", KEY),
    ("ADMIN_TOKEN_HMAC_KEY", KEY),
    ("CARACAL_ADMIN_TOKEN", KEY),
    ("CARACAL_COORDINATOR_TOKEN", KEY),
];

fn on_servers(roles: &str, more: &[(&str, &str)]) -> Result<Settings, Vec<String>> {
    let environment: Environment = SERVERS.iter().chain(more).copied().collect();
    let flags = UpFlags { roles: Some(roles.to_owned()), ..flags("127.0.0.1") };
    Settings::read(&flags, &environment).map_err(|mistakes| {
        assert!(!mistakes.to_string().contains("hunter2"), "{mistakes}");
        mistakes.0.into_iter().map(|mistake| mistake.name).collect()
    })
}

#[test]
fn roles_are_those_that_are_named() {
    let settings = on_servers("gateway, sts,sts", &[]).unwrap();
    assert_eq!(settings.roles, [Service::Sts, Service::Gateway]);
    assert!(settings.runs(Service::Sts) && !settings.runs(Service::Api));
    assert_eq!(on_servers("gateway,web", &[]).map(|_| ()).unwrap_err(), ["--roles", "STS_URL"]);
    assert_eq!(on_servers(" , ", &[]).map(|_| ()).unwrap_err(), ["--roles"]);
    assert_eq!(Settings::read(&flags("127.0.0.1"), &Environment::default()).unwrap().roles, Service::ALL);
}

#[test]
fn the_embedded_store_is_not_split() {
    let some = UpFlags { roles: Some("sts".to_owned()), ..flags("127.0.0.1") };
    let mistakes = Settings::read(&some, &Environment::default()).unwrap_err();
    assert!(mistakes.to_string().contains("DATABASE_URL"), "{mistakes}");
    let all = UpFlags { roles: Some("api,sts,gateway,audit,coordinator".to_owned()), ..flags("127.0.0.1") };
    assert!(Settings::read(&all, &Environment::default()).is_ok());
}

#[test]
fn t05_secrets_servers_come_together_and_with_an_issuer() {
    let without = |name: &str| {
        let environment: Environment = SERVERS.iter().filter(|(known, _)| *known != name).copied().collect();
        let mistakes = Settings::read(&flags("127.0.0.1"), &environment).unwrap_err().0;
        mistakes.into_iter().map(|mistake| mistake.name).collect::<Vec<_>>()
    };
    assert_eq!(without("DATABASE_URL"), ["REDIS_URL"]);
    assert_eq!(without("REDIS_URL"), ["REDIS_URL"]);
    assert_eq!(without("ISSUER_URL"), ["ISSUER_URL"]);
    assert_eq!(
        on_servers("sts", &[("DATABASE_URL", "mysql://u:hunter2@h/d")]).map(|_| ()).unwrap_err(),
        ["DATABASE_URL"]
    );
    assert_eq!(on_servers("sts", &[("REDIS_URL", "http://:hunter2@h")]).map(|_| ()).unwrap_err(), ["REDIS_URL"]);
}

#[test]
fn a_gateway_alone_is_told_where_an_sts_is_and_reaches_it_safely() {
    assert_eq!(on_servers("gateway", &[]).map(|_| ()).unwrap_err(), ["STS_URL"]);
    assert_eq!(on_servers("gateway", &[("STS_URL", "sts")]).map(|_| ()).unwrap_err(), ["STS_URL"]);
    for (url, mode, accepted) in [
        ("http://sts.example", "dev", true),
        ("http://sts.example", "stable", false),
        ("https://sts.example", "stable", true),
        ("http://sts:8080", "stable", true),
        ("http://127.0.0.1:8080", "rc", true),
        ("http://10.0.0.1:8080", "rc", false),
    ] {
        let read = on_servers("gateway", &[("STS_URL", url), ("CARACAL_MODE", mode)]);
        assert_eq!(read.is_ok(), accepted, "{url} {mode}");
    }
    assert_eq!(on_servers("gateway,sts", &[("STS_URL", "http://sts.example")]).unwrap().sts_url.map(drop), None);
}

#[test]
fn insecure_switches_stop_a_published_start() {
    let environment = Environment::of([("CARACAL_MODE", "stable"), ("INSECURE_HTTP", "true")]);
    assert!(Settings::read(&flags("127.0.0.1"), &environment).is_err());
    let environment = Environment::of([("CARACAL_MODE", "dev"), ("INSECURE_HTTP", "true")]);
    assert!(Settings::read(&flags("127.0.0.1"), &environment).is_ok());
}

mod t05_secrets {
    use caracal_crypto::hmac::{HmacKey, HmacRing};

    use super::*;

    #[test]
    fn first_start_makes_owner_only_keys_and_later_starts_keep_them() {
        let directory = tempfile::tempdir().unwrap();
        let files = SecretFiles::in_data_dir(directory.path());
        let first = files.load_or_create(&Environment::default()).unwrap();
        let second = files.load_or_create(&Environment::default()).unwrap();
        assert_eq!(first.admin_token.expose(), second.admin_token.expose());
        assert_eq!(first.kek.current_id(), second.kek.current_id());
        #[cfg(unix)]
        for entry in std::fs::read_dir(directory.path().join("secrets")).unwrap() {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn the_admin_token_is_said_to_lie_where_it_was_read() {
        let directory = tempfile::tempdir().unwrap();
        let files = SecretFiles::in_data_dir(directory.path());
        let named = directory.path().join("token");
        std::fs::write(&named, "cat_elsewhere\n").unwrap();
        let file =
            |pairs: &[(&str, &str)]| files.load_or_create(&pairs.iter().copied().collect()).unwrap().admin_token_file;
        assert_eq!(file(&[]), Some(files.path("caracalAdminToken")));
        let from_file = ("CARACAL_ADMIN_TOKEN_FILE", named.to_str().unwrap());
        assert_eq!(file(&[from_file]), Some(named.clone()));
        assert_eq!(file(&[from_file, ("CARACAL_ADMIN_TOKEN", "cat_given")]), None);
    }

    #[test]
    fn weak_keys_stop_the_start_and_no_message_holds_one() {
        let directory = tempfile::tempdir().unwrap();
        let files = SecretFiles::in_data_dir(directory.path());
        let weak = "ab".repeat(32);
        let short = "0123456789abcdef";
        let environment = Environment::of([("SECRET_STORE_KEK", weak.as_str()), ("AUDIT_HMAC_KEY", short)]);
        let error = files.load_or_create(&environment).err().unwrap().to_string();
        assert!(error.contains("SECRET_STORE_KEK") && error.contains("AUDIT_HMAC_KEY"), "{error}");
        assert!(!error.contains(&weak) && !error.contains(short), "{error}");
    }

    /// In a variable or a file, and beside the audit key that was made.
    #[test]
    fn the_audit_keys_before_rotations_are_a_list_and_none_is_there_twice() {
        let directory = tempfile::tempdir().unwrap();
        let files = SecretFiles::in_data_dir(directory.path());
        let [new, middle, old] =
            ["0123456789abcdef", "fedcba9876543210", "00112233445566ff"].map(|text| text.repeat(4));
        let signed = |text: &str| HmacKey::from_hex(text).unwrap().sign(&[b"x"]);
        let ring = |previous: &str| {
            let environment =
                Environment::of([("AUDIT_HMAC_KEY", new.as_str()), ("AUDIT_HMAC_KEY_PREVIOUS", previous)]);
            files.load_or_create(&environment).map(|keys| keys.audit)
        };
        let both = format!("{middle}, {old}");
        let expected = [&new, &middle, &old].map(|text| Some(signed(text)));
        let ages = |ring: &HmacRing| [0, 1, 2].map(|age| ring.at(age).map(|key| key.sign(&[b"x"])));
        assert_eq!(ages(&ring(&both).unwrap()), expected);
        assert!(
            files.load_audit_key(&Environment::of([("AUDIT_HMAC_KEY_PREVIOUS", both.as_str())])).unwrap().is_none()
        );
        for wrong in [format!("{middle},{new}"), format!("{old},{middle},{old}"), format!("{middle},00ff")] {
            let error = ring(&wrong).err().unwrap().to_string();
            assert!(error.contains("AUDIT_HMAC_KEY_PREVIOUS") && !error.contains(&middle), "{error}");
        }
        std::fs::write(files.path("auditHmacKey"), &new).unwrap();
        std::fs::write(files.path("auditHmacKeyPrevious"), format!("{middle}\n{old}\n")).unwrap();
        let none = Environment::default();
        assert_eq!(ages(&files.load_or_create(&none).unwrap().audit), expected);
        assert_eq!(ages(&files.load_audit_key(&none).unwrap().unwrap()), expected);
        assert!(files.present().iter().any(|(name, _)| *name == "AUDIT_HMAC_KEY_PREVIOUS"));
        // What is given comes before what lies there.
        let given =
            files.load_audit_key(&Environment::of([("AUDIT_HMAC_KEY_PREVIOUS", old.as_str())])).unwrap().unwrap();
        assert_eq!(ages(&given)[1..], [Some(signed(&old)), None]);
    }

    /// Replicas that made keys of their own would not understand each other.
    #[test]
    fn on_servers_every_key_that_a_role_uses_has_to_be_given() {
        let missing = |roles: &[Service], given: &[(&str, &str)]| {
            let environment: Environment = given.iter().copied().collect();
            match SecretFiles::load_given(&environment, roles) {
                Ok(_) => Vec::new(),
                Err(SecretsError::Unusable(mistakes)) => mistakes.0.into_iter().map(|mistake| mistake.name).collect(),
                Err(other) => panic!("{other}"),
            }
        };
        assert_eq!(missing(&Service::ALL, &[]).len(), NAMES_OF_KEYS.len());
        assert_eq!(missing(&[Service::Audit], &[]), ["AUDIT_HMAC_KEY", "STREAMS_HMAC_KEY"]);
        assert_eq!(
            missing(&[Service::Sts], &[]),
            ["SECRET_STORE_KEK", "AUDIT_HMAC_KEY", "GATEWAY_STS_HMAC_KEY", "STREAMS_HMAC_KEY"]
        );
        let key = "0123456789abcdef".repeat(4);
        let given = [("AUDIT_HMAC_KEY", key.as_str()), ("STREAMS_HMAC_KEY", key.as_str())];
        assert!(missing(&[Service::Audit], &given).is_empty());
    }

    const NAMES_OF_KEYS: [&str; 8] = [
        "CARACAL_ADMIN_TOKEN",
        "CARACAL_COORDINATOR_TOKEN",
        "SECRET_STORE_KEK",
        "AUDIT_HMAC_KEY",
        "GATEWAY_STS_HMAC_KEY",
        "IDEMPOTENCY_HMAC_KEY",
        "ADMIN_TOKEN_HMAC_KEY",
        "STREAMS_HMAC_KEY",
    ];

    #[test]
    fn an_empty_or_unreadable_key_file_stops_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let files = SecretFiles::in_data_dir(directory.path());
        std::fs::create_dir(directory.path().join("secrets")).unwrap();
        std::fs::write(files.path("auditHmacKey"), "\n").unwrap();
        assert!(matches!(files.load_or_create(&Environment::default()), Err(SecretsError::File { .. })));
        let missing = Environment::of([("AUDIT_HMAC_KEY_FILE", "/nowhere/key")]);
        assert!(matches!(files.load_or_create(&missing), Err(SecretsError::Unusable(_))));
    }
}
