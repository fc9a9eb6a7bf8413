//! Rows by column: what `fields` may ask for, as JSON objects or as lines of a CSV file (contract: admin-api.md §5.12).

use std::marker::PhantomData;

use serde_json::{Map, Value};

use crate::problem::Refusal;

/// A row whose columns can be chosen.
pub(crate) trait Exported {
    /// Everything that can be exported, in the order it is when nothing is asked for.
    const FIELDS: &'static [&'static str];

    /// What a row may be shown of; worked out once for all columns.
    fn shown(&self) -> Value;

    /// The column `name`; none where the row does not have it.
    fn value(&self, shown: &Value, name: &str) -> Option<Value>;
}

/// Columns in the order asked for, repetitions kept.
pub(crate) struct Columns<R> {
    names: Vec<&'static str>,
    rows: PhantomData<R>,
}

impl<R: Exported> Columns<R> {
    /// All of them.
    pub(crate) fn all() -> Self {
        Self { names: R::FIELDS.to_vec(), rows: PhantomData }
    }

    /// A comma list, each of which must be known; else 400 `invalid_fields`.
    pub(crate) fn parse(list: &str) -> Result<Self, Refusal> {
        let find = |name: &str| {
            let name = name.trim();
            let found = R::FIELDS.iter().copied().find(|field| *field == name);
            found.ok_or_else(|| {
                Refusal::invalid("invalid_fields").describe(format!("{name:?} is not a field of the export"))
            })
        };
        let names = list.split(',').map(find).collect::<Result<_, _>>()?;
        Ok(Self { names, rows: PhantomData })
    }

    pub(crate) fn names(&self) -> &[&'static str] {
        &self.names
    }

    /// One value for each column; what a row does not have is `null`.
    pub(crate) fn values(&self, row: &R) -> Vec<Value> {
        let shown = row.shown();
        self.names.iter().map(|name| row.value(&shown, name).unwrap_or(Value::Null)).collect()
    }

    /// An object with the columns; what a row does not have is left out.
    pub(crate) fn object(&self, row: &R) -> Map<String, Value> {
        let shown = row.shown();
        let member = |name: &&'static str| row.value(&shown, name).map(|value| ((*name).to_owned(), value));
        self.names.iter().filter_map(member).collect()
    }
}
