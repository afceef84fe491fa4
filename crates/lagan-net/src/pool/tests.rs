use super::*;
use crate::ServerLimits;
use crate::testing::{LONG, Running, hello};
use lagan_types::message::Service;

fn pool() -> Pool {
    Pool::new(PoolOptions::new(hello()))
}

async fn call(pool: &Pool, addr: SocketAddr, deadline: Duration) -> Result<Response, NetError> {
    pool.call(addr, Service::Meta, b"x".to_vec(), Bytes::new(), deadline)
        .await
}

#[tokio::test]
async fn one_connection_serves_all_calls_of_a_service() {
    let server = Running::start(ServerLimits::default());
    let pool = pool();
    for _ in 0..5 {
        call(&pool, server.addr, LONG).await.unwrap();
    }
    let first = pool
        .connection(server.addr, Service::Meta, LONG)
        .await
        .unwrap();
    let again = pool
        .connection(server.addr, Service::Meta, LONG)
        .await
        .unwrap();
    let raft = pool
        .connection(server.addr, Service::Raft, LONG)
        .await
        .unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    assert!(!Arc::ptr_eq(&first, &raft));
    assert_eq!(raft.server().service, Service::Raft);
    let bulk = pool
        .connection(server.addr, Service::Chunk, LONG)
        .await
        .unwrap();
    let other = pool
        .connection(server.addr, Service::Chunk, LONG)
        .await
        .unwrap();
    assert!(!Arc::ptr_eq(&bulk, &other));
}

#[tokio::test]
async fn a_server_that_comes_back_is_found_again() {
    let mut server = Running::start(ServerLimits::default());
    let pool = pool();
    call(&pool, server.addr, LONG).await.unwrap();
    server.stop().await;
    let end = Instant::now() + LONG;
    while call(&pool, server.addr, LONG).await.is_ok() {
        assert!(Instant::now() < end);
    }
    let again = Running::start_at(server.addr, ServerLimits::default());
    while call(&pool, again.addr, LONG).await.is_err() {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_known_bad_address_fails_at_once() {
    let addr = {
        let mut server = Running::start(ServerLimits::default());
        server.stop().await;
        server.addr
    };
    let pool = pool();
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let start = Instant::now();
        let got = call(&pool, addr, LONG).await;
        assert!(matches!(got, Err(NetError::Connect { .. })));
        slowest = slowest.max(start.elapsed());
    }
    assert!(slowest < LONG / 2);
}

#[tokio::test]
async fn silence_keeps_no_caller_beyond_its_deadline() {
    // Takes connections, says nothing.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut options = PoolOptions::new(hello());
    options.connect_deadline = Duration::from_millis(200);
    let pool = Pool::new(options);
    let got = call(&pool, addr, Duration::from_millis(30)).await;
    assert!(matches!(got, Err(NetError::Connect { silent: true, .. })));
    let got = call(&pool, addr, LONG).await;
    assert!(matches!(got, Err(NetError::Connect { silent: true, .. })));
    // Known to be silent: later attempts go on behind the callers' backs.
    for _ in 0..10 {
        let start = Instant::now();
        assert!(call(&pool, addr, LONG).await.is_err());
        assert!(start.elapsed() < LONG / 2);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn back_off_doubles_up_to_its_limit() {
    let now = Instant::now();
    let error = NetError::Closed { sent: false };
    let mut failure = None;
    let mut waits = Vec::new();
    for _ in 0..8 {
        let next = Failure::after(failure, error.clone(), now);
        assert!(next.again_at >= now + next.back_off / 2);
        assert!(next.again_at <= now + next.back_off);
        waits.push(next.back_off.as_millis());
        failure = Some(next);
    }
    assert_eq!(waits, [50, 100, 200, 400, 800, 1000, 1000, 1000]);
}

#[tokio::test]
async fn a_closed_pool_ends_its_calls() {
    let server = Running::start(ServerLimits::default());
    let pool = pool();
    let connection = pool
        .connection(server.addr, Service::Meta, LONG)
        .await
        .unwrap();
    pool.close();
    assert!(!connection.is_usable());
    call(&pool, server.addr, LONG).await.unwrap();
}
