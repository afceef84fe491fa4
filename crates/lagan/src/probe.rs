//! Looks at paths and servers without ever getting stuck on them.
//!
//! A call into a mount whose process hangs cannot be interrupted. So paths that
//! may lie on a mount are looked at by a child process, or a thread, that is
//! given up after a deadline.

use crate::exit::Failure;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// What a look at a path found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// A directory.
    Directory,
    /// Something else.
    Other,
    /// Nothing, or an error: this errno.
    Error(i32),
    /// No answer within the deadline.
    Silent,
}

/// `lagan probe-path`: prints what [`look`] wants to know, as one number.
pub fn child(path: &Path) -> String {
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => "0".into(),
        Ok(_) => "-1".into(),
        Err(e) => e.raw_os_error().unwrap_or(libc::EIO).to_string(),
    }
}

/// Looks at `path` from a child process of this program.
pub fn look(path: &Path, deadline: Duration) -> Look {
    let started = std::env::current_exe().and_then(|exe| {
        Command::new(exe)
            .arg("probe-path")
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
    });
    let Ok(mut child) = started else {
        return Look::Error(libc::EAGAIN);
    };
    let end = Instant::now() + deadline;
    loop {
        match child.try_wait() {
            Ok(Some(_)) => break,
            Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
            _ => {
                // It may be stuck in the kernel: not waited for.
                let _ = child.kill();
                return Look::Silent;
            }
        }
    }
    let mut text = String::new();
    if let Some(out) = child.stdout.as_mut() {
        let _ = out.take(32).read_to_string(&mut text);
    }
    match text.trim().parse() {
        Ok(0) => Look::Directory,
        Ok(-1) => Look::Other,
        Ok(errno) => Look::Error(errno),
        Err(_) => Look::Error(libc::EIO),
    }
}

/// Runs `work` on a thread of its own; `None` after the deadline (the thread is left behind).
pub fn within<T: Send + 'static>(
    deadline: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, wait) = mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name("bounded".into())
        .spawn(move || {
            let _ = done.send(work());
        })
        .ok()?;
    wait.recv_timeout(deadline).ok()
}

/// What a server says about itself on /health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// 200: it serves.
    Ready,
    /// It belongs to no cluster yet.
    Waiting,
    /// It runs, but does not serve yet: why.
    NotReady(String),
    /// No answer: why.
    Silent(String),
}

/// Asks `addr` for /health.
pub fn health(addr: SocketAddr, deadline: Duration) -> Health {
    match get(addr, "/health", deadline) {
        Err(e) => Health::Silent(e.to_string()),
        Ok((200, _)) => Health::Ready,
        Ok((_, body)) if body.contains("waiting") => Health::Waiting,
        Ok((status, body)) => {
            let line = body.lines().next().unwrap_or("").trim().to_owned();
            Health::NotReady(if line.is_empty() {
                format!("status {status}")
            } else {
                line
            })
        }
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

/// Whether a server can be given that address, in this network namespace; waits until
/// then for a process that was killed and still has it.
///
/// # Errors
/// One line that names the address and the reason.
pub fn bindable(addr: SocketAddr, until: Instant) -> Result<(), Failure> {
    let taken = |e: &std::io::Error| e.kind() == std::io::ErrorKind::AddrInUse;
    let mut bound = std::net::TcpListener::bind(addr);
    while bound.as_ref().is_err_and(taken) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
        bound = std::net::TcpListener::bind(addr);
    }
    match bound {
        Ok(_) => Ok(()),
        Err(e) if taken(&e) => Err(Failure::error(format!(
            "{addr} is taken by another program: stop it, or take another directory"
        ))),
        Err(e) => Err(Failure::error(format!("listen on {addr}: {e}"))),
    }
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
            // All of the question: closing with some of it unread resets the connection.
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
        let ask = |answer| health(answering(answer), Duration::from_secs(60));
        assert_eq!(ask("HTTP/1.1 200 OK\r\n\r\nok\n"), Health::Ready);
        assert_eq!(
            ask("HTTP/1.1 503 Service Unavailable\r\n\r\nwaiting to be initialised"),
            Health::Waiting
        );
        assert_eq!(
            ask("HTTP/1.1 503 Service Unavailable\r\n\r\nno leader\n"),
            Health::NotReady("no leader".into())
        );
        assert!(matches!(ask("SSH-2.0\r\n"), Health::Silent(_)));
    }

    #[test]
    fn silent_server_does_not_hold_us_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let found = health(addr, Duration::from_millis(100));
        assert!(matches!(found, Health::Silent(_)));
    }

    #[test]
    fn address_is_free_when_its_last_owner_has_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let error = bindable(addr, Instant::now()).unwrap_err();
        assert!(error.message.contains(&addr.to_string()), "{error}");
        let gone = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(listener);
        });
        let far = Instant::now() + Duration::from_secs(60);
        assert_eq!(bindable(addr, far), Ok(()));
        gone.join().unwrap();
    }

    #[test]
    fn work_that_does_not_end_is_given_up() {
        assert_eq!(within(Duration::from_secs(60), || 7), Some(7));
        let (_keep, wait) = mpsc::channel::<()>();
        assert_eq!(
            within(Duration::from_millis(20), move || wait.recv().is_ok()),
            None
        );
    }
}
