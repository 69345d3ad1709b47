//! What the two ends of a session see differently as it begins, found out in bytes that grow with the differences and not with what
//! there is.
//!
//! Each end marks each item that it sees with a hash under a nonce of this session. The sum of all marks says whether anything
//! differs; if so, the sums of the items in each bucket say where; and only what is in those buckets is named. That is one question
//! and one answer, however much differs. At the end the leader knows exactly what the worker holds, and can tell it what of that it
//! is not to hold. The nonce is drawn when both sides are what they are, so nobody can make items whose marks add up to the same;
//! by chance they do once in 2^128 sessions.
//!
//! Pure: what is said is said by those who have the session.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use prism_types::{JobId, SandboxId, TaskRef};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Holding, SandboxStatus};

/// Most buckets of a comparison.
pub const BUCKETS_MAX: usize = 1024;

/// Items that share a bucket, about: each bucket costs a sum, and each difference all items of its bucket.
const SHARE: usize = 16;

/// How far a thing is on its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    /// Not started.
    Waiting = 0,
    /// Runs.
    Running = 1,
    /// Over, and not forgotten.
    Over = 2,
}

/// One thing that a node has, as both ends can see it: where they see the same, nothing has to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Item {
    /// A task.
    Task(TaskRef, Phase),
    /// A sandbox.
    Sandbox(SandboxId, Phase),
    /// A job whose spec and files it has, and how many of its tasks may run there at once.
    Job(JobId, u32),
}

impl Item {
    /// Bytes of the same length for every item, and different for each.
    fn bytes(self) -> [u8; 26] {
        let (kind, id, a, b, phase) = match self {
            Self::Task(t, phase) => (0, t.job.0, t.index, t.attempt, phase as u8),
            Self::Sandbox(id, phase) => (1, id.0, 0, 0, phase as u8),
            Self::Job(id, lanes) => (2, id.0, lanes, 0, 0),
        };
        let mut out = [0; 26];
        out[0] = kind;
        out[1..17].copy_from_slice(&id.0.to_le_bytes());
        out[17..21].copy_from_slice(&a.to_le_bytes());
        out[21..25].copy_from_slice(&b.to_le_bytes());
        out[25] = phase;
        out
    }
}

/// What a session's marks are made with: 128 bits that nobody knew before.
pub type Nonce = [u8; 16];

/// A sum of marks, modulo 2^128, little endian.
pub type Sum = [u8; 16];

/// All that an end sees, in a few bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Drawn by the worker for this session.
    pub nonce: Nonce,
    /// How many items there are.
    pub count: u32,
    /// The sum of their marks.
    pub sum: Sum,
}

/// What a worker holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Holdings {
    /// Tasks: waiting, running, or over and not acknowledged.
    pub tasks: Vec<(TaskRef, Holding)>,
    /// Sandboxes; `None`: it is being started.
    pub sandboxes: Vec<(SandboxId, Option<SandboxStatus>)>,
    /// Jobs whose spec and files it has, with their lanes.
    pub jobs: Vec<(JobId, u32)>,
}

fn task(task: TaskRef, holding: Holding) -> Item {
    let phase = match holding {
        Holding::Waiting => Phase::Waiting,
        Holding::Running(_) => Phase::Running,
        Holding::Over => Phase::Over,
    };
    Item::Task(task, phase)
}

fn sandbox(id: SandboxId, status: Option<&SandboxStatus>) -> Item {
    let phase = match status {
        None => Phase::Waiting,
        Some(SandboxStatus::Running(_)) => Phase::Running,
        Some(SandboxStatus::Exited(_)) => Phase::Over,
    };
    Item::Sandbox(id, phase)
}

impl Holdings {
    /// The same as items.
    pub fn items(&self) -> impl Iterator<Item = Item> {
        let tasks = self.tasks.iter().map(|(t, how)| task(*t, *how));
        let sandboxes = self.sandboxes.iter();
        let sandboxes = sandboxes.map(|(id, status)| sandbox(*id, status.as_ref()));
        let jobs = self.jobs.iter().map(|(job, lanes)| Item::Job(*job, *lanes));
        tasks.chain(sandboxes).chain(jobs)
    }
}

/// What a worker holds in the buckets that differ.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Their numbers, each greater than the one before.
    pub buckets: Vec<u16>,
    /// All that is in them.
    pub holdings: Holdings,
}

/// Why what the other end says cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// So many buckets are not compared at once.
    Count(usize),
    /// A bucket that was not asked about, or that is named twice.
    Bucket(u16),
    /// Something is named that is in none of the buckets that it is to be from.
    Stray,
    /// What is named is not what was summed up.
    Sum,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(n) => write!(f, "{n} buckets are compared, and 1 to {BUCKETS_MAX} may be"),
            Self::Bucket(n) => write!(f, "bucket {n} was not asked about, or is named twice"),
            Self::Stray => f.write_str("something is named that is in none of the buckets named"),
            Self::Sum => f.write_str("what is named is not what was summed up"),
        }
    }
}

impl std::error::Error for Mismatch {}

/// An item's mark.
#[derive(Clone, Copy, Debug)]
struct Mark {
    sum: u128,
    /// Which bucket it is in, by the number of buckets.
    place: u16,
}

impl Mark {
    fn of(nonce: &Nonce, item: Item) -> Self {
        let hash: [u8; 32] = Sha256::new()
            .chain_update(nonce)
            .chain_update(item.bytes())
            .finalize()
            .into();
        let (mut sum, mut place) = ([0; 16], [0; 2]);
        sum.copy_from_slice(&hash[..16]);
        place.copy_from_slice(&hash[16..18]);
        Self {
            sum: u128::from_le_bytes(sum),
            place: u16::from_le_bytes(place),
        }
    }

    fn bucket(self, of: usize) -> usize {
        usize::from(self.place) % of
    }
}

/// What one end sees, marked.
#[derive(Clone, Debug)]
struct View {
    nonce: Nonce,
    marks: BTreeMap<Item, Mark>,
}

impl View {
    fn new(nonce: Nonce, items: impl IntoIterator<Item = Item>) -> Self {
        let items = items.into_iter();
        let marks = items.map(|item| (item, Mark::of(&nonce, item))).collect();
        Self { nonce, marks }
    }

    fn summary(&self) -> Summary {
        let sums = self.marks.values().map(|mark| mark.sum);
        Summary {
            nonce: self.nonce,
            count: u32::try_from(self.marks.len()).unwrap_or(u32::MAX),
            sum: sums.fold(0, u128::wrapping_add).to_le_bytes(),
        }
    }

    fn sums(&self, buckets: usize) -> Vec<Sum> {
        let mut sums = vec![0_u128; buckets];
        for mark in self.marks.values() {
            let sum = &mut sums[mark.bucket(buckets)];
            *sum = sum.wrapping_add(mark.sum);
        }
        sums.into_iter().map(u128::to_le_bytes).collect()
    }
}

/// The worker's side: what it holds, as it was when it said its summary.
#[derive(Clone, Debug)]
pub struct Told {
    view: View,
    holdings: Holdings,
}

impl Told {
    /// What is held now. The nonce is to be drawn for this.
    pub fn new(nonce: Nonce, holdings: Holdings) -> Self {
        Self {
            view: View::new(nonce, holdings.items()),
            holdings,
        }
    }

    /// What is said first.
    pub fn summary(&self) -> Summary {
        self.view.summary()
    }

    /// What is held in the buckets whose sums are others than the leader's.
    ///
    /// # Errors
    /// When there are no sums, or too many.
    pub fn answer(&self, theirs: &[Sum]) -> Result<Difference, Mismatch> {
        if !(1..=BUCKETS_MAX).contains(&theirs.len()) {
            return Err(Mismatch::Count(theirs.len()));
        }
        let ours = self.view.sums(theirs.len());
        let differs: Vec<bool> = ours.iter().zip(theirs).map(|(a, b)| a != b).collect();
        let named = |item: Item| {
            let mark = self.view.marks.get(&item);
            mark.is_some_and(|mark| differs[mark.bucket(theirs.len())])
        };
        let Holdings {
            tasks,
            sandboxes,
            jobs,
        } = &self.holdings;
        let tasks = tasks.iter().filter(|(t, how)| named(task(*t, *how)));
        let sandboxes = sandboxes.iter();
        let sandboxes = sandboxes.filter(|(id, how)| named(sandbox(*id, how.as_ref())));
        let jobs = jobs
            .iter()
            .filter(|(j, lanes)| named(Item::Job(*j, *lanes)));
        let numbers = (0_u16..).zip(&differs);
        Ok(Difference {
            buckets: numbers.filter(|(_, d)| **d).map(|(n, _)| n).collect(),
            holdings: Holdings {
                tasks: tasks.copied().collect(),
                sandboxes: sandboxes.cloned().collect(),
                jobs: jobs.copied().collect(),
            },
        })
    }

    /// What it is to go on holding, of what it held then, when the leader has named what it is not to hold.
    pub fn keep(
        self,
        unwanted: &[TaskRef],
        gone: &[SandboxId],
    ) -> (BTreeSet<TaskRef>, BTreeSet<SandboxId>) {
        let tasks = self.holdings.tasks.into_iter().map(|(task, _)| task);
        let mut tasks: BTreeSet<TaskRef> = tasks.collect();
        let sandboxes = self.holdings.sandboxes.into_iter().map(|(id, _)| id);
        let mut sandboxes: BTreeSet<SandboxId> = sandboxes.collect();
        unwanted.iter().for_each(|task| _ = tasks.remove(task));
        gone.iter().for_each(|id| _ = sandboxes.remove(id));
        (tasks, sandboxes)
    }
}

/// What a leader knows when it has heard a summary.
#[derive(Clone, Debug)]
pub enum Compared {
    /// All that the worker holds.
    Known(BTreeSet<Item>),
    /// That something differs, and how to find out what.
    Differs(Comparison),
}

/// The leader's side, until the worker has answered.
#[derive(Clone, Debug)]
pub struct Comparison {
    view: View,
    theirs: Summary,
    buckets: usize,
}

/// Compares what a worker says that it holds with what the leader sees it hold.
pub fn compare(theirs: Summary, own: impl IntoIterator<Item = Item>) -> Compared {
    let view = View::new(theirs.nonce, own);
    if view.summary() == theirs {
        return Compared::Known(view.marks.into_keys().collect());
    }
    // A worker that has nothing has nothing to name.
    if theirs.count == 0 && theirs.sum == [0; 16] {
        return Compared::Known(BTreeSet::new());
    }
    // What one end alone has differs anyway.
    let both = view.marks.len().min(theirs.count as usize);
    let buckets = both.div_ceil(SHARE).clamp(1, BUCKETS_MAX);
    Compared::Differs(Comparison {
        view,
        theirs,
        buckets,
    })
}

impl Comparison {
    /// What the worker is asked with: the leader's sums.
    pub fn sums(&self) -> Vec<Sum> {
        self.view.sums(self.buckets)
    }

    /// Whether the leader sees this as well.
    pub fn sees(&self, item: Item) -> bool {
        self.view.marks.contains_key(&item)
    }

    /// All that the worker holds, by its answer.
    ///
    /// # Errors
    /// When the answer is none to the question, or does not add up to the summary.
    pub fn settle(self, answer: &Difference) -> Result<BTreeSet<Item>, Mismatch> {
        let mut differs = vec![false; self.buckets];
        let mut before = None;
        for number in &answer.buckets {
            match differs.get_mut(usize::from(*number)) {
                Some(named) if before < Some(*number) => *named = true,
                _ => return Err(Mismatch::Bucket(*number)),
            }
            before = Some(*number);
        }
        let nonce = self.theirs.nonce;
        let mut marks = self.view.marks;
        marks.retain(|_, mark| !differs[mark.bucket(self.buckets)]);
        for item in answer.holdings.items() {
            let mark = Mark::of(&nonce, item);
            if !differs[mark.bucket(self.buckets)] {
                return Err(Mismatch::Stray);
            }
            marks.insert(item, mark);
        }
        let theirs = View { nonce, marks };
        if theirs.summary() != self.theirs {
            return Err(Mismatch::Sum);
        }
        Ok(theirs.marks.into_keys().collect())
    }
}
