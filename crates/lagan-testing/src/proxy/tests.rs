use super::*;
use lagan_s3::{Config, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Bench {
    addr: SocketAddr,
    plan: Arc<Mutex<Plan>>,
    _dir: tempfile::TempDir,
}

/// A server and a proxy before it, which end with the test's runtime.
async fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = Config::new(local, dir.path().join("s3"), "AK", "SK");
    let server = Server::bind(&config).await.unwrap();
    let to = server.local_addr().unwrap();
    tokio::spawn(server.run(std::future::pending()));
    let plan = Arc::new(Mutex::new(Plan::default()));
    let proxy = Proxy::bind(local, to, Control::Shared(plan.clone()))
        .await
        .unwrap();
    let addr = proxy.local_addr();
    tokio::spawn(proxy.run(std::future::pending()));
    Bench {
        addr,
        plan,
        _dir: dir,
    }
}

impl Bench {
    fn set(&self, line: &str) {
        *self.plan.lock().unwrap() = line.parse().unwrap();
    }

    /// Asks for /health; what came before the connection closed.
    async fn ask(&self) -> io::Result<String> {
        let mut socket = TcpStream::connect(self.addr).await?;
        let request = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        socket.write_all(request).await?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

#[tokio::test]
async fn faults_are_switched_while_it_runs() {
    let bench = bench().await;
    let ok = bench.ask().await.unwrap();
    assert!(
        ok.starts_with("HTTP/1.1 200") && ok.ends_with("ok\n"),
        "{ok}"
    );
    bench.set("status 500");
    assert!(bench.ask().await.unwrap().starts_with("HTTP/1.1 500"));
    bench.set("slow-down");
    assert!(bench.ask().await.unwrap().contains("<Code>SlowDown</Code>"));
    bench.set("corrupt 0");
    assert!(bench.ask().await.unwrap().ends_with("nk\n"));
    bench.set("cut 1");
    assert!(!bench.ask().await.unwrap_or_default().contains("ok"));
    bench.set("lose");
    assert!(!bench.ask().await.unwrap_or_default().contains("HTTP"));
    bench.set("pass");
    assert!(bench.ask().await.unwrap().ends_with("ok\n"));
}

#[tokio::test]
async fn every_hits_each_nth_request() {
    let bench = bench().await;
    bench.set("status 503 every=3");
    let mut hit = Vec::new();
    for _ in 0..6 {
        hit.push(bench.ask().await.unwrap().starts_with("HTTP/1.1 503"));
    }
    assert_eq!(hit, [false, false, true, false, false, true]);
    bench.set("status 503 method=PUT");
    assert!(bench.ask().await.unwrap().starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_hanging_request_gets_no_answer() {
    let bench = bench().await;
    bench.set("hang");
    let asked = tokio::time::timeout(Duration::from_millis(300), bench.ask()).await;
    assert!(asked.is_err());
}

#[tokio::test]
async fn a_refusing_port_is_closed_and_opens_again() {
    let bench = bench().await;
    let until = |refused: bool| {
        let bench = &bench;
        async move {
            for _ in 0..500 {
                let asked = tokio::time::timeout(Duration::from_secs(1), bench.ask()).await;
                let is_refused =
                    matches!(&asked, Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused);
                let is_ok = matches!(&asked, Ok(Ok(text)) if text.ends_with("ok\n"));
                if if refused { is_refused } else { is_ok } {
                    return true;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            false
        }
    };
    bench.set("refuse");
    assert!(until(true).await);
    bench.set("pass");
    assert!(until(false).await);
}
