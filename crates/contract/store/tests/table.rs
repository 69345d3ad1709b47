//! The versioned map beside a plain one: every revision of the window reads as it was, whatever was put, removed and forgotten.

#![expect(clippy::unwrap_used, reason = "a test's own input")]

use std::collections::BTreeMap;

use prism_store::{Batch, KeyRange, Revision, Table, Window};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

const KEYS: u64 = 12;

type Shown = BTreeMap<Vec<u8>, (Vec<u8>, u64)>;

fn key(n: u64) -> Vec<u8> {
    format!("k{n:02}").into_bytes()
}

/// One commit: what becomes of which keys (a length of its new value, or nothing), and how far behind it is compacted after.
type Step = (Vec<(u64, Option<usize>)>, Option<u64>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let change = (0..KEYS, option::weighted(0.6, 0_usize..20));
    let step = (vec(change, 0..4), option::weighted(0.1, 0_u64..3));
    vec(step, 1..150)
}

/// The batch of these changes, and what it makes of `now`.
fn batch(changes: Vec<(u64, Option<usize>)>, now: &mut Shown, revision: u64) -> Batch {
    let mut batch = Batch::new();
    // One change a key: what a batch says twice of one key is the conformance suite's matter.
    let changes: BTreeMap<u64, Option<usize>> = changes.into_iter().collect();
    for (n, value) in changes {
        let name = key(n);
        if let Some(length) = value {
            let value = vec![b'v'; length];
            now.insert(name.clone(), (value.clone(), revision));
            batch = batch.put(name, value);
        } else {
            now.remove(&name);
            batch = batch.delete(name);
        }
    }
    batch
}

fn check(table: &Table, at: u64, shown: &Shown) {
    let revision = Some(Revision(at));
    for n in 0..KEYS {
        let item = table.get(&key(n), revision).unwrap();
        let found = item.map(|item| (item.value.to_vec(), item.revision.0));
        assert_eq!(found.as_ref(), shown.get(&key(n)), "key {n} at {at}");
    }
    let page = table.range(&KeyRange::all(), revision, 100).unwrap();
    let items = page.items.iter().map(|item| {
        let value = item.value.to_vec();
        (item.key.as_bytes().to_vec(), (value, item.revision.0))
    });
    assert_eq!(items.collect::<Shown>(), *shown, "all at {at}");
}

fn reads_as_it_was(window: Window, steps: Vec<Step>) {
    let mut table = Table::new(window);
    let fence = table.grant();
    let mut past: BTreeMap<u64, Shown> = BTreeMap::from([(0, Shown::new())]);
    for (revision, (changes, behind)) in (1..).zip(steps) {
        let mut now = past[&(revision - 1)].clone();
        let batch = batch(changes, &mut now, revision);
        assert_eq!(table.apply(fence, &batch), Ok(Revision(revision)));
        assert_eq!(table.keys(), now.len());
        past.insert(revision, now);
        if let Some(behind) = behind {
            let to = revision.saturating_sub(behind);
            table.compact(Revision(to)).unwrap();
        }
        let oldest = table.oldest().0;
        assert!(revision - oldest <= window.revisions as u64);
        for (at, shown) in past.range(oldest..) {
            check(&table, *at, shown);
        }
        if oldest > 0 {
            let gone = table.get(b"k00", Some(Revision(oldest - 1)));
            assert!(gone.is_err(), "revision {} is gone", oldest - 1);
        }
    }
}

proptest! {
    #[test]
    fn every_revision_of_the_window_reads_as_it_was(
        revisions in 1_usize..10,
        bytes in prop_oneof![Just(1 << 20), Just(900)],
        steps in steps(),
    ) {
        reads_as_it_was(Window { revisions, bytes }, steps);
    }
}
