//! Files that a mount has made by itself, where nobody else could miss them.
//!
//! They are true, though no server knows them: until a command makes them part of the replicated
//! state, or until the lease of their mount has ended. From then on only the replicated state
//! counts: the command may still come, or be too late.

use super::Truth;
use lagan_types::Ino;

/// Such a file.
#[derive(Debug, Clone, Copy)]
pub(in crate::simulation) struct Local {
    pub at: (Ino, u8),
    /// Its mount.
    pub mount: usize,
    /// The number that its directory got with it.
    pub value: u64,
    /// The lease of its mount ends then, on its mount's clock.
    pub until_ms: u64,
}

impl Truth {
    /// Notes that a mount makes a file by itself. Returns the number that its directory gets.
    pub fn make_alone(&mut self, ino: Ino, mut local: Local, now: u64) -> u64 {
        self.count += 1;
        local.value = self.count;
        self.inodes.entry(ino).or_default().push((now, self.count));
        self.local.insert(ino, local);
        self.reflect(local.at, now);
        self.is_new = true;
        self.count
    }

    /// Notes that others may miss the file from now on, if it is local still.
    pub fn lapse(&mut self, ino: Ino, now: u64) {
        if let Some(local) = self.local.remove(&ino) {
            self.reflect(local.at, now);
            self.is_new = true;
        }
    }

    /// Whether a file was made part of the replicated state.
    pub fn is_made(&self, ino: Ino) -> bool {
        self.made.contains(&ino)
    }

    /// Makes a file part of the replicated state, if it is not. Returns whether it was.
    pub(super) fn make(&mut self, ino: Ino, at: (Ino, u8), value: u64, now: u64) -> bool {
        if self.is_made(ino) {
            return true;
        }
        if self.target(at).is_some() {
            if self.local.contains_key(&ino) {
                let text = format!("{now} us: {ino} is lost under a lease that is valid");
                self.wrong.push(text);
            }
            return false;
        }
        self.made.insert(ino);
        self.local.remove(&ino);
        self.targets.insert(at, ino);
        self.values.insert(ino, value);
        let shown = self.values.get(&at.0).copied().unwrap_or(0);
        self.values.insert(at.0, shown.max(value));
        self.reflect(at, now);
        true
    }

    /// Notes as wrong that a change is carried out on names of local files.
    pub(super) fn check_names(&mut self, changes: &[(Ino, u8)], now: u64) {
        let taken = |local: &&Local| changes.contains(&local.at);
        if let Some(local) = self.local.values().find(taken) {
            let at = local.at;
            let text = format!("{now} us: a change overlooks the local file at {at:?}");
            self.wrong.push(text);
        }
    }

    /// Has the truth about a name, and its directory, follow what is replicated and local.
    pub(super) fn reflect(&mut self, at: (Ino, u8), now: u64) {
        let local = self.local.iter().find(|(_, local)| local.at == at);
        let target = local.map(|(ino, _)| *ino).or(self.target(at));
        if self.true_target(at) != target {
            self.names.entry(at).or_default().push((now, target));
        }
        self.reflect_value(at.0, now);
    }

    pub(super) fn reflect_value(&mut self, ino: Ino, now: u64) {
        let inside = self.local.values().filter(|local| local.at.0 == ino);
        let local = inside.map(|local| local.value).max();
        let value = self.values.get(&ino).copied().max(local).unwrap_or(0);
        if self.true_value(ino).0 != value {
            self.inodes.entry(ino).or_default().push((now, value));
        }
    }
}
