//! The look at a text before the engine's parser sees it (contract: policy.md §14.2 rows 2 and 10).
//!
//! That parser reads a bracket's content once as one thing and, when it was another, again: every level doubles the time.
//! Its trees are as deep as an expression has operators, and trees are walked and dropped by recursion. A number's
//! exponent is multiplied out. So nesting, work, runs of operators and numbers are bounded here, in one pass over bytes,
//! and the partners of brackets are kept: the engine's own spans are not reliable where objects and strings begin.

use std::collections::{HashMap, HashSet};

use super::{MAX_NESTING, MAX_OPERATORS, MAX_TEXT};
use crate::literal::Position;
use crate::parse::shortened;
use crate::refusal::{Refusal, RefusalKind};
use crate::scan::Cursor;

/// Most tokens, each counted twice per level it is nested in.
const MAX_WORK: u64 = 1 << 19;

/// Digits of a number, and its exponent's size.
const MAX_DIGITS: usize = 40;
const MAX_EXPONENT: u64 = 99;

/// Where brackets and strings are, by byte offset.
#[derive(Debug, Default)]
pub(super) struct Outline {
    /// Behind a closing bracket → its opening one.
    opened: HashMap<usize, usize>,
    /// Behind a string's opening quote, and in front of its closing one.
    strings: HashSet<usize>,
    /// Places of a span's start → its line and column, filled for tokens only.
    lines: Vec<usize>,
}

impl Outline {
    /// Passes over the text. `content` has no byte order mark.
    pub(super) fn of(content: &str) -> Result<Self, Refusal> {
        let mut cursor = Cursor::new(content);
        if content.len() > MAX_TEXT {
            return Err(cursor.refuse(RefusalKind::TooLongToEvaluate));
        }
        let mut outline = Self { lines: vec![0], ..Self::default() };
        outline.lines.extend(content.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1));
        let mut pass =
            Pass { open: Vec::new(), run: 0, runs: Vec::new(), behind_operator: false, new_line: false, work: 0 };
        while let Some(byte) = cursor.peek() {
            match byte {
                b'\n' => {
                    pass.new_line = true;
                    cursor.advance();
                }
                b' ' | b'\t' | b'\r' => cursor.advance(),
                b'#' => cursor.skip_comment(),
                _ => outline.token(&mut cursor, &mut pass, byte)?,
            }
        }
        match pass.open.last() {
            None => Ok(outline),
            Some((at, ..)) => {
                Err(Refusal { at: *at, kind: RefusalKind::NotEvaluable("this bracket has no partner".into()) })
            }
        }
    }

    /// Where an opening bracket's partner ends at `end`.
    pub(super) fn opening_of(&self, end: usize) -> Option<usize> {
        self.opened.get(&end).copied()
    }

    /// The same place with a string's opening quote.
    pub(super) fn with_quote_before(&self, start: usize) -> usize {
        if self.strings.contains(&start) { start.saturating_sub(1) } else { start }
    }

    /// The same place with a string's closing quote.
    pub(super) fn with_quote_behind(&self, end: usize) -> usize {
        if self.strings.contains(&end) { end + 1 } else { end }
    }

    /// Line and column of an offset.
    pub(super) fn position(&self, content: &str, offset: usize) -> Position {
        let line = self.lines.partition_point(|start| *start <= offset).max(1);
        let start = self.lines.get(line - 1).copied().unwrap_or_default();
        let before = content.get(start..offset).unwrap_or_default();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Position { line: count(line), column: count(before.chars().count() + 1) }
    }

    fn token(&mut self, cursor: &mut Cursor<'_>, pass: &mut Pass, byte: u8) -> Result<(), Refusal> {
        let (at, start) = (cursor.at(), cursor.offset());
        let refuse = |kind| Err(Refusal { at, kind });
        match byte {
            b'(' | b'[' | b'{' => {
                pass.operand();
                if pass.open.len() >= MAX_NESTING {
                    return refuse(RefusalKind::TooDeepToEvaluate);
                }
                // Behind an operand it indexes or calls, and that makes a tree deeper, too.
                pass.run += 1;
                pass.open.push((at, start, byte));
                pass.runs.push(std::mem::take(&mut pass.run));
                // Whatever opens here begins anew, and so does what follows it on a line of its own.
                pass.behind_operator = true;
                cursor.advance();
            }
            b')' | b']' | b'}' => {
                pass.new_line = false;
                let opener = match byte {
                    b')' => b'(',
                    b']' => b'[',
                    _ => b'{',
                };
                match pass.open.pop() {
                    Some((_, open, kind)) if kind == opener => self.opened.insert(start + 1, open),
                    _ => return refuse(RefusalKind::NotEvaluable("this bracket has no partner".into())),
                };
                pass.run = pass.runs.pop().unwrap_or_default();
                pass.behind_operator = false;
                cursor.advance();
            }
            b'"' | b'`' => {
                pass.operand();
                if byte == b'"' {
                    cursor.quoted().map(drop)?
                } else {
                    cursor.raw().map(drop)?
                };
                self.strings.insert(start + 1);
                self.strings.insert(cursor.offset() - 1);
            }
            b'$' => return refuse(RefusalKind::TemplateString),
            b',' | b';' => {
                pass.separator();
                cursor.advance();
            }
            b'0'..=b'9' => {
                pass.operand();
                cursor.number()?;
                if !is_small(cursor.passed(start)) {
                    return refuse(RefusalKind::NumberTooLarge);
                }
            }
            b'_' | b'a'..=b'z' | b'A'..=b'Z' => {
                let word = cursor.identifier().unwrap_or_default();
                if word.starts_with("__") {
                    return refuse(RefusalKind::ReservedName(shortened(word)));
                }
                if matches!(word, "in" | "with" | "as" | "else" | "not") {
                    pass.operator()
                } else {
                    pass.operand()
                };
            }
            _ => {
                pass.operator();
                cursor.advance();
            }
        }
        if pass.run > MAX_OPERATORS {
            return refuse(RefusalKind::ExpressionTooLong);
        }
        pass.work += 1 << pass.open.len();
        if pass.work > MAX_WORK { refuse(RefusalKind::TooMuchToEvaluate) } else { Ok(()) }
    }
}

/// Where the pass stands.
struct Pass {
    open: Vec<(Position, usize, u8)>,
    /// Operators since the last separator in these brackets, and in those around them.
    run: usize,
    runs: Vec<usize>,
    behind_operator: bool,
    new_line: bool,
    work: u64,
}

impl Pass {
    /// A line break between two operands separates them; one beside an operator does not.
    fn operand(&mut self) {
        if self.new_line && !self.behind_operator {
            self.run = 0;
        }
        self.new_line = false;
        self.behind_operator = false;
    }

    fn operator(&mut self) {
        self.run += 1;
        self.new_line = false;
        self.behind_operator = true;
    }

    fn separator(&mut self) {
        self.run = 0;
        self.new_line = false;
        self.behind_operator = true;
    }
}

/// Whether a number's text can be multiplied out cheaply.
pub(super) fn is_small(number: &str) -> bool {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let size = exponent.trim_start_matches(['+', '-']).parse::<u64>();
    mantissa.len() <= MAX_DIGITS && size.is_ok_and(|size| size <= MAX_EXPONENT)
}
