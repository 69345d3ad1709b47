//! Restoring a snapshot: the archive is unpacked beside its place and renamed into it.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use prism_faults::point;
use prism_sys::beneath::remove_tree;

use super::ID_RANGE;
use super::error::SnapshotError;
use crate::image::{Budget, Limits, Owners, Rules, Unpacker, plain};

/// A restored snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// `sha256:<hex>` of the archive as it was read; compare it with the one at the snapshot.
    pub digest: String,
    /// Entries unpacked.
    pub files: u64,
}

/// Unpacks `archive` as the upper layer `upper`, which must be missing or empty.
///
/// Owners are moved into the range that starts at `uid_base`; without one (or without root) all
/// belongs to this process's user. The upper layer appears whole or not at all.
///
/// # Errors
/// [`SnapshotError`], with the entry and the reason when the archive is refused.
pub fn restore(
    archive: &Path,
    upper: &Path,
    uid_base: Option<u32>,
    limits: Limits,
) -> Result<Restored, SnapshotError> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let owners = match uid_base {
        Some(base) if base.checked_add(ID_RANGE).is_none() => {
            return Err(SnapshotError::Base(base));
        }
        Some(base) if rustix::process::geteuid().is_root() => Owners::Offset(base),
        _ => Owners::Caller,
    };
    let (Some(parent), Some(_)) = (upper.parent(), upper.file_name()) else {
        return Err(SnapshotError::NotEmpty(upper.to_owned()));
    };
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    match fs::read_dir(upper).map(|mut entries| entries.next().is_none()) {
        Ok(true) => {}
        Ok(false) => return Err(SnapshotError::NotEmpty(upper.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(SnapshotError::file("cannot look into", upper, error)),
    }
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let name = format!(".prism-restore-{}-{number}", std::process::id());
    let work = parent.join(&name);
    let made = point!("restore.before_unpack").and_then(|()| fs::create_dir(&work));
    made.map_err(|error| SnapshotError::file("cannot create", &work, error))?;
    let restored = unpack(archive, &work, owners, limits).and_then(|restored| {
        point!("restore.before_rename")
            .and_then(|()| fs::rename(&work, upper))
            .and_then(|()| point!("restore.after_rename"))
            .map_err(|error| SnapshotError::file("cannot put in place", upper, error))?;
        Ok(restored)
    });
    if restored.is_err()
        && let Ok(opened) = File::open(parent)
    {
        // The error that matters is the first one.
        let _ = remove_tree(&opened, name.as_ref());
    }
    restored
}

fn unpack(
    archive: &Path,
    work: &Path,
    owners: Owners,
    limits: Limits,
) -> Result<Restored, SnapshotError> {
    let refuse = |error| SnapshotError::Archive {
        file: PathBuf::from(archive),
        error,
    };
    let failed = |error: io::Error| SnapshotError::file("cannot read", archive, error);
    let file = File::open(archive).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    }
    let root = File::open(work).map_err(|error| SnapshotError::file("cannot open", work, error))?;
    let mut budget = Budget::new(limits);
    let stream_max = budget.stream_max();
    let stream = plain(file, limits, stream_max).map_err(|why| refuse(why.whole()))?;
    let rules = Rules {
        owners,
        snapshot: true,
    };
    Unpacker::new(OwnedFd::from(root), rules, &mut budget)
        .run(BufReader::with_capacity(64 << 10, stream.reader))
        .map_err(refuse)?;
    let digest = format!("sha256:{}", stream.stored.hex());
    Ok(Restored {
        digest,
        files: budget.entries(),
    })
}
