//! Waiting, always with a deadline.

use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Asks until there is an answer.
///
/// # Panics
/// When there is none in time.
#[track_caller]
pub fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    let mut pause = Duration::from_millis(10);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(pause);
        pause = (pause * 3 / 2).min(Duration::from_millis(250));
    }
}

/// How work on a thread of its own ended.
#[derive(Debug)]
pub enum Ended<T> {
    /// With a result.
    Well(T),
    /// By a panic; its text was printed.
    Panicked,
    /// Not at all: the thread is still there.
    Late,
}

/// Does work on a thread of its own.
pub fn attempt<T: Send + 'static>(
    name: &str,
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Ended<T> {
    let (send, receive) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            let _ = send.send(work());
        });
    if let Err(error) = thread {
        panic!("start a thread: {error}");
    }
    match receive.recv_timeout(limit) {
        Ok(result) => Ended::Well(result),
        Err(mpsc::RecvTimeoutError::Disconnected) => Ended::Panicked,
        Err(mpsc::RecvTimeoutError::Timeout) => Ended::Late,
    }
}

/// Does work on a thread of its own, for what might hang.
///
/// # Panics
/// When the work does, or is not done in time.
#[track_caller]
pub fn within<T: Send + 'static>(
    what: &str,
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    match attempt(what, limit, work) {
        Ended::Well(result) => result,
        Ended::Panicked => panic!("{what}: panicked"),
        Ended::Late => panic!("{what}: not done within {limit:?}"),
    }
}
