use super::*;

mod distributed;

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
fn times_need_a_unit_and_a_length_and_a_request_outlasts_its_parts() {
    for (name, value) in
        [("IDLE_TIMEOUT", "30"), ("IDLE_TIMEOUT", "0s"), ("IDLE_TIMEOUT", "-1s"), ("READ_TIMEOUT", "35s")]
    {
        let mistakes = Settings::read(&flags("127.0.0.1"), &Environment::of([(name, value)])).unwrap_err();
        let names: Vec<&str> = mistakes.0.iter().map(|mistake| mistake.name.as_str()).collect();
        assert_eq!(names, [name], "{value}");
    }
}

/// A variable that is documented and read by nobody would be set in vain, and one that is read and not documented would
/// not be found.
#[test]
fn the_operators_table_is_what_is_read() {
    let source = [
        include_str!("mod.rs"),
        include_str!("engine.rs"),
        include_str!("services.rs"),
        include_str!("secrets.rs"),
        include_str!("variables.rs"),
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

#[test]
fn insecure_switches_stop_a_published_start() {
    let environment = Environment::of([("CARACAL_MODE", "stable"), ("INSECURE_HTTP", "true")]);
    assert!(Settings::read(&flags("127.0.0.1"), &environment).is_err());
    let environment = Environment::of([("CARACAL_MODE", "dev"), ("INSECURE_HTTP", "true")]);
    assert!(Settings::read(&flags("127.0.0.1"), &environment).is_ok());
}

mod t05_secrets {
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
