//! HTTPS to an endpoint whose certificate a private authority has signed, as
//! stores in a company's own network have it.

use crate::bench::{Bench, Pattern};
use bytes::Bytes;
use lagan_object::{Body, ObjectMeta, ObjectStore, S3Config, S3Store};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What the certificates are to be.
const CONFIG: &str = "\
[req]
distinguished_name = name
prompt = no
[name]
CN = lagan test
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[here]
subjectAltName = DNS:localhost, IP:127.0.0.1
[elsewhere]
subjectAltName = DNS:s3.example.org
";

/// A private authority; its files end with it.
struct Authority {
    dir: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config"), CONFIG).unwrap();
        let authority = Authority { dir };
        let subject = ["-x509", "-extensions", "ca", "-subj", "/CN=lagan test ca"];
        authority.request(&subject, "ca.key", "ca.pem");
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn openssl(&self, args: &[&str]) {
        let mut openssl = Command::new("openssl");
        let done = openssl.args(args).current_dir(self.dir.path()).output();
        let done = done.expect("run openssl");
        let told = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "openssl {args:?}: {told}");
    }

    fn request(&self, more: &[&str], key: &str, out: &str) {
        let plain = ["req", "-config", "config", "-newkey", "ec", "-nodes"];
        let curve = ["-pkeyopt", "ec_paramgen_curve:P-256", "-days", "2"];
        let files = ["-keyout", key, "-out", out];
        self.openssl(&[&plain[..], &curve, more, &files].concat());
    }

    /// A server's configuration with a certificate for the names of that section.
    fn server(&self, section: &str) -> ServerConfig {
        self.request(&[], "server.key", "server.csr");
        let sign = ["x509", "-req", "-in", "server.csr", "-days", "2"];
        let by = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
        let names = ["-extfile", "config", "-extensions", section];
        let out = ["-out", "server.pem"];
        self.openssl(&[&sign[..], &by, &names, &out].concat());
        let chain = CertificateDer::pem_file_iter(self.path("server.pem")).unwrap();
        let chain = chain.map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(self.path("server.key")).unwrap();
        ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap()
    }
}

/// Ends TLS and passes what comes out on; its tasks end with the test's runtime.
async fn terminate(config: ServerConfig, to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // a client that does not trust us ends it here
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let mut plain = TcpStream::connect(to).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut plain).await;
                }
            });
        }
    });
    addr
}

fn over_tls(bench: &Bench, addr: SocketAddr, ca: Option<&Path>) -> S3Config {
    let mut config = bench.config();
    config.endpoint = Some(format!("https://localhost:{}", addr.port()));
    config.ca_file = ca.map(Path::to_path_buf);
    config.attempts_max = 1;
    config
}

async fn put(config: &S3Config) -> Result<(), String> {
    let store = S3Store::open(config).await.unwrap();
    let (body, crc) = (Bytes::from_static(b"hello"), crc32fast::hash(b"hello"));
    let meta = ObjectMeta::default();
    let put = store.put("k", Body::from(body), &meta, Some(crc)).await;
    put.map(|_| ()).map_err(|e| e.to_string())
}

#[tokio::test]
async fn an_endpoint_of_a_private_authority_is_used_over_https() {
    let bench = Bench::start().await;
    let authority = Authority::new();
    let addr = terminate(authority.server("here"), bench.addr()).await;
    let config = over_tls(&bench, addr, Some(&authority.path("ca.pem")));
    put(&config).await.unwrap();
    let store = S3Store::open(&config).await.unwrap();
    assert_eq!(store.get_range("k", 0, 5).await.unwrap(), "hello");
    let len = (20 << 20) + 7;
    let body = Body::from_source(
        len,
        Arc::new(Pattern {
            broken_from: u64::MAX,
        }),
    );
    let crc = Some(Pattern::crc32(len));
    let meta = ObjectMeta::default();
    store.put("large", body, &meta, crc).await.unwrap();
    let plain = bench.store().await;
    assert_eq!(plain.head("large").await.unwrap().len, len);
    let at = 9 << 20;
    let got = store.get_range("large", at, 100).await.unwrap();
    assert_eq!(got, Pattern::bytes(at, 100));
    store.delete(&["k".into()]).await.unwrap();
    assert!(plain.head("k").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn an_endpoint_that_is_not_trusted_gets_nothing() {
    let bench = Bench::start().await;
    let (authority, other) = (Authority::new(), Authority::new());
    let here = terminate(authority.server("here"), bench.addr()).await;
    let elsewhere = terminate(authority.server("elsewhere"), bench.addr()).await;
    let (trusted, others) = (authority.path("ca.pem"), other.path("ca.pem"));
    for (what, addr, ca) in [
        ("the system's authorities alone", here, None),
        ("another authority", here, Some(&*others)),
        ("a certificate of another host", elsewhere, Some(&*trusted)),
    ] {
        let told = put(&over_tls(&bench, addr, ca)).await.expect_err(what);
        assert!(told.contains("certificate"), "{what}: {told}");
    }
    let plain = bench.store().await;
    assert!(plain.head("k").await.unwrap_err().is_not_found());
}
