//! The files that a start writes before any process runs: folders, links, configuration,
//! and the command line of each process.

use crate::exit::{Doing, Failure, Outcome};
use crate::layout::{Layout, Role, make_private_dir, replace_private};
use crate::record::{MountEntry, Process, Record, S3Entry, SCHEMA};
use crate::up::archive::S3Plan;
use crate::up::config;
use crate::up::plan::Plan;
use lagan_host::replace::replace_link;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Makes everything that the processes of `plan` need.
///
/// # Errors
/// When something cannot be written, or this program cannot be found.
pub fn write(layout: &Layout, plan: &Plan) -> Outcome<()> {
    link_programs(layout)?;
    for server in &plan.servers {
        make_private_dir(&layout.data(Role::Server, &server.name))?;
        let text = config::server(layout, plan, server)?;
        replace_private(&layout.config(&server.name), text.as_bytes())?;
    }
    for (name, point) in mount_names(plan) {
        make_private_dir(&layout.data(Role::Mount, &name))?;
        let text = config::mount(layout, plan, &name, point)?;
        replace_private(&layout.config(&name), text.as_bytes())?;
    }
    if let Some(text) = config::s3(layout, plan)? {
        make_private_dir(&layout.data(Role::S3, "s3"))?;
        make_private_dir(&layout.run("s3"))?;
        replace_private(&layout.config("s3"), text.as_bytes())?;
    }
    remove_old_mounts(layout, plan)
}

/// The name (`mount-N`) and the mount point of each mount, in order.
pub fn mount_names(plan: &Plan) -> impl Iterator<Item = (String, &Path)> {
    plan.mounts
        .iter()
        .enumerate()
        .map(|(i, point)| (format!("mount-{}", i + 1), point.as_path()))
}

/// The record of all processes of `plan`, without pids.
///
/// # Errors
/// When a path is not UTF-8, or `ip` is needed and not there.
pub fn record(layout: &Layout, plan: &Plan) -> Outcome<Record> {
    let mut processes = Vec::new();
    for server in &plan.servers {
        let mut process = process(layout, Role::Server, &server.name, server.netns.as_deref())?;
        process.addr = Some(server.listen.to_string());
        process.peer_addr = Some(server.peer_listen.to_string());
        process.http = Some(server.http.to_string());
        process.env = plan.s3.env();
        processes.push(process);
    }
    if let S3Plan::Embedded { listen, netns, .. } = &plan.s3 {
        let mut process = process(layout, Role::S3, "s3", netns.as_deref())?;
        process.addr = Some(listen.to_string());
        process.http = Some(listen.to_string());
        processes.push(process);
    }
    let mut mounts = Vec::new();
    for (name, point) in mount_names(plan) {
        processes.push(process(layout, Role::Mount, &name, None)?);
        mounts.push(MountEntry {
            name,
            path: point.to_owned(),
            pid: 0,
        });
    }
    Ok(Record {
        schema: SCHEMA,
        cluster_id: plan.cluster.map(|c| c.to_string()).unwrap_or_default(),
        volume: plan.volume.clone(),
        processes,
        mounts,
        s3: s3_entry(plan),
    })
}

fn s3_entry(plan: &Plan) -> Option<S3Entry> {
    let config = plan.s3.config()?;
    let (access_key, secret_key) = plan.s3.keys().unwrap_or(("", ""));
    Some(S3Entry {
        endpoint: config.endpoint.unwrap_or_default(),
        bucket: config.bucket,
        region: config.region,
        access_key: access_key.into(),
        secret_key: secret_key.into(),
    })
}

fn process(layout: &Layout, role: Role, name: &str, netns: Option<&str>) -> Outcome<Process> {
    let mut argv = match netns {
        Some(netns) => {
            // `ip netns exec` executes the program in its place: the pid stays the same.
            let ip = find_program("ip")?;
            vec![text(&ip)?, "netns".into(), "exec".into(), netns.to_owned()]
        }
        None => Vec::new(),
    };
    argv.push(text(&layout.program(role))?);
    argv.push("--config".into());
    argv.push(text(&layout.config(name))?);
    if role == Role::Mount {
        argv.push("--foreground".into());
    }
    Ok(Process {
        name: name.into(),
        role,
        pid: 0,
        argv,
        env: BTreeMap::new(),
        cwd: layout.root.clone(),
        log: layout.log(name),
        addr: None,
        peer_addr: None,
        http: None,
        data: layout.data(role, name),
        config: layout.config(name),
    })
}

fn text(path: &Path) -> Outcome<String> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Failure::usage(format!("{}: the path must be UTF-8", path.display())))
}

fn find_program(name: &str) -> Outcome<PathBuf> {
    ["/usr/sbin", "/sbin", "/usr/bin", "/bin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.exists())
        .ok_or_else(|| Failure::error(format!("`{name}` is missing: install iproute2")))
}

/// Links `bin/NAME` to this program.
fn link_programs(layout: &Layout) -> Outcome<()> {
    let exe = std::env::current_exe().doing(|| "find this program".into())?;
    let names = [Role::Server, Role::Mount, Role::S3].map(Role::program);
    for name in names.into_iter().chain(["lagan"]) {
        let link = layout.root.join("bin").join(name);
        replace_link(&link, &exe).doing(|| format!("link {}", link.display()))?;
    }
    Ok(())
}

/// Removes the files of mounts that are no longer wanted, since `down` would unmount their
/// mount points.
fn remove_old_mounts(layout: &Layout, plan: &Plan) -> Outcome<()> {
    for (role, name) in layout.processes() {
        if role == Role::Mount && mount_names(plan).all(|(n, _)| n != name) {
            let _ = std::fs::remove_file(layout.config(&name));
            let dir = layout.data(role, &name);
            std::fs::remove_dir_all(&dir).doing(|| format!("remove {}", dir.display()))?;
        }
    }
    Ok(())
}
