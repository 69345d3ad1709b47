//! A read shows all that was acknowledged or read before it began; a watch shows every commit once, in order, none left out.

use std::collections::BTreeMap;
use std::ops::Bound;

use prism_store::{Change, Commit, Revision, Table};

use super::Held;
use crate::rng::fold;

/// What the watches of the simulation look at.
pub const WATCHED: &[u8] = b"jobs/";

/// What readers have seen.
#[derive(Debug, Default)]
pub struct Reads {
    floor: u64,
    commits: BTreeMap<u64, u64>,
}

fn digest(changes: &[Change]) -> u64 {
    changes.iter().fold(0, |d, change| {
        let value = change.value.as_deref().unwrap_or(b"-");
        fold(fold(d, &change.key), value)
    })
}

impl Reads {
    /// A read begins: what it must show at least.
    pub fn begins(&self) -> u64 {
        self.floor
    }

    /// Somebody was told something of this revision.
    pub fn seen(&mut self, revision: u64) {
        self.floor = self.floor.max(revision);
    }

    /// A read that began with this floor shows this revision.
    pub fn shows(&mut self, floor: u64, revision: u64) -> Held {
        if revision < floor {
            return Err(format!(
                "a read shows revision {revision}, and {floor} was seen before it began"
            ));
        }
        self.seen(revision);
        Ok(())
    }

    /// A revision is committed, for the first time on any server.
    pub fn committed(&mut self, revision: Revision, table: &Table) -> Held {
        let before = Revision(revision.0 - 1);
        let (found, _) = table
            .commits_after(WATCHED, before, 1)
            .map_err(|e| e.to_string())?;
        if let Some(commit) = found.first() {
            self.commits.insert(revision.0, digest(&commit.changes));
        }
        Ok(())
    }

    /// A watch that stood after one revision was given these commits, and stands after another one now.
    pub fn watched(&self, after: u64, commits: &[Commit], seen: u64) -> Held {
        let between = || (Bound::Excluded(after), Bound::Included(seen));
        let expected = self.commits.range(between());
        let given = commits.iter().map(|c| (c.revision.0, digest(&c.changes)));
        match expected.map(|(r, d)| (*r, *d)).eq(given) {
            true => Ok(()),
            false => Err(format!(
                "a watch from revision {after} to {seen} was not given each commit once: {} of {}",
                commits.len(),
                self.commits.range(between()).count()
            )),
        }
    }
}
