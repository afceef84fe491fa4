//! The servers' part of the plan, and what a first plan takes from the machine.

use crate::cli::UpArgs;
use crate::exit::{Failure, Outcome};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// Servers of one machine, at most: 127.77.X.N has room for these and S3.
pub const SERVERS_MAX: usize = 50;
/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerPlan {
    /// `server-N`.
    pub name: String,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where the other servers connect.
    pub peer_listen: SocketAddr,
    /// /health and /metrics.
    pub http: SocketAddr,
    /// The network namespace that it runs in.
    pub netns: Option<String>,
}

/// Facts of the machine that a first plan needs.
pub trait Machine {
    /// The address of server `n` (from 1) without `--addrs`.
    fn own_ip(&self, n: usize) -> IpAddr;
    /// Three ports of that address for a server, one for S3 (`n` = 0), that nothing listens on.
    fn ports(&self, ip: IpAddr, n: usize, count: usize, elsewhere: bool) -> Outcome<Vec<u16>>;
    /// A random key of that many characters.
    fn random_key(&self, len: usize) -> String;
    /// The region of the AWS configuration.
    fn aws_region(&self) -> String;
}

/// How many servers the arguments ask for.
///
/// # Errors
/// Status 2 for arguments that contradict each other.
pub fn server_count(args: &UpArgs) -> Outcome<usize> {
    let given = [args.addrs.len(), args.netns.len()];
    let listed = given.into_iter().max().filter(|&n| n > 0);
    let count = args.servers.or(listed).unwrap_or(3);
    if count == 0 || count > SERVERS_MAX {
        return Err(Failure::usage(format!(
            "--servers {count}: 1 to {SERVERS_MAX} are possible"
        )));
    }
    for (name, len) in [("--addrs", given[0]), ("--netns", given[1])] {
        if len != 0 && len != count {
            return Err(Failure::usage(format!(
                "{name} names {len} for {count} servers: one for each is needed"
            )));
        }
    }
    if !args.netns.is_empty() && args.addrs.is_empty() {
        return Err(Failure::usage(
            "--netns needs --addrs: the addresses that the servers have in their namespaces",
        ));
    }
    if let Some(ip) = args.addrs.iter().find(|ip| ip.is_unspecified()) {
        return Err(Failure::usage(format!(
            "--addrs {ip}: would be every address of the machine, name one"
        )));
    }
    Ok(count)
}

/// Server `n`, from 1.
///
/// # Errors
/// Status 1 when no port is free.
pub fn server(args: &UpArgs, n: usize, machine: &dyn Machine) -> Outcome<ServerPlan> {
    let ip = args
        .addrs
        .get(n - 1)
        .copied()
        .unwrap_or_else(|| machine.own_ip(n));
    let netns = args.netns.get(n - 1).cloned();
    let ports = machine.ports(ip, n, 3, netns.is_some())?;
    let addr = |i: usize| SocketAddr::new(ip, ports.get(i).copied().unwrap_or(0));
    Ok(ServerPlan {
        name: format!("server-{n}"),
        listen: addr(0),
        peer_listen: addr(1),
        http: addr(2),
        netns,
    })
}

/// Refuses two servers at one address.
///
/// # Errors
/// Status 2, with the address.
pub fn check_distinct(servers: &[ServerPlan]) -> Outcome<()> {
    let mut seen = std::collections::BTreeSet::new();
    for s in servers {
        if !seen.insert(s.listen) {
            return Err(Failure::usage(format!(
                "--addrs names {} twice",
                s.listen.ip()
            )));
        }
    }
    Ok(())
}
