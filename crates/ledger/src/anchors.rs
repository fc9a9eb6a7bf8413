//! The old end of a chain. Evidence is kept for a number of days, and what goes leaves a sealed anchor: where the chain
//! begins now, and the hash of the last event that is gone (contract: audit-and-streams.md §5.5, W5).
//!
//! Somebody who owns the database removes the first rows of a chain that tell of what he did. Without anchors that would
//! look like retention. With them the chain has to begin behind an anchor whose seal only the audit key makes, and the
//! first row that is left has to link to the hash that the anchor names.
//!
//! An anchor must not launder anything: whoever asks for one says through which event the chain was verified, and no
//! later one is anchored.

use caracal_authority::Timestamp;
use caracal_store::retention::{self, Anchor};
use caracal_store::{StoreError, ZoneWrite, evidence, transparency};

use crate::append::Ledger;
use crate::chain::Head;
use crate::foreign::CLOCK_AHEAD;
use crate::hex;
use crate::keys::{ChainKey, Keys, Sealed};

/// Keeps these seals apart from everything else the audit key signs.
const DOMAIN: &str = "caracal ledger anchor v1\n";

fn message(anchor: &Anchor) -> String {
    let Anchor { zone_id, chain_seq, content_sha256, older_than, created_at, .. } = anchor;
    format!("{DOMAIN}{zone_id}\n{chain_seq}\n{content_sha256}\n{older_than}\n{created_at}")
}

/// Who made an anchor. Without the key that can't be told, and it is taken at its word, as links are.
pub(crate) fn made_by(keys: Option<&Keys<'_>>, anchor: &Anchor) -> Sealed {
    match keys {
        _ if anchor.chain_seq < 1 || !hex::is_sha256(&anchor.content_sha256) => Sealed::Wrong,
        Some(keys) => keys.who(message(anchor).as_bytes(), &anchor.seal, anchor.key_id.as_deref(), 0),
        None => Sealed::By(0),
    }
}

/// The event that an anchor stands for.
pub(crate) fn head_of(anchor: &Anchor) -> Head {
    Head { chain_seq: anchor.chain_seq, content_sha256: anchor.content_sha256.clone() }
}

impl Ledger {
    /// Anchors what was stored before `older_than` in the transaction's zone, but nothing behind position `through`, up
    /// to which the chain was found intact. Says whether there was something to anchor. The rows go with
    /// [`retention::remove_anchored`].
    pub async fn anchor(
        &self,
        tx: &mut ZoneWrite<'_>,
        older_than: Timestamp,
        through: i64,
    ) -> Result<bool, StoreError> {
        let latest = tx.now().plus(CLOCK_AHEAD);
        let Some(older) = retention::find_last_older(tx, older_than, latest).await? else { return Ok(false) };
        // What is not in the tree yet has to be there to come into it.
        let in_tree = transparency::find_tree(tx).await?.map_or(i64::MAX, |tree| tree.size);
        let chain_seq = older.chain_seq.min(through).min(in_tree);
        let row = evidence::list_between(tx, chain_seq.saturating_sub(1), chain_seq, 1).await?.pop();
        let Some(row) = row else { return Ok(false) };
        if retention::find_anchor(tx).await?.is_some_and(|newest| newest.chain_seq >= chain_seq) {
            return Ok(false);
        }
        let mut anchor = Anchor {
            zone_id: tx.zone().as_str().to_owned(),
            chain_seq,
            content_sha256: row.content_sha256,
            older_than: older_than.as_micros(),
            created_at: tx.now().as_micros(),
            seal: String::new(),
            key_id: self.key_id().map(str::to_owned),
        };
        let seal = |key: &dyn ChainKey| hex::encode(&key.sign(message(&anchor).as_bytes()));
        anchor.seal = self.key().map(seal).unwrap_or_default();
        retention::add_anchor(tx, &anchor).await?;
        Ok(true)
    }
}
