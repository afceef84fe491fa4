use super::*;
use crate::sets::plan::tests::map;
use NodeState::{Down, Full, Up};

fn check(map: &ClusterMap, force: bool) -> Verdict {
    judge(map, NodeId(2), force, |_| true)
}

#[track_caller]
fn refused(verdict: Verdict, word: &str) {
    match verdict {
        Verdict::Refused(reason) => assert!(reason.contains(word), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn live_server_is_removed_only_by_force() {
    let m = map(2, &[Up, Up, Up], &[]);
    refused(check(&m, false), "it is up");
    assert_eq!(check(&m, true), Verdict::Ready);
    let full = map(2, &[Up, Full, Up], &[]);
    refused(check(&full, false), "it is up");
}

#[test]
fn only_server_stays_even_by_force() {
    let m = map(1, &[Down], &[]);
    refused(judge(&m, NodeId(1), true, |_| true), "only server");
}

#[test]
fn server_that_alone_is_up_stays_even_by_force() {
    let m = map(1, &[Down, Up, Down], &[]);
    refused(check(&m, true), "no other server is up");
}

#[test]
fn used_sets_get_a_spare_first() {
    let m = map(2, &[Up, Down, Up], &[&[1, 2], &[1, 3]]);
    assert_eq!(check(&m, false), Verdict::Wait(1));
    assert_eq!(check(&m, true), Verdict::Wait(1));
    assert_eq!(judge(&m, NodeId(2), false, |_| false), Verdict::Ready);
    let mut filling = m.clone();
    filling.sets[0].joining = Some(NodeId(3));
    filling.sets[0].leaving = Some(NodeId(2));
    assert_eq!(check(&filling, false), Verdict::Wait(1));
    let healed = map(2, &[Up, Down, Up], &[&[1, 3], &[1, 3]]);
    assert_eq!(check(&healed, false), Verdict::Ready);
}

#[test]
fn last_replica_is_given_up_only_by_force() {
    for sets in [&[&[2][..]], &[&[2, 4][..]]] {
        let m = map(2, &[Up, Down, Up, Down], sets);
        refused(check(&m, false), "no other server that is up");
        assert_eq!(check(&m, true), Verdict::Ready);
    }
}

#[test]
fn too_few_servers_refuse_without_force() {
    let m = map(2, &[Up, Down], &[&[1, 2]]);
    refused(check(&m, false), "add a server");
    assert_eq!(check(&m, true), Verdict::Ready);
    let full = map(2, &[Up, Down, Full], &[&[1, 2]]);
    refused(check(&full, false), "space");
}

#[test]
fn set_with_copies_enough_beside_it_needs_nobody() {
    let m = map(2, &[Up, Down, Up], &[&[1, 2, 3]]);
    assert_eq!(check(&m, false), Verdict::Ready);
}

#[test]
fn live_server_that_is_thrown_out_is_the_source_of_what_only_it_has() {
    let m = map(2, &[Up, Up, Up], &[&[2]]);
    assert_eq!(check(&m, true), Verdict::Wait(1));
}
