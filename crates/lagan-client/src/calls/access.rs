//! Tells the leader of reads that move an access time: many in one call, once a second.

use crate::Client;
use crate::calls::accesses::WAITING_MAX;
use crate::file::inode::Inode;
use crate::wall::wall_time;
use lagan_types::Refusal;
use lagan_types::limits::ACCESSES_MAX;
use lagan_types::op::NoteAccesses;
use std::time::Duration;
use tokio::time::Instant;

/// Time between two rounds.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// How long one round tries: through changes of the leader. Nobody waits for it.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

impl Client {
    /// Notes that a file was read.
    pub(super) fn note_read(&self, inode: &Inode) {
        if self.accesses.are_off() {
            return;
        }
        if let Some(read) = inode.accessed(wall_time()) {
            self.accesses.note(read);
        }
    }

    /// Tells the leader of the reads that wait, before `until`. Those of a call that it
    /// does not take in time are lost, and all that wait if the session has ended.
    pub(super) async fn tell_accesses(&self, until: Instant) {
        let turn = tokio::time::timeout_at(until, self.accesses.turn.lock());
        let Ok(_turn) = turn.await else {
            return;
        };
        self.accesses.forget_told();
        for _ in 0..WAITING_MAX / ACCESSES_MAX {
            let reads = self.accesses.take();
            if reads.is_empty() {
                return;
            }
            // A file that is only promised need not be made for this.
            let op = NoteAccesses {
                reads: reads.clone(),
            };
            let told = self
                .leader
                .mutate_now(op, Some(self.leader.session()), until)
                .await;
            let Err(error) = told else {
                continue;
            };
            tracing::debug!(%error, reads = reads.len(), "access times are lost");
            self.accesses.lost(&reads);
            if error == Refusal::SessionEnded {
                self.accesses.lose_all();
            }
            return;
        }
    }
}
