//! Runs of both tables under faults, each from a seed, with a checker that knows the truth.
//!
//! One or two servers lead in turn, two to four mounts ask them. Messages are late, lost,
//! sent twice and overtake each other; processes are stopped, cut off, replaced; leaders are
//! deposed; commands have outcomes that nobody learns; clocks differ.
//!
//! The checker looks into each cache whenever something changed: what may be answered from
//! it at a moment must be true at this moment. Answers of leaders must have been true at some
//! moment of their call. What a kernel believes at a moment must be true, too. When the faults have ended, no change waits for longer than leases
//! last, every program goes on, and the tables hold no more than there is.
//!
//! With one rule broken, some run must be wrong: so each rule is needed, and each is tested.

mod cx;
mod kernel;
mod message;
mod mount;
mod random;
mod run;
mod server;
mod truth;

use crate::rules::{ALL, Rule, break_rule};
use cx::{Plan, Stats};
use message::{ALONE_RULES, USE_RULES, UseRule};
use run::run;

/// Runs in the test that everything is right.
const RUNS: u64 = 1_000;
/// Most runs until a broken rule is noticed.
const RUNS_BROKEN: u64 = 3_000;

fn runs() -> u64 {
    let set = std::env::var("LAGAN_LEASE_RUNS").ok();
    set.and_then(|n| n.parse().ok()).unwrap_or(RUNS)
}

fn first_seed() -> u64 {
    let set = std::env::var("LAGAN_LEASE_SEED").ok();
    set.and_then(|n| n.parse().ok()).unwrap_or(1)
}

/// Runs so many plans, in which everything must be right, and adds up what happened.
fn run_all(count: u64, plan: impl Fn(u64) -> Plan) -> Stats {
    let mut all = Stats::default();
    for seed in first_seed()..first_seed() + count {
        let plan = plan(seed);
        let report = run(&plan, None);
        assert!(
            report.wrong.is_empty(),
            "LAGAN_LEASE_SEED={seed}: {:#?}\n{plan:#?}",
            report.wrong
        );
        all.add(&report.stats);
    }
    println!("{all:?}");
    all
}

#[test]
fn caches_are_right_and_changes_end() {
    let all = run_all(runs(), Plan::of);
    let reads = all.hits + all.asked;
    assert!(all.hits * 4 > reads, "caches answer: {all:?}");
    assert!(all.directory_hits * 100 > reads, "directories too: {all:?}");
    assert!(all.lent * 20 > reads, "kernels believe: {all:?}");
    assert!(all.own_kept * 10 > all.changes, "own answers too: {all:?}");
    assert!(all.given_up * 1_000 > all.changes, "faults count: {all:?}");
}

#[test]
fn listings_are_right_while_names_change() {
    let all = run_all(runs() / 4, Plan::of_listings);
    assert!(all.directory_hits * 20 > all.hits + all.asked, "{all:?}");
}

#[test]
fn listings_are_right_while_changes_get_lost() {
    run_all(runs() * 4, Plan::of_lost_listings);
}

#[test]
fn exclusive_directories_are_right() {
    let all = run_all(runs() * 2, Plan::of_exclusives);
    assert!(all.made * 25 > all.changes, "mounts make files: {all:?}");
    assert!(all.alone * 50 > all.changes, "again and again: {all:?}");
}

#[test]
fn files_are_late_that_others_may_have_missed() {
    run_all(runs(), Plan::of_missed);
}

#[test]
fn same_seed_is_the_same_run() {
    for seed in 1..20 {
        for plan in [Plan::of(seed), Plan::of_exclusives(seed)] {
            assert_eq!(run(&plan, None).stats, run(&plan, None).stats);
        }
    }
}

/// Returns the first seed with which something is wrong.
fn noticed(plan: impl Fn(u64) -> Plan, rule: Option<UseRule>) -> Option<(u64, String)> {
    (1..=RUNS_BROKEN).find_map(|seed| {
        let report = run(&plan(seed), rule);
        Some((seed, report.wrong.into_iter().next()?))
    })
}

#[test]
fn each_broken_rule_is_noticed() {
    let mut missed = Vec::new();
    for rule in ALL {
        break_rule(Some(rule));
        let seed = match rule {
            // Where sessions are retired first, as they should be, there is nothing left of
            // them to count.
            Rule::ListingFollowsOwnNames | Rule::ListingFollowsClaimed => {
                noticed(Plan::of_listings, None)
            }
            Rule::ExclusiveIfAlone
            | Rule::ExclusiveRecalled
            | Rule::MadeAloneIsEarly
            | Rule::LoansBackThenMade
            | Rule::ExclusiveNotOvertaken
            | Rule::LapseEndsExclusive => noticed(Plan::of_exclusives, None),
            Rule::EarlyWhenAllKnow => noticed(Plan::of_missed, None),
            Rule::EndedSessionCounts => noticed(Plan::of_takeovers, Some(UseRule::RetireFirst)),
            _ => noticed(Plan::of, None),
        };
        break_rule(None);
        println!("{rule:?}: {seed:?}");
        if seed.is_none() {
            missed.push(rule);
        }
    }
    assert!(missed.is_empty(), "nobody noticed: {missed:?}");
}

#[test]
fn session_that_is_ended_at_once_counts_in_its_term() {
    for seed in 1..=100 {
        let report = run(&Plan::of_takeovers(seed), Some(UseRule::RetireFirst));
        assert!(report.wrong.is_empty(), "{seed}: {:#?}", report.wrong);
    }
}

#[test]
fn each_broken_rule_of_use_is_noticed() {
    let mut missed = Vec::new();
    let all = USE_RULES.map(|rule| (rule, Plan::of as fn(u64) -> Plan));
    let alone = ALONE_RULES.map(|rule| (rule, Plan::of_exclusives as fn(u64) -> Plan));
    for (rule, plan) in all.into_iter().chain(alone) {
        let seed = noticed(plan, Some(rule));
        println!("{rule:?}: {seed:?}");
        if seed.is_none() {
            missed.push(rule);
        }
    }
    assert!(missed.is_empty(), "nobody noticed: {missed:?}");
}
