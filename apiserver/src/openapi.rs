//! The OpenAPI 3.0 document of all endpoints.

use std::collections::{BTreeMap, BTreeSet};

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::errors::{Code, ErrorBody};
use crate::examples;
use crate::idempotency;
use crate::route::{Access, BASE, Operation, Routes};

const DESCRIPTION: &str = "Moves data between databases, exactly, and queries across them.\n\nWithout a note of its own an endpoint is open to programs on the \
    server's own machine, or asks for a key where the server says so (`auth.ide`). Errors have one form, `ErrorBody`, whose `code` is stable. Path segments are \
    percent-encoded. Numbers that a double cannot carry exactly are JSON strings.";

/// Tags in the order of the document, with what stands under them.
const TAGS: &[(&str, &str)] = &[
    ("connections", "Databases, folders and object stores that the server knows, with their secrets, which are never shown"),
    ("structure", "What a connection contains: databases, schemas, tables, views, and the statements that make them"),
    ("data", "Rows of tables and views: pages, counts, statistics, changes"),
    ("sql", "Statements at one connection"),
    ("query", "Statements across connections"),
    ("files", "CSV, JSON, JSONL and Parquet files"),
    ("objects", "S3 and stores that speak like it: sessions, buckets, listings, manifests"),
    ("filesystem", "Folders of the server"),
    ("stream configs", "Definitions of what is moved from where to where"),
    ("streams", "Runs of stream configs: starting, watching, pausing, ending, and their history"),
    ("logs", "What happens, live"),
    ("account", "Keys and sessions"),
    ("system", "The server itself"),
];

/// Parameters of paths: name, meaning, example.
const PATH_PARAMETERS: &[(&str, &str, &str)] = &[
    ("id", "the id of what the path names", ""),
    ("configId", "a stream config's id", examples::CONFIG),
    ("runId", "a run's id, from the history", examples::RUN),
    ("db", "a database", examples::DATABASE),
    ("table", "a table, without its schema", "customers"),
    ("view", "a view, without its schema", "customer_names"),
];

/// Codes that every endpoint can answer.
const ALWAYS: &[Code] = &[Code::ForbiddenOrigin, Code::Internal];
const TOLERANT: &[Code] = &[Code::AuthenticationFailed, Code::RateLimited, Code::EntitlementUnavailable];
const STRICT: &[Code] = &[
    Code::AuthenticationFailed,
    Code::RateLimited,
    Code::PaymentRequired,
    Code::SeatLimitReached,
    Code::DeviceDeactivated,
    Code::EntitlementUnavailable,
];

impl Routes {
    /// The OpenAPI 3.0 document of all endpoints.
    pub(crate) fn document(&self, version: &str) -> Value {
        let mut generator = SchemaSettings::openapi3().into_generator();
        let mut paths = Map::new();
        let mut statuses: BTreeMap<u16, BTreeSet<&'static str>> = BTreeMap::new();
        for operation in self.operations() {
            for code in codes(operation) {
                statuses.entry(code.status()).or_default().insert(code.as_str());
            }
            let item = paths.entry(operation.path).or_insert_with(|| json!({}));
            item[operation.method] = describe(operation, &mut generator);
        }
        let error = generator.subschema_for::<ErrorBody>();
        let responses: Map<String, Value> =
            statuses.iter().map(|(status, codes)| (response_name(*status), error_response(*status, codes, error.as_value()))).collect();
        let schemas = generator.take_definitions(true);
        let used: BTreeSet<&str> = self.operations().map(|operation| operation.tag).collect();
        let known: Vec<&str> = TAGS.iter().map(|(name, _)| *name).collect();
        let mut tags: Vec<Value> = TAGS
            .iter()
            .filter(|(name, _)| used.contains(name))
            .map(|(name, meaning)| json!({"name": name, "description": meaning}))
            .collect();
        tags.extend(used.iter().filter(|name| !known.contains(name)).map(|name| json!({"name": name})));
        let mut document = json!({
            "openapi": "3.0.3",
            "info": {
                "title": "Millrace",
                "version": version,
                "description": DESCRIPTION,
                "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}
            },
            "servers": [{"url": BASE}],
            "tags": tags,
            "paths": paths,
            "components": {
                "schemas": schemas,
                "responses": responses,
                "headers": {"RequestId": {
                    "description": "the request's id: the client's own, or one that the server made; logs name it",
                    "schema": {"type": "string"}
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

/// All codes that an endpoint can answer.
fn codes(operation: &Operation) -> Vec<Code> {
    let access = match operation.access {
        Access::Strict(_) => STRICT,
        Access::Tolerant => TOLERANT,
        Access::Open => &[],
    };
    let mut codes: Vec<Code> = Vec::new();
    let unread: &[Code] = if operation.query.iter().all(crate::param::Param::is_text) { &[] } else { &[Code::ValidationFailed] };
    for code in ALWAYS.iter().chain(access).chain(unread).chain(&operation.errors) {
        if !codes.contains(code) {
            codes.push(*code);
        }
    }
    codes
}

fn response_name(status: u16) -> String {
    format!("Error{status}")
}

fn error_response(status: u16, codes: &BTreeSet<&str>, error: &Value) -> Value {
    let codes: Vec<String> = codes.iter().map(|code| format!("`{code}`")).collect();
    let reason = axum::http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Error");
    json!({
        "description": format!("{reason}; `code` is one of {}", codes.join(", ")),
        "headers": {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}},
        "content": {"application/json": {"schema": error}}
    })
}

fn describe(operation: &Operation, generator: &mut SchemaGenerator) -> Value {
    let (status, media, schema) = operation.response;
    let mut headers = Map::new();
    headers.insert("X-Request-ID".to_owned(), json!({"$ref": "#/components/headers/RequestId"}));
    for (name, meaning) in &operation.headers {
        headers.insert((*name).to_owned(), json!({"description": meaning, "schema": {"type": "string"}}));
    }
    let mut success = json!({"description": "success", "headers": headers});
    if let Some(schema) = schema {
        success["content"] = json!({media: {"schema": schema(generator)}});
    }
    let mut responses = Map::new();
    responses.insert(status.to_string(), success);
    let codes = codes(operation);
    for code in &codes {
        responses.insert(code.status().to_string(), json!({"$ref": format!("#/components/responses/{}", response_name(code.status()))}));
    }
    let mut described = json!({
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.newer.map_or(operation.summary.to_owned(), |newer| format!("Older name of `{newer}`")),
        "x-effect": operation.known_effect().as_str(),
        "parameters": parameters(operation),
        "responses": responses,
    });
    let codes: Vec<&str> = codes.iter().filter(|code| !ALWAYS.contains(code)).map(|code| code.as_str()).collect();
    if !codes.is_empty() {
        described["description"] = format!("Error codes: {}.", codes.join(", ")).into();
    }
    if operation.newer.is_some() {
        described["deprecated"] = true.into();
    }
    if let Some(request) = operation.request {
        let schema = request(generator);
        // What may be left out may be `null` as well.
        let mut content =
            if operation.needs_body { json!({"schema": schema}) } else { json!({"schema": {"allOf": [schema], "nullable": true}}) };
        if let Some(example) = &operation.example {
            content["example"] = example.clone();
        }
        described["requestBody"] = json!({"required": operation.needs_body, "content": {operation.request_media: content}});
    }
    described["security"] = match operation.access {
        Access::Open => json!([]),
        Access::Tolerant => json!([{}, {"apiKey": []}, {"apiKey": [], "installId": []}, {"session": []}]),
        Access::Strict(_) => json!([{"apiKey": [], "installId": []}]),
    };
    described
}

fn parameters(operation: &Operation) -> Vec<Value> {
    let names = operation.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = names.map(|name| path_parameter(operation.path, name)).collect();
    parameters.extend(operation.query.iter().map(crate::param::Param::describe));
    if operation.confirms {
        parameters.push(json!({"name": "X-Confirm-Delete", "in": "header", "required": true, "description": "must be `true`",
            "schema": {"type": "string", "enum": ["true"]}}));
    }
    if operation.once {
        let meaning = "sent again with the same request within 24 hours, the answer is the same and nothing happens twice";
        parameters.push(json!({"name": idempotency::HEADER, "in": "header", "description": meaning,
            "schema": {"type": "string", "minLength": 1, "maxLength": 255}}));
    }
    if operation.matches {
        parameters.push(json!({"name": "If-Match", "in": "header", "description": "the `ETag` of what is to be changed; anything else is refused with 412",
            "schema": {"type": "string"}}));
    }
    parameters
}

fn path_parameter(path: &str, name: &str) -> Value {
    let known = PATH_PARAMETERS.iter().find(|(known, ..)| *known == name);
    let (meaning, example) = match known {
        // MySQL has no schemas inside of databases.
        Some(("id", ..)) if path.ends_with("/schemas") => ("a connection's id", examples::TARGET),
        Some(("db", meaning, _)) if path.ends_with("/schemas") => (*meaning, "warehouse"),
        // What `{id}` is the id of stands before it.
        Some(("id", ..)) if path.starts_with("/connections/") => ("a connection's id", examples::CONNECTION),
        Some(("id", ..)) if path.starts_with("/stream-configs/") || path == "/streams/{id}/start" => {
            ("a stream config's id", examples::CONFIG)
        }
        Some(("id", ..)) if path.starts_with("/streams/") => ("a stream's id", examples::STREAM),
        Some((_, meaning, example)) => (*meaning, *example),
        None => ("", ""),
    };
    let mut parameter = json!({"name": name, "in": "path", "required": true, "description": meaning, "schema": {"type": "string"}});
    if !example.is_empty() {
        parameter["example"] = example.into();
    }
    parameter
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
