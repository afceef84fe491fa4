//! Inodes that are asked for together, so that each is asked for once however many want it at
//! the same time.

use lagan_types::Ino;
use parking_lot::Mutex;
use std::collections::HashMap;
use tokio::sync::watch;

/// The groups under way.
#[derive(Debug, Default)]
pub(super) struct Groups {
    of: Mutex<HashMap<Ino, watch::Receiver<()>>>,
}

/// One group under way; it ends when this is dropped.
pub(super) struct Group<'a> {
    groups: &'a Groups,
    inos: Vec<Ino>,
    /// Dropped with the group, which tells those who wait.
    _ended: watch::Sender<()>,
}

impl Groups {
    /// Begins a group of those of the inodes that are in no other one.
    pub fn begin(&self, mut inos: Vec<Ino>) -> Group<'_> {
        let (ended, waits) = watch::channel(());
        let mut of = self.of.lock();
        inos.retain(|ino| !of.contains_key(ino));
        of.extend(inos.iter().map(|ino| (*ino, waits.clone())));
        Group {
            groups: self,
            inos,
            _ended: ended,
        }
    }

    /// Whether one has the inode.
    pub fn has(&self, ino: Ino) -> bool {
        self.of.lock().contains_key(&ino)
    }

    /// Waits for the end of the group that has the inode; false: there is none.
    pub async fn ended(&self, ino: Ino) -> bool {
        let group = self.of.lock().get(&ino).cloned();
        match group {
            Some(mut group) => {
                let _ = group.changed().await;
                true
            }
            None => false,
        }
    }
}

impl Group<'_> {
    /// Its inodes.
    pub fn inos(&self) -> &[Ino] {
        &self.inos
    }
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        let mut of = self.groups.of.lock();
        for ino in &self.inos {
            of.remove(ino);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn who_wants_what_is_asked_for_waits_for_it() {
        let groups = Groups::default();
        assert!(!groups.ended(Ino(1)).await);
        let first = groups.begin(vec![Ino(1), Ino(2)]);
        let second = groups.begin(vec![Ino(2), Ino(3)]);
        assert_eq!(second.inos(), [Ino(3)]);
        drop(second);
        assert!(!groups.ended(Ino(3)).await);
        let waits = groups.ended(Ino(2));
        tokio::pin!(waits);
        let early = tokio::time::timeout(Duration::from_millis(20), &mut waits).await;
        assert!(early.is_err());
        drop(first);
        assert!(waits.await);
    }
}
