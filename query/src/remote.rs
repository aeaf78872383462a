//! The query tier as a process of its own, and its voice in the API server.
//!
//! ```text
//!  API server: RemoteQueryTier ──HTTPS, bearer token──▶ query pod: serve() ──▶ ChildQueryTier ──▶ one child per statement
//! ```
//!
//! The caller sends resolved connections with their secrets, so the channel is both encrypted (the caller trusts one certificate authority, which
//! the installation made) and authenticated (a token both sides read from a Secret). A caller that goes away takes its statement with it: the
//! closed connection drops the handler, and dropping cancels the statement at its sources.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::serve::Listener;
use axum::{Json, Router};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::connection::Connection;
use millrace_core::federation::{AliasedSource, FederatedQuery, QueryOutcome, QueryTier, Want};
use millrace_core::files::{FileAnswer, FileRequest};
use millrace_core::objects::OpenAccess;
use millrace_core::{Error, Kind, Result, Secret};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use subtle::ConstantTimeEq as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

const PATH: &str = "/v1/query";
const FILES_PATH: &str = "/v1/files";
/// The header of W3C Trace Context.
const TRACEPARENT: &str = "traceparent";
/// A statement with its sources.
const MAX_BODY: usize = 4 * 1024 * 1024;
/// A peer that opens a connection and says nothing is let go.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);

/// A statement on the wire: `{"sql", "sources": [{"alias", "connection", "secrets": [[path, secret]], "database"}], "want"}`.
#[derive(Serialize, Deserialize)]
struct Ask {
    sql: String,
    sources: Vec<AskedSource>,
    #[serde(default)]
    want: Want,
}

#[derive(Serialize, Deserialize)]
struct AskedSource {
    alias: String,
    connection: Connection,
    secrets: Vec<(String, String)>,
    database: Option<String>,
}

/// Work on files on the wire: the request, and beside it how to get at objects.
#[derive(Serialize, Deserialize)]
struct AskFiles {
    request: FileRequest,
    access: Option<OpenAccess>,
}

impl From<FileRequest> for AskFiles {
    fn from(mut request: FileRequest) -> Self {
        let access = request.take_access().as_ref().map(OpenAccess::from);
        Self { request, access }
    }
}

impl From<AskFiles> for FileRequest {
    fn from(asked: AskFiles) -> Self {
        let mut request = asked.request;
        request.put_access(asked.access.map(Into::into));
        request
    }
}

/// What comes back, with status 200 in both cases: other statuses speak of the channel.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Reply {
    #[serde(rename_all = "camelCase")]
    Rows {
        columns: Vec<String>,
        rows: Vec<Vec<Value>>,
        duration_ms: u64,
        #[serde(default)]
        is_cut: bool,
    },
    Files(Box<FileAnswer>),
    Failed {
        kind: String,
        message: String,
        details: Vec<(String, String)>,
    },
}

/// Facts that errors of this tier carry.
const DETAILS: [&str; 6] = ["alias", "connection", "table", "column", "reason", "sqlstate"];

impl From<&AliasedSource> for AskedSource {
    fn from(source: &AliasedSource) -> Self {
        let secrets = source.connection.secrets();
        Self {
            alias: source.alias.clone(),
            secrets: secrets.into_iter().map(|(path, secret)| (path.to_owned(), secret.expose().to_owned())).collect(),
            connection: source.connection.clone(),
            database: source.database.clone(),
        }
    }
}

impl From<AskedSource> for AliasedSource {
    fn from(asked: AskedSource) -> Self {
        let mut connection = asked.connection;
        for (path, secret) in asked.secrets {
            connection.restore_secret(&path, Secret::new(secret));
        }
        Self { alias: asked.alias, connection, database: asked.database }
    }
}

impl From<Result<QueryOutcome>> for Reply {
    fn from(result: Result<QueryOutcome>) -> Self {
        match result {
            Ok(QueryOutcome { columns, rows, duration_ms, is_cut }) => Self::Rows { columns, rows, duration_ms, is_cut },
            Err(error) => Self::from(error),
        }
    }
}

impl From<Error> for Reply {
    fn from(error: Error) -> Self {
        Self::Failed {
            kind: format!("{:?}", error.kind()),
            message: error.message().to_owned(),
            details: error.details().iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        }
    }
}

impl From<Reply> for Result<QueryOutcome> {
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::Rows { columns, rows, duration_ms, is_cut } => Ok(QueryOutcome { columns, rows, duration_ms, is_cut }),
            reply => Err(failure(reply)),
        }
    }
}

/// The error that a reply stands for.
fn failure(reply: Reply) -> Error {
    let Reply::Failed { kind, message, details } = reply else { return Error::internal("the query tier answered something else") };
    let kind = Kind::ALL.into_iter().find(|known| format!("{known:?}") == kind).unwrap_or(Kind::Internal);
    let add = |error: Error, (name, value): (String, String)| match DETAILS.into_iter().find(|known| *known == name) {
        Some(name) => error.with(name, value),
        None => error,
    };
    details.into_iter().fold(Error::new(kind, message), add)
}

/// Runs statements in another process.
pub struct RemoteQueryTier {
    client: reqwest::Client,
    url: String,
    token: Secret,
}

impl RemoteQueryTier {
    /// The tier at `https://host:port`, whose certificate this authority (PEM) has signed.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for an authority that is none.
    pub fn new(url: &str, token: Secret, authority_pem: &[u8]) -> Result<Self> {
        let wrong = |error: String| Error::invalid("--query-ca-file", "there is no certificate in it").because(error);
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority_pem) {
            roots.add(certificate.map_err(|error| wrong(error.to_string()))?).map_err(|error| wrong(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(wrong("the file is empty".to_owned()));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let tls = tls
            .map_err(|error| Error::internal("TLS cannot be set up").because(error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().connect_timeout(Duration::from_secs(5)).build();
        let client = client.map_err(|error| Error::internal("no HTTP client").because(error))?;
        Ok(Self { client, url: url.trim_end_matches('/').to_owned(), token })
    }

    async fn ask(&self, query: FederatedQuery) -> Result<QueryOutcome> {
        let ask = Ask { sql: query.sql, sources: query.sources.iter().map(AskedSource::from).collect(), want: query.want };
        self.post(PATH, &ask).await?.into()
    }

    async fn post(&self, path: &str, body: &impl Serialize) -> Result<Reply> {
        let request = self.client.post(format!("{}{path}", self.url)).bearer_auth(self.token.expose()).json(body);
        // The statement's span there becomes part of the request's trace here.
        let request = millrace_service::traceparent().into_iter().fold(request, |request, parent| request.header(TRACEPARENT, parent));
        let sent = request.send().await;
        let away = |error: reqwest::Error| {
            Error::new(Kind::ServerExhausted, "the query tier does not answer; try again").because(error.without_url())
        };
        let response = sent.map_err(away)?;
        if !response.status().is_success() {
            let text = format!("the query tier refused the request with status {}", response.status().as_u16());
            return Err(Error::internal(text));
        }
        response.json::<Reply>().await.map_err(away)
    }
}

impl QueryTier for RemoteQueryTier {
    fn run(&self, query: FederatedQuery, cancel: CancellationToken) -> BoxFuture<'_, Result<QueryOutcome>> {
        async move {
            tokio::select! {
                outcome = self.ask(query) => outcome,
                () = cancel.cancelled() => Err(Error::new(Kind::Cancelled, "the query was cancelled")),
            }
        }
        .boxed()
    }

    fn files(&self, request: FileRequest, cancel: CancellationToken) -> BoxFuture<'_, Result<FileAnswer>> {
        let ask = AskFiles::from(request);
        async move {
            let reply = tokio::select! {
                reply = self.post(FILES_PATH, &ask) => reply?,
                () = cancel.cancelled() => return Err(Error::new(Kind::Cancelled, "the query was cancelled")),
            };
            match reply {
                Reply::Files(answer) => Ok(*answer),
                reply => Err(failure(reply)),
            }
        }
        .boxed()
    }
}

/// How the tier listens.
pub struct RemoteConfig {
    /// Where.
    pub listen: SocketAddr,
    /// What callers show.
    pub token: Secret,
    /// The chain, PEM.
    pub certificate_pem: Vec<u8>,
    /// Its key, PEM.
    pub key_pem: Vec<u8>,
}

#[derive(Clone)]
struct Shared {
    tier: Arc<dyn QueryTier>,
    token: Arc<Secret>,
}

/// A query tier that listens.
pub struct RemoteServer {
    listener: TlsListener,
    router: Router,
}

impl RemoteServer {
    /// Listens.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for a certificate, key or address that cannot be used.
    pub async fn bind(config: RemoteConfig, tier: Arc<dyn QueryTier>) -> Result<Self> {
        let wrong = |field: &'static str, error: String| Error::invalid(field, "it cannot be used").because(error);
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&config.certificate_pem)
            .collect::<Result<_, _>>()
            .map_err(|error| wrong("--tls-cert-file", error.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(&config.key_pem).map_err(|error| wrong("--tls-key-file", error.to_string()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|error| wrong("--tls-cert-file", error.to_string()))?;
        let tcp = TcpListener::bind(config.listen).await.map_err(|error| wrong("--listen", error.to_string()))?;
        let shared = Shared { tier, token: Arc::new(config.token) };
        let router = Router::new()
            .route(PATH, post(answer))
            .route(FILES_PATH, post(answer_files))
            .route("/livez", get(|| async { StatusCode::OK }))
            .route("/readyz", get(|| async { StatusCode::OK }))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .with_state(shared);
        let listener = TlsListener::start(tcp, TlsAcceptor::from(Arc::new(tls))).map_err(|error| wrong("--listen", error.to_string()))?;
        Ok(Self { listener, router })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.address
    }

    /// Answers until the token is cancelled; statements under way are finished.
    ///
    /// # Errors
    /// Those of the operating system.
    pub async fn serve(self, shutdown: CancellationToken) -> io::Result<()> {
        axum::serve(self.listener, self.router).with_graceful_shutdown(shutdown.cancelled_owned()).await
    }
}

fn is_known(shared: &Shared, headers: &HeaderMap) -> bool {
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    shown.is_some_and(|shown| bool::from(shown.ct_eq(shared.token.expose().as_bytes())))
}

async fn answer_files(State(shared): State<Shared>, headers: HeaderMap, body: Json<AskFiles>) -> Response {
    if !is_known(&shared, &headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let span = tracing::info_span!("request", otel.name = format!("POST {FILES_PATH}"), otel.kind = "server");
    millrace_service::continue_trace(&span, headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()));
    let run = async { shared.tier.files(body.0.into(), CancellationToken::new()).await };
    Json(run.instrument(span).await.map_or_else(Reply::from, |answer| Reply::Files(Box::new(answer)))).into_response()
}

async fn answer(State(shared): State<Shared>, headers: HeaderMap, body: Json<Ask>) -> Response {
    if !is_known(&shared, &headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let Ask { sql, sources, want } = body.0;
    let query = FederatedQuery { sql, sources: sources.into_iter().map(AliasedSource::from).collect(), want };
    let span = tracing::info_span!("request", otel.name = format!("POST {PATH}"), otel.kind = "server");
    millrace_service::continue_trace(&span, headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()));
    let run = async { shared.tier.run(query, CancellationToken::new()).await };
    Json(Reply::from(run.instrument(span).await)).into_response()
}

/// Accepts TLS connections. Handshakes go on beside each other, so that a slow peer holds nobody up.
struct TlsListener {
    address: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl TlsListener {
    fn start(mut tcp: TcpListener, acceptor: TlsAcceptor) -> io::Result<Self> {
        let address = tcp.local_addr()?;
        let (shaken, ready) = mpsc::channel(16);
        tokio::spawn(async move {
            while !shaken.is_closed() {
                let (stream, peer) = tokio::select! {
                    accepted = Listener::accept(&mut tcp) => accepted,
                    () = shaken.closed() => return,
                };
                let (acceptor, shaken) = (acceptor.clone(), shaken.clone());
                tokio::spawn(async move {
                    if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_WITHIN, acceptor.accept(stream)).await {
                        let _ = shaken.send((stream, peer)).await;
                    }
                });
            }
        });
        Ok(Self { address, ready })
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(ready) => ready,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}
