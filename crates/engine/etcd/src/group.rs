//! Commits put together into one entry: many callers, one transaction. Each has a revision of its own; a key that several
//! of them change is written once, and what they made of it in between goes along in the head. No I/O.

use std::collections::BTreeMap;

use prism_store::{Batch, Key};

use crate::json::{OPERATIONS, Operations};
use crate::layout::{Hidden, Layout, Parts, To, before_value, parted_value, span};

/// Batches that become one entry at most: an entry costs what its operations cost, so larger ones would only answer later.
const BATCHES: usize = 512;
/// What an operation is reckoned to cost a request on top of its key and its value.
const COST: usize = 64;

/// One entry's worth of commits.
#[derive(Debug)]
pub(crate) struct Group {
    first: u64,
    pub(crate) batches: Vec<Batch>,
    pub(crate) parted: Vec<(Key, Parts)>,
    latest: BTreeMap<Key, (u64, To)>,
    pub(crate) hidden: Vec<Hidden>,
    bytes: usize,
}

/// What a batch adds to a request, in bytes.
pub(crate) fn cost(batch: &Batch) -> usize {
    let keys = batch.puts.iter().map(|(key, _)| key).chain(&batch.deletes);
    let keys: usize = keys.map(|key| key.len()).sum();
    batch.bytes() + keys + COST * (batch.puts.len() + batch.deletes.len())
}

/// Whether a batch fits into one transaction.
pub(crate) fn fits(batch: &Batch, limit: usize) -> bool {
    let operations = batch.puts.len() + batch.deletes.len();
    // Each may also remove pieces of what was there.
    cost(batch) <= limit && 2 * operations <= OPERATIONS
}

/// What a batch makes of each key.
pub(crate) fn merged(batch: &Batch, parted: &[(Key, Parts)]) -> BTreeMap<Key, To> {
    let gone = batch.deletes.iter().map(|key| (key.clone(), To::Gone));
    let put = batch
        .puts
        .iter()
        .map(|(key, value)| (key.clone(), To::Value(value.clone())));
    let mut changes: BTreeMap<Key, To> = gone.chain(put).collect();
    for (key, parts) in parted {
        changes.insert(key.clone(), To::Parts(*parts));
    }
    changes
}

impl Group {
    /// An empty one, after a revision.
    pub(crate) fn after(revision: u64) -> Self {
        Self {
            first: revision + 1,
            batches: Vec::new(),
            parted: Vec::new(),
            latest: BTreeMap::new(),
            hidden: Vec::new(),
            bytes: 0,
        }
    }

    /// Whether one more batch fits; the first always does.
    pub(crate) fn takes(&self, batch: &Batch, limit: usize) -> bool {
        let operations = self.latest.len() + batch.puts.len() + batch.deletes.len();
        let fits = self.bytes + cost(batch) <= limit && 2 * operations <= OPERATIONS;
        self.batches.is_empty() || (self.batches.len() < BATCHES && fits)
    }

    pub(crate) fn revision(&self) -> u64 {
        self.first + self.batches.len() as u64 - 1
    }

    /// Adds a commit; what of it lies in pieces is named beside it.
    pub(crate) fn add(&mut self, batch: Batch, parted: Vec<(Key, Parts)>) {
        self.bytes += cost(&batch);
        let changes = merged(&batch, &parted);
        self.batches.push(batch);
        self.parted.extend(parted);
        let revision = self.revision();
        for (key, to) in changes {
            if to == To::Gone {
                self.hidden.push(Hidden {
                    revision,
                    key: key.clone(),
                    value: None,
                });
            }
            let Some((revision, To::Value(value))) =
                self.latest.insert(key.clone(), (revision, to))
            else {
                continue;
            };
            self.hidden.push(Hidden {
                revision,
                key,
                value: Some(value),
            });
        }
    }

    /// Its operations, with the removal of pieces that nothing will refer to.
    pub(crate) fn operations(&self, layout: &Layout, old: &BTreeMap<Key, Parts>) -> Operations {
        let mut operations = Operations::default();
        for (key, (revision, to)) in &self.latest {
            write(&mut operations, layout, key, *revision, to);
            if let Some(parts) = old.get(key) {
                operations.delete(&span(&layout.parts_of(parts)));
            }
        }
        operations
    }
}

/// One key's operation.
pub(crate) fn write(
    operations: &mut Operations,
    layout: &Layout,
    key: &Key,
    revision: u64,
    to: &To,
) {
    let name = layout.key(key);
    match to {
        To::Value(value) => operations.put(&name, &[&before_value(revision), value], 0),
        To::Parts(parts) => operations.put(&name, &[&parted_value(revision, parts)], 0),
        To::Gone => operations.delete(&(name, Vec::new())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_several_commits_is_written_once_and_hides_nothing() {
        let mut group = Group::after(10);
        group.add(
            Batch::new().put("a", "1").put("a", "2").put("b", "1"),
            Vec::new(),
        );
        group.add(Batch::new().delete("a").delete("none"), Vec::new());
        group.add(Batch::new().put("a", "3"), Vec::new());
        assert_eq!(group.revision(), 13);
        let hidden: Vec<_> = group
            .hidden
            .iter()
            .map(|h| (h.revision, h.key.to_string(), h.value.clone()))
            .collect();
        let expected = [
            (12, "a".to_owned(), None),
            (11, "a".to_owned(), Some("2".into())),
            (12, "none".to_owned(), None),
        ];
        assert_eq!(hidden, expected);
        let latest: Vec<_> = group.latest.values().cloned().collect();
        let expected = [
            (13, To::Value("3".into())),
            (11, To::Value("1".into())),
            (12, To::Gone),
        ];
        assert_eq!(latest, expected);
    }
}
