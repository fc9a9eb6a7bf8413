//! The heads file: what survives, what is refused, and what it takes to change it unseen.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caracal_authority::ZoneId;
use caracal_ledger::heads::FILE_NAME;
use caracal_ledger::{Chain, ChainKey, Head, HeadsError, HeadsFile, read_heads};
use ring::hmac;
use tempfile::TempDir;

fn key() -> Arc<dyn ChainKey> {
    Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]))
}

fn evidence(zone: &str) -> Chain {
    Chain::Evidence(ZoneId::parse(zone).unwrap())
}

fn admin(zone: &str) -> Chain {
    Chain::Admin(Some(ZoneId::parse(zone).unwrap()))
}

fn head(seq: i64) -> Head {
    Head { chain_seq: seq, content_sha256: format!("{seq:064x}") }
}

/// A directory with a heads file to which `groups` were recorded.
fn recorded(groups: &[&[(Chain, Head)]]) -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let mut heads = HeadsFile::open(dir.path(), key()).unwrap();
    for group in groups {
        heads.record(group).unwrap();
    }
    let path = dir.path().join(FILE_NAME);
    (dir, path)
}

fn read(dir: &Path) -> Vec<(Chain, i64)> {
    let heads = read_heads(dir, key().as_ref()).unwrap().unwrap();
    heads.into_iter().map(|(chain, head)| (chain, head.chain_seq)).collect()
}

fn bad_line(result: Result<impl Sized, HeadsError>) -> usize {
    match result {
        Err(HeadsError::BadLine { line, .. } | HeadsError::UnknownKey { line, .. }) => line,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a changed file was accepted"),
    }
}

#[test]
fn the_newest_head_of_each_chain_comes_back() {
    let (dir, path) = recorded(&[
        &[(evidence("a"), head(1)), (evidence("b"), head(1)), (admin("a"), head(1)), (Chain::Admin(None), head(1))],
        &[(evidence("a"), head(5)), (evidence("-"), head(2)), (admin("-"), head(3))],
        &[(Chain::Admin(None), head(4))],
    ]);
    let expected = vec![
        (evidence("-"), 2),
        (evidence("a"), 5),
        (evidence("b"), 1),
        (Chain::Admin(None), 4),
        (admin("-"), 3),
        (admin("a"), 1),
    ];
    assert_eq!(read(dir.path()), expected);
    let heads = HeadsFile::open(dir.path(), key()).unwrap();
    assert_eq!(heads.heads().iter().map(|(chain, head)| (chain.clone(), head.chain_seq)).collect::<Vec<_>>(), expected);
    heads.close().unwrap();
    let text = fs::read_to_string(path).unwrap();
    assert_eq!(text.lines().count(), 8);
    assert!(text.starts_with(&format!("evidence a 1 {} ", head(1).content_sha256)), "{text}");
    assert!(text.contains("\nadmin (none) 4 "), "{text}");
}

#[test]
fn nothing_recorded_is_not_the_same_as_an_empty_file() {
    let dir = TempDir::new().unwrap();
    assert!(read_heads(dir.path(), key().as_ref()).unwrap().is_none());
    HeadsFile::open(dir.path(), key()).unwrap().close().unwrap();
    assert!(read_heads(dir.path(), key().as_ref()).unwrap().unwrap().is_empty());
}

#[test]
fn the_file_belongs_to_its_owner_alone() {
    let (dir, path) = recorded(&[]);
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut heads = HeadsFile::open_with_limit(dir.path(), key(), 1).unwrap();
    assert_eq!(mode(), 0o600);
    (1..9).for_each(|seq| heads.record(&[(evidence("a"), head(seq))]).unwrap());
    assert_eq!(mode(), 0o600, "also once it was rewritten");
}

#[test]
fn a_group_is_cut_short_at_any_byte_and_recording_goes_on() {
    let (dir, path) = recorded(&[&[(evidence("a"), head(1))], &[(evidence("a"), head(2)), (evidence("b"), head(7))]]);
    let whole = fs::read(&path).unwrap();
    let line_ends: Vec<_> =
        whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
    for length in 0..=whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let complete = line_ends.iter().filter(|end| **end <= length).count();
        let expected = match complete {
            0 => vec![],
            1 => vec![(evidence("a"), 1)],
            2 => vec![(evidence("a"), 2)],
            _ => vec![(evidence("a"), 2), (evidence("b"), 7)],
        };
        assert_eq!(read(dir.path()), expected, "{length}");
        let mut heads = HeadsFile::open(dir.path(), key()).unwrap();
        heads.record(&[(evidence("c"), head(1))]).unwrap();
        assert_eq!(read(dir.path()).len(), expected.len() + 1, "{length}");
    }
}

#[test]
fn a_tail_that_never_reached_the_disk_is_ignored() {
    let (dir, path) = recorded(&[&[(evidence("a"), head(1))]]);
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(&[0; 4096]).unwrap();
    assert_eq!(read(dir.path()), [(evidence("a"), 1)]);
    HeadsFile::open(dir.path(), key()).unwrap().record(&[(evidence("a"), head(2))]).unwrap();
    assert_eq!(read(dir.path()), [(evidence("a"), 2)]);
}

#[test]
fn a_file_past_its_limit_is_rewritten_to_its_newest_lines() {
    let dir = TempDir::new().unwrap();
    let mut heads = HeadsFile::open_with_limit(dir.path(), key(), 2_000).unwrap();
    let path = dir.path().join(FILE_NAME);
    let mut largest = 0;
    for seq in 1..=200 {
        heads.record(&[(evidence("a"), head(seq)), (Chain::Admin(None), head(seq))]).unwrap();
        largest = largest.max(fs::metadata(&path).unwrap().len());
        assert_eq!(read(dir.path()), [(evidence("a"), seq), (Chain::Admin(None), seq)]);
    }
    assert!(largest <= 2_000, "{largest} bytes");
    drop(heads);
    let mut heads = HeadsFile::open_with_limit(dir.path(), key(), 2_000).unwrap();
    heads.record(&[(evidence("a"), head(201))]).unwrap();
    assert_eq!(read(dir.path()), [(evidence("a"), 201), (Chain::Admin(None), 200)]);
}

#[test]
fn many_chains_do_not_make_every_group_a_rewrite() {
    let dir = TempDir::new().unwrap();
    let mut heads = HeadsFile::open_with_limit(dir.path(), key(), 100).unwrap();
    let all: Vec<_> = (0..50).map(|zone| (evidence(&format!("z{zone}")), head(1))).collect();
    heads.record(&all).unwrap();
    let size = || fs::metadata(dir.path().join(FILE_NAME)).unwrap().len();
    let (before, mut rewrites) = (size(), 0);
    for seq in 2..=100 {
        let last = size();
        heads.record(&[(evidence("z0"), head(seq))]).unwrap();
        rewrites += u32::from(size() < last);
    }
    assert!((1..=3).contains(&rewrites), "{rewrites} rewrites");
    assert!(size() < 3 * before);
}

#[test]
fn a_rewrite_that_never_finished_leaves_the_old_file() {
    let (dir, _) = recorded(&[&[(evidence("a"), head(3))]]);
    let unfinished = dir.path().join(format!("{FILE_NAME}.new"));
    fs::write(&unfinished, "evidence a 1 half a li").unwrap();
    assert_eq!(read(dir.path()), [(evidence("a"), 3)]);
    let heads = HeadsFile::open(dir.path(), key()).unwrap();
    assert_eq!(heads.heads().len(), 1);
    assert!(!unfinished.exists());
}

#[test]
fn a_rewrite_that_fails_loses_nothing_that_was_recorded() {
    let dir = TempDir::new().unwrap();
    let mut heads = HeadsFile::open_with_limit(dir.path(), key(), 400).unwrap();
    let obstacle = dir.path().join(format!("{FILE_NAME}.new"));
    fs::create_dir(&obstacle).unwrap();
    let mut failures = 0;
    for seq in 1..=9 {
        match heads.record(&[(evidence("a"), head(seq))]) {
            Ok(()) => {}
            Err(HeadsError::Rewrite { .. }) => failures += 1,
            Err(other) => panic!("{other}"),
        }
        assert_eq!(read(dir.path()), [(evidence("a"), seq)]);
    }
    assert!((1..=5).contains(&failures), "{failures} failures");
    fs::remove_dir(&obstacle).unwrap();
    (10..=14).for_each(|seq| heads.record(&[(evidence("a"), head(seq))]).unwrap());
    assert!(fs::metadata(dir.path().join(FILE_NAME)).unwrap().len() < 1_000);
    assert_eq!(read(dir.path()), [(evidence("a"), 14)]);
}

#[test]
fn what_is_no_head_is_not_recorded() {
    let (dir, path) = recorded(&[]);
    let mut heads = HeadsFile::open(dir.path(), key()).unwrap();
    let hash = "0".repeat(64);
    for (seq, hash) in [
        (0, hash.clone()),
        (-1, hash.clone()),
        (1, String::new()),
        (1, hash[1..].to_owned()),
        (1, "A".repeat(64)),
        (1, format!("{}\n", &hash[1..])),
    ] {
        let refused = Head { chain_seq: seq, content_sha256: hash };
        let result = heads.record(&[(evidence("a"), head(1)), (evidence("b"), refused)]);
        assert!(matches!(result, Err(HeadsError::NotAHead { .. })));
    }
    assert_eq!(fs::metadata(path).unwrap().len(), 0);
}

mod t06_evidence {
    use super::*;

    fn three_lines() -> (TempDir, PathBuf, Vec<String>) {
        let (dir, path) =
            recorded(&[&[(evidence("a"), head(1)), (evidence("b"), head(9))], &[(evidence("a"), head(2))]]);
        let lines = fs::read_to_string(&path).unwrap().lines().map(|line| format!("{line}\n")).collect();
        (dir, path, lines)
    }

    #[test]
    fn no_byte_of_the_heads_file_can_be_changed_unseen() {
        let (dir, path, lines) = three_lines();
        let whole = lines.concat().into_bytes();
        for at in 0..whole.len() - 1 {
            for flip in [1, 0x20, 0x80] {
                let mut changed = whole.clone();
                changed[at] ^= flip;
                fs::write(&path, &changed).unwrap();
                let line = whole[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
                assert_eq!(bad_line(read_heads(dir.path(), key().as_ref())), line, "byte {at}");
                assert_eq!(bad_line(HeadsFile::open(dir.path(), key())), line, "byte {at}");
            }
        }
    }

    #[test]
    fn lines_cannot_be_left_out_in_the_middle_repeated_or_reordered() {
        let (dir, path, lines) = three_lines();
        let [first, second, third] = [&lines[0], &lines[1], &lines[2]];
        for (changed, line) in [
            (vec![second, third], 1),
            (vec![first, third], 2),
            (vec![second, first, third], 1),
            (vec![first, third, second], 2),
            (vec![first, first, second, third], 2),
            (vec![first, second, third, third], 4),
        ] {
            fs::write(&path, changed.into_iter().cloned().collect::<String>()).unwrap();
            assert_eq!(bad_line(read_heads(dir.path(), key().as_ref())), line);
        }
    }

    #[test]
    fn lines_of_another_key_are_refused() {
        let (dir, path, lines) = three_lines();
        let other = hmac::Key::new(hmac::HMAC_SHA256, &[8; 32]);
        let (own, others) = (key().id(0).unwrap(), other.id(0).unwrap());
        let refused = read_heads(dir.path(), &other).unwrap_err();
        assert!(
            matches!(&refused, HeadsError::UnknownKey { line: 1, key_id, .. } if *key_id == own),
            "what they are not is altered: {refused}"
        );
        assert!(refused.to_string().contains(&own) && refused.to_string().contains("AUDIT_HMAC_KEY_PREVIOUS"));
        // Whoever names the key that is at hand has not got it by that.
        fs::write(&path, lines.concat().replace(&own, &others)).unwrap();
        assert!(matches!(read_heads(dir.path(), &other), Err(HeadsError::BadLine { line: 1, .. })));
    }
}

mod t17_rollback_heads {
    use super::*;

    #[test]
    fn a_head_never_goes_back_and_the_others_of_its_group_are_recorded() {
        let (dir, _) = recorded(&[&[(evidence("a"), head(5)), (evidence("b"), head(5))]]);
        let mut heads = HeadsFile::open(dir.path(), key()).unwrap();
        let other_history = Head { content_sha256: "f".repeat(64), ..head(5) };
        for offered in [head(4), other_history] {
            let result = heads.record(&[(evidence("a"), offered.clone()), (evidence("b"), head(6))]);
            assert!(
                matches!(&result, Err(HeadsError::WouldGoBack { recorded: 5, offered: seq, .. }) if *seq == offered.chain_seq),
                "{result:?}"
            );
            assert_eq!(read(dir.path()), [(evidence("a"), 5), (evidence("b"), 6)]);
        }
        heads.record(&[(evidence("a"), head(5))]).unwrap();
        let result = heads.record(&[(evidence("a"), head(7)), (evidence("a"), head(6))]);
        assert!(matches!(result, Err(HeadsError::WouldGoBack { recorded: 7, offered: 6, .. })));
        assert_eq!(read(dir.path())[0], (evidence("a"), 7));
    }
}
