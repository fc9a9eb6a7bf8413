//! Merging queries (contract: gateway.md §15.1, README D21).
//!
//! The caller's query goes upstream byte for byte: signed URLs break when a proxy sorts or re-encodes them. Only where
//! the upstream's URL, or a credential in the query, has a parameter of the same name do the caller's pairs of that
//! name give way, so that a caller can neither override what the operator fixed nor supply the credential.
//!
//! That rule needs names that every reader reads alike. A query with `;`, which some readers take for `&`, or with a
//! bad escape is refused, whether or not there is anything to merge: the same request must not fail on the day an
//! operator adds a parameter.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// All but the unreserved characters of RFC 3986.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why a caller's query is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QueryFault {
    /// `;`.
    #[error("`;` in the query")]
    Separator,
    /// `%` without two hex digits.
    #[error("bad percent-encoding in the query")]
    Escape,
}

/// The query that goes upstream: the upstream's `own` pairs, then the `client`'s of other names, with the `credential`
/// (name and value) in the place of any pair of its name, else at the end.
pub(crate) fn merge(
    own: Option<&str>,
    client: Option<&str>,
    credential: Option<(&str, &str)>,
) -> Result<Option<String>, QueryFault> {
    client.map_or(Ok(()), check)?;
    let own = own.filter(|own| !own.is_empty());
    if own.is_none() && credential.is_none() {
        return Ok(client.map(str::to_owned));
    }
    let own_names: Vec<Cow<'_, str>> = own.map(|own| pairs(own).map(name).collect()).unwrap_or_default();
    let client_pairs = client.map(pairs).into_iter().flatten().filter(|pair| !own_names.contains(&name(pair)));
    let mut secret = credential.map(|(name, value)| (name, utf8_percent_encode(value, VALUE).to_string()));
    let mut merged = String::with_capacity(
        own.map_or(0, str::len) + client.map_or(0, str::len) + secret.as_ref().map_or(0, |(_, value)| value.len() + 64),
    );
    let mut push = |pair: &str| {
        if !merged.is_empty() {
            merged.push('&');
        }
        merged.push_str(pair);
    };
    for pair in own.map(pairs).into_iter().flatten().chain(client_pairs) {
        match credential {
            Some((credential, _)) if name(pair) == credential => {
                if let Some((name, value)) = secret.take() {
                    push(&format!("{}={value}", utf8_percent_encode(name, VALUE)));
                }
            }
            _ => push(pair),
        }
    }
    if let Some((name, value)) = secret {
        push(&format!("{}={value}", utf8_percent_encode(name, VALUE)));
    }
    Ok(Some(merged))
}

fn check(query: &str) -> Result<(), QueryFault> {
    if query.contains(';') {
        return Err(QueryFault::Separator);
    }
    if super::escapes_are_whole(query) { Ok(()) } else { Err(QueryFault::Escape) }
}

fn pairs(query: &str) -> impl Iterator<Item = &str> {
    query.split('&').filter(|pair| !pair.is_empty())
}

/// The name of a pair as a reader understands it.
fn name(pair: &str) -> Cow<'_, str> {
    let raw = pair.split_once('=').map_or(pair, |(name, _)| name);
    if !raw.contains(['%', '+']) {
        return Cow::Borrowed(raw);
    }
    let spaced = raw.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod t03_gateway_egress {
    use proptest::prelude::*;

    use super::*;

    fn merged(own: Option<&str>, client: Option<&str>, credential: Option<(&str, &str)>) -> String {
        merge(own, client, credential).unwrap().unwrap()
    }

    #[test]
    fn a_query_with_nothing_to_merge_is_not_touched() {
        for query in ["", "a", "a=", "b=2&a=1&&a=0", "sig=%2F+%20x&z", "=&=", "ü=%c3", "a=b=c"] {
            assert_eq!(merged(None, Some(query), None), query);
            assert_eq!(merged(Some(""), Some(query), None), query);
        }
        assert_eq!(merge(None, None, None), Ok(None));
    }

    #[test]
    fn the_operators_pairs_win_and_the_credential_replaces_all_of_its_name() {
        for (own, client, credential, expected) in [
            (Some("key=a&s=1"), Some("s=2&x=3"), Some(("key", "k/1")), "key=k%2F1&s=1&x=3"),
            (Some("s=1"), Some("s=2&x=%2F&x=4&&y"), None, "s=1&x=%2F&x=4&y"),
            (Some("s=1"), Some("%73=2&S=3&s"), None, "s=1&S=3"),
            (Some("a b=1"), Some("a+b=2&a%20b=3"), None, "a b=1"),
            (None, Some("key=mine&a=1&k%65y=again"), Some(("key", "s&c=r+t")), "key=s%26c%3Dr%2Bt&a=1"),
            (None, Some("a=1"), Some(("api key", "x")), "a=1&api%20key=x"),
            (None, None, Some(("key", "x")), "key=x"),
            (Some("s=1"), None, None, "s=1"),
        ] {
            assert_eq!(merged(own, client, credential), expected, "{own:?} {client:?}");
        }
    }

    #[test]
    fn what_readers_read_differently_is_refused() {
        for (query, fault) in [
            ("a=1;b=2", QueryFault::Separator),
            ("a;b", QueryFault::Separator),
            ("%zz", QueryFault::Escape),
            ("a=%", QueryFault::Escape),
            ("a=%2", QueryFault::Escape),
        ] {
            assert_eq!(merge(None, Some(query), None), Err(fault), "{query}");
            assert_eq!(merge(Some("x=1"), Some(query), None), Err(fault), "{query}");
        }
    }

    proptest! {
        #[test]
        fn no_client_pair_of_a_fixed_name_survives(client in "[ksKx=&%+6b7e5]{0,24}") {
            if let Ok(Some(query)) = merge(Some("s=own"), Some(&client), Some(("k", "secret"))) {
                let named = |wanted: &str| pairs(&query).filter(|pair| name(pair) == wanted).collect::<Vec<_>>();
                prop_assert_eq!(named("s"), ["s=own"]);
                prop_assert_eq!(named("k"), ["k=secret"]);
            }
        }
    }
}
