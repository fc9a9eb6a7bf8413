//! Traces as a collector receives them (contract: sts.md §15, gateway.md §21).

use std::collections::BTreeMap;

use caracal_testkit::{FakeServer, Reply};
use http::Method;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use crate::support::{Addressed, Http, NOTES, Running, Tenant, caracal, refused_up, upstream};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// A span with the service that its resource names.
type Told = (String, Span);

fn received(collector: &FakeServer) -> (Vec<Told>, Vec<u8>) {
    let (mut spans, mut bytes) = (Vec::new(), Vec::new());
    for request in collector.seen() {
        assert_eq!((request.method.as_str(), request.path()), ("POST", "/v1/traces"));
        assert_eq!(request.header("content-type"), Some("application/x-protobuf"));
        bytes.extend_from_slice(&request.body);
        let export = ExportTraceServiceRequest::decode(request.body.as_slice()).unwrap();
        for group in export.resource_spans {
            let attributes = group.resource.unwrap().attributes;
            let named = |key: &str| {
                let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
                match attribute.value.clone()?.value? {
                    Value::StringValue(text) => Some(text),
                    _ => None,
                }
            };
            assert_eq!(named("deployment.region").as_deref(), Some("eu west"));
            let service = named("service.name").unwrap();
            for scope in group.scope_spans {
                spans.extend(scope.spans.into_iter().map(|span| (service.clone(), span)));
            }
        }
    }
    (spans, bytes)
}

fn attribute(span: &Span, key: &str) -> Option<Value> {
    span.attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?.value
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_governed_call_is_one_trace_under_the_callers_and_holds_no_secret() {
    let collector = FakeServer::http(|_| Reply::bytes(200, Vec::new()));
    let directory = tempfile::tempdir().unwrap();
    let url = collector.url();
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.region=eu%20west,service.name=mine"),
        ("API_V1_RATE_LIMIT_PER_MIN", "0"),
    ];
    let (http, mut system) = (Http::new(), Running::start_with(directory.path(), &settings));
    let reached = upstream().await;
    let tenant = Tenant::provision(&http, &system, &reached).await;
    let (session, edge) = tenant.delegation(&http, &system).await;
    let mandate = tenant.mint(&http, &system, (&session, &edge)).await.unwrap().text("access_token");
    let bearer = format!("Bearer {mandate}");
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let headers = [("authorization", bearer.as_str()), ("x-caracal-resource", NOTES), ("traceparent", &parent)];
    let called = http.send(Method::GET, &format!("{}/notes", system.url("gateway")), &headers, "").await.unwrap();
    assert_eq!(called.status.as_u16(), 200);
    // What was not sent yet is sent at the end.
    assert!(system.terminate());

    let (spans, bytes) = received(&collector);
    let of_call: Vec<&Told> = spans.iter().filter(|(_, span)| hex(&span.trace_id) == TRACE).collect();
    let by_name: BTreeMap<(&str, &str), &Span> =
        of_call.iter().map(|(service, span)| ((service.as_str(), span.name.as_str()), span)).collect();
    let told: Vec<&(&str, &str)> = by_name.keys().collect();
    let request = by_name.get(&("caracal-gateway", "GET")).unwrap_or_else(|| panic!("{told:?}"));
    let exchange = by_name.get(&("caracal-sts", "exchange")).unwrap_or_else(|| panic!("{told:?}"));
    let commit = by_name.get(&("caracal-sts", "commit")).unwrap_or_else(|| panic!("{told:?}"));
    assert_eq!(hex(&request.parent_span_id), CALLER, "the caller's span is the parent");
    assert_eq!(exchange.parent_span_id, request.span_id);
    assert_eq!(commit.parent_span_id, exchange.span_id);
    assert_eq!(attribute(request, "http.response.status_code"), Some(Value::IntValue(200)));
    // The call upstream is a client's span (3) beside the exchange, and names its server without path and query.
    let call = by_name.get(&("caracal-gateway", "upstream")).unwrap_or_else(|| panic!("{told:?}"));
    assert_eq!((&call.parent_span_id, call.kind), (&request.span_id, 3));
    assert_eq!(attribute(call, "http.request.method"), Some(Value::StringValue("GET".to_owned())));
    assert_eq!(attribute(call, "http.response.status_code"), Some(Value::IntValue(200)));
    assert_eq!(attribute(call, "server.address"), Some(Value::StringValue("127.0.0.1".to_owned())));
    let port = reached.rsplit(':').next().unwrap().parse().unwrap();
    assert_eq!(attribute(call, "server.port"), Some(Value::IntValue(port)));
    assert!(call.start_time_unix_nano >= exchange.end_time_unix_nano, "the exchange is not part of it");
    assert!(!call.attributes.iter().any(|attribute| format!("{attribute:?}").contains("/notes")));
    for service in ["caracal-api", "caracal-sts"] {
        assert!(spans.iter().any(|(name, span)| name == service && span.kind == 2), "requests of {service}");
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let signature = mandate.rsplit('.').next().unwrap();
    for secret in [&tenant.client_secret, signature, "upstream-key-1", system.admin_token().as_str()] {
        assert!(!text.contains(secret), "a secret is in a trace");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_the_spans_and_never_a_request_or_the_end() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    // Takes connections and never answers.
    let url = format!("http://{}", listener.local_addr().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("API_V1_RATE_LIMIT_PER_MIN", "0")];
    let (http, mut system) = (Http::new(), Running::start_with(directory.path(), &settings));
    let tenant = Tenant::provision(&http, &system, &upstream().await).await;
    let (session, edge) = tenant.delegation(&http, &system).await;
    let mandate = tenant.mint(&http, &system, (&session, &edge)).await.unwrap().text("access_token");
    assert_eq!(tenant.call(&http, &system, &mandate).await.unwrap().status.as_u16(), 200);
    let ending = tokio::task::spawn_blocking(move || system.terminate());
    assert!(tokio::time::timeout(crate::PATIENCE, ending).await.expect("the end waits for a collector").unwrap());
}

#[test]
fn another_protocol_than_the_one_spoken_is_a_mistake_of_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let said = refused_up(directory.path(), || {
        let mut command = caracal();
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317").env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        command
    });
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr.contains("OTEL_EXPORTER_OTLP_PROTOCOL") && said.stderr.contains("http/protobuf"),
        "{}",
        said.stderr
    );
}
