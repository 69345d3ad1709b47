//! One process at a time: an advisory lock on a file in the directory, which the kernel drops with the process.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use crate::OpenError;

/// A held lock.
#[derive(Debug)]
pub(crate) struct DirLock(File);

impl DirLock {
    /// Takes the lock, and writes down who holds it.
    pub(crate) fn take(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(OpenError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(dir, file)),
            Err(TryLockError::Error(source)) => return Err(OpenError::io("lock", &path)(source)),
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(OpenError::io("write", &path))?;
        Ok(Self(file))
    }

    /// Gives the lock back before the process ends.
    pub(crate) fn release(&self) {
        // Closing the file releases it in any case; this is only sooner.
        let _closing = self.0.unlock();
    }
}

fn in_use(dir: &Path, mut file: File) -> OpenError {
    let mut holder = String::new();
    let read = file.read_to_string(&mut holder);
    let holder = match (read, holder.trim()) {
        (Ok(_), text) if !text.is_empty() => text.chars().take(20).collect(),
        _ => "(unknown)".to_owned(),
    };
    OpenError::Locked {
        dir: dir.to_owned(),
        holder,
    }
}
