//! A document's text without comments and with every string replaced by one space.

use crate::literal::Position;

/// The masked text, and how to get from it back to the document.
#[derive(Debug)]
pub(super) struct Masked<'t> {
    source: &'t str,
    pub(super) text: String,
    /// Where pieces taken over unchanged start, in the masked text and in the source; both ascend.
    pieces: Vec<(usize, usize)>,
}

impl<'t> Masked<'t> {
    /// Masks a text. Fails with the offset of a string that is not closed.
    ///
    /// `"` strings honour backslash escapes and may not contain a line feed; back-quoted ones have no escapes and
    /// may span lines; a comment ends before its line feed.
    pub(super) fn of(source: &'t str) -> Result<Self, usize> {
        let bytes = source.as_bytes();
        let mut text = String::with_capacity(source.len());
        let mut pieces = Vec::new();
        let mut piece = 0;
        let mut offset = 0;
        let mut keep = |text: &mut String, from: usize, to: usize| {
            if from < to {
                pieces.push((text.len(), from));
                text.push_str(&source[from..to]);
            }
        };
        while let Some(byte) = bytes.get(offset) {
            let end = match byte {
                b'#' => offset + bytes[offset..].iter().position(|b| *b == b'\n').unwrap_or(bytes.len() - offset),
                b'"' => end_of_quoted(bytes, offset).ok_or(offset)?,
                b'`' => {
                    let inner = offset + 1;
                    inner + bytes[inner..].iter().position(|b| *b == b'`').ok_or(offset)? + 1
                }
                _ => {
                    offset += 1;
                    continue;
                }
            };
            keep(&mut text, piece, offset);
            if *byte != b'#' {
                text.push(' ');
            }
            (piece, offset) = (end, end);
        }
        keep(&mut text, piece, bytes.len());
        Ok(Self { source, text, pieces })
    }

    /// The place in the document of an offset into the masked text.
    pub(super) fn position(&self, offset: usize) -> Position {
        let index = self.pieces.partition_point(|(masked, _)| *masked <= offset);
        let source = match self.pieces.get(index.wrapping_sub(1)) {
            Some((masked, source)) => source + (offset - masked),
            None => 0,
        };
        position(self.source, source)
    }
}

/// The offset behind the closing quote.
fn end_of_quoted(bytes: &[u8], start: usize) -> Option<usize> {
    let mut offset = start + 1;
    loop {
        match bytes.get(offset)? {
            b'\n' => return None,
            b'"' => return Some(offset + 1),
            // The escaped character is passed with its backslash, but a line feed stays one.
            b'\\' if bytes.get(offset + 1) != Some(&b'\n') => offset += 2,
            _ => offset += 1,
        }
    }
}

/// Line and column of a byte offset.
pub(super) fn position(source: &str, offset: usize) -> Position {
    let mut offset = offset.min(source.len());
    while !source.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &source[..offset];
    let line_start = before.rfind('\n').map_or(0, |index| index + 1);
    let count = |n: usize| u32::try_from(n + 1).unwrap_or(u32::MAX);
    Position {
        line: count(before.bytes().filter(|byte| *byte == b'\n').count()),
        column: count(before[line_start..].chars().count()),
    }
}
