//! Reading a JSON body field by field (contract: admin-api.md §1.4).
//!
//! A route takes the fields it knows, each with its bounds, and says in the end whether others are an error. The first
//! field that does not fit ends the reading and becomes the route's own code.
//!
//! The same reading describes the body: given [`Notes`] in its place, every field notes what it would take and takes
//! nothing (see [`crate::openapi`]). So a reader that goes on after a field that isn't there sees all of itself.

use caracal_authority::Timestamp;
use serde_json::{Map, Value, json};

use crate::openapi::notes::{Notes, list, nullable};
use crate::problem::Refusal;

/// A body as it was sent, or the notes of what is read of one.
pub(crate) enum Body {
    Sent(Option<Value>),
    Noted(Notes),
}

impl From<Option<Value>> for Body {
    fn from(sent: Option<Value>) -> Self {
        Self::Sent(sent)
    }
}

impl From<Notes> for Body {
    fn from(notes: Notes) -> Self {
        Self::Noted(notes)
    }
}

/// A field that does not fit, and where it is.
#[derive(Debug, PartialEq)]
pub(crate) struct Mismatch {
    path: Vec<Value>,
    message: String,
}

impl Mismatch {
    fn at(path: &[Value], name: impl Into<Value>, message: impl Into<String>) -> Self {
        let mut path = path.to_vec();
        path.push(name.into());
        Self { path, message: message.into() }
    }

    /// 400 with the route's schema code; `details.issues` names the field.
    pub(crate) fn refuse(self, code: &'static str) -> Refusal {
        let part = |part: &Value| part.as_str().map_or_else(|| part.to_string(), str::to_owned);
        let place: Vec<String> = self.path.iter().map(part).collect();
        let description =
            if place.is_empty() { self.message.clone() } else { format!("{}: {}", place.join("."), self.message) };
        let issue = json!({"path": self.path, "message": self.message});
        Refusal::invalid(code).describe(description).details(json!({ "issues": [issue] }))
    }
}

/// Bounds of a text, in UTF-16 code units.
#[derive(Clone, Copy)]
pub(crate) struct Text {
    min: usize,
    max: usize,
    trim: bool,
    form: Option<Form>,
}

/// What a text must look like beside its length.
#[derive(Clone, Copy)]
pub(crate) struct Form {
    /// A pattern that every good text has. It is for readers of the description; `is` decides.
    pub(crate) pattern: &'static str,
    /// Whether a text is good.
    pub(crate) is: fn(&str) -> bool,
    /// What is said of one that is not.
    pub(crate) what: &'static str,
}

/// Text that goes into signed lines, where a line feed could pass for another field.
pub(crate) const ONE_LINE: Form = Form {
    pattern: r"^[^\u0000-\u001f\u007f-\u009f]*$",
    is: |text| !text.chars().any(char::is_control),
    what: "must not contain control characters",
};

impl Text {
    /// From `min` to `max` units, taken as it is.
    pub(crate) const fn exact(min: usize, max: usize) -> Self {
        Self { min, max, trim: false, form: None }
    }

    /// From `min` to `max` units once surrounding white space is gone.
    pub(crate) const fn trimmed(min: usize, max: usize) -> Self {
        Self { min, max, trim: true, form: None }
    }

    /// The same, of a form.
    pub(crate) const fn like(mut self, form: Form) -> Self {
        self.form = Some(form);
        self
    }

    /// Lengths of a schema count characters, of which no text has more than code units: what the schema lets through may
    /// be refused for characters outside the basic plane.
    fn schema(self) -> Value {
        let mut schema = json!({"type": "string"});
        if self.min > 0 {
            schema["minLength"] = json!(self.min);
        }
        if self.max < usize::MAX {
            schema["maxLength"] = json!(self.max);
        }
        let plain = if self.trim && self.min > 0 { r"^[^\u0000]*[^\s\u0000][^\u0000]*$" } else { r"^[^\u0000]*$" };
        schema["pattern"] = json!(self.form.map_or(plain, |form| form.pattern));
        schema
    }

    /// U+0000 is refused everywhere: not every engine can store it.
    fn check(self, text: String) -> Result<String, String> {
        let text = if self.trim { text.trim().to_owned() } else { text };
        let units = text.encode_utf16().count();
        if text.contains('\0') {
            return Err("must not contain U+0000".to_owned());
        }
        if units < self.min || units > self.max {
            return Err(match (self.min, self.max) {
                (min, usize::MAX) => format!("must have at least {min} characters"),
                (min, max) => format!("must have {min} to {max} characters"),
            });
        }
        match self.form {
            Some(form) if !(form.is)(&text) => Err(form.what.to_owned()),
            _ => Ok(text),
        }
    }
}

/// The members of an object that are not taken yet.
pub(crate) struct Fields {
    path: Vec<Value>,
    members: Map<String, Value>,
    /// Where only notes are taken: then there are no members.
    notes: Option<Notes>,
}

impl Fields {
    /// The members of a body. No body, and `null`, are no object.
    pub(crate) fn of(body: impl Into<Body>) -> Result<Self, Mismatch> {
        match body.into() {
            Body::Noted(notes) => Ok(Self { path: Vec::new(), members: Map::new(), notes: Some(notes) }),
            Body::Sent(Some(Value::Object(members))) => Ok(Self { path: Vec::new(), members, notes: None }),
            Body::Sent(_) => Err(Mismatch { path: Vec::new(), message: "expected a json object".to_owned() }),
        }
    }

    /// A text, when it is there.
    pub(crate) fn text(&mut self, name: &str, bounds: Text) -> Result<Option<String>, Mismatch> {
        match self.take(name, || bounds.schema()) {
            None => Ok(None),
            Some(value) => self.text_of(name, value, bounds).map(Some),
        }
    }

    /// A text that has to be there.
    pub(crate) fn required_text(&mut self, name: &str, bounds: Text) -> Result<String, Mismatch> {
        let found = self.text(name, bounds)?;
        self.require(name, found)
    }

    /// A text or `null`, when it is there.
    pub(crate) fn nullable_text(&mut self, name: &str, bounds: Text) -> Result<Option<Option<String>>, Mismatch> {
        match self.take(name, || nullable(bounds.schema())) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(None)),
            Some(value) => self.text_of(name, value, bounds).map(|text| Some(Some(text))),
        }
    }

    /// One of `choices`, when it is there.
    pub(crate) fn choice(
        &mut self,
        name: &str,
        choices: &'static [&'static str],
    ) -> Result<Option<&'static str>, Mismatch> {
        let Some(value) = self.take(name, || json!({"type": "string", "enum": choices})) else { return Ok(None) };
        let found = value.as_str().and_then(|text| choices.iter().find(|choice| **choice == text));
        found.copied().map(Some).ok_or_else(|| self.mismatch(name, format!("expected one of {}", choices.join(", "))))
    }

    /// An instant, when it is there.
    pub(crate) fn instant(&mut self, name: &str) -> Result<Option<Timestamp>, Mismatch> {
        let Some(value) = self.take(name, instant) else { return Ok(None) };
        let text = self.text_of(name, value, Text::exact(1, 64))?;
        Timestamp::parse(&text).map(Some).map_err(|error| self.mismatch(name, error.to_string()))
    }

    /// A boolean, when it is there.
    pub(crate) fn flag(&mut self, name: &str) -> Result<Option<bool>, Mismatch> {
        match self.take(name, || json!({"type": "boolean"})) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(self.mismatch(name, "expected true or false")),
        }
    }

    /// A whole number from 1 up that has to be there.
    pub(crate) fn required_count(&mut self, name: &str) -> Result<u64, Mismatch> {
        let found = self.count(name, u64::MAX)?;
        self.require(name, found)
    }

    /// A whole number from 1 to `most`, when it is there.
    pub(crate) fn count(&mut self, name: &str, most: u64) -> Result<Option<u64>, Mismatch> {
        let has_end = most < u64::MAX;
        let schema = || match has_end {
            true => json!({"type": "integer", "minimum": 1, "maximum": most}),
            false => json!({"type": "integer", "minimum": 1}),
        };
        let Some(value) = self.take(name, schema) else { return Ok(None) };
        // A whole number is one however it is spelt: 5 and 5.0 are the same in JSON.
        let whole = |number: f64| (number.fract() == 0.0 && number <= 9_007_199_254_740_991.0).then_some(number);
        let number = value.as_u64().or_else(|| {
            let text = whole(value.as_f64()?)?.to_string();
            text.parse().ok()
        });
        let number = number.filter(|number| (1..=most).contains(number));
        number.map(Some).ok_or_else(|| {
            let end = if has_end { format!("to {most}") } else { "up".to_owned() };
            self.mismatch(name, format!("expected a whole number from 1 {end}"))
        })
    }

    /// Whatever is there.
    pub(crate) fn any(&mut self, name: &str, schema: impl FnOnce() -> Value) -> Option<Value> {
        self.take(name, schema)
    }

    /// An object as it is, when it is there.
    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Map<String, Value>>, Mismatch> {
        self.object_like(name, || json!({"type": "object"}))
    }

    /// The same, of which more is known than is judged here.
    pub(crate) fn object_like(
        &mut self,
        name: &str,
        schema: impl FnOnce() -> Value,
    ) -> Result<Option<Map<String, Value>>, Mismatch> {
        match self.take(name, schema) {
            None => Ok(None),
            Some(Value::Object(members)) => Ok(Some(members)),
            Some(_) => Err(self.mismatch(name, "expected an object")),
        }
    }

    /// An object or `null`, when it is there.
    pub(crate) fn nullable_object(
        &mut self,
        name: &str,
        schema: impl FnOnce() -> Value,
    ) -> Result<Option<Option<Map<String, Value>>>, Mismatch> {
        match self.take(name, || nullable(schema())) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(None)),
            Some(Value::Object(members)) => Ok(Some(Some(members))),
            Some(_) => Err(self.mismatch(name, "expected an object")),
        }
    }

    /// A list of `min` to `max` texts, when it is there.
    pub(crate) fn texts(
        &mut self,
        name: &str,
        size: (usize, usize),
        bounds: Text,
    ) -> Result<Option<Vec<String>>, Mismatch> {
        let Some(value) = self.take(name, || list(bounds.schema(), size)) else { return Ok(None) };
        let items = self.list_of(name, value, size)?;
        let path = self.inner(name);
        let read = |(index, item): (usize, Value)| match item {
            Value::String(text) => bounds.check(text).map_err(|message| Mismatch::at(&path, index, message)),
            _ => Err(Mismatch::at(&path, index, "expected a string")),
        };
        items.into_iter().enumerate().map(read).collect::<Result<_, _>>().map(Some)
    }

    /// A list of `min` to `max` objects, when it is there.
    pub(crate) fn objects(&mut self, name: &str, size: (usize, usize)) -> Result<Option<Vec<Fields>>, Mismatch> {
        if let Some(notes) = &self.notes {
            // One, so that what is read of each is noted.
            let notes = Some(notes.objects(name, size));
            return Ok(Some(vec![Self { path: self.inner(name), members: Map::new(), notes }]));
        }
        let Some(value) = self.members.remove(name) else { return Ok(None) };
        let items = self.list_of(name, value, size)?;
        let path = self.inner(name);
        let read = |(index, item): (usize, Value)| match item {
            Value::Object(members) => {
                let mut path = path.clone();
                path.push(Value::from(index));
                Ok(Fields { path, members, notes: None })
            }
            _ => Err(Mismatch::at(&path, index, "expected an object")),
        };
        items.into_iter().enumerate().map(read).collect::<Result<_, _>>().map(Some)
    }

    /// What was found of a member that has to be there. Where only notes are taken anything stands for it.
    pub(crate) fn require<T: Default>(&self, name: &str, found: Option<T>) -> Result<T, Mismatch> {
        if let Some(notes) = &self.notes {
            notes.require(name);
            return Ok(found.unwrap_or_default());
        }
        found.ok_or_else(|| self.mismatch(name, "required"))
    }

    /// For routes that refuse members they do not know.
    pub(crate) fn nothing_else(&self) -> Result<(), Mismatch> {
        if let Some(notes) = &self.notes {
            notes.close();
        }
        match self.members.keys().next() {
            None => Ok(()),
            Some(name) => Err(self.mismatch(name, "unknown member")),
        }
    }

    /// A mismatch of the member `name`, whose name the caller may have chosen: not more of it is repeated than helps.
    pub(crate) fn mismatch(&self, name: &str, message: impl Into<String>) -> Mismatch {
        Mismatch::at(&self.path, name.chars().take(64).collect::<String>(), message)
    }

    /// Takes the member `name`. Where only notes are taken there is none, and `schema` is noted.
    fn take(&mut self, name: &str, schema: impl FnOnce() -> Value) -> Option<Value> {
        match &self.notes {
            None => self.members.remove(name),
            Some(notes) => {
                notes.member(name, schema());
                None
            }
        }
    }

    fn text_of(&self, name: &str, value: Value, bounds: Text) -> Result<String, Mismatch> {
        match value {
            Value::String(text) => bounds.check(text).map_err(|message| self.mismatch(name, message)),
            _ => Err(self.mismatch(name, "expected a string")),
        }
    }

    fn list_of(&self, name: &str, value: Value, (min, max): (usize, usize)) -> Result<Vec<Value>, Mismatch> {
        match value {
            Value::Array(items) if (min..=max).contains(&items.len()) => Ok(items),
            Value::Array(_) => Err(self.mismatch(name, format!("must have {min} to {max} elements"))),
            _ => Err(self.mismatch(name, "expected a list")),
        }
    }

    fn inner(&self, name: &str) -> Vec<Value> {
        let mut path = self.path.clone();
        path.push(Value::from(name));
        path
    }
}

/// The schema of an instant as it is taken: to the second at least, and in UTC.
pub(crate) fn instant() -> Value {
    let pattern = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z$";
    json!({"type": "string", "format": "date-time", "pattern": pattern, "maxLength": 64})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(body: Value) -> Fields {
        Fields::of(Some(body)).unwrap()
    }

    #[test]
    fn lengths_count_utf16_units_after_trimming() {
        let name = Text::trimmed(1, 3);
        for (text, expected) in [
            (" ab\u{2003}", Some("ab")),
            ("abc", Some("abc")),
            ("abcd", None),
            ("   ", None),
            ("😀a", Some("😀a")),
            ("😀😀", None),
            ("a\0", None),
        ] {
            let found = fields(json!({"name": text})).text("name", name);
            assert_eq!(found.ok().flatten().as_deref(), expected, "{text:?}");
        }
        assert_eq!(fields(json!({"name": " a "})).text("name", Text::exact(1, 3)).unwrap().as_deref(), Some(" a "));
    }

    #[test]
    fn null_is_no_value_unless_the_field_says_so() {
        let mut body = fields(json!({"a": null, "b": null, "c": null}));
        assert!(body.text("a", Text::exact(0, 9)).is_err());
        assert_eq!(body.nullable_text("b", Text::exact(0, 9)), Ok(Some(None)));
        assert!(body.flag("c").is_err());
        assert!(body.nothing_else().is_ok());
    }

    #[test]
    fn what_is_not_taken_is_unknown() {
        let mut body = fields(json!({"name": "x", "foo": 1}));
        body.text("name", Text::exact(1, 2)).unwrap();
        assert_eq!(body.nothing_else(), Err(Mismatch { path: vec!["foo".into()], message: "unknown member".into() }));
    }

    #[test]
    fn a_mismatch_names_the_place() {
        let mut body = fields(json!({"operations": [{"method": "GET"}, {"method": 5}], "scopes": ["a", ""]}));
        let mut operations = body.objects("operations", (0, 9)).unwrap().unwrap();
        assert_eq!(operations[0].required_text("method", Text::exact(1, 9)).unwrap(), "GET");
        let mismatch = operations[1].required_text("method", Text::exact(1, 9)).unwrap_err();
        assert_eq!(mismatch.path, vec![json!("operations"), json!(1), json!("method")]);
        let mismatch = body.texts("scopes", (1, 64), Text::exact(1, 200)).unwrap_err();
        assert_eq!(mismatch.path, vec![json!("scopes"), json!(1)]);
    }

    /// One reader, once on a body and once on notes: what it notes is what it takes.
    #[test]
    fn a_reader_that_is_given_notes_describes_itself() {
        fn read(body: impl Into<Body>) -> Result<(String, Option<u64>, Vec<String>), Mismatch> {
            let mut fields = Fields::of(body)?;
            let kind = fields.choice("kind", &["a", "b"])?;
            let kind = fields.require("kind", kind)?.to_owned();
            let count = fields.count("count", 9)?;
            let operations = fields.objects("operations", (1, 3))?;
            let operations = fields.require("operations", operations)?;
            let paths =
                operations.into_iter().map(|mut one| one.required_text("path", Text::exact(1, 5).like(ONE_LINE)));
            let paths = paths.collect::<Result<_, _>>()?;
            fields.nothing_else()?;
            Ok((kind, count, paths))
        }
        let notes = Notes::default();
        read(notes.clone()).unwrap();
        let path = json!({"type": "string", "minLength": 1, "maxLength": 5, "pattern": ONE_LINE.pattern});
        let operation = json!({"type": "object", "properties": {"path": path}, "required": ["path"]});
        assert_eq!(
            notes.schema(),
            json!({
                "type": "object",
                "properties": {
                    "kind": {"type": "string", "enum": ["a", "b"]},
                    "count": {"type": "integer", "minimum": 1, "maximum": 9},
                    "operations": {"type": "array", "items": operation, "minItems": 1, "maxItems": 3},
                },
                "required": ["kind", "operations"],
                "additionalProperties": false,
            })
        );
        let good = json!({"kind": "a", "count": 9, "operations": [{"path": "/x"}]});
        assert_eq!(read(Some(good)).unwrap(), ("a".to_owned(), Some(9), vec!["/x".to_owned()]));
        for bad in [
            json!({"kind": "c", "operations": [{"path": "/x"}]}),
            json!({"kind": "a", "count": 10, "operations": [{"path": "/x"}]}),
            json!({"kind": "a", "operations": []}),
            json!({"kind": "a", "operations": [{"path": "/\u{1}"}]}),
            json!({"operations": [{"path": "/x"}]}),
            json!({"kind": "a", "operations": [{"path": "/x"}], "more": 1}),
        ] {
            assert!(read(Some(bad.clone())).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_object_has_no_fields() {
        for body in [None, Some(Value::Null), Some(json!("text")), Some(json!([]))] {
            assert!(Fields::of(body).is_err());
        }
    }
}
