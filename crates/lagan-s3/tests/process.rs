//! The server as a process: starts, refuses, dies, comes back.

// helpers are tests too, which clippy cannot see
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use lagan_object::{Body, Credentials, ObjectMeta, ObjectStore, S3Config, S3Store, Secret};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a start or an end may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server process; killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn start(config: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lagan-s3"));
        command.arg("--config").arg(config).stderr(Stdio::piped());
        Process(command.spawn().unwrap())
    }

    fn end(&mut self) -> ExitStatus {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("still runs");
    }

    /// Its exit status and what it said.
    fn output(mut self) -> (Option<i32>, String) {
        let status = self.end();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut self.0.stderr.take().unwrap(), &mut text).unwrap();
        (status.code(), text)
    }
}

fn free_addr() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn write_config(dir: &Path, addr: SocketAddr) -> PathBuf {
    let path = dir.join("s3.toml");
    let log = dir.join("s3.log");
    let text = format!(
        "listen = '{addr}'\ndata = '{}'\naccess_key = 'AK'\nsecret_key = 'SK'\n\
         buckets = ['mails']\nlog = '{}'\n",
        dir.join("data").display(),
        log.display(),
    );
    std::fs::write(&path, text).unwrap();
    path
}

async fn client(addr: SocketAddr) -> S3Store {
    let mut config = S3Config::new("mails");
    config.endpoint = Some(format!("http://{addr}"));
    config.credentials = Credentials::Static {
        access_key: "AK".into(),
        secret_key: Secret::new("SK"),
        session_token: None,
    };
    let store = S3Store::open(&config).await.unwrap();
    let since = Instant::now();
    while let Err(error) = store.check_bucket().await {
        assert!(since.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    store
}

#[tokio::test]
async fn objects_survive_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let addr = free_addr();
    let config = write_config(dir.path(), addr);
    let mut first = Process::start(&config);
    let store = client(addr).await;
    for i in 0..20 {
        let body = Body::from(Bytes::from(format!("mail {i}")));
        store
            .put(&format!("k/{i:02}"), body, &ObjectMeta::default(), None)
            .await
            .unwrap();
    }
    first.0.kill().unwrap();
    first.end();
    let _second = Process::start(&config);
    let store = client(addr).await;
    assert_eq!(store.list("k/", None, 100).await.unwrap().len(), 20);
    assert_eq!(store.get_range("k/07", 0, 6).await.unwrap(), "mail 7");
}

#[tokio::test]
async fn a_request_to_stop_ends_it_with_status_0() {
    let dir = tempfile::tempdir().unwrap();
    let addr = free_addr();
    let config = write_config(dir.path(), addr);
    let mut process = Process::start(&config);
    client(addr).await;
    let pid = process.0.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(process.end().code(), Some(0));
    let log = std::fs::read_to_string(dir.path().join("s3.log")).unwrap();
    assert!(
        log.contains("listening") && log.contains("stopped"),
        "{log}"
    );
}

#[test]
fn what_cannot_be_is_said_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = write_config(dir.path(), taken.local_addr().unwrap());
    let (status, text) = Process::start(&config).output();
    assert_eq!(status, Some(1));
    assert!(text.starts_with("lagan-s3: listen on 127.0.0.1:"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");

    std::fs::write(&config, "listen = '127.0.0.1:0'\ndate = 'x'\n").unwrap();
    let (status, text) = Process::start(&config).output();
    assert_eq!(status, Some(2));
    assert!(
        text.contains("s3.toml:2:") && text.contains("date"),
        "{text}"
    );

    let (status, text) = Process::start(&dir.path().join("absent.toml")).output();
    assert_eq!((status, text.lines().count()), (Some(2), 1), "{text}");
}
