//! Identifiers of providers, and the one that every zone may have without asking.

use caracal_authority::{ProviderId, Timestamp, ZoneId};
use caracal_store::providers::{self, Provider};
use caracal_store::{Attribution, ZoneRead};
use serde_json::Map;

use crate::problem::Refusal;
use crate::slug::{first_free, slug};

const SCHEME: &str = "provider://";

/// `provider://` and lower-case words with single hyphens, else 400 `invalid_provider_identifier`.
pub(super) fn check(identifier: &str) -> Result<(), Refusal> {
    let is_word =
        |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    match identifier.strip_prefix(SCHEME) {
        Some(name) if name.split('-').all(is_word) => Ok(()),
        _ => Err(Refusal::invalid("invalid_provider_identifier")
            .describe("expected provider:// and lower-case letters, digits and single hyphens")),
    }
}

/// An identifier made from a name, free among the zone's live providers. Inside the commit that uses it.
pub(super) async fn generate(tx: &mut ZoneRead<'_>, name: &str) -> Result<String, Refusal> {
    let base = format!("{SCHEME}{}", slug(name.strip_prefix(SCHEME).unwrap_or(name), "provider"));
    let taken = providers::list_identifiers(tx, &base).await?;
    first_free(&base, &taken).ok_or_else(|| Refusal::conflict("provider_identifier_conflict"))
}

/// The built-in provider of a zone: no credential. Its id is the zone's, so there is at most one.
pub(crate) fn built_in_none(zone: &ZoneId, by: &str, now: Timestamp) -> Result<Provider, Refusal> {
    let id = format!("provider-none-{zone}");
    Ok(Provider {
        zone_id: zone.clone(),
        id: ProviderId::parse(&id).map_err(|_| Refusal::invalid("invalid_params"))?,
        name: "No credential".to_owned(),
        identifier: format!("{SCHEME}none"),
        kind: "none".to_owned(),
        config: Map::new(),
        secret_config_keys: Vec::new(),
        connectivity_failed_at: None,
        archived_at: None,
        attribution: Attribution::created(by, now),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_words_with_single_hyphens() {
        for (identifier, good) in [
            ("provider://a", true),
            ("provider://a-b2-3", true),
            ("provider://", false),
            ("provider://-a", false),
            ("provider://a-", false),
            ("provider://a--b", false),
            ("provider://A", false),
            ("provider://a/b", false),
            ("PROVIDER://a", false),
            ("resource://a", false),
            ("a", false),
        ] {
            assert_eq!(check(identifier).is_ok(), good, "{identifier}");
        }
    }
}
