//! The tables of both engines, as they say themselves, and rows of them page by page.
//!
//! Nothing here names a table of a tenant: what a later migration adds is carried without a word here, or refused where
//! the two engines do not agree on it.

use crate::error::StoreError;
use crate::tx::Tx;
use crate::value::{Param, Row, Value};

use super::MoveError;

/// Known by its own means on each end: compared, not copied.
pub(super) const MIGRATIONS: &str = "schema_migrations";

/// Every change of the server leaves a row here, even the one that looks whether it is empty.
const LAST_COMMITS: &str = "last_commits";

/// Tables of the server alone. Versions count from where a process found them; the embedded engine starts over each
/// time it is opened, and so does the server after a move. Commits are looked up seconds after they were made.
const OF_THE_SERVER: &[&str] = &[MIGRATIONS, LAST_COMMITS, "zone_versions"];

/// Columns that the server counts itself, in the order in which rows come. The embedded engine keeps that order by its
/// own row numbers.
const NUMBERED: &[(&str, &str)] = &[("outbox", "position")];

/// A page is at most this long, so that a page of large rows behind small ones still fits into memory.
const MOST_ROWS: i64 = 256;
const FIRST_ROWS: i64 = 16;
/// About how much a page may hold.
const PAGE_BYTES: usize = 4 << 20;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Int,
    Text,
    Blob,
}

/// A table of the source, as it is carried.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) name: String,
    /// Without those that the server counts itself.
    pub(crate) columns: Vec<Column>,
    /// The columns of the primary key, by their place in `columns`.
    key: Vec<usize>,
    /// Whether the server counts the rows.
    numbered: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

impl Table {
    /// The tables of an embedded store, by name.
    pub(super) async fn of_source(tx: &mut Tx) -> Result<Vec<Self>, MoveError> {
        let sql = "SELECT t.name, c.name, c.type, c.pk FROM sqlite_schema t JOIN pragma_table_xinfo(t.name) c
                   WHERE t.type = 'table' AND substr(t.name, 1, 7) <> 'sqlite_' ORDER BY t.name, c.cid";
        let mut tables: Vec<(Self, Vec<(i64, usize)>)> = Vec::new();
        for row in tx.query(sql, &[]).await.map_err(MoveError::Source)? {
            let mut columns = row.columns("sqlite_schema");
            let mut next = || columns.next::<String>();
            let (name, column, ty) = next().and_then(|name| Ok((name, next()?, next()?))).map_err(MoveError::Source)?;
            let place: i64 = columns.next().map_err(MoveError::Source)?;
            if name == MIGRATIONS {
                continue;
            }
            if tables.last().is_none_or(|(table, _)| table.name != name) {
                let numbered = NUMBERED.iter().any(|(table, _)| *table == name);
                tables.push((Self { name: name.clone(), columns: Vec::new(), key: Vec::new(), numbered }, Vec::new()));
            }
            if NUMBERED.contains(&(name.as_str(), column.as_str())) {
                continue;
            }
            let kind = match ty.as_str() {
                "INTEGER" => Kind::Int,
                "TEXT" => Kind::Text,
                "BLOB" => Kind::Blob,
                _ => {
                    let what = format!("has the column `{column}` of type `{ty}`, which is none of this version's");
                    return Err(MoveError::Schema { table: name, what });
                }
            };
            if let Some((table, key)) = tables.last_mut() {
                if place > 0 {
                    key.push((place, table.columns.len()));
                }
                table.columns.push(Column { name: column, kind });
            }
        }
        let with_key = |(mut table, mut key): (Self, Vec<(i64, usize)>)| {
            key.sort_unstable();
            table.key = key.into_iter().map(|(_, column)| column).collect();
            if table.key.is_empty() {
                let what = "has no primary key, so its rows have no order to compare them in".to_owned();
                return Err(MoveError::Schema { table: table.name, what });
            }
            Ok(table)
        };
        tables.into_iter().map(with_key).collect()
    }

    /// The statement that adds rows, given as one array per column, in their order.
    pub(super) fn insert(&self) -> String {
        let list = |each: &dyn Fn(usize, &Column) -> String| {
            let parts = self.columns.iter().enumerate().map(|(index, column)| each(index, column));
            parts.collect::<Vec<_>>().join(", ")
        };
        let name = |_, column: &Column| quoted(&column.name);
        let arrays = list(&|index, column| {
            let ty = match column.kind {
                Kind::Int => "bigint[]",
                Kind::Text => "text[]",
                Kind::Blob => "bytea[]",
            };
            format!("CAST(?{} AS {ty})", index + 1)
        });
        let (columns, values) = (list(&name), list(&|_, column| format!("r.{}", quoted(&column.name))));
        format!(
            "INSERT INTO {} ({columns}) SELECT {values} FROM unnest({arrays}) WITH ORDINALITY AS r ({columns}, \"its place\")
             ORDER BY r.\"its place\"",
            quoted(&self.name)
        )
    }

    /// How a row is called in messages.
    pub(super) fn row_name(&self, values: &[Value]) -> String {
        let part = |index: &usize| match values.get(*index) {
            Some(Value::Int(number)) => number.to_string(),
            Some(Value::Text(text)) => text.escape_debug().to_string(),
            _ => "?".to_owned(),
        };
        self.key.iter().map(part).collect::<Vec<_>>().join(", ")
    }
}

/// Refuses a server whose tables are not those of the source: a table that one end does not know would be forgotten.
pub(super) async fn check_target(tx: &mut Tx, tables: &[Table]) -> Result<(), MoveError> {
    let sql = "SELECT CAST(t.relname AS text), CAST(a.attname AS text), format_type(a.atttypid, NULL),
                      CASE WHEN a.attidentity = '' THEN 0::bigint ELSE 1::bigint END
               FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace JOIN pg_attribute a ON a.attrelid = t.oid
               WHERE n.nspname = current_schema() AND t.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
               ORDER BY t.relname, a.attnum";
    let mut found: Vec<(String, String, String, bool)> = Vec::new();
    for row in tx.query(sql, &[]).await.map_err(MoveError::Target)? {
        let mut columns = row.columns("pg_attribute");
        let mut text = || columns.next::<String>();
        let (table, column, ty) = text().and_then(|table| Ok((table, text()?, text()?))).map_err(MoveError::Target)?;
        found.push((table, column, ty, columns.next().map_err(MoveError::Target)?));
    }
    let refused = |table: &str, what: String| Err(MoveError::Schema { table: table.to_owned(), what });
    for table in tables {
        for Column { name, kind } in &table.columns {
            let ty = match kind {
                Kind::Int => "bigint",
                Kind::Text => "text",
                Kind::Blob => "bytea",
            };
            let there = found.iter().find(|(of, column, ..)| *of == table.name && column == name);
            match there {
                None => return refused(&table.name, format!("has the column `{name}`, which the database lacks")),
                Some((.., other, _)) if other != ty => {
                    return refused(
                        &table.name,
                        format!("has the column `{name}`, which is `{other}` in the database"),
                    );
                }
                Some((.., true)) => {
                    return refused(&table.name, format!("has the column `{name}`, which the database counts itself"));
                }
                Some(_) => {}
            }
        }
    }
    for (table, column, _, counted) in &found {
        if OF_THE_SERVER.contains(&table.as_str()) {
            continue;
        }
        let Some(known) = tables.iter().find(|known| known.name == *table) else {
            return refused(table, "is in the database only; name a database that nothing else uses".to_owned());
        };
        let carried = known.columns.iter().any(|known| known.name == *column);
        let left_out = *counted && NUMBERED.contains(&(table.as_str(), column.as_str()));
        if !carried && !left_out {
            return refused(table, format!("has the column `{column}` in the database only"));
        }
    }
    Ok(())
}

/// The first table of the server that has a row, but for the one that is of the transaction which looks.
pub(super) async fn first_filled(tx: &mut Tx, tables: &[Table]) -> Result<Option<String>, StoreError> {
    let own = OF_THE_SERVER.iter().copied().filter(|name| ![MIGRATIONS, LAST_COMMITS].contains(name));
    for name in tables.iter().map(|table| table.name.as_str()).chain(own) {
        if !tx.query(&format!("SELECT 1::bigint FROM {} LIMIT 1", quoted(name)), &[]).await?.is_empty() {
            return Ok(Some(name.to_owned()));
        }
    }
    Ok(None)
}

/// Reads the rows of a table page by page, on either engine.
pub(super) struct Pages<'t> {
    table: &'t Table,
    by: By,
    after: Option<Vec<Value>>,
    rows: i64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Key,
    /// The embedded engine's own number of a row: the order in which rows were added.
    Number,
}

impl<'t> Pages<'t> {
    /// In the order of the primary key, which both engines understand the same way: text by its bytes.
    pub(super) fn by_key(table: &'t Table) -> Self {
        Self { table, by: By::Key, after: None, rows: FIRST_ROWS }
    }

    /// In the order in which the server has to get them.
    pub(super) fn to_copy(table: &'t Table) -> Self {
        let by = if table.numbered { By::Number } else { By::Key };
        Self { table, by, after: None, rows: FIRST_ROWS }
    }

    /// The next rows, none after the last.
    pub(super) async fn next(&mut self, tx: &mut Tx) -> Result<Vec<Row>, StoreError> {
        let mut params: Vec<Param<'_>> = self.after.iter().flatten().map(param).collect();
        params.push(Param::Int(self.rows));
        let mut rows = tx.query(&self.sql(), &params).await?;
        if self.by == By::Number {
            for row in &mut rows {
                let number = row.values.pop();
                self.after = number.map(|number| vec![number]);
            }
        } else if let Some(last) = rows.last() {
            self.after = Some(self.table.key.iter().filter_map(|index| last.values.get(*index).cloned()).collect());
        }
        let held: usize = rows.iter().flat_map(|row| &row.values).map(size).sum();
        self.rows = if held > PAGE_BYTES { self.rows / 2 } else { self.rows * 2 }.clamp(1, MOST_ROWS);
        Ok(rows)
    }

    fn sql(&self) -> String {
        let list = |names: Vec<String>| names.join(", ");
        let mut columns: Vec<String> = self.table.columns.iter().map(|column| quoted(&column.name)).collect();
        let key: Vec<String> = match self.by {
            By::Key => self.table.key.iter().filter_map(|index| columns.get(*index).cloned()).collect(),
            By::Number => {
                columns.push("rowid".to_owned());
                vec!["rowid".to_owned()]
            }
        };
        let width = key.len();
        let places = (1..=width).map(|number| format!("?{number}")).collect();
        let (behind, limit) = match self.after {
            None => (String::new(), 1),
            Some(_) => (format!("WHERE ({}) > ({})", list(key.clone()), list(places)), width + 1),
        };
        let (columns, key, name) = (list(columns), list(key), quoted(&self.table.name));
        format!("SELECT {columns} FROM {name} {behind} ORDER BY {key} LIMIT ?{limit}")
    }
}

/// A name as both engines quote it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn param(value: &Value) -> Param<'_> {
    match value {
        Value::Null => Param::Null,
        Value::Int(number) => Param::Int(*number),
        Value::Text(text) => Param::Text(text),
        Value::Blob(bytes) => Param::Blob(bytes),
    }
}

fn size(value: &Value) -> usize {
    8 + match value {
        Value::Null | Value::Int(_) => 0,
        Value::Text(text) => text.len(),
        Value::Blob(bytes) => bytes.len(),
    }
}
