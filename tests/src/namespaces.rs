//! Network namespaces on a bridge: machines of their own, as far as the network goes.

use crate::command;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

/// Namespaces with one address each; all are removed when this is dropped.
#[derive(Debug)]
pub struct Namespaces {
    tag: u32,
    net: String,
    count: usize,
}

impl Namespaces {
    /// Makes that many. One such set exists per process.
    ///
    /// # Panics
    /// When that does not work.
    pub fn new(count: usize) -> Self {
        let tag = std::process::id();
        let net = format!("10.{}.{}", 200 + tag % 50, tag / 50 % 256);
        let all = Namespaces { tag, net, count };
        let bridge = all.bridge();
        must(&format!("link add {bridge} type bridge"));
        must(&format!("addr add {}.254/24 dev {bridge}", all.net));
        must(&format!("link set {bridge} up"));
        for n in 1..=count {
            let (name, link) = (all.name(n), all.link(n));
            must(&format!("netns add {name}"));
            must(&format!(
                "link add {link} type veth peer name eth0 netns {name}"
            ));
            must(&format!("link set {link} master {bridge} up"));
            must(&format!("-n {name} addr add {} dev eth0", all.addr(n)));
            must(&format!("-n {name} link set eth0 up"));
            must(&format!("-n {name} link set lo up"));
        }
        all
    }

    /// Name of namespace `n`, from 1.
    pub fn name(&self, n: usize) -> String {
        format!("lagan{}-{n}", self.tag)
    }

    /// Address and prefix length in namespace `n`.
    fn addr(&self, n: usize) -> String {
        format!("{}.{n}/24", self.net)
    }

    /// Arguments for `lagan up`.
    pub fn args(&self) -> Vec<String> {
        let all = 1..=self.count;
        let addrs: Vec<String> = all.clone().map(|n| format!("{}.{n}", self.net)).collect();
        let names: Vec<String> = all.map(|n| self.name(n)).collect();
        vec![
            "--addrs".into(),
            addrs.join(","),
            "--netns".into(),
            names.join(","),
        ]
    }

    /// Cuts the link of namespace `n`, or mends it.
    ///
    /// # Panics
    /// When that does not work.
    pub fn set_link(&self, n: usize, up: bool) {
        let state = if up { "up" } else { "down" };
        must(&format!("link set {} {state}", self.link(n)));
    }

    fn link(&self, n: usize) -> String {
        format!("lgv{}-{n}", self.tag)
    }

    fn bridge(&self) -> String {
        format!("lgb{}", self.tag)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for n in 1..=self.count {
            try_ip(&format!("link del {}", self.link(n)));
            try_ip(&format!("netns del {}", self.name(n)));
        }
        try_ip(&format!("link del {}", self.bridge()));
    }
}

fn must(args: &str) {
    let args: Vec<&str> = args.split(' ').collect();
    command::must("ip", &args, LIMIT);
}

fn try_ip(args: &str) {
    let _ = command::run(Command::new("ip").args(args.split(' ')), LIMIT);
}
