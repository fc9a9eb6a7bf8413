//! Where one message of a connection ends and the next begins.
//!
//! A head is looked at before the parser has it (`head`), so it must be known which bytes are of a head. That is known
//! from the head before and, where the body behind it comes in chunks, from each of its chunks. The grammar of chunks is
//! the parser's own (RFC 9112 §7.1): where it gives up, here the message just never ends, and nothing behind it is taken
//! for a head.

use super::head::{Ambiguous, Framing, HeadScan};

/// Follows the messages of one connection, in pieces as they come.
pub(super) struct Messages {
    at: At,
    heads: u64,
}

enum At {
    Between,
    Head(HeadScan),
    Length(u64),
    Chunks(Chunks),
    /// A line behind the last chunk is one to the parser and perhaps two to others.
    Broken,
    /// What follows is no message of HTTP/1, or none that gets that far.
    Rest,
}

impl Messages {
    pub(super) fn new() -> Self {
        Self { at: At::Between, heads: 0 }
    }

    /// Of a connection that does not speak HTTP/1.
    pub(super) fn none() -> Self {
        Self { at: At::Rest, heads: 0 }
    }

    /// Whether the next byte is the first of a message.
    pub(super) fn is_between(&self) -> bool {
        matches!(self.at, At::Between)
    }

    /// How many heads have come whole.
    pub(super) fn heads(&self) -> u64 {
        self.heads
    }

    /// Why nothing more may be read of a message that has begun.
    pub(super) fn fault(&self) -> Option<Ambiguous> {
        matches!(self.at, At::Broken).then_some(Ambiguous::Trailer)
    }

    /// How many of `bytes` belong to the message that is under way or, between two, to the next.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Result<usize, Ambiguous> {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            match &mut self.at {
                At::Between => self.at = At::Head(HeadScan::new()),
                At::Head(scan) => {
                    let (count, framing) = scan.look(rest)?;
                    taken += count;
                    if let Some(framing) = framing {
                        self.heads += 1;
                        self.at = match framing {
                            Framing::Length(0) => At::Between,
                            Framing::Length(length) => At::Length(length),
                            Framing::Chunks => At::Chunks(Chunks { at: Chunk::Size, left: 0, digits: false }),
                            Framing::Refused => At::Rest,
                        };
                    }
                }
                At::Length(left) => {
                    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    taken += count;
                    *left -= count as u64;
                    if *left == 0 {
                        self.at = At::Between;
                    }
                }
                At::Chunks(chunks) => {
                    let (count, next) = chunks.follow(rest);
                    taken += count;
                    match next {
                        Next::More => {}
                        Next::End => self.at = At::Between,
                        Next::Nonsense => self.at = At::Rest,
                        Next::BareLineFeed => self.at = At::Broken,
                    }
                }
                At::Broken => break,
                At::Rest => taken = bytes.len(),
            }
            if self.is_between() {
                break;
            }
        }
        Ok(taken)
    }
}

/// A body in chunks.
struct Chunks {
    at: Chunk,
    /// What the chunk under way still has.
    left: u64,
    /// Its size has begun.
    digits: bool,
}

#[derive(Clone, Copy)]
enum Chunk {
    Size,
    Space,
    Extension,
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
    /// The beginning of a line behind the last chunk.
    Line,
    Trailer,
    TrailerLineFeed,
    LastLineFeed,
}

enum Next {
    More,
    End,
    Nonsense,
    BareLineFeed,
}

impl Chunks {
    /// How many of `bytes` belong to the body, and how it goes on behind them.
    fn follow(&mut self, bytes: &[u8]) -> (usize, Next) {
        let mut taken = 0;
        while let Some(byte) = bytes.get(taken) {
            self.at = match (self.at, byte) {
                (Chunk::Data, _) => {
                    let left = usize::try_from(self.left).unwrap_or(usize::MAX);
                    let count = left.min(bytes.len() - taken);
                    self.left -= count as u64;
                    taken += count;
                    if self.left == 0 {
                        self.at = Chunk::DataReturn;
                    }
                    continue;
                }
                (Chunk::Size, digit) if digit.is_ascii_hexdigit() => {
                    let digit = char::from(*digit).to_digit(16).map_or(0, u64::from);
                    let Some(size) = self.left.checked_mul(16) else { return (taken, Next::Nonsense) };
                    self.left = size | digit;
                    self.digits = true;
                    Chunk::Size
                }
                (Chunk::Size, _) if !self.digits => return (taken, Next::Nonsense),
                (Chunk::Size | Chunk::Space, b' ' | b'\t') => Chunk::Space,
                (Chunk::Size | Chunk::Space, b';') => Chunk::Extension,
                (Chunk::Size | Chunk::Space | Chunk::Extension, b'\r') => Chunk::SizeLineFeed,
                (Chunk::Extension, other) if *other != b'\n' => Chunk::Extension,
                (Chunk::SizeLineFeed, b'\n') if self.left == 0 => Chunk::Line,
                (Chunk::SizeLineFeed, b'\n') => Chunk::Data,
                (Chunk::DataReturn, b'\r') => Chunk::DataLineFeed,
                (Chunk::DataLineFeed, b'\n') => {
                    self.digits = false;
                    Chunk::Size
                }
                (Chunk::Line, b'\r') => Chunk::LastLineFeed,
                (Chunk::Trailer, b'\r') => Chunk::TrailerLineFeed,
                (Chunk::Line | Chunk::Trailer, b'\n') => return (taken, Next::BareLineFeed),
                (Chunk::Line | Chunk::Trailer, _) => Chunk::Trailer,
                (Chunk::TrailerLineFeed, b'\n') => Chunk::Line,
                (Chunk::LastLineFeed, b'\n') => return (taken + 1, Next::End),
                _ => return (taken, Next::Nonsense),
            };
            taken += 1;
        }
        (taken, Next::More)
    }
}

#[cfg(test)]
mod t03_gateway_framing {
    use super::*;

    /// How much of `bytes`, given in two pieces, belongs to the first message, and whether it has ended.
    fn followed(bytes: &[u8], cut: usize) -> (usize, bool) {
        let mut messages = Messages::new();
        let (first, second) = bytes.split_at(cut);
        let mut taken = messages.follow(first).unwrap();
        if taken == cut && (cut == 0 || !messages.is_between()) {
            taken += messages.follow(second).unwrap();
        }
        (taken, messages.is_between())
    }

    #[test]
    fn the_end_of_a_message_is_found_wherever_it_is_cut() {
        let head = |fields: &str| format!("POST / HTTP/1.1\r\n{fields}\r\n");
        let chunks = head("Transfer-Encoding: chunked\r\n");
        for message in [
            head(""),
            head("Content-Length: 0\r\n"),
            format!("{}\n\n\r\n\r", head("Content-Length: 5\r\n")),
            format!("{chunks}0\r\n\r\n"),
            format!("{chunks}1\r\n\n\r\n0A \t;a=\"b\"\r\n0\r\n\r\n0\r\n\r\n\r\n00;x\r\nA: b\r\nB: \r\n\r\n"),
        ] {
            for behind in ["", "\r\n", "GET / HTTP/1.1\r\n\r\n", "0\r\n\r\n"] {
                let bytes = format!("{message}{behind}");
                for cut in 0..=bytes.len() {
                    assert_eq!(followed(bytes.as_bytes(), cut), (message.len(), true), "{bytes:?} at {cut}");
                }
            }
        }
    }

    #[test]
    fn behind_chunks_that_are_none_there_is_no_other_message() {
        for body in [
            "+1\r\na\r\n",
            "\r\n",
            "1 1\r\n",
            "0x1\r\n",
            "1\na\r\n",
            "1\r\nab\r\n",
            "1\r\na\n",
            "1;a\nb\r\n",
            "1;a\rb\r\n",
            "10000000000000000\r\n",
            "0\r\n\rX",
            "0\r\nA: b\rB: c\r\n",
        ] {
            let bytes =
                format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}0\r\n\r\nGET / HTTP/1.1\r\n\r\n");
            for cut in 0..=bytes.len() {
                assert_eq!(followed(bytes.as_bytes(), cut), (bytes.len(), false), "{bytes:?} at {cut}");
            }
        }
    }

    #[test]
    fn a_bare_line_feed_behind_the_last_chunk_ends_what_may_be_read() {
        for (trailers, place) in [("\n", 0), ("A: b\n\r\n\r\n", 4), ("A: b\r\n\nGET / HTTP/1.1\r\n\r\n", 6)] {
            let bytes = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{trailers}");
            let mut messages = Messages::new();
            assert_eq!(messages.follow(bytes.as_bytes()), Ok(bytes.len() - trailers.len() + place), "{bytes:?}");
            assert_eq!((messages.fault(), messages.is_between()), (Some(Ambiguous::Trailer), false));
        }
    }
}
