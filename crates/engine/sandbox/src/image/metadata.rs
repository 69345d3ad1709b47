//! Owners, times and attributes of what is unpacked.
//!
//! Works on descriptors of files just made. Used by the unpacker.

use std::os::fd::AsFd;

use rustix::fs::{Gid, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};

use super::error::Refusal;

/// Ids beyond what a sandbox's range holds become the overflow id.
const ID_MAX: u64 = 65_535;
const ID_OVERFLOW: u32 = 65_534;

/// To whom unpacked files belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owners {
    /// To the user of this process, whatever the archive says.
    Caller,
    /// To this base plus the archive's id (0 to 65535).
    Offset(u32),
}

/// The ids the archive names, moved into the range.
fn shifted(base: u32, id: u64) -> u32 {
    let id = u32::try_from(id.min(ID_MAX + 1)).unwrap_or(ID_OVERFLOW);
    base.saturating_add(if u64::from(id) > ID_MAX {
        ID_OVERFLOW
    } else {
        id
    })
}

pub(super) fn ids(base: u32, uid: u64, gid: u64) -> (Uid, Gid) {
    (
        Uid::from_raw(shifted(base, uid)),
        Gid::from_raw(shifted(base, gid)),
    )
}

pub(super) fn times(mtime: Option<(i64, u32)>) -> Timestamps {
    let omit = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_OMIT,
    };
    let last_modification = match mtime {
        Some((seconds, nanos)) => Timespec {
            tv_sec: seconds,
            tv_nsec: i64::from(nanos),
        },
        None => omit,
    };
    Timestamps {
        last_access: omit,
        last_modification,
    }
}

pub(super) fn set_attributes(
    file: impl AsFd,
    attributes: &[(Vec<u8>, Vec<u8>)],
) -> Result<(), Refusal> {
    for (name, value) in attributes {
        rustix::fs::fsetxattr(file.as_fd(), name.as_slice(), value, XattrFlags::empty())
            .map_err(|error| Refusal::io("cannot set an extended attribute", error))?;
    }
    Ok(())
}

/// Hides what the layers below have here. Both spellings, where allowed: which one the kernel
/// reads depends on how the overlay is mounted (`userxattr`), and the other is inert.
pub(super) fn mark_opaque(directory: impl AsFd) -> Result<(), Refusal> {
    let mark = |name: &str| {
        rustix::fs::fsetxattr(directory.as_fd(), name, b"y", XattrFlags::empty())
            .map_err(|error| Refusal::io("cannot mark the directory opaque", error))
    };
    if rustix::process::geteuid().is_root() {
        mark("trusted.overlay.opaque")?;
    }
    mark("user.overlay.opaque")
}
