//! Documents and bundles held once per content (contract: policy.md §13; architecture rule 2).
//!
//! Both are keyed by hashes of immutable text, so there is nothing to invalidate: an activation makes another
//! manifest hash current, and the old bundle ages out. A bundle found by its manifest hash costs the request no
//! read of documents at all. Bounded by the memory that the entries take, about; the least recently used go first.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::bundle::{Bundle, Scale};
use crate::defect::{BundleDefect, Defects, first};
use crate::hashes::{ContentSha256, ManifestSha256};
use crate::literal::Position;
use crate::parse::ParsedDocument;
use crate::refusal::Refusal;
use crate::shape::Tolerance;

/// Parsed documents by content hash and loaded bundles by manifest hash. Shared between threads as it is.
#[derive(Debug)]
pub struct PolicyCache {
    documents: Held<ContentSha256, ParsedDocument>,
    bundles: Held<ManifestSha256, Bundle>,
    none_active: Arc<Bundle>,
}

/// A stored document with the hash its row promises.
#[derive(Debug, Clone, Copy)]
pub struct StoredDocument<'a> {
    /// The policy version's id.
    pub policy_version_id: &'a str,
    /// The text.
    pub content: &'a str,
    /// What the row says is the hash of the text.
    pub content_sha256: ContentSha256,
}

/// Why a stored set version cannot serve: never an allow from an unverifiable or partial bundle.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The version ids do not hash to the manifest hash of the set version.
    #[error("the manifest hashes to {found}, and its version promises {promised}")]
    ManifestMismatch {
        /// What the version promises.
        promised: ManifestSha256,
        /// What the ids hash to.
        found: ManifestSha256,
    },
    /// A text does not hash to what its row promises.
    #[error("the text of policy version `{policy_version_id}` is not the one its hash promises")]
    ContentMismatch {
        /// The policy version.
        policy_version_id: String,
    },
    /// The documents make no bundle.
    #[error("the documents make no bundle: {}", first(.0))]
    Defective(Vec<BundleDefect>),
}

impl PolicyCache {
    /// Holds documents and bundles of up to so many bytes each, read, not as text.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            documents: Held::new(max_bytes),
            bundles: Held::new(max_bytes),
            none_active: Arc::new(Bundle::no_active_policy_set()),
        }
    }

    /// The bundle of a zone without an active policy set.
    pub fn no_active_policy_set(&self) -> Arc<Bundle> {
        self.none_active.clone()
    }

    /// The bundle of a manifest, if it is held.
    pub fn bundle(&self, manifest: ManifestSha256) -> Option<Arc<Bundle>> {
        self.bundles.get(&manifest)
    }

    /// Verifies and loads a stored set version, and holds it. `promised` is the version's manifest hash. Documents may have
    /// to be evaluated: run it on a thread of [`crate::Evaluators`].
    pub fn load(&self, promised: ManifestSha256, documents: &[StoredDocument<'_>]) -> Result<Arc<Bundle>, LoadError> {
        let ids: Vec<&str> = documents.iter().map(|document| document.policy_version_id).collect();
        let found = ManifestSha256::of(ids.iter().copied());
        if found != promised {
            return Err(LoadError::ManifestMismatch { promised, found });
        }
        let mut parsed = Vec::with_capacity(documents.len());
        let (mut defects, mut scale) = (Defects::new(&ids), Scale::default());
        for (number, document) in documents.iter().enumerate() {
            let id = document.policy_version_id;
            if ContentSha256::of(document.content) != document.content_sha256 {
                return Err(LoadError::ContentMismatch { policy_version_id: id.to_owned() });
            }
            match self.document(document) {
                Ok(document) => {
                    if let Err(kind) = scale.take(&document) {
                        defects.add(number, Position { line: 1, column: 1 }, kind);
                        break;
                    }
                    parsed.push(document);
                }
                Err(Refusal { at, kind }) => defects.add(number, at, kind.into()),
            }
        }
        defects.none_or(()).map_err(LoadError::Defective)?;
        let weight = scale.weight();
        let bundle = Bundle::assemble(&ids, parsed, Tolerance::Stored, weight).map_err(LoadError::Defective)?;
        let bundle = Arc::new(bundle);
        self.bundles.put(promised, bundle.clone(), bundle.weight());
        Ok(bundle)
    }

    /// The same where every document is literal data, which takes neither a deep stack nor long; else `None`.
    pub fn load_literals(
        &self,
        promised: ManifestSha256,
        documents: &[StoredDocument<'_>],
    ) -> Option<Result<Arc<Bundle>, LoadError>> {
        let literal = documents.iter().all(|document| match self.documents.get(&document.content_sha256) {
            Some(parsed) => !parsed.must_be_evaluated(),
            None => match ParsedDocument::parse_literal(document.content) {
                Ok(parsed) => {
                    if ContentSha256::of(document.content) == document.content_sha256 {
                        let weight = parsed.weight;
                        self.documents.put(document.content_sha256, Arc::new(parsed), weight);
                    }
                    true
                }
                Err(refusal) => !refusal.kind.is_outside_subset(),
            },
        });
        literal.then(|| self.load(promised, documents))
    }

    fn document(&self, document: &StoredDocument<'_>) -> Result<Arc<ParsedDocument>, Refusal> {
        if let Some(parsed) = self.documents.get(&document.content_sha256) {
            return Ok(parsed);
        }
        let parsed = Arc::new(ParsedDocument::parse_stored(document.content)?);
        self.documents.put(document.content_sha256, parsed.clone(), parsed.weight);
        Ok(parsed)
    }
}

impl Default for PolicyCache {
    /// 128 MiB for documents, the same for bundles: several of the largest.
    fn default() -> Self {
        Self::new(128 << 20)
    }
}

/// A bounded map of shared values. Reading takes no exclusive lock.
#[derive(Debug)]
struct Held<K, V> {
    max_weight: usize,
    clock: AtomicU64,
    entries: RwLock<Entries<K, V>>,
}

#[derive(Debug)]
struct Entries<K, V> {
    weight: usize,
    by_key: HashMap<K, Entry<V>>,
}

#[derive(Debug)]
struct Entry<V> {
    value: Arc<V>,
    weight: usize,
    used: AtomicU64,
}

/// What an entry weighs beside its value, so that empty documents are bounded, too.
const ENTRY_WEIGHT: usize = 1024;

impl<K: Eq + Hash + Copy, V> Held<K, V> {
    fn new(max_weight: usize) -> Self {
        let entries = RwLock::new(Entries { weight: 0, by_key: HashMap::new() });
        Self { max_weight, clock: AtomicU64::new(0), entries }
    }

    fn get(&self, key: &K) -> Option<Arc<V>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.by_key.get(key)?;
        entry.used.store(self.tick(), Ordering::Relaxed);
        Some(entry.value.clone())
    }

    /// Holds a value; if another thread was faster, the later one stays. The newest is kept even if it alone
    /// exceeds the bound: it is in use.
    fn put(&self, key: K, value: Arc<V>, bytes: usize) {
        let weight = bytes.saturating_add(ENTRY_WEIGHT);
        let entry = Entry { value, weight, used: AtomicU64::new(self.tick()) };
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(replaced) = entries.by_key.insert(key, entry) {
            entries.weight -= replaced.weight;
        }
        entries.weight += weight;
        if entries.weight > self.max_weight {
            entries.shrink_to(self.max_weight - self.max_weight / 8, &key);
        }
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }
}

impl<K: Eq + Hash + Copy, V> Entries<K, V> {
    /// Drops the least recently used. One sort frees an eighth of the bound, so a full cache does not sort per put.
    fn shrink_to(&mut self, max_weight: usize, newest: &K) {
        let mut by_age: Vec<(u64, K)> =
            self.by_key.iter().map(|(key, entry)| (entry.used.load(Ordering::Relaxed), *key)).collect();
        by_age.sort_unstable_by_key(|(used, _)| *used);
        for (_, key) in by_age {
            if self.weight <= max_weight {
                break;
            }
            if key != *newest
                && let Some(dropped) = self.by_key.remove(&key)
            {
                self.weight -= dropped.weight;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(max_entries: usize) -> Held<usize, usize> {
        Held::new(max_entries * ENTRY_WEIGHT)
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let held = held(8);
        for key in 0..8 {
            held.put(key, Arc::new(key), 0);
        }
        assert!(held.get(&0).is_some());
        held.put(8, Arc::new(8), 0);
        assert!(held.get(&0).is_some(), "was used");
        assert!(held.get(&8).is_some(), "is new");
        assert!(held.get(&1).is_none(), "was not used");
    }

    #[test]
    fn the_weight_is_bounded_and_the_newest_always_stays() {
        let held = held(4);
        for key in 0..1000 {
            held.put(key, Arc::new(key), key * 10);
            assert!(held.get(&key).is_some());
        }
        let entries = held.entries.read().unwrap();
        assert_eq!(entries.weight, entries.by_key.values().map(|entry| entry.weight).sum::<usize>());
        assert_eq!(entries.by_key.len(), 1);
    }

    #[test]
    fn a_document_weighs_what_it_takes_and_not_what_it_is_written_with() {
        let cache = PolicyCache::default();
        let content = format!("package caracal.authz\nrestrict := [{}]", "1,".repeat(10_000));
        let stored =
            StoredDocument { policy_version_id: "pv", content: &content, content_sha256: ContentSha256::of(&content) };
        cache.load(ManifestSha256::of(["pv"]), &[stored]).unwrap();
        for weight in [cache.documents.entries.read().unwrap().weight, cache.bundles.entries.read().unwrap().weight] {
            assert!(weight > 10_000 * size_of::<crate::literal::Literal>() * 2, "{weight}");
        }
    }

    #[test]
    fn putting_a_key_again_does_not_count_it_twice() {
        let held = held(4);
        for _ in 0..100 {
            held.put(1, Arc::new(1), 100);
        }
        assert_eq!(held.entries.read().unwrap().weight, 100 + ENTRY_WEIGHT);
    }
}
