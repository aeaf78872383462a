//! Whether an API server answers, asked as its clients ask.

use std::time::{Duration, Instant};

use millrace_core::{Error, Kind, Result};
use reqwest::{Client, StatusCode, Url};

const PATH: &str = "/api/v1/ready";
const ASK_EVERY: Duration = Duration::from_millis(500);
/// One question may take so long.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Returns once the API server at a URL says that it and its store can serve; with `any_certificate` whatever certificate it shows.
///
/// # Errors
/// [`Kind::Invalid`] for something that is no such URL, [`Kind::Unreachable`] with what was answered last when the patience is over.
pub async fn wait_until_ready(base: &str, patience: Duration, any_certificate: bool) -> Result<()> {
    let is_http = base.starts_with("http://") || base.starts_with("https://");
    if !is_http || Url::parse(base).is_err() {
        return Err(Error::invalid("url", "an API server's address begins with `http://` or `https://`"));
    }
    // Fails only if there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().timeout(TIMEOUT).no_proxy().tls_danger_accept_invalid_certs(any_certificate).build();
    let client = client.map_err(|error| Error::internal("no HTTP client").because(error))?;
    let address = format!("{}{PATH}", base.trim_end_matches('/'));
    let end = Instant::now() + patience;
    loop {
        let problem = match client.get(&address).send().await {
            Ok(answer) if answer.status() == StatusCode::OK => return Ok(()),
            Ok(answer) => format!("it answers {}", answer.status()),
            Err(error) => Error::internal("it does not answer").because(error).chain(),
        };
        if Instant::now() > end {
            let text = format!("`{address}` is not ready after {} s", patience.as_secs());
            return Err(Error::new(Kind::Unreachable, text).because(problem));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one question after the other with these lines, then with the last one for ever.
    async fn server(answers: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut place = 0;
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut asked = [0; 1024];
                let count = socket.read(&mut asked).await.unwrap();
                assert!(asked[..count].starts_with(b"GET /api/v1/ready HTTP/1.1"));
                let text = format!("HTTP/1.1 {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", answers[place.min(answers.len() - 1)]);
                socket.write_all(text.as_bytes()).await.unwrap();
                place += 1;
            }
        });
        address
    }

    #[tokio::test]
    async fn a_server_that_becomes_ready_is_waited_for() {
        let address = server(&["503 Service Unavailable", "200 OK"]).await;
        wait_until_ready(&address, Duration::from_secs(30), false).await.unwrap();
    }

    #[tokio::test]
    async fn one_that_never_becomes_ready_is_named_with_its_last_answer() {
        let address = server(&["503 Service Unavailable"]).await;
        let error = wait_until_ready(&address, Duration::ZERO, false).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unreachable);
        assert!(error.chain().contains("503"), "{}", error.chain());
    }

    #[tokio::test]
    async fn what_is_no_address_is_refused_at_once() {
        let error = wait_until_ready("millrace:8020", Duration::from_secs(30), false).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
    }
}
