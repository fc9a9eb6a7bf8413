//! The tree beside the chain: its hashes are those of RFC 6962, its proofs hold for every place and size and for nothing
//! else, and who tampers with a store proves nothing to somebody who holds the log's key and an older checkpoint.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod support;
#[path = "support/trees.rs"]
mod trees;

use caracal_crypto::ed25519::SigningKey;
use caracal_ledger::transparency::merkle::{
    TreeHash, consistency_path, empty_root, inclusion_path, leaf_hash, node_hash, verify_consistency, verify_inclusion,
};
use caracal_ledger::transparency::note::{NotAKey, NotSigned, Use, cosign, sign};
use caracal_ledger::transparency::tiles::{Edge, TileId, Tiles, from_bytes, path_of, position_of, to_bytes};
use caracal_ledger::transparency::{EvidenceFile, Note, Served, TlogProof, VerifierKey};
use proptest::prelude::*;

#[path = "transparency/store.rs"]
mod store;

/// The definition of RFC 6962 §2.1, as it stands there.
fn root_by_definition(leaves: &[TreeHash]) -> TreeHash {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node_hash(&root_by_definition(left), &root_by_definition(right))
        }
    }
}

fn leaves(count: usize) -> Vec<TreeHash> {
    (0..count as u64).map(|number| leaf_hash(&number.to_be_bytes())).collect()
}

/// A tree of these leaves that grew in steps of `step`.
fn grown(leaves: &[TreeHash], step: usize) -> (Edge, Tiles) {
    let (mut edge, mut tiles) = (Edge::default(), Tiles::default());
    for some in leaves.chunks(step.max(1)) {
        tiles.0.extend(edge.grow(some.iter().copied()).0);
    }
    (edge, tiles)
}

fn hash(hex: &str) -> TreeHash {
    TreeHash(caracal_crypto::encoding::array_from_hex(hex).unwrap())
}

mod t06_tree {
    use super::*;

    /// The vectors that implementations of Certificate Transparency share.
    #[test]
    fn roots_and_proofs_are_those_of_certificate_transparency() {
        let entries =
            ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
        let leaves: Vec<TreeHash> =
            entries.iter().map(|hex| leaf_hash(&caracal_crypto::encoding::from_hex(hex).unwrap())).collect();
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        for (size, root) in roots.iter().enumerate() {
            assert_eq!(grown(&leaves[..size], 3).0.root(), hash(root), "{size}");
        }
        let (_, tiles) = grown(&leaves, 8);
        let inclusion = |index, size| tiles.hashes(&inclusion_path(index, size).unwrap()).unwrap();
        let consistency = |old, new| tiles.hashes(&consistency_path(old, new).unwrap()).unwrap();
        let of = |hexes: &[&str]| hexes.iter().map(|hex| hash(hex)).collect::<Vec<_>>();
        assert_eq!(inclusion(0, 1), []);
        let expected = of(&[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ]);
        assert_eq!(inclusion(0, 8), expected);
        let expected = of(&[
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]);
        assert_eq!(inclusion(5, 8), expected);
        let expected = of(&[
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]);
        assert_eq!(consistency(6, 8), expected);
        let expected = of(&[
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ]);
        assert_eq!(consistency(2, 5), expected);
    }

    #[test]
    fn in_small_trees_every_proof_holds_and_no_proof_of_another_place_does() {
        let leaves = leaves(34);
        let (_, tiles) = grown(&leaves, 5);
        let roots: Vec<TreeHash> = (0..=leaves.len()).map(|size| root_by_definition(&leaves[..size])).collect();
        for size in 1..=34_u64 {
            for index in 0..size {
                let proof = tiles.hashes(&inclusion_path(index, size).unwrap()).unwrap();
                for claimed in 0..size + 2 {
                    let holds = verify_inclusion(leaves[index as usize], claimed, size, roots[size as usize], &proof);
                    assert_eq!(holds, claimed == index, "{index} as {claimed} of {size}");
                }
            }
            assert!(inclusion_path(size, size).is_none());
            for old in 0..=size {
                let proof = tiles.hashes(&consistency_path(old, size).unwrap()).unwrap();
                for claimed in 0..=size {
                    let pair = ((claimed, roots[claimed as usize]), (size, roots[size as usize]));
                    let holds = verify_consistency(pair.0, pair.1, &proof);
                    // Between equal trees, and from the empty one, there is nothing to show.
                    let is_shown = claimed == old || (proof.is_empty() && (claimed == 0 || claimed == size));
                    assert_eq!(holds, is_shown, "{old} as {claimed} of {size}");
                }
            }
            assert!(consistency_path(size + 1, size).is_none());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn a_tree_has_the_same_tiles_however_it_grew(size in 0_usize..1_500, step in 1_usize..700) {
            let leaves = leaves(size);
            let (edge, tiles) = grown(&leaves, step);
            prop_assert_eq!(edge.root(), root_by_definition(&leaves));
            prop_assert_eq!(&tiles, &grown(&leaves, size).1);
            prop_assert_eq!(Edge::of(size as u64, &tiles), Some(edge));
            for (id, hashes) in &tiles.0 {
                prop_assert_eq!(hashes.len(), id.width_in(size as u64));
                prop_assert_eq!(from_bytes(&to_bytes(hashes)), Some(hashes.clone()));
            }
            prop_assert!(from_bytes(&[0; 31]).is_none() && from_bytes(&[0; 32 * 257]).is_none());
        }

        #[test]
        fn every_proof_holds_and_none_with_a_flipped_bit(
            size in 1_u64..1_500,
            (at, before) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
            bit in any::<prop::sample::Index>(),
        ) {
            let leaves = leaves(size as usize);
            let (edge, tiles) = grown(&leaves, 1_500);
            let root = edge.root();
            let (index, old) = (at.index(size as usize) as u64, before.index(size as usize) as u64 + 1);
            let old_root = root_by_definition(&leaves[..old as usize]);
            let leaf = leaves[index as usize];
            let path = inclusion_path(index, size).unwrap();
            // From the fewest tiles that are needed, each as long as it is now.
            let needed = Tiles(Tiles::needed(&path).into_iter().map(|id| (id, tiles.0[&id].clone())).collect());
            let proof = needed.hashes(&path).unwrap();
            prop_assert!(verify_inclusion(leaf, index, size, root, &proof));
            let since = tiles.hashes(&consistency_path(old, size).unwrap()).unwrap();
            prop_assert!(verify_consistency((old, old_root), (size, root), &since));
            let flipped = |hashes: &[TreeHash]| {
                let mut hashes = hashes.to_vec();
                let at = bit.index(hashes.len() * 256);
                hashes[at / 256].0[at % 256 / 8] ^= 1 << (at % 8);
                hashes
            };
            if !proof.is_empty() {
                prop_assert!(!verify_inclusion(leaf, index, size, root, &flipped(&proof)));
                prop_assert!(!verify_inclusion(leaf, index, size, root, &proof[1..]));
            }
            prop_assert!(!verify_inclusion(flipped(&[leaf])[0], index, size, root, &proof));
            prop_assert!(!verify_inclusion(leaf, index, size, flipped(&[root])[0], &proof));
            prop_assert!(!verify_inclusion(leaf, index, size, root, &[&proof[..], &[root]].concat()));
            if !since.is_empty() {
                prop_assert!(!verify_consistency((old, old_root), (size, root), &flipped(&since)));
                prop_assert!(!verify_consistency((old, old_root), (size, root), &since[1..]));
            }
            prop_assert!(!verify_consistency((old, flipped(&[old_root])[0]), (size, root), &since));
            prop_assert!(!verify_consistency((old, old_root), (size, flipped(&[root])[0]), &since));
        }

        #[test]
        fn a_path_of_a_tile_is_read_as_it_is_written_and_nothing_else_is(position in any::<u64>(), other in "[x0-9/]{0,12}") {
            prop_assert_eq!(position_of(&path_of(position)), Some(position));
            if let Some(read) = position_of(&other) {
                prop_assert_eq!(path_of(read), other);
            }
        }

        #[test]
        fn a_proof_is_read_as_it_is_written(index in any::<u64>(), hashes in prop::collection::vec(any::<[u8; 32]>(), 0..64)) {
            let hashes = hashes.into_iter().map(TreeHash).collect();
            let proof = TlogProof { index, hashes, checkpoint: "log\n1\nx\n\n\u{2014} log x\n".to_owned() };
            let text = proof.to_string();
            prop_assert_eq!(TlogProof::parse(&text), Some(proof.clone()));
            let with_extra = text.replacen("index", "extra aGVsbG8=\nindex", 1);
            prop_assert_eq!(TlogProof::parse(&with_extra), Some(proof));
        }

        #[test]
        fn proofs_files_and_paths_of_any_text_are_refused_without_panic(
            text in "(c2sp.org/tlog-proof@v1|index|extra|entries|[0-9]{1,3}|\\.p/|[A-Za-z+/= \n{}\":]){0,40}",
        ) {
            if let Some(proof) = TlogProof::parse(&text) {
                prop_assert_eq!(TlogProof::parse(&proof.to_string()), Some(proof));
            }
            let _ = Served::parse(&text);
            prop_assert!(EvidenceFile::parse(text.as_bytes()).is_err());
        }

        #[test]
        fn notes_and_keys_of_any_text_are_refused_without_panic(text in "(\u{2014}|[a-z0-9+/= \n]){0,80}") {
            let _ = Note::parse(&text);
            if let Ok(key) = VerifierKey::parse(&text) {
                prop_assert_eq!(key.to_string(), text.trim());
            }
        }
    }

    #[test]
    fn tiles_are_where_the_specification_has_them() {
        assert_eq!(path_of(1_234_067), "x001/x234/067");
        assert_eq!((path_of(0), path_of(999), path_of(1_000)), ("000".into(), "999".into(), "x001/000".into()));
        for wrong in ["", "1", "67", "x067", "001/067", "x000/067", "x1/067", "+67", "-01"] {
            assert_eq!(position_of(wrong), None, "{wrong}");
        }
        // The example of C2SP tlog-tiles: a tree of 70,000.
        let tile = |level, position| TileId { level, position };
        assert_eq!(Edge::tiles_of(70_000), [(tile(0, 273), 112), (tile(1, 1), 17), (tile(2, 0), 1)]);
        assert_eq!(Edge::tiles_of(256), [(tile(1, 0), 1)]);
        assert_eq!((tile(0, 0).width_in(256), tile(1, 0).width_in(256), tile(2, 0).width_in(256)), (256, 1, 0));
    }
}

mod t06_notes {
    use super::*;

    fn key(byte: u8) -> SigningKey {
        SigningKey::from_seed(&[byte; 32]).unwrap()
    }

    fn verifier(name: &str, used_for: Use, byte: u8) -> VerifierKey {
        VerifierKey::new(name, used_for, key(byte).public()).unwrap()
    }

    /// From the documentation of Go's package for signed notes.
    #[test]
    fn a_note_that_others_signed_is_verified() {
        let key = VerifierKey::parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW").unwrap();
        let text =
            "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
        let note = format!(
            "{text}\n\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
        );
        assert_eq!(Note::parse(&note).unwrap().verified_by(&key), Ok(text));
        let other = note.replace("answer", "question");
        assert_eq!(Note::parse(&other).unwrap().verified_by(&key), Err(NotSigned::WrongSignature));
    }

    #[test]
    fn signatures_of_others_do_not_matter_and_a_wrong_one_spoils_the_note() {
        let note = sign("a text\n\nof two parts\n", "log", &key(1)).unwrap();
        let log = verifier("log", Use::Note, 1);
        assert_eq!(Note::parse(&note).unwrap().verified_by(&log), Ok("a text\n\nof two parts\n"));
        // The same name with another key, and the same key under another name, are others.
        for other in
            [verifier("log", Use::Note, 2), verifier("log2", Use::Note, 1), verifier("log", Use::Cosignature, 1)]
        {
            assert_eq!(Note::parse(&note).unwrap().verified_by(&other), Err(NotSigned::OtherKey));
        }
        let of_others = sign("x\n", "else", &key(3)).unwrap();
        let line = of_others.split_once("\n\n").unwrap().1;
        assert!(Note::parse(&format!("{note}{line}")).unwrap().verified_by(&log).is_ok());
        let wrong = sign("another text\n", "log", &key(1)).unwrap();
        let line = wrong.split_once("\n\n").unwrap().1;
        let spoilt = Note::parse(&format!("{note}{line}")).unwrap();
        assert_eq!(spoilt.verified_by(&log), Err(NotSigned::WrongSignature));
    }

    #[test]
    fn what_is_no_note_and_no_key_is_refused() {
        let note = sign("a text\n", "log", &key(1)).unwrap();
        for (what, broken) in [
            ("no signature", "a text\n\n".to_owned()),
            ("no blank line", note.replacen("\n\n", "\n", 1)),
            ("no last newline", note.trim_end().to_owned()),
            ("a hyphen for a dash", note.replace('\u{2014}', "-")),
            ("a control character", note.replace("a text", "a\ttext")),
            ("base64 that nobody writes", note.replace("=\n", "\n")),
            ("something behind the signature", format!("{note}and more\n")),
        ] {
            assert_eq!(Note::parse(&broken), Err(NotSigned::Form), "{what}");
        }
        let text = verifier("log", Use::Note, 1).to_string();
        assert_eq!(VerifierKey::parse(&format!(" {text}\n")).unwrap(), verifier("log", Use::Note, 1));
        assert_eq!(VerifierKey::parse(&text.replacen("log", "lag", 1)), Err(NotAKey::Id));
        assert_eq!(VerifierKey::parse("log+c74f20a3"), Err(NotAKey::Form));
        assert_eq!(VerifierKey::parse("log+c74f20a3+AXh4"), Err(NotAKey::Form));
        assert_eq!(VerifierKey::parse("log+c74f20a3+Ah4eHh4e"), Err(NotAKey::Algorithm));
        for name in ["", "a b", "a+b", "a\nb", "a\u{a0}b"] {
            assert!(sign("x\n", name, &key(1)).is_none(), "{name:?}");
        }
    }

    #[test]
    fn a_witness_is_believed_for_what_it_saw_and_when() {
        let note = sign("log\n1\nAAAA\n", "log", &key(1)).unwrap();
        let parsed = Note::parse(&note).unwrap();
        let line = cosign(&parsed, "witness", &key(2), 1_679_315_147).unwrap();
        let witness = verifier("witness", Use::Cosignature, 2);
        let cosigned = Note::parse(&format!("{note}{line}")).unwrap();
        assert_eq!(cosigned.cosigned_by(&witness), Ok(1_679_315_147));
        assert!(cosigned.verified_by(&verifier("log", Use::Note, 1)).is_ok(), "the log's own stays good");
        assert_eq!(parsed.cosigned_by(&witness), Err(NotSigned::OtherKey));
        assert_eq!(cosigned.cosigned_by(&verifier("witness", Use::Cosignature, 3)), Err(NotSigned::OtherKey));
        // Put under another checkpoint, it says nothing.
        let other = sign("log\n2\nAAAA\n", "log", &key(1)).unwrap();
        let moved = Note::parse(&format!("{other}{line}")).unwrap();
        assert_eq!(moved.cosigned_by(&witness), Err(NotSigned::WrongSignature));
    }
}
