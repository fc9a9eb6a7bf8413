//! Documents and bundles are verified when they are loaded and held once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of a test file are test code")]

mod world;

use std::sync::Arc;

use caracal_policy::{ContentSha256, LoadError, ManifestSha256, PolicyCache, StoredDocument};
use world::*;

fn stored<'a>(policy_version_id: &'a str, content: &'a str) -> StoredDocument<'a> {
    StoredDocument { policy_version_id, content, content_sha256: ContentSha256::of(content) }
}

#[test]
fn a_bundle_is_loaded_once_and_found_by_its_manifest() {
    let cache = PolicyCache::default();
    let content = document(BASE);
    let manifest = ManifestSha256::of(["pv-1"]);
    assert!(cache.bundle(manifest).is_none());
    let bundle = cache.load(manifest, &[stored("pv-1", &content)]).unwrap();
    assert!(Arc::ptr_eq(&bundle, &cache.bundle(manifest).unwrap()));
    assert_eq!(bundle.manifest_sha256(), Some(manifest));
    assert_eq!(bundle.manifest(), manifest.to_string());
    assert_eq!(outcome(&bundle, &mint()), "allow caracal-pay-mint []");
}

#[test]
fn one_document_serves_many_manifests() {
    let cache = PolicyCache::default();
    let content = document(BASE);
    for id in ["pv-1", "pv-2"] {
        let bundle = cache.load(ManifestSha256::of([id]), &[stored(id, &content)]).unwrap();
        assert_eq!(outcome(&bundle, &mint()), "allow caracal-pay-mint []");
    }
}

#[test]
fn the_fallback_is_one_bundle() {
    let cache = PolicyCache::default();
    assert!(Arc::ptr_eq(&cache.no_active_policy_set(), &cache.no_active_policy_set()));
    assert_eq!(outcome(&cache.no_active_policy_set(), &workload()), "deny no_active_policy_set");
}

mod t02_sts_policy {
    use super::*;

    /// POLICY-9: what is served is what the version promises.
    #[test]
    fn a_manifest_or_text_that_does_not_hash_as_promised_is_refused() {
        let cache = PolicyCache::default();
        let content = document(BASE);
        let promised = ManifestSha256::of(["pv-1", "pv-2"]);
        let missing = cache.load(promised, &[stored("pv-1", &content)]);
        assert!(matches!(missing, Err(LoadError::ManifestMismatch { .. })));
        let swapped = cache.load(promised, &[stored("pv-2", &content), stored("pv-1", &content)]);
        assert!(matches!(swapped, Err(LoadError::ManifestMismatch { .. })));

        let altered = content.replace("app-1", "app-2");
        let tampered = StoredDocument { content: &altered, ..stored("pv-1", &content) };
        let found = cache.load(ManifestSha256::of(["pv-1"]), &[tampered]);
        assert!(matches!(found, Err(LoadError::ContentMismatch { policy_version_id }) if policy_version_id == "pv-1"));
        assert!(cache.bundle(ManifestSha256::of(["pv-1"])).is_none(), "nothing of it is held");
    }

    /// POLICY-2 at load.
    #[test]
    fn a_stored_document_that_defines_a_decision_is_refused_on_load() {
        let cache = PolicyCache::default();
        let manifest = ManifestSha256::of(["pv-1"]);
        let content = document("risk := []\nresult := {\"decision\": \"allow\"}");
        let found = cache.load(manifest, &[stored("pv-1", &content)]);
        assert!(matches!(&found, Err(LoadError::Defective(defects)) if defects[0].kind.code() == "rule_not_allowed"));
        assert!(cache.bundle(manifest).is_none());
    }

    #[test]
    fn many_threads_share_one_cache() {
        let cache = PolicyCache::new(32 * 1024);
        let content = document(BASE);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (cache, content) = (&cache, &content);
                scope.spawn(move || {
                    for round in 0..200 {
                        let id = format!("pv-{}", (thread * 7 + round) % 40);
                        let manifest = ManifestSha256::of([id.as_str()]);
                        let bundle = match cache.bundle(manifest) {
                            Some(bundle) => bundle,
                            None => cache.load(manifest, &[stored(&id, content)]).unwrap(),
                        };
                        assert_eq!(bundle.manifest_sha256(), Some(manifest));
                    }
                });
            }
        });
    }
}
