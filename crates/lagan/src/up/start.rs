//! Brings a cluster up, or leaves nothing behind.

use crate::cli::UpArgs;
use crate::down;
use crate::exit::{Doing, Failure, OK, Outcome};
use crate::hang::{self, Look};
use crate::health::{self, Health};
use crate::layout::{Layout, Role, make_private_dir};
use crate::net::{self, Cluster};
use crate::record::{Process, Record};
use crate::sys;
use crate::up::address::Here;
use crate::up::archive::S3Plan;
use crate::up::plan::Plan;
use crate::up::process::{Running, spawn};
use crate::up::servers::ServerPlan;
use crate::up::verdict::Verdict;
use crate::up::{check, files, foreground};
use lagan_host::lock;
use lagan_host::process::LEAVING_PATIENCE;
use lagan_types::cluster::{NodeState, ReplicaSet, voter_count};
use lagan_types::message::{InitCluster, JoinVia, Joined, Message, NodeRequest};
use lagan_types::{ClusterId, Incarnation};
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest wait for a server that says that it waits for its cluster, or serves. A big
/// state on a slow disk needs seconds.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// Longest wait until the leader has heard of every server and a set has all copies.
const COPIES_DEADLINE: Duration = Duration::from_secs(15);
/// Longest wait until a mount answers.
const MOUNT_DEADLINE: Duration = Duration::from_secs(60);
/// Longest time for one look at a server or a mount.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);
/// Longest time for making or joining a cluster.
const ADMIT_DEADLINE: Duration = Duration::from_secs(30);
/// Longest wait until the first servers know the answer of S3: a slow endpoint, or one that
/// is tried again, needs more than one call's time.
const S3_DEADLINE: Duration = Duration::from_secs(30);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// A start under way.
struct Start {
    layout: Layout,
    plan: Plan,
    record: Record,
    running: Vec<Running>,
    /// Whether there was no cluster before.
    first: bool,
    /// Servers whose stores the cluster refuses for good, and their messages. They do not run.
    refused: Vec<(String, Failure)>,
    /// `--archive-after` of this start in milliseconds, if it was given.
    archive_after_ms: Option<u64>,
    /// Directories that were empty before: removed if a first start fails.
    made: Vec<PathBuf>,
}

/// `lagan up`.
///
/// # Errors
/// One line. Nothing that this call started is left running.
pub fn run(args: &UpArgs, json: bool) -> Outcome<u8> {
    sys::close_inherited_on_exec();
    sys::note_interrupts();
    let layout = Layout::new(&args.dir)?;
    layout.create()?;
    make_private_dir(&layout.run("up"))?;
    let up_lock = take_directory(&layout)?;
    let stored = Plan::load(&layout)?;
    let plan = match stored {
        Some(stored) => stored.again(args)?,
        None => Plan::first(args, &layout, &Here::new(&layout))?,
    };
    check::machine(&layout, &plan)?;
    let mut start = Start::prepare(layout, plan)?;
    start.archive_after_ms = args.archive_after.map(|d| d.as_millis() as u64);
    if let Err(failure) = start.bring_up() {
        start.abandon();
        return Err(failure);
    }
    print(&start.record, json, args.detach)?;
    if args.detach {
        drop(up_lock);
        return Ok(OK);
    }
    foreground::wait(&start.layout, start.running)
}

/// Takes the lock of the directory: one `up` at a time, and none where something runs. A
/// process that was killed just now is waited for.
fn take_directory(layout: &Layout) -> Outcome<File> {
    let hint = format!("stop it with `lagan down {}`", layout.root.display());
    let held = lock::take_within(&layout.up_lock(), LEAVING_PATIENCE).map_err(|_| {
        Failure::error(format!(
            "another `lagan up` has {}: {hint}",
            layout.root.display()
        ))
    })?;
    for (role, name) in layout.processes() {
        let lock = layout.lock(role, &name);
        if let Some(pid) = lock::staying_holder(&lock, LEAVING_PATIENCE) {
            return Err(Failure::error(format!(
                "{} runs already ({name} is process {pid}): {hint}",
                layout.root.display()
            )));
        }
    }
    let _ = std::fs::remove_file(layout.stopped_mark());
    let _ = std::fs::remove_file(layout.stopping_mark());
    Ok(held)
}

impl Start {
    fn prepare(layout: Layout, plan: Plan) -> Outcome<Self> {
        let first = plan.cluster.is_none();
        let made = match first {
            true => empty_data(&layout, &plan),
            false => Vec::new(),
        };
        files::write(&layout, &plan)?;
        let record = files::record(&layout, &plan)?;
        Ok(Start {
            layout,
            plan,
            record,
            running: Vec::new(),
            first,
            refused: Vec::new(),
            archive_after_ms: None,
            made,
        })
    }

    fn bring_up(&mut self) -> Outcome<()> {
        self.spawn_all(Role::S3)?;
        if let S3Plan::Embedded { listen, .. } = self.plan.s3 {
            self.wait_for("s3", listen, |h| *h == Health::Ready)?;
        }
        self.spawn_all(Role::Server)?;
        self.admit_servers()?;
        self.apply_changes()?;
        self.wait_for_s3()?;
        self.wait_for_copies()?;
        self.spawn_all(Role::Mount)?;
        self.wait_for_mounts()?;
        self.plan.store(&self.layout)?;
        self.record.cluster_id = self.plan.cluster.map(|c| c.to_string()).unwrap_or_default();
        self.record.store(&self.layout.cluster_json())
    }

    fn spawn_all(&mut self, role: Role) -> Outcome<()> {
        for process in self.record.processes.iter_mut().filter(|p| p.role == role) {
            if let Some(failure) = refusal(process) {
                self.refused.push((process.name.clone(), failure));
                continue;
            }
            let running = spawn(process)?;
            process.pid = running.pid();
            for mount in &mut self.record.mounts {
                if mount.name == process.name {
                    mount.pid = running.pid();
                }
            }
            self.running.push(running);
        }
        Ok(())
    }

    fn check_running(&mut self) -> Outcome<()> {
        if sys::interrupted() {
            return Err(Failure::error("interrupted"));
        }
        self.running.iter_mut().try_for_each(Running::check)
    }

    /// Sets servers aside that ended because the cluster refuses their stores.
    fn note_refused(&mut self) {
        for process in &self.record.processes {
            let ended = |r: &mut Running| r.name == process.name && r.ended().is_some();
            if let Some(at) = self.running.iter_mut().position(ended)
                && let Some(failure) = refusal(process)
            {
                self.running.remove(at);
                self.refused.push((process.name.clone(), failure));
            }
        }
    }

    /// The servers of the plan that the cluster did not refuse.
    fn servers(&self) -> Vec<ServerPlan> {
        let kept = |s: &&ServerPlan| self.refused.iter().all(|(name, _)| *name != s.name);
        self.plan.servers.iter().filter(kept).cloned().collect()
    }

    /// Addresses of these servers for clients.
    fn addresses(&self) -> Vec<String> {
        self.servers()
            .iter()
            .map(|s| s.listen.to_string())
            .collect()
    }

    /// Goes on without servers that `lagan remove` took out of the cluster. They stay in the
    /// plan: once its directory is emptied, a new server takes such a place.
    ///
    /// # Errors
    /// The message of a server that is refused although the cluster counts on it (its store is
    /// an older copy), or an error of the cluster.
    fn leave_removed(&mut self) -> Outcome<()> {
        let Some((_, first)) = self.refused.first() else {
            return Ok(());
        };
        let servers = self.addresses();
        if servers.is_empty() {
            return Err(first.clone());
        }
        let map = net::run(async { Cluster::new(&servers).await?.map().await })?;
        for (name, failure) in &self.refused {
            if map.nodes.iter().any(|n| n.name == *name) {
                return Err(failure.clone());
            }
            eprintln!(
                "{name} was removed from the cluster and is left out; to add a new server in \
                 its place, empty {} and start again",
                self.layout.data(Role::Server, name).display()
            );
            self.record.processes.retain(|p| p.name != *name);
        }
        Ok(())
    }

    /// Waits until the health at `addr` is wanted, or the cluster refuses the store; returns
    /// that health.
    fn wait_for(
        &mut self,
        name: &str,
        addr: SocketAddr,
        wanted: impl Fn(&Health) -> bool,
    ) -> Outcome<Health> {
        let end = Instant::now() + READY_DEADLINE;
        loop {
            self.note_refused();
            if let Some((_, failure)) = self.refused.iter().find(|(n, _)| n == name) {
                return Ok(Health::NotReady(failure.message.clone()));
            }
            self.check_running()?;
            let health = health::ask(addr, LOOK_DEADLINE);
            if wanted(&health) {
                return Ok(health);
            }
            if Instant::now() >= end {
                let said = match health {
                    Health::NotReady(why) | Health::Silent(why) => why,
                    Health::Waiting => "it belongs to no cluster".into(),
                    Health::Ready => String::new(),
                };
                return Err(Failure::error(format!(
                    "{name} is not ready after {} s: {said} (log: {})",
                    READY_DEADLINE.as_secs(),
                    self.layout.log(name).display()
                )));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Makes the cluster if this is the first start, and lets all servers join it.
    fn admit_servers(&mut self) -> Outcome<()> {
        let servers = self.servers();
        let mut waiting: Vec<&ServerPlan> = Vec::new();
        for server in &servers {
            let decided = |h: &Health| !matches!(h, Health::Silent(_));
            if self.wait_for(&server.name, server.http, decided)? == Health::Waiting {
                waiting.push(server);
            }
        }
        if !waiting.is_empty() && waiting.len() == servers.len() {
            let first = waiting.remove(0);
            self.make_cluster(first)?;
        }
        let via = self
            .servers()
            .into_iter()
            .find(|s| waiting.iter().all(|w| w.name != s.name));
        for server in waiting {
            let via = via.as_ref().unwrap_or(server).peer_listen.to_string();
            self.admit(server, JoinVia { via })?;
        }
        for server in &servers {
            self.wait_for(&server.name, server.http, |h| *h == Health::Ready)?;
        }
        self.leave_removed()
    }

    fn make_cluster(&mut self, first: &ServerPlan) -> Outcome<()> {
        if let Some(cluster) = self.plan.cluster {
            return Err(Failure::error(format!(
                "the servers' data is gone: none of them knows cluster {cluster}; restore it, or remove {}",
                self.layout.root.display()
            )));
        }
        let cluster = ClusterId(rand::random());
        let config = self.plan.config(cluster, Incarnation(rand::random()));
        self.admit(first, InitCluster { config })?;
        self.wait_for(&first.name, first.http, |h| *h == Health::Ready)?;
        self.plan.cluster = Some(cluster);
        // From here on the next start continues one that is cut off.
        self.plan.store(&self.layout)
    }

    fn admit(
        &self,
        server: &ServerPlan,
        ask: impl Message<Request = NodeRequest, Answer = Joined>,
    ) -> Outcome<()> {
        net::run(async {
            let cluster = Cluster::new(&[server.listen.to_string()]).await?;
            cluster.admit(server.listen, ask, ADMIT_DEADLINE).await
        })
        .map(|_| ())
        .map_err(|f| Failure::error(format!("{}: {f}", server.name)))
    }

    /// Applies the options that count at a later start too. A setting without an option stays
    /// as it is: `lagan set` may have changed it.
    fn apply_changes(&mut self) -> Outcome<()> {
        let servers = self.addresses();
        let after = self.archive_after_ms;
        self.plan.cluster = net::run(async {
            let cluster = Cluster::new(&servers).await?;
            let mut config = cluster.map().await?.config;
            let id = Some(config.cluster);
            if let Some(after) = after.filter(|&after| after != config.archive_after_ms) {
                config.archive_after_ms = after;
                cluster.set_config(config).await?;
            }
            Ok(id)
        })?;
        Ok(())
    }

    /// Waits for the answer of S3 at a first start, unless the S3 server is the embedded one.
    /// Without an answer the start goes on; a later one shows in `lagan status`.
    ///
    /// # Errors
    /// S3 refuses.
    fn wait_for_s3(&mut self) -> Outcome<()> {
        if !self.first || !matches!(self.plan.s3, S3Plan::Url { .. }) {
            return Ok(());
        }
        let end = Instant::now() + S3_DEADLINE;
        let servers = self.addresses();
        loop {
            self.check_running()?;
            let status = net::run(async { Cluster::new(&servers).await?.status().await })?;
            match Verdict::of(&status.nodes) {
                Verdict::Ready => return Ok(()),
                Verdict::Refused(why) => {
                    return Err(Failure::error(format!("S3 refuses: {why}")));
                }
                Verdict::Open(why) if Instant::now() >= end => {
                    eprintln!("S3 has not answered yet, files wait for it{why}");
                    return Ok(());
                }
                Verdict::Open(_) => std::thread::sleep(PAUSE * 4),
            }
        }
    }

    /// Waits for a set with all copies, so that the first files have them, and for all votes,
    /// so that any one server may die from then on. The start goes on without them if a server
    /// takes too long.
    fn wait_for_copies(&mut self) -> Outcome<()> {
        let end = Instant::now() + COPIES_DEADLINE;
        let servers = self.addresses();
        loop {
            self.check_running()?;
            let map = net::run(async { Cluster::new(&servers).await?.map().await })?;
            let full = |set: &&ReplicaSet| set.nodes.len() >= usize::from(map.config.copies);
            let all_up = map.nodes.iter().all(|n| n.state == NodeState::Up);
            let complete = map.sets.iter().filter(full).any(|set| map.writable(set));
            let voting = map.nodes.iter().filter(|n| n.voter).count() >= voter_count(servers.len());
            if (all_up && complete && voting) || Instant::now() >= end {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn wait_for_mounts(&mut self) -> Outcome<()> {
        let end = Instant::now() + MOUNT_DEADLINE;
        for point in self.plan.mounts.clone() {
            loop {
                self.check_running()?;
                let mounted = check::mounted_at(&point)?.is_some_and(|m| m.is_lagan());
                if mounted && hang::look(&point, LOOK_DEADLINE) == Look::Directory {
                    break;
                }
                if Instant::now() >= end {
                    return Err(Failure::error(format!(
                        "the mount at {} does not answer after {} s (logs: {})",
                        point.display(),
                        MOUNT_DEADLINE.as_secs(),
                        self.layout.root.join("log").display()
                    )));
                }
                std::thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    /// Stops the processes of this start, and removes the data of a first start.
    fn abandon(&mut self) {
        down::unmount_all(&self.layout, &self.plan.mounts, Duration::from_secs(1));
        for running in self.running.iter_mut().rev() {
            running.stop(Duration::from_secs(10));
        }
        for dir in &self.made {
            empty_dir(dir);
        }
        if self.first {
            let _ = std::fs::remove_file(self.layout.up_json());
        }
    }
}

/// The message of a server that cannot start since the cluster refused its store for good.
fn refusal(process: &Process) -> Option<Failure> {
    if process.role != Role::Server {
        return None;
    }
    let reason = lagan_server::refusal(&process.data)?;
    Some(Failure::error(format!("{}: {reason}", process.name)))
}

/// The data directories of a plan that are empty.
fn empty_data(layout: &Layout, plan: &Plan) -> Vec<PathBuf> {
    let servers = plan
        .servers
        .iter()
        .map(|s| layout.data(Role::Server, &s.name));
    servers
        .chain([layout.data(Role::S3, "s3")])
        .filter(|dir| entries(dir).iter().all(|e| e.ends_with("lost+found")))
        .collect()
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let found = std::fs::read_dir(dir).into_iter().flatten().flatten();
    found.map(|e| e.path()).collect()
}

/// Empties a directory, but keeps it: it may be a mount point.
fn empty_dir(dir: &Path) {
    for path in entries(dir) {
        if path.ends_with("lost+found") {
            continue;
        }
        let _ = match path.symlink_metadata() {
            Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(&path),
            _ => std::fs::remove_file(&path),
        };
    }
}

fn print(record: &Record, json: bool, detach: bool) -> Outcome<()> {
    if json {
        let mut shown = record.clone();
        if let Some(s3) = &mut shown.s3 {
            // Secrets stay in the file.
            s3.secret_key.clear();
        }
        let text = serde_json::to_string_pretty(&shown).doing(|| "encode the record".into())?;
        println!("{text}");
    } else {
        print!("{}", foreground::summary(record, detach));
    }
    Ok(())
}
