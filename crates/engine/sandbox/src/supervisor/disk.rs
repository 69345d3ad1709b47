//! Disk limits by accounting: what runs wrote is counted about once a second, in a child, so that nothing waits for it. A run over its limit is ended. Between two counts a run may write more than it was given; one file never is
//! larger than the limit, which the kernel sees to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use prism_runtime::{Launch, Scratch};
use prism_sys::process::{self, Fork};
use prism_sys::table::{self, Entry, State};
use prism_types::{Millis, RunId, StopCause};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};

use super::limits::size;
use super::run::Kind;
use super::state::{MAX_RUNS, Supervisor};
use crate::procfs;

/// Between two counts of a run that is writing.
const SOON: Duration = Duration::from_secs(1);

/// The longest between two counts of a run with a program that does not seem to write, and of one without.
const LATER: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));

/// Counting takes at most one in this many parts of a processor's time.
const SHARE: u32 = 20;

/// Directories in directories; a tree that is deeper counts as too large, as it would hide what is in it.
const MAX_DEPTH: usize = 1_000;

/// Stands for a tree that is too deep, in the place of a count of files.
const TOO_DEEP: u64 = u64::MAX;

/// Descriptors of a run that are looked at for files that are deleted and still open.
const MAX_OPEN: usize = 20_000;

/// The disk account of a run.
#[derive(Clone, Debug)]
pub struct Account {
    dir: PathBuf,
    bytes: u64,
    files: u64,
    /// What the last count found: bytes and files.
    found: (u64, u64),
    /// When to count next; never before a program ran in it.
    next: Option<Instant>,
    wait: Duration,
}

impl Account {
    /// That of a launch, if its disk is limited.
    pub fn of(launch: &Launch) -> Option<Self> {
        match &launch.scratch {
            Scratch::Disk { dir, bytes } if bytes.0 != 0 => Some(Self {
                dir: dir.clone(),
                bytes: bytes.0,
                files: files(bytes.0),
                found: (0, 0),
                next: None,
                wait: SOON,
            }),
            _ => None,
        }
    }
}

impl Account {
    /// The limit.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Files that a limit in bytes allows.
pub fn files(bytes: u64) -> u64 {
    (bytes / 4096).clamp(1_024, 1 << 20)
}

/// The counting child.
struct Counter {
    pid: u32,
    whom: Vec<(usize, RunId)>,
}

/// What the supervisor keeps for all accounts.
pub struct Accounts {
    /// Where the counting child tells what it found.
    results: &'static [Entry],
    counter: Option<Counter>,
    /// When to look whose time has come; `None` while no run has a limit.
    due: Option<Instant>,
}

impl Accounts {
    /// # Errors
    /// The kernel's, of memory.
    pub fn new() -> Result<Self, String> {
        Ok(Self {
            results: table::map(MAX_RUNS).map_err(|e| format!("map the disk accounts: {e}"))?,
            counter: None,
            due: None,
        })
    }

    /// When there is something to do.
    pub fn due(&self) -> Option<Instant> {
        self.due.filter(|_| self.counter.is_none())
    }

    /// Whether a child that ended was the counting one.
    pub fn is_counter(&self, pid: u32) -> bool {
        self.counter.as_ref().is_some_and(|c| c.pid == pid)
    }
}

/// One run to count.
struct Job {
    index: usize,
    dir: PathBuf,
    limit: (u64, u64),
    /// The roots of its trees of processes.
    roots: Vec<u32>,
}

impl Supervisor {
    /// A program begins in a run (or in its sandbox): counts it soon.
    pub(super) fn watch_disk(&mut self, index: usize) {
        let soon = Instant::now() + SOON;
        let Some(account) = self.run(index).and_then(|run| run.account.as_mut()) else {
            return;
        };
        account.wait = SOON;
        account.next = Some(account.next.map_or(soon, |next| next.min(soon)));
        self.accounts.due = Some(self.accounts.due.map_or(soon, |due| due.min(soon)));
    }

    /// Begins to count what is due.
    pub(super) fn count_disks(&mut self, now: Instant) {
        if self.accounts.due().is_none_or(|due| due > now) {
            return;
        }
        let inner = self.inner_by_sandbox();
        let mut batch = Vec::new();
        let mut next: Option<Instant> = None;
        for (index, run) in self.runs.iter().enumerate() {
            let Some((run, account)) = run.as_ref().and_then(|r| Some((r, r.account.as_ref()?)))
            else {
                continue;
            };
            let Some(at) = account.next else {
                continue;
            };
            if at > now || run.pid == 0 {
                next = Some(next.map_or(at, |n: Instant| n.min(at)));
                continue;
            }
            let programs = inner.get(&index).into_iter().flatten().copied();
            let roots = programs.chain([run.pid]).filter(|pid| *pid != 0);
            batch.push(Job {
                index,
                dir: account.dir.clone(),
                limit: (account.bytes, account.files),
                roots: roots.collect(),
            });
        }
        self.accounts.due = next;
        if batch.is_empty() {
            return;
        }
        for job in &batch {
            self.accounts.results[job.index].reset();
        }
        match process::fork(self.proof, 0, None) {
            Ok(Fork::Child) => {
                process::die_with_parent();
                let results = self.accounts.results;
                let counted = std::panic::catch_unwind(|| count_all(&batch, results));
                process::exit(i32::from(counted.is_err()))
            }
            Ok(Fork::Parent(pid)) => {
                self.busy.insert(pid);
                let whom = |job: &Job| Some((job.index, self.runs[job.index].as_ref()?.id.clone()));
                let whom = batch.iter().filter_map(whom).collect();
                self.accounts.counter = Some(Counter { pid, whom });
            }
            // No process to be had just now; the next round tries again.
            Err(_) => self.accounts.due = Some(now + SOON),
        }
    }

    /// The programs in each sandbox that has any, by their numbers.
    fn inner_by_sandbox(&self) -> BTreeMap<usize, Vec<u32>> {
        let mut inner: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for run in self.runs.iter().flatten() {
            if let Kind::Exec(sandbox) = run.kind {
                inner.entry(sandbox).or_default().push(run.pid);
            }
        }
        inner
    }

    /// The counting child is done; it took so much of a processor.
    pub(super) fn disks_are_counted(&mut self, cpu_us: u64) {
        let Some(Counter { whom, .. }) = self.accounts.counter.take() else {
            return;
        };
        let now = Instant::now();
        let inner = self.inner_by_sandbox();
        let rest = Duration::from_micros(cpu_us) * SHARE;
        for (index, id) in whom {
            let result = self.accounts.results[index].state();
            let busy = inner.contains_key(&index);
            let Some(run) = self.run(index).filter(|run| run.id == id) else {
                continue;
            };
            let most = if busy || run.kind == Kind::Task {
                LATER.0
            } else {
                LATER.1
            };
            let Some(account) = run.account.as_mut() else {
                continue;
            };
            let (bytes, count) = match result {
                State::Ended { cpu_us, peak, .. } => (cpu_us, peak),
                _ => account.found,
            };
            account.wait = if (bytes, count) == account.found {
                (account.wait * 2).min(most)
            } else {
                SOON
            };
            account.found = (bytes, count);
            let due = now + account.wait.max(rest);
            account.next = Some(due);
            let over = if count == TOO_DEEP {
                format!("more than {MAX_DEPTH} directories in each other")
            } else if bytes > account.bytes {
                let (found, limit) = (size(bytes), size(account.bytes));
                format!("limit {limit}, found {found} in {count} files")
            } else if count > account.files {
                format!("limit {} files, found {count}", account.files)
            } else {
                self.accounts.due = Some(self.accounts.due.map_or(due, |d| d.min(due)));
                continue;
            };
            run.trouble = Some(over.clone());
            let inner: Vec<usize> = self.inner(index).collect();
            for program in inner {
                if let Some(program) = self.run(program) {
                    program.ending.get_or_insert(StopCause::DiskExceeded);
                    program.trouble.get_or_insert(over.clone());
                }
            }
            self.end(index, StopCause::DiskExceeded, Millis(0));
        }
    }
}

/// The life of the counting child.
fn count_all(batch: &[Job], results: &[Entry]) {
    for job in batch {
        let (mut bytes, files) = count(&job.dir, job.limit);
        if bytes <= job.limit.0 {
            bytes += deleted(&job.roots);
        }
        results[job.index].ended(0, bytes, files);
    }
}

/// Room that a directory's tree takes on disk, and how many files it has; stops at the limit.
fn count(dir: &Path, (max_bytes, max_files): (u64, u64)) -> (u64, u64) {
    let (mut bytes, mut files) = (0, 0);
    let mut stack: Vec<Dir> = open(CWD, dir).into_iter().collect();
    loop {
        let depth = stack.len();
        let Some(dir) = stack.last_mut() else {
            break;
        };
        let Some(Ok(entry)) = dir.read() else {
            stack.pop();
            continue;
        };
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(at) = dir.fd() else {
            stack.pop();
            continue;
        };
        let Ok(stat) = statat(at, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        files += 1;
        let taken = u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        // A file with several names is counted once in all.
        bytes += taken / if is_dir { 1 } else { stat.st_nlink.max(1) };
        if bytes > max_bytes || files > max_files {
            break;
        }
        if is_dir {
            if depth >= MAX_DEPTH {
                return (bytes, TOO_DEEP);
            }
            let inner = open(at, name);
            stack.extend(inner);
        }
    }
    (bytes, files)
}

fn open(at: impl std::os::fd::AsFd, name: impl rustix::path::Arg) -> Option<Dir> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    let fd: OwnedFd = openat(at, name, flags, Mode::empty()).ok()?;
    Dir::new(fd).ok()
}

/// Room of files that are deleted and still open in these trees of processes.
fn deleted(roots: &[u32]) -> u64 {
    let mut seen = BTreeSet::new();
    let mut bytes = 0;
    let mut looked = 0;
    let processes = roots
        .iter()
        .flat_map(|root| std::iter::once(*root).chain(procfs::descendants(*root)));
    for pid in processes {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            continue;
        };
        for descriptor in descriptors.flatten() {
            looked += 1;
            if looked > MAX_OPEN {
                return bytes;
            }
            let at = descriptor.path();
            let Ok(target) = fs::read_link(&at) else {
                continue;
            };
            let name = target.as_os_str().as_encoded_bytes();
            // Memory that has a descriptor counts as memory.
            if !name.ends_with(b" (deleted)") || name.starts_with(b"/memfd:") {
                continue;
            }
            if let Ok(meta) = fs::metadata(&at)
                && meta.is_file()
                && meta.nlink() == 0
                && seen.insert((meta.dev(), meta.ino()))
            {
                bytes += meta.blocks() * 512;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_counted_as_the_disk_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("one/two");
        fs::create_dir_all(&at).unwrap();
        fs::write(at.join("data"), vec![7; 1 << 20]).unwrap();
        fs::hard_link(at.join("data"), at.join("again")).unwrap();
        let sparse = fs::File::create(at.join("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        std::os::unix::fs::symlink("/", at.join("out")).unwrap();
        // Some file systems find room only when they write back.
        rustix::fs::sync();
        let (bytes, files) = count(dir.path(), (u64::MAX, u64::MAX));
        assert_eq!(files, 6);
        assert!((1 << 20..2 << 20).contains(&bytes), "{bytes}");
        let (bytes, _) = count(dir.path(), (1 << 16, u64::MAX));
        assert!(bytes > 1 << 16);
        assert_eq!(count(dir.path(), (u64::MAX, 2)).1, 3);
    }

    #[test]
    fn a_tree_without_end_is_too_deep() {
        let dir = tempfile::tempdir().unwrap();
        let mut at = open(CWD, dir.path()).unwrap();
        for _ in 0..MAX_DEPTH + 5 {
            let fd = at.fd().unwrap();
            rustix::fs::mkdirat(fd, "d", Mode::RWXU).unwrap();
            at = open(fd, "d").unwrap();
        }
        assert_eq!(count(dir.path(), (u64::MAX, u64::MAX)).1, TOO_DEEP);
        drop(at);
        let (parent, name) = (
            dir.path().parent().unwrap(),
            dir.path().file_name().unwrap(),
        );
        prism_sys::beneath::remove_tree(fs::File::open(parent).unwrap(), name).unwrap();
    }
}
