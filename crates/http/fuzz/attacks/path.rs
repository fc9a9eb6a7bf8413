//! A request path at the Gateway, raw, with a query behind the first `?`.
//!
//! Cleaning twice is cleaning once; a location stays on this origin and is fit for a header; and what [`check`] lets
//! through keeps its meaning however often somebody behind us decodes it.

use caracal_http::path::{Canonical, canonical, check};

fn has_dots(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|segment| segment == b"." || segment == b"..")
}

/// A lenient decoder, as careless frameworks have one: what is no escape stays.
fn decoded(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut at, mut out) = (0, Vec::with_capacity(text.len()));
    while let Some(byte) = text.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).expect("two hex digits"));
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

/// Panics where a rule is broken.
pub(crate) fn attack(data: &[u8]) {
    let Ok(target) = std::str::from_utf8(data) else { return };
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    match canonical(path, query) {
        Canonical::Clean => {
            assert!(path.starts_with('/') && !path.contains("//") && !has_dots(path.as_bytes()));
        }
        Canonical::Redirect(location) => {
            let cleaned = location.split('?').next().expect("at least one part");
            assert!(cleaned.starts_with('/') && !cleaned.contains("//") && !has_dots(cleaned.as_bytes()));
            assert!(location.bytes().all(|byte| matches!(byte, 0x21..=0x7e) && byte != b'\\'));
            assert_eq!(canonical(cleaned, None), Canonical::Clean);
            let base = url::Url::parse("https://gateway.example/").expect("a URL");
            let joined = base.join(&location).expect("a location");
            assert_eq!(joined.origin(), base.origin());
        }
    }
    if check(path).is_ok() {
        let mut current = path.as_bytes().to_vec();
        loop {
            assert!(!has_dots(&current) && !current.contains(&b'\\'));
            let next = decoded(&current);
            if next == current {
                break;
            }
            current = next;
        }
    }
}
