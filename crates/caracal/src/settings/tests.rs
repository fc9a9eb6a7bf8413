use super::*;

fn flags(bind: &str) -> UpFlags {
    UpFlags { data_dir: Some(PathBuf::from("/nowhere")), bind: bind.parse().unwrap(), port_offset: 0 }
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
