//! Zone signing keys. A zone gets its first pair at its first mint, and another with every rotation; [`crate::schedule`] says
//! which of them signs, and which are believed.
//!
//! A key never changes under its `kid`, but for how long it is believed does: a rotation may follow in any process. So a
//! public key is remembered for one cache period and then looked up again, which is early enough: a key retires more than
//! an hour after its successor is published.
//!
//! A key that may be in other hands does not retire, it is withdrawn: [`NewKey::replace_all`] takes every key from the zone
//! and gives it one that signs at once. Whoever remembers a withdrawn key is told to [forget](VerificationKeys::forget).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use caracal_authority::{KeyId, OutboxId, Timestamp, ZoneId};
use caracal_crypto::chance;
use caracal_crypto::encoding::{base64url, from_base64url};
use caracal_crypto::envelope::KekRing;
use caracal_crypto::jws::{Jwk, Jwks, PublicKey, SignError, SigningKey};
use caracal_store::signing_keys::{self, SigningKeyRow};
use caracal_store::{BoxFuture, Store, ZoneRead, ZoneWrite, outbox};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::schedule::{self, CACHE_PERIOD, Crowded, Turn};
use crate::sealed_secrets::open_at;
use crate::{CustodyError, VerificationKeys};

/// Opened pairs and public keys remembered at most; beyond it the memory starts afresh.
const REMEMBERED: usize = 16_384;

/// How long a key id that its zone does not have is not looked for again. Ids are not guessed before they are made, and a
/// key is published long before it signs, so nobody honest waits for it.
const COOL_DOWN: Duration = Duration::from_secs(30);

/// A zone's signing key, opened.
pub struct ZoneKey {
    kid: KeyId,
    key: SigningKey,
    /// How much all keys together have signed.
    signed: Arc<AtomicU64>,
}

impl ZoneKey {
    /// Its key id.
    pub fn kid(&self) -> &KeyId {
        &self.kid
    }

    /// Bytes of the JSON header of every token this key signs.
    pub fn header_bytes(&self) -> usize {
        r#"{"alg":"ES256","kid":"","typ":"JWT"}"#.len() + self.kid.as_str().len()
    }

    /// Signs a payload that is JSON text of an object already.
    pub fn sign_payload(&self, payload: Vec<u8>) -> Result<String, SignError> {
        let text = String::from_utf8(payload).map_err(|_| SignError::NotAnObject)?;
        self.sign(&RawValue::from_string(text)?)
    }

    /// Signs `claims` as a compact JWS that names this key.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, SignError> {
        self.signed.fetch_add(1, Ordering::Relaxed);
        self.key.sign(self.kid.as_str(), claims)
    }

    /// Signs what is no mandate, and says what it is in the header.
    pub fn sign_as(&self, typ: &str, claims: &impl Serialize) -> Result<String, SignError> {
        self.signed.fetch_add(1, Ordering::Relaxed);
        self.key.sign_as(typ, self.kid.as_str(), claims)
    }
}

/// The signing keys of all zones.
pub struct SigningKeys {
    store: Store,
    ring: Arc<KekRing>,
    /// The key that signs, for each zone. The one before is let go with its turn.
    opened: Mutex<HashMap<ZoneId, Arc<ZoneKey>>>,
    public: RwLock<HashMap<ZoneId, HashMap<String, Known>>>,
    unknown: Mutex<HashMap<(ZoneId, KeyId), Timestamp>>,
    /// How often somebody was told to forget. Counted under the lock of `public`: what was read before that is not
    /// remembered after it.
    forgotten: AtomicU64,
    /// Keys that were found damaged.
    damaged: AtomicU64,
    signed: Arc<AtomicU64>,
}

/// A public key and the time within which it need not be looked up again.
struct Known {
    key: PublicKey,
    from: Timestamp,
    until: Timestamp,
}

/// A key pair that no zone has yet.
pub struct NewKey {
    row: SigningKeyRow,
}

/// The key that took the place of all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// The new key.
    pub made: Rotation,
    /// Those that were withdrawn, newest first.
    pub withdrawn: Vec<KeyId>,
}

/// A key that was added to its zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// Its key id.
    pub kid: KeyId,
    /// From when on it signs.
    pub signs_from: Timestamp,
}

impl NewKey {
    /// Adds it to its zone, within the change `tx`: published with that commit, it signs a while later. Keys that
    /// have retired go with the same commit.
    pub async fn add(&self, tx: &mut ZoneWrite<'_>) -> Result<Rotation, CustodyError> {
        let now = tx.now();
        let turns: Vec<Turn> = signing_keys::list(tx).await?.iter().map(turn).collect();
        let own = schedule::next(&turns, now)
            .map_err(|Crowded { retry_after }| CustodyError::Crowded { zone: tx.zone().clone(), retry_after })?;
        let row =
            SigningKeyRow { version: own.version, created_at: now, signs_from: own.signs_from, ..self.row.clone() };
        signing_keys::add(tx, &row).await?;
        let published =
            turns.iter().map(|turn| turn.version).filter(|version| schedule::is_published(&turns, *version, now));
        signing_keys::purge_below(tx, published.min().unwrap_or(own.version)).await?;
        Ok(Rotation { kid: row.kid, signs_from: row.signs_from.max(now) })
    }

    /// Takes every key from the zone, those that do not sign yet included, and makes this the one that signs, within the
    /// change `tx`. From that commit on nothing that any other key signed is believed here; the messages that go out
    /// with it tell everybody who remembers one of them.
    pub async fn replace_all(&self, tx: &mut ZoneWrite<'_>) -> Result<Replacement, CustodyError> {
        let now = tx.now();
        let last = signing_keys::list(tx).await?.iter().map(|row| row.version).max().unwrap_or(0);
        let withdrawn = signing_keys::withdraw_all(tx).await?;
        // It has no predecessor, so like the first key of a zone it signs whatever the time is.
        let row =
            SigningKeyRow { version: last + 1, created_at: now, signs_from: Timestamp::EPOCH, ..self.row.clone() };
        signing_keys::add(tx, &row).await?;
        for kid in &withdrawn {
            let id = chance::uuid_v7(now)?.to_string();
            let id = OutboxId::parse(&id).map_err(|_| CustodyError::Foreign { place: "a message id".to_owned() })?;
            let fields = vec![("kid".to_owned(), kid.to_string()), ("zone_id".to_owned(), tx.zone().to_string())];
            outbox::add(tx, id, signing_keys::WITHDRAWN, kid.as_str(), fields).await?;
        }
        Ok(Replacement { made: Rotation { kid: row.kid, signs_from: now }, withdrawn })
    }
}

impl SigningKeys {
    /// Over `store`, sealed under `ring`.
    pub fn new(store: Store, ring: Arc<KekRing>) -> Self {
        Self {
            store,
            ring,
            opened: Mutex::default(),
            public: RwLock::default(),
            unknown: Mutex::default(),
            forgotten: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
            signed: Arc::default(),
        }
    }

    /// How often a key could not be published because what lies in the store is damaged or was sealed for another place.
    pub fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Signatures made since the start.
    pub fn signatures(&self) -> u64 {
        self.signed.load(Ordering::Relaxed)
    }

    /// The key that signs in the transaction's zone, as that transaction sees it; `None` before the first mint.
    pub async fn signing_key(&self, tx: &mut ZoneRead<'_>) -> Result<Option<Arc<ZoneKey>>, CustodyError> {
        let Some(kid) = signing_keys::find_signing_id(tx).await? else { return Ok(None) };
        if let Some(known) = self.opened.lock().unwrap_or_else(PoisonError::into_inner).get(tx.zone())
            && known.kid == kid
        {
            return Ok(Some(known.clone()));
        }
        let Some(row) = signing_keys::lookup(tx, &kid).await? else { return Ok(None) };
        let key = self.open(&row)?;
        Ok(Some(self.remember(tx.zone(), kid, key)))
    }

    /// The zone's signing key, made now if there is none yet. Concurrent callers get the same one.
    pub async fn create(&self, zone: &ZoneId) -> Result<Arc<ZoneKey>, CustodyError> {
        let (row, key) = self.generate(zone)?;
        let kid = row.kid.clone();
        let added: Result<bool, CustodyError> = self
            .store
            .commit(zone, NewKey { row }, |tx, new| {
                Box::pin(async move {
                    let is_first = signing_keys::list(tx).await?.is_empty();
                    if is_first {
                        new.add(tx).await?;
                    }
                    Ok(is_first)
                })
            })
            .await;
        if added? {
            return Ok(self.remember(zone, kid, key));
        }
        let mut snapshot = self.store.snapshot().await?;
        let found = self.signing_key(&mut snapshot.zone(zone)).await?;
        found.ok_or_else(|| CustodyError::Foreign { place: format!("the signing key of zone {zone}") })
    }

    /// A fresh pair for `zone`, sealed for its place, to be added with [`NewKey::add`].
    pub fn prepare(&self, zone: &ZoneId) -> Result<NewKey, CustodyError> {
        self.generate(zone).map(|(row, _)| NewKey { row })
    }

    /// The public key that `kid` names in `zone`; `None` when the zone has no such key, or has it no more.
    pub async fn verification_key(&self, zone: &ZoneId, kid: &str) -> Result<Option<PublicKey>, CustodyError> {
        let now = self.store.now();
        if let Some(key) = self.remembered(zone, kid, now) {
            return Ok(Some(key));
        }
        let Ok(kid) = KeyId::parse(kid) else { return Ok(None) };
        let place = (zone.clone(), kid);
        if self.is_unknown(&place, now) {
            return Ok(None);
        }
        let (zone, kid) = &place;
        let read_at = self.forgotten.load(Ordering::Acquire);
        let mut snapshot = self.store.snapshot().await?;
        let now = snapshot.now();
        let rows = signing_keys::list(&mut snapshot.zone(zone)).await?;
        drop(snapshot);
        let turns: Vec<Turn> = rows.iter().map(turn).collect();
        let row = rows.iter().find(|row| row.kid == *kid);
        let Some(row) = row.filter(|row| schedule::is_published(&turns, row.version, now)) else {
            self.note_unknown(place, now);
            return Ok(None);
        };
        self.checked(row, &turns, now, read_at).map(Some)
    }

    /// The zone's published keys, newest first; `None` before its first mint. Only those whose sealed halves open: others
    /// take what is published here for this zone's.
    pub async fn jwks(&self, zone: &ZoneId) -> Result<Option<Jwks>, CustodyError> {
        let read_at = self.forgotten.load(Ordering::Acquire);
        let mut snapshot = self.store.snapshot().await?;
        let now = snapshot.now();
        let rows = signing_keys::list(&mut snapshot.zone(zone)).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let turns: Vec<Turn> = rows.iter().map(turn).collect();
        let published = rows.iter().filter(|row| schedule::is_published(&turns, row.version, now));
        // A damaged key is left out; what it signed can't be verified, everything else still can.
        let keys = published.filter_map(|row| match self.checked(row, &turns, now, read_at) {
            Ok(key) => Some(Jwk::new(row.kid.as_str(), &key)),
            Err(error) => {
                self.damaged.fetch_add(1, Ordering::Relaxed);
                tracing::error!(zone = %zone, kid = %row.kid, %error, "a signing key is left out of the key set");
                None
            }
        });
        Ok(Some(Jwks { keys: keys.collect() }))
    }

    /// A new pair, and its row but for its turn, which is given when it is added.
    fn generate(&self, zone: &ZoneId) -> Result<(SigningKeyRow, SigningKey), CustodyError> {
        let (key, pkcs8) = SigningKey::generate()?;
        let now = self.store.now();
        let kid = KeyId::parse(&chance::uuid_v7(now)?.to_string())
            .map_err(|_| CustodyError::Foreign { place: "a new key id".to_owned() })?;
        let (x, y) = key.public().coordinates();
        let row = SigningKeyRow {
            zone_id: zone.clone(),
            sealed_private: self.ring.seal(&private_key_ref(zone, &kid), pkcs8.expose())?,
            kid,
            version: 0,
            public_x: base64url(x),
            public_y: base64url(y),
            created_at: now,
            signs_from: now,
        };
        Ok((row, key))
    }

    /// The pair that lies in `row`; refused unless the public half there belongs to the private half sealed beside it.
    fn open(&self, row: &SigningKeyRow) -> Result<SigningKey, CustodyError> {
        let place = private_key_ref(&row.zone_id, &row.kid);
        let sealed = open_at(&self.ring, &place, FORMER_PLACE, &row.sealed_private);
        let pkcs8 = sealed.map_err(|reason| CustodyError::Sealed { place: place.clone(), reason })?.plaintext;
        let key = SigningKey::from_pkcs8(pkcs8.expose()).map_err(|_| CustodyError::Foreign { place: place.clone() })?;
        if public_key(row)? == *key.public() { Ok(key) } else { Err(CustodyError::Foreign { place }) }
    }

    /// The public key of `row`, one of `turns`. Whoever can write to the store but has no key-encryption key could
    /// otherwise put a key of their own there and have what it signed believed; so the private half sealed beside it is
    /// opened, unless that was done a moment ago. `read_at`: how often somebody had been told to forget when it was read.
    fn checked(
        &self,
        row: &SigningKeyRow,
        turns: &[Turn],
        now: Timestamp,
        read_at: u64,
    ) -> Result<PublicKey, CustodyError> {
        let key = public_key(row)?;
        if self.remembered(&row.zone_id, row.kid.as_str(), now).is_some_and(|known| known == key) {
            return Ok(key);
        }
        let key = self.open(row)?.public().clone();
        let longest = now.plus(CACHE_PERIOD);
        let until = schedule::retires_at(turns, row.version).map_or(longest, |end| end.min(longest));
        let known = Known { key: key.clone(), from: now, until };
        let mut remembered = self.public.write().unwrap_or_else(PoisonError::into_inner);
        if self.forgotten.load(Ordering::Acquire) != read_at {
            return Ok(key);
        }
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        let of_zone = remembered.entry(row.zone_id.clone()).or_default();
        // What retired is never asked for again.
        of_zone.retain(|_, known| now < known.until);
        of_zone.insert(row.kid.as_str().to_owned(), known);
        Ok(key)
    }

    fn remembered(&self, zone: &ZoneId, kid: &str, now: Timestamp) -> Option<PublicKey> {
        let remembered = self.public.read().unwrap_or_else(PoisonError::into_inner);
        let known = remembered.get(zone).and_then(|keys| keys.get(kid))?;
        // A clock that was put back would else make the memory last for longer.
        (known.from <= now && now < known.until).then(|| known.key.clone())
    }

    fn is_unknown(&self, place: &(ZoneId, KeyId), now: Timestamp) -> bool {
        let unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        unknown.get(place).is_some_and(|since| *since <= now && now < since.plus(COOL_DOWN))
    }

    fn note_unknown(&self, place: (ZoneId, KeyId), now: Timestamp) {
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        if unknown.len() >= REMEMBERED {
            unknown.clear();
        }
        unknown.insert(place, now);
    }

    fn remember(&self, zone: &ZoneId, kid: KeyId, key: SigningKey) -> Arc<ZoneKey> {
        let key = Arc::new(ZoneKey { kid, key, signed: self.signed.clone() });
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.len() >= REMEMBERED {
            opened.clear();
        }
        opened.insert(zone.clone(), key.clone());
        key
    }
}

fn turn(row: &SigningKeyRow) -> Turn {
    Turn { version: row.version, signs_from: row.signs_from }
}

/// What private halves are bound to in envelopes that were not made here (contract: audit-and-streams.md §9.1).
pub(crate) const FORMER_PLACE: &str = "caracal/secrets/zoneSigningKey";

pub(crate) fn private_key_ref(zone: &ZoneId, kid: &KeyId) -> String {
    format!("zones/{zone}/signingKeys/{kid}")
}

fn public_key(row: &SigningKeyRow) -> Result<PublicKey, CustodyError> {
    let foreign = || CustodyError::Foreign { place: format!("zones/{}/signingKeys/{}/public", row.zone_id, row.kid) };
    let coordinate = |text: &str| from_base64url(text).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let x = coordinate(&row.public_x).ok_or_else(foreign)?;
    let y = coordinate(&row.public_y).ok_or_else(foreign)?;
    PublicKey::from_coordinates(&x, &y).map_err(|_| foreign())
}

impl VerificationKeys for SigningKeys {
    fn verification_key<'a>(
        &'a self,
        zone: &'a ZoneId,
        kid: &'a str,
    ) -> BoxFuture<'a, Result<Option<PublicKey>, CustodyError>> {
        Box::pin(self.verification_key(zone, kid))
    }

    fn forget(&self, zone: &ZoneId) {
        let mut remembered = self.public.write().unwrap_or_else(PoisonError::into_inner);
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        remembered.remove(zone);
        drop(remembered);
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).remove(zone);
    }
}
