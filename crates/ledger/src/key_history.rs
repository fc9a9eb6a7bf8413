//! Which audit keys a deployment has used, and since when: in the store, by their public names. It proves nothing, since
//! whoever owns the database can write it; it keeps operators from what would look like tampering afterwards. A process
//! starts only with every key that the ledger was sealed with, and never under one that was replaced.

use caracal_authority::{Timestamp, ZoneId};
use caracal_store::admin_evidence::{self, ZONELESS_CHAIN};
use caracal_store::evidence::{self, ChainRow};
use caracal_store::{DeploymentRead, DeploymentWrite, StoreError, ZoneRead, deployment};
use serde::{Deserialize, Serialize};

use crate::chain::{ChainLink, sealed_text};
use crate::keys::{ChainKey, Keys, Sealed, key_ids};
use crate::stored::{admin_row, event_row};

const NAME: &str = "audit_keys";

/// Why a process must not go on with the keys it was given. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysRefused {
    /// The ledger was sealed with a key that is not among them.
    #[error(
        "the ledger was signed with an audit key that is not at hand (id {0}): give that key as AUDIT_HMAC_KEY, or, if it \
         was replaced, among those in AUDIT_HMAC_KEY_PREVIOUS"
    )]
    Unknown(String),
    /// The ledger is older than the names of keys, and none of them made the seals at its ends.
    #[error(
        "the ledger's last events were not signed with the audit key at hand: give the key that was in use as \
         AUDIT_HMAC_KEY, or, if it was replaced, as AUDIT_HMAC_KEY_PREVIOUS"
    )]
    Others,
    /// The one to be used was replaced by another.
    #[error(
        "AUDIT_HMAC_KEY is a key that was replaced (id {replaced}): the ledger goes on under another one (id {by}). Give \
         that one, or a new one, as AUDIT_HMAC_KEY, and those before it as AUDIT_HMAC_KEY_PREVIOUS"
    )]
    Replaced {
        /// Its name.
        replaced: String,
        /// The name of the one in use.
        by: String,
    },
    /// Those before are not in the order they were used in.
    #[error(
        "the keys in AUDIT_HMAC_KEY_PREVIOUS are not in the order in which they were used (ids {}): the one that was in \
         use last comes first",
        .0.join(", ")
    )]
    Order(Vec<String>),
}

/// A key, as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Used {
    id: String,
    /// When it was first used, in microseconds since 1970.
    since: i64,
}

/// Whether a process can go on with these keys. Changes nothing.
pub async fn check_keys(
    tx: &mut DeploymentRead<'_>,
    key: &dyn ChainKey,
) -> Result<Result<(), KeysRefused>, StoreError> {
    let used = read(tx).await?;
    if !used.is_empty() {
        return Ok(judge(&key_ids(key), &used));
    }
    let (keys, mut others) = (Keys::of(key), false);
    let mut is_ours = |row: Option<ChainLink>| {
        let Some(link) = row.filter(|link| !link.chain_hmac.is_empty()) else { return false };
        let message = sealed_text(&link.content_sha256, link.prev_content_sha256.as_deref());
        let known = matches!(keys.who(&message, &link.chain_hmac, None, 0), Sealed::By(_));
        others |= !known;
        known
    };
    // One that is ours is enough: what is wrong with the others is for the verifier to say.
    for zone in evidence::list_chains(tx).await? {
        if is_ours(last_event(&mut tx.zone(&zone)).await?) {
            return Ok(Ok(()));
        }
    }
    for chain in admin_evidence::list_chains(tx).await? {
        if is_ours(last_change(tx, &chain).await?) {
            return Ok(Ok(()));
        }
    }
    Ok(if others { Err(KeysRefused::Others) } else { Ok(()) })
}

async fn last_event(tx: &mut ZoneRead<'_>) -> Result<Option<ChainLink>, StoreError> {
    let Some(head) = evidence::head(tx).await? else { return Ok(None) };
    let row = evidence::list_chain(tx, head.chain_seq, 1).await?.pop();
    Ok(row.and_then(|row| match row {
        ChainRow::Read(row) => Some(event_row(row).link),
        ChainRow::Unreadable { .. } => None,
    }))
}

async fn last_change(tx: &mut DeploymentRead<'_>, chain: &str) -> Result<Option<ChainLink>, StoreError> {
    let head = match ZoneId::parse(chain) {
        Ok(zone) if chain != ZONELESS_CHAIN => admin_evidence::head(&mut tx.zone(&zone)).await?,
        _ => admin_evidence::zoneless_head(tx).await?,
    };
    let Some(head) = head else { return Ok(None) };
    let row = admin_evidence::list_chain(tx, chain, head.chain_seq, 1).await?.pop();
    Ok(row.and_then(|row| match row {
        ChainRow::Read(row) => Some(admin_row(row).link),
        ChainRow::Unreadable { .. } => None,
    }))
}

async fn read(tx: &mut DeploymentRead<'_>) -> Result<Vec<Used>, StoreError> {
    let Some(text) = deployment::lookup(tx, NAME).await? else { return Ok(Vec::new()) };
    let unreadable = |error| StoreError::Corrupt { table: "deployment", what: format!("`{NAME}`: {error}") };
    serde_json::from_str(&text).map_err(unreadable)
}

/// Notes that the key in use is, and says since when it is. For a process that was let pass and begins to use it.
pub async fn note_keys(
    tx: &mut DeploymentWrite<'_>,
    key: &dyn ChainKey,
    now: Timestamp,
) -> Result<Result<Timestamp, KeysRefused>, StoreError> {
    let ids = key_ids(key);
    let Some(current) = ids.first() else { return Ok(Ok(now)) };
    let mut used = read(tx).await?;
    if let Err(refused) = judge(&ids, &used) {
        return Ok(Err(refused));
    }
    if let Some(last) = used.last().filter(|last| last.id == *current) {
        return Ok(Ok(Timestamp::from_micros(last.since)));
    }
    if used.is_empty() {
        // Of a ledger from before this was noted: what is said to have been used before was.
        used.extend(ids.iter().skip(1).rev().map(|id| Used { id: id.clone(), since: 0 }));
    }
    used.push(Used { id: current.clone(), since: now.as_micros() });
    let text = serde_json::to_string(&used).map_err(|error| StoreError::Statement { reason: error.to_string() })?;
    deployment::put(tx, NAME, &text).await?;
    Ok(Ok(now))
}

fn judge(ids: &[String], used: &[Used]) -> Result<(), KeysRefused> {
    let mut ages = Vec::new();
    for Used { id, .. } in used {
        let age = ids.iter().position(|known| known == id);
        ages.push(age.ok_or_else(|| KeysRefused::Unknown(id.clone()))?);
    }
    let replaced = ages.iter().rev().skip(1).any(|age| *age == 0);
    if let (true, Some(current), Some(last)) = (replaced, ids.first(), used.last()) {
        return Err(KeysRefused::Replaced { replaced: current.clone(), by: last.id.clone() });
    }
    // Each is newer than the one used before it.
    if ages.is_sorted_by(|before, after| before > after) {
        return Ok(());
    }
    Err(KeysRefused::Order(
        used.iter().rev().map(|used| used.id.clone()).filter(|id| Some(id) != ids.first()).collect(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(ids: &str, used: &str) -> Result<(), KeysRefused> {
        let ids: Vec<String> = ids.chars().map(String::from).collect();
        let used: Vec<Used> = used.chars().map(|id| Used { id: id.to_string(), since: 0 }).collect();
        judge(&ids, &used)
    }

    #[test]
    fn a_process_goes_on_only_with_every_key_that_was_used_and_under_none_that_was_replaced() {
        // The keys at hand, the one in use first, and those that were used, the first one first.
        for (ids, used) in
            [("a", ""), ("a", "a"), ("ba", "a"), ("ba", "ab"), ("cba", "ab"), ("ba", "b"), ("cxba", "ab")]
        {
            assert_eq!(judged(ids, used), Ok(()), "{ids} {used}");
        }
        let unknown = |id: &str| Err(KeysRefused::Unknown(id.to_owned()));
        assert_eq!(judged("b", "a"), unknown("a"));
        assert_eq!(judged("a", "ab"), unknown("b"));
        assert_eq!(judged("cb", "abc"), unknown("a"));
        let replaced =
            |replaced: &str, by: &str| Err(KeysRefused::Replaced { replaced: replaced.to_owned(), by: by.to_owned() });
        assert_eq!(judged("ab", "ab"), replaced("a", "b"));
        assert_eq!(judged("bca", "abc"), replaced("b", "c"));
        assert_eq!(judged("cab", "ab"), Err(KeysRefused::Order(vec!["b".to_owned(), "a".to_owned()])));
    }
}
