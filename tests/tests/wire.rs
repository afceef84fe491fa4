//! Hostile bytes on every port: the connection is closed, and nothing else happens.

use crate::shorthands::s;
use lagan_tests::cluster::Cluster;
use lagan_tests::random::Random;
use lagan_tests::run::LONG;
use lagan_tests::{Options, http, with_cluster};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// A server closes a connection that makes no sense within this.
const CLOSED_WITHIN: Duration = s(40);

/// What is sent.
fn attacks() -> Vec<(&'static str, Vec<u8>)> {
    let mut random = Random::new(99);
    let mut all: Vec<(&'static str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("one byte", vec![0]),
        ("zeros", vec![0; 4096]),
        ("ones", vec![0xff; 4096]),
        (
            "an HTTP request",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        ),
        ("a TLS hello", vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]),
        (
            "a long HTTP header",
            [b"GET /".to_vec(), vec![b'a'; 1 << 20]].concat(),
        ),
    ];
    // a length in each of the places where it could be
    for at in 0..32 {
        let mut bytes = b"LAGN\x01\x00\x00\x00".to_vec();
        bytes.resize(64, 0);
        bytes[at..at + 8].copy_from_slice(&[0xff; 8]);
        all.push(("a huge length", bytes));
    }
    for _ in 0..40 {
        let len = random.size(1, 200_000) as usize;
        all.push(("random bytes", random.bytes(len)));
    }
    all
}

/// Sends, and waits until the server closes.
fn attack(addr: &str, bytes: &[u8]) -> Result<(), String> {
    let addr: SocketAddr = addr.parse().map_err(|e| format!("{addr}: {e}"))?;
    let stream = TcpStream::connect_timeout(&addr, s(10)).map_err(|e| format!("connect: {e}"))?;
    let mut stream = stream;
    let _ = stream.set_write_timeout(Some(CLOSED_WITHIN));
    let _ = stream.set_read_timeout(Some(CLOSED_WITHIN));
    // it may close in the middle: that is what is wanted
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let began = Instant::now();
    let mut answer = [0; 4096];
    loop {
        match stream.read(&mut answer) {
            Ok(0) => return Ok(()),
            Ok(_) if began.elapsed() > CLOSED_WITHIN => return Err("keeps talking".into()),
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return Ok(()),
            Err(e) => return Err(format!("not closed: {e}")),
        }
    }
}

fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it is alive");
    let line = status
        .lines()
        .find(|l| l.starts_with("VmRSS:"))
        .expect("a process has memory");
    let kib = line
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse::<u64>().ok());
    kib.expect("a number") * 1024
}

#[test]
fn hostile_bytes_close_the_connection_and_nothing_else() {
    with_cluster(Options::default(), LONG, |cluster| {
        std::fs::write(cluster.a().join("x"), b"before").expect("write");
        let server = cluster.process("server-1");
        let before = resident_bytes(server.pid);
        let ports = [&server.addr, &server.peer_addr, &server.http];
        for addr in ports.map(|a| a.as_ref().expect("a server has three addresses")) {
            let attacks = attacks();
            std::thread::scope(|scope| {
                let parts = attacks.chunks(attacks.len().div_ceil(8));
                let threads: Vec<_> = parts
                    .map(|part| {
                        scope.spawn(move || {
                            let failed = part.iter().find_map(|(name, bytes)| {
                                attack(addr, bytes)
                                    .err()
                                    .map(|why| format!("{name}: {why}"))
                            });
                            assert_eq!(failed, None, "on {addr}");
                        })
                    })
                    .collect();
                threads
                    .into_iter()
                    .for_each(|t| t.join().expect("an attack failed"));
            });
        }
        let grown = resident_bytes(server.pid).saturating_sub(before);
        assert!(grown < 128 << 20, "grew by {grown} bytes");
        let log = std::fs::read_to_string(&server.log).expect("read its log");
        assert!(
            log.contains("bad bytes on http"),
            "it is told, once in a while"
        );
        still_works(cluster);
    });
}

#[test]
fn many_silent_connections_keep_nobody_out() {
    with_cluster(Options::default(), LONG, |cluster| {
        let server = cluster.process(&cluster.leader());
        let addr = server.addr.expect("a server has an address");
        let addr: SocketAddr = addr.parse().expect("an address");
        let mut held = Vec::new();
        for _ in 0..300 {
            // a server may refuse more at some point
            held.extend(TcpStream::connect_timeout(&addr, s(5)));
        }
        assert!(held.len() >= 50, "{} connections", held.len());
        still_works(cluster);
        drop(held);
    });
}

fn still_works(cluster: &Cluster) {
    for server in cluster
        .record()
        .processes
        .iter()
        .filter(|p| p.role == "server")
    {
        let addr = server.http.as_ref().expect("a server has a health page");
        assert_eq!(http::get(addr, "/health").expect("it answers").0, 200);
    }
    std::fs::write(cluster.a().join("after"), b"after").expect("write");
    assert_eq!(
        std::fs::read(cluster.b().join("after")).expect("read"),
        b"after"
    );
    cluster.wait_healthy();
}
