//! The summary that `lagan up` prints, and its wait in the foreground.

use crate::down;
use crate::exit::{OK, Outcome};
use crate::layout::{Layout, Role};
use crate::record::Record;
use crate::sys;
use crate::up::process::Running;
use std::fmt::Write;
use std::time::Duration;

/// Pause between two looks at the processes.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The processes and their addresses, and commands to look at the cluster.
pub fn summary(record: &Record, detach: bool) -> String {
    let mut out = String::new();
    let root = record
        .processes
        .first()
        .map(|p| p.cwd.display().to_string())
        .unwrap_or_default();
    let _ = writeln!(
        out,
        "Lagan runs in {root} (cluster {})\n",
        record.cluster_id
    );
    for p in &record.processes {
        let place = match p.role {
            Role::Mount => record
                .mounts
                .iter()
                .find(|m| m.name == p.name)
                .map(|m| m.path.display().to_string()),
            Role::Server => p
                .addr
                .as_ref()
                .zip(p.http.as_ref())
                .map(|(addr, http)| format!("{addr:<22} http://{http}/metrics")),
            Role::S3 => p.addr.as_ref().map(|a| {
                let bucket = record.s3.as_ref().map_or("", |s| s.bucket.as_str());
                format!("http://{a}  bucket {bucket}")
            }),
        };
        let _ = writeln!(
            out,
            "  {:<10} pid {:<8} {}",
            p.name,
            p.pid,
            place.unwrap_or_default()
        );
    }
    if let Some(s3) = record.s3.as_ref().filter(|s| s.access_key.is_empty()) {
        let _ = writeln!(
            out,
            "  {:<10} {}  bucket {}",
            "archive", s3.endpoint, s3.bucket
        );
    }
    let mount = record.mounts.first().map(|m| m.path.display().to_string());
    let mount = mount.unwrap_or_default();
    let lagan = format!("{root}/bin/lagan");
    let _ = write!(
        out,
        "\nUse it:        cp -r some-files {mount}/\n\
         Look inside:   {lagan} --cluster {root} status\n\
         One file:      {lagan} file {mount}/...\n\
         Logs:          {root}/log\n\
         Stop:          {}{lagan} down {root}\n",
        if detach { "" } else { "Ctrl-C, or " }
    );
    out
}

/// Waits for SIGINT, SIGTERM or SIGHUP, or for a `lagan down` of somebody else, then stops
/// everything in order. Nothing restarts a process that dies meanwhile.
///
/// # Errors
/// Those of `lagan down`.
pub fn wait(layout: &Layout, mut running: Vec<Running>) -> Outcome<u8> {
    loop {
        if sys::interrupted() {
            println!("stopping");
            return down::stop(layout, false);
        }
        let stopped = layout.stopped_mark().exists();
        let stopping = stopped || layout.stopping_mark().exists();
        running.retain_mut(|r| match r.ended() {
            Some(status) => {
                if !stopping {
                    println!("{} (process {}) ended: {status}", r.name, r.pid());
                }
                false
            }
            None => true,
        });
        if stopped {
            println!("stopped by `lagan down`");
            return Ok(OK);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
