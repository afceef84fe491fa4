//! A session that was ended is replaced, and what it held is dropped.
//!
//! Names go on as before. Handles with data that is not committed, with locks or
//! with a promised file answer [`FsError::Io`](lagan_types::FsError::Io) until they are opened again.
//!
//! # While other calls are under way
//!
//! One call replaces the session ([`Session::turn_to_renew`]); it may itself be a
//! commit, which holds its inode's turn but no lock. What must hold:
//!
//! 1. *First the new number, then the tables.* A promise that arrives late looks at
//!    the number after it was added (`take_promise`): it is either among those that
//!    are cleared here, or removed by its own call. Chunk ids carry the number that
//!    they were granted to, so that one of the old session closes no block of the
//!    new one, and a commit that names its chunk is refused.
//! 2. *Then the handles, and their data last* ([`OpenFiles::session_lost`]). A write
//!    looks at its handle under the lock of the inode's state and puts its bytes
//!    there before it lets go. One that found the handle good has put its bytes
//!    before they are dropped; one that comes later is refused. The other way
//!    round, bytes could be answered as written and never be committed.
//! 3. *Data is counted where it is held.* A commit under way goes on with its own
//!    copies of the pieces. When it ends, well or not, it gives back the room of those that
//!    the buffer still has: none, if they were dropped here. No room is given
//!    back twice. If it was applied before the session ended, the file has its
//!    bytes, and the handle fails all the same, as after any unknown outcome.
//!
//! [`Session::turn_to_renew`]: crate::leader::session::Session::turn_to_renew
//! [`OpenFiles::session_lost`]: crate::leader::open_files::OpenFiles::session_lost

use crate::Options;
use crate::leader::Leader;
use crate::leader::link::{Link, unanswered};
use lagan_types::message::Mutate;
use lagan_types::op::{Command, OpenSession};
use lagan_types::{Refusal, SessionId, answer_to};
use tokio::time::Instant;

impl Leader {
    /// Replaces a session that was ended, unless another call has done so.
    ///
    /// # Errors
    /// [`Refusal::SessionEnded`] if this mount is being closed, [`FsError::TimedOut`](lagan_types::FsError::TimedOut),
    /// and whatever the leader answers.
    pub(super) async fn renew(&self, ended: SessionId, until: Instant) -> Result<(), Refusal> {
        let _turn = self.session.turn_to_renew(until).await?;
        if self.session() != ended {
            return Ok(());
        }
        if self.session.is_closing() {
            return Err(Refusal::SessionEnded);
        }
        let id = open_session(&self.link, &self.options, Some(ended), until).await?;
        tracing::warn!(old = %ended, session = %id, "session was ended, a new one is open");
        self.leases.replace_session(id);
        self.session.replace(id);
        self.ids.reset(id);
        self.lose_session_state();
        Ok(())
    }

    /// Drops what the old session held: locks, promised files, data that is not
    /// committed. The order matters, see the module.
    fn lose_session_state(&self) {
        let mut lost = self.locks.clear();
        lost.extend(self.promises.clear());
        if let Some(files) = self.files.upgrade() {
            files.session_lost(&lost);
        }
    }
}

/// Opens a session.
///
/// # Errors
/// [`FsError::TimedOut`](lagan_types::FsError::TimedOut), and whatever the leader answers.
pub(super) async fn open_session(
    link: &Link,
    options: &Options,
    predecessor: Option<SessionId>,
    until: Instant,
) -> Result<SessionId, Refusal> {
    let open = OpenSession {
        nonce: rand::random(),
        identity: options.identity.clone(),
        predecessor,
    };
    let ask = Mutate::new(Command::system(open));
    let answer = link.ask(ask, until).await.map_err(unanswered)?;
    let opened = answer_to::<OpenSession>(answer.answer)?;
    Ok(opened.session)
}
