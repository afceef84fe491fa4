//! A cluster under test, made by `lagan up`.

use crate::command::{self, Done};
use crate::disk::Disk;
use crate::leftover;
use crate::power::{ForgetfulDisk, Left};
use crate::processes::{Children, Frozen, Start, wait_gone};
use crate::record::{Process, Record};
use crate::wait::until;
use crate::{Options, binary, http, sys};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The longest that one administrative command may take.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(180);
/// The longest wait for a state that must come by itself.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A cluster; clones are the same one. It ends with its [`crate::run`].
#[derive(Debug, Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    options: Options,
    children: Children,
    /// Disks that hold the servers' data, if the options want such.
    disks: Mutex<Vec<Disk>>,
    /// The same, of disks that forget.
    forgetful: Mutex<Vec<ForgetfulDisk>>,
}

impl Cluster {
    /// Names a cluster below `root`, which exists; nothing is started yet.
    ///
    /// # Panics
    /// When the mount points cannot be made.
    pub fn new(root: PathBuf, options: Options) -> Self {
        let cluster = Cluster {
            inner: Arc::new(Inner {
                root,
                options,
                children: Children::default(),
                disks: Mutex::default(),
                forgetful: Mutex::default(),
            }),
        };
        for n in 0..cluster.options().mounts {
            std::fs::create_dir_all(cluster.mount(n)).expect("make a mount point");
        }
        cluster
    }

    /// Runs `lagan up --detach` with the options.
    ///
    /// # Panics
    /// When that fails.
    pub fn up(&self) {
        if let Some(mib) = self.options().disk_mib {
            self.mount_disks(mib);
        }
        if self.options().forgetful {
            self.mount_forgetful();
        }
        self.try_up(&[]).expect(0);
    }

    fn mount_disks(&self, mib: u64) {
        let mut disks = self.disks();
        for n in 1..=self.options().servers {
            let image = self.root().join(format!("disk-{n}.img"));
            let point = self.dir().join(format!("server-{n}"));
            disks.push(Disk::mount(&image, &point, mib));
        }
    }

    fn mount_forgetful(&self) {
        let mut disks = self.forgetful();
        for n in 1..=self.options().servers {
            let point = self.dir().join(format!("server-{n}"));
            disks.push(ForgetfulDisk::mount(
                self.root(),
                &format!("disk-{n}"),
                &point,
            ));
        }
    }

    /// Takes the servers' disks away, after they have stopped.
    pub fn remove_disks(&self) {
        self.disks().clear();
        self.forgetful().clear();
    }

    fn forgetful(&self) -> std::sync::MutexGuard<'_, Vec<ForgetfulDisk>> {
        let disks = self.inner.forgetful.lock();
        disks.unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the disks that forget say of each sync below that directory that it is done, and
    /// do none, until the power is cut.
    ///
    /// # Panics
    /// When one does not answer.
    pub fn lie(&self, below: &str) {
        self.forgetful().iter().for_each(|disk| disk.lie(below));
    }

    /// Cuts the power of all servers and of those mounts: kills them as if at once, and
    /// lets the servers' disks forget. Says what was not synced on each.
    ///
    /// # Panics
    /// When a process was not there, or stays.
    #[track_caller]
    pub fn cut_power(&self, mounts: &[String], left: Left) -> Vec<String> {
        let names = [self.servers(), mounts.to_vec()].concat();
        let pids: Vec<u32> = names.iter().map(|name| self.pid(name)).collect();
        for &pid in &pids {
            sys::kill(pid, libc::SIGKILL).expect("kill a live process");
        }
        for &pid in &pids {
            wait_gone(pid, &self.inner.children, Duration::from_secs(60));
        }
        let disks = self.forgetful();
        let lost = (0..).zip(&*disks).map(|(n, disk)| match left {
            // each draws for itself
            Left::Some(seed) => disk.forget(Left::Some(seed.wrapping_mul(16).wrapping_add(n))),
            Left::Nothing => disk.forget(Left::Nothing),
        });
        lost.collect()
    }

    /// Starts all servers and those mounts again.
    ///
    /// # Panics
    /// When one does not get ready.
    #[track_caller]
    pub fn restore_power(&self, mounts: &[String]) {
        let names = [self.servers(), mounts.to_vec()].concat();
        for name in &names {
            self.launch(name);
        }
        for name in &names {
            self.wait_ready(name);
        }
    }

    fn disks(&self) -> std::sync::MutexGuard<'_, Vec<Disk>> {
        let disks = self.inner.disks.lock();
        disks.unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `lagan up --detach` with the options and more arguments.
    ///
    /// # Panics
    /// When it does not come to an end.
    pub fn try_up(&self, more: &[&str]) -> Done {
        let options = self.options();
        let mut command = Command::new(binary::lagan());
        command.arg("up").arg(self.dir());
        command.args(["--servers", &options.servers.to_string()]);
        command.args(["--copies", &options.copies.to_string()]);
        command.args(["--archive-after", &options.archive_after]);
        for n in 0..options.mounts {
            command.arg("--mount").arg(self.mount(n));
        }
        command.args(&options.args).args(more).arg("--detach");
        command.envs(options.env.iter().map(|(k, v)| (k, v)));
        finish(&mut command)
    }

    /// Runs `lagan down`.
    ///
    /// # Panics
    /// When it does not come to an end.
    pub fn try_down(&self) -> Done {
        let done = finish(Command::new(binary::lagan()).arg("down").arg(self.dir()));
        self.inner.children.reap();
        done
    }

    /// The directory that holds everything of this test.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// The options that it was made with.
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// The directory of `lagan up`.
    pub fn dir(&self) -> PathBuf {
        self.inner.root.join("cluster")
    }

    /// Mount point `n`, from 0.
    pub fn mount(&self, n: usize) -> PathBuf {
        self.inner
            .root
            .join(format!("mnt-{}", (b'a' + n as u8) as char))
    }

    /// The first mount.
    pub fn a(&self) -> PathBuf {
        self.mount(0)
    }

    /// The second mount.
    pub fn b(&self) -> PathBuf {
        self.mount(1)
    }

    /// Processes that the test started for this cluster.
    pub fn children(&self) -> &Children {
        &self.inner.children
    }

    /// `cluster.json`.
    ///
    /// # Panics
    /// When it cannot be read.
    #[track_caller]
    pub fn record(&self) -> Record {
        let path = self.dir().join("cluster.json");
        let text = std::fs::read(&path).expect("read cluster.json");
        serde_json::from_slice(&text).expect("parse cluster.json")
    }

    /// One entry of `cluster.json`.
    ///
    /// # Panics
    /// When there is none of that name.
    #[track_caller]
    pub fn process(&self, name: &str) -> Process {
        let record = self.record();
        let found = record.processes.into_iter().find(|p| p.name == name);
        found.unwrap_or_else(|| panic!("no process {name} in cluster.json"))
    }

    /// Names of the servers.
    pub fn servers(&self) -> Vec<String> {
        let servers = self
            .record()
            .processes
            .into_iter()
            .filter(|p| p.role == "server");
        servers.map(|p| p.name).collect()
    }

    /// Runs `lagan ARGS --cluster DIR`.
    ///
    /// # Panics
    /// When it does not come to an end.
    #[track_caller]
    pub fn lagan(&self, args: &[&str]) -> Done {
        let mut command = Command::new(binary::lagan());
        command.args(args).arg("--cluster").arg(self.dir());
        finish(command.current_dir(self.root()))
    }

    /// Runs `lagan ARGS PATH --cluster DIR`; it must succeed.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn lagan_on(&self, args: &[&str], path: &Path) -> Done {
        let path = path.to_str().expect("paths of tests are text");
        self.lagan(&[args, &[path]].concat()).expect(0)
    }

    /// `lagan status --json`, with its exit status.
    ///
    /// # Panics
    /// When it prints no JSON.
    #[track_caller]
    pub fn status(&self) -> (i32, Value) {
        let done = self.lagan(&["status", "--json"]);
        (done.status.unwrap_or(-1), done.json())
    }

    /// `lagan status --json`, once it and its exit status are as they must be. One look
    /// proves nothing: a server that is silent for a second counts as down.
    ///
    /// # Panics
    /// With the last look, when that does not come.
    #[track_caller]
    pub fn status_when(&self, what: &str, ok: impl Fn(i32, &Value) -> bool) -> Value {
        let began = std::time::Instant::now();
        loop {
            let done = self.lagan(&["status", "--json"]);
            if let Ok(json) = serde_json::from_str(&done.out)
                && ok(done.status.unwrap_or(-1), &json)
            {
                return json;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "{what}: not within {PATIENCE:?}: {done}"
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The leader's name, once there is one.
    ///
    /// # Panics
    /// When there is none for a long time.
    #[track_caller]
    pub fn leader(&self) -> String {
        let status = self.status_when("a leader", |_, json| json["leader"].is_string());
        status["leader"]
            .as_str()
            .map_or_else(String::new, str::to_owned)
    }

    /// Waits until `lagan status` says healthy.
    ///
    /// # Panics
    /// When that does not come.
    #[track_caller]
    pub fn wait_healthy(&self) {
        let mut last = String::new();
        let began = std::time::Instant::now();
        loop {
            let done = self.lagan(&["status"]);
            if done.status == Some(0) {
                return;
            }
            last.clone_from(&done.to_string());
            assert!(
                began.elapsed() < PATIENCE,
                "not healthy within {PATIENCE:?}: {last}"
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// `lagan check` finds nothing; what is still being put in order gets some time.
    ///
    /// # Panics
    /// When it keeps finding something.
    #[track_caller]
    pub fn check(&self) {
        let began = std::time::Instant::now();
        loop {
            let done = self.lagan(&["check"]);
            if done.status == Some(0) {
                return;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "check is not clean within {PATIENCE:?}: {done}"
            );
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Kills a process, so that it can do nothing more about it.
    ///
    /// # Panics
    /// When it was not there.
    #[track_caller]
    pub fn kill(&self, name: &str) {
        let pid = self.pid(name);
        sys::kill(pid, libc::SIGKILL).expect("kill a live process");
        wait_gone(pid, &self.inner.children, Duration::from_secs(60));
    }

    /// Ends a process in order.
    ///
    /// # Panics
    /// When it was not there, or stays.
    #[track_caller]
    pub fn stop(&self, name: &str) {
        let pid = self.pid(name);
        sys::kill(pid, libc::SIGTERM).expect("end a live process");
        wait_gone(pid, &self.inner.children, Duration::from_secs(60));
    }

    /// Stops a process until what this gives is dropped.
    #[track_caller]
    pub fn freeze(&self, name: &str) -> Frozen {
        Frozen::new(self.pid(name))
    }

    /// The process id in `cluster.json`.
    ///
    /// # Panics
    /// When it is not one of this cluster's.
    #[track_caller]
    pub fn pid(&self, name: &str) -> u32 {
        let pid = self.process(name).pid;
        let ours = leftover::processes(self.root());
        assert!(
            ours.iter().any(|p| p.pid == pid),
            "{name}, process {pid}, does not run"
        );
        pid
    }

    /// Starts a process again as `cluster.json` says, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not get ready.
    #[track_caller]
    pub fn start(&self, name: &str) {
        self.launch(name);
        self.wait_ready(name);
    }

    /// Starts a process again as `cluster.json` says.
    ///
    /// # Panics
    /// When that does not work.
    #[track_caller]
    pub fn launch(&self, name: &str) -> u32 {
        let process = self.process(name);
        let start = Start {
            argv: &process.argv,
            env: &process.env,
            cwd: &process.cwd,
            log: &process.log,
        };
        self.inner
            .children
            .start(start)
            .expect("start a process again")
    }

    /// Waits until a process does its work, and has its own pid in `cluster.json`.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn wait_ready(&self, name: &str) {
        until(&format!("{name} is ready"), PATIENCE, || {
            self.inner.children.reap();
            let process = self.process(name);
            let ready = leftover::is_alive(process.pid) && self.answers(&process);
            ready.then_some(())
        });
    }

    fn answers(&self, process: &Process) -> bool {
        if process.role == "mount" {
            let mounts = self.record().mounts;
            let mount = mounts.into_iter().find(|m| m.name == process.name);
            return mount.is_some_and(|m| m.pid == process.pid && mount_answers(&m.path));
        }
        let addr = process.http.as_ref().or(process.addr.as_ref());
        addr.is_some_and(|addr| matches!(http::get(addr, "/health"), Ok((200, _))))
    }
}

/// Whether a mount is there and its root can be looked at, from another process.
pub fn mount_answers(path: &Path) -> bool {
    let limit = Duration::from_secs(10);
    let stat = command::run(Command::new("stat").arg(path), limit);
    let mounted = leftover::mounts(path).iter().any(|m| m == path);
    mounted && stat.is_ok_and(|done| done.status == Some(0))
}

#[track_caller]
fn finish(command: &mut Command) -> Done {
    match command::run(command, COMMAND_LIMIT) {
        Ok(done) => done,
        Err(error) => panic!("{error:#}"),
    }
}
