//! Zone signing keys. A zone gets its first pair at its first mint; the newest pair signs. A key never changes under
//! its `kid`, so opened pairs and public keys may be remembered for ever.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use caracal_authority::{KeyId, ZoneId};
use caracal_crypto::chance;
use caracal_crypto::encoding::{base64url, from_base64url};
use caracal_crypto::envelope::KekRing;
use caracal_crypto::jws::{Jwk, Jwks, PublicKey, SignError, SigningKey};
use caracal_store::signing_keys::{self, SigningKeyRow};
use caracal_store::{Store, StoreError, ZoneRead};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::CustodyError;

/// Opened pairs and public keys remembered at most; beyond it the memory starts afresh.
const REMEMBERED: usize = 16_384;

/// A zone's signing key, opened.
pub struct ZoneKey {
    kid: KeyId,
    key: SigningKey,
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
        self.key.sign(self.kid.as_str(), claims)
    }
}

/// The signing keys of all zones.
pub struct SigningKeys {
    store: Store,
    ring: Arc<KekRing>,
    opened: Mutex<HashMap<(ZoneId, KeyId), Arc<ZoneKey>>>,
    public: RwLock<HashMap<ZoneId, HashMap<String, PublicKey>>>,
}

impl SigningKeys {
    /// Over `store`, sealed under `ring`.
    pub fn new(store: Store, ring: Arc<KekRing>) -> Self {
        Self { store, ring, opened: Mutex::default(), public: RwLock::default() }
    }

    /// The key that signs in the transaction's zone, as that transaction sees it; `None` before the first mint.
    pub async fn signing_key(&self, tx: &mut ZoneRead<'_>) -> Result<Option<Arc<ZoneKey>>, CustodyError> {
        let Some(kid) = signing_keys::find_newest_id(tx).await? else { return Ok(None) };
        let place = (tx.zone().clone(), kid);
        if let Some(known) = self.opened.lock().unwrap_or_else(PoisonError::into_inner).get(&place) {
            return Ok(Some(known.clone()));
        }
        let Some(row) = signing_keys::lookup(tx, &place.1).await? else { return Ok(None) };
        let key = self.open(&row)?;
        Ok(Some(self.remember(place, key)))
    }

    /// The zone's signing key, made now if there is none yet. Concurrent callers get the same one.
    pub async fn create(&self, zone: &ZoneId) -> Result<Arc<ZoneKey>, CustodyError> {
        let (key, pkcs8) = SigningKey::generate()?;
        let kid = KeyId::parse(&chance::uuid_v7(self.store.now())?.to_string())
            .map_err(|_| CustodyError::Foreign { place: "a new key id".to_owned() })?;
        let (x, y) = key.public().coordinates();
        let row = SigningKeyRow {
            zone_id: zone.clone(),
            sealed_private: self.ring.seal(&private_key_ref(zone, &kid), pkcs8.expose())?,
            kid: kid.clone(),
            version: 1,
            public_x: base64url(x),
            public_y: base64url(y),
            created_at: self.store.now(),
        };
        let added: Result<(), StoreError> =
            self.store.commit(zone, row, |tx, row| Box::pin(async move { signing_keys::add(tx, row).await })).await;
        match added {
            Ok(()) => Ok(self.remember((zone.clone(), kid), key)),
            Err(error) if error.is_conflict() => {
                let mut snapshot = self.store.snapshot().await?;
                let found = self.signing_key(&mut snapshot.zone(zone)).await?;
                found.ok_or_else(|| CustodyError::Foreign { place: format!("the signing key of zone {zone}") })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The public key that `kid` names in `zone`; `None` when the zone has no such key.
    pub async fn verification_key(&self, zone: &ZoneId, kid: &str) -> Result<Option<PublicKey>, CustodyError> {
        if let Some(key) = self.remembered(zone, kid) {
            return Ok(Some(key));
        }
        let Ok(kid) = KeyId::parse(kid) else { return Ok(None) };
        let mut snapshot = self.store.snapshot().await?;
        let Some(row) = signing_keys::lookup(&mut snapshot.zone(zone), &kid).await? else { return Ok(None) };
        // Whoever can write to the store but has no key-encryption key could otherwise put a key of their own there and
        // have what it signed believed. The private half sealed beside it is opened once per key, then it is remembered.
        let key = self.open(&row)?.public().clone();
        let mut remembered = self.public.write().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.entry(zone.clone()).or_default().insert(kid.as_str().to_owned(), key.clone());
        Ok(Some(key))
    }

    /// The zone's published keys, newest first; `None` before its first mint. Reads public halves only.
    pub async fn jwks(&self, zone: &ZoneId) -> Result<Option<Jwks>, CustodyError> {
        let mut snapshot = self.store.snapshot().await?;
        let rows = signing_keys::list(&mut snapshot.zone(zone)).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        // A damaged key is left out; what it signed can't be verified, everything else still can.
        let keys = rows.iter().filter_map(|row| match public_key(row) {
            Ok(key) => Some(Jwk::new(row.kid.as_str(), &key)),
            Err(error) => {
                tracing::error!(zone = %zone, kid = %row.kid, %error, "a signing key is left out of the key set");
                None
            }
        });
        Ok(Some(Jwks { keys: keys.collect() }))
    }

    /// The pair that lies in `row`; refused unless the public half there belongs to the private half sealed beside it.
    fn open(&self, row: &SigningKeyRow) -> Result<SigningKey, CustodyError> {
        let place = private_key_ref(&row.zone_id, &row.kid);
        let sealed = self.ring.open(&place, &row.sealed_private);
        let pkcs8 = sealed.map_err(|reason| CustodyError::Sealed { place: place.clone(), reason })?;
        let key = SigningKey::from_pkcs8(pkcs8.expose()).map_err(|_| CustodyError::Foreign { place: place.clone() })?;
        if public_key(row)? == *key.public() { Ok(key) } else { Err(CustodyError::Foreign { place }) }
    }

    fn remembered(&self, zone: &ZoneId, kid: &str) -> Option<PublicKey> {
        let known = self.public.read().unwrap_or_else(PoisonError::into_inner);
        known.get(zone).and_then(|keys| keys.get(kid)).cloned()
    }

    fn remember(&self, place: (ZoneId, KeyId), key: SigningKey) -> Arc<ZoneKey> {
        let key = Arc::new(ZoneKey { kid: place.1.clone(), key });
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.len() >= REMEMBERED {
            opened.clear();
        }
        opened.insert(place, key.clone());
        key
    }
}

fn private_key_ref(zone: &ZoneId, kid: &KeyId) -> String {
    format!("zones/{zone}/signingKeys/{kid}")
}

fn public_key(row: &SigningKeyRow) -> Result<PublicKey, CustodyError> {
    let foreign = || CustodyError::Foreign { place: format!("zones/{}/signingKeys/{}/public", row.zone_id, row.kid) };
    let coordinate = |text: &str| from_base64url(text).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let x = coordinate(&row.public_x).ok_or_else(foreign)?;
    let y = coordinate(&row.public_y).ok_or_else(foreign)?;
    PublicKey::from_coordinates(&x, &y).map_err(|_| foreign())
}
