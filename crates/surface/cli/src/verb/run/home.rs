//! Where an embedded run keeps its data: a directory per content digest, locked while it runs, marked until it is over.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use prism_faults::point;
use prism_types::Fault;

use crate::dirs;
use crate::exit::Failure;

/// Finished runs that are kept, the newest.
const KEEP: usize = 20;

/// The directory of one run.
#[derive(Clone, Debug)]
pub struct Home {
    root: PathBuf,
    dir: PathBuf,
}

/// Held while the run goes on; the system lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Home {
    /// The directory for a content digest; not made yet.
    ///
    /// # Errors
    /// When it is not known where a person's state is kept.
    pub fn of(digest: &str) -> Result<Self, Failure> {
        let state = dirs::state().ok_or_else(|| {
            Failure::file("cannot tell where to keep the run: neither XDG_STATE_HOME nor a home directory is set")
        })?;
        Ok(Self::beneath(state.join("run"), digest))
    }

    fn beneath(root: PathBuf, digest: &str) -> Self {
        let dir = root.join(digest.get(..16).unwrap_or(digest));
        Self { root, dir }
    }

    /// Where the node keeps its data.
    pub fn data(&self) -> PathBuf {
        self.dir.join("node")
    }

    /// Whether a run was begun here and is not over.
    pub fn is_unfinished(&self) -> bool {
        self.dir.join("unfinished").exists()
    }

    /// Takes the run for this process.
    ///
    /// # Errors
    /// When another process has it, or the directory cannot be made.
    pub fn lock(&self) -> Result<Lock, Failure> {
        let fail = |e: std::io::Error| self.fail("prepare", &e);
        let mut private = std::fs::DirBuilder::new();
        private.recursive(true).mode(0o700);
        point!("run.home.before_make")
            .and_then(|()| private.create(&self.dir))
            .map_err(fail)?;
        let file = open_lock(&self.dir).map_err(fail)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // Without the number the message is only less helpful.
                let _ = (&file).take(16).read_to_string(&mut pid);
                let pid = pid
                    .trim()
                    .parse::<u32>()
                    .map_or(String::new(), |p| format!(" (pid {p})"));
                return Err(Failure::failed(
                    Fault::DataInUse,
                    format!("this file is already running{pid}; nothing was started"),
                )
                .next("wait for that run, or end it with Ctrl-C where it runs"));
            }
            Err(TryLockError::Error(e)) => return Err(fail(e)),
        }
        file.set_len(0).map_err(fail)?;
        (&file)
            .write_all(format!("{}\n", std::process::id()).as_bytes())
            .and_then(|()| point!("run.home.after_lock"))
            .map_err(fail)?;
        Ok(Lock { _file: file })
    }

    /// Says that the run is not over, until [`Home::mark_finished`].
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn mark_unfinished(&self, file: &Path) -> Result<(), Failure> {
        let text = format!("{}\n", file.display());
        point!("run.home.before_mark")
            .and_then(|()| std::fs::write(self.dir.join("unfinished"), text))
            .and_then(|()| point!("run.home.after_mark"))
            .map_err(|e| self.fail("mark", &e))
    }

    /// Says that the run is over.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn mark_finished(&self) -> Result<(), Failure> {
        point!("run.home.before_finish")
            .and_then(|()| std::fs::remove_file(self.dir.join("unfinished")))
            .and_then(|()| point!("run.home.after_finish"))
            .map_err(|e| self.fail("mark", &e))
    }

    /// Removes finished runs but for the newest. What cannot be removed stays; another run tries again.
    pub fn prune(&self) {
        let Ok(entries) = std::fs::read_dir(&self.root) else {
            return;
        };
        let mut finished: Vec<(SystemTime, PathBuf)> = entries
            .filter_map(|e| {
                let dir = e.ok()?.path();
                let used = std::fs::symlink_metadata(dir.join("lock"))
                    .ok()?
                    .modified()
                    .ok()?;
                (!dir.join("unfinished").exists()).then_some((used, dir))
            })
            .collect();
        finished.sort();
        finished.reverse();
        for (_, dir) in finished.into_iter().skip(KEEP) {
            // Held over the removal, so that no run begins in a directory that vanishes.
            if let Ok(lock) = open_lock(&dir)
                && lock.try_lock().is_ok()
            {
                let _ = std::fs::remove_dir_all(&dir);
            }
        }
    }

    fn fail(&self, what: &str, e: &std::io::Error) -> Failure {
        Failure::failed(
            Fault::DataDir,
            format!(
                "cannot {what} the directory of the run {}: {e}",
                self.dir.display()
            ),
        )
        .next("choose another place with XDG_STATE_HOME")
    }
}

fn open_lock(dir: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(dir.join("lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time_and_it_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::beneath(dir.path().to_owned(), &"ab".repeat(32));
        let lock = home.lock().unwrap();
        let told = home.lock().unwrap_err();
        assert!(
            told.message()
                .contains(&format!("pid {}", std::process::id())),
            "{told}"
        );
        drop(lock);
        assert!(home.lock().is_ok());
    }

    #[test]
    fn a_run_is_unfinished_until_it_is_marked() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::beneath(dir.path().to_owned(), &"cd".repeat(32));
        let _lock = home.lock().unwrap();
        assert!(!home.is_unfinished());
        home.mark_unfinished(Path::new("x.yaml")).unwrap();
        assert!(home.is_unfinished());
        home.mark_finished().unwrap();
        assert!(!home.is_unfinished());
    }

    #[test]
    fn only_old_finished_runs_that_nobody_uses_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let homes: Vec<Home> = (0..30)
            .map(|i| Home::beneath(dir.path().to_owned(), &format!("{i:064x}")[48..]))
            .collect();
        let mut held = None;
        for (i, home) in homes.iter().enumerate() {
            let lock = home.lock().unwrap();
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(i as u64 + 1);
            open_lock(&home.dir).unwrap().set_modified(at).unwrap();
            if i == 0 {
                held = Some(lock);
            }
            if i == 1 {
                home.mark_unfinished(Path::new("x")).unwrap();
            }
        }
        homes[29].prune();
        let left: Vec<usize> = (0..30).filter(|i| homes[*i].dir.exists()).collect();
        assert_eq!(left, [0, 1].into_iter().chain(10..30).collect::<Vec<_>>());
        drop(held);
    }
}
