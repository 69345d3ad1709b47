//! One process at a time: an advisory lock on a file in the directory, which the kernel drops with the process.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use prism_faults::point;

use crate::OpenError;

/// How long a holder that was killed may take to be gone: a service manager starts the next one at once.
const HOLDER_ENDS: Duration = Duration::from_secs(10);
/// Pause between two tries.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Bit of SIGKILL in a signal mask.
const SIGKILL_BIT: u64 = 1 << 8;

/// A held lock.
#[derive(Debug)]
pub(crate) struct DirLock(File);

impl DirLock {
    /// Takes the lock, and writes down who holds it.
    pub(crate) fn take(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join("lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = point!("raft.lock.before_take")
            .and_then(|()| options.open(&path))
            .map_err(OpenError::io("open", &path))?;
        let deadline = Instant::now() + HOLDER_ENDS;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {
                    let holder = holder(&mut file);
                    if Instant::now() >= deadline || !is_ending(&holder) {
                        return Err(OpenError::Locked {
                            dir: dir.to_owned(),
                            holder,
                        });
                    }
                    std::thread::sleep(LOOK_AGAIN);
                }
                Err(TryLockError::Error(source)) => {
                    return Err(OpenError::io("lock", &path)(source));
                }
            }
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .and_then(|()| point!("raft.lock.after_write"))
            .map_err(OpenError::io("write", &path))?;
        Ok(Self(file))
    }

    /// Gives the lock back before the process ends.
    pub(crate) fn release(&self) {
        // Closing the file releases it in any case; this is only sooner.
        let _closing = self.0.unlock();
    }
}

/// The process that wrote itself down.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
    match (read, text.trim()) {
        (Ok(_), pid) if !pid.is_empty() => pid.chars().take(20).collect(),
        _ => "(unknown)".to_owned(),
    }
}

/// Whether a process was killed and is only being taken apart: its memory is gone, its files are about to be.
fn is_ending(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        status
            .lines()
            .find_map(|l| l.strip_prefix(name))
            .unwrap_or_default()
            .trim()
    };
    let killed = u64::from_str_radix(field("ShdPnd:"), 16).unwrap_or(0) & SIGKILL_BIT != 0;
    status.is_empty()
        || killed
        || field("VmSize:").is_empty()
        || field("State:").starts_with(['Z', 'X'])
}
