use axum::routing::{get, post};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

struct Served {
    address: SocketAddr,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<io::Result<()>>,
}

const LIMITS: DoorLimits =
    DoorLimits { head: Duration::from_millis(400), idle: Duration::from_millis(1500), stall: Duration::from_secs(60), connections: 4 };

/// More than all buffers between the server and a client hold.
const LARGE: usize = 64 << 20;

async fn serve_with(limits: DoorLimits) -> Served {
    let slow = move || async move {
        tokio::time::sleep(limits.head.min(Duration::from_millis(400)) * 2).await;
        "late"
    };
    let router = Router::new()
        .route("/quick", get(|| async { "here" }))
        .route("/slow", get(slow))
        .route("/large", get(|| async { vec![b'x'; LARGE] }))
        .route("/body", post(|body: Bytes| async { body }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(serve(listener, router, limits, None, shutdown.clone()));
    Served { address, shutdown, task }
}

async fn ask(stream: &mut TcpStream, path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    heard(stream).await
}

/// What comes next; empty when the connection is closed.
async fn heard(stream: &mut TcpStream) -> String {
    let mut answer = vec![0; 4096];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut answer)).await.unwrap().unwrap_or(0);
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

#[tokio::test]
async fn a_head_that_does_not_end_is_cut_off_and_an_idle_connection_lives_longer() {
    let served = serve_with(LIMITS).await;
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    let mut halting = TcpStream::connect(served.address).await.unwrap();
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    assert!(ask(&mut idle, "/quick").await.ends_with("here"));
    let began = Instant::now();
    let drip = async {
        for byte in b"GET /quick HTTP/1.1\r\nHost: x\r\nX-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" {
            if halting.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            if began.elapsed() > Duration::from_secs(1) {
                break;
            }
        }
        heard(&mut halting).await
    };
    assert_eq!(drip.await, "");
    assert_eq!(heard(&mut silent).await, "");
    assert!(began.elapsed() < Duration::from_millis(1400), "{:?}", began.elapsed());
    // Meanwhile the idle one has waited for longer than a head may take.
    assert!(ask(&mut idle, "/quick").await.ends_with("here"));
    assert_eq!(heard(&mut idle).await, "", "idle for too long");
}

#[tokio::test]
async fn a_second_head_has_the_same_limit_as_the_first() {
    let served = serve_with(LIMITS).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    assert!(ask(&mut stream, "/quick").await.ends_with("here"));
    let began = Instant::now();
    stream.write_all(b"GET /quick HT").await.unwrap();
    assert_eq!(heard(&mut stream).await, "");
    assert!(began.elapsed() < Duration::from_millis(1200), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_answer_may_take_longer_than_a_head() {
    let served = serve_with(LIMITS).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    assert!(ask(&mut stream, "/slow").await.ends_with("late"));
}

#[tokio::test]
async fn requests_under_way_are_answered_at_a_shutdown_and_nobody_else_is_waited_for() {
    let served = serve_with(DoorLimits { head: Duration::from_secs(60), idle: Duration::from_secs(60), ..LIMITS }).await;
    let mut busy = TcpStream::connect(served.address).await.unwrap();
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut halting = TcpStream::connect(served.address).await.unwrap();
    halting.write_all(b"GET /slow HT").await.unwrap();
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    assert!(ask(&mut idle, "/quick").await.ends_with("here"));
    served.shutdown.cancel();
    assert!(heard(&mut busy).await.ends_with("late"));
    tokio::time::timeout(Duration::from_secs(5), served.task).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test]
async fn more_connections_than_allowed_wait_until_one_goes() {
    let served = serve_with(DoorLimits { head: Duration::from_secs(60), connections: 2, ..LIMITS }).await;
    let held = [TcpStream::connect(served.address).await.unwrap(), TcpStream::connect(served.address).await.unwrap()];
    let mut third = TcpStream::connect(served.address).await.unwrap();
    third.write_all(b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut byte = [0];
    assert!(tokio::time::timeout(Duration::from_millis(300), third.read(&mut byte)).await.is_err(), "it was answered");
    drop(held);
    assert!(heard(&mut third).await.ends_with("here"));
}

#[tokio::test]
async fn a_slow_client_gets_all_of_a_large_answer_even_at_a_shutdown() {
    let served = serve_with(DoorLimits { head: Duration::from_millis(200), idle: Duration::from_millis(200), ..LIMITS }).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let (mut bytes, mut taken) = (vec![0; 8 << 20], 0);
    for round in 0.. {
        match stream.read(&mut bytes).await.unwrap() {
            0 => break,
            more => taken += more,
        }
        if round == 2 {
            served.shutdown.cancel();
        }
        if round < 6 {
            // Longer than a connection may be idle, and all of them longer than what is let go at a shutdown.
            tokio::time::sleep(Duration::from_millis(350)).await;
        }
    }
    assert!(taken > LARGE, "{taken} bytes of {LARGE}");
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_is_let_go() {
    let served = serve_with(DoorLimits { stall: Duration::from_millis(400), connections: 1, ..LIMITS }).await;
    let mut stalled = TcpStream::connect(served.address).await.unwrap();
    stalled.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut next = TcpStream::connect(served.address).await.unwrap();
    assert!(ask(&mut next, "/quick").await.ends_with("here"));
}

#[tokio::test]
async fn a_refusal_reaches_clients_that_have_not_sent_everything() {
    let served = serve_with(LIMITS).await;
    let large = vec![b'x'; 16 << 20];
    let body = format!("POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", large.len());
    for (head, status) in [(body.as_str(), "413"), ("GET /quick HTTP/1.1\r\nX-Long: ", "431")] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&large).await.unwrap();
        let answer = heard(&mut stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "clients would use the connection again: {answer}");
    }
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc").await.unwrap();
    let answer = heard(&mut stream).await;
    assert!(answer.ends_with("abc") && !answer.contains("connection"), "{answer}");
    assert!(ask(&mut stream, "/quick").await.ends_with("here"));
}

#[tokio::test]
async fn clients_that_neither_send_nor_go_are_left() {
    let served = serve_with(DoorLimits { head: Duration::from_secs(60), idle: Duration::from_secs(60), connections: 1, ..LIMITS }).await;
    let mut refused = TcpStream::connect(served.address).await.unwrap();
    refused.write_all(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n").await.unwrap();
    refused.write_all(&vec![b'x'; 3 << 20]).await.unwrap();
    assert!(heard(&mut refused).await.starts_with("HTTP/1.1 413 "));
    // There is room for one, so the next is only heard when the first was let go.
    let mut next = TcpStream::connect(served.address).await.unwrap();
    assert!(ask(&mut next, "/quick").await.ends_with("here"));
}
