//! The cursor under the parser: bytes with line and column, and the tokens that have inner rules.
//!
//! Every byte is passed once; `steps` counts them, so that a test can show the cost to be linear without a clock.

use crate::literal::Position;
use crate::number::Number;
use crate::refusal::{Refusal, RefusalKind};

pub(crate) struct Cursor<'t> {
    text: &'t str,
    offset: usize,
    at: Position,
    pub(crate) steps: u64,
}

impl<'t> Cursor<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        let mut cursor = Self { text, offset: 0, at: Position { line: 1, column: 1 }, steps: 0 };
        if text.starts_with('\u{feff}') {
            cursor.offset = '\u{feff}'.len_utf8();
        }
        cursor
    }

    pub(crate) fn at(&self) -> Position {
        self.at
    }

    /// Where it stands, in bytes from the start of the text.
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// The text from `start` to where it stands.
    pub(crate) fn passed(&self, start: usize) -> &'t str {
        &self.text[start..self.offset]
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.offset).copied()
    }

    pub(crate) fn rest_starts_with(&self, prefix: &str) -> bool {
        self.text.as_bytes()[self.offset..].starts_with(prefix.as_bytes())
    }

    /// Passes one byte. Columns count characters, so a continuation byte moves none.
    pub(crate) fn advance(&mut self) {
        let Some(byte) = self.peek() else { return };
        self.offset += 1;
        self.steps += 1;
        if byte == b'\n' {
            self.at = Position { line: self.at.line + 1, column: 1 };
        } else if byte & 0xC0 != 0x80 {
            self.at.column += 1;
        }
    }

    pub(crate) fn advance_by(&mut self, bytes: usize) {
        for _ in 0..bytes {
            self.advance();
        }
    }

    /// Passes `byte` if it is next.
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.advance();
        }
        found
    }

    /// Passes white space inside a line.
    pub(crate) fn skip_spaces(&mut self) {
        while let Some(b' ' | b'\t' | b'\r') = self.peek() {
            self.advance();
        }
    }

    /// Passes white space, line ends and comments.
    pub(crate) fn skip_blank(&mut self) {
        loop {
            match self.peek() {
                Some(b' ' | b'\t' | b'\r' | b'\n') => self.advance(),
                Some(b'#') => self.skip_comment(),
                _ => return,
            }
        }
    }

    pub(crate) fn skip_comment(&mut self) {
        while self.peek().is_some_and(|byte| byte != b'\n') {
            self.advance();
        }
    }

    /// Passes an identifier, `None` if none starts here.
    pub(crate) fn identifier(&mut self) -> Option<&'t str> {
        let start = self.offset;
        if !self.peek().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_') {
            return None;
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            self.advance();
        }
        Some(&self.text[start..self.offset])
    }

    /// Passes an identifier and the `.name` pieces behind it.
    pub(crate) fn dotted(&mut self) -> Option<&'t str> {
        let start = self.offset;
        self.identifier()?;
        while self.peek() == Some(b'.') {
            self.advance();
            if self.identifier().is_none() {
                break;
            }
        }
        Some(&self.text[start..self.offset])
    }

    pub(crate) fn refuse(&self, kind: RefusalKind) -> Refusal {
        Refusal { at: self.at, kind }
    }

    /// What stands here, for a message: one character, a word, or the end.
    pub(crate) fn refuse_expecting(&self, expected: &'static str) -> Refusal {
        let found = match self.text[self.offset..].chars().next() {
            None => "the end of the document".to_owned(),
            Some('\n') => "the end of the line".to_owned(),
            Some(_) => {
                let word: String = self.text[self.offset..]
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                    .take(40)
                    .collect();
                match (word.is_empty(), self.text[self.offset..].chars().next()) {
                    (true, Some(c)) => format!("`{}`", c.escape_debug()),
                    _ => format!("`{word}`"),
                }
            }
        };
        self.refuse(RefusalKind::Unexpected { expected, found })
    }

    /// A `"` string with JSON's escapes; the opening quote is next.
    pub(crate) fn quoted(&mut self) -> Result<Box<str>, Refusal> {
        let opened = self.at;
        let unterminated = Refusal { at: opened, kind: RefusalKind::UnterminatedString };
        self.advance();
        let mut out = String::new();
        let mut run = self.offset;
        loop {
            match self.peek() {
                None | Some(b'\n') => return Err(unterminated),
                Some(b'"') => {
                    out.push_str(&self.text[run..self.offset]);
                    self.advance();
                    return Ok(out.into_boxed_str());
                }
                Some(b'\\') => {
                    out.push_str(&self.text[run..self.offset]);
                    out.push(self.escape()?);
                    run = self.offset;
                }
                Some(0..=0x1F) => return Err(self.refuse(RefusalKind::ControlCharacter)),
                Some(_) => self.advance(),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Refusal> {
        let bad = self.refuse(RefusalKind::BadEscape);
        self.advance();
        let simple = match self.peek() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.advance();
                let first = self.hex4().ok_or(bad.clone())?;
                let code = match first {
                    // The first half of a pair must be followed by the second: alone, neither is a character.
                    0xD800..=0xDBFF => {
                        if !self.rest_starts_with("\\u") {
                            return Err(bad);
                        }
                        self.advance_by(2);
                        let second = self.hex4().filter(|unit| (0xDC00..=0xDFFF).contains(unit)).ok_or(bad.clone())?;
                        0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)
                    }
                    unit => unit,
                };
                return char::from_u32(code).ok_or(bad);
            }
            _ => return Err(bad),
        };
        self.advance();
        Ok(simple)
    }

    fn hex4(&mut self) -> Option<u32> {
        let mut value = 0;
        for _ in 0..4 {
            value = value << 4 | char::from(self.peek()?).to_digit(16)?;
            self.advance();
        }
        Some(value)
    }

    /// A back-quoted string: no escapes, may span lines; the opening quote is next.
    pub(crate) fn raw(&mut self) -> Result<Box<str>, Refusal> {
        let unterminated = self.refuse(RefusalKind::UnterminatedString);
        self.advance();
        let start = self.offset;
        while self.peek().is_some_and(|byte| byte != b'`') {
            self.advance();
        }
        let text = &self.text[start..self.offset];
        if self.take(b'`') { Ok(Box::from(text)) } else { Err(unterminated) }
    }

    /// A number as JSON writes them; a digit or `-` is next.
    pub(crate) fn number(&mut self) -> Result<Number, Refusal> {
        let bad = self.refuse(RefusalKind::BadNumber);
        let start = self.offset;
        // Everything that could belong to it, so that `1x`, `01` and `1.2.3` are one bad number, not two values.
        while let Some(byte) = self.peek() {
            let sign_of_exponent =
                matches!(byte, b'+' | b'-') && matches!(self.text.as_bytes()[self.offset - 1], b'e' | b'E');
            if !(byte.is_ascii_alphanumeric()
                || matches!(byte, b'_' | b'.')
                || self.offset == start
                || sign_of_exponent)
            {
                break;
            }
            self.advance();
        }
        Number::parse(&self.text[start..self.offset]).ok_or(bad)
    }
}
