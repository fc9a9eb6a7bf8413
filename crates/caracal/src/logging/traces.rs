//! Traces over OTLP/HTTP. Spans are collected in memory and sent by a thread of the exporter's own, so that no request
//! waits for a collector; one that is away costs the spans, never the request.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use caracal_http::Profile;
use caracal_http::egress::{OperatorClient, SimpleRequest, SystemResolver, TargetUrl, TlsTrust};
use caracal_http::trace::{SERVICE, TARGET};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Key, KeyValue, Value};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
use tokio::runtime::Handle;
use tracing::Subscriber;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

use crate::settings::TraceSettings;

const PATIENCE: Duration = Duration::from_secs(10);
const AT_EXIT: Duration = Duration::from_secs(2);
const MOST_ANSWER_BYTES: usize = 64 * 1024;

/// The traces of this process.
pub(super) struct Traces(SdkTracerProvider);

impl Traces {
    /// That are sent to where `settings` say, from `runtime`.
    pub(super) fn new(settings: &TraceSettings, runtime: Handle) -> Self {
        let trust = TlsTrust::load(settings.extra_ca_file.as_deref());
        let client = OperatorClient::new(Arc::new(SystemResolver::new()), trust);
        let collector: Arc<dyn HttpClient> = Arc::new(Collector { client, runtime, is_away: AtomicBool::new(false) });
        let exporters = Profile::SERVICES.into_iter().filter_map(|service| {
            let exporter = SpanExporter::builder()
                .with_http()
                .with_shared_http_client(Arc::clone(&collector))
                .with_endpoint(settings.endpoint.clone())
                .with_protocol(Protocol::HttpBinary)
                .with_timeout(PATIENCE)
                .build();
            // The endpoint was checked with the settings; what else could be wrong is the build's.
            let mut exporter = exporter.inspect_err(|error| tracing::error!(%error, "no traces are sent")).ok()?;
            let attributes = settings.attributes.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
            let resource = Resource::builder_empty().with_attributes(attributes).with_service_name(service).build();
            opentelemetry_sdk::trace::SpanExporter::set_resource(&mut exporter, &resource);
            Some((service, exporter))
        });
        let exporter = PerService(exporters.collect());
        Self(SdkTracerProvider::builder().with_batch_exporter(exporter).build())
    }

    /// What tells the exporter of spans. Of log lines it hears nothing: those have a way of their own, redacted.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("caracal"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(|metadata| metadata.is_span() && metadata.target() == TARGET))
    }

    /// Sends what was not sent yet.
    pub(super) fn stop(self) {
        if let Err(error) = self.0.shutdown_with_timeout(AT_EXIT) {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

/// One exporter for each service, because a collector knows a service by its resource, and one process runs several.
#[derive(Debug)]
struct PerService(Vec<(&'static str, SpanExporter)>);

impl opentelemetry_sdk::trace::SpanExporter for PerService {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let mut batch = batch;
        let mut outcome = Ok(());
        for (service, exporter) in &self.0 {
            let own: Vec<SpanData> = batch.extract_if(.., |span| is_of(span, service)).collect();
            if !own.is_empty() {
                outcome = outcome.and(exporter.export(own).await);
            }
        }
        if batch.is_empty() {
            outcome
        } else {
            Err(OTelSdkError::InternalFailure(format!("{} spans of no known service", batch.len())))
        }
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.iter().map(|(_, exporter)| exporter.shutdown_with_timeout(timeout)).fold(Ok(()), Result::and)
    }
}

fn is_of(span: &SpanData, service: &str) -> bool {
    let key = Key::from_static_str(SERVICE);
    span.attributes.iter().any(|attribute| {
        attribute.key == key && matches!(&attribute.value, Value::String(name) if name.as_str() == service)
    })
}

/// The collector as HTTP reaches it: the operator's own server, by the way that all of those are reached.
struct Collector {
    client: OperatorClient,
    runtime: Handle,
    is_away: AtomicBool,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collector")
    }
}

impl Collector {
    /// Says it once when spans begin to be lost, and once when they no longer are.
    fn report(&self, failure: Option<&str>) {
        if self.is_away.swap(failure.is_some(), Ordering::Relaxed) != failure.is_some() {
            match failure {
                Some(error) => {
                    tracing::warn!(error, "the trace collector does not take spans; they are lost until it does")
                }
                None => tracing::info!("the trace collector takes spans again"),
            }
        }
    }
}

impl HttpClient for Collector {
    fn send_bytes<'life0, 'async_trait>(
        &'life0 self,
        request: http::Request<Bytes>,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<http::Response<Bytes>, HttpError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let request = SimpleRequest {
                method: parts.method,
                url: TargetUrl::parse(&parts.uri.to_string())?,
                headers: parts.headers,
                body,
                deadline: PATIENCE,
                max_response_bytes: MOST_ANSWER_BYTES,
            };
            // The exporter's thread has no reactor.
            let client = self.client.clone();
            let sent = self.runtime.spawn(async move { client.send(request).await }).await?;
            let failure = match &sent {
                Ok(answer) if answer.status.is_success() => None,
                Ok(answer) => Some(format!("answered {}", answer.status)),
                Err(error) => Some(error.to_string()),
            };
            self.report(failure.as_deref());
            let answer = sent?;
            let mut response = http::Response::new(answer.body);
            *response.status_mut() = answer.status;
            *response.headers_mut() = answer.headers;
            Ok(response)
        })
    }
}
