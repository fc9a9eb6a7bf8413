//! The document: every route of the table, as OpenAPI 3.1.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::notes::Notes;
use super::shape::Definitions;
use super::spec::{Content, Takes};
use crate::gate::{Needs, Reach, Route};
use crate::idempotency;
use crate::page::Query;
use crate::routes::ROUTES;

static DOCUMENT: LazyLock<Value> = LazyLock::new(make);

/// The description of every operation under `/v1`, as OpenAPI 3.1.
pub fn document() -> &'static Value {
    &DOCUMENT
}

const ABOUT: &str = "The management API of Caracal. Every request under `/v1` needs an admin token as a bearer, but for the \
one that a browser comes back with. A refusal is one JSON object with a stable code in `error`; prose beside it may change. \
Members that are not described are refused where a body's schema says so, and ignored elsewhere. Lists come in pages: \
`next_cursor` of one is `cursor` of the next, until it is null.";

fn make() -> Value {
    let mut definitions = Definitions::default();
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for route in ROUTES {
        // A wildcard is the rest of the path to the router, and a parameter like any other to a reader.
        let path = route.path.replace("{*", "{");
        let described = operation(route, &path, &mut definitions);
        paths.entry(path).or_default().insert(route.method.as_str().to_ascii_lowercase(), described);
    }
    let mut schemas: Map<String, Value> = definitions.0.into_iter().collect();
    schemas.insert("Error".to_owned(), error());
    schemas.insert("Rehearsal".to_owned(), rehearsal());
    schemas.insert("Replay".to_owned(), replay());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Caracal Admin API",
            "version": "v1",
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": shared_responses(),
            "securitySchemes": {
                "adminToken": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An admin token. What it may do, and whether in one zone or in all, is in the token.",
                },
            },
        },
    })
}

/// The one body of every refusal. Some codes bring members of their own.
fn error() -> Value {
    json!({
        "type": "object",
        "properties": {
            "error": {"type": "string", "description": "The stable code."},
            "error_description": {"type": "string", "description": "Prose for people."},
            "requestId": {"type": "string"},
            "request_id": {"type": "string"},
            "details": {"type": "object"},
        },
        "required": ["error", "requestId", "request_id"],
    })
}

fn replay() -> Value {
    json!({
        "type": "object",
        "description": "What the first request under this `Idempotency-Key` was answered with, without any secret. The answer \
    has the header `Idempotency-Replayed`.",
        "properties": {"id": {"type": "string"}},
        "required": ["id"],
    })
}

fn rehearsal() -> Value {
    json!({
        "type": "object",
        "description": "What would have been done. Nothing was.",
        "properties": {
            "dry_run": {"const": true},
            "would_answer": {"type": "integer", "description": "The status of the same request without `dry_run`."},
            "change_kind": {"type": "string"},
            "changed_fields": {"type": "array", "items": {"type": "string"}},
            "secret_rotated": {"type": "boolean"},
        },
        "required": ["dry_run", "would_answer"],
    })
}

fn operation(route: &Route, path: &str, definitions: &mut Definitions) -> Value {
    let spec = &route.spec;
    let mut parameters: Vec<Value> = path_parameters(path);
    // A reader that could refuse nothing at all would be one that reads nothing.
    let query = Query::noted(spec.query).unwrap_or_default();
    let pages = query.iter().any(|parameter| parameter.name == "cursor");
    let mut codes = Codes::default();
    codes.common(route);
    if !query.is_empty() {
        codes.add(400, "invalid_query");
    }
    if pages {
        codes.add(400, "invalid_cursor");
    }
    if query.iter().any(|parameter| parameter.name == "fields") {
        codes.add(400, "invalid_fields");
    }
    parameters.extend(query.into_iter().map(|parameter| {
        json!({"name": parameter.name, "in": "query", "required": parameter.is_required, "schema": parameter.schema})
    }));
    let rehearses = route.changes() && route.can_be_rehearsed(false);
    if route.changes() {
        codes.add(400, "invalid_query");
        codes.add(400, "dry_run_unsupported");
    }
    if rehearses {
        parameters.push(json!({
            "name": "dry_run",
            "in": "query",
            "required": false,
            "description": "Only say what would be done.",
            "schema": {"type": "string", "enum": ["true", "false"]},
        }));
    }
    if idempotency::creates(route) {
        codes.under_a_key();
        parameters.push(json!({
            "name": "Idempotency-Key",
            "in": "header",
            "required": false,
            "description": "The same request under the same key is carried out once.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": KEY},
        }));
    }
    let mut described = json!({
        "operationId": spec.name,
        "summary": spec.does,
        "description": who(route),
        "tags": [spec.name.split('.').next().unwrap_or_default()],
    });
    if !parameters.is_empty() {
        described["parameters"] = Value::Array(parameters);
    }
    if let Takes::Object { code, read, may_be_absent } = spec.body {
        codes.add(400, code);
        let notes = Notes::default();
        if spec.refuses.contains(&(400, "no_fields")) {
            notes.require_some();
        }
        // As for the query: a reader that ends early has noted what it asked for by then, and the tests hold it whole.
        let _ = read(notes.clone());
        described["requestBody"] =
            json!({"required": !may_be_absent, "content": {"application/json": {"schema": notes.schema()}}});
    }
    for (status, code) in spec.refuses {
        codes.add(*status, code);
    }
    let mut responses = codes.responses();
    // Said by the transport, before there is a request that anything else could be said of.
    responses.insert("431".to_owned(), json!({"$ref": "#/components/responses/RequestHeaderFieldsTooLarge"}));
    responses.insert(spec.status.as_str().to_owned(), success(route, rehearses, definitions));
    if rehearses && spec.status.as_u16() != 200 {
        responses.insert("200".to_owned(), json_answer("With `dry_run`.", json!({"$ref": REHEARSAL})));
    }
    described["responses"] = Value::Object(responses);
    described["security"] = match needed(route.needs) {
        None => json!([]),
        Some(capability) => json!([{"adminToken": [capability]}]),
    };
    described
}

const ERROR: &str = "#/components/schemas/Error";
const REHEARSAL: &str = "#/components/schemas/Rehearsal";
/// No control characters. White space around it belongs to the header and not to the key.
const KEY: &str = r"^[^\u0000-\u001f\u007f]+$";
const REPLAY: &str = "#/components/schemas/Replay";

fn success(route: &Route, rehearses: bool, definitions: &mut Definitions) -> Value {
    let spec = &route.spec;
    let mut json_of = |schema: fn(&mut Definitions) -> Value| {
        let schema = schema(definitions);
        // Both are 200 here; elsewhere a rehearsal has a status of its own.
        if rehearses && spec.status.as_u16() == 200 {
            json!({"anyOf": [schema, {"$ref": REHEARSAL}]})
        } else if idempotency::creates(route) {
            json!({"anyOf": [schema, {"$ref": REPLAY}]})
        } else {
            schema
        }
    };
    let done = "Done.";
    match spec.content {
        Content::Nothing => json!({"description": done}),
        Content::Json(schema) => json_answer(done, json_of(schema)),
        Content::JsonOrFile(schema, kind) => {
            let mut answer = json_answer(done, json_of(schema));
            answer["content"][kind] = json!({"schema": {"type": "string"}});
            answer
        }
        Content::File(kind) => json!({"description": done, "content": {kind: {}}}),
    }
}

fn json_answer(description: &str, schema: Value) -> Value {
    json!({"description": description, "content": {"application/json": {"schema": schema}}})
}

/// The ids in a path.
fn path_parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    names
        .map(|name| {
            let pattern = match name {
                "request" => "^[!-~]{1,128}$",
                "tile" => "^[A-Za-z0-9./]{1,128}$",
                _ => "^[A-Za-z0-9._:-]{1,128}$",
            };
            let schema = json!({"type": "string", "pattern": pattern});
            json!({"name": name, "in": "path", "required": true, "schema": schema})
        })
        .collect()
}

fn needed(needs: Needs) -> Option<&'static str> {
    match needs {
        Needs::Nothing => None,
        Needs::Read => Some("read"),
        Needs::Write => Some("write"),
        Needs::Approve => Some("approve"),
    }
}

/// Who may call it, in words.
fn who(route: &Route) -> String {
    let able = match route.needs {
        Needs::Nothing => return "For anybody who brings a proof of their own.".to_owned(),
        Needs::Read => "of any capability",
        Needs::Write => "with the capability `write`",
        Needs::Approve => "with the capability `approve`, or the bootstrap token",
    };
    let whose = match route.reach {
        Reach::Zone(_) => "that is global or of this zone",
        Reach::Catalogue(_) => "of any scope",
        Reach::Zones(_) | Reach::Deployment(_) | Reach::Public(_) => "that is global",
    };
    format!("Needs an admin token {able}, {whose}.")
}

const SHARED: [(u16, &[&str], &str); 9] = [
    (401, &["invalid_admin_token", "invalid_account_assertion"], "Unauthorized"),
    (408, &["internal_error"], "RequestTimeout"),
    (413, &["internal_error"], "PayloadTooLarge"),
    (414, &["uri_too_long"], "UriTooLong"),
    (415, &["internal_error"], "UnsupportedMediaType"),
    (429, &["rate_limited"], "TooManyRequests"),
    (500, &["internal_error"], "InternalServerError"),
    (500, &["internal_error", "audit_unavailable"], "NotDoneOrNotRecorded"),
    (503, &["store_unavailable", "rate_limit_unavailable"], "ServiceUnavailable"),
];

fn shared_responses() -> Map<String, Value> {
    let mut shared: Map<String, Value> =
        SHARED.iter().map(|(status, codes, name)| ((*name).to_owned(), refusal(*status, codes))).collect();
    let head = "The request's line and headers are longer than is read. The answer is not JSON.";
    shared.insert("RequestHeaderFieldsTooLarge".to_owned(), json!({"description": head}));
    shared
}

fn refusal(status: u16, codes: &[&str]) -> Value {
    let refused = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let schema = json!({"allOf": [{"$ref": ERROR}, {"properties": {"error": {"enum": codes}}}]});
    json_answer(refused.unwrap_or("Refused"), schema)
}

/// Which codes an operation refuses with, by status.
#[derive(Default)]
struct Codes(BTreeMap<u16, Vec<&'static str>>);

impl Codes {
    fn add(&mut self, status: u16, code: &'static str) {
        let codes = self.0.entry(status).or_default();
        if !codes.contains(&code) {
            codes.push(code);
        }
    }

    /// What the gates refuse, in front of every handler.
    fn common(&mut self, route: &Route) {
        for (status, code) in [
            (400, "bad_request"),
            (408, "internal_error"),
            (413, "internal_error"),
            (429, "rate_limited"),
            (500, "internal_error"),
            (503, "store_unavailable"),
            (503, "rate_limit_unavailable"),
        ] {
            self.add(status, code);
        }
        if route.path.contains('{') {
            self.add(400, "invalid_params");
            self.add(414, "uri_too_long");
        }
        if route.method != http::Method::GET {
            self.add(400, "internal_error");
            self.add(415, "internal_error");
        }
        if route.is_recorded() {
            self.add(500, "audit_unavailable");
        }
        if route.needs == Needs::Nothing {
            return;
        }
        self.add(401, "invalid_admin_token");
        self.add(401, "invalid_account_assertion");
        if !matches!(route.reach, Reach::Catalogue(_)) {
            self.add(403, "admin_token_zone_mismatch");
        }
        match route.needs {
            Needs::Write => {
                self.add(403, "admin_token_read_only");
                self.add(403, "admin_token_approve_only");
            }
            Needs::Approve => {
                self.add(403, "admin_token_read_only");
                self.add(403, "approve_capability_required");
            }
            Needs::Nothing | Needs::Read => {}
        }
        match route.reach {
            Reach::Zone(_) => {
                self.add(403, "zone_forbidden");
                if route.needs != Needs::Read {
                    self.add(403, "system_zone_read_only");
                }
            }
            Reach::Deployment(_) => self.add(403, "account_scope_required"),
            Reach::Zones(_) | Reach::Catalogue(_) | Reach::Public(_) => {}
        }
    }

    /// What is refused of a key.
    fn under_a_key(&mut self) {
        for (status, code) in [
            (400, "idempotency_key_invalid"),
            (400, "idempotency_key_multiple"),
            (409, "idempotency_key_conflict"),
            (413, "idempotency_answer_too_large"),
            (429, "idempotency_receipt_limit_exceeded"),
        ] {
            self.add(status, code);
        }
    }

    /// A refusal that many operations share is described once.
    fn responses(self) -> Map<String, Value> {
        let answer = |(status, codes): (u16, Vec<&'static str>)| {
            let shared = SHARED.iter().find(|(of, same, _)| *of == status && *same == codes);
            let answer = match shared {
                Some((_, _, name)) => json!({"$ref": format!("#/components/responses/{name}")}),
                None => refusal(status, &codes),
            };
            (status.to_string(), answer)
        };
        self.0.into_iter().map(answer).collect()
    }
}
