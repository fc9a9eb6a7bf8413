//! Reading a JSON body field by field. Every fault is collected with its path, so that a caller sees all of them at
//! once (`details.issues`, contract: coordinator.md §1); unknown members are ignored.

use serde_json::{Map, Value, json};

/// Issues reported at most: a body can hold far more than anybody reads, each with a path of its own.
const MAX_ISSUES: usize = 100;

/// One thing that is wrong with a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Issue {
    path: Vec<String>,
    message: &'static str,
}

/// All that is wrong with a body; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Issues(Vec<Issue>);

impl Issues {
    /// `details.issues`.
    pub(crate) fn to_json(&self) -> Value {
        self.0.iter().map(|issue| json!({"path": issue.path, "message": issue.message})).collect()
    }
}

/// The members of a body, and what was found wrong with them so far.
pub(crate) struct Fields<'b> {
    members: &'b Map<String, Value>,
    issues: Vec<Issue>,
}

impl<'b> Fields<'b> {
    /// Takes a body that must be an object. Text with U+0000 anywhere in it is refused: no engine stores it alike, and
    /// nothing that reaches an event or a header may hold it.
    pub(crate) fn of(body: Option<&'b Value>) -> Result<Self, Issues> {
        let Some(members) = body.and_then(Value::as_object) else {
            return Err(Issues(vec![Issue { path: Vec::new(), message: "expected an object" }]));
        };
        let mut fields = Self { members, issues: Vec::new() };
        for (name, value) in members {
            if name.contains('\0') {
                fields.fault(name, None, NUL);
            } else {
                find_nul(value, &mut vec![Step::Member(name)], &mut fields.issues);
            }
        }
        Ok(fields)
    }

    /// The member as it is, absent or not.
    pub(crate) fn raw(&self, name: &str) -> Option<&'b Value> {
        self.members.get(name)
    }

    /// Notes a fault of `name`, or of its `index`-th element.
    pub(crate) fn fault(&mut self, name: &str, index: Option<usize>, message: &'static str) {
        let path = std::iter::once(name.to_owned()).chain(index.map(|index| index.to_string())).collect();
        note(&mut self.issues, path, message);
    }

    /// A member that must be there and be non-empty text. Empty when it is not, which [`Fields::finish`] then reports.
    pub(crate) fn required_text(&mut self, name: &str) -> String {
        match self.optional_text(name, 1) {
            Some(text) => text,
            None => {
                if self.raw(name).is_none() {
                    self.fault(name, None, "required");
                }
                String::new()
            }
        }
    }

    /// Text of at least `least` characters, if the member is there; `null` is not text.
    pub(crate) fn optional_text(&mut self, name: &str, least: usize) -> Option<String> {
        let value = self.raw(name)?;
        match value.as_str() {
            Some(text) if text.len() >= least => return Some(text.to_owned()),
            Some(_) => self.fault(name, None, "must not be empty"),
            None => self.fault(name, None, "expected a string"),
        }
        None
    }

    /// As [`Fields::optional_text`], where `null` stands for absence.
    pub(crate) fn nullable_text(&mut self, name: &str, least: usize) -> Option<String> {
        if self.raw(name).is_some_and(Value::is_null) { None } else { self.optional_text(name, least) }
    }

    /// A whole number of `bounds`, if the member is there; `60.0` is one.
    pub(crate) fn optional_whole(&mut self, name: &str, bounds: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let number = whole(self.raw(name)?).filter(|number| bounds.contains(number));
        if number.is_none() {
            self.fault(name, None, "expected a whole number within its bounds");
        }
        number
    }

    /// One of `choices` by its name, if the member is there.
    pub(crate) fn optional_choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let value = self.raw(name)?;
        let chosen = choices.iter().find(|(choice, _)| value.as_str() == Some(choice));
        if chosen.is_none() {
            self.fault(name, None, "expected one of the listed values");
        }
        chosen.map(|(_, chosen)| *chosen)
    }

    /// A list of text; empty when the member is absent.
    pub(crate) fn text_list(&mut self, name: &str) -> Vec<&'b str> {
        let Some(value) = self.raw(name) else { return Vec::new() };
        let Some(items) = value.as_array() else {
            self.fault(name, None, "expected an array");
            return Vec::new();
        };
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match item.as_str() {
                Some(text) => texts.push(text),
                None => self.fault(name, Some(index), "expected a string"),
            }
        }
        texts
    }

    /// An object; empty when the member is absent.
    pub(crate) fn object(&mut self, name: &str) -> Map<String, Value> {
        match self.raw(name) {
            None => Map::new(),
            Some(Value::Object(members)) => members.clone(),
            Some(_) => {
                self.fault(name, None, "expected an object");
                Map::new()
            }
        }
    }

    /// Reads the members of an object, if the member is there; their faults are this body's.
    pub(crate) fn within(&mut self, name: &str, read: impl FnOnce(&mut Fields<'b>)) {
        let Some(value) = self.raw(name) else { return };
        let Some(members) = value.as_object() else {
            self.fault(name, None, "expected an object");
            return;
        };
        let mut inner = Fields { members, issues: Vec::new() };
        read(&mut inner);
        for issue in inner.issues {
            let path = std::iter::once(name.to_owned()).chain(issue.path).collect();
            note(&mut self.issues, path, issue.message);
        }
    }

    /// Whether everything read was in order.
    pub(crate) fn finish(self) -> Result<(), Issues> {
        if self.issues.is_empty() { Ok(()) } else { Err(Issues(self.issues)) }
    }
}

const NUL: &str = "must not contain U+0000";

/// A step of the way into a body.
#[derive(Clone, Copy)]
enum Step<'b> {
    Member(&'b str),
    Element(usize),
}

fn note(issues: &mut Vec<Issue>, path: Vec<String>, message: &'static str) {
    if issues.len() < MAX_ISSUES {
        issues.push(Issue { path, message });
    }
}

/// The way is spelt out only where something is found: bodies are large and deep, and almost always fine.
fn find_nul<'b>(value: &'b Value, way: &mut Vec<Step<'b>>, issues: &mut Vec<Issue>) {
    let spelt = |way: &[Step<'_>]| {
        let step = |step: &Step<'_>| match step {
            Step::Member(name) => (*name).to_owned(),
            Step::Element(index) => index.to_string(),
        };
        way.iter().map(step).collect::<Vec<_>>()
    };
    match value {
        Value::String(text) if text.contains('\0') => note(issues, spelt(way), NUL),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                way.push(Step::Element(index));
                find_nul(item, way, issues);
                way.pop();
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                if name.contains('\0') {
                    note(issues, spelt(way), NUL);
                }
                way.push(Step::Member(name));
                find_nul(member, way, issues);
                way.pop();
            }
        }
        _ => {}
    }
}

/// The number as a whole one, also where it is written with a fraction of zero. Doubles are exact up to 2^53.
pub(crate) fn whole(value: &Value) -> Option<u64> {
    if let Some(number) = value.as_u64() {
        return Some(number);
    }
    let double =
        value.as_f64().filter(|double| double.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(double))?;
    format!("{double:.0}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issues(body: &Value, read: impl FnOnce(&mut Fields<'_>)) -> Value {
        match Fields::of(Some(body)) {
            Err(issues) => issues.to_json(),
            Ok(mut fields) => {
                read(&mut fields);
                fields.finish().err().map_or(Value::Null, |issues| issues.to_json())
            }
        }
    }

    fn paths(issues: &Value) -> Vec<String> {
        issues.as_array().unwrap().iter().map(|issue| issue["path"].to_string()).collect()
    }

    #[test]
    fn what_is_no_object_has_one_issue_with_an_empty_path() {
        for body in [json!([]), json!("x"), json!(null), json!(1)] {
            assert_eq!(paths(&issues(&body, |_| ())), ["[]"], "{body}");
        }
        assert!(Fields::of(None).is_err());
    }

    #[test]
    fn every_fault_is_reported_with_its_path() {
        let body = json!({"b": null, "c": 1.5, "d": ["x", 1], "e": "no", "f": [], "g": ""});
        let found = issues(&body, |fields| {
            fields.required_text("a");
            fields.optional_text("b", 0);
            fields.optional_whole("c", 1..=9);
            fields.text_list("d");
            fields.optional_choice("e", &[("yes", 1)]);
            fields.object("f");
            fields.optional_text("g", 1);
        });
        let expected = [r#"["a"]"#, r#"["b"]"#, r#"["c"]"#, r#"["d","1"]"#, r#"["e"]"#, r#"["f"]"#, r#"["g"]"#];
        assert_eq!(paths(&found), expected);
    }

    #[test]
    fn u0000_is_refused_wherever_it_hides() {
        let body = json!({"a": "x\0", "b": {"c": [1, "\0"]}, "d": {"\0": 1}, "e\0": 1, "f": "fine"});
        let found = issues(&body, |_| ());
        assert_eq!(paths(&found), [r#"["a"]"#, r#"["b","c","1"]"#, r#"["d"]"#, "[\"e\\u0000\"]"]);
    }

    #[test]
    fn t08_availability_a_body_full_of_faults_gets_a_short_answer() {
        let body = json!({"a": vec!["\0"; 10_000], "b": vec![1; 10_000]});
        let found = issues(&body, |fields| {
            fields.text_list("b");
        });
        assert_eq!(found.as_array().unwrap().len(), MAX_ISSUES);
    }

    #[test]
    fn whole_numbers_may_be_written_with_a_zero_fraction() {
        for (value, expected) in [
            (json!(60), Some(60)),
            (json!(60.0), Some(60)),
            (json!(1e3), Some(1_000)),
            (json!(1.5), None),
            (json!(-1), None),
            (json!(1e300), None),
            (json!("60"), None),
            (json!(null), None),
        ] {
            assert_eq!(whole(&value), expected, "{value}");
        }
    }
}
