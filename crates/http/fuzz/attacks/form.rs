//! The body of a form: no field twice, nothing that two parsers are known to read differently, and what was read can be
//! written and read again. A second parser, the URL standard's, has to see the same fields.

use std::collections::HashSet;

use caracal_http::form::{Form, FormError, MAX_BYTES, encode};

fn fields(mut form: Form) -> Vec<(String, String)> {
    let names: Vec<String> = form.names().map(str::to_owned).collect();
    let taken = names.into_iter().map(|name| {
        let value = form.take(&name).expect("a field of that name").to_string();
        (name, value)
    });
    taken.collect()
}

/// Panics where a rule is broken.
pub(crate) fn attack(data: &[u8]) {
    let strict = Form::parse_fields(data, &[]);
    match Form::parse_fields(data, &["resource", "scope"]) {
        Ok(form) => {
            assert!(data.len() <= MAX_BYTES && !data.contains(&b';'));
            let once: Vec<&str> = form.names().filter(|name| !["resource", "scope"].contains(name)).collect();
            assert_eq!(once.iter().collect::<HashSet<_>>().len(), once.len());
            let read = fields(form);
            let standard: Vec<(String, String)> = url::form_urlencoded::parse(data).into_owned().collect();
            assert_eq!(read, standard);
            // Only a repetition is judged differently without the names that may repeat.
            let repeated = read.iter().map(|(name, _)| name).collect::<HashSet<_>>().len() < read.len();
            assert_eq!(matches!(strict, Err(FormError::Repeated(_))), repeated);
            let written = encode(read.iter().map(|(name, value)| (name, value)));
            if written.len() <= MAX_BYTES {
                let again = Form::parse_fields(written.as_bytes(), &["resource", "scope"]);
                assert_eq!(fields(again.expect("our own spelling")), read);
            }
        }
        Err(error) => {
            assert!(strict.is_err());
            assert!(error.status().is_client_error() && !error.code().is_empty());
            if let FormError::Repeated(name) = error {
                assert!(name.chars().count() <= 64);
            }
        }
    }
}
