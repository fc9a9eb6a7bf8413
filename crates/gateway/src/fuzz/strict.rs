//! A second reader of HTTP/1, which is there to disagree.
//!
//! It has nothing in common with the listener's: it has all bytes at once, reads line by line, and stops at the first thing that
//! RFC 9112 does not spell exactly so. What it accepts is the most that a service may ever be asked; where it stops, everybody
//! else who reads the same bytes may go on in ways of their own.

use http::{HeaderMap, HeaderName, HeaderValue};

/// A head at its place.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) method: &'a [u8],
    pub(super) target: &'a [u8],
    pub(super) fields: HeaderMap,
    /// Its body has an end.
    pub(super) whole: bool,
}

/// The heads of `connection`; only behind a whole message there is another.
pub(super) fn heads(mut connection: &[u8]) -> Vec<Head<'_>> {
    let mut heads = Vec::new();
    while let Some((head, body)) = head(&mut connection) {
        let whole = body.end(&mut connection).is_some();
        heads.push(Head { whole, ..head });
        if !whole {
            break;
        }
    }
    heads
}

enum Body {
    Length(u64),
    Chunks,
}

fn head<'a>(rest: &mut &'a [u8]) -> Option<(Head<'a>, Body)> {
    let mut first = line(rest)?;
    while first.is_empty() {
        first = line(rest)?;
    }
    let parts: Vec<&[u8]> = first.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts[..] else { return None };
    let is_11 = version == b"HTTP/1.1";
    let is_plain = is_token(method) && !target.is_empty() && target.iter().all(|byte| *byte > b' ' && *byte != 0x7f);
    if !is_plain || !(is_11 || version == b"HTTP/1.0") {
        return None;
    }
    let mut fields = HeaderMap::new();
    loop {
        let line = line(rest)?;
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (line.get(..colon)?, line.get(colon + 1..)?);
        if !is_token(name) || value.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
            return None;
        }
        fields.append(HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value.trim_ascii()).ok()?);
    }
    let hosts = fields.get_all("host").iter().count();
    if hosts > 1 || (is_11 && hosts == 0) {
        return None;
    }
    let all = |name| fields.get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();
    let body = match (&all("content-length")[..], &all("transfer-encoding")[..]) {
        ([], []) => Body::Length(0),
        ([length], []) if !length.is_empty() && length.iter().all(u8::is_ascii_digit) => {
            Body::Length(std::str::from_utf8(length).ok()?.parse().ok()?)
        }
        ([], [coding]) if is_11 && coding.eq_ignore_ascii_case(b"chunked") => Body::Chunks,
        _ => return None,
    };
    Some((Head { method, target, fields, whole: false }, body))
}

impl Body {
    /// Goes to the end of the body, if there is one.
    fn end(self, rest: &mut &[u8]) -> Option<()> {
        let Self::Chunks = self else {
            let Self::Length(length) = self else { return None };
            *rest = rest.get(usize::try_from(length).ok()?..)?;
            return Some(());
        };
        loop {
            let line = line(rest)?;
            let end = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
            let (digits, extension) = line.split_at_checked(end)?;
            let space = extension.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(extension.len());
            let extension = extension.get(space..)?;
            if !(extension.is_empty() || extension.starts_with(b";")) {
                return None;
            }
            let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
            if size == 0 {
                break;
            }
            *rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
        }
        while !line(rest)?.is_empty() {}
        Some(())
    }
}

/// A line without its end, which no part of an end stands in.
fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.windows(2).position(|two| two == b"\r\n")?;
    let (line, behind) = rest.split_at_checked(end)?;
    *rest = behind.get(2..)?;
    (!line.iter().any(|byte| matches!(byte, b'\r' | b'\n'))).then_some(line)
}

fn is_token(name: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !name.is_empty() && name.iter().all(is_part)
}
