use super::*;
use std::time::Duration;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[tokio::test]
async fn an_answer_finds_its_call_and_no_other() {
    let pending = Pending::default();
    let (first, alone) = pending.begin(soon(), 10).unwrap();
    assert!(alone);
    let (second, alone) = pending.begin(soon(), 10).unwrap();
    assert!(!alone);
    let (one, two) = (pending.wait(first), pending.wait(second));
    let response = Response {
        head: vec![2].into(),
        ..Response::default()
    };
    pending.complete(second, Ok(response.clone())).unwrap();
    pending.complete(first, Ok(Response::default())).unwrap();
    assert_eq!(two.await, Ok(response));
    assert_eq!(one.await, Ok(Response::default()));
    assert_eq!(pending.live(), 0);
}

#[tokio::test]
async fn a_slot_used_again_takes_no_old_answer() {
    let pending = Pending::default();
    let (old, _) = pending.begin(soon(), 10).unwrap();
    drop(pending.wait(old));
    let (new, _) = pending.begin(soon(), 10).unwrap();
    assert_ne!(old, new);
    assert_eq!(old as u32, new as u32);
    pending.complete(old, Ok(Response::default())).unwrap();
    let answer = pending.wait(new);
    pending.close(&[new]);
    assert_eq!(answer.await, Err(NetError::Closed { sent: false }));
}

#[tokio::test]
async fn only_late_calls_expire() {
    let pending = Pending::default();
    let now = Instant::now();
    let (late, _) = pending.begin(now, 10).unwrap();
    let (early, _) = pending.begin(soon(), 10).unwrap();
    let (late_answer, early_answer) = (pending.wait(late), pending.wait(early));
    pending.expire(now);
    assert_eq!(late_answer.await, Err(NetError::TimedOut { sent: true }));
    pending.close(&[]);
    assert_eq!(early_answer.await, Err(NetError::Closed { sent: true }));
}

#[test]
fn ids_never_given_are_told_apart_from_forgotten_ones() {
    let pending = Pending::default();
    assert_eq!(
        pending.complete(5, Ok(Response::default())),
        Err(NeverAsked)
    );
    let (id, _) = pending.begin(soon(), 10).unwrap();
    drop(pending.wait(id));
    assert_eq!(pending.complete(id, Ok(Response::default())), Ok(()));
}

#[test]
fn a_full_or_closed_table_gives_no_slot() {
    let pending = Pending::default();
    pending.begin(soon(), 1).unwrap();
    assert_eq!(pending.begin(soon(), 1), Err(NoSlot::Full));
    pending.close(&[]);
    assert_eq!(pending.begin(soon(), 1), Err(NoSlot::Closed));
}
