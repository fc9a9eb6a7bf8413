//! The bytes of a head, before the parser has them.
//!
//! The parser is lenient in things that RFC 9112 lets a recipient be lenient in, and that requests are smuggled with: it
//! takes a bare line feed for the end of a line, of a length beside chunks it forgets the length, and of two equal lengths
//! the second. Whoever stands in front of us may read such a head otherwise, and what one of us takes for a body the other
//! takes for a request. So here is looked before it parses. What is found out about the body says where the next head
//! begins: see `message`.

/// What begins the lines that say how long a body is.
const LENGTH: &[u8] = b"content-length:";
const CODING: &[u8] = b"transfer-encoding:";

/// The line that begins the preface of HTTP/2, for which the parser has no answer.
const PREFACE: &[u8] = b"pri * http/2.0";

/// How much of a line is kept: the names above, white space, and any number of 64 bits.
const LINE: usize = 64;

/// Bytes that two readers may read in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Ambiguous {
    #[error("a line of the head ends with a bare line feed")]
    BareLineFeed,
    #[error("a line of the head has a bare carriage return")]
    BareReturn,
    #[error("the head names a length and a transfer coding")]
    TwoFramings,
    #[error("the head names a length twice")]
    TwoLengths,
    #[error("the length that the head names is not a plain number")]
    NoLength,
    #[error("the head is how HTTP/2 begins")]
    Preface,
    #[error("a line behind the last chunk ends with a bare line feed")]
    Trailer,
}

/// What a head says about the length of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunks,
    /// A coding that is refused later, with the id of its request.
    Refused,
}

/// Looks through one head, in pieces as they come.
pub(super) struct HeadScan {
    /// The line so far, as much of it as is kept, in lower case.
    line: [u8; LINE],
    length: usize,
    /// The last byte was a carriage return.
    returned: bool,
    lines: usize,
    framing: Option<Framing>,
}

impl HeadScan {
    pub(super) fn new() -> Self {
        Self { line: [0; LINE], length: 0, returned: false, lines: 0, framing: None }
    }

    /// Looks at more of the head: how much of `bytes` belongs to it and, once it has ended, what follows.
    pub(super) fn look(&mut self, bytes: &[u8]) -> Result<(usize, Option<Framing>), Ambiguous> {
        for (index, byte) in bytes.iter().enumerate() {
            match (self.returned, byte) {
                (true, b'\n') => {
                    if let Some(framing) = self.end_line()? {
                        return Ok((index + 1, Some(framing)));
                    }
                }
                (true, _) => return Err(Ambiguous::BareReturn),
                (false, b'\n') => return Err(Ambiguous::BareLineFeed),
                (false, b'\r') => {}
                (false, other) => {
                    if let Some(place) = self.line.get_mut(self.length) {
                        *place = other.to_ascii_lowercase();
                    }
                    self.length += 1;
                }
            }
            self.returned = *byte == b'\r';
        }
        Ok((bytes.len(), None))
    }

    fn end_line(&mut self) -> Result<Option<Framing>, Ambiguous> {
        let length = std::mem::take(&mut self.length);
        if length == 0 {
            // An empty line ends the head, but for those before the first.
            return Ok((self.lines > 0).then(|| self.framing.unwrap_or(Framing::Length(0))));
        }
        self.lines += 1;
        let line = self.line.get(..length.min(LINE)).unwrap_or_default();
        let is_whole = length <= LINE;
        if let Some(value) = line.strip_prefix(LENGTH) {
            match self.framing {
                Some(Framing::Length(_)) => return Err(Ambiguous::TwoLengths),
                Some(_) => return Err(Ambiguous::TwoFramings),
                None => {}
            }
            let number = Some(value).filter(|_| is_whole).and_then(number).ok_or(Ambiguous::NoLength)?;
            self.framing = Some(Framing::Length(number));
        } else if let Some(value) = line.strip_prefix(CODING) {
            self.framing = match self.framing {
                Some(Framing::Length(_)) => return Err(Ambiguous::TwoFramings),
                None if is_whole && trimmed(value) == b"chunked" => Some(Framing::Chunks),
                _ => Some(Framing::Refused),
            };
        } else if self.lines == 1 && is_whole && line == PREFACE {
            return Err(Ambiguous::Preface);
        }
        Ok(None)
    }
}

/// A length as the parser reads one: digits, nothing else, in 64 bits.
fn number(value: &[u8]) -> Option<u64> {
    let digits = trimmed(value);
    let text = std::str::from_utf8(digits).ok().filter(|_| digits.iter().all(u8::is_ascii_digit))?;
    text.parse().ok()
}

/// Without the white space that may stand around a value (RFC 9110 §5.6.3).
fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

#[cfg(test)]
mod t03_gateway_framing {
    use proptest::prelude::*;

    use super::*;

    /// How much of the pieces is the head, and what it says.
    fn looked(pieces: &[&[u8]]) -> Result<(usize, Option<Framing>), Ambiguous> {
        let mut scan = HeadScan::new();
        let mut length = 0;
        for piece in pieces {
            let (count, framing) = scan.look(piece)?;
            length += count;
            if framing.is_some() {
                return Ok((length, framing));
            }
        }
        Ok((length, None))
    }

    fn said(head: &str) -> Result<Option<Framing>, Ambiguous> {
        looked(&[head.as_bytes()]).map(|(_, framing)| framing)
    }

    #[test]
    fn a_bare_line_feed_anywhere_in_a_head_is_found_and_none_behind_it() {
        for head in ["GET / HTTP/1.1\n", "GET / HTTP/1.1\r\nA: b\n\r\n", "GET / HTTP/1.1\r\nA: b\r\n\n", "G\n\n", "\nG"]
        {
            assert_eq!(said(head), Err(Ambiguous::BareLineFeed), "{head:?}");
        }
        for head in ["a\r\r\nb\n", "GET / HTTP/1.1\r\nA: b\rB: c\r\n\r\n", "\rGET"] {
            assert_eq!(said(head), Err(Ambiguous::BareReturn), "{head:?}");
        }
        let head = "\r\nGET / HTTP/1.1\r\nA: b\r\n\r\n";
        let behind = format!("{head}body\nwith\n\nlines");
        assert_eq!(looked(&[behind.as_bytes()]), Ok((head.len(), Some(Framing::Length(0)))));
    }

    #[test]
    fn a_length_beside_a_coding_is_found_in_either_order_and_case() {
        let (length, coding) = ("Content-Length: 1\r\n", "TRANSFER-encoding:chunked\r\n");
        for fields in [format!("{length}{coding}"), format!("{coding}A: b\r\n{length}")] {
            let head = format!("POST / HTTP/1.1\r\n{fields}\r\n");
            assert_eq!(said(&head), Err(Ambiguous::TwoFramings), "{head:?}");
        }
        for (fields, framing) in [
            (length, Framing::Length(1)),
            (coding, Framing::Chunks),
            ("X-Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", Framing::Chunks),
            ("Content-Lengths: 1\r\nTransfer-Encoding: \tChunked \r\n", Framing::Chunks),
        ] {
            let head = format!("POST / HTTP/1.1\r\n{fields}\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n");
            assert_eq!(said(&head), Ok(Some(framing)), "{head:?}");
        }
    }

    #[test]
    fn a_length_is_one_plain_number_and_the_one_coding_is_chunked() {
        let head = |fields: &str| said(&format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n"));
        for again in ["3", "4"] {
            let twice = format!("Content-Length: 3\r\nA: b\r\ncontent-length: {again}");
            assert_eq!(head(&twice), Err(Ambiguous::TwoLengths));
        }
        let wide = format!("{}1", " ".repeat(80));
        for value in ["", "+1", "-1", "1,1", "1, 1", "0x1", "1.0", "1a", "18446744073709551616", &wide, "1 1", "\x0b1"]
        {
            assert_eq!(head(&format!("Content-Length: {value}")), Err(Ambiguous::NoLength), "{value:?}");
        }
        assert_eq!(head("Content-Length: \t007 "), Ok(Some(Framing::Length(7))));
        assert_eq!(head("Content-Length: 18446744073709551615"), Ok(Some(Framing::Length(u64::MAX))));
        for value in
            ["", "gzip", "gzip, chunked", "chunked, chunked", "chunkedx", "chunked\r\nTransfer-Encoding: chunked"]
        {
            assert_eq!(head(&format!("Transfer-Encoding: {value}")), Ok(Some(Framing::Refused)), "{value:?}");
        }
        assert_eq!(said("PRI * HTTP/2.0\r\n\r\n"), Err(Ambiguous::Preface));
    }

    proptest! {
        #[test]
        fn what_is_found_does_not_depend_on_the_pieces(
            head in "(GET / HTTP/1.1|A: b|Content-Length: 1|Transfer-Encoding: x|\r\n|\n|\r){0,12}",
            cuts in proptest::collection::vec(0_usize..80, 0..4),
        ) {
            let bytes = head.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|two| &bytes[two[0]..two[1]]).collect();
            prop_assert_eq!(looked(&pieces), looked(&[bytes]));
        }
    }
}
