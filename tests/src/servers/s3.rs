//! An object store of one's own: SeaweedFS, which checks signatures and knows conditions of puts.

use std::sync::Mutex;

use tokio::sync::OnceCell;

use super::{Launch, Server, USER, free_port, fresh_dir, password, program, spawn, wait_until_listening};

/// Who runs it, when we are root: the program may lie where only root reads.
const OS_USER: &str = "root";

/// An object store, and a second login that may read only.
#[derive(Debug)]
pub struct ObjectStore {
    /// The server; its user is the access key and its password the secret key of one who may do everything.
    pub server: Server,
    /// The access key of one who may read and list.
    pub reader: String,
    /// Its secret key.
    pub reader_secret: String,
}

static SHARED: OnceCell<ObjectStore> = OnceCell::const_new();

/// The object store that all tests of this process share. It listens; it may still refuse requests for a moment.
///
/// # Panics
/// If it is missing or does not start.
pub async fn shared_objects() -> &'static ObjectStore {
    SHARED.get_or_init(|| async { tokio::task::spawn_blocking(|| start().expect("an object store")).await.expect("an object store") }).await
}

/// Starts an object store: `MILLRACE_S3_PROGRAM`, else `weed` in the path.
pub fn start() -> anyhow::Result<ObjectStore> {
    let weed = match std::env::var_os("MILLRACE_S3_PROGRAM") {
        Some(path) => path.into(),
        None => program("SeaweedFS (run this by `./x it`, or name a program in MILLRACE_S3_PROGRAM)", &["weed"], &[])?,
    };
    let dir = fresh_dir("s3", None)?;
    let (log, config, data) = (dir.join("server.log"), dir.join("s3.json"), dir.join("data"));
    std::fs::create_dir(&data)?;
    let (secret, reader_secret) = (password(), password());
    let (access, reader) = (format!("AK{USER}"), "AKreader".to_owned());
    let identity = |name: &str, key: &str, secret: &str, actions: &[&str]| serde_json::json!({"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions});
    let identities = [
        identity("owner", &access, &secret, &["Admin", "Read", "Write", "List", "Tagging"]),
        identity("reader", &reader, &reader_secret, &["Read", "List"]),
    ];
    std::fs::write(&config, serde_json::json!({"identities": identities}).to_string())?;
    let port = free_port();
    let mut args: Vec<String> =
        ["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-s3.iam=false", "-master.telemetry=false"]
            .into_iter()
            .map(str::to_owned)
            .collect();
    args.extend([format!("-dir={}", data.display()), format!("-s3.config={}", config.display()), format!("-s3.port={port}")]);
    // A bucket's objects lie in volumes of its own.
    args.extend(
        ["-metricsPort=0", "-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=1000", "-master.volumeSizeLimitMB=64"].map(str::to_owned),
    );
    for name in ["s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc"] {
        args.push(format!("-{name}={}", free_port()));
    }
    let mut child = spawn(&weed, args.clone(), OS_USER, &log)?;
    wait_until_listening(&mut child, port, &log)?;
    let server = Server {
        host: "127.0.0.1".into(),
        port,
        user: access,
        password: secret,
        child: Some(Mutex::new(child)),
        dir: Some(dir),
        launch: Some(Launch { program: weed, args, os_user: OS_USER, log }),
    };
    Ok(ObjectStore { server, reader, reader_secret })
}
