//! What a tool is: a name, what it takes and answers as schemas, and a function.

use std::any::Any;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::Error;
use rmcp::handler::server::tool::{schema_for_input, schema_for_output};
use rmcp::model::ToolAnnotations;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::errors::ApiResult;
use crate::extract::read;
use crate::state::AppState;

type Call = Box<dyn Fn(AppState, Value) -> BoxFuture<'static, ApiResult<Value>> + Send + Sync>;

/// A tool.
pub(super) struct Tool {
    /// What clients are told of it.
    pub(super) described: rmcp::model::Tool,
    call: Call,
}

impl Tool {
    /// A tool that reads. `Takes` and `Answers` are objects; their doc comments are what a model reads of them.
    pub(super) fn new<Takes, Answers, Run>(
        name: &'static str,
        title: &'static str,
        description: &'static str,
        run: fn(AppState, Takes) -> Run,
    ) -> Self
    where
        Takes: DeserializeOwned + JsonSchema + Any + Send,
        Answers: Serialize + JsonSchema + Any,
        Run: Future<Output = ApiResult<Answers>> + Send + 'static,
    {
        // A type that is no object has no schema here; a test looks at all of them.
        let takes = schema_for_input::<Takes>().unwrap_or_default();
        let annotations = ToolAnnotations::with_title(title).read_only(true).destructive(false).idempotent(true);
        let described = rmcp::model::Tool::new(name, description, takes)
            .with_title(title)
            .with_raw_output_schema(schema_for_output::<Answers>())
            .with_annotations(annotations);
        let call = move |state: AppState, arguments: Value| {
            let running = read(arguments).map(|takes| run(state, takes));
            async move {
                let answer = running?.await?;
                serde_json::to_value(answer).map_err(|error| Error::internal("an answer has no JSON form").because(error).into())
            }
            .boxed()
        };
        Self { described, call: Box::new(call) }
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.described.name
    }

    /// Calls it. Dropping the future ends what it has begun.
    pub(super) fn call(&self, state: AppState, arguments: Value) -> BoxFuture<'static, ApiResult<Value>> {
        (self.call)(state, arguments)
    }
}
