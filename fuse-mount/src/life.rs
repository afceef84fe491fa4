//! The life of a mount process.
//!
//! ```text
//! check -> lock -> connect -> mount -> answers? -> serve -+- signal ----> unmount -> flush -> exit 0
//!                                                         +- umount(8) -----------> flush -> exit 0
//!                                                         '- loop died --> unmount -> flush -> exit 1
//! ```
//! A failure before `serve` undoes what was done and is reported in one line. This process
//! never touches the mount point itself, only through child processes.

use crate::check;
use crate::cli::Invocation;
use crate::config::MountConfig;
use crate::daemon::{self, Report};
use crate::failure::Failure;
use crate::fs::LaganFs;
use crate::identity;
use crate::kernel::{self, Left, Mounted};
use crate::log;
use crate::notify;
use crate::run_dir::RunDir;
use crate::sys::{self, ChildEnd};
use fuser::{Session, SessionACL};
use lagan_client::Client;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, oneshot};

/// Number of threads that take requests from the kernel.
const FUSE_THREADS: usize = 4;
/// Longest time for the flush at the end: service managers wait longer.
const FLUSH: Duration = Duration::from_secs(15);
/// Time that a step gets beyond the client's own deadlines.
const GRACE: Duration = Duration::from_secs(5);
/// Pause between two looks whether the client has opened a new session.
const SESSION_CHECK: Duration = Duration::from_secs(2);

/// The signals that end a mount: SIGTERM and SIGINT.
struct Stop {
    term: Signal,
    int: Signal,
}

/// A mount that takes requests.
struct Served {
    client: Arc<Client>,
    mounted: Arc<Mounted>,
    /// Receives the end of the session's loops, with their error.
    ended: oneshot::Receiver<io::Result<()>>,
    /// Notified when one of its threads ends.
    loop_ended: Arc<Notify>,
    stop: Stop,
}

/// Why a mount ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// SIGTERM or SIGINT.
    Signal,
    /// Somebody unmounted it.
    Unmounted,
    /// Nothing takes its requests any more though it is still mounted.
    Broken,
}

/// Mounts, serves until the mount is gone, and cleans up.
pub(crate) fn run(invocation: &Invocation) -> ExitCode {
    let config = &invocation.config;
    log::start(&config.log);
    // Before the fork, so that plain mistakes are reported at once.
    let point = match check::mount_point(&config.mount_point) {
        Ok(point) => point,
        Err(failure) => return Report::Foreground.failed(&failure),
    };
    let report = match daemon::start(invocation.foreground) {
        Ok(report) => report,
        Err(status) => return status,
    };
    match RunDir::lock(config, &point).and_then(|dir| Ok((runtime()?, dir))) {
        Ok((runtime, dir)) => {
            let status = runtime.block_on(live(config, point, &dir, report));
            runtime.shutdown_timeout(Duration::from_secs(1));
            status
        }
        Err(failure) => report.failed(&failure),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let cpus = std::thread::available_parallelism().map_or(2, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        // Requests begin on the FUSE threads; a second worker on a small
        // machine would cost a wake-up for every message.
        .worker_threads((cpus / 2).clamp(1, 4))
        .thread_name("mount")
        .enable_all()
        .build()
        .map_err(|e| Failure::start(format!("start threads: {e}")))
}

async fn live(config: &MountConfig, point: PathBuf, dir: &RunDir, report: Report) -> ExitCode {
    let mut served = match start(config, &point, dir).await {
        Ok(served) => served,
        Err(failure) => return report.failed(&failure),
    };
    tracing::info!(
        mount_point = %point.display(),
        source = config.source(),
        session = %served.client.session(),
        "mounted"
    );
    report.ready(dir.log_file());
    let end = serve(&mut served, dir).await;
    dir.withdraw();
    leave(served, end, config, dir).await
}

/// Does everything up to a mount that answers.
async fn start(config: &MountConfig, point: &Path, dir: &RunDir) -> Result<Served, Failure> {
    let mut stop = Stop::listen()?;
    let client = tokio::select! {
        client = connect(config, point, dir) => client?,
        () = stop.wait() => return Err(interrupted()),
    };
    match mount(config, point, dir, &client, stop).await {
        Ok(served) => Ok(served),
        Err(failure) => {
            if client.shutdown(GRACE).await.is_ok() {
                dir.forget_session();
            }
            Err(failure)
        }
    }
}

async fn connect(config: &MountConfig, point: &Path, dir: &RunDir) -> Result<Arc<Client>, Failure> {
    let identity =
        identity::draw(point).map_err(|e| Failure::start(format!("identify this machine: {e}")))?;
    let mut options =
        lagan_client::Options::new(config.servers.clone(), config.volume.clone(), identity);
    options.predecessor = dir.predecessor();
    options.bind_from = config.bind;
    options.timeout = config.timeout;
    options.write_buffer_bytes = usize::try_from(config.write_buffer_bytes).unwrap_or(usize::MAX);
    options.leases = config.lease;
    options.local_locks = config.local_locks;
    options.access_times = config.access_times();
    let client = tokio::time::timeout(config.timeout + GRACE, Client::connect(options))
        .await
        .map_err(|_| {
            Failure::start(format!(
                "no answer from {}: are the servers running?",
                config.servers.join(",")
            ))
        })?
        .map_err(|e| Failure::start(e.to_string()))?;
    dir.keep_session(client.session())
        .map_err(|e| Failure::start(format!("write the session to the run directory: {e}")))?;
    Ok(client)
}

/// Mounts and waits until the mount answers.
async fn mount(
    config: &MountConfig,
    point: &Path,
    dir: &RunDir,
    client: &Arc<Client>,
    mut stop: Stop,
) -> Result<Served, Failure> {
    let loop_ended = Arc::new(Notify::new());
    let runtime = tokio::runtime::Handle::current();
    let fs = LaganFs::new(client.clone(), runtime, config, loop_ended.clone());
    let (mounted, device) = Mounted::mount(config, point)?;
    let mounted = Arc::new(mounted);
    let ended = take_requests(fs, device, config, client)?;
    kernel::set_read_ahead(mounted.device(), config.read_ahead_bytes);

    let (path, patience) = (point.to_path_buf(), config.timeout + GRACE);
    let probe = tokio::task::spawn_blocking(move || sys::ask_in_child(&path, patience));
    let answer = tokio::select! {
        answer = probe => answer.map_err(|e| Failure::start(format!("probe the mount: {e}")))?,
        () = stop.wait() => return Err(interrupted()),
        () = loop_ended.notified() => Ok(ChildEnd::TimedOut),
    };
    match answer {
        Ok(ChildEnd::Done) => {}
        Ok(ChildEnd::Errno(errno)) => {
            let error = io::Error::from_raw_os_error(errno);
            return Err(Failure::start(format!("the mount answers: {error}")));
        }
        Ok(ChildEnd::TimedOut) => return Err(Failure::start("the mount does not answer")),
        Err(e) => return Err(Failure::start(format!("probe the mount: {e}"))),
    }
    dir.announce(config, point, client.session())
        .map_err(|e| Failure::start(format!("write mount.json to the run directory: {e}")))?;
    Ok(Served {
        client: client.clone(),
        mounted,
        ended,
        loop_ended,
        stop,
    })
}

/// Starts the threads that take requests, and those for notifications.
fn take_requests(
    fs: LaganFs,
    device: std::os::fd::OwnedFd,
    config: &MountConfig,
    client: &Arc<Client>,
) -> Result<oneshot::Receiver<io::Result<()>>, Failure> {
    let failed = |e: io::Error| Failure::start(format!("start the FUSE session: {e}"));
    let mut options = fuser::Config::default();
    options.n_threads = Some(FUSE_THREADS);
    options.clone_fd = true;
    options.acl = if config.allow_other {
        SessionACL::All
    } else {
        SessionACL::Owner
    };
    let own = device.try_clone().map_err(failed)?;
    let session = Session::from_fd(fs, device, options.acl, options).map_err(failed)?;
    client.on_forget(notify::start_forgetting(own).map_err(failed)?);
    client.on_invalidate(notify::start(session.notifier()).map_err(failed)?);
    let (tell, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("fuse".into())
        .spawn(move || {
            // Nobody listens only when the process is ending anyway.
            drop(tell.send(session.run()));
        })
        .map_err(failed)?;
    Ok(ended)
}

/// Waits for the end of the mount.
async fn serve(served: &mut Served, dir: &RunDir) -> End {
    let mut session = served.client.session();
    let mut check = tokio::time::interval(SESSION_CHECK);
    loop {
        tokio::select! {
            () = served.stop.wait() => return End::Signal,
            ended = &mut served.ended => return how_ended(ended.ok()),
            () = served.loop_ended.notified() => {
                // An unmount ends all threads; if one ends alone, that is a defect.
                let all = tokio::time::timeout(GRACE, &mut served.ended).await;
                return how_ended(all.ok().and_then(Result::ok));
            }
            _ = check.tick() => {
                let now = served.client.session();
                if now != session {
                    session = now;
                    if let Err(e) = dir.keep_session(now) {
                        tracing::warn!(error = %e, "write the session to the run directory");
                    }
                }
            }
        }
    }
}

fn how_ended(result: Option<io::Result<()>>) -> End {
    match result {
        Some(Ok(())) => End::Unmounted,
        other => {
            tracing::error!(?other, "the kernel's requests are not taken any more");
            End::Broken
        }
    }
}

/// Unmounts what is mounted, flushes, closes the session.
async fn leave(served: Served, end: End, config: &MountConfig, dir: &RunDir) -> ExitCode {
    let Served {
        client,
        mounted,
        ended,
        ..
    } = served;
    tracing::info!(?end, "leave");
    let gone = tokio::task::spawn_blocking(move || mounted.leave()).await;
    if end == End::Signal && matches!(gone, Ok(Left::Clean)) {
        // The threads still work on the last requests (RELEASE).
        drop(tokio::time::timeout(GRACE, ended).await);
    }
    if matches!(gone, Ok(Left::Clean)) {
        client.unmounted();
    }
    let flushed = client.shutdown(config.timeout.min(FLUSH)).await;
    match flushed {
        Ok(()) => dir.forget_session(),
        Err(error) => tracing::error!(%error, "what was written last may not be stored"),
    }
    tracing::info!("left");
    if flushed.is_ok() && end != End::Broken {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn interrupted() -> Failure {
    Failure::start("interrupted before the mount answered")
}

impl Stop {
    fn listen() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|e| Failure::start(format!("listen to signals: {e}")));
        Ok(Stop {
            term: on(SignalKind::terminate())?,
            int: on(SignalKind::interrupt())?,
        })
    }

    /// Waits until one of the signals arrives.
    async fn wait(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
