//! Dropped packets: a host that is gone, as its neighbours see it.

use crate::command::must;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

/// Packets that are dropped until this is.
#[derive(Debug)]
pub struct Silence {
    table: String,
}

impl Silence {
    /// Drops all packets from and to an address (`ip` or `ip:port`, of which the
    /// port does not count).
    ///
    /// # Panics
    /// When the kernel's packet filter cannot be used.
    pub fn of(addr: &str) -> Self {
        let ip = ip_of(addr);
        Silence::new(&format!("ip saddr {ip} drop\n ip daddr {ip} drop"))
    }

    /// Drops all packets between two groups of addresses (ports do not count).
    ///
    /// # Panics
    /// When the kernel's packet filter cannot be used.
    pub fn between(here: &[String], there: &[String]) -> Self {
        let list = |addrs: &[String]| {
            let ips: Vec<&str> = addrs.iter().map(|a| ip_of(a)).collect();
            format!("{{ {} }}", ips.join(", "))
        };
        let (a, b) = (list(here), list(there));
        Silence::new(&format!(
            "ip saddr {a} ip daddr {b} drop\n ip saddr {b} ip daddr {a} drop"
        ))
    }

    fn new(rules: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let table = format!("lagan_{}_{number}", std::process::id());
        let rules = format!(
            "table inet {table} {{\n chain out {{\n type filter hook output priority 0;\n\
             {rules}\n }}\n}}\n"
        );
        let file = tempfile::NamedTempFile::new().expect("make a file for the rules");
        std::fs::write(file.path(), rules).expect("write the rules");
        must(
            "nft",
            &["-f", file.path().to_str().unwrap_or_default()],
            LIMIT,
        );
        Silence { table }
    }
}

fn ip_of(addr: &str) -> &str {
    addr.rsplit_once(':').map_or(addr, |(ip, _)| ip)
}

impl Drop for Silence {
    fn drop(&mut self) {
        let mut nft = std::process::Command::new("nft");
        nft.args(["delete", "table", "inet", &self.table]);
        let _ = crate::command::run(&mut nft, LIMIT);
    }
}
