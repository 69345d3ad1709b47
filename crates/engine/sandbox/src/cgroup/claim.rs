//! Which instances' groups are still somebody's, and the end of those that are not.
//!
//! Groups outlive a supervisor that is killed, so that the next one of its data directory finds what ran. Where there is no next one,
//! they would stay until the host restarts, and each costs the kernel memory and time: with every mount it makes room in each group
//! that limits memory. So a supervisor holds a lock (`flock`) on its parent group's directory, which the kernel lets go with its
//! last process, and each that starts removes the empty groups of those whose lock is free.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use super::Driver;

/// How long [`clear`] may keep a start waiting; what is left is for the next.
const CLEAR_MOST: Duration = Duration::from_millis(200);
/// How often, and how far apart, a lock is asked for that another holds.
const ATTEMPTS: usize = 40;
const PAUSE: Duration = Duration::from_millis(5);

/// The lock on an instance's parent group; `None` where another holds it, who then keeps it from being cleared away just as well.
pub type Claim = Option<OwnedFd>;

/// Makes a parent group and claims it: `make` gives what it made and is asked again when another cleared that away before the
/// claim.
///
/// # Errors
/// What `make` says, or that the directory cannot be opened.
pub fn made<T>(
    make: impl Fn() -> Result<T, String>,
    at: impl Fn(&T) -> &Path,
) -> Result<(T, Claim), String> {
    let mut attempts = 0..ATTEMPTS;
    loop {
        let new = make()?;
        let dir = at(&new);
        match lock(dir) {
            Ok(Some(claim)) => return Ok((new, Some(claim))),
            // It is gone, or about to be, or another's of the same name.
            Ok(None) | Err(_) if attempts.next().is_some() => thread::sleep(PAUSE),
            Ok(None) => return Ok((new, None)),
            Err(e) => return Err(format!("claim {}: {e}", dir.display())),
        }
    }
}

/// Takes the lock on a directory; `None` while another holds it.
///
/// # Errors
/// The kernel's, and that the directory was removed meanwhile.
fn lock(dir: &Path) -> io::Result<Claim> {
    let file = File::open(dir)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(e) => return Err(e.into()),
    }
    let (locked, there) = (file.metadata()?, fs::metadata(dir)?);
    if locked.ino() == there.ino() {
        Ok(Some(file.into()))
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Removes the groups of other instances that nobody has claimed and nothing is in. Bounded in time.
pub fn clear(driver: &dyn Driver) {
    let until = Instant::now() + CLEAR_MOST;
    for other in driver.others() {
        if Instant::now() >= until {
            return;
        }
        // What is not there, or not ours to open, is not ours to clear.
        let Ok(Some(_claim)) = lock(other.parent()) else {
            continue;
        };
        // The kernel removes none that a process is in.
        for name in other.names() {
            other.remove(&name);
        }
        other.remove_parent();
    }
}
