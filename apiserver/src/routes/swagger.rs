//! A page on which people read the document and try the calls.

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use swagger_ui_dist::{ApiDefinition, OpenApiSource};

use crate::errors::{ApiError, Code};
use crate::route::{BASE, Operation, Routes};
use crate::state::AppState;

/// Where the page's scripts and styles lie.
const ASSETS: &str = "/api/v1/swagger/assets";

const PAGE: &str = r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Millrace API</title>
<link rel="stylesheet" href="/api/v1/swagger/assets/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/api/v1/swagger/assets/swagger-ui-bundle.js"></script>
<script src="/api/v1/swagger/begin.js"></script>
</body>
</html>
"#;

const BEGIN: &str = "window.ui = SwaggerUIBundle({url: '/api/v1/openapi.json', dom_id: '#swagger-ui', deepLinking: true});\n";

/// Scripts come from this server alone; the page writes styles by itself and draws its pictures from data.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'",
);

pub(super) fn routes() -> Routes {
    let operation = Operation::new("get", "/swagger", "swagger", "system", "A page to read this document and to try the calls")
        .answers_text("text/html");
    Routes::default().add(operation, get(page))
}

/// What the page loads.
pub(crate) fn assets() -> Router<AppState> {
    let dist =
        ApiDefinition { uri_prefix: ASSETS, api_definition: OpenApiSource::Uri("/api/v1/openapi.json"), title: Some("Millrace API") };
    let files = swagger_ui_dist::generate_routes(dist).layer(middleware::from_fn(only_files)).with_state::<AppState>(());
    files.route(&format!("{BASE}/swagger/begin.js"), get(begin))
}

/// The package's own page is not served: it writes the request's address into itself.
async fn only_files(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path.ends_with(".js") || path.ends_with(".css") {
        return next.run(request).await;
    }
    ApiError::new(Code::RouteNotFound, "there is no such path").into_response()
}

async fn page() -> impl IntoResponse {
    ([(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")), (CONTENT_SECURITY_POLICY, POLICY)], PAGE)
}

async fn begin() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/javascript; charset=utf-8")], BEGIN)
}
