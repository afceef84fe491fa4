use super::*;

const MAX: u64 = u64::MAX;

fn error(kind: ErrorKind) -> ObjectError {
    ObjectError::new(kind, "put", "k", "broken")
}

fn open_breaker() -> Breaker {
    let mut breaker = Breaker::new(BreakerConfig::default());
    for _ in 0..5 {
        assert_eq!(breaker.try_call(0), Permit::Go);
        breaker.failed(&error(ErrorKind::Transient), 0, MAX);
    }
    breaker
}

#[test]
fn opens_after_failures_in_a_row() {
    let breaker = open_breaker();
    assert_eq!(breaker.state(), BreakerState::Open { probe_at_ms: 500 });
    assert!(breaker.error().is_some());
}

#[test]
fn a_success_between_failures_keeps_it_closed() {
    let mut breaker = Breaker::new(BreakerConfig::default());
    for _ in 0..20 {
        breaker.failed(&error(ErrorKind::Transient), 0, MAX);
        breaker.failed(&error(ErrorKind::Transient), 0, MAX);
        breaker.succeeded();
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    assert!(breaker.error().is_none());
}

#[test]
fn one_probe_at_a_time() {
    let mut breaker = open_breaker();
    assert_eq!(breaker.try_call(499), Permit::Wait { until_ms: 500 });
    assert_eq!(breaker.try_call(500), Permit::Probe);
    assert!(matches!(breaker.try_call(501), Permit::Wait { .. }));
    breaker.succeeded();
    assert_eq!(breaker.try_call(502), Permit::Go);
}

#[test]
fn a_failed_probe_waits_longer() {
    let mut breaker = open_breaker();
    assert_eq!(breaker.try_call(500), Permit::Probe);
    breaker.failed(&error(ErrorKind::Transient), 600, MAX);
    assert_eq!(
        breaker.state(),
        BreakerState::Open {
            probe_at_ms: 600 + 1000
        }
    );
}

#[test]
fn a_lost_probe_does_not_block_for_ever() {
    let mut breaker = open_breaker();
    assert_eq!(breaker.try_call(500), Permit::Probe);
    assert_eq!(breaker.try_call(500 + 120_000), Permit::Probe);
}

#[test]
fn a_permanent_failure_opens_at_once_and_is_probed_slowly() {
    let mut breaker = Breaker::new(BreakerConfig::default());
    breaker.failed(&error(ErrorKind::Permanent), 7, MAX);
    assert_eq!(
        breaker.state(),
        BreakerState::Open {
            probe_at_ms: 30_007
        }
    );
    assert_eq!(breaker.try_call(30_007), Permit::Probe);
    breaker.failed(&error(ErrorKind::Permanent), 30_010, MAX);
    assert_eq!(
        breaker.state(),
        BreakerState::Open {
            probe_at_ms: 60_010
        }
    );
}

#[test]
fn late_failures_do_not_push_the_probe_away() {
    let mut breaker = open_breaker();
    breaker.failed(&error(ErrorKind::Transient), 400, MAX);
    assert_eq!(breaker.state(), BreakerState::Open { probe_at_ms: 500 });
}

#[test]
fn a_local_failure_frees_the_probe() {
    let mut breaker = open_breaker();
    assert_eq!(breaker.try_call(500), Permit::Probe);
    breaker.failed(&error(ErrorKind::Source), 510, MAX);
    assert_eq!(breaker.try_call(510), Permit::Probe);
}

#[test]
fn an_absent_object_is_an_answer() {
    let mut breaker = open_breaker();
    assert_eq!(breaker.try_call(500), Permit::Probe);
    breaker.failed(&error(ErrorKind::NotFound), 510, MAX);
    assert_eq!(breaker.state(), BreakerState::Closed);
}
