//! Calls per second over loopback, and the processor time that one takes,
//! both sides together:
//! `cargo run --profile dist -p lagan-benches --bin net-rate -- [THREADS]`.

use bytes::Bytes;
use lagan_benches::cpu;
use lagan_net::{
    Connection, Handler, Hello, Peer, Reply, Request, Response, Role, Server, ServerLimits, Service,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

struct Echo;

impl Handler for Echo {
    fn check_hello(&self, hello: &Hello, _: SocketAddr) -> Result<Hello, String> {
        Ok(hello.clone())
    }

    fn handle(&self, _: &Arc<Peer>, request: Request, reply: Reply) {
        reply.send(Response {
            head: request.head,
            data: Bytes::new(),
        });
    }
}

/// Calls at a time, bytes of head and data, calls in all.
const CASES: [(usize, usize, usize, usize); 4] = [
    (1, 100, 0, 20_000),
    (64, 100, 0, 400_000),
    (16, 40, 16 * 1024, 60_000),
    (4, 40, 1024 * 1024, 2_000),
];

fn main() {
    let threads = std::env::args().nth(1).and_then(|n| n.parse().ok());
    let runtime = match threads.unwrap_or(1) {
        1 => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build(),
        n => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(n)
            .enable_all()
            .build(),
    };
    runtime.expect("make a runtime").block_on(run());
}

async fn run() {
    let cancel = CancellationToken::new();
    let addr = "127.0.0.1:0".parse().expect("an address");
    let limits = ServerLimits::default();
    let server = Server::bind(addr, Arc::new(Echo), limits, cancel.clone()).expect("listen");
    let hello = Hello::client(Role::Mount, None, Service::Meta);
    let second = Duration::from_secs(1);
    let connection = Connection::open(server.local_addr(), None, &hello, second).await;
    let connection = Arc::new(connection.expect("connect"));
    for (depth, head, data, calls) in CASES {
        let (start, busy) = (Instant::now(), cpu::used());
        measure(&connection, depth, head, data, calls).await;
        let (elapsed, busy) = (start.elapsed().as_secs_f64(), cpu::used() - busy);
        println!(
            "{head:>4} B + {data:>7} B, {depth:>2} at a time: {:>8.0}/s, {:>7.1} MB/s, {:>7.2} us processor time each",
            calls as f64 / elapsed,
            (calls * (head + data)) as f64 / elapsed / 1e6,
            busy.as_secs_f64() * 1e6 / calls as f64,
        );
    }
    cancel.cancel();
    server.join().await;
}

async fn measure(
    connection: &Arc<Connection>,
    depth: usize,
    head: usize,
    data: usize,
    calls: usize,
) {
    let (head, data) = (Bytes::from(vec![7; head]), Bytes::from(vec![7; data]));
    let mut tasks = Vec::new();
    for _ in 0..depth {
        let (connection, head, data) = (connection.clone(), head.clone(), data.clone());
        tasks.push(tokio::spawn(async move {
            for _ in 0..calls / depth {
                let deadline = Duration::from_secs(10);
                let call = connection.call(head.clone(), data.clone(), deadline);
                call.await.expect("an answer");
            }
        }));
    }
    for task in tasks {
        task.await.expect("a task that ends");
    }
}
