//! How far the mounts have had their answers, as their commands say: what is older was sent
//! before, and came late.
//!
//! A promise is no command: the state remembers no answer to the create that it was given for, so
//! that a late copy of that create would be promised once more, for a file that its mount has long
//! made, and perhaps removed.

use lagan_types::{Command, SessionId};
use parking_lot::Mutex;
use std::collections::HashMap;

/// Most sessions that are remembered.
const SESSIONS_MAX: usize = 16_384;

/// For each session, the lowest sequence without an answer that a command has named.
#[derive(Debug, Default)]
pub(crate) struct Floors {
    of: Mutex<HashMap<SessionId, u64>>,
}

impl Floors {
    /// Learns from a command. False: its mount has had the answer, or has given it up.
    pub fn admit(&self, command: &Command) -> bool {
        let mut of = self.of.lock();
        if of.len() >= SESSIONS_MAX && !of.contains_key(&command.session) {
            return true;
        }
        let floor = of.entry(command.session).or_default();
        *floor = command.unanswered.max(*floor);
        command.seq >= *floor
    }

    /// Forgets a session.
    pub fn session_ended(&self, session: SessionId) {
        self.of.lock().remove(&session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lagan_types::op::{FileOp, GrantBlock};
    use lagan_types::{Time, VolumeId};

    fn command(session: u64, seq: u64, unanswered: u64) -> Command {
        Command {
            volume: VolumeId::ONLY,
            session: SessionId(session),
            seq,
            unanswered,
            time: Time::default(),
            op: FileOp::from(GrantBlock).into(),
        }
    }

    #[test]
    fn what_was_answered_is_not_admitted_again() {
        let floors = Floors::default();
        assert!(floors.admit(&command(1, 5, 3)) && floors.admit(&command(1, 4, 3)));
        assert!(floors.admit(&command(1, 6, 5)), "4 was answered");
        assert!(!floors.admit(&command(1, 4, 3)), "it came late");
        assert!(floors.admit(&command(1, 5, 3)), "it is sent again");
        assert!(floors.admit(&command(2, 4, 3)), "another session");
        floors.session_ended(SessionId(1));
        assert!(floors.admit(&command(1, 4, 3)));
    }

    #[test]
    fn sessions_are_bounded() {
        let floors = Floors::default();
        for session in 0..2 * SESSIONS_MAX as u64 {
            assert!(floors.admit(&command(session, 9, 9)));
        }
        assert_eq!(floors.of.lock().len(), SESSIONS_MAX);
    }
}
