//! What the text check takes for a rule (contract: policy.md §7.1, "rule detection is textual").
//!
//! At the start of the text or behind a line feed, outside brackets: optional white space, optional `default`, an
//! identifier, optional `( … )` on one line, then `:=`, `=`, `contains `, `{` or `if `. It does not see
//! `grants["a"] := …`, which is observable. The reference's looks into brackets, too, and so takes an assignment in a
//! rule's body for a rule; the contract lets ours accept those.

use super::{is_space, lines};

/// A detected rule.
pub(super) struct Detected<'m> {
    pub(super) name: &'m str,
    /// Offset of the name in the masked text.
    pub(super) offset: usize,
}

/// All rules in text order.
pub(super) fn detect(masked: &str) -> Vec<Detected<'_>> {
    let mut open = 0_usize;
    let mut found = Vec::new();
    for (start, line) in lines(masked) {
        if open == 0 {
            found.extend(at_line(masked, start, line));
        }
        for byte in line.bytes() {
            match byte {
                b'(' | b'[' | b'{' => open += 1,
                b')' | b']' | b'}' => open = open.saturating_sub(1),
                _ => {}
            }
        }
    }
    found
}

fn at_line<'m>(masked: &'m str, start: usize, line: &'m str) -> Option<Detected<'m>> {
    let trimmed = line.trim_start_matches(is_space);
    let mut offset = start + line.len() - trimmed.len();
    let mut name = identifier(&masked[offset..])?;
    if name == "default" {
        // Behind `default` the name follows, unless `default` is itself the name of a rule.
        let rest = &masked[offset + name.len()..];
        let behind = rest.trim_start_matches(is_space);
        if behind.len() < rest.len()
            && let Some(next) = identifier(behind)
        {
            offset = masked.len() - behind.len();
            name = next;
        }
    }
    if matches!(name, "package" | "import" | "else" | "with") {
        return None;
    }
    let mut rest = masked[offset + name.len()..].trim_start_matches(is_space);
    if rest.starts_with('(') {
        rest = behind_parentheses(rest)?.trim_start_matches(is_space);
    }
    let word_then_space = |word: &str| rest.strip_prefix(word).is_some_and(|behind| behind.starts_with(is_space));
    let defines = rest.starts_with(":=")
        || rest.starts_with('=')
        || rest.starts_with('{')
        || word_then_space("contains")
        || word_then_space("if");
    defines.then_some(Detected { name, offset })
}

fn identifier(text: &str) -> Option<&str> {
    let length = text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
    (length > 0 && !text.as_bytes()[0].is_ascii_digit()).then(|| &text[..length])
}

/// What stands behind a balanced `( … )` on one line; `None` if the line ends first.
fn behind_parentheses(text: &str) -> Option<&str> {
    let mut depth = 0_usize;
    for (offset, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' if depth == 1 => return Some(&text[offset + 1..]),
            b')' => depth -= 1,
            b'\n' => return None,
            _ => {}
        }
    }
    None
}
