//! Why a document is not in the literal subset: one enum, each case with what to do about it.

use crate::literal::Position;

/// A document the literal parser does not take, and where it stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {}, column {}: {kind}", at.line, at.column)]
pub struct Refusal {
    /// Where the parser stopped.
    pub at: Position,
    /// What it found there.
    pub kind: RefusalKind,
}

/// What stands in the way of reading a document as ground data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefusalKind {
    /// The text is longer than a document may be.
    #[error("the document is longer than 262144 characters; split it")]
    TooLong,
    /// Brackets nested beyond the bound.
    #[error("nested deeper than {max} levels, which no policy data needs; flatten it", max = crate::parse::MAX_DEPTH)]
    TooDeep,
    /// The parser needed something else here.
    #[error("expected {expected}, found {found}")]
    Unexpected {
        /// What would have been right.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A `"` string that its line does not close, or a raw string that nothing closes.
    #[error("this string is not closed; close it on the same line, or use a raw string in back quotes")]
    UnterminatedString,
    /// A backslash followed by something JSON does not know, or half of a surrogate pair.
    #[error("this escape is none of JSON's; write a backslash as \\\\ or use a raw string in back quotes")]
    BadEscape,
    /// A control character inside a string.
    #[error("a control character inside a string; write it as an escape")]
    ControlCharacter,
    /// Digits that are not a JSON number.
    #[error("this is not a number as JSON writes them")]
    BadNumber,
    /// The first statement is not the package.
    #[error("expected `package caracal.authz` before anything else")]
    MissingPackage,
    /// Another package than the one zones contribute to.
    #[error("package `{0}` is not read; data documents belong to package `caracal.authz`")]
    ForeignPackage(String),
    /// A second package statement.
    #[error("a second `package` line; one document has one package")]
    SecondPackage,
    /// An import other than the keyword imports.
    #[error("import `{0}` has no meaning for literal data; remove it (only `rego.v1` and `future.keywords` are known)")]
    UnknownImport(String),
    /// `rego.v1` together with another keyword import, or one import twice.
    #[error("import `{0}` repeats or contradicts an earlier one; keep only `import rego.v1`")]
    RepeatedImport(String),
    /// An import below a rule.
    #[error("imports stand above all rules; move this one up")]
    LateImport,
    /// `contains` without an import that makes it a keyword.
    #[error("`contains` needs `import rego.v1` above the rules")]
    ContainsWithoutImport,
    /// A rule that is none of the six roots.
    #[error(
        "`{0}` is not one of the documents a zone may define (app_ids, grants, confinement, restrict, risk, \
         approval_tiers)"
    )]
    ForeignRule(String),
    /// `default` in front of anything but `root := value`.
    #[error("`default` takes the form `default {0} := value`")]
    BadDefault(&'static str),
    /// A root with parameters.
    #[error("`{0}` is data and cannot be a function; write `{0} := value`")]
    Function(&'static str),
    /// A rule that holds only under a condition.
    #[error(
        "a rule with a condition (`if`, `else` or a body) must be evaluated, and only literal data is read; write \
         the value without the condition"
    )]
    Condition,
    /// A rule head deeper than `root[key]`.
    #[error("a rule head deeper than `{0}[key] := value` is not literal data; write the whole value under that key")]
    DeepHead(&'static str),
    /// `root[x]` without a value.
    #[error("`{0}[…]` without a value is not literal data; write `{0} contains value` or `{0}[key] := value`")]
    HeadWithoutValue(&'static str),
    /// A name where a value is due.
    #[error("`{0}` refers to something else, and only literal data is read; write the value itself")]
    Reference(String),
    /// A function call.
    #[error("a call of `{0}` must be evaluated, and only literal data is read; write its result")]
    Call(String),
    /// A comprehension or a union.
    #[error("a comprehension (`|`) must be evaluated, and only literal data is read; write out its elements")]
    Comprehension,
    /// An operator, an index, a parenthesis.
    #[error("an expression must be evaluated, and only literal data is read; write its result")]
    Expression,
    /// A template string.
    #[error("a template string must be evaluated, and only literal data is read; write a plain string")]
    TemplateString,
}

impl RefusalKind {
    /// Whether the text may be good Rego that only an evaluator could read. The rest is refused whoever reads it.
    pub fn is_outside_subset(&self) -> bool {
        use RefusalKind::*;
        match self {
            ForeignPackage(_) | UnknownImport(_) | Condition | DeepHead(_) | HeadWithoutValue(_) | Reference(_)
            | Call(_) | Comprehension | Expression | TemplateString | TooDeep => true,
            TooLong
            | Unexpected { .. }
            | UnterminatedString
            | BadEscape
            | ControlCharacter
            | BadNumber
            | MissingPackage
            | SecondPackage
            | RepeatedImport(_)
            | LateImport
            | ContainsWithoutImport
            | ForeignRule(_)
            | BadDefault(_)
            | Function(_) => false,
        }
    }

    /// A stable word for machines.
    pub fn code(&self) -> &'static str {
        match self {
            RefusalKind::ForeignRule(_) => "rule_not_allowed",
            RefusalKind::Function(_) => "root_is_a_function",
            RefusalKind::TooLong => "document_too_long",
            RefusalKind::TooDeep => "nested_too_deep",
            kind if kind.is_outside_subset() => "outside_literal_subset",
            _ => "syntax_error",
        }
    }
}
