//! One definition per endpoint: what serves it and what the OpenAPI document says of it cannot exist without each other.

use std::collections::BTreeSet;

use axum::Router;
use axum::extract::Request;
use axum::middleware::Next;
use axum::routing::MethodRouter;
use millrace_core::entitlement::StreamOperation;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::audit;
use crate::errors::{Code, ErrorBody};
use crate::guard;
use crate::idempotency;
use crate::policy;
use crate::state::{AppState, IdeAuth};

/// The path under which everything stands.
pub(crate) const BASE: &str = "/api/v1";

/// Who may call an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody who reaches the server.
    Open,
    /// As `auth.ide` says; open on a loopback address.
    Tolerant,
    /// Key, install id and entitlement for this operation.
    Strict(StreamOperation),
}

/// What a call does to the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing.
    Reads,
    /// It changes databases, files, connections, configs or runs: refused in read-only mode, and in the audit log.
    Writes,
    /// It runs statements of users, which write what they like: where the engine refuses writes in read-only mode, and in the audit log.
    Runs,
    /// It changes who is logged in, or ends the process: not refused in read-only mode, and in the audit log.
    Operates,
}

impl Effect {
    /// The word in the document.
    fn as_str(self) -> &'static str {
        match self {
            Self::Reads => "reads",
            Self::Writes => "writes",
            Self::Runs => "runs",
            Self::Operates => "operates",
        }
    }
}

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What the document says of one endpoint.
pub(crate) struct Operation {
    method: &'static str,
    path: &'static str,
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    access: Access,
    query: &'static [(&'static str, &'static str, &'static str)],
    request: Option<SchemaOf>,
    request_media: &'static str,
    example: Option<Value>,
    response: (u16, &'static str, Option<SchemaOf>),
    errors: Vec<Code>,
    confirms: bool,
    once: bool,
    effect: Option<Effect>,
    streams: bool,
}

impl Operation {
    /// An endpoint by its method, path and id; tolerant, without parameters, answering 200 without a body.
    pub(crate) fn new(method: &'static str, path: &'static str, id: &'static str, tag: &'static str, summary: &'static str) -> Self {
        Self {
            method,
            path,
            id,
            tag,
            summary,
            access: Access::Tolerant,
            query: &[],
            request: None,
            request_media: "application/json",
            example: None,
            response: (200, "application/json", None),
            errors: Vec::new(),
            confirms: false,
            once: false,
            effect: None,
            streams: false,
        }
    }

    /// What it does to the world; whatever is no GET has to say it.
    pub(crate) fn effect(mut self, effect: Effect) -> Self {
        self.effect = Some(effect);
        match effect {
            Effect::Writes | Effect::Runs => self.fails(&[Code::ReadOnly]),
            Effect::Reads | Effect::Operates => self,
        }
    }

    /// It changes something of what is kept.
    pub(crate) fn writes(self) -> Self {
        self.effect(Effect::Writes)
    }

    /// It changes nothing, although it is no GET.
    pub(crate) fn reads(self) -> Self {
        self.effect(Effect::Reads)
    }

    /// What it was declared to do; what was not declared is taken for the worst.
    fn known_effect(&self) -> Effect {
        self.effect.unwrap_or(if self.method == "get" { Effect::Reads } else { Effect::Writes })
    }

    /// Who may call it.
    pub(crate) fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Its query parameters: name, JSON type, meaning.
    pub(crate) fn query(mut self, query: &'static [(&'static str, &'static str, &'static str)]) -> Self {
        self.query = query;
        self
    }

    /// Its request body.
    pub(crate) fn takes<T: JsonSchema>(mut self) -> Self {
        self.request = Some(|generator| generator.subschema_for::<T>());
        self
    }

    /// Its request body is plain text.
    pub(crate) fn takes_text(mut self) -> Self {
        self.request = Some(|_| schemars::json_schema!({"type": "string"}));
        self.request_media = "text/plain";
        self
    }

    /// An example of its request body.
    pub(crate) fn example(mut self, example: Value) -> Self {
        self.example = Some(example);
        self
    }

    /// Its response body.
    pub(crate) fn answers<T: JsonSchema>(mut self, status: u16) -> Self {
        self.response = (status, "application/json", Some(|generator| generator.subschema_for::<T>()));
        self
    }

    /// Its response is a text of this media type.
    pub(crate) fn answers_text(mut self, media: &'static str) -> Self {
        self.response = (200, media, Some(|_| schemars::json_schema!({"type": "string"})));
        self
    }

    /// Its response is a stream of events.
    pub(crate) fn streams(mut self) -> Self {
        self.response = (200, "text/event-stream", Some(|_| schemars::json_schema!({"type": "string"})));
        self.streams = true;
        self
    }

    /// Codes that it can answer beside those that every endpoint can.
    pub(crate) fn fails(mut self, errors: &[Code]) -> Self {
        self.errors.extend(errors.iter().filter(|code| !self.errors.contains(code)).copied().collect::<Vec<_>>());
        self
    }

    /// It takes an `Idempotency-Key`.
    pub(crate) fn once(mut self) -> Self {
        self.once = true;
        self.fails(&[Code::ValidationFailed, Code::IdempotencyConflict, Code::NotSupported, Code::BodyTooLarge])
    }

    /// It needs `X-Confirm-Delete: true`.
    pub(crate) fn confirms(mut self) -> Self {
        self.confirms = true;
        self
    }
}

/// Endpoints with their handlers.
#[derive(Default)]
pub(crate) struct Routes(Vec<(Operation, MethodRouter<AppState>)>);

impl Routes {
    /// Adds an endpoint.
    pub(crate) fn add(mut self, operation: Operation, handler: MethodRouter<AppState>) -> Self {
        self.0.push((operation, handler));
        self
    }

    /// Adds another group.
    pub(crate) fn join(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The router of all endpoints.
    pub(crate) fn router(self, state: &AppState) -> Router<AppState> {
        self.0.into_iter().fold(Router::new(), |router, (operation, handler)| {
            let handler = if operation.once {
                handler.layer(axum::middleware::from_fn_with_state(state.clone(), idempotency::once))
            } else {
                handler
            };
            let effect = operation.known_effect();
            // Statements have their own limit, and their results are on their way for as long as somebody reads them.
            let streams = operation.streams || effect == Effect::Runs;
            let handler = handler.layer(axum::middleware::from_fn_with_state((state.clone(), streams), policy::in_time));
            let handler = match effect {
                Effect::Writes => handler.layer(axum::middleware::from_fn_with_state(state.clone(), guard::unless_read_only)),
                _ => handler,
            };
            let is_open = state.auth == IdeAuth::Open;
            let (id, path) = (operation.id, operation.path);
            let handler = match operation.access {
                Access::Strict(operation) => handler.layer(axum::middleware::from_fn_with_state((state.clone(), operation), guard::strict)),
                Access::Tolerant => handler.layer(axum::middleware::from_fn_with_state(state.clone(), guard::tolerant)),
                Access::Open => handler,
            };
            let handler = match effect {
                Effect::Reads => handler,
                _ => handler
                    .layer(axum::middleware::from_fn(move |request: Request, next: Next| audit::keep((id, path, is_open), request, next))),
            };
            router.route(&format!("{BASE}{}", operation.path), handler)
        })
    }

    /// Method and path of every endpoint.
    pub(crate) fn paths(&self) -> BTreeSet<(&'static str, &'static str)> {
        self.0.iter().map(|(operation, _)| (operation.method, operation.path)).collect()
    }

    /// The OpenAPI 3.0 document of all endpoints.
    pub(crate) fn document(&self, version: &str) -> Value {
        let mut generator = SchemaSettings::openapi3().into_generator();
        let mut paths = Map::new();
        for (operation, _) in &self.0 {
            let item = paths.entry(operation.path).or_insert_with(|| json!({}));
            item[operation.method] = describe(operation, &mut generator);
        }
        let error = generator.subschema_for::<ErrorBody>();
        let schemas = generator.take_definitions(true);
        let tags: BTreeSet<&str> = self.0.iter().map(|(operation, _)| operation.tag).collect();
        let mut document = json!({
            "openapi": "3.0.3",
            "info": {
                "title": "Millrace",
                "version": version,
                "description": "Moves data between databases, exactly, and queries across them.",
                "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}
            },
            "servers": [{"url": BASE}],
            "tags": tags.iter().map(|tag| json!({"name": tag})).collect::<Vec<_>>(),
            "paths": paths,
            "components": {
                "schemas": schemas,
                "responses": {"Error": {
                    "description": "An error; `code` says which",
                    "content": {"application/json": {"schema": error}}
                }},
                "securitySchemes": {
                    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                    "installId": {"type": "apiKey", "in": "header", "name": "X-Install-ID"},
                    "session": {"type": "apiKey", "in": "cookie", "name": crate::session::COOKIE_NAME}
                }
            }
        });
        clean(&mut document);
        document
    }
}

fn describe(operation: &Operation, generator: &mut SchemaGenerator) -> Value {
    let mut parameters: Vec<Value> = operation
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    for (name, kind, meaning) in operation.query {
        parameters.push(json!({"name": name, "in": "query", "description": meaning, "schema": {"type": kind}}));
    }
    if operation.confirms {
        parameters.push(json!({"name": "X-Confirm-Delete", "in": "header", "required": true, "description": "must be `true`", "schema": {"type": "string"}}));
    }
    if operation.once {
        let meaning = "sent again with the same request within 24 hours, the answer is the same and nothing happens twice; not for servers of a cluster";
        parameters.push(json!({"name": idempotency::HEADER, "in": "header", "description": meaning,
            "schema": {"type": "string", "minLength": 1, "maxLength": 255}}));
    }
    let (status, media, schema) = operation.response;
    let mut success = json!({"description": "success"});
    if let Some(schema) = schema {
        success["content"] = json!({media: {"schema": schema(generator)}});
    }
    let mut responses = Map::new();
    responses.insert(status.to_string(), success);
    let always = [Code::ForbiddenOrigin, Code::Internal];
    let strict = [
        Code::AuthenticationFailed,
        Code::RateLimited,
        Code::PaymentRequired,
        Code::SeatLimitReached,
        Code::DeviceDeactivated,
        Code::EntitlementUnavailable,
    ];
    let tolerant = [Code::AuthenticationFailed, Code::RateLimited, Code::EntitlementUnavailable];
    let strict: &[Code] = match operation.access {
        Access::Strict(_) => &strict,
        Access::Tolerant => &tolerant,
        Access::Open => &[],
    };
    for code in always.iter().chain(strict).chain(&operation.errors) {
        responses.insert(code.status().to_string(), json!({"$ref": "#/components/responses/Error"}));
    }
    let mut codes: Vec<&str> = strict.iter().chain(&operation.errors).map(|code| code.as_str()).collect();
    codes.dedup();
    let mut described = json!({
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "x-effect": operation.known_effect().as_str(),
        "parameters": parameters,
        "responses": responses,
    });
    if !codes.is_empty() {
        described["description"] = format!("Error codes: {}.", codes.join(", ")).into();
    }
    if let Some(request) = operation.request {
        let mut content = json!({"schema": request(generator)});
        if let Some(example) = &operation.example {
            content["example"] = example.clone();
        }
        described["requestBody"] = json!({"required": true, "content": {operation.request_media: content}});
    }
    described["security"] = match operation.access {
        Access::Open => json!([]),
        Access::Tolerant => json!([{}, {"apiKey": []}, {"apiKey": [], "installId": []}, {"session": []}]),
        Access::Strict(_) => json!([{"apiKey": [], "installId": []}]),
    };
    described
}

/// What schemars writes that OpenAPI 3.0 does not know: `const`, and `true` for a schema that admits anything.
fn clean(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(constant) = fields.remove("const") {
                fields.insert("enum".to_owned(), json!([constant]));
            }
            fields.remove("$schema");
            for (name, field) in fields.iter_mut() {
                if let ("properties", Some(properties)) = (name.as_str(), field.as_object_mut()) {
                    properties.values_mut().for_each(admit_anything);
                } else if matches!(name.as_str(), "schema" | "items") {
                    admit_anything(field);
                }
                clean(field);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(clean),
        _ => {}
    }
}

fn admit_anything(schema: &mut Value) {
    if *schema == Value::Bool(true) {
        *schema = json!({});
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn whatever_is_no_get_says_what_it_does() {
        let routes = crate::routes::all();
        let silent: Vec<&str> = routes
            .0
            .iter()
            .map(|(operation, _)| operation)
            .filter(|operation| operation.method != "get" && operation.effect.is_none())
            .map(|operation| operation.id)
            .collect();
        assert!(silent.is_empty(), "these routes do not declare `writes`, `reads` or another effect: {silent:?}");
    }
}
