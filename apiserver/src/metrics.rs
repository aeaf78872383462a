//! What the API says of itself: a span and a duration per request, by the route's template, never by its path or query.

use std::sync::OnceLock;
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use millrace_service::metrics::{SHORT, meter};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram, UpDownCounter};
use tracing::Instrument as _;

/// The metrics of this module in Prometheus' text.
pub const NAMES: [&str; 2] = ["http_server_request_duration_seconds", "http_server_active_requests"];

struct Instruments {
    duration: Histogram<f64>,
    active: UpDownCounter<i64>,
}

fn instruments() -> &'static Instruments {
    static INSTRUMENTS: OnceLock<Instruments> = OnceLock::new();
    INSTRUMENTS.get_or_init(|| {
        let meter = meter("millrace.apiserver");
        Instruments {
            duration: meter
                .f64_histogram("http.server.request.duration")
                .with_unit("s")
                .with_description("Requests until their response begins")
                .with_boundaries(SHORT.to_vec())
                .build(),
            active: meter
                .i64_up_down_counter("http.server.active_requests")
                .with_unit("{request}")
                .with_description("Requests whose response has not begun")
                .build(),
        }
    })
}

/// A request under way; counted out also when its client goes away.
struct Active(KeyValue);

impl Active {
    fn new(method: &'static str) -> Self {
        let method = KeyValue::new("http.request.method", method);
        instruments().active.add(1, std::slice::from_ref(&method));
        Self(method)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        instruments().active.add(-1, std::slice::from_ref(&self.0));
    }
}

/// Measures a request, as part of the trace that its client began.
pub(crate) async fn measure(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = known(request.method());
    // Paths that match nothing are without bound, so they share the absence of a route.
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let name = route.as_ref().map_or_else(|| method.to_owned(), |route| format!("{method} {route}"));
    let span = tracing::info_span!(
        "request",
        otel.name = name,
        otel.kind = "server",
        http.request.method = method,
        http.route = route.as_deref(),
        http.response.status_code = tracing::field::Empty,
        otel.status_code = tracing::field::Empty,
    );
    let sent = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
    millrace_service::continue_trace(&span, sent);
    let _active = Active::new(method);
    let response = next.run(request).instrument(span.clone()).await;
    let status = response.status();
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    let mut attributes =
        vec![KeyValue::new("http.request.method", method), KeyValue::new("http.response.status_code", i64::from(status.as_u16()))];
    attributes.extend(route.map(|route| KeyValue::new("http.route", route)));
    instruments().duration.record(started.elapsed().as_secs_f64(), &attributes);
    response
}

/// Anybody can send any word as a method.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "_OTHER",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn requests_are_measured_by_template_and_status() {
        millrace_service::metrics::install_local();
        let router = Router::new().route("/things/{id}", get(|| async { "a thing" })).layer(axum::middleware::from_fn(measure));
        for path in ["/things/S3cret", "/nowhere/S3cret?key=S3cret"] {
            router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        }
        let text = millrace_service::metrics::text();
        let count = |labels: &str| text.contains(&format!("http_server_request_duration_seconds_count{{{labels}}} 1\n"));
        assert!(count(r#"http_request_method="GET",http_response_status_code="200",http_route="/things/{id}""#), "{text}");
        assert!(count(r#"http_request_method="GET",http_response_status_code="404""#), "{text}");
        assert!(text.contains("http_server_active_requests{http_request_method=\"GET\"} 0\n"), "{text}");
        assert!(!text.contains("S3cret"), "{text}");
        let names = millrace_service::metrics::names(&text);
        assert!(NAMES.iter().all(|name| names.contains(name)), "{names:?}");
    }
}
