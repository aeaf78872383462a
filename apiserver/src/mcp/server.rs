//! The protocol's side: what the server says of itself, and how tools are found and called.

use std::sync::Arc;
use std::time::Duration;

use rmcp::ErrorData;
use rmcp::handler::server::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, Implementation, ListToolsResult, PaginatedRequestParams, ServerCapabilities,
    ServerConfig,
};
use rmcp::service::{RequestContext, RoleServer};
use serde_json::{Value, json};
use tracing::Instrument as _;

use super::tool::Tool;
use super::{catalog, compare, connections, files, rows, s3, select, streams};
use crate::errors::{ApiError, Code};
use crate::state::AppState;

/// No tool takes longer, whatever its own bounds are.
const DEADLINE: Duration = Duration::from_secs(180);
const INSTRUCTIONS: &str = "Millrace moves data between databases and looks into them. All tools only read. Begin with \
    `dbconvert_list_connections`; ids from it are the `connectionId` of other tools. Statements are one SELECT or WITH … SELECT in the dialect of the connection's \
    engine; federated ones are in DuckDB's dialect and name tables as `alias.schema.table` (PostgreSQL) or `alias.database.table` (MySQL). Lists and samples are \
    cut: `truncated` says so. A failed tool answers `{error, code, category, details}`; `details.field` names the argument concerned.";

/// The server; cheap to clone.
#[derive(Clone)]
pub(super) struct Server {
    state: AppState,
    tools: Arc<[Tool]>,
}

impl Server {
    /// The server of all tools that this installation has.
    pub(super) fn new(state: &AppState) -> Self {
        let mut tools = Vec::new();
        tools.extend(connections::tools());
        tools.extend(catalog::tools());
        tools.extend(rows::tools());
        tools.extend(select::tools());
        tools.extend(compare::tools());
        tools.extend(streams::tools());
        tools.extend(files::tools());
        tools.extend(s3::tools());
        if !state.is_cluster {
            tools.push(connections::data_sources());
        }
        Self { state: state.clone(), tools: tools.into() }
    }

    fn tool(&self, name: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.name() == name)
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("millrace", env!("CARGO_PKG_VERSION")).with_title("Millrace"))
            .with_instructions(INSTRUCTIONS)
    }

    fn get_tool(&self, name: &str) -> Option<rmcp::model::Tool> {
        self.tool(name).map(|tool| tool.described.clone())
    }

    async fn list_tools(&self, _: Option<PaginatedRequestParams>, _: RequestContext<RoleServer>) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.tools.iter().map(|tool| tool.described.clone()).collect()))
    }

    async fn call_tool(&self, request: CallToolRequestParams, context: RequestContext<RoleServer>) -> Result<CallToolResponse, ErrorData> {
        let Some(tool) = self.tool(&request.name) else {
            return Err(ErrorData::invalid_params(format!("there is no tool `{}`", request.name), None));
        };
        let span = tracing::info_span!("tool", tool = tool.name(), code = tracing::field::Empty);
        let arguments = Value::Object(request.arguments.unwrap_or_default());
        let called = tokio::time::timeout(DEADLINE, tool.call(self.state.clone(), arguments).instrument(span.clone()));
        let outcome = tokio::select! {
            outcome = called => outcome.unwrap_or_else(|_| {
                Err(ApiError::new(Code::TimedOut, format!("the tool did not end within {} s", DEADLINE.as_secs())))
            }),
            () = context.ct.cancelled() => Err(ApiError::new(Code::Cancelled, "the client has ended the request")),
            () = self.state.shutdown.cancelled() => Err(ApiError::new(Code::Unavailable, "the server is stopping")),
        };
        let result = match outcome {
            Ok(answer) => CallToolResult::structured(answer),
            Err(error) => {
                span.record("code", error.code().as_str());
                let (_, body) = error.into_parts();
                CallToolResult::structured_error(json!(body))
            }
        };
        Ok(result.into())
    }
}
