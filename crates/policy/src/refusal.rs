//! Why a document is not read: one enum, each case with what to do about it.
//!
//! The first half is what the literal parser stops at. Some of it is good Rego all the same ([`RefusalKind::is_outside_subset`]);
//! such a text is read a second time, by the reader of `crate::rego`, and the second half is what that one refuses.

use crate::literal::Position;

/// A document that is not read, and where reading stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {}, column {}: {kind}", at.line, at.column)]
pub struct Refusal {
    /// Where the parser stopped.
    pub at: Position,
    /// What it found there.
    pub kind: RefusalKind,
}

/// What stands in the way of reading a document.
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
    #[error(
        "import `{0}` is not known; remove it or mend its name (`rego.v1`, `future.keywords`, `input` and `data` are known)"
    )]
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
    #[error("template strings are not available; write a plain string, or `sprintf`")]
    TemplateString,

    // What stands in the way of evaluating a document.
    /// The text is longer than one that is evaluated may be.
    #[error(
        "a document that must be evaluated may have {max} bytes; move what is literal to a document of its own",
        max = crate::rego::MAX_TEXT
    )]
    TooLongToEvaluate,
    /// Brackets nested beyond what may be evaluated: reading costs twice as much per level.
    #[error(
        "nested deeper than {max} levels, which a document that must be evaluated may not be; flatten it",
        max = crate::rego::MAX_NESTING
    )]
    TooDeepToEvaluate,
    /// Too much text inside of nested brackets.
    #[error(
        "too much nested text for a document that must be evaluated; move what is literal to a document of its own"
    )]
    TooMuchToEvaluate,
    /// More operators than one expression may have.
    #[error("an expression with more than {max} operators; split it", max = crate::rego::MAX_OPERATORS)]
    ExpressionTooLong,
    /// More statements than one body may have.
    #[error("a body with more than {max} statements; split the rule", max = crate::rego::MAX_STATEMENTS)]
    BodyTooLong,
    /// More computed elements or keys than one literal may have.
    #[error(
        "more than {max} computed elements of a set, or keys of an object, in one place; write a comprehension",
        max = crate::rego::MAX_COMPARED
    )]
    TooManyCompared,
    /// A number that can't be computed with in bounded time.
    #[error("a number of this size is not computed with; write one of at most 40 digits and an exponent below 100")]
    NumberTooLarge,
    /// A name that evaluation uses for itself.
    #[error("`{0}`: names that start with two underscores are not available")]
    ReservedName(String),
    /// A function that is not available.
    #[error("`{0}` is not a function available to policy")]
    UnknownFunction(String),
    /// A function that is available, called in a way that is not.
    #[error("`{function}` is called with {found} arguments, and takes {takes}; assign its result with `:=`")]
    WrongArguments {
        /// The function.
        function: &'static str,
        /// How many it takes.
        takes: usize,
        /// How many there are.
        found: usize,
    },
    /// An argument that must be written out, so that the result is bounded.
    #[error("`{function}` needs {needs} written out here, so that its result is bounded")]
    UnboundedArgument {
        /// The function.
        function: &'static str,
        /// What it needs.
        needs: &'static str,
    },
    /// A reference into `data` that is none to a root by its name.
    #[error(
        "a document refers to nothing in `data` but the roots, by name: `data.caracal.authz.grants`, or `grants` \
         (app_ids, grants, confinement, restrict, risk, approval_tiers)"
    )]
    ForeignData,
    /// `with` for something else than `input`.
    #[error("`with` replaces `input` or a member of it, and nothing else")]
    WithTarget,
    /// A local name that hides a root, `input`, `data` or an import.
    #[error("the name `{0}` would hide what it stands for elsewhere; choose another")]
    HidingName(String),
    /// What stands left of `:=`, or behind `some`, is no name.
    #[error("only names, or arrays and objects of names, are assigned here")]
    NotAssignable,
    /// Two sides of `=`, both of which may be patterns.
    #[error("which side of this `=` is assigned is not clear; write `pattern := value`, or `==` to compare")]
    UnclearUnification,
    /// `not` in front of what is not plain enough, or together with `with`.
    #[error("this can't be negated as it stands; assign it with `:=` first, and negate the name")]
    Negation,
    /// `else` for a rule that adds to a root.
    #[error("`else` takes a rule that gives `{0}` as a whole, not one that adds to it")]
    ElseOnPart(&'static str),
    /// A root whose rules give it a value it can't have.
    #[error("`{0}` must be {1}")]
    WrongShape(&'static str, &'static str),
    /// What the evaluator itself says.
    #[error("{0}")]
    NotEvaluable(String),
}

impl RefusalKind {
    /// Whether the text may be good Rego that only an evaluator could read. The rest is refused whoever reads it.
    pub fn is_outside_subset(&self) -> bool {
        use RefusalKind::*;
        matches!(
            self,
            UnknownImport(_)
                | Condition
                | DeepHead(_)
                | HeadWithoutValue(_)
                | Reference(_)
                | Call(_)
                | Comprehension
                | Expression
        )
    }

    /// A stable word for machines.
    pub fn code(&self) -> &'static str {
        match self {
            RefusalKind::ForeignRule(_) => "rule_not_allowed",
            RefusalKind::Function(_) => "root_is_a_function",
            RefusalKind::TooLong => "document_too_long",
            RefusalKind::TooDeep | RefusalKind::TooDeepToEvaluate => "nested_too_deep",
            RefusalKind::TooLongToEvaluate | RefusalKind::TooMuchToEvaluate => "document_too_long",
            RefusalKind::UnknownFunction(_)
            | RefusalKind::WrongArguments { .. }
            | RefusalKind::UnboundedArgument { .. } => "function_not_available",
            RefusalKind::ForeignPackage(_) => "foreign_package",
            RefusalKind::ForeignData => "foreign_reference",
            RefusalKind::WrongShape(..) => "malformed_data",
            RefusalKind::ExpressionTooLong
            | RefusalKind::BodyTooLong
            | RefusalKind::TooManyCompared
            | RefusalKind::NumberTooLarge
            | RefusalKind::ReservedName(_)
            | RefusalKind::WithTarget
            | RefusalKind::HidingName(_)
            | RefusalKind::NotAssignable
            | RefusalKind::UnclearUnification
            | RefusalKind::Negation
            | RefusalKind::ElseOnPart(_)
            | RefusalKind::DeepHead(_)
            | RefusalKind::HeadWithoutValue(_)
            | RefusalKind::TemplateString
            | RefusalKind::NotEvaluable(_) => "not_evaluable",
            kind if kind.is_outside_subset() => "outside_literal_subset",
            _ => "syntax_error",
        }
    }
}
