//! Addresses and ports of a cluster on this machine.
//!
//! Server N of a directory has 127.77.X.N, S3 has 127.77.X.250. X and the first
//! port come from a hash of the directory's path, so that two directories hardly
//! ever meet, even while one of them is stopped. An X that something listens on is
//! passed over. All ports lie below those that the kernel gives to outgoing connections.

use crate::exit::{Failure, Outcome};
use crate::layout::Layout;
use crate::up::servers::Machine;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

/// Last part of the address of the embedded S3 server.
const S3_LAST: u8 = 250;
/// Distance between the first ports of two servers.
const PORT_STEP: u16 = 10;
const PORT_FIRST: u16 = 7_700;
const PORT_ROOMS: u64 = 1_000;
const PORT_TRIES: u16 = 200;

/// This machine as it is for one directory.
pub struct Here {
    x: u8,
    base_port: u16,
}

impl Here {
    /// The machine for the directory of `layout`.
    pub fn new(layout: &Layout) -> Self {
        let hash = path_hash(&layout.root);
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
        Here {
            x: choose_x(hash, &busy_x(&table)),
            base_port: PORT_FIRST + (hash / 254 % PORT_ROOMS) as u16 * PORT_STEP,
        }
    }
}

impl Machine for Here {
    fn own_ip(&self, n: usize) -> IpAddr {
        let last = match u8::try_from(n) {
            Ok(n) if n > 0 => n,
            _ => S3_LAST,
        };
        Ipv4Addr::new(127, 77, self.x, last).into()
    }

    fn ports(&self, ip: IpAddr, n: usize, count: usize, elsewhere: bool) -> Outcome<Vec<u16>> {
        // Several servers may share an address: each has a first port of its own.
        let start = self.base_port + n as u16 * PORT_STEP;
        let free = |port: u16| elsewhere || TcpListener::bind(SocketAddr::new(ip, port)).is_ok();
        if !elsewhere {
            // An address of another machine would look like one without free ports.
            TcpListener::bind(SocketAddr::new(ip, 0))
                .map_err(|e| Failure::error(format!("listen on {ip}: {e}")))?;
        }
        for attempt in 0..PORT_TRIES {
            let first = start.saturating_add(attempt * PORT_STEP * 61 % 10_000);
            let ports: Vec<u16> = (first..).take(count).collect();
            if ports.iter().all(|&p| free(p)) {
                return Ok(ports);
            }
        }
        Err(Failure::error(format!("no free port at {ip}")))
    }

    fn random_key(&self, len: usize) -> String {
        const ALPHABET: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
        (0..len)
            .map(|_| ALPHABET[rand::random_range(0..ALPHABET.len())] as char)
            .collect()
    }

    fn aws_region(&self) -> String {
        let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        var("AWS_REGION")
            .or_else(|| var("AWS_DEFAULT_REGION"))
            .or_else(|| {
                let file = var("AWS_CONFIG_FILE")
                    .or_else(|| var("HOME").map(|home| format!("{home}/.aws/config")))?;
                let profile = var("AWS_PROFILE").unwrap_or_else(|| "default".into());
                region_in(&std::fs::read_to_string(file).ok()?, &profile)
            })
            .unwrap_or_else(|| "us-east-1".into())
    }
}

/// The region of a profile in the text of an AWS configuration file.
fn region_in(text: &str, profile: &str) -> Option<String> {
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            let name = name.trim();
            inside =
                name == profile || name.strip_prefix("profile ").map(str::trim) == Some(profile);
        } else if inside
            && let Some((key, value)) = line.split_once('=')
            && key.trim() == "region"
        {
            return Some(value.trim().to_owned());
        }
    }
    None
}

/// Hashes a path by FNV-1a, which gives the same number in every build.
fn path_hash(path: &std::path::Path) -> u64 {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str()
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &b| {
            (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
        })
}

fn choose_x(hash: u64, busy: &BTreeSet<u8>) -> u8 {
    let first = (hash % 254) as u8;
    (0..254u8)
        .map(|i| ((u16::from(first) + u16::from(i)) % 254) as u8 + 1)
        .find(|x| !busy.contains(x))
        .unwrap_or(first + 1)
}

/// Each X of 127.77.X.N that /proc/net/tcp shows a socket on.
fn busy_x(table: &str) -> BTreeSet<u8> {
    table
        .lines()
        .filter_map(|line| {
            let local = line.split_whitespace().nth(1)?;
            let ip = u32::from_str_radix(local.split(':').next()?, 16).ok()?;
            match ip.to_ne_bytes() {
                [127, 77, x, _] => Some(x),
                _ => None,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_use_are_passed_over() {
        let table = "  sl  local_address rem_address   st\n\
            0: 0105 4D7F:1E14 00000000:0000 0A\n\
            0: 01054D7F:1E14 00000000:0000 0A\n\
            1: 0100007F:1E14 00000000:0000 0A\n";
        let busy = busy_x(table);
        assert_eq!(busy, BTreeSet::from([5]));
        assert_eq!(choose_x(4, &busy), 6);
        assert_eq!(choose_x(253, &BTreeSet::from([254])), 1);
        let all: BTreeSet<u8> = (0..=255).collect();
        assert_eq!(choose_x(9, &all), 10);
    }

    #[test]
    fn port_in_use_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let here = Here::new(&Layout::new(dir.path()).unwrap());
        let ip = here.own_ip(1);
        let first = here.ports(ip, 1, 3, false).unwrap();
        let _taken = TcpListener::bind((ip, first[1])).unwrap();
        let second = here.ports(ip, 1, 3, false).unwrap();
        assert!(second.iter().all(|p| !first.contains(p)));
        assert_eq!(here.ports(ip, 1, 3, true).unwrap(), first);
    }

    #[test]
    fn region_is_that_of_the_profile() {
        let text = "[default]\nregion = eu-west-1\n[profile x]\noutput = json\nregion=eu-north-1\n";
        assert_eq!(region_in(text, "default").as_deref(), Some("eu-west-1"));
        assert_eq!(region_in(text, "x").as_deref(), Some("eu-north-1"));
        assert_eq!(region_in(text, "y"), None);
    }
}
