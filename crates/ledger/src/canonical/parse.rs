//! JSON text to [`Node`]s: strict RFC 8259 as PostgreSQL reads it, one pass, no floating point.

use std::borrow::Cow;

use super::{Decimal, MAX_DEPTH, Node, NotCanonical};

/// What happens to U+0000 in strings and keys.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Nul {
    Remove,
    Refuse,
}

pub(super) fn parse(text: &str, nul: Nul) -> Result<Node<'_>, NotCanonical> {
    let mut parser = Parser { text, bytes: text.as_bytes(), at: 0, nul };
    parser.skip_space();
    let node = parser.value(0)?;
    parser.skip_space();
    if parser.at == parser.bytes.len() { Ok(node) } else { Err(parser.syntax()) }
}

struct Parser<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    nul: Nul,
}

impl<'a> Parser<'a> {
    /// `depth` counts the arrays and objects around this value.
    fn value(&mut self, depth: usize) -> Result<Node<'a>, NotCanonical> {
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => Ok(Node::Text(self.string()?)),
            Some(b'-' | b'0'..=b'9') => {
                let (decimal, end) = Decimal::parse(self.text, self.at)?;
                self.at = end;
                Ok(Node::Number(decimal))
            }
            Some(b'n') => self.literal("null"),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            _ => Err(self.syntax()),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Node<'a>, NotCanonical> {
        self.enter(depth)?;
        let mut members = Vec::new();
        if self.take(b'}') {
            return Ok(Node::Object(members));
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.syntax());
            }
            let key = self.string()?;
            self.skip_space();
            if !self.take(b':') {
                return Err(self.syntax());
            }
            self.skip_space();
            members.push((key, self.value(depth + 1)?));
            self.skip_space();
            if self.take(b'}') {
                return Ok(Node::Object(members));
            }
            if !self.take(b',') {
                return Err(self.syntax());
            }
            self.skip_space();
        }
    }

    fn array(&mut self, depth: usize) -> Result<Node<'a>, NotCanonical> {
        self.enter(depth)?;
        let mut items = Vec::new();
        if self.take(b']') {
            return Ok(Node::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.skip_space();
            if self.take(b']') {
                return Ok(Node::Array(items));
            }
            if !self.take(b',') {
                return Err(self.syntax());
            }
            self.skip_space();
        }
    }

    /// Steps over the opening bracket and what space follows it.
    fn enter(&mut self, depth: usize) -> Result<(), NotCanonical> {
        if depth == MAX_DEPTH {
            return Err(NotCanonical::TooDeep);
        }
        self.at += 1;
        self.skip_space();
        Ok(())
    }

    fn literal(&mut self, word: &'static str) -> Result<Node<'a>, NotCanonical> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err(self.syntax());
        }
        self.at += word.len();
        Ok(Node::Literal(word))
    }

    /// A string or key, from its opening quote. Borrowed when it holds no escape.
    fn string(&mut self) -> Result<Cow<'a, str>, NotCanonical> {
        self.at += 1;
        let plain = self.plain_run()?;
        if self.take(b'"') {
            return Ok(Cow::Borrowed(plain));
        }
        let mut decoded = plain.to_owned();
        loop {
            if self.take(b'"') {
                return Ok(Cow::Owned(decoded));
            }
            self.escape(&mut decoded)?;
            decoded.push_str(self.plain_run()?);
        }
    }

    /// Characters up to the next quote or backslash.
    fn plain_run(&mut self) -> Result<&'a str, NotCanonical> {
        let from = self.at;
        loop {
            match self.peek() {
                Some(b'"' | b'\\') => return Ok(&self.text[from..self.at]),
                None | Some(0x00..=0x1f) => return Err(self.syntax()),
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self, decoded: &mut String) -> Result<(), NotCanonical> {
        let start = self.at;
        self.at += 1;
        let character = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode_escape(start, decoded);
            }
            _ => return Err(self.syntax()),
        };
        self.at += 1;
        decoded.push(character);
        Ok(())
    }

    /// From behind `\u`; `start` is the place of the backslash.
    fn unicode_escape(&mut self, start: usize, decoded: &mut String) -> Result<(), NotCanonical> {
        let unit = self.four_hex()?;
        let code = match unit {
            0 if self.nul == Nul::Remove => return Ok(()),
            0 => return Err(NotCanonical::Nul(start)),
            0xd800..=0xdbff => {
                if !self.bytes[self.at..].starts_with(b"\\u") {
                    return Err(NotCanonical::HalfPair(start));
                }
                self.at += 2;
                match self.four_hex()? {
                    low @ 0xdc00..=0xdfff => 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00),
                    _ => return Err(NotCanonical::HalfPair(start)),
                }
            }
            other => other,
        };
        // What is left without a character is the second half of a pair, alone.
        decoded.push(char::from_u32(code).ok_or(NotCanonical::HalfPair(start))?);
        Ok(())
    }

    fn four_hex(&mut self) -> Result<u32, NotCanonical> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16)).ok_or_else(|| self.syntax())?;
            unit = unit * 16 + digit;
            self.at += 1;
        }
        Ok(unit)
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.at += 1;
        }
        found
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn syntax(&self) -> NotCanonical {
        NotCanonical::Syntax(self.at)
    }
}
