//! The versioned map: the current value of every key, and what is needed to read or watch a window of recent
//! revisions. No I/O, no clock; the same commits give the same table. Engines that keep state in memory apply to it.

use std::collections::{BTreeMap, VecDeque};

use prism_types::Fence;
use serde::{Deserialize, Serialize};

use crate::{Batch, Change, Commit, Key, Revision, StoreError, Value};

/// How much of the past a table keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Revisions.
    pub revisions: usize,
    /// Bytes of keys and values, of what the revisions set and of what they replaced.
    pub bytes: usize,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            revisions: 4096,
            bytes: 8 * 1024 * 1024,
        }
    }
}

/// Why a table refused a command; part of the outcome that all replicas agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The fence is not the latest granted, which is this.
    Fenced(Fence),
    /// The revision does not exist yet; the latest is this.
    Ahead(Revision),
}

impl Refusal {
    /// As the error of a caller who gave this fence or this revision.
    pub fn into_error(self, given: Fence, asked: Revision) -> StoreError {
        match self {
            Self::Fenced(latest) => StoreError::Fenced { given, latest },
            Self::Ahead(latest) => StoreError::Ahead { asked, latest },
        }
    }
}

/// A value, or that there is none, from a revision on.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    revision: u64,
    value: Option<Value>,
}

/// A commit of the window, and what each of its changes replaced (`None`: the key was not there). Older versions of a key are
/// nowhere else: a key has only its latest one beside it, each change leads to the version before, and to forget a commit is to
/// drop it.
#[derive(Debug)]
struct Past {
    commit: Commit,
    replaced: Replaced,
    cost: usize,
}

/// What the changes of a commit replaced, in their order. Most commits have one change, which needs no memory of its own.
#[derive(Debug)]
enum Replaced {
    One(Option<Version>),
    Many(Vec<Option<Version>>),
}

impl Replaced {
    fn new(changes: usize) -> Self {
        match changes {
            1 => Self::One(None),
            n => Self::Many(Vec::with_capacity(n)),
        }
    }

    fn push(&mut self, before: Option<Version>) {
        match self {
            Self::One(one) => *one = before,
            Self::Many(all) => all.push(before),
        }
    }

    fn get(&self, nth: usize) -> Option<&Version> {
        match self {
            Self::One(one) => one.as_ref().filter(|_| nth == 0),
            Self::Many(all) => all.get(nth)?.as_ref(),
        }
    }
}

/// What one change is reckoned to cost on top of its bytes.
const CHANGE_COST: usize = 128;

/// The versioned map.
#[derive(Debug)]
pub struct Table {
    /// The latest version of every key. A removed key stays until no revision in the window shows what it was.
    pub(crate) map: BTreeMap<Key, Version>,
    /// Keys that have a value now.
    live: usize,
    past: VecDeque<Past>,
    past_cost: usize,
    revision: u64,
    floor: u64,
    fence: u64,
    window: Window,
    pins: Vec<u64>,
}

impl Table {
    /// An empty table.
    pub fn new(window: Window) -> Self {
        Self {
            map: BTreeMap::new(),
            live: 0,
            past: VecDeque::new(),
            past_cost: 0,
            revision: 0,
            floor: 0,
            fence: 0,
            window,
            pins: Vec::new(),
        }
    }

    /// A table at a revision whose past is gone, to be filled with [`Table::load`].
    pub fn restored(window: Window, revision: Revision, fence: Fence) -> Self {
        let mut table = Self::new(window);
        table.revision = revision.0;
        table.floor = revision.0;
        table.fence = fence.0;
        table
    }

    /// Sets a key as a snapshot holds it.
    pub fn load(&mut self, key: Key, value: Value, revision: Revision) {
        let latest = Version {
            revision: revision.0,
            value: Some(value),
        };
        if self.map.insert(key, latest).is_none() {
            self.live += 1;
        }
    }

    /// The latest revision.
    pub fn revision(&self) -> Revision {
        Revision(self.revision)
    }

    /// The oldest revision that can be read, or watched from.
    pub fn oldest(&self) -> Revision {
        Revision(self.floor)
    }

    /// The latest fence granted.
    pub fn fence(&self) -> Fence {
        Fence(self.fence)
    }

    /// Keys held.
    pub fn keys(&self) -> usize {
        self.live
    }

    /// Grants the next fence.
    pub fn grant(&mut self) -> Fence {
        self.fence += 1;
        Fence(self.fence)
    }

    /// Applies a batch as the next revision.
    ///
    /// # Errors
    /// [`Refusal::Fenced`] when the fence is not the latest granted; nothing changes then.
    pub fn apply(&mut self, fence: Fence, batch: &Batch) -> Result<Revision, Refusal> {
        if fence.0 != self.fence || fence.0 == 0 {
            return Err(Refusal::Fenced(Fence(self.fence)));
        }
        self.revision += 1;
        let revision = self.revision;
        let mut cost = 0;
        let mut changes = merged(batch);
        let mut replaced = Replaced::new(changes.len());
        changes.retain(|change| {
            cost += change.key.len() + length(change.value.as_ref()) + CHANGE_COST;
            let Some(before) = self.set(change, revision) else {
                return false;
            };
            cost += length(before.as_ref().and_then(|before| before.value.as_ref()));
            replaced.push(before);
            true
        });
        self.past_cost += cost;
        let commit = Commit {
            revision: Revision(revision),
            changes,
        };
        self.past.push_back(Past {
            commit,
            replaced,
            cost,
        });
        self.trim();
        Ok(Revision(revision))
    }

    /// Sets or removes one key. Answers what that replaced, or `None` if it changed nothing.
    fn set(&mut self, change: &Change, revision: u64) -> Option<Option<Version>> {
        let version = Version {
            revision,
            value: change.value.clone(),
        };
        let Some(latest) = self.map.get_mut(&change.key) else {
            change.value.as_ref()?;
            self.map.insert(change.key.clone(), version);
            self.live += 1;
            return Some(None);
        };
        if latest.value.is_none() && change.value.is_none() {
            return None;
        }
        self.live += usize::from(change.value.is_some());
        self.live -= usize::from(latest.value.is_some());
        Some(Some(std::mem::replace(latest, version)))
    }

    /// The value of a key that a revision of the window shows, and when it was set.
    pub(crate) fn shown<'a>(
        &'a self,
        key: &Key,
        latest: &'a Version,
        at: Revision,
    ) -> Option<(&'a Value, Revision)> {
        let mut version = latest;
        while version.revision > at.0 {
            let nth = usize::try_from(version.revision - self.floor - 1).ok()?;
            let past = self.past.get(nth)?;
            let changes = &past.commit.changes;
            let change = changes.binary_search_by(|c| c.key.cmp(key)).ok()?;
            version = past.replaced.get(change)?;
        }
        Some((version.value.as_ref()?, Revision(version.revision)))
    }

    /// Drops what is needed only before `to`.
    ///
    /// # Errors
    /// [`Refusal::Ahead`] when `to` does not exist yet.
    pub fn compact(&mut self, to: Revision) -> Result<(), Refusal> {
        if to.0 > self.revision {
            return Err(Refusal::Ahead(Revision(self.revision)));
        }
        self.drop_past(to.0);
        Ok(())
    }

    fn trim(&mut self) {
        while self.past.len() > self.window.revisions
            || (self.past_cost > self.window.bytes && self.past.len() > 1)
        {
            let before = self.floor;
            self.drop_past(before + 1);
            if self.floor == before {
                return;
            }
        }
    }

    /// Raises the floor to `to`, or to the lowest pinned revision if that is lower.
    fn drop_past(&mut self, to: u64) {
        let to = self.pins.iter().fold(to, |to, pin| to.min(*pin));
        while self.floor < to {
            let Some(past) = self.past.pop_front() else {
                break;
            };
            self.past_cost -= past.cost;
            self.floor = past.commit.revision.0;
            let removed = past.commit.changes.iter().filter(|c| c.value.is_none());
            for change in removed {
                self.forget(&change.key);
            }
        }
    }

    /// Drops a key that was removed, unless it was set again since or what it was is still shown.
    fn forget(&mut self, key: &Key) {
        let gone = |latest: &Version| latest.value.is_none() && latest.revision <= self.floor;
        if self.map.get(key).is_some_and(gone) {
            self.map.remove(key);
        }
    }

    /// Keeps the floor at or below the current revision until [`Table::unpin`], so that a snapshot can read it.
    pub(crate) fn pin(&mut self) -> Revision {
        self.pins.push(self.revision);
        Revision(self.revision)
    }

    pub(crate) fn unpin(&mut self, revision: Revision) {
        if let Some(at) = self.pins.iter().position(|pin| *pin == revision.0) {
            self.pins.swap_remove(at);
        }
        self.trim();
    }

    /// Collects the commits after `after` that touch `prefix`, at most `limit`, looking at a bounded number of
    /// revisions; also says up to which revision it has looked.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when some of them are gone.
    pub fn commits_after(
        &self,
        prefix: &[u8],
        after: Revision,
        limit: usize,
    ) -> Result<(Vec<Commit>, Revision), StoreError> {
        self.check(after)?;
        let mut found = Vec::new();
        let mut seen = after;
        let skip = usize::try_from(after.0 - self.floor).unwrap_or(usize::MAX);
        for past in self.past.iter().skip(skip) {
            if found.len() >= limit {
                break;
            }
            seen = past.commit.revision;
            let changes = touched(&past.commit.changes, prefix);
            if !changes.is_empty() {
                found.push(Commit {
                    revision: seen,
                    changes: changes.to_vec(),
                });
            }
        }
        Ok((found, seen))
    }

    /// Whether a revision can be read or watched from.
    pub(crate) fn check(&self, asked: Revision) -> Result<(), StoreError> {
        if asked.0 < self.floor {
            let oldest = Revision(self.floor);
            return Err(StoreError::Compacted { asked, oldest });
        }
        if asked.0 > self.revision {
            let latest = Revision(self.revision);
            return Err(StoreError::Ahead { asked, latest });
        }
        Ok(())
    }
}

fn length(value: Option<&Value>) -> usize {
    value.map_or(0, Value::len)
}

/// The changes of a batch in order of their keys, one for each key.
fn merged(batch: &Batch) -> Vec<Change> {
    let removed = batch.deletes.iter().map(|key| Change {
        key: key.clone(),
        value: None,
    });
    let set = batch.puts.iter().map(|(key, value)| Change {
        key: key.clone(),
        value: Some(value.clone()),
    });
    let mut changes = Vec::with_capacity(batch.deletes.len() + batch.puts.len());
    changes.extend(removed.chain(set));
    // Stable, so that of equal keys the one that counts comes last.
    changes.sort_by(|a, b| a.key.cmp(&b.key));
    changes.dedup_by(|later, kept| {
        let same = later.key == kept.key;
        if same {
            std::mem::swap(later, kept);
        }
        same
    });
    changes
}

/// The part of sorted changes whose keys begin with `prefix`.
fn touched<'a>(changes: &'a [Change], prefix: &[u8]) -> &'a [Change] {
    let from = changes.partition_point(|c| c.key.as_bytes() < prefix);
    let count = changes[from..].partition_point(|c| c.key.starts_with(prefix));
    &changes[from..from + count]
}
