//! One definition per endpoint: what serves it and what the OpenAPI document says of it cannot exist without each other.

use std::collections::BTreeSet;

use axum::Router;
use axum::extract::Request;
use axum::middleware::Next;
use axum::routing::MethodRouter;
use millrace_core::entitlement::StreamOperation;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use crate::audit;
use crate::errors::Code;
use crate::guard;
use crate::idempotency;
use crate::param::Param;
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

pub(crate) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// A response header: name and meaning.
pub(crate) type Header = (&'static str, &'static str);
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
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Reads => "reads",
            Self::Writes => "writes",
            Self::Runs => "runs",
            Self::Operates => "operates",
        }
    }
}

/// What the document says of one endpoint.
#[derive(Clone)]
pub(crate) struct Operation {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) id: &'static str,
    pub(crate) tag: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) access: Access,
    pub(crate) query: Vec<Param>,
    pub(crate) request: Option<SchemaOf>,
    pub(crate) request_media: &'static str,
    pub(crate) needs_body: bool,
    pub(crate) example: Option<Value>,
    pub(crate) response: (u16, &'static str, Option<SchemaOf>),
    pub(crate) headers: Vec<Header>,
    pub(crate) errors: Vec<Code>,
    pub(crate) confirms: bool,
    pub(crate) once: bool,
    pub(crate) matches: bool,
    /// The id of the operation whose older name this is.
    pub(crate) newer: Option<&'static str>,
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
            query: Vec::new(),
            request: None,
            request_media: "application/json",
            needs_body: true,
            example: None,
            response: (200, "application/json", None),
            headers: Vec::new(),
            errors: Vec::new(),
            confirms: false,
            once: false,
            matches: false,
            newer: None,
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
    pub(crate) fn known_effect(&self) -> Effect {
        self.effect.unwrap_or(if self.method == "get" { Effect::Reads } else { Effect::Writes })
    }

    /// Who may call it.
    pub(crate) fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Its query parameters.
    pub(crate) fn query(mut self, query: &[Param]) -> Self {
        self.query.extend_from_slice(query);
        self
    }

    /// Its request body.
    pub(crate) fn takes<T: JsonSchema>(mut self) -> Self {
        self.request = Some(|generator| generator.subschema_for::<T>());
        self
    }

    /// Its request body may be left out.
    pub(crate) fn may_be_empty(mut self) -> Self {
        self.needs_body = false;
        self
    }

    /// Its request body is plain text.
    pub(crate) fn takes_text(mut self) -> Self {
        self.request = Some(|_| schemars::json_schema!({"type": "string", "minLength": 1}));
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

    /// Its response body, of one form or the other.
    pub(crate) fn answers_either<T: JsonSchema, U: JsonSchema>(mut self) -> Self {
        let either = |generator: &mut SchemaGenerator| {
            let forms = [generator.subschema_for::<T>(), generator.subschema_for::<U>()];
            schemars::json_schema!({"anyOf": forms})
        };
        self.response = (200, "application/json", Some(either));
        self
    }

    /// Its response is a text of this media type.
    pub(crate) fn answers_text(mut self, media: &'static str) -> Self {
        self.response = (200, media, Some(|_| schemars::json_schema!({"type": "string"})));
        self
    }

    /// Its response is a document in YAML.
    pub(crate) fn answers_yaml(mut self) -> Self {
        self.response = (200, "application/yaml", Some(|_| schemars::json_schema!({})));
        self
    }

    /// Its response is a stream of events.
    pub(crate) fn streams(mut self) -> Self {
        self.streams = true;
        self.answers_text("text/event-stream")
    }

    /// Its response says more in a header.
    pub(crate) fn header(mut self, name: &'static str, meaning: &'static str) -> Self {
        self.headers.push((name, meaning));
        self
    }

    /// Its response says whether it was remembered.
    pub(crate) fn remembered(self) -> Self {
        self.header("X-Cache", "`HIT`: the answer was remembered; `MISS`: the database was asked")
    }

    /// Codes that it can answer beside those that every endpoint can.
    pub(crate) fn fails(mut self, errors: &[Code]) -> Self {
        self.errors.extend(errors.iter().filter(|code| !self.errors.contains(code)).copied().collect::<Vec<_>>());
        self
    }

    /// It takes an `Idempotency-Key`.
    pub(crate) fn once(mut self) -> Self {
        self.once = true;
        self.header("Idempotency-Replayed", "`true`: an earlier request with the same key was answered, and nothing happened again")
            .fails(&[Code::ValidationFailed, Code::IdempotencyConflict, Code::Unavailable, Code::BodyTooLarge])
    }

    /// It takes `If-Match` with an etag.
    pub(crate) fn matches(mut self) -> Self {
        self.matches = true;
        self
    }

    /// It is an older form of this operation.
    pub(crate) fn older_than(mut self, id: &'static str) -> Self {
        self.newer = Some(id);
        self
    }

    /// It needs `X-Confirm-Delete: true`.
    pub(crate) fn confirms(mut self) -> Self {
        self.confirms = true;
        self.fails(&[Code::ConfirmationRequired])
    }

    /// The same endpoint under a name of its own.
    fn renamed(&self, path: &'static str, id: &'static str) -> Self {
        let mut older = Self { path, id, newer: Some(self.id), ..self.clone() };
        let has = |path: &str, name: &str| path.split('/').any(|part| part == name);
        if has(self.path, "{db}") && !has(path, "{db}") {
            older.query.push(Param::text("database", "the database; the connection's default if absent"));
        }
        older
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

    /// Adds older names of endpoints: path, id, and the id of the endpoint that it means, whose method and handler are used. An id that does not exist
    /// adds nothing.
    pub(crate) fn also(mut self, names: &[(&'static str, &'static str, &'static str)]) -> Self {
        for (path, id, of) in names {
            let found = self.0.iter().find(|(operation, _)| operation.id == *of);
            let older = found.map(|(operation, handler)| (operation.renamed(path, id), handler.clone()));
            debug_assert!(older.is_some(), "no operation is called `{of}`");
            self.0.extend(older);
        }
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

    /// What the document says of each endpoint.
    pub(crate) fn operations(&self) -> impl Iterator<Item = &Operation> {
        self.0.iter().map(|(operation, _)| operation)
    }

    /// Method and path of every endpoint.
    pub(crate) fn paths(&self) -> BTreeSet<(&'static str, &'static str)> {
        self.operations().map(|operation| (operation.method, operation.path)).collect()
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
