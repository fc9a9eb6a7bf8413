//! Comma-separated values that a spreadsheet shows and never runs (contract: admin-api.md §5.12, property 17).

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde_json::Value;

use crate::answer::Answer;
use crate::problem::Refusal;

/// A file with a header row. `name` is made of ids, which are safe in a header.
pub(crate) fn file(name: &str, columns: &[&str], rows: impl Iterator<Item = Vec<Value>>) -> Result<Answer, Refusal> {
    let mut text = String::new();
    push_line(&mut text, columns.iter().map(|column| (*column).to_owned()));
    for row in rows {
        push_line(&mut text, row.iter().map(cell));
    }
    let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{name}\""))
        .map_err(|_| Refusal::from(caracal_http::Problem::internal()))?;
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    headers.insert(CONTENT_DISPOSITION, disposition);
    Ok(Answer::raw(response))
}

fn push_line(text: &mut String, cells: impl Iterator<Item = String>) {
    for (index, cell) in cells.enumerate() {
        if index > 0 {
            text.push(',');
        }
        push_cell(text, &cell);
    }
    text.push_str("\r\n");
}

fn push_cell(text: &mut String, cell: &str) {
    let runs = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let guarded = if runs { format!("'{cell}") } else { cell.to_owned() };
    if guarded.contains(['"', ',', '\r', '\n']) {
        text.push('"');
        text.push_str(&guarded.replace('"', "\"\""));
        text.push('"');
    } else {
        text.push_str(&guarded);
    }
}

/// Nothing for `null`, a list's elements joined by a space, an object as JSON.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(" "),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn t05_secrets_no_cell_is_a_formula() {
        for (value, expected) in [
            (json!("=HYPERLINK(\"x\")"), "\"'=HYPERLINK(\"\"x\"\")\""),
            (json!("+1"), "'+1"),
            (json!("-1"), "'-1"),
            (json!(-1), "'-1"),
            (json!("@SUM(A1)"), "'@SUM(A1)"),
            (json!("\tx"), "'\tx"),
            (json!("\rx"), "\"'\rx\""),
            (json!(["=1+1", "b"]), "'=1+1 b"),
        ] {
            let mut text = String::new();
            push_cell(&mut text, &cell(&value));
            assert_eq!(text, expected, "{value}");
        }
    }

    #[test]
    fn cells_are_quoted_where_they_must_be() {
        for (value, expected) in [
            (json!(null), ""),
            (json!("a,b"), "\"a,b\""),
            (json!("a\"b"), "\"a\"\"b\""),
            (json!("a\r\nb"), "\"a\r\nb\""),
            (json!(["a", 1, true]), "a 1 true"),
            (json!({"a": 1}), "\"{\"\"a\"\":1}\""),
            (json!("plain"), "plain"),
        ] {
            let mut text = String::new();
            push_cell(&mut text, &cell(&value));
            assert_eq!(text, expected, "{value}");
        }
    }
}
