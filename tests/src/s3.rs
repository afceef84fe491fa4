//! An S3 server of the test's own, with a proxy in front of it that breaks things.

use crate::binary;
use crate::cluster::PATIENCE;
use crate::http;
use crate::processes::{Children, Start, wait_gone};
use crate::sys;
use crate::wait::until;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// The bucket that exists.
pub const BUCKET: &str = "test";
const ACCESS: &str = "AKTESTS";
const SECRET: &str = "a-secret-of-the-tests";

/// Server and proxy; both end when this is dropped.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    server: String,
    proxy: String,
    children: Children,
    pid: Mutex<u32>,
}

impl Store {
    /// Starts both, with their files in a new directory below `root`.
    ///
    /// # Panics
    /// When they do not start.
    pub fn start(root: &Path) -> Self {
        Self::start_with(root, "")
    }

    /// Starts both like [`Store::start`]; the server stores whatever arrives, its checksum
    /// right or wrong.
    ///
    /// # Panics
    /// When they do not start.
    pub fn start_careless(root: &Path) -> Self {
        Self::start_with(root, "verify = false\n")
    }

    fn start_with(root: &Path, settings: &str) -> Self {
        let dir = root.join("own-s3");
        std::fs::create_dir_all(dir.join("data")).expect("make a directory");
        binary::link(&dir, "lagan-s3");
        let store = Store {
            server: free_addr(),
            proxy: free_addr(),
            children: Children::default(),
            pid: Mutex::new(0),
            dir,
        };
        let config = format!(
            "listen = \"{}\"\ndata = \"{}\"\naccess_key = \"{ACCESS}\"\n\
             secret_key = \"{SECRET}\"\nbuckets = [\"{BUCKET}\"]\n{settings}",
            store.server,
            store.dir.join("data").display()
        );
        std::fs::write(store.dir.join("s3.toml"), config).expect("write the configuration");
        store.start_server();
        let control = store.control();
        let proxy = binary::s3_proxy();
        let arguments = [
            "--listen",
            &store.proxy,
            "--to",
            &store.server,
            "--control",
            &control,
        ];
        store.launch(&proxy, &arguments);
        store.wait_ready(&store.proxy);
        store
    }

    /// Starts the server (again).
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_server(&self) {
        let config = self.dir.join("s3.toml");
        let server = self.dir.join("lagan-s3");
        let pid = self.launch(&server, &["--config", &config.to_string_lossy()]);
        *self.pid.lock().expect("nobody panics with this lock") = pid;
        self.wait_ready(&self.server);
    }

    /// Kills the server.
    pub fn kill_server(&self) {
        let pid = *self.pid.lock().expect("nobody panics with this lock");
        let _ = sys::kill(pid, libc::SIGKILL);
        // one that is in an fsync stays until that has ended
        wait_gone(pid, &self.children, Duration::from_secs(60));
    }

    fn launch(&self, program: &Path, args: &[&str]) -> u32 {
        let mut argv = vec![program.to_string_lossy().into_owned()];
        argv.extend(args.iter().map(|&a| a.to_owned()));
        let start = Start {
            argv: &argv,
            env: &BTreeMap::new(),
            cwd: &self.dir,
            log: &self.dir.join("s3.log"),
        };
        self.children.start(start).expect("start the S3 server")
    }

    fn wait_ready(&self, addr: &str) {
        until("the S3 server", PATIENCE, || {
            matches!(http::get(addr, "/health"), Ok((200, _))).then_some(())
        });
    }

    fn control(&self) -> String {
        self.dir.join("fault").to_string_lossy().into_owned()
    }

    /// Breaks requests from now on, as the proxy's plan says (`status 503`,
    /// `hang`, `refuse`, `cut 100 method=GET`, ...; `pass` ends it).
    ///
    /// # Panics
    /// When the plan cannot be written.
    pub fn fault(&self, plan: &str) {
        let part = self.dir.join("fault.part");
        std::fs::write(&part, plan).expect("write the plan");
        std::fs::rename(&part, self.control()).expect("put the plan in place");
    }

    /// The proxy's URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.proxy)
    }

    /// Directory in which the server keeps objects.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Variables with which the credential chain finds the keys.
    pub fn env(&self) -> Vec<(String, String)> {
        let pairs = [
            ("AWS_ACCESS_KEY_ID", ACCESS),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_REGION", "us-east-1"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ];
        pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec()
    }

    /// Arguments for `lagan up`.
    pub fn args(&self) -> Vec<String> {
        vec!["--s3".into(), self.url(), "--bucket".into(), BUCKET.into()]
    }
}

/// An address that no other process has: at its IP no connection goes out, its port is
/// below those that outgoing connections get, and none is given twice.
pub fn free_addr() -> String {
    static PORT: AtomicU16 = AtomicU16::new(20_000);
    let [.., high, low] = std::process::id().to_be_bytes();
    let port = PORT.fetch_add(1, Ordering::Relaxed);
    format!("127.78.{high}.{}:{port}", low.clamp(1, 254))
}
