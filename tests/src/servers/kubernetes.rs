//! A Kubernetes API server of one's own: etcd and kube-apiserver, no nodes. What the definitions say is checked by the program that will check it.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::{free_port, fresh_dir, password, spawn};
use crate::tls::Certificates;

/// Names the one program that is etcd and kube-apiserver, by its first argument.
pub const PROGRAM_VARIABLE: &str = "MILLRACE_KUBE_PROGRAM";

/// A running API server.
pub struct ApiServer {
    base: String,
    token: String,
    /// PEM
    authority: String,
    client: Client,
    children: Vec<Mutex<std::process::Child>>,
    dir: PathBuf,
}

/// The program, if this machine has it.
pub fn kube_program() -> Option<PathBuf> {
    let named = std::env::var_os(PROGRAM_VARIABLE).map(PathBuf::from);
    named.filter(|path| path.is_file())
}

impl ApiServer {
    /// Starts etcd and the API server on free ports and waits until it is ready.
    pub async fn start(program: PathBuf) -> anyhow::Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = fresh_dir("kubernetes", None)?;
        let certificates = Certificates::new("admin")?;
        certificates.write_server(&dir)?;
        let (etcd, peer, port, token) = (free_port(), free_port(), free_port(), password());
        std::fs::write(dir.join("tokens.csv"), format!("{token},admin,1,\"system:masters\"\n"))?;
        let accounts = rcgen::KeyPair::generate()?;
        std::fs::write(dir.join("accounts.key"), accounts.serialize_pem())?;
        std::fs::write(dir.join("accounts.pub"), accounts.public_key_pem())?;
        let file = |name: &str| dir.join(name).display().to_string();
        let (etcd_url, peer_url) = (format!("http://127.0.0.1:{etcd}"), format!("http://127.0.0.1:{peer}"));
        let start = |name: &str, args: Vec<String>| -> anyhow::Result<Mutex<std::process::Child>> {
            let args = std::iter::once(name.to_owned()).chain(args).collect();
            Ok(Mutex::new(spawn(&program, args, "root", &dir.join(format!("{name}.log")))?))
        };
        let children = vec![
            start(
                "etcd",
                vec![
                    format!("--data-dir={}", file("etcd")),
                    format!("--listen-client-urls={etcd_url}"),
                    format!("--advertise-client-urls={etcd_url}"),
                    format!("--listen-peer-urls={peer_url}"),
                    format!("--initial-advertise-peer-urls={peer_url}"),
                    format!("--initial-cluster=default={peer_url}"),
                    "--unsafe-no-fsync".to_owned(),
                ],
            )?,
            start(
                "kube-apiserver",
                vec![
                    format!("--etcd-servers={etcd_url}"),
                    "--bind-address=127.0.0.1".to_owned(),
                    "--advertise-address=127.0.0.1".to_owned(),
                    format!("--secure-port={port}"),
                    format!("--tls-cert-file={}", file("server.pem")),
                    format!("--tls-private-key-file={}", file("server.key")),
                    format!("--token-auth-file={}", file("tokens.csv")),
                    format!("--service-account-key-file={}", file("accounts.pub")),
                    format!("--service-account-signing-key-file={}", file("accounts.key")),
                    "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                    "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
                    "--authorization-mode=RBAC".to_owned(),
                ],
            )?,
        ];
        let authority = reqwest::Certificate::from_pem(certificates.ca.as_bytes())?;
        let client = Client::builder().tls_certs_only([authority]).build()?;
        let server = Self { base: format!("https://localhost:{port}"), token, authority: certificates.ca.clone(), client, children, dir };
        server.wait_until_ready().await?;
        Ok(server)
    }

    async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if matches!(self.call(Method::GET, "/readyz", None).await, Ok((200, _))) {
                return Ok(());
            }
            let is_over = |child: &Mutex<std::process::Child>| child.lock().is_ok_and(|mut child| matches!(child.try_wait(), Ok(Some(_))));
            if Instant::now() > deadline || self.children.iter().any(is_over) {
                let log = std::fs::read_to_string(self.dir.join("kube-apiserver.log")).unwrap_or_default();
                let end: Vec<&str> = log.lines().rev().take(10).collect();
                bail!("the API server is not ready: {}", end.into_iter().rev().collect::<Vec<_>>().join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A file that `KUBECONFIG` may name: an administrator's way to this server.
    pub fn kubeconfig(&self) -> anyhow::Result<PathBuf> {
        self.kubeconfig_to(&self.base, "kubeconfig.json")
    }

    /// As [`ApiServer::kubeconfig`], by way of a proxy on this port.
    pub fn kubeconfig_through(&self, port: u16) -> anyhow::Result<PathBuf> {
        self.kubeconfig_to(&format!("https://localhost:{port}"), &format!("kubeconfig-{port}.json"))
    }

    /// The port of this machine on which it listens.
    pub fn port(&self) -> u16 {
        self.base.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or_default()
    }

    fn kubeconfig_to(&self, base: &str, file: &str) -> anyhow::Result<PathBuf> {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "tests",
            "clusters": [{"name": "tests", "cluster": {"server": base, "certificate-authority-data": BASE64.encode(&self.authority)}}],
            "users": [{"name": "admin", "user": {"token": self.token}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "admin", "namespace": "default"}}],
        });
        let path = self.dir.join(file);
        std::fs::write(&path, config.to_string())?;
        Ok(path)
    }

    /// One request; a PATCH is a server-side apply.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<(u16, Value)> {
        let kind = if method == Method::PATCH { "application/apply-patch+yaml" } else { "application/json" };
        let mut request = self.client.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.header("Content-Type", kind).body(body.to_string());
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let text = response.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// Applies a custom resource's definition and waits until it is served.
    pub async fn define(&self, definition: &Value) -> anyhow::Result<()> {
        let name = definition["metadata"]["name"].as_str().context("a definition has a name")?;
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
        let (status, answer) =
            self.call(Method::PATCH, &format!("{path}?fieldManager=tests&fieldValidation=Strict"), Some(definition)).await?;
        if !matches!(status, 200 | 201) {
            bail!("`{name}` is refused: {answer}");
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let (_, found) = self.call(Method::GET, &path, None).await?;
            let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let is = |kind: &str| conditions.iter().any(|condition| condition["type"] == kind && condition["status"] == "True");
            if is("NonStructuralSchema") {
                bail!("`{name}` is not structural: {conditions:?}");
            }
            if is("Established") {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("`{name}` is not served after 30 s: {conditions:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        for child in &self.children {
            if let Ok(mut child) = child.lock() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
