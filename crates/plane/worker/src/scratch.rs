//! Scratch directories of sandboxes: some are made ahead, and those of ended ones are kept empty and given to new ones, because
//! making and removing directories is what a disk is slowest at.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use prism_runtime::HostFiles;

use crate::spread::each_apart;

/// Most that are kept.
const KEPT_MAX: usize = 1024;

/// How many are made ahead.
const AHEAD: usize = 64;

/// The empty ones.
#[derive(Debug)]
pub(crate) struct Spares {
    dir: PathBuf,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    free: BTreeSet<u64>,
    next: u64,
}

impl Spares {
    /// None yet. `dir` is theirs alone and is begun anew.
    pub(crate) fn open(dir: PathBuf) -> io::Result<Self> {
        remove_dir(&dir)?;
        std::fs::create_dir_all(&dir)?;
        each_apart(&dir)?;
        let kept = Mutex::default();
        Ok(Self { dir, kept })
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("no holder of this lock panics")
    }

    fn at(&self, n: u64) -> PathBuf {
        self.dir.join(n.to_string())
    }

    fn next(&self) -> u64 {
        let mut kept = self.lock();
        kept.next += 1;
        kept.next
    }

    /// Makes some ahead. Blocking.
    pub(crate) fn fill(&self, files: &dyn HostFiles) {
        while self.lock().free.len() < AHEAD {
            let n = self.next();
            if !files.fresh(&self.at(n)) {
                return;
            }
            self.lock().free.insert(n);
        }
    }

    /// Puts an empty one at `to`, if there is one and `to` is not taken; else the engine makes a new one there.
    pub(crate) fn take(&self, to: &Path) {
        if to.exists() {
            return;
        }
        let spare = self.lock().free.pop_last();
        if let Some(n) = spare
            && let Err(e) = std::fs::rename(self.at(n), to)
        {
            tracing::debug!(error = %e, "a spare scratch directory could not be used");
        }
    }

    /// Keeps the one of an ended sandbox if it can be used again, and removes it if not. Blocking.
    pub(crate) fn give(&self, files: &dyn HostFiles, from: &Path) -> io::Result<()> {
        let few = self.lock().free.len() < KEPT_MAX;
        match few.then(|| self.next()) {
            Some(n) if from.exists() && files.recycle(from, &self.at(n)) => {
                self.lock().free.insert(n);
                Ok(())
            }
            _ => remove_dir(from),
        }
    }
}

fn remove_dir(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
