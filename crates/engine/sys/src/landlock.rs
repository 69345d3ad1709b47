//! Landlock by its three raw calls, usable between fork and exec.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::check_long;

/// Everything a file system rule can govern up to ABI 5.
pub const FILES_ALL: u64 = 0xffff;
/// Making character devices.
pub const MAKE_CHAR: u64 = 1 << 6;
/// Making block devices.
pub const MAKE_BLOCK: u64 = 1 << 11;
/// Linking and renaming between directories (ABI 2).
pub const REFER: u64 = 1 << 13;
/// Truncating (ABI 3).
pub const TRUNCATE: u64 = 1 << 14;
/// Device ioctls (ABI 5).
pub const IOCTL_DEV: u64 = 1 << 15;
/// No connections to abstract sockets outside (ABI 6).
pub const SCOPE_ABSTRACT: u64 = 1;
/// No signals to processes outside (ABI 6).
pub const SCOPE_SIGNAL: u64 = 2;

#[repr(C)]
struct Ruleset {
    files: u64,
    net: u64,
    scope: u64,
}

#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// The version of Landlock here; 0 for none.
pub fn abi() -> u32 {
    let none: *const Ruleset = std::ptr::null();
    // SAFETY: LANDLOCK_CREATE_RULESET_VERSION (1) takes no ruleset.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, 1) };
    u32::try_from(abi).unwrap_or(0)
}

/// Restricts this process: of the actions `governed` only `allowed` beneath `root`, and nothing across `scope`.
/// The masks must fit the [`abi`]. Needs no_new_privs.
///
/// # Errors
/// The kernel's.
pub fn restrict(
    abi: u32,
    root: BorrowedFd<'_>,
    governed: u64,
    allowed: u64,
    scope: u64,
) -> io::Result<()> {
    let ruleset = Ruleset {
        files: governed,
        net: 0,
        scope,
    };
    let size: usize = match abi {
        0..=3 => 8,
        4 | 5 => 16,
        _ => 24,
    };
    // SAFETY: `size` bytes of a live record.
    let fd = check_long(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const ruleset,
            size,
            0,
        )
    })?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just gave us this descriptor.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let rule = PathBeneath {
        allowed,
        parent: root.as_raw_fd(),
    };
    // SAFETY: LANDLOCK_RULE_PATH_BENEATH (1) reads a packed record, which this is.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            fd.as_raw_fd(),
            1,
            &raw const rule,
            0,
        )
    })?;
    // SAFETY: no memory is passed.
    check_long(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, fd.as_raw_fd(), 0) })
        .map(drop)
}
