//! What several tests need.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use millrace_tests::api::Api;
use millrace_tests::process::{Process, run};
use millrace_tests::suites::rest::{Browsing, Place};

pub(crate) use millrace_tests::suites::rest::source;

/// How long a small run may take on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// A running server with a key and a data directory of its own.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) dir: tempfile::TempDir,
    place: Place,
    options: Vec<String>,
}

impl Deref for Server {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut Place {
        &mut self.place
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server with these further options.
    pub(crate) async fn start_with(options: &[&str]) -> Self {
        Self::start_in(options, &[]).await
    }

    /// Starts a server with these further options and environment variables; a restart does without the variables.
    pub(crate) async fn start_in(options: &[&str], env: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (code, key, errors) = run(&["keys", "create", "--data-dir", dir.path().to_str().unwrap()], &[]).await.unwrap();
        assert_eq!(code, 0, "{errors}");
        let key = key.trim().to_owned();
        let (process, base) = Process::serve_with(dir.path(), options, env).await.unwrap();
        let mut api = Api::new(&base);
        api.key = Some(key.clone());
        let browsing = if options.windows(2).any(|pair| pair == ["--auth-ide", "key"]) { Browsing::Key } else { Browsing::Open };
        let place = Place::standalone(api, key, browsing).await;
        Self { process, dir, place, options: options.iter().map(|option| (*option).to_owned()).collect() }
    }

    /// Starts a server under a setting of `auth.ide`.
    pub(crate) async fn start_auth(auth: &str) -> Self {
        Self::start_with(&["--auth-ide", auth]).await
    }

    /// Runs `millrace keys …` on this server's data; answers what it printed.
    pub(crate) async fn keys(&self, args: &[&str]) -> String {
        let dir = self.dir.path().display().to_string();
        let all: Vec<&str> = ["keys"].iter().chain(args).copied().chain(["--data-dir", &dir]).collect();
        let (code, out, errors) = run(&all, &[]).await.unwrap();
        assert_eq!(code, 0, "{errors}");
        out.trim().to_owned()
    }

    /// Kills the server and starts it again on the same data.
    pub(crate) async fn kill_and_restart(&mut self) {
        self.process.kill().await;
        self.start_again().await;
    }

    /// Starts the server again after it has ended.
    pub(crate) async fn start_again(&mut self) {
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        let (process, base) = Process::serve(self.dir.path(), &options).await.unwrap();
        self.process = process;
        self.api.base = base;
    }
}
