//! The answers that proposers get, without a consensus.

use super::*;
use lagan_types::NodeId;
use openraft::BasicNode;
use openraft::error::ForwardToLeader;

fn forward() -> ClientWriteError<u64, BasicNode> {
    let node = BasicNode { addr: "a".into() };
    ClientWriteError::ForwardToLeader(ForwardToLeader::new(2, node))
}

#[test]
fn an_entry_that_the_log_never_had_did_not_happen() {
    let leader = Some((NodeId(2), "a".to_owned()));
    let outcome = outcome_of(Err(forward()), false);
    assert_eq!(outcome, Err(ProposeError::NotLeader { leader }));
}

#[test]
fn an_entry_that_was_cut_off_the_log_may_yet_happen() {
    let outcome = outcome_of(Err(forward()), true);
    assert_eq!(outcome, Err(ProposeError::Unknown));
}
