//! The contract of `ConfigStore`.

use std::sync::Arc;

use millrace_core::config::{DbTarget, Mode, Source, SourceConnection, StreamConfig, StreamSpec, Target, TargetSpec};
use millrace_core::connection::{Connection, ConnectionSpec, DatabaseSpec, Engine};
use millrace_core::id::{ConfigId, ConnectionId, RunId, StreamId};
use millrace_core::store::ConfigStore;
use millrace_core::stream::{Stream, StreamState};
use millrace_core::{Kind, Secret};

fn connection(name: &str) -> Connection {
    Connection {
        id: ConnectionId::mint(),
        name: name.into(),
        engine: Engine::MySql,
        created: 1,
        ssl: None,
        cloud_provider: None,
        spec: ConnectionSpec::Database(DatabaseSpec {
            host: "h".into(),
            port: 1,
            username: "u".into(),
            password: Some(Secret::new("hunter2")),
            database: None,
        }),
    }
}

/// A config that copies everything of one connection into another.
pub fn config(source: &Connection, target: &Connection) -> StreamConfig {
    let source = SourceConnection {
        alias: None,
        connection_id: source.id.clone(),
        database: None,
        schema: None,
        scope_path: None,
        tables: None,
        queries: None,
        s3: None,
        files: None,
    };
    let db =
        DbTarget { database: "d".into(), schema: None, structure_options: None, schema_policy: None, write_mode: None, skip_data: None };
    let spec = StreamSpec {
        name: "c".into(),
        mode: Mode::Convert,
        description: None,
        reporting_interval: None,
        source: Source { connections: vec![source], options: None },
        target: Target { id: target.id.clone(), spec: TargetSpec::Db(db) },
        limits: None,
        parallelism: None,
        plan: None,
        on_cut_lost: None,
        pause_hold: None,
    };
    StreamConfig { id: ConfigId::mint(), created: 2, spec }
}

/// A run of it that begins.
pub fn stream(config: &StreamConfig) -> Stream {
    Stream {
        id: StreamId::mint(),
        run_id: RunId::mint(),
        config_id: config.id.clone(),
        spec: config.spec.clone(),
        state: StreamState::Running,
        reason: None,
        started_at: 3,
        ended_at: None,
        rows_written: 0,
        rows_failed: 0,
        bytes: 0,
        error: None,
        started_by: None,
        stats: None,
    }
}

/// Runs the suite against an empty store.
pub async fn conformance(store: Arc<dyn ConfigStore>) {
    let (a, b) = (connection("a"), connection("b"));
    store.create_connection(&a).await.unwrap();
    store.create_connection(&b).await.unwrap();
    assert_eq!(store.create_connection(&a).await.unwrap_err().kind(), Kind::Conflict);
    let read = store.connection(&a.id).await.unwrap();
    assert_eq!(read.secrets()[0].1.expose(), "hunter2");
    assert_eq!(store.connections().await.unwrap().len(), 2);
    let unknown = ConnectionId::mint();
    assert_eq!(store.connection(&unknown).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(store.delete_connection(&unknown).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(store.update_connection(&connection("x")).await.unwrap_err().kind(), Kind::NotFound);

    let config = config(&a, &b);
    store.create_config(&config).await.unwrap();
    assert_eq!(store.config(&config.id).await.unwrap(), config);
    assert_eq!(store.delete_connection(&a.id).await.unwrap_err().kind(), Kind::Conflict);

    let first = stream(&config);
    let starts: Vec<Stream> = std::iter::once(first).chain((0..7).map(|_| stream(&config))).collect();
    let results = futures::future::join_all(starts.iter().map(|stream| store.create_stream(stream))).await;
    let winners: Vec<&Stream> = starts.iter().zip(&results).filter(|(_, result)| result.is_ok()).map(|(stream, _)| stream).collect();
    assert_eq!(winners.len(), 1, "exactly one of eight starts passes the gate");
    for error in results.iter().filter_map(|result| result.as_ref().err()) {
        assert_eq!(
            (error.kind(), error.field_name(), error.detail("stream")),
            (Kind::Conflict, Some("stream_state"), Some(winners[0].id.as_str()))
        );
    }
    assert_eq!(store.delete_config(&config.id).await.unwrap_err().kind(), Kind::Conflict);
    assert_eq!(store.delete_stream(&winners[0].id).await.unwrap_err().kind(), Kind::Conflict);

    let stopped = Stream { state: StreamState::Stopped, ..winners[0].clone() };
    assert_eq!(store.update_stream(&stopped).await.unwrap().state, StreamState::Stopped);
    let late = Stream { state: StreamState::Failed, ..stopped.clone() };
    assert_eq!(store.update_stream(&late).await.unwrap().state, StreamState::Stopped, "a stop is sticky");
    let second = stream(&config);
    store.create_stream(&second).await.unwrap();
    let ids: Vec<StreamId> = store.streams(Some(&config.id)).await.unwrap().into_iter().map(|stream| stream.id).collect();
    assert_eq!(ids.len(), 2);
    store.update_stream(&Stream { state: StreamState::Finished, ..second.clone() }).await.unwrap();
    store.delete_stream(&second.id).await.unwrap();
    assert_eq!(store.stream(&second.id).await.unwrap_err().kind(), Kind::NotFound);
    store.delete_config(&config.id).await.unwrap();
    assert!(store.streams(None).await.unwrap().is_empty());
    store.delete_connection(&a.id).await.unwrap();
}
