use super::*;
use std::sync::mpsc::{Receiver, Sender, channel};
use tokio::runtime::Runtime;

const SOON: Duration = Duration::from_secs(20);

#[derive(Debug, PartialEq, Eq)]
enum End {
    WentOn,
    Refused,
}

struct Told(Sender<End>);

impl Job for Told {
    fn go_on(self, _: &Handle, _: Option<Instant>) {
        self.0.send(End::WentOn).unwrap();
    }
    fn refuse(self) {
        self.0.send(End::Refused).unwrap();
    }
}

fn lot() -> (Arc<Lot>, Runtime) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    (
        Lot::new(runtime.handle().clone(), Duration::from_millis(40)),
        runtime,
    )
}

fn told() -> (Told, Receiver<End>) {
    let (tell, told) = channel();
    (Told(tell), told)
}

fn far() -> Option<Instant> {
    Some(Instant::now() + SOON * 100)
}

fn slots_taken(lot: &Lot) -> usize {
    lot.slots.lock().taken.iter().flatten().count()
}

#[test]
fn a_parked_job_goes_on_once_when_woken() {
    let (lot, _runtime) = lot();
    let (place, waker) = lot.place(far());
    let (job, ended) = told();
    place.park(job);
    assert_eq!(slots_taken(&lot), 1);
    waker.wake_by_ref();
    waker.wake();
    assert_eq!(ended.try_iter().collect::<Vec<_>>(), [End::WentOn]);
    assert_eq!(slots_taken(&lot), 0);
}

#[test]
fn a_wake_up_during_the_first_poll_is_not_lost() {
    let (lot, _runtime) = lot();
    let (place, waker) = lot.place(far());
    waker.wake_by_ref();
    waker.wake();
    let (job, ended) = told();
    place.park(job);
    assert_eq!(ended.try_iter().collect::<Vec<_>>(), [End::WentOn]);
    assert_eq!(slots_taken(&lot), 0);
}

#[test]
fn a_job_that_nobody_wakes_is_refused_at_its_deadline() {
    let (lot, _runtime) = lot();
    let (job, ended) = told();
    // Its waker is gone too.
    lot.place(Some(Instant::now())).0.park(job);
    assert_eq!(ended.recv_timeout(SOON), Ok(End::Refused));
    assert_eq!(slots_taken(&lot), 0);
}

#[test]
fn slots_are_used_again_and_expire_their_own_job_only() {
    let (lot, _runtime) = lot();
    let (first, first_ended) = told();
    let (place, waker) = lot.place(far());
    place.park(first);
    waker.wake();
    assert_eq!(first_ended.recv_timeout(SOON), Ok(End::WentOn));
    let (late, late_ended) = told();
    let (stays, stays_ended) = told();
    lot.place(far()).0.park(stays);
    lot.place(Some(Instant::now())).0.park(late);
    assert_eq!(lot.slots.lock().taken.len(), 2);
    assert_eq!(late_ended.recv_timeout(SOON), Ok(End::Refused));
    assert!(stays_ended.try_recv().is_err());
}
