//! What is noted while a reader runs on no body and no query: every member and parameter that it asks for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};

/// The notes of one object of a body.
#[derive(Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Noted>>);

#[derive(Default)]
struct Noted {
    members: Vec<Member>,
    is_closed: bool,
    must_say_something: bool,
}

struct Member {
    name: String,
    holds: Holds,
    is_required: bool,
}

enum Holds {
    Value(Value),
    /// A list of objects, from this many to that many.
    Objects(Notes, (usize, usize)),
}

impl Notes {
    /// A member, and what it may hold.
    pub(crate) fn member(&self, name: &str, schema: Value) {
        self.add(name, Holds::Value(schema));
    }

    /// A member that is a list of objects, of which these are the notes.
    pub(crate) fn objects(&self, name: &str, bounds: (usize, usize)) -> Self {
        let inner = Self::default();
        self.add(name, Holds::Objects(inner.clone(), bounds));
        inner
    }

    /// Says of a member that it has to be there.
    pub(crate) fn require(&self, name: &str) {
        for member in self.open().members.iter_mut().filter(|member| member.name == name) {
            member.is_required = true;
        }
    }

    /// Says that there are no other members.
    pub(crate) fn close(&self) {
        self.open().is_closed = true;
    }

    /// Says that some member has to be there, whichever.
    pub(crate) fn require_some(&self) {
        self.open().must_say_something = true;
    }

    /// The schema of the object.
    pub(crate) fn schema(&self) -> Value {
        let noted = self.open();
        let mut properties = Map::new();
        for member in &noted.members {
            let schema = match &member.holds {
                Holds::Value(schema) => schema.clone(),
                Holds::Objects(inner, bounds) => list(inner.schema(), *bounds),
            };
            properties.insert(member.name.clone(), schema);
        }
        let required: Vec<&str> =
            noted.members.iter().filter(|member| member.is_required).map(|member| member.name.as_str()).collect();
        let mut schema = json!({"type": "object", "properties": properties});
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        if noted.must_say_something {
            schema["minProperties"] = json!(1);
        }
        if noted.is_closed {
            schema["additionalProperties"] = json!(false);
        }
        schema
    }

    fn add(&self, name: &str, holds: Holds) {
        self.open().members.push(Member { name: name.to_owned(), holds, is_required: false });
    }

    fn open(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A list of `min` to `max` elements.
pub(crate) fn list(items: Value, (min, max): (usize, usize)) -> Value {
    let mut schema = json!({"type": "array", "items": items});
    if min > 0 {
        schema["minItems"] = json!(min);
    }
    if max < usize::MAX {
        schema["maxItems"] = json!(max);
    }
    schema
}

/// `schema`, or `null`.
pub(crate) fn nullable(mut schema: Value) -> Value {
    let kind = schema.get("type").filter(|kind| kind.is_string() && schema.get("enum").is_none()).cloned();
    match kind {
        Some(kind) => {
            schema["type"] = json!([kind, "null"]);
            schema
        }
        None => json!({"anyOf": [schema, {"type": "null"}]}),
    }
}

/// The notes of a query.
#[derive(Default)]
pub(crate) struct Parameters(Mutex<Vec<Parameter>>);

/// A parameter of a query.
#[derive(Clone)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) schema: Value,
    pub(crate) is_required: bool,
}

impl Parameters {
    /// A parameter. What is said of it first stands: the more there is to say, the earlier it is said.
    pub(crate) fn note(&self, name: &str, schema: Value) {
        let mut noted = self.open();
        if !noted.iter().any(|parameter| parameter.name == name) {
            noted.push(Parameter { name: name.to_owned(), schema, is_required: false });
        }
    }

    /// Says of a parameter that it has to be there.
    pub(crate) fn require(&self, name: &str) {
        for parameter in self.open().iter_mut().filter(|parameter| parameter.name == name) {
            parameter.is_required = true;
        }
    }

    /// All of them, in the order in which they are read.
    pub(crate) fn all(&self) -> Vec<Parameter> {
        self.open().clone()
    }

    fn open(&self) -> MutexGuard<'_, Vec<Parameter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
