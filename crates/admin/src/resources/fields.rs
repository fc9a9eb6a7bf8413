//! What a body says about a resource.

use caracal_store::resources::CallLimits;
use serde_json::{Value, json};
use url::Url;

use crate::input::{Body, Fields, Form, Mismatch, ONE_LINE, Text};
use crate::problem::Refusal;

/// The operation enforcements there are.
const ENFORCEMENTS: &[&str] = &["enforced", "transport_uniform"];

/// A body. Members nobody knows are ignored here.
pub(super) struct Draft {
    pub(super) name: Option<String>,
    pub(super) identifier: Option<String>,
    /// Absent, or taken away, or given.
    pub(super) upstream_url: Option<Option<String>>,
    pub(super) scopes: Option<Vec<String>>,
    /// Absent, or taken away, or given.
    pub(super) credential_provider_id: Option<Option<String>>,
    pub(super) operations: Option<Vec<RawOperation>>,
    pub(super) operation_enforcement: Option<&'static str>,
    /// Absent, or all of them anew; taken away they are the Gateway's own.
    pub(super) limits: Option<CallLimits>,
    pub(super) check: bool,
}

/// An operation as written.
pub(super) struct RawOperation {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) scope: String,
}

impl Draft {
    pub(super) fn read(body: impl Into<Body>) -> Result<Self, Mismatch> {
        let mut fields = Fields::of(body)?;
        let name = fields.text("name", Text::exact(1, 200))?;
        let identifier = fields.text("identifier", Text::exact(1, 512))?;
        let upstream_url = fields.nullable_text("upstream_url", Text::exact(1, usize::MAX).like(UPSTREAM))?;
        let scopes = fields.texts("scopes", (1, 64), Text::exact(1, 200).like(ONE_LINE))?;
        let credential_provider_id = fields.nullable_text("credential_provider_id", Text::exact(0, 200))?;
        let operations = fields.objects("operations", (0, 256))?;
        let operations = operations.map(|all| all.into_iter().map(RawOperation::read).collect()).transpose()?;
        let limits = limits(&mut fields)?;
        Ok(Self {
            name,
            identifier,
            upstream_url,
            scopes,
            credential_provider_id,
            operations,
            operation_enforcement: fields.choice("operation_enforcement", ENFORCEMENTS)?,
            limits,
            check: fields.flag("check")?.unwrap_or(false),
        })
    }

    /// Whether no field of a resource is there.
    pub(super) fn is_empty(&self) -> bool {
        self.name.is_none()
            && self.identifier.is_none()
            && self.upstream_url.is_none()
            && self.scopes.is_none()
            && self.credential_provider_id.is_none()
            && self.operations.is_none()
            && self.operation_enforcement.is_none()
            && self.limits.is_none()
    }
}

impl RawOperation {
    fn read(mut fields: Fields) -> Result<Self, Mismatch> {
        Ok(Self {
            method: fields.required_text("method", Text::exact(1, 16))?,
            path: fields.required_text("path", Text::exact(1, 512))?,
            scope: fields.required_text("scope", Text::exact(1, 200))?,
        })
    }
}

/// An hour: a call that takes longer is a job, and holds a place at its upstream for as long.
const LONGEST_MS: u32 = 3_600_000;
/// What every reader of JSON keeps whole.
const LARGEST: u64 = 9_007_199_254_740_991;

fn limits_schema() -> Value {
    let time = json!({"type": ["integer", "null"], "minimum": 1, "maximum": LONGEST_MS});
    json!({
        "type": "object",
        "properties": {
            "upstream_timeout_ms": time,
            "stream_idle_timeout_ms": time,
            "write_timeout_ms": time,
            "max_request_bytes": {"type": ["integer", "null"], "minimum": 0, "maximum": LARGEST},
        },
        "additionalProperties": false,
    })
}

/// `limits` of a body: an object, or `null` for none.
fn limits(fields: &mut Fields) -> Result<Option<CallLimits>, Mismatch> {
    let Some(members) = fields.nullable_object("limits", limits_schema)? else { return Ok(None) };
    let Some(members) = members else { return Ok(Some(CallLimits::default())) };
    let limits: CallLimits = serde_json::from_value(Value::Object(members)).map_err(|_| {
        let known = "upstream_timeout_ms, stream_idle_timeout_ms, write_timeout_ms and max_request_bytes";
        fields.mismatch("limits", format!("expected whole numbers, and of members only {known}"))
    })?;
    let times = [limits.upstream_timeout_ms, limits.stream_idle_timeout_ms, limits.write_timeout_ms];
    if times.iter().flatten().any(|time| !(1..=LONGEST_MS).contains(time)) {
        return Err(fields.mismatch("limits", format!("expected times from 1 to {LONGEST_MS} milliseconds")));
    }
    if limits.max_request_bytes.is_some_and(|most| most > LARGEST) {
        return Err(fields.mismatch("limits", format!("expected max_request_bytes from 0 to {LARGEST}")));
    }
    Ok(Some(limits))
}

/// Where the Gateway may be told to go: http or https, with a host, without credentials in the URL. Whether it may
/// really go there is decided on every call, by address (README D9).
const UPSTREAM: Form = Form {
    pattern: r"^[Hh][Tt][Tt][Pp][Ss]?:[^\s\u0000-\u001f]+$",
    is: is_upstream,
    what: "expected an absolute http or https URL, without white space, and without credentials: put them into a provider",
};

fn is_upstream(text: &str) -> bool {
    let is_good = |url: Url| {
        let has_host = url.host_str().is_some_and(|host| !host.is_empty());
        let has_credentials = !url.username().is_empty() || url.password().is_some();
        matches!(url.scheme(), "http" | "https") && has_host && !has_credentials
    };
    !has_gaps(text) && Url::parse(text).is_ok_and(is_good)
}

/// A resource's name for clients: an absolute URI, without userinfo, of another scheme than providers have. The control
/// resource is named by the deployment's own setting.
pub(super) fn check_identifier(identifier: &str, is_control: bool) -> Result<(), Refusal> {
    if is_control {
        return Ok(());
    }
    let refuse = |what: &str| Err(Refusal::invalid("invalid_resource_identifier").describe(what));
    // The URL parser drops some of these, and then would not see what is stored.
    if has_gaps(identifier) {
        return refuse("an identifier has no white space and no control characters");
    }
    match Url::parse(identifier) {
        Err(_) => refuse("expected an absolute URI, for example resource://reports"),
        Ok(url) if url.scheme() == "provider" => refuse("provider:// is the scheme of providers"),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => refuse("an identifier has no userinfo"),
        Ok(_) => Ok(()),
    }
}

fn has_gaps(text: &str) -> bool {
    text.chars().any(|character| character.is_whitespace() || character.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_an_absolute_uri_of_another_scheme() {
        for (identifier, good) in [
            ("resource://n", true),
            ("https://api.example/v1", true),
            ("urn:example:x", true),
            ("pipernet", false),
            ("provider://x", false),
            ("PROVIDER://x", false),
            ("https://u:p@h/", false),
            ("https://u@h/", false),
            ("resource://a b", false),
            ("resource://a\nb", false),
            (" resource://a", false),
            ("//host/x", false),
        ] {
            assert_eq!(check_identifier(identifier, false).is_ok(), good, "{identifier:?}");
        }
        assert!(check_identifier("caracal-control", true).is_ok());
    }

    #[test]
    fn an_upstream_is_http_with_a_host_and_without_credentials() {
        for (url, good) in [
            ("https://api.example", true),
            ("HTTP://127.0.0.1:9000/base?x=1", true),
            ("ftp://h", false),
            ("https://", false),
            ("https://u:p@h", false),
            ("https://u@h", false),
            ("https://h/a b", false),
            ("https://h/\n", false),
            ("api.example", false),
            ("", false),
        ] {
            assert_eq!(is_upstream(url), good, "{url:?}");
        }
    }
}
