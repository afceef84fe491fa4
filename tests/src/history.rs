//! Whether a history of concurrent calls is linearizable: whether there is one
//! order of them that a single thread could have seen, in which a call that
//! ended before another began also comes first.
//!
//! The search is exact (Wing and Gong's, remembering what was seen as Lowe's
//! does): every order that the times allow is tried, one set of calls and one
//! state only once. A long history is checked in parts, between which nobody
//! called: each begins with all states in which the one before may have ended.

use std::collections::HashSet;
use std::hash::Hash;
use std::time::Instant;

/// Calls in one part, at most.
pub const PART_MAX: usize = 128;

/// The state that calls work on.
pub trait Model: Clone + Eq + Hash {
    /// A call with its answer.
    type Call;
    /// The state after the call; `None` if it would not have answered that.
    fn after(&self, call: &Self::Call) -> Option<Self>;
}

/// A call that was made.
#[derive(Debug, Clone)]
pub struct Event<C> {
    /// Name of the caller, for the report.
    pub by: String,
    /// The call with its answer.
    pub call: C,
    /// Time at which the call began.
    pub from: Instant,
    /// Time at which the call had ended.
    pub to: Instant,
}

/// The states in which the calls can have ended; none if no order explains them.
///
/// # Panics
/// For more than [`PART_MAX`] calls.
pub fn ends<M: Model>(starts: &HashSet<M>, events: &[Event<M::Call>]) -> HashSet<M> {
    assert!(events.len() <= PART_MAX, "{} calls", events.len());
    let all = match events.len() {
        PART_MAX => u128::MAX,
        n => (1u128 << n) - 1,
    };
    let mut found = HashSet::new();
    let mut seen: HashSet<(u128, M)> = starts.iter().map(|m| (0, m.clone())).collect();
    let mut open: Vec<(u128, M)> = seen.iter().cloned().collect();
    while let Some((done, model)) = open.pop() {
        if done == all {
            found.insert(model);
            continue;
        }
        let rest = || (0..events.len()).filter(|n| done & (1 << n) == 0);
        let first_end = rest().map(|n| events[n].to).min();
        for n in rest().filter(|&n| Some(events[n].from) <= first_end) {
            if let Some(next) = model.after(&events[n].call) {
                let next = (done | 1 << n, next);
                if seen.insert(next.clone()) {
                    open.push(next);
                }
            }
        }
    }
    found
}

/// Names and the files they stand for, by numbers that are never used again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Names(pub std::collections::BTreeMap<&'static str, u64>);

/// A call on names. `None` where the errno was ENOENT (or, of a create, EEXIST).
#[derive(Debug, Clone)]
pub enum NameCall {
    /// open(2) with O_CREAT and O_EXCL: the new file's number.
    Create(&'static str, Option<u64>),
    /// unlink(2).
    Unlink(&'static str, Option<()>),
    /// rename(2).
    Rename(&'static str, &'static str, Option<()>),
    /// stat(2): the file's number.
    Look(&'static str, Option<u64>),
}

impl Model for Names {
    type Call = NameCall;

    fn after(&self, call: &NameCall) -> Option<Self> {
        let mut next = self.clone();
        let names = &mut next.0;
        let fits = match *call {
            NameCall::Create(name, Some(file)) => names.insert(name, file).is_none(),
            NameCall::Create(name, None) => names.contains_key(name),
            NameCall::Unlink(name, done) => names.remove(name).is_some() == done.is_some(),
            NameCall::Rename(from, to, done) => {
                let file = names.remove(from);
                names.extend(file.map(|file| (to, file)));
                // The kernel looks both names up, one after the other, before it
                // asks: another mount may have moved the file from one to the
                // other in between. Then they are one file and nothing is to do.
                match file {
                    Some(_) => done.is_some(),
                    None => done.is_none() || names.contains_key(to),
                }
            }
            NameCall::Look(name, file) => names.get(name).copied() == file,
        };
        fits.then_some(next)
    }
}

/// The content of one file: the last that was written, and what was appended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Content(pub Vec<u64>);

/// A file opened, used and closed.
#[derive(Debug, Clone)]
pub enum ContentCall {
    /// All of it written again.
    Write(u64),
    /// One record appended.
    Append(u64),
    /// All of it read.
    Read(Vec<u64>),
}

impl Model for Content {
    type Call = ContentCall;

    fn after(&self, call: &ContentCall) -> Option<Self> {
        match call {
            ContentCall::Write(value) => Some(Content(vec![*value])),
            ContentCall::Append(value) => {
                let mut next = self.clone();
                next.0.push(*value);
                Some(next)
            }
            ContentCall::Read(found) => (*found == self.0).then(|| self.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn events<C>(calls: Vec<(C, u64, u64)>) -> Vec<Event<C>> {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let event = |(call, from, to)| Event {
            by: String::new(),
            call,
            from: at(from),
            to: at(to),
        };
        calls.into_iter().map(event).collect()
    }

    fn fits<M: Model + Default>(calls: Vec<(M::Call, u64, u64)>) -> bool {
        !ends(&HashSet::from([M::default()]), &events(calls)).is_empty()
    }

    #[test]
    fn calls_at_the_same_time_may_have_any_order() {
        use ContentCall::{Read, Write};
        let calls =
            |read: Vec<u64>| vec![(Write(1), 0, 10), (Write(2), 5, 15), (Read(read), 20, 30)];
        assert!(fits::<Content>(calls(vec![1])));
        assert!(fits::<Content>(calls(vec![2])));
        assert!(!fits::<Content>(calls(vec![])));
    }

    #[test]
    fn stale_read_is_no_history() {
        use ContentCall::{Read, Write};
        let old = vec![(Write(1), 0, 1), (Write(2), 2, 3), (Read(vec![1]), 4, 5)];
        assert!(!fits::<Content>(old));
        let back = vec![
            (Write(1), 0, 9),
            (Read(vec![1]), 1, 2),
            (Read(vec![]), 3, 4),
        ];
        assert!(!fits::<Content>(back));
    }

    #[test]
    fn lost_append_is_no_history() {
        use ContentCall::{Append, Read};
        let calls =
            |read: Vec<u64>| vec![(Append(1), 0, 9), (Append(2), 1, 8), (Read(read), 10, 11)];
        assert!(fits::<Content>(calls(vec![2, 1])));
        assert!(!fits::<Content>(calls(vec![2])));
        assert!(!fits::<Content>(calls(vec![1, 1, 2])));
    }

    #[test]
    fn name_is_made_and_taken_once() {
        use NameCall::{Create, Look, Rename, Unlink};
        let twice = vec![(Create("a", Some(1)), 0, 9), (Create("a", Some(2)), 1, 8)];
        assert!(!fits::<Names>(twice));
        let moved = vec![
            (Create("a", Some(1)), 0, 1),
            (Rename("a", "b", Some(())), 2, 9),
            (Look("b", Some(1)), 3, 4),
            (Unlink("a", None), 5, 6),
            (Look("b", Some(1)), 10, 11),
        ];
        assert!(fits::<Names>(moved.clone()));
        let mut doubled = moved;
        doubled.push((Look("a", Some(1)), 12, 13));
        assert!(!fits::<Names>(doubled));
    }

    #[test]
    fn rename_of_what_is_not_there_fails() {
        use NameCall::{Create, Rename};
        let calls = |from, done| {
            vec![
                (Create("a", Some(1)), 0, 1),
                (Rename(from, "b", done), 2, 3),
            ]
        };
        assert!(fits::<Names>(calls("c", None)));
        assert!(!fits::<Names>(calls("c", Some(()))));
        assert!(!fits::<Names>(calls("a", None)));
    }
}
