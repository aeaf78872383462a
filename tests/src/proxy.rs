//! A TCP proxy that misbehaves on request: cuts, holds, delays, refuses.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// Where proxies run. A test's own runtime ends with the test, and what was moved through its proxies is cleaned up through them afterwards.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).thread_name("proxies").enable_all().build().expect("a runtime for proxies")
});

/// How long bytes that should pass may take: pods take long to come on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the proxy does with what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mode {
    is_held: bool,
    /// Everything is held once so many bytes have passed.
    hold_at: u64,
    refuses: bool,
    delay: Duration,
    /// Bytes a second that all connections share; any number if 0.
    rate: u64,
    /// Connections that were opened under an older number are cut.
    generation: u64,
}

impl Default for Mode {
    fn default() -> Self {
        Self { is_held: false, hold_at: u64::MAX, refuses: false, delay: Duration::ZERO, rate: 0, generation: 0 }
    }
}

/// A proxy in front of one server. Once it is dropped, everything passes.
pub struct FaultProxy {
    /// Where clients connect.
    pub port: u16,
    mode: Arc<watch::Sender<Mode>>,
    bytes: Arc<watch::Sender<u64>>,
    connections: Arc<AtomicU64>,
}

impl FaultProxy {
    /// Starts a proxy to `host:port`.
    pub async fn start(host: &str, port: u16) -> std::io::Result<Self> {
        Self::start_on("127.0.0.1", host, port).await
    }

    /// Starts a proxy to `host:port` that listens at another address of this machine.
    pub async fn start_on(address: &str, host: &str, port: u16) -> std::io::Result<Self> {
        let (address, host) = (address.to_owned(), host.to_owned());
        RUNTIME.spawn(async move { Self::start_here(&address, &host, port).await }).await.map_err(std::io::Error::other)?
    }

    async fn start_here(address: &str, host: &str, port: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind((address, 0)).await?;
        let (mode, modes) = watch::channel(Mode::default());
        let mode = Arc::new(mode);
        let proxy = Self {
            port: listener.local_addr()?.port(),
            mode: mode.clone(),
            bytes: Arc::new(watch::channel(0).0),
            connections: Arc::default(),
        };
        let (bytes, connections, target) = (proxy.bytes.clone(), proxy.connections.clone(), (host.to_owned(), port));
        // When the wire is free again, where a rate limits it.
        let free_at = Arc::new(std::sync::Mutex::new(tokio::time::Instant::now()));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if modes.borrow().refuses {
                    continue;
                }
                connections.fetch_add(1, Ordering::Relaxed);
                let (target, mode, modes, bytes) = (target.clone(), mode.clone(), modes.clone(), bytes.clone());
                let free_at = free_at.clone();
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(target).await else { return };
                    let generation = modes.borrow().generation;
                    let (client_read, client_write) = client.into_split();
                    let (server_read, server_write) = server.into_split();
                    tokio::select! {
                        () = forward(client_read, server_write, &mode, modes.clone(), bytes.clone(), free_at.clone()) => {}
                        () = forward(server_read, client_write, &mode, modes.clone(), bytes, free_at) => {}
                        () = cut_after(modes, generation) => {}
                    }
                });
            }
        });
        Ok(proxy)
    }

    /// Cuts all open connections; new ones are served.
    pub fn cut(&self) {
        self.mode.send_modify(|mode| mode.generation += 1);
    }

    /// Lets nothing pass until [`FaultProxy::release`].
    pub fn hold(&self) {
        self.mode.send_modify(|mode| mode.is_held = true);
    }

    /// Lets nothing more pass once so many bytes have, until [`FaultProxy::release`]; returns when that is so.
    pub async fn hold_at(&self, count: u64) {
        self.mode.send_modify(|mode| mode.hold_at = count);
        let mut modes = self.mode.subscribe();
        let held = tokio::time::timeout(PATIENCE, modes.wait_for(|mode| mode.is_held)).await;
        assert!(held.is_ok(), "{} of {count} bytes have passed", *self.bytes.borrow());
    }

    /// Lets everything pass again.
    pub fn release(&self) {
        self.mode.send_modify(|mode| mode.is_held = false);
    }

    /// Delays every block.
    pub fn delay(&self, delay: Duration) {
        self.mode.send_modify(|mode| mode.delay = delay);
    }

    /// Lets so many bytes a second pass, all connections together; any number if 0.
    pub fn limit(&self, rate: u64) {
        self.mode.send_modify(|mode| mode.rate = rate);
    }

    /// Closes new connections at once, or no longer.
    pub fn refuse(&self, refuses: bool) {
        self.mode.send_modify(|mode| mode.refuses = refuses);
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Returns once so many bytes have passed, both ways together.
    ///
    /// # Panics
    /// If they have not within two minutes: what should pass is not under way.
    pub async fn wait_for_bytes(&self, count: u64) {
        let mut bytes = self.bytes.subscribe();
        let passed = tokio::time::timeout(PATIENCE, bytes.wait_for(|bytes| *bytes >= count)).await;
        assert!(passed.is_ok(), "{} of {count} bytes have passed", *self.bytes.borrow());
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.mode.send_modify(|mode| *mode = Mode { generation: mode.generation, ..Mode::default() });
    }
}

async fn forward(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mode: &watch::Sender<Mode>,
    mut modes: watch::Receiver<Mode>,
    bytes: Arc<watch::Sender<u64>>,
    free_at: Arc<std::sync::Mutex<tokio::time::Instant>>,
) {
    let mut block = vec![0; 64 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut block).await else { return };
        if modes.wait_for(|mode| !mode.is_held).await.is_err() {
            return;
        }
        // One look: two would wait for each other across a change.
        let Mode { delay, rate, .. } = *modes.borrow();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if let Some(wire_time) = (read as u64 * 1_000_000).checked_div(rate) {
            let end = {
                let mut free_at = free_at.lock().expect("no panic while counting");
                let begin = (*free_at).max(tokio::time::Instant::now());
                *free_at = begin + Duration::from_micros(wire_time);
                *free_at
            };
            tokio::time::sleep_until(end).await;
        }
        if to.write_all(&block[..read]).await.is_err() {
            return;
        }
        bytes.send_modify(|bytes| *bytes += read as u64);
        let passed = *bytes.borrow();
        mode.send_if_modified(|mode| {
            let is_reached = passed >= mode.hold_at;
            if is_reached {
                (mode.is_held, mode.hold_at) = (true, u64::MAX);
            }
            is_reached
        });
    }
}

async fn cut_after(mut modes: watch::Receiver<Mode>, generation: u64) {
    let _ = modes.wait_for(|mode| mode.generation > generation).await;
}
