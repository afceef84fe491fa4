use super::*;
use crate::ServerLimits;
use crate::testing::{LONG, Running, eventually, hello, payload};
use lagan_types::Incarnation;
use std::sync::atomic::Ordering::SeqCst;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

async fn connect(server: &Running) -> Arc<Connection> {
    let connection = Connection::open(server.addr, None, &hello(), LONG).await;
    Arc::new(connection.unwrap())
}

/// A listener that shakes hands and then does what a test says.
async fn bare() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

async fn accept_bare(listener: &TcpListener) -> tokio::net::TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    handshake::answer(&mut stream, |h| Ok(h.clone()))
        .await
        .unwrap();
    stream
}

#[tokio::test]
async fn calls_are_answered_one_by_one() {
    let server = Running::start(ServerLimits::default());
    let connection = connect(&server).await;
    for len in [0, 1, 100, 8_192, 8_193, 32_768, 32_769, 300_000] {
        let got = connection
            .call(vec![len as u8; 9], payload(len), LONG)
            .await;
        let got = got.unwrap();
        assert_eq!(got.head, vec![len as u8; 9]);
        assert_eq!(got.data, payload(len));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_calls_at_a_time_get_their_own_answers() {
    let server = Running::start(ServerLimits::default());
    let connection = connect(&server).await;
    let mut tasks = JoinSet::new();
    for task in 0..64u64 {
        let connection = connection.clone();
        tasks.spawn(async move {
            for n in 0..100u64 {
                let head = if n % 7 == 0 {
                    b"later".to_vec()
                } else {
                    (task * 1000 + n).to_le_bytes().to_vec()
                };
                let data = payload((n * 37 % 20_000) as usize);
                let got = connection
                    .call(head.clone(), data.clone(), LONG)
                    .await
                    .unwrap();
                assert_eq!(got.head, head);
                assert_eq!(got.data, data);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(connection.calls(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_payloads_both_ways_within_small_limits() {
    let limits = ServerLimits {
        in_flight_len_max: 1 << 20,
        ..ServerLimits::default()
    };
    let server = Running::start(limits);
    let options = ConnectionOptions {
        queue_len_max: 1 << 20,
        calls_max: 3,
        ..ConnectionOptions::default()
    };
    let connection = Connection::open_with(server.addr, &hello(), options, LONG).await;
    let connection = Arc::new(connection.unwrap());
    let mut tasks = JoinSet::new();
    for i in 0..16 {
        let connection = connection.clone();
        tasks.spawn(async move {
            let data = payload((1 << 20) + i);
            let got = connection.call(vec![1], data.clone(), LONG).await.unwrap();
            assert!(got.data == data);
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_call_ends_at_its_deadline_and_the_connection_goes_on() {
    let server = Running::start(ServerLimits::default());
    let connection = connect(&server).await;
    let got = connection
        .call(b"hold".to_vec(), Bytes::new(), Duration::from_millis(50))
        .await;
    assert_eq!(got, Err(NetError::TimedOut { sent: true }));
    assert_eq!(connection.calls(), 0);
    // Its late answer reaches nobody, least of all the call that took its slot.
    let (request, reply) = server.echo.held.lock().pop().unwrap();
    reply.send(crate::testing::echo(request));
    let got = connection.call(b"next".to_vec(), Bytes::new(), LONG).await;
    assert_eq!(got.unwrap().head, &b"next"[..]);
}

#[tokio::test]
async fn a_dropped_call_leaves_nothing_behind() {
    let server = Running::start(ServerLimits::default());
    let connection = connect(&server).await;
    {
        let call = connection.call(b"hold".to_vec(), Bytes::new(), LONG);
        let _ = tokio::time::timeout(Duration::from_millis(20), call).await;
    }
    assert_eq!(connection.calls(), 0);
    let got = connection.call(b"next".to_vec(), Bytes::new(), LONG).await;
    assert_eq!(got.unwrap().head, &b"next"[..]);
}

#[tokio::test]
async fn a_request_that_the_handler_drops_ends_at_once() {
    let server = Running::start(ServerLimits::default());
    let connection = connect(&server).await;
    let got = connection.call(b"drop".to_vec(), Bytes::new(), LONG).await;
    assert_eq!(got, Err(NetError::Closed { sent: true }));
}

#[tokio::test]
async fn calls_end_when_the_server_stops() {
    let limits = ServerLimits {
        drain_deadline: Duration::from_millis(50),
        ..ServerLimits::default()
    };
    let mut server = Running::start(limits);
    let connection = connect(&server).await;
    let waiting = tokio::spawn({
        let connection = connection.clone();
        async move { connection.call(b"hold".to_vec(), Bytes::new(), LONG).await }
    });
    eventually("held", || !server.echo.held.lock().is_empty()).await;
    server.stop().await;
    let got = waiting.await.unwrap();
    assert_eq!(got, Err(NetError::Closed { sent: true }));
    eventually("unusable", || !connection.is_usable()).await;
    let got = connection.call(b"more".to_vec(), Bytes::new(), LONG).await;
    assert_eq!(got, Err(NetError::Closed { sent: false }));
    assert_eq!(server.echo.gone.load(SeqCst), 1);
}

#[tokio::test]
async fn a_stopping_server_answers_what_it_was_asked() {
    let mut server = Running::start(ServerLimits::default());
    let connection = connect(&server).await;
    let waiting = tokio::spawn({
        let connection = connection.clone();
        async move { connection.call(b"hold".to_vec(), Bytes::new(), LONG).await }
    });
    eventually("held", || !server.echo.held.lock().is_empty()).await;
    server.cancel.cancel();
    eventually("goodbye", || !connection.is_usable()).await;
    let (request, reply) = server.echo.held.lock().pop().unwrap();
    reply.send(crate::testing::echo(request));
    assert_eq!(waiting.await.unwrap().unwrap().head, &b"hold"[..]);
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_dies_in_the_middle_ends_all_calls() {
    let (listener, addr) = bare().await;
    let opening = hello();
    let (connection, mut stream) = tokio::join!(
        Connection::open(addr, None, &opening, LONG),
        accept_bare(&listener)
    );
    let connection = Arc::new(connection.unwrap());
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let connection = connection.clone();
            tokio::spawn(async move { connection.call(vec![1], payload(9_000), LONG).await })
        })
        .collect();
    let mut some = [0; 5_000];
    stream.read_exact(&mut some).await.unwrap();
    drop(stream);
    for call in calls {
        let got = call.await.unwrap();
        assert!(matches!(got, Err(NetError::Closed { .. })), "{got:?}");
    }
    assert_eq!(connection.calls(), 0);
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let (listener, addr) = bare().await;
    let options = ConnectionOptions {
        ping_after: Duration::from_millis(40),
        // So much later that a late look finds the time for the ping first.
        dead_after: Duration::from_millis(700),
        ..ConnectionOptions::default()
    };
    let opening = hello();
    let (connection, mut stream) = tokio::join!(
        Connection::open_with(addr, &opening, options, LONG),
        accept_bare(&listener)
    );
    let connection = connection.unwrap();
    let got = connection.call(b"x".to_vec(), Bytes::new(), LONG).await;
    assert_eq!(got, Err(NetError::Closed { sent: true }));
    assert!(!connection.is_usable());
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    // The call (a header and one byte), then the ping; more than one if we slept.
    let pings = &bytes[20 + 1..];
    assert!(!pings.is_empty() && pings.len() % 20 == 0, "{bytes:?}");
    assert!(pings.chunks(20).all(|p| p[3] == FrameKind::Ping as u8));
}

#[tokio::test]
async fn a_slow_answer_is_no_silence() {
    let server = Running::start(ServerLimits::default());
    let options = ConnectionOptions {
        ping_after: Duration::from_millis(20),
        dead_after: Duration::from_secs(5),
        ..ConnectionOptions::default()
    };
    let connection = Connection::open_with(server.addr, &hello(), options, LONG).await;
    let connection = Arc::new(connection.unwrap());
    let waiting = tokio::spawn({
        let connection = connection.clone();
        async move { connection.call(b"hold".to_vec(), Bytes::new(), LONG).await }
    });
    eventually("pongs came", || connection.inner.reads.load(SeqCst) >= 3).await;
    let (request, reply) = server.echo.held.lock().pop().unwrap();
    reply.send(crate::testing::echo(request));
    assert!(waiting.await.unwrap().is_ok());
}

#[tokio::test]
async fn an_answer_to_no_call_ends_the_connection() {
    let (listener, addr) = bare().await;
    let opening = hello();
    let (connection, mut stream) = tokio::join!(
        Connection::open(addr, None, &opening, LONG),
        accept_bare(&listener)
    );
    let connection = connection.unwrap();
    let header = crate::frame::encode_header(FrameKind::Answer, 12345, &[], 0);
    tokio::io::AsyncWriteExt::write_all(&mut stream, &header)
        .await
        .unwrap();
    eventually("closed", || !connection.is_usable()).await;
}

#[tokio::test]
async fn too_long_calls_are_refused_here() {
    let server = Running::start(ServerLimits::default());
    let connection = connect(&server).await;
    let max = FrameLimits::default().data_len_max as usize;
    let got = connection.call(vec![], payload(max + 1), LONG).await;
    assert_eq!(got, Err(NetError::TooLarge { len: max + 1, max }));
    let got = connection.call(vec![], payload(max), LONG).await.unwrap();
    assert_eq!(got.data.len(), max);
}

#[tokio::test]
async fn a_full_connection_times_out_unsent() {
    let server = Running::start(ServerLimits::default());
    let options = ConnectionOptions {
        calls_max: 1,
        ..ConnectionOptions::default()
    };
    let connection = Connection::open_with(server.addr, &hello(), options, LONG).await;
    let connection = Arc::new(connection.unwrap());
    let waiting = tokio::spawn({
        let connection = connection.clone();
        async move { connection.call(b"hold".to_vec(), Bytes::new(), LONG).await }
    });
    eventually("held", || !server.echo.held.lock().is_empty()).await;
    let got = connection
        .call(b"x".to_vec(), Bytes::new(), Duration::from_millis(30))
        .await;
    assert_eq!(got, Err(NetError::TimedOut { sent: false }));
    let next = tokio::spawn({
        let connection = connection.clone();
        async move { connection.call(b"y".to_vec(), Bytes::new(), LONG).await }
    });
    server.echo.held.lock().clear();
    assert!(waiting.await.unwrap().is_err());
    assert!(next.await.unwrap().is_ok());
}

#[tokio::test]
async fn nobody_there_and_another_cluster_are_told_apart() {
    let (listener, addr) = bare().await;
    drop(listener);
    let got = Connection::open(addr, None, &hello(), LONG).await;
    assert!(matches!(got, Err(NetError::Connect { silent: false, .. })));

    let server = Running::start(ServerLimits::default());
    let mut stranger = hello();
    stranger.incarnation = Some(Incarnation(9));
    let got = Connection::open(server.addr, None, &stranger, LONG).await;
    assert!(matches!(got, Err(NetError::Refused { .. })), "{got:?}");
    stranger.incarnation = None;
    let asked = Connection::open(server.addr, None, &stranger, LONG).await;
    assert_eq!(asked.unwrap().server().incarnation, Some(Incarnation(1)));
}

#[tokio::test]
async fn a_silent_handshake_ends_at_the_deadline() {
    let (_listener, addr) = bare().await;
    let got = Connection::open(addr, None, &hello(), Duration::from_millis(50)).await;
    assert!(matches!(got, Err(NetError::Connect { silent: true, .. })));
}

#[tokio::test]
async fn connections_leave_from_the_address_given() {
    let (listener, addr) = bare().await;
    let from = "127.0.0.9".parse().ok();
    let hello = hello();
    let (connection, accepted) = tokio::join!(
        Connection::open(addr, from, &hello, Duration::from_millis(300)),
        listener.accept()
    );
    assert!(connection.is_err());
    assert_eq!(Some(accepted.unwrap().1.ip()), from);
}
