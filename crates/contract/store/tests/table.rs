//! The versioned map beside a plain one: every revision of the window reads as it was, whatever was put, removed and forgotten.

#![expect(clippy::unwrap_used, reason = "a test's own input")]

use std::collections::BTreeMap;

use prism_store::{Batch, KeyRange, Revision, Table, Window};

/// Numbers that look random and are the same each time (Knuth's MMIX generator).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

type Shown = BTreeMap<Vec<u8>, (Vec<u8>, u64)>;

fn key(n: u64) -> Vec<u8> {
    format!("k{n:02}").into_bytes()
}

/// A batch, and what it makes of `now`.
fn batch(numbers: &mut Numbers, now: &mut Shown, revision: u64) -> Batch {
    let mut batch = Batch::new();
    let (mut gone, mut set) = (Vec::new(), Vec::new());
    for _ in 0..numbers.below(4) {
        let name = key(numbers.below(12));
        if numbers.below(3) == 0 {
            gone.push(name);
        } else {
            let value = vec![b'v'; usize::try_from(numbers.below(20)).unwrap()];
            set.push((name, value));
        }
    }
    for name in gone {
        now.remove(&name);
        batch = batch.delete(name);
    }
    for (name, value) in set {
        now.insert(name.clone(), (value.clone(), revision));
        batch = batch.put(name, value);
    }
    batch
}

fn check(table: &Table, at: u64, shown: &Shown) {
    let revision = Some(Revision(at));
    for n in 0..12 {
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

#[test]
fn every_revision_of_the_window_reads_as_it_was() {
    for seed in 0..60 {
        let mut numbers = Numbers(seed);
        let window = Window {
            revisions: 1 + usize::try_from(numbers.below(9)).unwrap(),
            bytes: if numbers.below(2) == 0 { 1 << 20 } else { 900 },
        };
        let mut table = Table::new(window);
        let fence = table.grant();
        let mut past: BTreeMap<u64, Shown> = BTreeMap::from([(0, Shown::new())]);
        for revision in 1..200 {
            let mut now = past[&(revision - 1)].clone();
            let batch = batch(&mut numbers, &mut now, revision);
            assert_eq!(table.apply(fence, &batch), Ok(Revision(revision)));
            assert_eq!(table.keys(), now.len());
            past.insert(revision, now);
            if numbers.below(10) == 0 {
                table
                    .compact(Revision(revision - numbers.below(3).min(revision)))
                    .unwrap();
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
}
