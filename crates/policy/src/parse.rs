//! Our own parser for data documents that are ground literals (contract: policy.md §14.4, D31).
//!
//! Why not a Rego parser: nearly every document is data, and data must never abort, hang or slow the process that signs
//! tokens. What is not data is left to `crate::rego` rather than half understood. The subset fits on a glance:
//!
//! ```text
//! document  = { comment } "package caracal.authz" { import } { rule }
//! import    = "import rego.v1" | "import future.keywords" [ "." keyword ]
//! rule      = [ "default" ] root ( ":=" | "=" ) value
//!           | root "[" value "]" ( ":=" | "=" ) value      also root.name := value
//!           | root "contains" value                        needs an import that makes it a keyword
//! root      = app_ids | grants | confinement | restrict | risk | approval_tiers
//! value     = null | true | false | number | string | raw string | array | object | set
//! ```
//!
//! Each statement starts on a line of its own and nothing may follow it, so no operator, body or index can attach
//! itself to a value from the next line: what is accepted means to the Rego language exactly what it says.
//! One pass, cost linear in the text (sorting objects and sets aside), nesting bounded, no backtracking.

use crate::literal::{Literal, Member, Position, Value};
use crate::refusal::{Refusal, RefusalKind};
use crate::rego::Evaluated;
use crate::root::Root;
use crate::scan::Cursor;

/// Deepest nesting of brackets accepted. Real documents use four levels; the bound keeps the stack small.
pub const MAX_DEPTH: usize = 64;

/// So many repeated keys are remembered; a hostile text could hold thousands.
const MAX_REPEATED_KEYS: usize = 32;

/// Bytes that a value takes beside its text, about: `[1,1,1]` is many times larger read than written.
pub(crate) const VALUE_BYTES: usize = 96;

/// A document read as ground data: its rules in text order.
#[derive(Debug)]
pub struct ParsedDocument {
    pub(crate) rules: Vec<Rule>,
    /// Object keys written twice with different values: the last one counts, authors are told.
    pub(crate) repeated_keys: Vec<(Position, String)>,
    /// Bytes it takes as it is here, about.
    pub(crate) weight: usize,
    /// What of it must be evaluated.
    pub(crate) evaluated: Option<Evaluated>,
}

/// One rule of a document.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) root: Root,
    pub(crate) at: Position,
    pub(crate) form: Form,
}

#[derive(Debug)]
pub(crate) enum Form {
    /// `default root := value`
    Default(Literal),
    /// `root := value`
    Complete(Literal),
    /// `root[key] := value`
    Member(Member),
    /// `root contains value`
    Element(Literal),
}

impl ParsedDocument {
    /// Reads a document: as literal data if it is, else as one that must be evaluated. The text check of policy.md §7.1
    /// is another matter: see [`crate::text::check`].
    ///
    /// The second way takes a deep stack and its time: run it on a thread of [`crate::Evaluators`].
    pub fn parse(content: &str) -> Result<Self, Refusal> {
        match Self::parse_literal(content) {
            Err(refusal) if refusal.kind.is_outside_subset() => crate::rego::read(content),
            read => read,
        }
    }

    /// Reads a document that is literal data.
    pub fn parse_literal(content: &str) -> Result<Self, Refusal> {
        parse_counting(content).0
    }

    /// Reads a stored document. One of another package says nothing here, and is no error (policy.md §7.3).
    pub(crate) fn parse_stored(content: &str) -> Result<Self, Refusal> {
        match Self::parse(content) {
            Err(Refusal { kind: RefusalKind::ForeignPackage(_), .. }) => {
                Ok(Self { rules: Vec::new(), repeated_keys: Vec::new(), weight: content.len(), evaluated: None })
            }
            read => read,
        }
    }

    /// Whether it has rules that must be evaluated.
    pub fn must_be_evaluated(&self) -> bool {
        self.evaluated.is_some()
    }

    /// The value of the first complete rule of a root, without defaults and parts.
    pub fn value_of(&self, root: Root) -> Option<&Literal> {
        self.rules.iter().filter(|rule| rule.root == root).find_map(|rule| match &rule.form {
            Form::Complete(value) => Some(value),
            _ => None,
        })
    }
}

/// The result and the number of bytes the parser stepped over.
pub(crate) fn parse_counting(content: &str) -> (Result<ParsedDocument, Refusal>, u64) {
    let mut parser = Parser {
        cursor: Cursor::new(content),
        imports: Vec::new(),
        contains_is_keyword: false,
        document: ParsedDocument {
            rules: Vec::new(),
            repeated_keys: Vec::new(),
            weight: content.len(),
            evaluated: None,
        },
    };
    if crate::text::is_too_long(content) {
        return (Err(parser.cursor.refuse(RefusalKind::TooLong)), 0);
    }
    let result = parser.document();
    let steps = parser.cursor.steps;
    (result.map(|()| parser.document), steps)
}

struct Parser<'t> {
    cursor: Cursor<'t>,
    imports: Vec<&'t str>,
    contains_is_keyword: bool,
    document: ParsedDocument,
}

impl<'t> Parser<'t> {
    fn document(&mut self) -> Result<(), Refusal> {
        self.package()?;
        loop {
            self.cursor.skip_blank();
            if self.cursor.peek().is_none() {
                return Ok(());
            }
            self.statement()?;
            self.end_of_statement()?;
        }
    }

    fn package(&mut self) -> Result<(), Refusal> {
        self.cursor.skip_blank();
        let missing = self.cursor.refuse(RefusalKind::MissingPackage);
        if self.cursor.identifier() != Some("package") {
            return Err(missing);
        }
        self.cursor.skip_spaces();
        let foreign = |name: &str| RefusalKind::ForeignPackage(shortened(name));
        let refused = self.cursor.at();
        match self.cursor.dotted() {
            Some("caracal.authz") => {}
            Some(name) => {
                return Err(Refusal { at: refused, kind: foreign(name) });
            }
            None => return Err(self.cursor.refuse_expecting("the name of the package")),
        }
        match self.cursor.peek() {
            Some(b'[') => Err(Refusal { at: refused, kind: foreign("caracal.authz[…]") }),
            _ => self.end_of_statement(),
        }
    }

    fn statement(&mut self) -> Result<(), Refusal> {
        let at = self.cursor.at();
        let refuse = |kind| Err(Refusal { at, kind });
        let word = match self.cursor.identifier() {
            Some(word) => word,
            None if self.cursor.peek() == Some(b'{') => return refuse(RefusalKind::Condition),
            None if self.cursor.peek().is_some_and(starts_expression) => return refuse(RefusalKind::Expression),
            None => return Err(self.cursor.refuse_expecting("a rule such as `grants := {…}`")),
        };
        match word {
            "package" => refuse(RefusalKind::SecondPackage),
            "import" => self.import(),
            "default" => {
                self.cursor.skip_spaces();
                let name_at = self.cursor.at();
                match self.cursor.identifier() {
                    Some(name) => self.rule(name, name_at, true),
                    None => Err(self.cursor.refuse_expecting("the name of a root document")),
                }
            }
            // The continuation of a rule that ended a line earlier.
            "if" | "else" => refuse(RefusalKind::Condition),
            "with" | "in" => refuse(RefusalKind::Expression),
            name => self.rule(name, at, false),
        }
    }

    fn import(&mut self) -> Result<(), Refusal> {
        if !self.document.rules.is_empty() {
            return Err(self.cursor.refuse(RefusalKind::LateImport));
        }
        self.cursor.skip_spaces();
        let at = self.cursor.at();
        let Some(path) = self.cursor.dotted() else {
            return Err(self.cursor.refuse_expecting("what to import"));
        };
        let refuse = |kind: fn(String) -> RefusalKind| Err(Refusal { at, kind: kind(shortened(path)) });
        match path {
            "rego.v1" | "future.keywords" | "future.keywords.contains" => self.contains_is_keyword = true,
            "future.keywords.if" | "future.keywords.in" | "future.keywords.every" => {}
            _ => return refuse(RefusalKind::UnknownImport),
        }
        // `rego.v1` includes the others; the language calls the combination an error.
        let with_v1 = path == "rego.v1" || self.imports.contains(&"rego.v1");
        if self.imports.contains(&path) || (with_v1 && !self.imports.is_empty()) {
            return refuse(RefusalKind::RepeatedImport);
        }
        self.imports.push(path);
        Ok(())
    }

    fn rule(&mut self, name: &str, at: Position, default: bool) -> Result<(), Refusal> {
        let refuse = |kind| Err(Refusal { at, kind });
        let Some(root) = Root::named(name) else {
            return refuse(RefusalKind::ForeignRule(shortened(name)));
        };
        self.cursor.skip_spaces();
        if default {
            if !self.assignment() {
                return refuse(RefusalKind::BadDefault(root.name()));
            }
            let value = self.value(0)?;
            return self.add(root, at, Form::Default(value));
        }
        if self.assignment() {
            let value = self.value(0)?;
            return self.add(root, at, Form::Complete(value));
        }
        let key = match self.cursor.peek() {
            Some(b'[') => {
                self.cursor.advance();
                let key = self.value(0)?;
                self.cursor.skip_blank();
                if !self.cursor.take(b']') {
                    return Err(self.after_value("`]`"));
                }
                key
            }
            Some(b'.') => {
                self.cursor.advance();
                let key_at = self.cursor.at();
                match self.cursor.identifier() {
                    Some(key) => Literal { at: key_at, value: Value::String(Box::from(key)) },
                    None => return Err(self.cursor.refuse_expecting("a key")),
                }
            }
            Some(b'(') => return refuse(RefusalKind::Function(root.name())),
            Some(b'{') => return refuse(RefusalKind::Condition),
            _ => {
                let word_at = self.cursor.at();
                return match self.cursor.identifier() {
                    Some("contains") if self.contains_is_keyword => {
                        let value = self.value(0)?;
                        self.add(root, at, Form::Element(value))
                    }
                    Some("contains") => Err(Refusal { at: word_at, kind: RefusalKind::ContainsWithoutImport }),
                    Some("if" | "else") => Err(Refusal { at: word_at, kind: RefusalKind::Condition }),
                    _ => Err(self.cursor.refuse_expecting("`:=` and a value")),
                };
            }
        };
        self.cursor.skip_spaces();
        if self.assignment() {
            let value = self.value(0)?;
            return self.add(root, at, Form::Member(Member { key, value }));
        }
        Err(match self.cursor.peek() {
            Some(b'[' | b'.') => self.cursor.refuse(RefusalKind::DeepHead(root.name())),
            Some(b'{') => self.cursor.refuse(RefusalKind::Condition),
            _ => Refusal { at, kind: RefusalKind::HeadWithoutValue(root.name()) },
        })
    }

    fn add(&mut self, root: Root, at: Position, form: Form) -> Result<(), Refusal> {
        self.document.rules.push(Rule { root, at, form });
        Ok(())
    }

    /// Passes `:=` or `=`, but not the first half of `==`.
    fn assignment(&mut self) -> bool {
        if self.cursor.rest_starts_with(":=") {
            self.cursor.advance_by(2);
            return true;
        }
        !self.cursor.rest_starts_with("==") && self.cursor.take(b'=')
    }

    fn end_of_statement(&mut self) -> Result<(), Refusal> {
        self.cursor.skip_spaces();
        match self.cursor.peek() {
            None | Some(b'\n') => Ok(()),
            Some(b'#') => {
                self.cursor.skip_comment();
                Ok(())
            }
            Some(b'{') => Err(self.cursor.refuse(RefusalKind::Condition)),
            _ => Err(self.after_value("the end of the line")),
        }
    }

    /// The refusal for whatever stands behind a complete value where `expected` was due.
    fn after_value(&mut self, expected: &'static str) -> Refusal {
        let at = self.cursor.at();
        let kind = match self.cursor.peek() {
            Some(b'|') => RefusalKind::Comprehension,
            Some(byte) if starts_expression(byte) => RefusalKind::Expression,
            _ => {
                let unexpected = self.cursor.refuse_expecting(expected);
                match self.cursor.identifier() {
                    Some("if" | "else") => RefusalKind::Condition,
                    Some("in" | "with" | "as") => RefusalKind::Expression,
                    _ => return unexpected,
                }
            }
        };
        Refusal { at, kind }
    }

    fn value(&mut self, depth: usize) -> Result<Literal, Refusal> {
        self.document.weight += VALUE_BYTES;
        self.cursor.skip_blank();
        let at = self.cursor.at();
        let value = match self.cursor.peek() {
            Some(b'"') => Value::String(self.cursor.quoted()?),
            Some(b'`') => Value::String(self.cursor.raw()?),
            Some(b'-' | b'0'..=b'9') => Value::Number(self.cursor.number()?),
            Some(b'[') => self.array(depth)?,
            Some(b'{') => self.braces(depth)?,
            Some(b'$') => return Err(self.cursor.refuse(RefusalKind::TemplateString)),
            Some(b'(') => return Err(self.cursor.refuse(RefusalKind::Expression)),
            _ => self.word(at)?,
        };
        Ok(Literal { at, value })
    }

    fn word(&mut self, at: Position) -> Result<Value, Refusal> {
        let Some(word) = self.cursor.dotted() else {
            return Err(self.cursor.refuse_expecting("a value"));
        };
        match (word, self.cursor.peek()) {
            ("null", _) => Ok(Value::Null),
            ("true", _) => Ok(Value::Boolean(true)),
            ("false", _) => Ok(Value::Boolean(false)),
            ("set", Some(b'(')) => {
                self.cursor.advance();
                self.cursor.skip_blank();
                if self.cursor.take(b')') {
                    return Ok(Value::Set(Vec::new()));
                }
                Err(Refusal { at, kind: RefusalKind::Call(word.to_owned()) })
            }
            (_, Some(b'(')) => Err(Refusal { at, kind: RefusalKind::Call(shortened(word)) }),
            _ => Err(Refusal { at, kind: RefusalKind::Reference(shortened(word)) }),
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, Refusal> {
        self.open(depth)?;
        let mut elements = Vec::new();
        loop {
            self.cursor.skip_blank();
            if self.cursor.take(b']') {
                return Ok(Value::Array(elements));
            }
            elements.push(self.value(depth + 1)?);
            self.separator(b']', "`,` or `]`")?;
        }
    }

    /// An object or a set: what follows the first value tells. `{}` is the empty object.
    fn braces(&mut self, depth: usize) -> Result<Value, Refusal> {
        self.open(depth)?;
        self.cursor.skip_blank();
        if self.cursor.take(b'}') {
            return Ok(Value::Object(Vec::new()));
        }
        let first = self.value(depth + 1)?;
        self.cursor.skip_blank();
        if self.colon() { self.object(first, depth) } else { self.set(first, depth) }
    }

    fn object(&mut self, first: Literal, depth: usize) -> Result<Value, Refusal> {
        let mut members = Vec::new();
        let mut key = first;
        loop {
            let value = self.value(depth + 1)?;
            members.push(Member { key, value });
            self.separator(b'}', "`,` or `}`")?;
            self.cursor.skip_blank();
            if self.cursor.take(b'}') {
                return Ok(Value::Object(sorted_members(members, &mut self.document.repeated_keys)));
            }
            key = self.value(depth + 1)?;
            self.cursor.skip_blank();
            if !self.colon() {
                return Err(self.after_value("`:`"));
            }
        }
    }

    fn set(&mut self, first: Literal, depth: usize) -> Result<Value, Refusal> {
        let mut elements = vec![first];
        loop {
            self.separator(b'}', "`,`, `:` or `}`")?;
            self.cursor.skip_blank();
            if self.cursor.take(b'}') {
                elements.sort();
                elements.dedup();
                return Ok(Value::Set(elements));
            }
            elements.push(self.value(depth + 1)?);
        }
    }

    /// Passes a bracket, if it may still be opened here.
    fn open(&mut self, depth: usize) -> Result<(), Refusal> {
        if depth >= MAX_DEPTH {
            return Err(self.cursor.refuse(RefusalKind::TooDeep));
        }
        self.cursor.advance();
        Ok(())
    }

    /// Passes a `,`, or stops in front of the closing bracket. A comma before it is allowed.
    fn separator(&mut self, close: u8, expected: &'static str) -> Result<(), Refusal> {
        self.cursor.skip_blank();
        if self.cursor.take(b',') || self.cursor.peek() == Some(close) {
            return Ok(());
        }
        Err(self.after_value(expected))
    }

    /// Passes `:`, but not the first half of `:=`.
    fn colon(&mut self) -> bool {
        !self.cursor.rest_starts_with(":=") && self.cursor.take(b':')
    }
}

/// Members by key. Of equal keys the last wins, as in the language; a differing one is remembered for authors.
pub(crate) fn sorted_members(mut members: Vec<Member>, repeated_keys: &mut Vec<(Position, String)>) -> Vec<Member> {
    members.sort_by(|a, b| a.key.cmp(&b.key));
    let mut kept: Vec<Member> = Vec::with_capacity(members.len());
    for member in members {
        match kept.last_mut() {
            Some(last) if last.key == member.key => {
                if last.value != member.value && repeated_keys.len() < MAX_REPEATED_KEYS {
                    let key = serde_json::to_string(&member.key).unwrap_or_default();
                    repeated_keys.push((member.key.at, shortened(&key)));
                }
                *last = member;
            }
            _ => kept.push(member),
        }
    }
    kept
}

fn starts_expression(byte: u8) -> bool {
    matches!(byte, b'|' | b'&' | b'+' | b'-' | b'*' | b'/' | b'%' | b'=' | b'!' | b'<' | b'>' | b'.' | b'[' | b'(')
}

/// At most 60 characters of a tenant's text in a message.
pub(crate) fn shortened(text: &str) -> String {
    const KEPT: usize = 60;
    match text.char_indices().nth(KEPT) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes stepped over by the parser, whatever the outcome.
    fn steps(content: &str) -> u64 {
        parse_counting(content).1
    }

    /// Counted, not timed: no byte is stepped over twice, so a text twice as long costs at most twice as much.
    #[test]
    fn no_byte_is_passed_twice() {
        let repeated: [fn(usize) -> String; 9] = [
            |n| "(".repeat(n),
            |n| "[".repeat(n),
            |n| "{".repeat(n),
            |n| "{\"a\":".repeat(n),
            |n| format!("[{}]", "\"a\",".repeat(n)),
            |n| format!("{{{}}}", "{1},".repeat(n)),
            |n| format!("{{{}}}", (0..n).map(|i| format!("\"{i}\": [{i}], ")).collect::<String>()),
            |n| format!("\"{}", "\\u00e9".repeat(n)),
            |n| format!("[{}]", "# ]\n1,".repeat(n)),
        ];
        for make in repeated {
            for n in [1_000, 2_000, 4_000, 20_000] {
                let content = format!("package caracal.authz\nrestrict := {}", make(n));
                assert!(steps(&content) <= content.len() as u64, "{}", &content[..60]);
            }
        }
        let rules = "package caracal.authz\nimport rego.v1\n".to_owned() + &"restrict contains 1 # x\n".repeat(5_000);
        assert_eq!(steps(&rules), rules.len() as u64);
    }

    #[test]
    fn brackets_are_refused_at_the_bound_and_not_at_the_end() {
        let content = format!("package caracal.authz\nrestrict := {}", "[".repeat(200_000));
        assert!(steps(&content) < 200);
    }
}
