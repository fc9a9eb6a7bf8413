//! The bytes of a head, before the parser has them.
//!
//! The parser is lenient in two things that RFC 9112 lets a recipient be lenient in, and that requests are smuggled with:
//! it takes a bare line feed for the end of a line, and of a length beside chunks it forgets the length. Whoever stands
//! in front of us may read such a head otherwise, and what one of us takes for a body the other takes for a request. So
//! here is looked before it parses. A head that was sent ahead of the answer to the one before is not seen here: nothing
//! in front of us that could be misled sends one.

/// The names of the fields that say how long a body is, with their colons.
const LENGTH: &[u8] = b"content-length:";
const CODING: &[u8] = b"transfer-encoding:";

/// A head that two readers may read in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Ambiguous {
    #[error("a line of the head ends with a bare line feed")]
    BareLineFeed,
    #[error("the head names a length and a transfer coding")]
    TwoFramings,
}

/// Looks through one head, in pieces as they come.
pub(super) struct HeadScan {
    /// The line so far, as much of it as a name can be long, in lower case.
    start: [u8; CODING.len()],
    length: usize,
    /// The last byte was a carriage return.
    returned: bool,
    lines: usize,
    has_length: bool,
    has_coding: bool,
    done: bool,
}

impl HeadScan {
    pub(super) fn new() -> Self {
        Self {
            start: [0; CODING.len()],
            length: 0,
            // The first byte seen may be the second of a line end.
            returned: true,
            lines: 0,
            has_length: false,
            has_coding: false,
            done: false,
        }
    }

    /// Looks at more of the head; what comes behind its end is not looked at.
    pub(super) fn look(&mut self, bytes: &[u8]) -> Result<(), Ambiguous> {
        for byte in bytes {
            if self.done {
                return Ok(());
            }
            match byte {
                b'\n' if !self.returned => return Err(Ambiguous::BareLineFeed),
                b'\n' => self.end_line()?,
                other => {
                    if let Some(place) = self.start.get_mut(self.length) {
                        *place = other.to_ascii_lowercase();
                    }
                    self.length += 1;
                }
            }
            self.returned = *byte == b'\r';
        }
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), Ambiguous> {
        // An empty line ends the head, but for one before the first.
        if self.length <= 1 {
            self.done = self.lines > 0;
        } else {
            self.lines += 1;
            let start = self.start.get(..self.length.min(self.start.len())).unwrap_or_default();
            self.has_length |= start.starts_with(LENGTH);
            self.has_coding |= start.starts_with(CODING);
        }
        self.length = 0;
        if self.has_length && self.has_coding { Err(Ambiguous::TwoFramings) } else { Ok(()) }
    }
}

#[cfg(test)]
mod t03_gateway_framing {
    use proptest::prelude::*;

    use super::*;

    fn looked(pieces: &[&[u8]]) -> Result<(), Ambiguous> {
        let mut scan = HeadScan::new();
        pieces.iter().try_for_each(|piece| scan.look(piece))
    }

    #[test]
    fn a_bare_line_feed_anywhere_in_a_head_is_found_and_none_behind_it() {
        for head in
            ["GET / HTTP/1.1\n", "GET / HTTP/1.1\r\nA: b\n\r\n", "GET / HTTP/1.1\r\nA: b\r\n\n", "G\n\n", "a\r\r\nb\n"]
        {
            assert_eq!(looked(&[head.as_bytes()]), Err(Ambiguous::BareLineFeed), "{head:?}");
        }
        assert_eq!(looked(&[b"GET / HTTP/1.1\r\nA: b\r\n\r\nbody\nwith\n\nlines"]), Ok(()));
        assert_eq!(looked(&[b"\r\nGET / HTTP/1.1\r\nA: b\r\n\r\n\n"]), Ok(()));
    }

    #[test]
    fn a_length_beside_a_coding_is_found_in_either_order_and_case() {
        let (length, coding) = ("Content-Length: 1\r\n", "TRANSFER-encoding:chunked\r\n");
        for fields in [format!("{length}{coding}"), format!("{coding}A: b\r\n{length}")] {
            let head = format!("POST / HTTP/1.1\r\n{fields}\r\n");
            assert_eq!(looked(&[head.as_bytes()]), Err(Ambiguous::TwoFramings), "{head:?}");
        }
        for fields in [
            length,
            coding,
            "X-Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Content-Lengths: 1\r\nTransfer-Encoding: chunked\r\n",
        ] {
            let head = format!("POST / HTTP/1.1\r\n{fields}\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n");
            assert_eq!(looked(&[head.as_bytes()]), Ok(()), "{head:?}");
        }
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
