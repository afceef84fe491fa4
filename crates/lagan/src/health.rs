//! Asks a process for /health: a small HTTP client with one deadline.
//!
//! A server answers 200 when it serves, else 503 with a JSON object that has its `state`
//! and perhaps a `reason` (docs/OPERATIONS.md, "Watching"). The embedded S3 server answers
//! 200.

use serde::Deserialize;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The health of a process, as far as its answer tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It serves.
    Ready,
    /// It is a server that belongs to no cluster yet.
    Waiting,
    /// It runs, but does not serve now: its state or reason.
    NotReady(String),
    /// No answer came: the reason.
    Silent(String),
}

/// What a server says in the body of its answer.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
enum Body {
    /// It belongs to no cluster yet.
    Waiting,
    /// It opens its stores, or catches up.
    Starting,
    /// It serves.
    Ready,
    /// It stepped aside.
    Failed {
        /// Why.
        reason: String,
    },
}

/// Asks `addr` for /health.
pub fn ask(addr: SocketAddr, deadline: Duration) -> Health {
    match get(addr, "/health", deadline) {
        Err(e) => Health::Silent(e.to_string()),
        Ok((200, _)) => Health::Ready,
        Ok((status, body)) => judge(status, &body),
    }
}

/// The health of a process that answered anything but 200. A body that no server sends is
/// shown by its first line.
fn judge(status: u16, body: &str) -> Health {
    match serde_json::from_str(body) {
        Ok(Body::Waiting) => Health::Waiting,
        Ok(Body::Starting) => Health::NotReady("still starting".into()),
        Ok(Body::Failed { reason }) => Health::NotReady(reason),
        Ok(Body::Ready) | Err(_) => match body.lines().next().unwrap_or_default().trim() {
            "" => Health::NotReady(format!("status {status}")),
            line => Health::NotReady(line.to_owned()),
        },
    }
}

/// The status and body (at most 64 KiB) of an HTTP GET.
fn get(addr: SocketAddr, path: &str, deadline: Duration) -> std::io::Result<(u16, String)> {
    let end = Instant::now() + deadline;
    let mut stream = TcpStream::connect_timeout(&addr, deadline)?;
    stream.set_write_timeout(Some(deadline))?;
    let ask = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes())?;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while answer.len() < 64 * 1024 {
        let rest = end.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(rest))?;
        match stream.read(&mut part)? {
            0 => break,
            n => answer.extend_from_slice(&part[..n]),
        }
    }
    parse_answer(&String::from_utf8_lossy(&answer))
        .ok_or_else(|| std::io::Error::other("no HTTP answer"))
}

fn parse_answer(text: &str) -> Option<(u16, String)> {
    let status = text
        .strip_prefix("HTTP/1.")?
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()?;
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn answering(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // The whole question: closing with some of it unread resets the connection.
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                asked.extend(byte);
            }
            stream.write_all(answer.as_bytes()).unwrap();
        });
        addr
    }

    #[test]
    fn health_tells_ready_from_waiting_and_broken() {
        let told = |answer| ask(answering(answer), Duration::from_secs(60));
        assert_eq!(told("HTTP/1.1 200 OK\r\n\r\nok\n"), Health::Ready);
        assert_eq!(
            told("HTTP/1.1 503 Service Unavailable\r\n\r\n{\"state\":\"waiting\"}\n"),
            Health::Waiting
        );
        assert_eq!(
            told("HTTP/1.1 503 Service Unavailable\r\n\r\n{\"state\":\"starting\"}\n"),
            Health::NotReady("still starting".into())
        );
        assert_eq!(
            told(
                "HTTP/1.1 503 Service Unavailable\r\n\r\n\
                 {\"state\":\"failed\",\"reason\":\"waiting for a slow disk\"}\n"
            ),
            Health::NotReady("waiting for a slow disk".into())
        );
        assert_eq!(
            told("HTTP/1.1 503 Service Unavailable\r\n\r\nno leader\n"),
            Health::NotReady("no leader".into())
        );
        assert!(matches!(told("SSH-2.0\r\n"), Health::Silent(_)));
    }

    #[test]
    fn silent_server_does_not_hold_us_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let found = ask(addr, Duration::from_millis(100));
        assert!(matches!(found, Health::Silent(_)));
    }
}
