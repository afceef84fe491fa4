use super::*;
use crate::connection::Connection;
use crate::frame::{FrameKind, encode_header};
use crate::handler::Peer;
use crate::handshake;
use crate::handshake::Hello;
use crate::message::Request;
use crate::reply::Reply;
use crate::testing::{LONG, Running, eventually, hello, payload};
use bytes::Bytes;
use std::sync::atomic::Ordering::SeqCst;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn shaken(server: &Running) -> TcpStream {
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    handshake::open(&mut stream, &hello()).await.unwrap();
    stream
}

/// The server closes this connection by itself; gives what it had said.
async fn is_closed(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(LONG, stream.read_to_end(&mut bytes)).await;
    // A reset is as closed as an end.
    let _ = read.expect("still open");
    bytes
}

async fn still_serves(server: &Running) {
    let connection = Connection::open(server.addr, None, &hello(), LONG)
        .await
        .unwrap();
    let got = connection.call(b"x".to_vec(), Bytes::new(), LONG).await;
    assert_eq!(got.unwrap().head, &b"x"[..]);
}

/// Deterministic noise.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

#[tokio::test]
async fn strangers_bytes_close_their_connection_only() {
    let server = Running::start(ServerLimits::default());
    for seed in 0..20 {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        let _ = stream.write_all(&noise(seed, 200)).await;
        assert!(is_closed(stream).await.is_empty());
    }
    for text in [
        "GET / HTTP/1.1\r\n\r\n",
        "LAGN",
        "LAGNxxxxxxxxxxxxxxxxxxxxxxxx",
    ] {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        is_closed(stream).await;
    }
    still_serves(&server).await;
    assert_eq!(server.echo.seen.load(SeqCst), 1);
}

#[tokio::test]
async fn bad_frames_close_their_connection_only() {
    let server = Running::start(ServerLimits::default());
    let call = encode_header(FrameKind::Call, 1, b"abc", 0);
    let mut wrong_crc = call.to_vec();
    wrong_crc.extend_from_slice(b"abd");
    let mut huge_head = call.to_vec();
    huge_head[..3].copy_from_slice(&[0xff; 3]);
    let mut huge_data = call.to_vec();
    huge_data[4..8].copy_from_slice(&[0xff; 4]);
    let answer = encode_header(FrameKind::Answer, 1, b"", 0).to_vec();
    for bytes in [
        wrong_crc,
        huge_head,
        huge_data,
        answer,
        noise(1, 500),
        vec![0xff; 64],
    ] {
        let mut stream = shaken(&server).await;
        let _ = stream.write_all(&bytes).await;
        assert!(is_closed(stream).await.is_empty());
    }
    let mut truncated = shaken(&server).await;
    truncated.write_all(&call).await.unwrap();
    truncated.shutdown().await.unwrap();
    assert!(is_closed(truncated).await.is_empty());
    still_serves(&server).await;
    eventually("all gone", || server.echo.gone.load(SeqCst) >= 8).await;
}

#[tokio::test]
async fn slow_handshakes_and_frames_are_cut_off() {
    let limits = ServerLimits {
        handshake_deadline: Duration::from_millis(100),
        frame_deadline: Duration::from_millis(100),
        ..ServerLimits::default()
    };
    let server = Running::start(limits);
    let mut silent = TcpStream::connect(server.addr).await.unwrap();
    silent.write_all(b"LAG").await.unwrap();
    is_closed(silent).await;

    let mut stream = shaken(&server).await;
    let dripping = tokio::spawn(async move {
        let header = encode_header(FrameKind::Call, 1, &[0; 1000], 0);
        for byte in header.into_iter().chain([0; 1000]) {
            if stream.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("a frame dripped in");
    });
    tokio::time::timeout(LONG, dripping).await.unwrap().unwrap();
    still_serves(&server).await;
}

#[tokio::test]
async fn a_handler_that_panics_ends_its_connection_only() {
    let server = Running::start(ServerLimits::default());
    let connection = Connection::open(server.addr, None, &hello(), LONG).await;
    let connection = connection.unwrap();
    let got = connection.call(b"panic".to_vec(), Bytes::new(), LONG).await;
    assert!(got.is_err());
    eventually("closed", || !connection.is_usable()).await;
    eventually("gone", || server.echo.gone.load(SeqCst) == 1).await;
    still_serves(&server).await;
}

#[tokio::test]
async fn an_idle_connection_stays() {
    let limits = ServerLimits {
        frame_deadline: Duration::from_millis(20),
        ..ServerLimits::default()
    };
    let server = Running::start(limits);
    let connection = Connection::open(server.addr, None, &hello(), LONG)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(
        connection
            .call(b"x".to_vec(), Bytes::new(), LONG)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_peer_that_takes_no_answers_is_read_no_further() {
    let limits = ServerLimits {
        in_flight_len_max: 1 << 20,
        ..ServerLimits::default()
    };
    let server = Running::start(limits);
    let mut stream = shaken(&server).await;
    let data = payload(64 * 1024);
    let flood = tokio::spawn(async move {
        for id in 0..2_000u64 {
            let mut frame = encode_header(FrameKind::Call, id, b"x", data.len()).to_vec();
            frame.push(b'x');
            frame.extend_from_slice(&data);
            if stream.write_all(&frame).await.is_err() {
                break;
            }
        }
        stream
    });
    // 128 MB of answers would fit in no socket buffer: the flood must stop.
    let mut seen = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = server.echo.seen.load(SeqCst);
        if now == seen {
            break;
        }
        seen = now;
    }
    assert!(seen > 0 && seen < 1_000, "{seen} requests were read");
    assert!(!flood.is_finished());
    still_serves(&server).await;
    flood.abort();
}

#[tokio::test]
async fn unanswered_requests_are_limited_and_reading_resumes() {
    let limits = ServerLimits {
        in_flight_max: 4,
        ..ServerLimits::default()
    };
    let server = Running::start(limits);
    let connection = Connection::open(server.addr, None, &hello(), LONG)
        .await
        .unwrap();
    let connection = Arc::new(connection);
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let connection = connection.clone();
            tokio::spawn(async move { connection.call(b"hold".to_vec(), Bytes::new(), LONG).await })
        })
        .collect();
    eventually("four held", || server.echo.held.lock().len() == 4).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.echo.seen.load(SeqCst), 4);
    for answered in 1..=10 {
        eventually("one held", || !server.echo.held.lock().is_empty()).await;
        let (request, reply) = server.echo.held.lock().remove(0);
        reply.send(crate::testing::echo(request));
        let limit = (answered + 4).min(10);
        assert!(server.echo.seen.load(SeqCst) <= limit);
    }
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn connections_over_the_limit_are_closed() {
    let limits = ServerLimits {
        connections_max: 2,
        ..ServerLimits::default()
    };
    let server = Running::start(limits);
    let first = shaken(&server).await;
    let _second = shaken(&server).await;
    is_closed(TcpStream::connect(server.addr).await.unwrap()).await;
    drop(first);
    eventually("one gone", || server.echo.gone.load(SeqCst) == 1).await;
    // The place is given back just after the handler heard of the end.
    let mut tries = 0;
    while Connection::open(server.addr, None, &hello(), LONG)
        .await
        .is_err()
    {
        tries += 1;
        assert!(tries < 1_000);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_second_server_on_the_same_address_is_refused() {
    let server = Running::start(ServerLimits::default());
    let second = Server::bind(
        server.addr,
        server.echo.clone(),
        ServerLimits::default(),
        CancellationToken::new(),
    );
    assert_eq!(second.unwrap_err().kind(), io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn memory_is_bounded_over_all_connections_and_none_starves() {
    let limits = ServerLimits {
        total_in_flight_len_max: 4 << 20,
        ..ServerLimits::default()
    };
    let server = Running::start(limits);
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let connection = Connection::open(server.addr, None, &hello(), LONG).await;
        let connection = Arc::new(connection.unwrap());
        for _ in 0..8 {
            let connection = connection.clone();
            tasks.push(tokio::spawn(async move {
                connection
                    .call(b"hold".to_vec(), payload(1 << 20), LONG)
                    .await
            }));
        }
    }
    let held = || server.echo.held.lock().len();
    eventually("some held", || held() >= 4).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    // The total, and for each connection its share and one more.
    assert!(held() <= 4 + 4, "{} held", held());
    still_serves(&server).await;
    let mut answered = 0;
    while answered < tasks.len() {
        eventually("one held", || held() > 0).await;
        let (request, reply) = server.echo.held.lock().remove(0);
        reply.send(crate::testing::echo(request));
        answered += 1;
    }
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap().data.len(), 1 << 20);
    }
}

#[tokio::test]
async fn a_reservation_counts_against_the_limit() {
    struct Reserving(parking_lot::Mutex<Vec<Reply>>);
    impl Handler for Reserving {
        fn check_hello(&self, hello: &Hello, _: SocketAddr) -> Result<Hello, String> {
            Ok(hello.clone())
        }
        fn handle(&self, _: &Arc<Peer>, _: Request, mut reply: Reply) {
            reply.reserve(20 << 20);
            self.0.lock().push(reply);
        }
    }
    let handler = Arc::new(Reserving(parking_lot::Mutex::default()));
    let cancel = CancellationToken::new();
    let at = "127.0.0.1:0".parse().unwrap();
    let limits = ServerLimits::default();
    let server = Server::bind(at, handler.clone(), limits, cancel.clone()).unwrap();
    let connection = Connection::open(server.local_addr(), None, &hello(), LONG).await;
    let connection = Arc::new(connection.unwrap());
    let calls: Vec<_> = (0..5)
        .map(|_| {
            let connection = connection.clone();
            tokio::spawn(async move { connection.call(vec![], Bytes::new(), LONG).await })
        })
        .collect();
    eventually("two held", || handler.0.lock().len() == 2).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(handler.0.lock().len(), 2);
    cancel.cancel();
    handler.0.lock().clear();
    for call in calls {
        assert!(call.await.unwrap().is_err());
    }
    server.join().await;
}
