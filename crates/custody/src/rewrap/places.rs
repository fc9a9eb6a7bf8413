//! What every sealed column is called, and what its envelopes are bound to.

use caracal_authority::{KeyId, NotificationSinkId, ProviderId};
use caracal_store::envelopes::{Found, Referenced, Sealed};

use crate::log_keys::log_key_ref;
use crate::sealed_secrets::{Account, ConnectionToken, RowSecret};
use crate::signing_keys::{FORMER_PLACE, private_key_ref};

/// What people call the envelopes of a column.
pub(super) fn kind(sealed: &Sealed) -> &'static str {
    match (sealed.table, sealed.column) {
        ("signing_keys", _) => "signing keys",
        ("ledger_log_keys", _) => "log keys of ledgers",
        ("sealed_secrets", _) => "secrets of providers, applications and workloads",
        ("notification_sinks", _) => "secrets of notification sinks",
        ("oauth_states", _) => "verifiers of consents under way",
        (_, "access_token") => "access tokens of accounts",
        (_, "refresh_token") => "refresh tokens of accounts",
        (other, _) => other,
    }
}

pub(super) fn kind_of_reference(referenced: &Referenced) -> &'static str {
    match referenced.table {
        "providers" => "secrets of providers in the backend",
        "applications" => "secrets of applications in the backend",
        "workloads" => "secrets of workloads in the backend",
        other => other,
    }
}

/// What an envelope is bound to, and what it may be bound to from former times.
pub(super) fn places(sealed: &Sealed, found: &Found) -> Option<(String, Option<&'static str>)> {
    match (sealed.table, sealed.column, &found.bound_to[..]) {
        ("signing_keys", "sealed_private", []) => {
            let kid = KeyId::parse(&found.key).ok()?;
            Some((private_key_ref(&found.zone, &kid), Some(FORMER_PLACE)))
        }
        ("ledger_log_keys", "sealed_private", []) => Some((log_key_ref(&found.zone, &found.key), None)),
        ("sealed_secrets", "envelope", []) => Some((found.key.clone(), None)),
        ("notification_sinks", "secret", []) => {
            let sink = NotificationSinkId::parse(&found.key).ok()?;
            let secret = RowSecret::Sink { zone: &found.zone, sink: &sink };
            Some((secret.place(), secret.former_place()))
        }
        ("oauth_states", "verifier", []) => {
            let secret = RowSecret::Verifier { zone: &found.zone, digest: &found.key };
            Some((secret.place(), secret.former_place()))
        }
        ("provider_connections", column, [provider, subject]) => {
            let token = match column {
                "access_token" => ConnectionToken::Access,
                "refresh_token" => ConnectionToken::Refresh,
                _ => return None,
            };
            let provider = ProviderId::parse(provider).ok()?;
            let account = Account { zone: &found.zone, provider: &provider, subject };
            Some((token.place(account), Some(token.former_place())))
        }
        _ => None,
    }
}

/// Where it lies, for people: the row, not what is in it.
pub(super) fn place_of(sealed: &Sealed, found: &Found) -> String {
    let Found { zone, key, .. } = found;
    format!("{}.{} of zone {zone}, {} {}", sealed.table, sealed.column, sealed.key, key.escape_debug())
}

#[cfg(test)]
mod tests {
    use caracal_authority::ZoneId;
    use caracal_store::envelopes::{REFERENCED, SEALED};

    use super::*;

    fn found(key: &str, bound_to: &[&str]) -> Found {
        let bound_to = bound_to.iter().map(|text| (*text).to_owned()).collect();
        Found { zone: ZoneId::parse("z-1").unwrap(), key: key.to_owned(), bound_to, envelope: Vec::new() }
    }

    /// A column that nobody can open here would be counted as failed for ever.
    #[test]
    fn every_sealed_column_has_a_place_and_a_name() {
        for sealed in SEALED {
            let bound_to: Vec<&str> = sealed.bound_to.iter().map(|_| "x-1").collect();
            assert!(places(sealed, &found("k-1", &bound_to)).is_some(), "{sealed:?}");
            assert_ne!(kind(sealed), sealed.table, "{sealed:?}");
        }
    }

    /// Every function that names a reference, by the text of this crate: whoever adds one adds where its rows are.
    #[test]
    fn every_reference_that_secrets_lie_under_is_gone_through() {
        let named = include_str!("../sealed_secrets.rs").matches("_secret_ref(zone: &ZoneId").count();
        assert_eq!(named, REFERENCED.len());
        for referenced in REFERENCED {
            assert_ne!(kind_of_reference(referenced), referenced.table, "{referenced:?}");
        }
    }
}
