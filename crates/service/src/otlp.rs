//! The way to a collector: OTLP as protobuf over HTTP, set up by the standard variables alone.
//!
//! ```text
//!  OTEL_EXPORTER_OTLP_[TRACES_|METRICS_]ENDPOINT   where; without it nothing is sent
//!  OTEL_EXPORTER_OTLP_[…_]HEADERS, _TIMEOUT        what is shown, how long is waited
//!  OTEL_EXPORTER_OTLP_CERTIFICATE                  PEM file with the authorities to believe instead of the public ones
//!  OTEL_SDK_DISABLED, OTEL_{TRACES,METRICS}_EXPORTER=none   nothing, or not this signal
//! ```

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithHttpConfig as _};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::Handle;

/// How long one export may take, as the specification has it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where spans go, if anywhere.
pub(crate) fn span_exporter() -> Result<Option<SpanExporter>, String> {
    if !is_wanted("TRACES") {
        return Ok(None);
    }
    let exporter = SpanExporter::builder().with_http().with_http_client(OnRuntime::new()?).build();
    exporter.map(Some).map_err(|error| error.to_string())
}

/// Where metrics go, if anywhere.
pub(crate) fn metric_exporter() -> Result<Option<MetricExporter>, String> {
    if !is_wanted("METRICS") {
        return Ok(None);
    }
    let exporter = MetricExporter::builder().with_http().with_http_client(OnRuntime::new()?).build();
    exporter.map(Some).map_err(|error| error.to_string())
}

fn is_wanted(signal: &str) -> bool {
    is_wanted_by(signal, |name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

fn is_wanted_by(signal: &str, set: impl Fn(&str) -> Option<String>) -> bool {
    let is_disabled = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let is_none = set(&format!("OTEL_{signal}_EXPORTER")).is_some_and(|value| value == "none");
    let has_endpoint = set(&format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")).or_else(|| set("OTEL_EXPORTER_OTLP_ENDPOINT")).is_some();
    has_endpoint && !is_disabled && !is_none
}

/// The SDK exports from threads of its own; this client carries their requests out on the process's runtime.
#[derive(Debug)]
struct OnRuntime {
    client: reqwest::Client,
    runtime: Handle,
}

impl OnRuntime {
    fn new() -> Result<Self, String> {
        let timeout = std::env::var("OTEL_EXPORTER_OTLP_TIMEOUT").ok().and_then(|text| text.parse().ok());
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls()?)
            .timeout(timeout.map_or(TIMEOUT, Duration::from_millis))
            // Exports are far apart, and a connection that the peer has closed meanwhile would cost one.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| error.to_string())?;
        let runtime = Handle::try_current().map_err(|error| error.to_string())?;
        Ok(Self { client, runtime })
    }
}

#[async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        self.runtime.spawn(async move { client.send_bytes(request).await }).await?
    }
}

fn tls() -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match std::env::var("OTEL_EXPORTER_OTLP_CERTIFICATE").ok().filter(|path| !path.is_empty()) {
        Some(path) => {
            let wrong = |error: String| format!("OTEL_EXPORTER_OTLP_CERTIFICATE: `{path}`: {error}");
            for certificate in CertificateDer::pem_file_iter(&path).map_err(|error| wrong(error.to_string()))? {
                let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
                roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
            }
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::is_wanted_by;

    #[test]
    fn nothing_is_exported_until_somebody_says_where() {
        let wanted = |set: &'static [(&str, &str)]| {
            let find = move |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
            (is_wanted_by("TRACES", find), is_wanted_by("METRICS", find))
        };
        assert_eq!(wanted(&[]), (false, false));
        assert_eq!(wanted(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")]), (true, true));
        assert_eq!(wanted(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318")]), (true, false));
        assert_eq!(wanted(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), ("OTEL_METRICS_EXPORTER", "none")]), (true, false));
        assert_eq!(wanted(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), ("OTEL_SDK_DISABLED", "true")]), (false, false));
    }
}
