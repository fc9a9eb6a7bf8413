//! Reading a request's body: never more than a limit, never longer than a deadline.

use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// More bytes than allowed, declared or sent.
    #[error("request body too large")]
    TooLarge,
    /// The caller broke it off, or framed it wrongly.
    #[error("request body could not be read")]
    Unreadable,
    /// Not complete before the deadline.
    #[error("request body was not received in time")]
    TimedOut,
}

/// Reads all of `body`, at most `limit` bytes, within `deadline`.
///
/// A body that declares more than `limit` is refused before a byte of it is read. The deadline is what keeps a caller
/// that sends one byte a minute from holding a connection: the listener does not time bodies.
pub async fn read<B>(body: B, limit: usize, deadline: Duration) -> Result<Bytes, BodyError>
where
    B: Body,
    B::Data: Buf,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
        return Err(BodyError::TooLarge);
    }
    match tokio::time::timeout(deadline, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge),
        Ok(Err(_)) => Err(BodyError::Unreadable),
        Err(_) => Err(BodyError::TimedOut),
    }
}

/// The media type of a `Content-Type` value, without its parameters; `None` when the value, parameters included, is
/// not well formed (RFC 9110 §8.3.1). Compare it ignoring case.
pub fn media_type(content_type: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(content_type).ok()?;
    let (essence, mut rest) = text.split_once(';').map_or((text, ""), |(essence, rest)| (essence, rest));
    let essence = essence.trim_matches([' ', '\t']);
    let (kind, subtype) = essence.split_once('/')?;
    if !is_token(kind) || !is_token(subtype) {
        return None;
    }
    let mut seen = Vec::new();
    loop {
        rest = rest.trim_matches([' ', '\t']);
        if rest.is_empty() {
            return Some(essence);
        }
        let (name, value) = rest.split_once('=')?;
        let name = name.to_ascii_lowercase();
        if !is_token(&name) || seen.contains(&name) {
            return None;
        }
        seen.push(name);
        let after = match value.strip_prefix('"') {
            Some(quoted) => after_quoted(quoted)?,
            None => {
                let end = value.find([';', ' ', '\t']).unwrap_or(value.len());
                if !is_token(&value[..end]) {
                    return None;
                }
                &value[end..]
            }
        };
        rest = after.trim_start_matches([' ', '\t']);
        match rest.strip_prefix(';') {
            Some(next) => rest = next,
            None if rest.is_empty() => {}
            None => return None,
        }
    }
}

fn after_quoted(quoted: &str) -> Option<&str> {
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some(&quoted[at + 1..]),
            '\\' => {
                characters.next()?;
            }
            _ => {}
        }
    }
    None
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use http_body::{Frame, SizeHint};
    use http_body_util::Full;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    /// Declares nothing, then sends the chunks in order.
    struct Chunks(Vec<Result<&'static [u8], &'static str>>);

    impl Body for Chunks {
        type Data = Bytes;
        type Error = Box<dyn std::error::Error + Send + Sync>;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            if self.0.is_empty() {
                return Poll::Ready(None);
            }
            Poll::Ready(Some(self.0.remove(0).map(|chunk| Frame::data(Bytes::from_static(chunk))).map_err(Into::into)))
        }
    }

    /// Declares 100 bytes and fails the test when read; or never sends anything.
    struct Silent {
        declared: u64,
        readable: bool,
    }

    impl Body for Silent {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            assert!(self.readable, "read although refused");
            Poll::Pending
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.declared)
        }
    }

    #[tokio::test]
    async fn a_body_within_its_limit_is_read_whole() {
        assert_eq!(read(Full::new(Bytes::from("abc")), 3, SOON).await.unwrap(), "abc");
        assert_eq!(read(Chunks(vec![Ok(b"ab"), Ok(b""), Ok(b"c")]), 3, SOON).await.unwrap(), "abc");
    }

    mod t08_availability {
        use super::*;

        #[tokio::test]
        async fn an_oversized_body_is_refused_declared_or_not() {
            assert_eq!(read(Silent { declared: 100, readable: false }, 99, SOON).await, Err(BodyError::TooLarge));
            assert_eq!(read(Chunks(vec![Ok(b"ab"), Ok(b"cd")]), 3, SOON).await, Err(BodyError::TooLarge));
        }

        #[tokio::test]
        async fn a_body_that_never_comes_is_given_up() {
            let never = Silent { declared: 1, readable: true };
            assert_eq!(read(never, 99, Duration::from_millis(5)).await, Err(BodyError::TimedOut));
        }

        #[tokio::test]
        async fn a_body_that_breaks_off_is_unreadable_never_short() {
            assert_eq!(read(Chunks(vec![Ok(b"ab"), Err("reset")]), 99, SOON).await, Err(BodyError::Unreadable));
        }
    }

    #[test]
    fn a_media_type_stands_before_well_formed_parameters() {
        for (value, expected) in [
            ("application/json", Some("application/json")),
            ("Application/JSON ; charset=utf-8", Some("Application/JSON")),
            ("text/plain;charset=\"a\\\"b;c\";x=y", Some("text/plain")),
            ("text/plain;", Some("text/plain")),
            ("text", None),
            ("", None),
            ("a/b/c", None),
            ("a /b", None),
            ("text/plain; charset", None),
            ("text/plain; charset=", None),
            ("text/plain; charset=\"open", None),
            ("text/plain; a=1; A=2", None),
            ("text/plain; a=1 b=2", None),
            ("text/plain, application/json", None),
        ] {
            assert_eq!(media_type(value.as_bytes()), expected, "{value}");
        }
        assert_eq!(media_type(b"text/pl\xffin"), None);
    }
}
