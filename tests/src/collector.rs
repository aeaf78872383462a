//! A collector of OpenTelemetry: takes OTLP as protobuf over HTTP and keeps what it was sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::bail;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// One span.
#[derive(Debug, Clone)]
pub struct Span {
    /// `service.name` of who sent it.
    pub service: String,
    /// Its name.
    pub name: String,
    /// The trace that it is part of.
    pub trace: Vec<u8>,
    /// Its own id.
    pub id: Vec<u8>,
    /// The span that it is part of; empty for a root.
    pub parent: Vec<u8>,
    /// Attributes as text.
    pub attributes: BTreeMap<String, String>,
}

#[derive(Default)]
struct Taken {
    spans: Vec<Span>,
    metrics: BTreeSet<String>,
    bodies: Vec<Vec<u8>>,
}

/// A running collector.
pub struct Collector {
    /// `http://127.0.0.1:port`
    pub url: String,
    taken: Arc<Mutex<Taken>>,
}

impl Collector {
    /// Starts a collector on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let taken = Arc::new(Mutex::new(Taken::default()));
        let kept = taken.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = kept.clone();
                tokio::spawn(async move { take(stream, &kept).await });
            }
        });
        Self { url: format!("http://127.0.0.1:{port}"), taken }
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Span> {
        self.taken.lock().expect("no panic").spans.clone()
    }

    /// Names of all metrics so far.
    pub fn metrics(&self) -> BTreeSet<String> {
        self.taken.lock().expect("no panic").metrics.clone()
    }

    /// Whether anything that was sent holds this text.
    pub fn holds(&self, text: &str) -> bool {
        let taken = self.taken.lock().expect("no panic");
        taken.bodies.iter().any(|body| body.windows(text.len()).any(|window| window == text.as_bytes()))
    }

    /// Waits for a span of this name.
    pub async fn wait_for(&self, name: &str) -> anyhow::Result<Span> {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let spans = self.spans();
            if let Some(span) = spans.iter().find(|span| span.name == name) {
                return Ok(span.clone());
            }
            if Instant::now() > end {
                bail!("no span `{name}` came; these did: {:?}", spans.iter().map(|span| &span.name).collect::<BTreeSet<_>>());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn take(mut stream: TcpStream, taken: &Mutex<Taken>) -> Option<()> {
    let (mut bytes, mut block) = (Vec::new(), vec![0; 65536]);
    let (head, body) = loop {
        let read = stream.read(&mut block).await.ok()?;
        bytes.extend_from_slice(&block[..read]);
        if read == 0 {
            return None;
        }
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok()).unwrap_or(0);
        if bytes.len() >= end + 4 + length {
            break (head, bytes.split_off(end + 4));
        }
    };
    let is_known = if head.starts_with("post /v1/traces ") {
        let request = ExportTraceServiceRequest::decode(body.as_slice()).expect("spans as protobuf");
        taken.lock().expect("no panic").spans.extend(spans(request));
        true
    } else if head.starts_with("post /v1/metrics ") {
        let request = ExportMetricsServiceRequest::decode(body.as_slice()).expect("metrics as protobuf");
        let scopes = request.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
        let names = scopes.flat_map(|scope| scope.metrics).map(|metric| metric.name);
        taken.lock().expect("no panic").metrics.extend(names);
        true
    } else {
        false
    };
    taken.lock().expect("no panic").bodies.push(body);
    let status = if is_known { "200 OK" } else { "404 Not Found" };
    let answer = format!("HTTP/1.1 {status}\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).await.ok()
}

fn spans(request: ExportTraceServiceRequest) -> Vec<Span> {
    let mut found = Vec::new();
    for resource in request.resource_spans {
        let attributes = resource.resource.map(|resource| texts(resource.attributes)).unwrap_or_default();
        let service = attributes.get("service.name").cloned().unwrap_or_default();
        found.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans).map(|span| Span {
            service: service.clone(),
            name: span.name,
            trace: span.trace_id,
            id: span.span_id,
            parent: span.parent_span_id,
            attributes: texts(span.attributes),
        }));
    }
    found
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    attributes.into_iter().map(|attribute| (attribute.key, attribute.value.map(text).unwrap_or_default())).collect()
}

fn text(value: AnyValue) -> String {
    match value.value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(is_true)) => is_true.to_string(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}
