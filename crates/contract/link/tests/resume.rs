//! Two ends that compare what they see: whatever it is, in the end both know exactly what differs, and it took one question.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

use std::collections::BTreeSet;

use prism_link::resume::{
    BUCKETS_MAX, Compared, Difference, Holdings, Item, Mismatch, Phase, Sum, Summary, Told, compare,
};
use prism_link::{Holding, SandboxStatus};
use prism_types::{JobId, RunReport, SandboxId, TaskRef, TimeMs};
use proptest::prelude::*;

fn task(index: u32, attempt: u32) -> TaskRef {
    TaskRef {
        job: JobId::new(1, u128::from(index % 7)),
        index,
        attempt,
    }
}

/// What a worker holds that has these items.
fn holdings(items: &BTreeSet<Item>) -> Holdings {
    let mut held = Holdings::default();
    for item in items {
        match *item {
            Item::Task(t, Phase::Waiting) => held.tasks.push((t, Holding::Waiting)),
            Item::Task(t, Phase::Running) => held.tasks.push((t, Holding::Running(TimeMs(9)))),
            Item::Task(t, Phase::Over) => held.tasks.push((t, Holding::Over)),
            Item::Sandbox(id, phase) => held.sandboxes.push((
                id,
                match phase {
                    Phase::Waiting => None,
                    Phase::Running => Some(SandboxStatus::Running(TimeMs(9))),
                    Phase::Over => {
                        Some(SandboxStatus::Exited(RunReport::not_started(TimeMs(9), "")))
                    }
                },
            )),
            Item::Job(job, lanes) => held.jobs.push((job, lanes)),
        }
    }
    held
}

/// What crossed.
#[derive(Debug, Default)]
struct Crossed {
    rounds: u32,
    sums: usize,
    named: usize,
}

/// The whole exchange; answers what the leader then knows of the worker.
fn exchange(
    nonce: [u8; 16],
    worker: &BTreeSet<Item>,
    leader: &BTreeSet<Item>,
) -> (BTreeSet<Item>, Crossed) {
    let told = Told::new(nonce, holdings(worker));
    let mut crossed = Crossed::default();
    let known = match compare(told.summary(), leader.iter().copied()) {
        Compared::Known(known) => known,
        Compared::Differs(comparison) => {
            let sums = comparison.sums();
            let answer = told.answer(&sums).unwrap();
            crossed = Crossed {
                rounds: 1,
                sums: sums.len(),
                named: answer.holdings.items().count(),
            };
            comparison.settle(&answer).unwrap()
        }
    };
    (known, crossed)
}

fn phase() -> impl Strategy<Value = Phase> {
    prop_oneof![
        Just(Phase::Waiting),
        Just(Phase::Running),
        Just(Phase::Over)
    ]
}

fn item() -> impl Strategy<Value = Item> {
    prop_oneof![
        6 => (0..2_000_u32, 1..3_u32, phase()).prop_map(|(i, a, p)| Item::Task(task(i, a), p)),
        1 => (0..50_u128, phase()).prop_map(|(n, p)| Item::Sandbox(SandboxId::new(1, n), p)),
        1 => (0..50_u128, 0..4_u32).prop_map(|(n, lanes)| Item::Job(JobId::new(1, n), lanes)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn in_the_end_both_know_exactly_what_differs(
        common in prop::collection::btree_set(item(), 0..800),
        at_worker in prop::collection::btree_set(item(), 0..40),
        at_leader in prop::collection::btree_set(item(), 0..40),
        nonce in any::<[u8; 16]>(),
    ) {
        let worker: BTreeSet<Item> = common.union(&at_worker).copied().collect();
        let leader: BTreeSet<Item> = common.union(&at_leader).copied().collect();
        let (known, crossed) = exchange(nonce, &worker, &leader);
        prop_assert_eq!(&known, &worker);
        prop_assert_eq!(crossed.rounds == 0, worker == leader || worker.is_empty());
        prop_assert!(crossed.sums <= BUCKETS_MAX);
        // The worker learns the rest: what it is to go on holding.
        let tasks = |items: &BTreeSet<Item>| -> BTreeSet<TaskRef> {
            items.iter().filter_map(|i| match i { Item::Task(t, _) => Some(*t), _ => None }).collect()
        };
        let unwanted: Vec<TaskRef> = tasks(&known).difference(&tasks(&leader)).copied().collect();
        let (kept, _) = Told::new(nonce, holdings(&worker)).keep(&unwanted, &[]);
        let wanted: BTreeSet<TaskRef> = tasks(&worker).intersection(&tasks(&leader)).copied().collect();
        prop_assert_eq!(kept, wanted);
    }

    /// Whatever an answer is, it is refused or it is the truth; and nothing is kept that was not sent.
    #[test]
    fn an_answer_that_is_not_the_truth_is_refused(
        worker in prop::collection::btree_set(item(), 1..200),
        leader in prop::collection::btree_set(item(), 0..200),
        said in prop::collection::btree_set(item(), 0..60),
        buckets in prop::collection::vec(0..64_u16, 0..20),
        whole in any::<bool>(),
    ) {
        let told = Told::new([7; 16], holdings(&worker));
        let Compared::Differs(comparison) = compare(told.summary(), leader) else {
            return Ok(());
        };
        let buckets = match whole {
            true => (0..u16::try_from(comparison.sums().len()).unwrap()).collect(),
            false => buckets,
        };
        let answer = Difference { buckets, holdings: holdings(&said) };
        if let Ok(known) = comparison.settle(&answer) {
            prop_assert_eq!(known, worker);
        }
    }

    #[test]
    fn any_sums_are_answered_or_refused(
        worker in prop::collection::btree_set(item(), 0..200),
        sums in prop::collection::vec(any::<[u8; 16]>(), 0..1_100),
    ) {
        let count = sums.len();
        match Told::new([7; 16], holdings(&worker)).answer(&sums) {
            Ok(answer) => {
                prop_assert!((1..=BUCKETS_MAX).contains(&count));
                prop_assert!(answer.holdings.items().count() <= worker.len());
            }
            Err(why) => prop_assert_eq!(why, Mismatch::Count(count)),
        }
    }
}

fn running(range: std::ops::Range<u32>) -> BTreeSet<Item> {
    range
        .map(|i| Item::Task(task(i, 1), Phase::Running))
        .collect()
}

/// The point of it: what crosses grows with what differs.
#[test]
fn what_crosses_grows_with_the_differences() {
    let all = running(0..10_000);
    let (known, crossed) = exchange([1; 16], &all, &all);
    assert!(known == all && crossed.rounds == 0);
    let mut before = 0;
    for differ in [1, 10, 100] {
        let leader = running(differ..10_000);
        let (known, crossed) = exchange([1; 16], &all, &leader);
        assert_eq!(known, all);
        assert_eq!(crossed.rounds, 1);
        assert!(crossed.sums <= 700, "{crossed:?}");
        assert!(
            crossed.named > before && crossed.named < 40 * differ as usize,
            "{crossed:?}"
        );
        before = crossed.named;
    }
    // A worker whose leader knows nothing of what it holds names all of it, once.
    let (_, crossed) = exchange([1; 16], &all, &BTreeSet::new());
    assert_eq!((crossed.sums, crossed.named), (1, 10_000));
}

/// A difference in any part of an item is one, and under another nonce all is different.
#[test]
fn every_part_of_an_item_counts() {
    let t = task(5, 1);
    let other = TaskRef {
        job: JobId::new(1, 99),
        ..t
    };
    let items = [
        Item::Task(t, Phase::Running),
        Item::Task(t, Phase::Waiting),
        Item::Task(t, Phase::Over),
        Item::Task(TaskRef { index: 6, ..t }, Phase::Running),
        Item::Task(TaskRef { attempt: 2, ..t }, Phase::Running),
        Item::Task(other, Phase::Running),
        Item::Sandbox(SandboxId(t.job.0), Phase::Running),
        Item::Job(t.job, 5),
        Item::Job(t.job, 6),
    ];
    let sum = |nonce, item| Told::new(nonce, holdings(&BTreeSet::from([item]))).summary();
    let sums: BTreeSet<Sum> = items.iter().map(|item| sum([1; 16], *item).sum).collect();
    assert_eq!(sums.len(), items.len());
    assert_ne!(sum([1; 16], items[0]).sum, sum([2; 16], items[0]).sum);
    // Named twice is held once.
    let mut twice = holdings(&BTreeSet::from([items[0]]));
    twice.tasks.push(twice.tasks[0]);
    assert_eq!(Told::new([1; 16], twice).summary(), sum([1; 16], items[0]));
}

#[test]
fn hostile_counts_are_bounded() {
    for count in [0, 1, 1_000_000, u32::MAX] {
        let theirs = Summary {
            nonce: [3; 16],
            count,
            sum: [1; 16],
        };
        for own in [running(0..0), running(0..3_000)] {
            let Compared::Differs(comparison) = compare(theirs, own.clone()) else {
                panic!("{count} items that sum to something are not {own:?}");
            };
            let sums = comparison.sums().len();
            assert!((1..=BUCKETS_MAX).contains(&sums), "{sums}");
            let bad = |buckets: Vec<u16>, items: BTreeSet<Item>| {
                let answer = Difference {
                    buckets,
                    holdings: holdings(&items),
                };
                comparison.clone().settle(&answer).unwrap_err()
            };
            assert_eq!(bad(vec![60_000], running(0..0)), Mismatch::Bucket(60_000));
            assert_eq!(bad(vec![0, 0], running(0..0)), Mismatch::Bucket(0));
            assert_eq!(bad(Vec::new(), running(0..5)), Mismatch::Stray);
            assert_eq!(bad(vec![0], running(0..0)), Mismatch::Sum);
        }
    }
}
