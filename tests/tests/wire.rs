//! Hostile bytes on every port: the connection is closed, and nothing else happens.

use crate::shorthands::s;
use lagan_tests::cluster::{Cluster, PATIENCE};
use lagan_tests::random::Random;
use lagan_tests::run::LONG;
use lagan_tests::wait::until;
use lagan_tests::{Options, http, with_cluster};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// A server closes a connection that makes no sense within this.
const CLOSED_WITHIN: Duration = PATIENCE;
/// A connection is made within this.
const CONNECTED_WITHIN: Duration = s(20);

/// Bytes that are sent.
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
    let stream =
        TcpStream::connect_timeout(&addr, CONNECTED_WITHIN).map_err(|e| format!("connect: {e}"))?;
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

/// The services that a connection can be for, as its hello names them.
const NODE: u8 = 0;
const META: u8 = 1;
const LEADER: u8 = 2;
const CHUNK: u8 = 3;
const ARCHIVE: u8 = 4;
const RAFT: u8 = 5;
/// Kinds of frames.
const CALL: u8 = 0;
const ANSWER: u8 = 1;

/// A connection as of a peer that is in order so far. A handshake that takes over three
/// seconds is cut off, so that a try may fail where nothing is wrong.
fn shake_hands(addr: &str, service: u8) -> TcpStream {
    let addr: SocketAddr = addr.parse().expect("an address");
    until("a handshake", PATIENCE, || {
        try_shake_hands(addr, service).ok()
    })
}

/// The handshake of `lagan-net`.
fn try_shake_hands(addr: SocketAddr, service: u8) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&addr, CONNECTED_WITHIN)?;
    stream.set_read_timeout(Some(CLOSED_WITHIN))?;
    // a mount, or for raft a server, of no cluster, node, store and boot yet; its build is "t"
    let role = u8::from(service == RAFT);
    let body = [role, 0, 0, 0, 0, service, 1, b't'];
    let mut hello = b"LAGN\x09\x00\x09\x00\x08\x00\x00\x00".to_vec();
    let crc = crc32fast::hash(&[&hello[..], &body].concat());
    hello.extend_from_slice(&crc.to_le_bytes());
    hello.extend_from_slice(&body);
    stream.write_all(&hello)?;
    let mut answer = [0; 16];
    stream.read_exact(&mut answer)?;
    assert_eq!(
        (&answer[..4], &answer[6..8]),
        (&b"LAGN"[..], &[0, 0][..]),
        "accepted"
    );
    let len = u32::from_le_bytes([answer[8], answer[9], answer[10], answer[11]]);
    let mut hello = vec![0; len as usize];
    stream.read_exact(&mut hello)?;
    Ok(stream)
}

/// A frame with a right checksum that says that so many bytes of data follow.
fn frame(kind: u8, head: &[u8], data_len: u32) -> Vec<u8> {
    let mut bytes = (head.len() as u32 | u32::from(kind) << 24)
        .to_le_bytes()
        .to_vec();
    bytes.extend_from_slice(&data_len.to_le_bytes());
    bytes.extend_from_slice(&7u64.to_le_bytes());
    let crc = crc32fast::hash(&[&bytes[..], head].concat());
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(head);
    bytes
}

/// Bytes that are no frame.
fn bad_frames() -> Vec<(&'static str, Vec<u8>)> {
    let mut damaged = frame(CALL, b"hello", 0);
    damaged[16] ^= 1;
    let mut long_head = frame(CALL, &[], 0);
    long_head[..3].fill(0xff);
    vec![
        ("a head over the limit", long_head),
        ("data over the limit", frame(CALL, &[9], u32::MAX)),
        ("an unknown kind of frame", frame(77, &[], 0)),
        ("a wrong checksum", damaged),
        ("an answer to nothing", frame(ANSWER, &[9], 0)),
    ]
}

/// Frames whose heads are no message of the service.
fn bad_messages(service: u8) -> Vec<(&'static str, Vec<u8>)> {
    // what comes before a list that has no end
    let before: &[u8] = match service {
        // the address of a server
        NODE => &[2],
        // inodes whose attributes are wanted
        META => &[1, 1, 1, 2],
        // the inodes that a mount has open
        LEADER => &[0, 1, 0],
        // objects, or chunks
        ARCHIVE => &[1],
        CHUNK => &[3],
        // raft's entries
        _ => &[2, 0, 0, 0, 0, 0, 0],
    };
    let endless = [before, &[253], &[0xff; 8]].concat();
    let unknown = match service {
        RAFT => frame(CALL, &[2, 200], 0),
        _ => frame(CALL, &[200], 0),
    };
    // an append without entries
    let surplus = [frame(CALL, &[2, 0, 0, 0, 0, 0, 0, 0], 4), vec![7; 4]].concat();
    let raft_only = vec![
        ("another version", frame(CALL, &[200, 0], 0)),
        ("data that no entry names", surplus),
    ];
    let raft_only = raft_only.into_iter().filter(|_| service == RAFT);
    let all = vec![
        ("garbage", frame(CALL, &[0xff; 300], 0)),
        ("an empty message", frame(CALL, &[], 0)),
        ("an endless list", frame(CALL, &endless, 0)),
        ("a thousand unknown messages", unknown.repeat(1000)),
        ("an unknown message", unknown),
    ];
    all.into_iter().chain(raft_only).collect()
}

/// Sends through a connection that has shaken hands; the server must close it
/// by itself and say so in one line.
fn attack_inside(addr: &str, log: &std::path::Path, service: u8, (name, bytes): (&str, &[u8])) {
    let read = || std::fs::read_to_string(log).expect("read the log");
    // An attack before may have come from the same port.
    let before = read().len();
    let mut stream = shake_hands(addr, service);
    let own = stream.local_addr().expect("an address").to_string();
    // it may close in the middle: that is what is wanted
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(e) => panic!("{name}: not closed: {e}"),
    }
    assert!(answer.len() < 64 << 10, "{name}: {} bytes", answer.len());
    let lines = || {
        let text = read();
        let new = text[before..].lines();
        new.filter(|l| l.contains(&own)).count()
    };
    until(&format!("{name} is logged"), PATIENCE, || {
        (lines() > 0).then_some(())
    });
    assert_eq!(lines(), 1, "{name}: lines about {own}");
}

#[test]
fn hostile_frames_after_the_handshake_close_the_connection_and_nothing_else() {
    with_cluster(Options::default(), LONG, |cluster| {
        let server = cluster.process("server-1");
        let before = resident_bytes(server.pid);
        let addr = server.addr.as_ref().expect("mounts connect there");
        let peer_addr = server.peer_addr.as_ref().expect("servers connect there");
        for service in [NODE, META, LEADER, CHUNK, ARCHIVE, RAFT] {
            let addr = if service == RAFT { peer_addr } else { addr };
            let mut attacks = bad_frames();
            attacks.extend(bad_messages(service));
            for (name, bytes) in &attacks {
                attack_inside(addr, &server.log, service, (name, bytes));
            }
        }
        let grown = resident_bytes(server.pid).saturating_sub(before);
        assert!(grown < 128 << 20, "grew by {grown} bytes");
        still_works(cluster);
    });
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
        // it is told, once in a while, after the connection is closed
        until("bad bytes are logged", PATIENCE, || {
            let log = std::fs::read_to_string(&server.log).expect("read its log");
            log.contains("bad bytes on http").then_some(())
        });
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
        // 503 while it knows no leader, or is silent for a second
        until("it is well", PATIENCE, || {
            matches!(http::get(addr, "/health"), Ok((200, _))).then_some(())
        });
    }
    std::fs::write(cluster.a().join("after"), b"after").expect("write");
    assert_eq!(
        std::fs::read(cluster.b().join("after")).expect("read"),
        b"after"
    );
    cluster.wait_healthy();
}
