//! Identity and privilege of this process: ids, capabilities, no_new_privs, limits. Called in children before they exec.

use std::io;

use crate::{check, check_long};

/// Takes `uid` and `gid` for file system access only, and keeps every capability effective that is permitted.
///
/// # Errors
/// When the ids are not mapped here or the capabilities cannot be raised.
pub fn act_on_files_as(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
    }
    raise_permitted()
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAP_VERSION_3: u32 = 0x2008_0522;

fn raise_permitted() -> io::Result<()> {
    let mut header = CapHeader {
        version: CAP_VERSION_3,
        pid: 0,
    };
    let mut data = [CapData {
        effective: 0,
        permitted: 0,
        inheritable: 0,
    }; 2];
    // SAFETY: version 3 wants a header and two data records, which these are.
    check_long(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    for word in &mut data {
        word.effective = word.permitted;
    }
    // SAFETY: as above.
    check_long(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) }).map(drop)
}

/// Becomes user and group 0 of the current user namespace, without other groups where that may be set.
///
/// # Errors
/// When the ids are not mapped.
pub fn become_root_inside() -> io::Result<()> {
    // SAFETY: an empty list needs no pointer; the raw calls touch no memory.
    unsafe {
        // Refused in a namespace whose setgroups is "deny" (a normal user's), where there is nothing to set.
        libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>());
        check_long(libc::syscall(libc::SYS_setresgid, 0, 0, 0))?;
        check_long(libc::syscall(libc::SYS_setresuid, 0, 0, 0))?;
    }
    Ok(())
}

const SECBIT_NOROOT_AND_LOCKS: libc::c_ulong = 0b0010_1111;

/// Gives up every capability for good: bounding, permitted, effective, inheritable and ambient, and root's way to get them by exec.
///
/// # Errors
/// The kernel's; the process must not go on then.
pub fn drop_all_capabilities() -> io::Result<()> {
    for cap in 0..64 {
        // SAFETY: no memory is passed.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, cap, 0, 0, 0) } < 0 {
            // EINVAL: past the last capability of this kernel.
            if cap == 0 {
                return Err(io::Error::last_os_error());
            }
            break;
        }
    }
    // SAFETY: no memory is passed.
    check(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, SECBIT_NOROOT_AND_LOCKS) })?;
    let mut header = CapHeader {
        version: CAP_VERSION_3,
        pid: 0,
    };
    let none = [CapData {
        effective: 0,
        permitted: 0,
        inheritable: 0,
    }; 2];
    // SAFETY: version 3 wants a header and two data records, which these are.
    check_long(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, none.as_ptr()) }).map(drop)
}

/// Makes sure that no exec ever adds privilege.
///
/// # Errors
/// The kernel's.
pub fn no_new_privs() -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }).map(drop)
}

/// A resource whose limit can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Size of core files.
    Core,
    /// Open files.
    Files,
    /// Processes of the user.
    Processes,
    /// Data segment, which counts private writable memory.
    Data,
    /// Size of one file; a write beyond it fails, with SIGXFSZ.
    FileSize,
}

impl Resource {
    /// What it counts, for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Core => "core files",
            Self::Files => "open files",
            Self::Processes => "processes",
            Self::Data => "memory",
            Self::FileSize => "file sizes",
        }
    }

    /// The kernel's number of it, and as much of `value` as this process's hard limit allows.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn fitted(self, value: u64) -> io::Result<(libc::__rlimit_resource_t, u64)> {
        let which = match self {
            Self::Core => libc::RLIMIT_CORE,
            Self::Files => libc::RLIMIT_NOFILE,
            Self::Processes => libc::RLIMIT_NPROC,
            Self::Data => libc::RLIMIT_DATA,
            Self::FileSize => libc::RLIMIT_FSIZE,
        };
        let mut now = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: a live local.
        check(unsafe { libc::getrlimit(which, &raw mut now) })?;
        Ok((which, value.min(now.rlim_max)))
    }
}

/// Sets both limits of a resource, but never above the hard limit that this process has.
///
/// # Errors
/// The kernel's.
pub fn limit(resource: Resource, value: u64) -> io::Result<()> {
    let (which, value) = resource.fitted(value)?;
    let wanted = libc::rlimit {
        rlim_cur: value,
        rlim_max: value,
    };
    // SAFETY: as above.
    check(unsafe { libc::setrlimit(which, &raw const wanted) }).map(drop)
}

/// Raises the soft limit of open files to the hard one, and returns it.
///
/// # Errors
/// The kernel's.
pub fn raise_open_files() -> io::Result<u64> {
    let mut now = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a live local.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut now) })?;
    now.rlim_cur = now.rlim_max;
    // SAFETY: as above.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const now) })?;
    Ok(now.rlim_max)
}

/// Sets the file mode creation mask.
pub fn umask(mask: u32) {
    // SAFETY: no memory is passed.
    unsafe { libc::umask(mask) };
}

/// Effective user id.
pub fn uid() -> u32 {
    // SAFETY: no memory is passed.
    unsafe { libc::geteuid() }
}

/// Effective group id.
pub fn gid() -> u32 {
    // SAFETY: no memory is passed.
    unsafe { libc::getegid() }
}
