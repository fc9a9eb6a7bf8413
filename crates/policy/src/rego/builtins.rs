//! What a document may call (contract: policy.md §7.2, §14.2 rows 3 and 12).
//!
//! The engine has no filter of its own, so this list is one: a function that is not on it is refused, whatever the
//! engine knows. On it is what neither reaches outside nor can make much out of little. Arguments that decide how much
//! is made (what is put in the place of what, by what is joined, the form of a text) must be written out.

use regorus::unstable::{Expr, ExprRef};

/// A function that documents may call.
pub(super) struct Builtin {
    pub(super) name: &'static str,
    pub(super) arguments: usize,
    /// Whether its result can be larger than what went in, so that it is measured.
    pub(super) grows: bool,
    /// What runs in its place, where the engine's own is unbounded.
    pub(super) instead: Option<&'static str>,
    /// Which arguments must be written out, and how.
    pub(super) written: &'static [(usize, Written)],
}

/// How an argument must be written.
#[derive(Clone, Copy)]
pub(super) enum Written {
    /// A string of at most [`MAX_WRITTEN`] characters.
    Short,
    /// A format without widths.
    Format,
}

const MAX_WRITTEN: usize = 64;

impl Written {
    pub(super) fn needs(self) -> &'static str {
        match self {
            Written::Short => "a string of at most 64 characters",
            Written::Format => "a format string without widths",
        }
    }

    pub(super) fn is(self, argument: &ExprRef) -> bool {
        let (Expr::String { value, .. } | Expr::RawString { value, .. }) = argument.as_ref() else { return false };
        let Ok(text) = value.as_string() else { return false };
        match self {
            Written::Short => text.chars().count() <= MAX_WRITTEN,
            Written::Format => {
                let mut characters = text.chars();
                while let Some(character) = characters.next() {
                    if character == '%'
                        && !characters.next().is_some_and(|verb| verb == '%' || verb.is_ascii_alphabetic())
                    {
                        return false;
                    }
                }
                true
            }
        }
    }
}

/// The name under which the engine knows our own `to_number`.
pub(super) const TO_NUMBER: &str = "__number";
/// The same of `time.parse_rfc3339_ns`.
pub(super) const RFC3339: &str = "__rfc3339";

const fn plain(name: &'static str, arguments: usize) -> Builtin {
    Builtin { name, arguments, grows: false, instead: None, written: &[] }
}

const fn growing(name: &'static str, arguments: usize) -> Builtin {
    Builtin { grows: true, ..plain(name, arguments) }
}

const fn written(name: &'static str, arguments: usize, written: &'static [(usize, Written)]) -> Builtin {
    Builtin { written, ..growing(name, arguments) }
}

static BUILTINS: [Builtin; 55] = [
    plain("abs", 1),
    growing("array.concat", 2),
    plain("array.reverse", 1),
    plain("array.slice", 3),
    plain("bits.and", 2),
    plain("bits.negate", 1),
    plain("bits.or", 2),
    plain("bits.xor", 2),
    plain("ceil", 1),
    written("concat", 2, &[(0, Written::Short)]),
    plain("contains", 2),
    plain("count", 1),
    plain("endswith", 2),
    plain("floor", 1),
    growing("format_int", 2),
    plain("indexof", 2),
    growing("indexof_n", 2),
    plain("intersection", 1),
    plain("is_array", 1),
    plain("is_boolean", 1),
    plain("is_null", 1),
    plain("is_number", 1),
    plain("is_object", 1),
    plain("is_set", 1),
    plain("is_string", 1),
    growing("lower", 1),
    plain("max", 1),
    plain("min", 1),
    growing("object.filter", 2),
    plain("object.get", 3),
    growing("object.keys", 1),
    growing("object.remove", 2),
    growing("object.union", 2),
    growing("object.union_n", 1),
    written("replace", 3, &[(1, Written::Short), (2, Written::Short)]),
    plain("round", 1),
    plain("sort", 1),
    growing("split", 2),
    written("sprintf", 2, &[(0, Written::Format)]),
    plain("startswith", 2),
    plain("strings.count", 2),
    growing("strings.reverse", 1),
    plain("substring", 3),
    plain("sum", 1),
    Builtin { instead: Some(RFC3339), ..plain("time.parse_rfc3339_ns", 1) },
    Builtin { instead: Some(TO_NUMBER), ..plain("to_number", 1) },
    written("trim", 2, &[(1, Written::Short)]),
    written("trim_left", 2, &[(1, Written::Short)]),
    plain("trim_prefix", 2),
    written("trim_right", 2, &[(1, Written::Short)]),
    plain("trim_space", 1),
    plain("trim_suffix", 2),
    plain("type_name", 1),
    growing("union", 1),
    growing("upper", 1),
];

/// The function of that name, if documents may call it.
pub(super) fn named(name: &str) -> Option<&'static Builtin> {
    BUILTINS.iter().find(|builtin| builtin.name == name)
}
