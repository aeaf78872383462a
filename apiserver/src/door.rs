//! The front door: accepts connections, gives their requests' heads a deadline, and lets requests under way end.
//!
//! ```text
//!  room for one more? ─▶ accept ─▶ [TLS: hello within `head`; plain HTTP gets a 400] ─▶ HTTP/1.1 ─▶ router
//!                                                                                        │ head within `head` of its first byte
//!                                                                                        │ the next one within `idle`, else closed
//!                                                                                        └ of an answer, a byte within `stall`
//! ```
//!
//! The server's library knows one limit for both kinds of waiting. They are kept apart here, because a proxy holds idle connections open for good reasons, while a
//! head that trickles in is an attack.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use hyper::Request;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use self::leave::Leave;
use crate::tls::{self, Tls};

mod leave;

/// How long a failed accept, mostly for want of file descriptors, is waited out.
const REST: Duration = Duration::from_millis(200);
/// At a shutdown, what has sent no whole head is let go after this time.
const FAREWELL: Duration = Duration::from_secs(1);

/// What connections may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoorLimits {
    /// From a head's first byte to its end; for a connection's first head, and for TLS, from the connection's beginning.
    pub head: Duration,
    /// Between two requests on a connection.
    pub idle: Duration,
    /// While an answer is on its way and the client takes no byte of it.
    pub stall: Duration,
    /// Connections at once; others wait to be accepted.
    pub connections: usize,
}

impl Default for DoorLimits {
    fn default() -> Self {
        // Below the usual 1,024 file descriptors of a process, which also has databases to talk to.
        Self { head: Duration::from_secs(10), idle: Duration::from_secs(75), stall: Duration::from_secs(60), connections: 800 }
    }
}

/// What a connection needs.
#[derive(Clone)]
struct Door {
    router: Router,
    limits: DoorLimits,
    tls: Option<Arc<Tls>>,
    shutdown: CancellationToken,
}

/// Serves until the token is cancelled and all requests under way are answered.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: DoorLimits,
    tls: Option<Arc<Tls>>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    if let Some(tls) = &tls {
        tokio::spawn(tls.clone().follow(shutdown.clone()));
    }
    let door = Door { router, limits, tls, shutdown: shutdown.clone() };
    let room = Arc::new(Semaphore::new(limits.connections.max(1)));
    let visitors = TaskTracker::new();
    loop {
        let next = async {
            let place = room.clone().acquire_owned().await.map_err(io::Error::other)?;
            listener.accept().await.map(|(stream, peer)| (place, stream, peer))
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = next => accepted,
        };
        match accepted {
            Ok((place, stream, peer)) => {
                let door = door.clone();
                visitors.spawn(async move {
                    door.greet(stream, peer).await;
                    drop(place);
                });
            }
            Err(error) if is_of_the_peer(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(REST).await;
            }
        }
    }
    drop(listener);
    visitors.close();
    visitors.wait().await;
    Ok(())
}

fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

impl Door {
    async fn greet(self, stream: TcpStream, peer: SocketAddr) {
        // Events are small and wanted at once.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return self.converse(stream, peer).await };
        let hello = tokio::select! {
            () = self.shutdown.cancelled() => return,
            hello = tokio::time::timeout(self.limits.head, tls::hello(tls, stream)) => hello,
        };
        match hello {
            Ok(Ok(protected)) => self.converse(protected, peer).await,
            Ok(Err(error)) => tracing::debug!(%error, "a client did not get to TLS"),
            Err(_) => tracing::debug!("a client did not say what TLS needs in time"),
        }
    }

    async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S, peer: SocketAddr) {
        let clock = Arc::new(Clock::new());
        let (router, of_requests) = (self.router, clock.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            let turn = Turn::begin(&of_requests);
            request.extensions_mut().insert(ConnectInfo(peer));
            let unread = Unread::of(request.body());
            let answer = router.clone().oneshot(request.map(|body| Heard { body, unread: unread.clone() }));
            async move {
                answer.await.map(|mut response| {
                    // What is behind an unread body is no request, so this connection ends. Clients must know, or they send the next one into it.
                    if unread.is_some() {
                        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    }
                    response.map(|body| Answer { body, _turn: turn })
                })
            }
        });
        let io = TokioIo::new(Watched { stream, clock: clock.clone(), leave: Leave::default() });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(self.limits.idle.max(self.limits.head));
        let mut connection = std::pin::pin!(builder.serve_connection(io, service).with_upgrades());
        let mut ends_at = None;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection broke");
                    }
                    return;
                }
                () = self.shutdown.cancelled(), if ends_at.is_none() => {
                    ends_at = Some(Instant::now() + FAREWELL);
                    connection.as_mut().graceful_shutdown();
                }
                () = tokio::time::sleep(clock.pause(&self.limits, ends_at)) => {
                    if clock.is_overdue(&self.limits, ends_at) {
                        return;
                    }
                }
            }
        }
    }
}

/// Where a connection's requests are.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// A head is on its way, since then.
    Head(Instant),
    /// A request is being answered.
    Busy,
    /// All was answered then, though the client may not have taken it yet.
    Idle(Instant),
}

#[derive(Debug, Clone, Copy)]
struct Times {
    phase: Phase,
    /// Since when bytes wait for the client to take them.
    unsent_since: Option<Instant>,
}

#[derive(Debug)]
struct Clock(Mutex<Times>);

impl Clock {
    fn new() -> Self {
        Self(Mutex::new(Times { phase: Phase::Head(Instant::now()), unsent_since: None }))
    }

    fn lock(&self) -> MutexGuard<'_, Times> {
        // Whole after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, to: impl FnOnce(Phase) -> Phase) {
        let mut times = self.lock();
        times.phase = to(times.phase);
    }

    /// Bytes were to be sent: some were taken, or none, or all that there are.
    fn tell<T>(&self, sent: &Poll<io::Result<T>>, is_all: bool) {
        let mut times = self.lock();
        match sent {
            Poll::Pending => {
                times.unsent_since.get_or_insert_with(Instant::now);
            }
            // Nothing has waited.
            Poll::Ready(_) if times.unsent_since.is_none() => {}
            Poll::Ready(_) => {
                times.unsent_since = (!is_all).then(Instant::now);
                if let Phase::Idle(since) = &mut times.phase {
                    *since = Instant::now();
                }
            }
        }
    }

    /// Bytes have come.
    fn hear(&self) {
        self.change(|phase| match phase {
            Phase::Idle(_) => Phase::Head(Instant::now()),
            other => other,
        });
    }

    fn deadline(&self, limits: &DoorLimits, ends_at: Option<Instant>) -> Option<Instant> {
        let times = *self.lock();
        if let Some(since) = times.unsent_since {
            return Some(since + limits.stall);
        }
        let due = match times.phase {
            Phase::Busy => return None,
            Phase::Head(since) => since + limits.head,
            Phase::Idle(since) => since + limits.idle,
        };
        Some(ends_at.map_or(due, |end| due.min(end)))
    }

    fn is_overdue(&self, limits: &DoorLimits, ends_at: Option<Instant>) -> bool {
        self.deadline(limits, ends_at).is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Until somebody looks again: the phase changes meanwhile, so a quarter of the shorter limit at most.
    fn pause(&self, limits: &DoorLimits, ends_at: Option<Instant>) -> Duration {
        let most = limits.head.min(limits.idle).min(limits.stall) / 4;
        let left = self.deadline(limits, ends_at).map_or(most, |deadline| deadline.saturating_duration_since(Instant::now()));
        left.min(most).max(Duration::from_millis(10))
    }
}

/// A request from its head's end to its answer's end, however that comes.
struct Turn(Arc<Clock>);

impl Turn {
    fn begin(clock: &Arc<Clock>) -> Self {
        clock.change(|_| Phase::Busy);
        Self(clock.clone())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.change(|_| Phase::Idle(Instant::now()));
    }
}

/// Whether a request's body has not come to its end yet.
#[derive(Clone)]
struct Unread(Arc<AtomicBool>);

impl Unread {
    fn of(body: &Incoming) -> Self {
        Self(Arc::new(AtomicBool::new(!body.is_end_stream())))
    }

    fn is_some(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A request's body whose end is noticed.
struct Heard {
    body: Incoming,
    unread: Unread,
}

impl HttpBody for Heard {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        if frame.is_none() || this.body.is_end_stream() {
            this.unread.0.store(false, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body; dropped when all of it waits to be sent.
struct Answer {
    body: Body,
    _turn: Turn,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream whose bytes are noticed. Whoever writes to it flushes it when nothing is left to write, so a flush that is done means that all is sent.
struct Watched<S> {
    stream: S,
    clock: Arc<Clock>,
    leave: Leave,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            this.clock.hear();
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.clock.tell(&sent, false);
        sent
    }

    fn poll_write_vectored(self: Pin<&mut Self>, context: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.stream).poll_write_vectored(context, parts);
        this.clock.tell(&sent, false);
        sent
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.stream).poll_flush(context);
        this.clock.tell(&sent, true);
        sent
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.leave.poll(&mut this.stream, context)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
