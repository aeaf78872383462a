//! An entitlement service as a remote provider asks it: knows one key, and answers otherwise what a test wants.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What the service answers to known keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Everything is paid.
    Good,
    /// A refusal with this status and code.
    Refuses(u16, &'static str),
    /// Nothing, ever.
    Silent,
}

/// A running service.
pub struct EntitlementService {
    /// `http://127.0.0.1:port`
    pub url: String,
    mood: Arc<Mutex<Mood>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl EntitlementService {
    /// Starts a service that knows this key.
    pub async fn start(known: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (mood, requests) = (Arc::new(Mutex::new(Mood::Good)), Arc::new(Mutex::new(Vec::new())));
        let (known, now, seen) = (known.to_owned(), mood.clone(), requests.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (known, now, seen) = (known.clone(), now.clone(), seen.clone());
                tokio::spawn(async move { answer(stream, &known, &now, &seen).await });
            }
        });
        Self { url: format!("http://127.0.0.1:{port}"), mood, requests }
    }

    /// Changes what is answered from now on.
    pub fn set(&self, mood: Mood) {
        *self.mood.lock().expect("no panic") = mood;
    }

    /// First lines of the requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no panic").clone()
    }
}

async fn answer(mut stream: TcpStream, known: &str, mood: &Mutex<Mood>, requests: &Mutex<Vec<String>>) -> Option<()> {
    let mut text = String::new();
    let mut block = [0; 4096];
    loop {
        let read = stream.read(&mut block).await.ok()?;
        text.push_str(&String::from_utf8_lossy(&block[..read]));
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            if read == 0 {
                return None;
            }
            continue;
        };
        let header = |name: &str| {
            head.lines().find_map(|line| {
                line.split_once(": ").filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
            })
        };
        let length: usize = header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        if body.len() < length {
            continue;
        }
        let line = head.lines().next().unwrap_or_default().to_owned();
        requests.lock().expect("no panic").push(format!("{line} {body}"));
        let mood = *mood.lock().expect("no panic");
        let (status, answer): (u16, Value) = match mood {
            Mood::Silent => {
                std::future::pending::<()>().await;
                return None;
            }
            _ if line.contains("/usage") => (200, json!({"warning": null})),
            _ if header("x-api-key").as_deref() != Some(known) => (401, json!({"code": "AUTHENTICATION_FAILED"})),
            Mood::Refuses(status, code) => (status, json!({"code": code})),
            Mood::Good if line.contains("/account") => (
                200,
                json!({"keyId": "remote_1", "name": "remote", "subscription": "active", "seatLimit": 3, "activeBindings": 1,
                    "isInstallActive": true, "evaluation": null}),
            ),
            Mood::Good => (200, json!({"keyId": "remote_1", "subscription": "active"})),
        };
        let body = answer.to_string();
        let response = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        return stream.write_all(response.as_bytes()).await.ok();
    }
}
