//! Reading a JSON body field by field (contract: admin-api.md §1.4).
//!
//! A route takes the fields it knows, each with its bounds, and says in the end whether others are an error. The first
//! field that does not fit ends the reading and becomes the route's own code.

use caracal_authority::Timestamp;
use serde_json::{Map, Value, json};

use crate::problem::Refusal;

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
}

impl Text {
    /// From `min` to `max` units, taken as it is.
    pub(crate) const fn exact(min: usize, max: usize) -> Self {
        Self { min, max, trim: false }
    }

    /// From `min` to `max` units once surrounding white space is gone.
    pub(crate) const fn trimmed(min: usize, max: usize) -> Self {
        Self { min, max, trim: true }
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
        Ok(text)
    }
}

/// The members of an object that are not taken yet.
pub(crate) struct Fields {
    path: Vec<Value>,
    members: Map<String, Value>,
}

impl Fields {
    /// The members of a body. No body, and `null`, are no object.
    pub(crate) fn of(body: Option<Value>) -> Result<Self, Mismatch> {
        match body {
            Some(Value::Object(members)) => Ok(Self { path: Vec::new(), members }),
            _ => Err(Mismatch { path: Vec::new(), message: "expected a json object".to_owned() }),
        }
    }

    /// A text, when it is there.
    pub(crate) fn text(&mut self, name: &str, bounds: Text) -> Result<Option<String>, Mismatch> {
        match self.members.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => bounds.check(text).map(Some).map_err(|message| self.mismatch(name, message)),
            Some(_) => Err(self.mismatch(name, "expected a string")),
        }
    }

    /// A text that has to be there.
    pub(crate) fn required_text(&mut self, name: &str, bounds: Text) -> Result<String, Mismatch> {
        self.text(name, bounds)?.ok_or_else(|| self.mismatch(name, "required"))
    }

    /// A text or `null`, when it is there.
    pub(crate) fn nullable_text(&mut self, name: &str, bounds: Text) -> Result<Option<Option<String>>, Mismatch> {
        if self.members.get(name) == Some(&Value::Null) {
            self.members.remove(name);
            return Ok(Some(None));
        }
        Ok(self.text(name, bounds)?.map(Some))
    }

    /// One of `choices`, when it is there.
    pub(crate) fn choice(
        &mut self,
        name: &str,
        choices: &'static [&'static str],
    ) -> Result<Option<&'static str>, Mismatch> {
        let Some(value) = self.members.remove(name) else { return Ok(None) };
        let found = value.as_str().and_then(|text| choices.iter().find(|choice| **choice == text));
        found.copied().map(Some).ok_or_else(|| self.mismatch(name, format!("expected one of {}", choices.join(", "))))
    }

    /// An instant, when it is there.
    pub(crate) fn instant(&mut self, name: &str) -> Result<Option<Timestamp>, Mismatch> {
        let Some(text) = self.text(name, Text::exact(1, 64))? else { return Ok(None) };
        Timestamp::parse(&text).map(Some).map_err(|error| self.mismatch(name, error.to_string()))
    }

    /// A boolean, when it is there.
    pub(crate) fn flag(&mut self, name: &str) -> Result<Option<bool>, Mismatch> {
        match self.members.remove(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(self.mismatch(name, "expected true or false")),
        }
    }

    /// A whole number from 1 up that has to be there.
    pub(crate) fn required_count(&mut self, name: &str) -> Result<u64, Mismatch> {
        self.count(name)?.ok_or_else(|| self.mismatch(name, "required"))
    }

    /// A whole number from 1 up, when it is there.
    pub(crate) fn count(&mut self, name: &str) -> Result<Option<u64>, Mismatch> {
        let Some(value) = self.members.remove(name) else { return Ok(None) };
        // A whole number is one however it is spelt: 5 and 5.0 are the same in JSON.
        let whole = |number: f64| (number.fract() == 0.0 && number <= 9_007_199_254_740_991.0).then_some(number);
        let number = value.as_u64().or_else(|| {
            let text = whole(value.as_f64()?)?.to_string();
            text.parse().ok()
        });
        let number = number.filter(|number| *number > 0);
        number.map(Some).ok_or_else(|| self.mismatch(name, "expected a whole number from 1 up"))
    }

    /// Whatever is there.
    pub(crate) fn any(&mut self, name: &str) -> Option<Value> {
        self.members.remove(name)
    }

    /// An object as it is, when it is there.
    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Map<String, Value>>, Mismatch> {
        match self.members.remove(name) {
            None => Ok(None),
            Some(Value::Object(members)) => Ok(Some(members)),
            Some(_) => Err(self.mismatch(name, "expected an object")),
        }
    }

    /// An object or `null`, when it is there.
    pub(crate) fn nullable_object(&mut self, name: &str) -> Result<Option<Option<Map<String, Value>>>, Mismatch> {
        if self.members.get(name).is_some_and(Value::is_null) {
            self.members.remove(name);
            return Ok(Some(None));
        }
        Ok(self.object(name)?.map(Some))
    }

    /// A list of `min` to `max` texts, when it is there.
    pub(crate) fn texts(
        &mut self,
        name: &str,
        (min, max): (usize, usize),
        bounds: Text,
    ) -> Result<Option<Vec<String>>, Mismatch> {
        let Some(items) = self.list(name, min, max)? else { return Ok(None) };
        let path = self.inner(name);
        let read = |(index, item): (usize, Value)| match item {
            Value::String(text) => bounds.check(text).map_err(|message| Mismatch::at(&path, index, message)),
            _ => Err(Mismatch::at(&path, index, "expected a string")),
        };
        items.into_iter().enumerate().map(read).collect::<Result<_, _>>().map(Some)
    }

    /// A list of `min` to `max` objects, when it is there.
    pub(crate) fn objects(&mut self, name: &str, (min, max): (usize, usize)) -> Result<Option<Vec<Fields>>, Mismatch> {
        let Some(items) = self.list(name, min, max)? else { return Ok(None) };
        let path = self.inner(name);
        let read = |(index, item): (usize, Value)| match item {
            Value::Object(members) => {
                let mut path = path.clone();
                path.push(Value::from(index));
                Ok(Fields { path, members })
            }
            _ => Err(Mismatch::at(&path, index, "expected an object")),
        };
        items.into_iter().enumerate().map(read).collect::<Result<_, _>>().map(Some)
    }

    /// For routes that refuse members they do not know.
    pub(crate) fn nothing_else(&self) -> Result<(), Mismatch> {
        match self.members.keys().next() {
            None => Ok(()),
            Some(name) => Err(self.mismatch(name, "unknown member")),
        }
    }

    /// A mismatch of the member `name`, whose name the caller may have chosen: not more of it is repeated than helps.
    pub(crate) fn mismatch(&self, name: &str, message: impl Into<String>) -> Mismatch {
        Mismatch::at(&self.path, name.chars().take(64).collect::<String>(), message)
    }

    fn list(&mut self, name: &str, min: usize, max: usize) -> Result<Option<Vec<Value>>, Mismatch> {
        match self.members.remove(name) {
            None => Ok(None),
            Some(Value::Array(items)) if (min..=max).contains(&items.len()) => Ok(Some(items)),
            Some(Value::Array(_)) => Err(self.mismatch(name, format!("must have {min} to {max} elements"))),
            Some(_) => Err(self.mismatch(name, "expected a list")),
        }
    }

    fn inner(&self, name: &str) -> Vec<Value> {
        let mut path = self.path.clone();
        path.push(Value::from(name));
        path
    }
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

    #[test]
    fn no_object_has_no_fields() {
        for body in [None, Some(Value::Null), Some(json!("text")), Some(json!([]))] {
            assert!(Fields::of(body).is_err());
        }
    }
}
