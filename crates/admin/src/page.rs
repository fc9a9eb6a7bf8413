//! Query strings, and pages of lists (contract: admin-api.md §1.5; README D20).
//!
//! A cursor is the place of the last row of a page: its time with the store's full precision, and its id. Rows that
//! share a millisecond, or even a microsecond, are neither skipped nor repeated.

use caracal_authority::{Timestamp, ids};
use caracal_crypto::encoding;
use caracal_store::{Page, Position};
use serde::Serialize;
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::input;
use crate::openapi::notes::{Parameter, Parameters};
use crate::problem::Refusal;

const MAX_CURSOR: usize = 512;
/// Whoever decodes a cursor of another version gets `invalid_cursor`.
const VERSION: &str = "1";

/// The parameters of a request's query.
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
    /// Where only notes are taken of what is asked for: then there are no parameters (see [`crate::openapi`]).
    notes: Option<Parameters>,
}

impl Query {
    /// Reads a raw query.
    pub(crate) fn parse(raw: &str) -> Self {
        Self { pairs: form_urlencoded::parse(raw.as_bytes()).into_owned().collect(), notes: None }
    }

    /// The parameters that `read` asks for.
    pub(crate) fn noted(read: impl FnOnce(&Self) -> Result<(), Refusal>) -> Result<Vec<Parameter>, Refusal> {
        let query = Self { pairs: Vec::new(), notes: Some(Parameters::default()) };
        read(&query)?;
        Ok(query.notes.map(|notes| notes.all()).unwrap_or_default())
    }

    fn note(&self, name: &str, schema: impl FnOnce() -> Value) {
        if let Some(notes) = &self.notes {
            notes.note(name, schema());
        }
    }

    /// The one value of a parameter; two values are 400 `invalid_query`.
    pub(crate) fn one(&self, name: &str) -> Result<Option<&str>, Refusal> {
        self.note(name, || json!({"type": "string"}));
        let mut values = self.pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (first, None) => Ok(first),
            _ => Err(invalid(name, "is repeated")),
        }
    }

    /// The parameter as text that a store can hold, if it is there.
    pub(crate) fn text(&self, name: &str, max: usize) -> Result<Option<String>, Refusal> {
        self.plain(name, 1, max)
    }

    /// The same, which may be empty.
    pub(crate) fn text_or_empty(&self, name: &str, max: usize) -> Result<Option<String>, Refusal> {
        self.plain(name, 0, max)
    }

    fn plain(&self, name: &str, min: usize, max: usize) -> Result<Option<String>, Refusal> {
        self.note(name, || json!({"type": "string", "minLength": min, "maxLength": max, "pattern": r"^[^\u0000]*$"}));
        match self.bounded(name, min, max)? {
            Some(text) if text.contains('\0') => Err(invalid(name, "must not contain U+0000")),
            text => Ok(text.map(str::to_owned)),
        }
    }

    /// The parameter, which must have `min` to `max` UTF-16 units when it is there.
    pub(crate) fn bounded(&self, name: &str, min: usize, max: usize) -> Result<Option<&str>, Refusal> {
        self.note(name, || json!({"type": "string", "minLength": min, "maxLength": max}));
        match self.one(name)? {
            Some(value) if !(min..=max).contains(&value.encode_utf16().count()) => {
                Err(invalid(name, &format!("must have {min} to {max} characters")))
            }
            value => Ok(value),
        }
    }

    /// The parameter as text of any length but none, when it is there. What is said of an empty one is the caller's.
    pub(crate) fn some(&self, name: &str) -> Result<Option<&str>, Refusal> {
        self.note(name, || json!({"type": "string", "minLength": 1}));
        self.one(name)
    }

    /// The parameter `fields`: a list of some of `known` with commas between them. Whether they are known is the caller's.
    pub(crate) fn fields(&self, known: &[&str]) -> Result<Option<&str>, Refusal> {
        let one = known.join("|");
        self.note(
            "fields",
            || json!({"type": "string", "maxLength": 1_000, "pattern": format!(r"^\s*({one})\s*(,\s*({one})\s*)*$")}),
        );
        self.bounded("fields", 1, 1_000)
    }

    /// The parameter that has to be there. Where only notes are taken nothing stands for it.
    pub(crate) fn required(&self, name: &str, min: usize, max: usize) -> Result<&str, Refusal> {
        match (self.bounded(name, min, max)?, &self.notes) {
            (Some(value), _) => Ok(value),
            (None, None) => Err(invalid(name, "required")),
            (None, Some(notes)) => {
                notes.require(name);
                Ok("")
            }
        }
    }

    /// One of `choices`.
    pub(crate) fn choice(&self, name: &str, choices: &[&str]) -> Result<Option<&str>, Refusal> {
        self.note(name, || json!({"type": "string", "enum": choices}));
        match self.one(name)? {
            Some(value) if !choices.contains(&value) => {
                Err(invalid(name, &format!("expected one of {}", choices.join(", "))))
            }
            value => Ok(value),
        }
    }

    /// An instant.
    pub(crate) fn instant(&self, name: &str) -> Result<Option<Timestamp>, Refusal> {
        self.note(name, input::instant);
        let parse = |text| Timestamp::parse(text).map_err(|error| invalid(name, &error.to_string()));
        self.one(name)?.map(parse).transpose()
    }

    /// `status`: the archived ones, or else the active ones.
    pub(crate) fn archived(&self) -> Result<bool, Refusal> {
        Ok(self.choice("status", &["active", "archived"])? == Some("archived"))
    }

    /// `format`: whether a file is asked for instead of a page.
    pub(crate) fn is_csv(&self) -> Result<bool, Refusal> {
        Ok(self.choice("format", &["json", "csv"])? == Some("csv"))
    }

    /// The page of an ordinary list: 200 rows unless `limit` says 1 to 500.
    pub(crate) fn page(&self) -> Result<Page, Refusal> {
        let limit = self.limit(200, 500)?;
        Ok(Page { limit, after: self.cursor()? })
    }

    /// `limit`, a decimal number from 1 to `max`.
    pub(crate) fn limit(&self, default: usize, max: usize) -> Result<usize, Refusal> {
        self.note("limit", || json!({"type": "integer", "minimum": 1, "maximum": max, "default": default}));
        let Some(text) = self.one("limit")? else { return Ok(default) };
        let number = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<usize>().ok()).flatten();
        match number {
            Some(number) if (1..=max).contains(&number) => Ok(number),
            _ => Err(invalid("limit", &format!("must be a number from 1 to {max}"))),
        }
    }

    /// The position that `cursor` names in a list whose ids were chosen by others: any text that a store can hold.
    pub(crate) fn cursor_of_text(&self, max: usize) -> Result<Option<Position>, Refusal> {
        match self.bounded("cursor", 1, max)? {
            None => Ok(None),
            Some(text) => {
                let found = decode_any(text).filter(|position| !position.id.contains('\0'));
                found.map(Some).ok_or_else(|| Refusal::invalid("invalid_cursor"))
            }
        }
    }

    /// The position that `cursor` names. A cursor that is too long is an invalid query, another one an invalid cursor.
    pub(crate) fn cursor(&self) -> Result<Option<Position>, Refusal> {
        match self.bounded("cursor", 1, MAX_CURSOR)? {
            None => Ok(None),
            Some(text) => decode(text).map(Some).ok_or_else(|| Refusal::invalid("invalid_cursor")),
        }
    }
}

/// 400 `invalid_query`.
pub(crate) fn invalid(name: &str, what: &str) -> Refusal {
    Refusal::invalid("invalid_query").describe(format!("{name}: {what}"))
}

/// A page as it is sent.
#[derive(Serialize)]
pub(crate) struct Listing<T> {
    items: Vec<T>,
    next_cursor: Option<String>,
}

impl<T> Listing<T> {
    /// The rows of a page; `place` is a row's position. A full page has a next one, which may be empty.
    pub(crate) fn of<'r, R>(
        rows: &'r [R],
        page: &Page,
        place: impl Fn(&R) -> (Timestamp, String),
        item: impl FnMut(&'r R) -> T,
    ) -> Self {
        let full = rows.len() >= page.limit;
        let next_cursor = rows.last().filter(|_| full).map(|row| {
            let (at, id) = place(row);
            encode(at, &id)
        });
        Self { items: rows.iter().map(item).collect(), next_cursor }
    }
}

fn encode(at: Timestamp, id: &str) -> String {
    encoding::base64url(format!("{VERSION}.{}.{id}", at.as_micros()).as_bytes())
}

fn decode(cursor: &str) -> Option<Position> {
    decode_any(cursor).filter(|position| ids::is_id(&position.id))
}

fn decode_any(cursor: &str) -> Option<Position> {
    let text = String::from_utf8(encoding::from_base64url(cursor)?).ok()?;
    let (micros, id) = text.strip_prefix(VERSION)?.strip_prefix('.')?.split_once('.')?;
    let number: i64 = micros.parse().ok()?;
    let at = Timestamp::from_micros(number);
    (at.as_micros() == number).then(|| Position { at, id: id.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(refusal: &Refusal) -> &str {
        refusal.problem.code().unwrap()
    }

    #[test]
    fn a_limit_is_a_plain_number_within_its_bounds() {
        for (query, expected) in [
            ("", Some(200)),
            ("limit=1", Some(1)),
            ("limit=500", Some(500)),
            ("limit=0", None),
            ("limit=501", None),
            ("limit=", None),
            ("limit=1.0", None),
            ("limit=+5", None),
            ("limit=-1", None),
            ("limit=5&limit=5", None),
            ("limit=99999999999999999999", None),
        ] {
            let page = Query::parse(query).page();
            match expected {
                Some(limit) => assert_eq!(page.unwrap().limit, limit, "{query}"),
                None => assert_eq!(code(&page.unwrap_err()), "invalid_query", "{query}"),
            }
        }
    }

    #[test]
    fn a_cursor_keeps_the_whole_precision_of_its_row() {
        let at = Timestamp::from_micros(1_767_323_045_123_456);
        let cursor = encode(at, "0199c0de-0000-7000-8000-000000000001");
        let position = Query::parse(&format!("cursor={cursor}")).page().unwrap().after.unwrap();
        assert_eq!((position.at, position.id.as_str()), (at, "0199c0de-0000-7000-8000-000000000001"));
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let foreign = encoding::base64url(br#"{"ts":"2026-01-01T00:00:00.000Z","id":"x"}"#);
        let unparseable = encoding::base64url(b"1.soon.x");
        let beyond = encoding::base64url(b"1.-5.x");
        let no_id = encoding::base64url(b"1.5.a b");
        for text in ["!", "AAAA", &foreign, &unparseable, &beyond, &no_id] {
            let refusal = Query::parse(&format!("cursor={text}")).page().unwrap_err();
            assert_eq!(code(&refusal), "invalid_cursor", "{text}");
        }
        for query in ["cursor=".to_owned(), format!("cursor={}", "A".repeat(513))] {
            assert_eq!(code(&Query::parse(&query).page().unwrap_err()), "invalid_query");
        }
    }

    #[test]
    fn only_a_full_page_has_a_next_one() {
        let rows = [(Timestamp::EPOCH, "b"), (Timestamp::EPOCH, "a")];
        let listing = |limit| Listing::of(&rows, &Page::first(limit), |row| (row.0, row.1.to_owned()), |row| row.1);
        assert!(listing(3).next_cursor.is_none());
        let cursor = listing(2).next_cursor.unwrap();
        assert_eq!(decode(&cursor).unwrap().id, "a");
    }
}
