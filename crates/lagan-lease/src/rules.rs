//! The rules of both tables, by name, so that the simulation can break them one by one.
//!
//! In a build for use [`kept`] is the constant `true`, and nothing of this is left. In this
//! crate's own tests a thread may break one rule, and the simulation must notice.

/// A rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    // -- the leader's table -------------------------------------------------
    /// No interest is registered in a key while a claim is on it.
    RegisterRefusedWhileClaimed,
    /// A claim waits for the holders that it recalls from.
    RecallAwaited,
    /// The leader lets a lease end later than its holder does.
    LeaderEndsLater,
    /// An acknowledgement counts for the recalls up to its number only.
    AckCountsForItself,
    /// A session that registers again after it was recalled from is recalled from again.
    NewInterestNewRecall,
    /// A claim with an unknown outcome keeps its keys closed.
    UnknownStaysClosed,
    /// Nothing is changed before the hold of a new term is over.
    HoldFirst,
    /// What was shown as made in an earlier term is made when no mount has a lease of one: some may
    /// have been shown that it is not there.
    EarlyWhenAllKnow,
    /// Claims wait in the same order for each key.
    #[cfg(test)]
    ClaimsInOneOrder,
    /// A change of a name breaks the completeness of its directory.
    NameBreaksDirectory,
    /// The leases of a session that ended count until their own end.
    EndedSessionCounts,
    /// The author of a change is spared the recall only of what it knew before the change.
    AuthorSparedForOlderOnly,
    /// The author of a change is spared the recall only of what it has closed itself.
    AuthorSparedForClosedOnly,
    /// An answer to a change is no lease if another claim was on the key meanwhile.
    AnswerLeasedIfAlone,
    /// A session that acknowledges nothing gets no longer lease.
    SilentPollEndsLease,
    /// A session has settled only if it knows the term.
    SettledKnowsTerm,
    /// A directory is given to a session alone only if nobody else knows anything of it.
    ExclusiveIfAlone,
    /// A change by anybody else ends an exclusive lease first.
    ExclusiveRecalled,
    /// What a session made in a directory of its own comes before those who wait for that.
    MadeAloneIsEarly,
    // -- the holder's cache -------------------------------------------------
    /// An answer is kept only if the leader registered interest before it.
    GrantNeeded,
    /// An answer that was asked for before its key was closed is not kept.
    TokenChecked,
    /// Nothing is answered from the cache after the lease's end.
    LeaseEndHonoured,
    /// A lease that had ended begins with an empty cache.
    LapseDropsAll,
    /// A lease counts from the sending of the heartbeat.
    LeaseFromSending,
    /// A new term begins with an empty cache.
    TermDropsAll,
    /// Keys of an own change are closed before it is sent.
    OwnChangeCloses,
    /// The answer to an own change is not kept if the key was closed since.
    OwnAnswerChecked,
    /// A listing under way follows own changes of names in its directory.
    ListingFollowsOwnNames,
    /// All that is known of a directory's names follows only those own changes that the leader
    /// claimed when it had registered the interest in them.
    ListingFollowsClaimed,
    /// A complete directory does not tell of a name that an own change left in doubt.
    DoubtfulNamesHidden,
    /// A directory is not listed any more in the session in which an own change of a name in it
    /// got lost: it may still be carried out.
    LostNamesUnlisted,
    /// What is lent to the kernel ends before the lease, though it is processed late.
    LoanEndsFirst,
    /// An exclusive lease is not taken if its recall came before.
    ExclusiveNotOvertaken,
    /// An exclusive lease ends with all others of the mount.
    LapseEndsExclusive,
    /// No file is made in a directory while the kernel believes its attributes.
    LoansBackThenMade,
}

/// Whether the rule is kept: always.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn kept(_: Rule) -> bool {
    true
}

#[cfg(test)]
pub(crate) use broken::{ALL, break_rule, kept};

#[cfg(test)]
mod broken {
    use super::Rule::{self, *};
    use std::cell::Cell;

    /// All rules.
    pub(crate) const ALL: [Rule; 35] = [
        RegisterRefusedWhileClaimed,
        RecallAwaited,
        LeaderEndsLater,
        AckCountsForItself,
        NewInterestNewRecall,
        UnknownStaysClosed,
        HoldFirst,
        EarlyWhenAllKnow,
        ClaimsInOneOrder,
        NameBreaksDirectory,
        EndedSessionCounts,
        AuthorSparedForOlderOnly,
        AuthorSparedForClosedOnly,
        AnswerLeasedIfAlone,
        SilentPollEndsLease,
        SettledKnowsTerm,
        ExclusiveIfAlone,
        ExclusiveRecalled,
        MadeAloneIsEarly,
        GrantNeeded,
        TokenChecked,
        LeaseEndHonoured,
        LapseDropsAll,
        LeaseFromSending,
        TermDropsAll,
        OwnChangeCloses,
        OwnAnswerChecked,
        ListingFollowsOwnNames,
        ListingFollowsClaimed,
        DoubtfulNamesHidden,
        LostNamesUnlisted,
        LoanEndsFirst,
        ExclusiveNotOvertaken,
        LapseEndsExclusive,
        LoansBackThenMade,
    ];

    thread_local! {
        static BROKEN: Cell<Option<Rule>> = const { Cell::new(None) };
    }

    /// Whether the rule is kept by this thread.
    pub(crate) fn kept(rule: Rule) -> bool {
        BROKEN.get() != Some(rule)
    }

    /// Breaks a rule for this thread, or none.
    pub(crate) fn break_rule(rule: Option<Rule>) {
        BROKEN.set(rule);
    }
}
