//! Dropped packets: a host that is gone, as its neighbours see it.

use crate::command::must;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

/// An address that nothing reaches and that reaches nobody, until dropped.
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
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let ip = addr.rsplit_once(':').map_or(addr, |(ip, _)| ip);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let table = format!("lagan_{}_{number}", std::process::id());
        let rules = format!(
            "table inet {table} {{\n chain out {{\n type filter hook output priority 0;\n\
             ip saddr {ip} drop\n ip daddr {ip} drop\n }}\n}}\n"
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

impl Drop for Silence {
    fn drop(&mut self) {
        let mut nft = std::process::Command::new("nft");
        nft.args(["delete", "table", "inet", &self.table]);
        let _ = crate::command::run(&mut nft, LIMIT);
    }
}
