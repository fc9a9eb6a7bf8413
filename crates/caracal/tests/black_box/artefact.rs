//! The program itself, as a file: what anyone who has it could read in it.

use std::path::Path;

/// What has the form of a secret, in a program's bytes, and which of `known` are in it. A private key in PEM has a body behind its
/// first line, and a private JWK a value; the words alone, which a parser looks for, are none.
fn secrets_in(bytes: &[u8], known: &[String]) -> Vec<String> {
    // The rest begin like keys that are given out so that scanners find them.
    const FORMS: [(&str, usize); 8] = [
        ("PRIVATE KEY-----\n", 40),
        ("PRIVATE KEY-----\r\n", 40),
        ("\"d\":\"", 40),
        ("AKIA", 16),
        ("ghp_", 36),
        ("sk_live_", 20),
        ("AIza", 35),
        ("hvs.", 24),
    ];
    let wanted: Vec<&str> = FORMS.iter().map(|(form, _)| *form).chain(known.iter().map(String::as_str)).collect();
    let mut by_first = vec![Vec::new(); 256];
    for (number, text) in wanted.iter().enumerate() {
        by_first[usize::from(text.as_bytes()[0])].push(number);
    }
    let mut found = Vec::new();
    for (at, byte) in bytes.iter().enumerate() {
        for number in &by_first[usize::from(*byte)] {
            let text = wanted[*number];
            let Some(behind) = bytes[at..].strip_prefix(text.as_bytes()) else { continue };
            let is_secret = FORMS.get(*number).is_none_or(|(form, least)| {
                let is_digit = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
                let body: Vec<&u8> = behind.iter().take(*least).take_while(is_digit).collect();
                let stands_alone = form.len() > 8 || at == 0 || !bytes[at - 1].is_ascii_alphanumeric();
                body.len() == *least && stands_alone && body.iter().any(|byte| byte.is_ascii_digit())
            });
            if is_secret {
                found.push(format!("{text:?} at {at}"));
            }
        }
    }
    found
}

/// The parts of a file that its system loads: the rest tells debuggers of the sources, and does not ship.
fn loaded(file: &[u8]) -> Vec<&[u8]> {
    let number = |at: usize, length: usize| {
        file[at..at + length].iter().rev().fold(0_usize, |number, byte| (number << 8) | usize::from(*byte))
    };
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return vec![file];
    }
    let (start, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let headers = (0..count).map(|header| start + header * size).filter(|header| number(*header, 4) == 1);
    headers.map(|header| &file[number(header + 8, 8)..][..number(header + 32, 8)]).collect()
}

/// Every text in quotes of the tests' sources that is long and random enough to be a secret of theirs.
fn secrets_of_tests(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            secrets_of_tests(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let is_hex = |word: &&str| word.len() >= 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
            found.extend(text.split('"').filter(is_hex).map(str::to_owned));
        }
    }
}

#[test]
fn t10_release_the_program_holds_no_key_and_none_of_what_tests_call_secret() {
    let file = std::fs::read(env!("CARGO_BIN_EXE_caracal")).unwrap();
    let mut secrets = Vec::new();
    secrets_of_tests(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"), &mut secrets);
    assert!(secrets.len() >= 2, "{secrets:?}");
    let parts = loaded(&file);
    assert!(parts.iter().map(|part| part.len()).sum::<usize>() > 5_000_000);
    let found = |known: &[String]| parts.iter().flat_map(|part| secrets_in(part, known)).collect::<Vec<_>>();
    assert_eq!(found(&secrets), Vec::<String>::new());
    // A text that every build has is found: these are the parts that hold such things.
    assert_ne!(found(&["evidence is append-only".to_owned()]), Vec::<String>::new());
}

/// The scan is no better than what it finds.
#[test]
fn what_is_put_into_a_program_is_found() {
    let body = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg";
    let planted = [
        format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END"),
        format!("-----BEGIN EC PRIVATE KEY-----\r\n{body}\r\n"),
        format!("{{\"kty\":\"EC\",\"d\":\"{body}\"}}"),
        "\0AKIAIOSFODNN7EXAMPL3\0".to_owned(),
        "of-a-test-0123".to_owned(),
    ];
    for secret in planted {
        let program = [&[0, 159, 146, 150][..], secret.as_bytes(), &[0; 64]].concat();
        assert_eq!(secrets_in(&program, &["of-a-test-0123".to_owned()]).len(), 1, "{secret}");
    }
    for harmless in ["-----BEGIN PRIVATE KEY-----", "\"d\":\"", "xAKIAIOSFODNN7EXAMPL3", "-----END PRIVATE KEY-----\n"]
    {
        assert_eq!(secrets_in(harmless.as_bytes(), &[]), Vec::<String>::new(), "{harmless}");
    }
}
