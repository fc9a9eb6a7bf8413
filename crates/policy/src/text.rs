//! The text check of a document: what authoring accepts, with the contract's codes (policy.md §7.1).
//!
//! It runs on every create, version and validate, and again on set version and activation. It reads text, not
//! grammar: the order of its twelve rows and its view of what a rule is are observable, so they are kept as they
//! are even where a parser would know better. What it lets through that is not literal data is refused by
//! [`crate::Bundle::build`]. Every pass is linear in the text.

use crate::literal::Position;

mod mask;
mod preview;
mod rules;

pub use preview::{OutputContract, Preview, Validation};

use mask::Masked;

/// Longest document, in UTF-16 code units.
pub const MAX_DOCUMENT_UNITS: usize = 262_144;

/// Functions that reach network, clock, chance or host, in the order they are reported (policy.md §7.2).
pub const FORBIDDEN_BUILTINS: [&str; 9] = [
    "http.send",
    "net.lookup_ip_addr",
    "net.cidr_contains",
    "net.cidr_intersects",
    "net.cidr_expand",
    "net.cidr_merge",
    "opa.runtime",
    "rand.intn",
    "time.now_ns",
];

/// The package of every data document.
pub const PACKAGE: &str = "caracal.authz";

/// A document that fails the text check: the first failing row and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {}, column {}: {}", at.line, at.column, code.explanation())]
pub struct TextDefect {
    /// Where the defect is; the start of the text for a defect of the whole.
    pub at: Position,
    /// What is wrong. Its `Display` is the wire code.
    pub code: TextCode,
}

/// The codes of policy.md §7.1, in order of precedence. `Display` is the exact `error_description`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextCode {
    /// Row 1.
    #[error("empty_policy")]
    EmptyPolicy,
    /// Row 2.
    #[error("content_too_large")]
    ContentTooLarge,
    /// Row 3.
    #[error("unterminated_string")]
    UnterminatedString,
    /// Row 4.
    #[error("unbalanced_delimiters")]
    UnbalancedDelimiters,
    /// Row 5.
    #[error("missing_package_declaration")]
    MissingPackageDeclaration,
    /// Row 6.
    #[error("invalid_package_name")]
    InvalidPackageName,
    /// Row 7, with the function's name.
    #[error("forbidden_builtin:{0}")]
    ForbiddenBuiltin(&'static str),
    /// Row 8.
    #[error("must_use_package_caracal_authz")]
    MustUsePackageCaracalAuthz,
    /// Row 9.
    #[error("must_be_data_document")]
    MustBeDataDocument,
    /// Row 10.
    #[error("data_document_must_not_define_result")]
    MustNotDefineResult,
    /// Row 11.
    #[error("data_document_must_define_data")]
    MustDefineData,
    /// Row 12, with the first rule that is none of the six roots.
    #[error("data_document_rule_not_allowed:{0}")]
    RuleNotAllowed(String),
}

impl TextCode {
    /// What is wrong and what to do, for a person. Not for matching.
    pub fn explanation(&self) -> String {
        match self {
            TextCode::EmptyPolicy => "the document is empty".into(),
            TextCode::ContentTooLarge => format!("the document is longer than {MAX_DOCUMENT_UNITS} characters"),
            TextCode::UnterminatedString => {
                "this string is not closed; a string in double quotes ends on its own line".into()
            }
            TextCode::UnbalancedDelimiters => "this bracket has no partner".into(),
            TextCode::MissingPackageDeclaration => format!("no line declares the package; add `package {PACKAGE}`"),
            TextCode::InvalidPackageName => "the package name is not a dotted name".into(),
            TextCode::ForbiddenBuiltin(name) => {
                format!("`{name}` is not available to policy: it would reach network, clock, chance or host")
            }
            TextCode::MustUsePackageCaracalAuthz => format!("a data document belongs to package `{PACKAGE}`"),
            TextCode::MustBeDataDocument => "a line `# caracal:data-document` must mark the text as data".into(),
            TextCode::MustNotDefineResult => {
                "decisions belong to the platform: a document cannot define `result`".into()
            }
            TextCode::MustDefineData => {
                "no data is defined; define app_ids, grants, confinement, restrict, risk or approval_tiers".into()
            }
            TextCode::RuleNotAllowed(name) => format!(
                "`{name}` is none of app_ids, grants, confinement, restrict, risk and approval_tiers; a document \
                 defines nothing else"
            ),
        }
    }
}

/// A text that passed the check. Only [`check`] makes one.
#[derive(Debug)]
pub struct Checked<'t> {
    content: &'t str,
    masked: Masked<'t>,
    rules: Vec<String>,
}

/// The twelve rows of policy.md §7.1; the first that fails is the answer.
pub fn check(content: &str) -> Result<Checked<'_>, TextDefect> {
    let start = Position { line: 1, column: 1 };
    let of_the_whole = |code| TextDefect { at: start, code };
    if content.is_empty() {
        return Err(of_the_whole(TextCode::EmptyPolicy));
    }
    if is_too_long(content) {
        return Err(of_the_whole(TextCode::ContentTooLarge));
    }
    let masked = Masked::of(content)
        .map_err(|offset| TextDefect { at: mask::position(content, offset), code: TextCode::UnterminatedString })?;
    let defect = |offset, code| TextDefect { at: masked.position(offset), code };
    if let Some(offset) = unbalanced(&masked.text) {
        return Err(defect(offset, TextCode::UnbalancedDelimiters));
    }
    let (offset, package) = package(&masked.text).ok_or_else(|| of_the_whole(TextCode::MissingPackageDeclaration))?;
    if !is_dotted_name(package) {
        return Err(defect(offset, TextCode::InvalidPackageName));
    }
    if let Some((offset, name)) = forbidden_call(&masked.text) {
        return Err(defect(offset, TextCode::ForbiddenBuiltin(name)));
    }
    if package != PACKAGE {
        return Err(defect(offset, TextCode::MustUsePackageCaracalAuthz));
    }
    if !content.split('\n').any(is_directive) {
        return Err(of_the_whole(TextCode::MustBeDataDocument));
    }
    let found = rules::detect(&masked.text);
    if let Some(rule) = found.iter().find(|rule| rule.name == "result") {
        return Err(defect(rule.offset, TextCode::MustNotDefineResult));
    }
    if found.is_empty() {
        return Err(of_the_whole(TextCode::MustDefineData));
    }
    if let Some(rule) = found.iter().find(|rule| crate::Root::named(rule.name).is_none()) {
        return Err(defect(rule.offset, TextCode::RuleNotAllowed(rule.name.to_owned())));
    }
    let mut rules: Vec<String> = found.iter().map(|rule| rule.name.to_owned()).collect();
    rules.sort();
    rules.dedup();
    Ok(Checked { content, masked, rules })
}

/// Whether a text exceeds [`MAX_DOCUMENT_UNITS`]. A text never has more units than bytes.
pub(crate) fn is_too_long(content: &str) -> bool {
    content.len() > MAX_DOCUMENT_UNITS && content.chars().map(char::len_utf16).sum::<usize>() > MAX_DOCUMENT_UNITS
}

/// The first bracket without its partner: a wrong closing one, else the innermost left open.
fn unbalanced(masked: &str) -> Option<usize> {
    let mut open: Vec<(usize, u8)> = Vec::new();
    for (offset, byte) in masked.bytes().enumerate() {
        let opener = match byte {
            b'(' | b'[' | b'{' => {
                open.push((offset, byte));
                continue;
            }
            b')' => b'(',
            b']' => b'[',
            b'}' => b'{',
            _ => continue,
        };
        if open.pop().is_none_or(|(_, top)| top != opener) {
            return Some(offset);
        }
    }
    open.last().map(|(offset, _)| *offset)
}

/// The first line that starts with `package <name>`, and the place of the name.
fn package(masked: &str) -> Option<(usize, &str)> {
    lines(masked).find_map(|(start, line)| {
        let rest = line.trim_start_matches(is_space).strip_prefix("package")?;
        let name_and_more = rest.trim_start_matches(is_space);
        let length =
            name_and_more.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(byte)).count();
        let separated = name_and_more.len() < rest.len();
        (separated && length > 0).then(|| (start + line.len() - name_and_more.len(), &name_and_more[..length]))
    })
}

fn is_dotted_name(name: &str) -> bool {
    name.split('.').all(|piece| !piece.is_empty() && !piece.as_bytes()[0].is_ascii_digit())
}

fn forbidden_call(masked: &str) -> Option<(usize, &'static str)> {
    FORBIDDEN_BUILTINS.iter().find_map(|name| {
        masked.match_indices(name).find_map(|(offset, _)| {
            let before = masked.as_bytes()[..offset].last().copied();
            let part_of_a_longer_name = before.is_some_and(is_name_byte);
            let called = masked[offset + name.len()..].trim_start_matches(is_space).starts_with('(');
            (called && !part_of_a_longer_name).then_some((offset, *name))
        })
    })
}

/// `#`, optional white space, the mark, and no letter, digit or underscore behind it. Read from the raw text.
fn is_directive(line: &str) -> bool {
    line.trim_start_matches(is_space)
        .strip_prefix('#')
        .and_then(|rest| rest.trim_start_matches(is_space).strip_prefix("caracal:data-document"))
        .is_some_and(|rest| !rest.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
}

/// The lines of a text with their offsets. Only a line feed ends a line.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut start = 0;
    text.split('\n').map(move |line| {
        let at = start;
        start += line.len() + 1;
        (at, line)
    })
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.'
}

/// White space as the authoring clients' language has it: byte order mark included, next-line control not.
fn is_space(c: char) -> bool {
    (c.is_whitespace() && c != '\u{85}') || c == '\u{feff}'
}
