//! What is written about the work, and where traces go (contract: audit-and-streams.md §10, §11).

use std::path::PathBuf;

use caracal_http::egress::TargetUrl;

use super::Mode;
use super::variables::Reader;

/// Where the hostname of a container or machine is read on Linux.
const KERNEL_HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// How log lines are made.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// `CARACAL_LOG_LEVEL`, else `LOG_LEVEL`.
    pub level: String,
    /// `CARACAL_LOG_MAX_FIELD_BYTES`: the longest text of a line, in bytes.
    pub max_field_bytes: usize,
    /// `CARACAL_LOG_QUEUE_SIZE`: how many lines may wait to be written.
    pub queue_size: usize,
    /// `CARACAL_LOG_SAMPLE_DEBUG`: one in so many debug lines is written.
    pub debug_one_in: u64,
    /// `CARACAL_ENV`, else `APP_ENV`, else the mode.
    pub env: String,
    /// `CARACAL_VERSION`, else the version of this build.
    pub version: String,
    /// Of the machine, empty where it can't be told.
    pub hostname: String,
}

impl LogSettings {
    pub(super) fn read(reader: &mut Reader<'_>, mode: Mode) -> Self {
        let longest: i64 = reader.number("CARACAL_LOG_MAX_FIELD_BYTES", 8_192, i64::MIN);
        let hostname = std::fs::read_to_string(KERNEL_HOSTNAME).ok().or_else(|| reader.text("HOSTNAME"));
        Self {
            level: reader
                .text("CARACAL_LOG_LEVEL")
                .or_else(|| reader.text("LOG_LEVEL"))
                .unwrap_or_else(|| "info".to_owned()),
            // Zero and less take the limit away.
            max_field_bytes: usize::try_from(longest).ok().filter(|bytes| *bytes > 0).unwrap_or(usize::MAX),
            queue_size: reader.number("CARACAL_LOG_QUEUE_SIZE", 16_384, 1),
            debug_one_in: reader.number("CARACAL_LOG_SAMPLE_DEBUG", 1, 1),
            env: reader.text("CARACAL_ENV").or_else(|| reader.text("APP_ENV")).unwrap_or_else(|| mode.to_string()),
            version: reader.text("CARACAL_VERSION").unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()),
            hostname: hostname.map(|name| name.trim().to_owned()).unwrap_or_default(),
        }
    }
}

/// Where traces go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceSettings {
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` with `/v1/traces` after it.
    pub endpoint: String,
    /// `OTEL_RESOURCE_ATTRIBUTES`: what every span's resource says beside the service's name.
    pub attributes: Vec<(String, String)>,
    /// `CARACAL_TLS_EXTRA_CA_FILE`.
    pub extra_ca_file: Option<PathBuf>,
}

impl TraceSettings {
    /// `None` without an endpoint.
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
        let said = |name: &str| reader.text(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let (endpoint, protocol) = (said(ENDPOINT)?, said(PROTOCOL));
        if let Some(protocol) = protocol.filter(|protocol| protocol != "http/protobuf") {
            reader.mistake(PROTOCOL, format!("`{protocol}` is not spoken here; http/protobuf is"));
        }
        let base = endpoint.trim_end_matches('/');
        match TargetUrl::parse(base) {
            Ok(url) if url.query().is_none() && !base.contains('#') => {}
            _ => {
                let what = "is no absolute http or https URL without user, query and fragment; a collector's own is \
                            often http://localhost:4318";
                reader.mistake(ENDPOINT, what.to_owned());
            }
        }
        Some(Self {
            endpoint: format!("{base}/v1/traces"),
            attributes: attributes(reader),
            extra_ca_file: reader.text("CARACAL_TLS_EXTRA_CA_FILE").map(PathBuf::from),
        })
    }
}

/// `key=value` pairs with commas between them, values percent-encoded (OpenTelemetry: resource SDK).
fn attributes(reader: &mut Reader<'_>) -> Vec<(String, String)> {
    const NAME: &str = "OTEL_RESOURCE_ATTRIBUTES";
    let text = reader.text(NAME).unwrap_or_default();
    let mut pairs = Vec::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                let value = percent_encoding::percent_decode_str(value.trim()).decode_utf8_lossy().into_owned();
                // Which service a span is of is not the deployment's to say: one process runs several.
                if key.trim() != "service.name" {
                    pairs.push((key.trim().to_owned(), value));
                }
            }
            _ => reader.mistake(NAME, format!("`{pair}` is no key=value")),
        }
    }
    pairs
}
