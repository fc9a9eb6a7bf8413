//! Client and workload secrets: stored as Argon2id hashes, verified inside a memory budget.
//!
//! One derivation costs 64 MiB and tens of milliseconds, which is the point for whoever stole the table and a gift for
//! whoever wants to exhaust our memory. So every derivation, also for applications that do not exist, waits for one of
//! a few slots ([`SecretVerifier`]); a caller who goes away while waiting leaves nothing behind, one who goes away
//! later leaves a derivation that still holds its slot until it ends. Unknown and known applications cost the same, or
//! response times would tell which exist (decision D17).
//!
//! A secret that was right is remembered for an hour under its stored hash, as a SHA-256: the governed call of an agent
//! pays one short hash. The memory can only confirm that same secret. It never refuses one, a wrong one changes nothing
//! in it, and a rotated secret has another stored hash, which it knows nothing of. Turned around, it says which stored hash a
//! secret was right for ([`SecretVerifier::recall`]): whether that is the hash of the application that is named, whoever
//! asks has still to see.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use caracal_authority::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::chance::random_bytes;
use crate::hmac::sha256;
use crate::secret::{SecretText, constant_time_eq};

const PREFIX: &str = "argon2id$";
const SALT_LEN: usize = 16;
const HASH_LEN: usize = 32;
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 2;

/// A stored secret hash: `argon2id$<salt>$<hash>`, both standard base64 without padding; Argon2id v1.3, t=3, m=64 MiB,
/// p=2, 16-byte salt, 32-byte hash (contract: sts.md §3.4).
pub struct StoredHash {
    salt: [u8; SALT_LEN],
    hash: [u8; HASH_LEN],
}

/// Text that is not a stored hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a stored secret hash of the form `argon2id$salt$hash`")]
pub struct MalformedHash;

/// The hash could not be computed: its 64 MiB could not be had, or the secret is longer than 4 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the secret hash could not be derived")]
pub struct DerivationFailed;

impl StoredHash {
    /// Derives the hash of `secret` with a `salt` of its own. Costs 64 MiB and tens of milliseconds on the calling
    /// thread: services go through [`SecretVerifier::hash`].
    pub fn derive(secret: &str, salt: [u8; SALT_LEN]) -> Result<Self, DerivationFailed> {
        Ok(Self { salt, hash: derive(secret, &salt)? })
    }

    /// Reads the stored form.
    pub fn parse(text: &str) -> Result<Self, MalformedHash> {
        let (salt, hash) = text.strip_prefix(PREFIX).and_then(|parts| parts.split_once('$')).ok_or(MalformedHash)?;
        Ok(Self { salt: decode(salt)?, hash: decode(hash)? })
    }

    /// The form to store.
    pub fn to_text(&self) -> String {
        format!("{PREFIX}{}${}", STANDARD_NO_PAD.encode(self.salt), STANDARD_NO_PAD.encode(self.hash))
    }

    fn matches(&self, secret: &str) -> Result<bool, DerivationFailed> {
        Ok(constant_time_eq(&derive(secret, &self.salt)?, &self.hash))
    }

    /// Stands in where there is no hash to compare with, so that the derivation happens all the same.
    fn decoy() -> Self {
        Self { salt: [0; SALT_LEN], hash: [0; HASH_LEN] }
    }
}

fn decode<const N: usize>(text: &str) -> Result<[u8; N], MalformedHash> {
    STANDARD_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(MalformedHash)
}

fn derive(secret: &str, salt: &[u8; SALT_LEN]) -> Result<[u8; HASH_LEN], DerivationFailed> {
    let parameters = Params::new(MEMORY_KIB, PASSES, LANES, Some(HASH_LEN)).map_err(|_| DerivationFailed)?;
    // Asked for rather than assumed: want of memory is this derivation's failure, not the process's end.
    let mut memory = Vec::new();
    memory.try_reserve_exact(parameters.block_count()).map_err(|_| DerivationFailed)?;
    memory.resize(parameters.block_count(), Block::default());
    let mut hash = [0; HASH_LEN];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters)
        .hash_password_into_with_memory(secret.as_bytes(), salt, &mut hash, &mut memory)
        .map_err(|_| DerivationFailed)?;
    Ok(hash)
}

/// How many derivations run at once unless configured otherwise (`STS_SECRET_VERIFY_CONCURRENCY`).
pub const DEFAULT_CONCURRENCY: usize = 2;

/// How many callers may wait for a slot or hold one. Beyond it they are told to come back, before they cost memory.
pub const MAX_WAITING: usize = 1024;

const REMEMBERED: usize = 8192;
const REMEMBERED_FOR: Duration = Duration::from_secs(3600);

/// A secret that was neither accepted nor refused. Fail closed with a retryable answer, and do not count it as a
/// guess: it says nothing about the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifierUnavailable {
    /// [`MAX_WAITING`] callers are waiting already.
    #[error("too many secrets are waiting to be verified")]
    Busy,
    /// The derivation failed, or the process is stopping.
    #[error("the secret could not be verified")]
    Failed,
}

/// Verifies secrets of one process: share one, or the budget is none.
pub struct SecretVerifier {
    /// Admission to waiting. Owned by every caller from asking for a slot until the derivation is over.
    waiting: Semaphore,
    /// The slots. A derivation owns one from before it starts until it ends, whoever still wants its result.
    slots: Arc<Semaphore>,
    /// Never holds a secret, nor anything that failed.
    remembered: Mutex<Memory>,
    /// Derivations that ran to their end.
    derivations: Arc<AtomicU64>,
}

#[derive(Default)]
struct Memory {
    /// By stored hash.
    successes: HashMap<String, Success>,
    /// The last stored hash that a secret of this SHA-256 was right for. Good only together with its success.
    stored_by_secret: HashMap<[u8; 32], String>,
}

struct Success {
    secret_sha256: [u8; 32],
    until: Timestamp,
}

impl Memory {
    fn holds(&self, stored: &str, secret_sha256: &[u8; 32], now: Timestamp) -> bool {
        let success = self.successes.get(stored);
        success.is_some_and(|known| now < known.until && constant_time_eq(&known.secret_sha256, secret_sha256))
    }
}

impl SecretVerifier {
    /// At most `concurrency` derivations (64 MiB each) at a time; at least one.
    pub fn new(concurrency: usize) -> Self {
        Self {
            waiting: Semaphore::new(MAX_WAITING),
            slots: Arc::new(Semaphore::new(concurrency.clamp(1, Semaphore::MAX_PERMITS))),
            remembered: Mutex::default(),
            derivations: Arc::default(),
        }
    }

    /// Whether `presented` is the secret behind `stored`. `None` is an application that is unknown or has no secret:
    /// the answer is `false` at the same cost, as it is for a stored hash that cannot be read.
    ///
    /// Dropping the future while it waits frees its place at once. Needs a Tokio runtime.
    pub async fn verify(
        &self,
        stored: Option<&str>,
        presented: &str,
        now: Timestamp,
    ) -> Result<bool, VerifierUnavailable> {
        let secret_sha256 = sha256(presented.as_bytes());
        if stored.is_some_and(|stored| self.remembers(stored, &secret_sha256, now)) {
            return Ok(true);
        }
        let _place = self.waiting.try_acquire().map_err(|_| VerifierUnavailable::Busy)?;
        let slot = self.slot().await?;
        // Many agents of one application arrive together after a start: the first of them has paid for all.
        if stored.is_some_and(|stored| self.remembers(stored, &secret_sha256, now)) {
            return Ok(true);
        }
        let hash = stored.and_then(|stored| StoredHash::parse(stored).ok());
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(StoredHash::decoy);
        let presented = SecretText::new(presented.to_owned());
        let matches = self.in_slot(slot, move || hash.matches(presented.expose())).await?;
        let right = matches.map_err(|DerivationFailed| VerifierUnavailable::Failed)? && known;
        if let Some(stored) = stored.filter(|_| right) {
            self.remember(stored, secret_sha256, now);
        }
        Ok(right)
    }

    /// The stored hash that `presented` was right for within the last hour, if there is one. It proves the application that
    /// has this very hash now, and no other.
    pub fn recall(&self, presented: &str, now: Timestamp) -> Option<String> {
        let secret_sha256 = sha256(presented.as_bytes());
        let memory = self.memory();
        let stored = memory.stored_by_secret.get(&secret_sha256)?;
        memory.holds(stored, &secret_sha256, now).then(|| stored.clone())
    }

    /// The form to store for a new `secret`, with a random salt, derived inside the same budget.
    pub async fn hash(&self, secret: &str) -> Result<String, VerifierUnavailable> {
        let salt = random_bytes().map_err(|_| VerifierUnavailable::Failed)?;
        let _place = self.waiting.try_acquire().map_err(|_| VerifierUnavailable::Busy)?;
        let slot = self.slot().await?;
        let secret = SecretText::new(secret.to_owned());
        let hash = self.in_slot(slot, move || StoredHash::derive(secret.expose(), salt)).await?;
        Ok(hash.map_err(|DerivationFailed| VerifierUnavailable::Failed)?.to_text())
    }

    async fn slot(&self) -> Result<OwnedSemaphorePermit, VerifierUnavailable> {
        Arc::clone(&self.slots).acquire_owned().await.map_err(|_| VerifierUnavailable::Failed)
    }

    /// Runs `derivation` off the async threads. It owns the slot: a caller who goes away does not free memory that is
    /// in use.
    async fn in_slot<T: Send + 'static>(
        &self,
        slot: OwnedSemaphorePermit,
        derivation: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, VerifierUnavailable> {
        let derivations = Arc::clone(&self.derivations);
        tokio::task::spawn_blocking(move || {
            derivations.fetch_add(1, Ordering::Relaxed);
            let result = derivation();
            drop(slot);
            result
        })
        .await
        .map_err(|_| VerifierUnavailable::Failed)
    }

    /// How many derivations this process has begun.
    pub fn derivations(&self) -> u64 {
        self.derivations.load(Ordering::Relaxed)
    }

    fn remembers(&self, stored: &str, secret_sha256: &[u8; 32], now: Timestamp) -> bool {
        self.memory().holds(stored, secret_sha256, now)
    }

    fn remember(&self, stored: &str, secret_sha256: [u8; 32], now: Timestamp) {
        let mut memory = self.memory();
        let Memory { successes, stored_by_secret } = &mut *memory;
        if successes.len() >= REMEMBERED && !successes.contains_key(stored) {
            successes.retain(|_, success| now < success.until);
            if successes.len() >= REMEMBERED {
                let oldest = successes.iter().min_by_key(|(_, success)| success.until).map(|(key, _)| key.clone());
                oldest.and_then(|key| successes.remove(&key));
            }
        }
        successes.insert(stored.to_owned(), Success { secret_sha256, until: now.plus(REMEMBERED_FOR) });
        stored_by_secret.insert(secret_sha256, stored.to_owned());
        if stored_by_secret.len() > REMEMBERED {
            stored_by_secret.retain(|_, stored| successes.contains_key(stored));
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Each entry is whole or absent, so a panic elsewhere leaves nothing to repair.
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for SecretVerifier {
    fn default() -> Self {
        Self::new(DEFAULT_CONCURRENCY)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};

    use super::*;

    const NOW: Timestamp = Timestamp::EPOCH;
    const SECRET: &str = "cs_example";
    const STORED: &str = "argon2id$AAECAwQFBgcICQoLDA0ODw$cN8d+MA2MSpRadHc1LUI8rahALniJ9ZzUBgSih/Wovo";
    /// What a memory entry may stand under in a test that must not derive: a derivation for it could only say no.
    const UNREADABLE: &str = "argon2id$not$readable";

    #[test]
    fn the_stored_form_is_the_contracts() {
        let salt = std::array::from_fn(|index| u8::try_from(index).unwrap());
        assert_eq!(StoredHash::derive(SECRET, salt).unwrap().to_text(), STORED);
        let parsed = StoredHash::parse(STORED).unwrap();
        assert_eq!((parsed.salt, parsed.to_text().as_str()), (salt, STORED));
    }

    #[test]
    fn nothing_but_the_stored_form_parses() {
        let (salt, hash) = ("AAECAwQFBgcICQoLDA0ODw", "cN8d+MA2MSpRadHc1LUI8rahALniJ9ZzUBgSih/Wovo");
        for malformed in [
            String::new(),
            "argon2id".to_owned(),
            "argon2id$".to_owned(),
            format!("argon2id${salt}"),
            format!("argon2i${salt}${hash}"),
            format!("ARGON2ID${salt}${hash}"),
            format!("argon2id${salt}==${hash}="),
            format!("argon2id${salt}${}", hash.replace('+', "-").replace('/', "_")),
            format!("argon2id${salt}${hash}$"),
            format!("argon2id${salt}$"),
            format!("argon2id$${hash}"),
            format!("argon2id${}${hash}", &salt[..20]),
            format!("argon2id${salt}AA${hash}"),
            format!("argon2id${salt}${}", &hash[..40]),
            format!("argon2id$v=19$m=65536,t=3,p=2${salt}${hash}"),
        ] {
            assert!(StoredHash::parse(&malformed).is_err(), "{malformed}");
        }
    }

    #[tokio::test]
    async fn a_new_hash_verifies_its_secret_and_has_its_own_salt() {
        let verifier = SecretVerifier::default();
        let (one, two) = (verifier.hash("cs_new").await.unwrap(), verifier.hash("cs_new").await.unwrap());
        assert_ne!(one, two);
        assert_eq!(verifier.verify(Some(&one), "cs_new", NOW).await, Ok(true));
        assert_eq!(verifier.verify(Some(&two), "cs_neW", NOW).await, Ok(false));
    }

    /// Whether `future` waits for something after having been polled.
    async fn waits<F: Future>(future: Pin<&mut F>) -> bool {
        tokio::select! {
            biased;
            _ = future => false,
            () = std::future::ready(()) => true,
        }
    }

    mod t02_sts_keys {
        use super::*;

        #[tokio::test]
        async fn only_the_right_secret_of_a_known_application_is_accepted() {
            let verifier = SecretVerifier::default();
            for (stored, presented, expected) in [
                (Some(STORED), SECRET, true),
                (Some(STORED), "cs_exampl", false),
                (Some(STORED), "cs_example ", false),
                (Some(STORED), "", false),
                (Some(UNREADABLE), SECRET, false),
                (Some(""), SECRET, false),
                (None, SECRET, false),
                (None, "", false),
            ] {
                assert_eq!(verifier.verify(stored, presented, NOW).await, Ok(expected), "{stored:?} {presented:?}");
            }
            assert_eq!(verifier.memory().successes.len(), 1);
        }

        /// D17: response times do not tell which applications exist.
        #[tokio::test]
        async fn unknown_malformed_wrong_and_right_secrets_all_pay_for_one_derivation() {
            let verifier = SecretVerifier::new(1);
            for (paid, (stored, presented)) in
                [(None, ""), (Some(UNREADABLE), SECRET), (Some(STORED), "wrong"), (Some(STORED), SECRET)]
                    .into_iter()
                    .enumerate()
            {
                verifier.verify(stored, presented, NOW).await.unwrap();
                assert_eq!(verifier.derivations(), paid as u64 + 1, "{stored:?} {presented:?}");
            }
            // Only what was right before is spared.
            assert_eq!(verifier.verify(Some(STORED), SECRET, NOW).await, Ok(true));
            assert_eq!(verifier.derivations(), 4);
        }

        #[tokio::test]
        async fn every_derivation_waits_for_a_slot() {
            let verifier = SecretVerifier::new(1);
            let slot = verifier.slot().await.unwrap();
            for (stored, presented) in [
                (None, SECRET),
                (None, ""),
                (Some(UNREADABLE), SECRET),
                (Some(STORED), "wrong"),
                (Some(STORED), SECRET),
            ] {
                assert!(waits(pin!(verifier.verify(stored, presented, NOW))).await, "{stored:?} {presented:?}");
            }
            assert!(waits(pin!(verifier.hash(SECRET))).await);
            drop(slot);
            assert_eq!(verifier.verify(Some(STORED), SECRET, NOW).await, Ok(true));
            let _slot = verifier.slot().await.unwrap();
            assert!(!waits(pin!(verifier.verify(Some(STORED), SECRET, NOW))).await);
            assert!(waits(pin!(verifier.verify(Some(STORED), "wrong", NOW))).await);
            assert!(waits(pin!(verifier.verify(None, SECRET, NOW))).await);
        }

        #[tokio::test]
        async fn a_rotated_secret_stops_at_once_and_a_wrong_one_changes_nothing() {
            let verifier = SecretVerifier::default();
            let rotated = StoredHash::derive("cs_rotated", [7; 16]).unwrap().to_text();
            assert_eq!(verifier.verify(Some(STORED), SECRET, NOW).await, Ok(true));
            assert_eq!(verifier.verify(Some(&rotated), SECRET, NOW).await, Ok(false));
            assert_eq!(verifier.verify(Some(&rotated), "cs_rotated", NOW).await, Ok(true));
            assert_eq!(verifier.verify(Some(STORED), "wrong", NOW).await, Ok(false));
            assert!(verifier.remembers(STORED, &sha256(SECRET.as_bytes()), NOW));
            assert!(!verifier.remembers(STORED, &sha256(b"wrong"), NOW));
            assert_eq!(verifier.memory().successes.len(), 2);
        }

        #[test]
        fn a_success_is_remembered_for_an_hour() {
            let verifier = SecretVerifier::default();
            let secret = sha256(SECRET.as_bytes());
            verifier.remember(STORED, secret, NOW);
            let end = NOW.plus(Duration::from_secs(3600));
            assert!(verifier.remembers(STORED, &secret, end.minus(Duration::from_micros(1))));
            assert!(!verifier.remembers(STORED, &secret, end));
            assert_eq!(verifier.recall(SECRET, end.minus(Duration::from_micros(1))).as_deref(), Some(STORED));
            assert_eq!(verifier.recall(SECRET, end), None);
        }

        #[test]
        fn a_secret_is_recalled_by_itself_and_for_what_it_was_right_for() {
            let verifier = SecretVerifier::default();
            let sha = |secret: &str| sha256(secret.as_bytes());
            assert_eq!(verifier.recall(SECRET, NOW), None);
            verifier.remember("one", sha("a"), NOW);
            verifier.remember("other", sha("b"), NOW);
            let recalled = |secret: &str| verifier.recall(secret, NOW);
            assert_eq!((recalled("a").as_deref(), recalled("b").as_deref()), (Some("one"), Some("other")));
            for unknown in ["", "A", "a ", "one", "c"] {
                assert_eq!(recalled(unknown), None, "{unknown}");
            }
            // What a hash is no longer remembered for is recalled for nothing.
            verifier.remember("one", sha("c"), NOW);
            assert_eq!((recalled("a"), recalled("c").as_deref()), (None, Some("one")));
            // And of all that is forgotten nothing is kept.
            for index in 0..2 * REMEMBERED {
                verifier.remember(&index.to_string(), sha(&index.to_string()), NOW.plus(Duration::from_secs(1)));
            }
            let memory = verifier.memory();
            assert!(memory.stored_by_secret.len() <= REMEMBERED && memory.successes.len() <= REMEMBERED);
        }
    }

    mod t08_availability {
        use super::*;

        #[tokio::test]
        async fn a_caller_who_leaves_while_waiting_holds_nothing() {
            let verifier = SecretVerifier::new(1);
            let slot = verifier.slot().await.unwrap();
            {
                let mut queued = pin!(verifier.verify(Some(STORED), SECRET, NOW));
                assert!(waits(queued.as_mut()).await);
                assert_eq!(verifier.waiting.available_permits(), MAX_WAITING - 1);
            }
            assert_eq!(verifier.waiting.available_permits(), MAX_WAITING);
            drop(slot);
            assert_eq!(verifier.slots.available_permits(), 1);
            assert_eq!(verifier.verify(Some(STORED), SECRET, NOW).await, Ok(true));
            assert_eq!(verifier.slots.available_permits(), 1);
            assert_eq!(verifier.waiting.available_permits(), MAX_WAITING);
        }

        #[tokio::test]
        async fn a_running_derivation_keeps_its_slot_when_its_caller_leaves() {
            let verifier = SecretVerifier::new(1);
            let (start, started) = std::sync::mpsc::channel::<()>();
            let (finish, finished) = std::sync::mpsc::channel::<()>();
            {
                let derivation = move || {
                    start.send(()).unwrap();
                    finished.recv().unwrap();
                };
                let mut running = pin!(verifier.in_slot(verifier.slot().await.unwrap(), derivation));
                assert!(waits(running.as_mut()).await);
                started.recv().unwrap();
            }
            assert_eq!(verifier.slots.available_permits(), 0);
            assert!(waits(pin!(verifier.verify(None, SECRET, NOW))).await);
            finish.send(()).unwrap();
            assert_eq!(verifier.verify(None, SECRET, NOW).await, Ok(false));
        }

        #[tokio::test]
        async fn callers_beyond_the_bound_are_told_to_come_back_before_they_cost_anything() {
            let verifier = SecretVerifier::new(1);
            verifier.remember(UNREADABLE, sha256(SECRET.as_bytes()), NOW);
            let all = verifier.waiting.acquire_many(u32::try_from(MAX_WAITING).unwrap()).await.unwrap();
            assert_eq!(verifier.verify(Some(STORED), SECRET, NOW).await, Err(VerifierUnavailable::Busy));
            assert_eq!(verifier.verify(None, SECRET, NOW).await, Err(VerifierUnavailable::Busy));
            assert_eq!(verifier.hash(SECRET).await, Err(VerifierUnavailable::Busy));
            assert_eq!(verifier.verify(Some(UNREADABLE), SECRET, NOW).await, Ok(true));
            drop(all);
            assert_eq!(verifier.verify(None, SECRET, NOW).await, Ok(false));
        }

        #[tokio::test]
        async fn agents_that_arrive_together_pay_once() {
            let verifier = SecretVerifier::new(1);
            let slot = verifier.slot().await.unwrap();
            let mut second = pin!(verifier.verify(Some(UNREADABLE), SECRET, NOW));
            assert!(waits(second.as_mut()).await);
            // The first one's success, while the second is waiting for the slot.
            verifier.remember(UNREADABLE, sha256(SECRET.as_bytes()), NOW);
            drop(slot);
            assert_eq!(second.await, Ok(true));
        }

        #[test]
        fn the_memory_is_bounded_and_gives_up_the_expired_then_the_oldest() {
            let verifier = SecretVerifier::default();
            let at = |second: usize| NOW.plus(Duration::from_secs(second.try_into().unwrap()));
            let remembers = |name: &str, now| verifier.remembers(name, &[1; 32], now);
            for index in 0..REMEMBERED {
                verifier.remember(&index.to_string(), [1; 32], at(usize::from(index >= 10)));
            }
            // Known already: nothing has to go.
            verifier.remember("0", [1; 32], at(2));
            assert_eq!(verifier.memory().successes.len(), REMEMBERED);
            // Nine of the oldest are over now.
            verifier.remember("new", [1; 32], at(3600));
            assert_eq!(verifier.memory().successes.len(), REMEMBERED - 8);
            assert!(remembers("0", at(3600)) && remembers("10", at(3600)) && !remembers("1", at(0)));
            // Full again, with nothing expired: one of the oldest goes.
            for index in 0..9 {
                verifier.remember(&format!("more {index}"), [1; 32], at(3600));
            }
            assert_eq!(verifier.memory().successes.len(), REMEMBERED);
            assert!(remembers("new", at(3600)) && remembers("more 8", at(3600)) && remembers("0", at(3600)));
        }
    }
}
