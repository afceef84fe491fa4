//! A server, a faulty proxy before it, and clients of both.

use async_trait::async_trait;
use bytes::Bytes;
use lagan_object::{BodySource, Credentials, S3Config, S3Store, Secret, Timeouts};
use lagan_s3::{Config, Server};
use lagan_testing::proxy::{Control, Plan, Proxy};
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex};

/// Lives as long as the test; its tasks end with the test's runtime.
pub struct Bench {
    server: SocketAddr,
    proxy: SocketAddr,
    plan: Arc<Mutex<Plan>>,
    _dir: tempfile::TempDir,
}

impl Bench {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut config = Config::new(local, dir.path().join("data"), "AK", "SK");
        config.buckets = vec!["mails".into()];
        config.sync = false;
        let server = Server::bind(&config).await.unwrap();
        let addr = server.local_addr().unwrap();
        tokio::spawn(server.run(std::future::pending()));
        let plan = Arc::new(Mutex::new(Plan::default()));
        let proxy = Proxy::bind(local, addr, Control::Shared(plan.clone()))
            .await
            .unwrap();
        let proxy_addr = proxy.local_addr();
        tokio::spawn(proxy.run(std::future::pending()));
        Bench {
            server: addr,
            proxy: proxy_addr,
            plan,
            _dir: dir,
        }
    }

    /// Switches the proxy's fault.
    pub fn fault(&self, line: &str) {
        *self.plan.lock().unwrap() = line.parse().unwrap();
    }

    /// Where the server listens.
    pub fn addr(&self) -> SocketAddr {
        self.server
    }

    /// A configuration of the server itself.
    pub fn config(&self) -> S3Config {
        let mut config = S3Config::new("mails");
        config.endpoint = Some(format!("http://{}", self.server));
        config.region = Some("us-east-1".into());
        config.credentials = Credentials::Static {
            access_key: "AK".into(),
            secret_key: Secret::new("SK"),
            session_token: None,
        };
        config
    }

    /// A client of the server itself.
    pub async fn store(&self) -> S3Store {
        S3Store::open(&self.config()).await.unwrap()
    }

    /// The proxy's URL.
    pub fn proxy_url(&self) -> Option<String> {
        Some(format!("http://{}", self.proxy))
    }

    /// A client through the proxy, which tries once, for as long as usual.
    pub async fn once(&self) -> S3Store {
        let mut config = self.config();
        config.endpoint = self.proxy_url();
        config.attempts_max = 1;
        S3Store::open(&config).await.unwrap()
    }

    /// A client through the proxy, which tries once and gives up soon.
    pub async fn impatient(&self) -> S3Store {
        let mut config = self.config();
        config.endpoint = self.proxy_url();
        config.attempts_max = 1;
        config.timeouts = Timeouts {
            connect_ms: 500,
            attempt_ms: 1000,
            ..Timeouts::default()
        };
        S3Store::open(&config).await.unwrap()
    }
}

/// A prime, so that no two parts of an object are alike.
const PERIOD: usize = 65_521;

/// Bytes of an object of any length.
#[derive(Debug)]
pub struct Pattern {
    /// From this byte on it cannot be read.
    pub broken_from: u64,
}

impl Pattern {
    /// `len` is at most 4 MiB.
    pub fn bytes(offset: u64, len: usize) -> Bytes {
        static TABLE: LazyLock<Bytes> = LazyLock::new(|| {
            let period: Vec<u8> = (0..PERIOD as u32).map(|i| (i ^ (i >> 8)) as u8).collect();
            let table: Vec<u8> = period
                .iter()
                .copied()
                .cycle()
                .take(PERIOD + (4 << 20))
                .collect();
            table.into()
        });
        let start = (offset % PERIOD as u64) as usize;
        TABLE.slice(start..start + len)
    }

    /// CRC-32 of the first `len` bytes.
    pub fn crc32(len: u64) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        for at in (0..len).step_by(1 << 20) {
            hasher.update(&Self::bytes(at, (len - at).min(1 << 20) as usize));
        }
        hasher.finalize()
    }
}

#[async_trait]
impl BodySource for Pattern {
    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, String> {
        if offset + len as u64 > self.broken_from {
            return Err("bad sector".into());
        }
        Ok(Self::bytes(offset, len))
    }
}
