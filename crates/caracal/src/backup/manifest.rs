//! What an archive says of itself.

use caracal_crypto::hmac::HmacRing;
use caracal_ledger::LedgerReport;
use serde::{Deserialize, Serialize};

use crate::settings::SecretFiles;

/// The layout of archives that this version writes and reads.
pub(super) const FORMAT: u32 = 1;
const PRODUCT: &str = "caracal";
/// Keeps these seals apart from everything else the audit key signs.
const DOMAIN: &[u8] = b"caracal backup manifest v1\n";

pub(super) const STORE: &str = "store.db";
pub(super) const HEADS: &str = caracal_ledger::heads::FILE_NAME;
/// What the names of key files begin with.
pub(super) const SECRETS: &str = "secrets/";

/// What is in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// `caracal`.
    pub product: String,
    /// Layout of the archive.
    pub format: u32,
    /// The version that wrote it.
    pub version: String,
    /// The store's schema.
    pub schema: i64,
    /// When the copy was made.
    pub created_at: String,
    /// Whether the key files are in it.
    pub with_secrets: bool,
    /// Everything else in the archive, in order.
    pub parts: Vec<Part>,
    /// The ledger in it.
    pub ledger: LedgerSummary,
}

/// One member of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its name in the archive.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its hash, lower-case hex.
    pub sha256: String,
}

/// What verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerSummary {
    /// Whether seals and heads were checked: not without the audit key.
    pub seals_checked: bool,
    /// Events in all chains.
    pub events: u64,
    /// The chains and where they end.
    pub chains: Vec<ChainSummary>,
}

/// One chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainSummary {
    /// `evidence` or `admin`.
    pub chain: String,
    /// Its zone, if it has one.
    pub zone_id: Option<String>,
    /// Events in it.
    pub events: u64,
    /// Position of the last one.
    pub chain_seq: i64,
    /// Content hash of the last one.
    pub content_sha256: String,
}

impl LedgerSummary {
    pub(super) fn of(report: &LedgerReport, seals_checked: bool) -> Self {
        let chains = report.chains.iter().filter_map(|chain| {
            let head = chain.head.as_ref()?;
            Some(ChainSummary {
                chain: chain.chain.kind().to_owned(),
                zone_id: chain.chain.zone().map(ToString::to_string),
                events: chain.rows,
                chain_seq: head.chain_seq,
                content_sha256: head.content_sha256.clone(),
            })
        });
        Self { seals_checked, events: report.rows(), chains: chains.collect() }
    }
}

impl Manifest {
    pub(super) fn new(created_at: String, schema: i64, parts: Vec<Part>, ledger: LedgerSummary) -> Self {
        let with_secrets = parts.iter().any(|part| part.name.starts_with(SECRETS));
        let (product, version) = (PRODUCT.to_owned(), crate::commands::VERSION.to_owned());
        Self { product, format: FORMAT, version, schema, created_at, with_secrets, parts, ledger }
    }

    /// Whether the text is about an archive of this product at all, and in which layout. Read before anything else of
    /// it, because another layout may have other members.
    pub(super) fn format_of(text: &[u8]) -> Option<u32> {
        #[derive(Deserialize)]
        struct Named {
            product: String,
            format: u32,
        }
        let named: Named = serde_json::from_slice(text).ok()?;
        (named.product == PRODUCT).then_some(named.format)
    }

    /// The first name that has no place in an archive, is there twice, or is missing.
    pub(super) fn misplaced(&self) -> Option<String> {
        let known = |name: &str| match name.strip_prefix(SECRETS) {
            Some(key) => self.with_secrets && SecretFiles::names().any(|file| file == key),
            None => [STORE, HEADS].contains(&name),
        };
        let twice = |index: usize, name: &str| self.parts.iter().take(index).any(|earlier| earlier.name == name);
        let odd = self.parts.iter().enumerate().find(|(index, part)| !known(&part.name) || twice(*index, &part.name));
        let missing = || [STORE, HEADS].into_iter().find(|name| self.parts.iter().all(|part| part.name != *name));
        odd.map(|(_, part)| part.name.clone()).or_else(|| missing().map(str::to_owned))
    }
}

/// The seal of a manifest, over its very bytes.
pub(super) fn seal(key: &HmacRing, manifest: &[u8]) -> String {
    key.sign_hex(&[DOMAIN, manifest])
}

/// Whether the seal is the key's, or that of one before it.
pub(super) fn is_sealed_by(key: &HmacRing, manifest: &[u8], seal: &str) -> bool {
    key.verify_hex(&[DOMAIN, manifest], seal)
}
