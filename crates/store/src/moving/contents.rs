//! What a store holds, in a form that two engines can be compared by: for each table its rows and a digest of them in
//! the order of the primary key. Each end computes it from what it reads back, never from what the other one sent.

use ring::digest::{Context, SHA256};

use crate::value::Value;

use super::tables::Table;

/// Rows and digest of each table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// By name.
    pub tables: Vec<TableContents>,
}

/// Rows and digest of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableContents {
    /// The table.
    pub name: String,
    /// How many rows it has.
    pub rows: u64,
    /// SHA-256 of the rows, lower-case hex.
    pub sha256: String,
}

impl Contents {
    /// Rows of all tables.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }

    /// One digest of all tables, lower-case hex.
    pub fn sha256(&self) -> String {
        let mut context = Context::new(&SHA256);
        context.update(b"caracal store contents v1\n");
        for table in &self.tables {
            text(&mut context, &table.name);
            context.update(&table.rows.to_be_bytes());
            text(&mut context, &table.sha256);
        }
        hex(context)
    }
}

/// The digest of one table, under way.
pub(super) struct Digest {
    context: Context,
    rows: u64,
}

impl Digest {
    pub(super) fn of(table: &Table) -> Self {
        let mut context = Context::new(&SHA256);
        text(&mut context, &table.name);
        for column in &table.columns {
            text(&mut context, &column.name);
        }
        Self { context, rows: 0 }
    }

    /// Takes the next row. Each value carries its type and its length, so that no two rows are told alike.
    pub(super) fn add(&mut self, values: &[Value]) {
        self.rows += 1;
        for value in values {
            let (kind, bytes): (u8, &[u8]) = match value {
                Value::Null => (0, &[]),
                Value::Int(number) => {
                    self.context.update(&[1]);
                    self.context.update(&number.to_be_bytes());
                    continue;
                }
                Value::Text(text) => (2, text.as_bytes()),
                Value::Blob(bytes) => (3, bytes),
            };
            self.context.update(&[kind]);
            self.context.update(&(bytes.len() as u64).to_be_bytes());
            self.context.update(bytes);
        }
    }

    pub(super) fn finish(self, name: &str) -> TableContents {
        TableContents { name: name.to_owned(), rows: self.rows, sha256: hex(self.context) }
    }
}

fn text(context: &mut Context, text: &str) {
    context.update(&(text.len() as u64).to_be_bytes());
    context.update(text.as_bytes());
}

fn hex(context: Context) -> String {
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_differ_in_type_or_in_where_a_value_ends_differ() {
        let text = |text: &str| Value::Text(text.to_owned());
        let rows = [
            vec![Value::Null, text("")],
            vec![text(""), Value::Null],
            vec![text("ab"), text("c")],
            vec![text("a"), text("bc")],
            vec![Value::Blob(b"ab".to_vec()), text("c")],
            vec![Value::Int(0), Value::Int(1)],
            vec![Value::Int(1), Value::Int(0)],
            vec![Value::Int(i64::MIN), Value::Int(i64::MAX)],
        ];
        let digest = |row: &Vec<Value>| {
            let mut digest = Digest { context: Context::new(&SHA256), rows: 0 };
            digest.add(row);
            digest.finish("t").sha256
        };
        let found: std::collections::BTreeSet<String> = rows.iter().map(digest).collect();
        assert_eq!(found.len(), rows.len());
    }
}
