//! What a leaf of the tree is: the link of an event, not the event. It commits to every stored column of the row: the
//! content hash covers what the event says, the other lines are the rest. So the log can be given to anybody who should
//! watch it without telling what happened, and still shows it whole when the events themselves are past their time.

use crate::chain::ChainLink;
use crate::hex;

/// The first line of every entry.
const KIND: &str = "caracal.ledger.event/1";

/// The entry of an event with this link, in this zone, stored at `ingested_at` (microseconds since 1970). `None` when
/// these columns can't be what was written.
pub fn entry(zone: &str, link: &ChainLink, ingested_at: i64) -> Option<Vec<u8>> {
    let is_hash = hex::is_sha256;
    let prev = link.prev_content_sha256.as_deref();
    let is_whole = link.chain_seq >= 1
        && is_hash(&link.content_sha256)
        && prev.is_none_or(is_hash)
        && (link.chain_hmac.is_empty() || is_hash(&link.chain_hmac))
        && !zone.is_empty()
        && !zone.contains(char::is_control);
    let ChainLink { chain_seq, content_sha256, chain_hmac, .. } = link;
    let prev = prev.unwrap_or_default();
    is_whole.then(|| {
        format!("{KIND}\n{zone}\n{chain_seq}\n{ingested_at}\n{content_sha256}\n{prev}\n{chain_hmac}\n").into_bytes()
    })
}
