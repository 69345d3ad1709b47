//! Mounts, by path and by descriptor. Called in processes that have a mount namespace of their own.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use crate::{check, check_long, path_text};

/// `mount(2)`: `flags` are `MS_*`.
///
/// # Errors
/// The kernel's.
pub fn mount(
    source: &str,
    target: &Path,
    kind: &str,
    flags: libc::c_ulong,
    data: &str,
) -> io::Result<()> {
    let (source, kind, data) = (
        CString::new(source)?,
        CString::new(kind)?,
        CString::new(data)?,
    );
    let target = path_text(target)?;
    // SAFETY: four NUL-terminated texts that live across the call; every file system we name takes text as data.
    check(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            data.as_ptr().cast(),
        )
    })
    .map(drop)
}

/// Makes this directory the root and leaves the old root mounted over it, for [`unmount_here`].
///
/// # Errors
/// The kernel's.
pub fn pivot_here() -> io::Result<()> {
    // SAFETY: two NUL-terminated literals.
    check_long(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) })
        .map(drop)
}

/// Detaches what is mounted on this directory, with everything beneath.
///
/// # Errors
/// The kernel's.
pub fn unmount_here() -> io::Result<()> {
    // SAFETY: a NUL-terminated literal.
    check(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) }).map(drop)
}

const AT_RECURSIVE: libc::c_uint = 0x8000;

/// Detaches what is mounted at `path`, with everything beneath.
///
/// # Errors
/// The kernel's.
pub fn unmount(path: &Path) -> io::Result<()> {
    let path = path_text(path)?;
    // SAFETY: a NUL-terminated text.
    check(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) }).map(drop)
}

/// Makes this directory, which must be a mount of its own, cover the root of the mount namespace, and the root of this process.
///
/// # Errors
/// The kernel's.
pub fn cover_root_with_here() -> io::Result<()> {
    mount(".", Path::new("/"), "", libc::MS_MOVE, "")?;
    // SAFETY: NUL-terminated literals.
    check(unsafe { libc::chroot(c".".as_ptr()) })?;
    // SAFETY: as above.
    check(unsafe { libc::chdir(c"/".as_ptr()) }).map(drop)
}

/// A detached private copy of the mount at `path`, with what is mounted beneath it if `deep`.
///
/// # Errors
/// The kernel's.
pub fn clone_tree(path: &Path, deep: bool) -> io::Result<OwnedFd> {
    let path = path_text(path)?;
    let flags =
        libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | if deep { AT_RECURSIVE } else { 0 };
    // SAFETY: a NUL-terminated text.
    let fd = check_long(unsafe {
        libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags)
    })?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Mounts a detached tree at `target`.
///
/// # Errors
/// The kernel's.
pub fn attach(tree: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    let target = path_text(target)?;
    // SAFETY: NUL-terminated texts; MOVE_MOUNT_F_EMPTY_PATH (4) makes the descriptor itself the source.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            4,
        )
    })
    .map(drop)
}

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

const ATTR_RDONLY: u64 = 1;
const ATTR_NOSUID: u64 = 2;
const ATTR_NODEV: u64 = 4;
const ATTR_IDMAP: u64 = 0x0010_0000;

/// Restricts a detached tree and what is mounted beneath it: no set-user-id, no devices, optionally read-only, optionally seen
/// through a user namespace's ids.
///
/// # Errors
/// EINVAL where the file system cannot be mapped, ENOSYS before Linux 5.12.
pub fn restrict(
    tree: BorrowedFd<'_>,
    read_only: bool,
    ids: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let attr = MountAttr {
        set: ATTR_NOSUID
            | ATTR_NODEV
            | if read_only { ATTR_RDONLY } else { 0 }
            | if ids.is_some() { ATTR_IDMAP } else { 0 },
        clear: 0,
        propagation: 0,
        userns: ids.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    // SAFETY: an empty NUL-terminated text and a record of the size that is passed with it.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH.cast_unsigned() | AT_RECURSIVE,
            &raw const attr,
            std::mem::size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// Sets the host name of this uts namespace.
///
/// # Errors
/// The kernel's.
pub fn set_hostname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length of one live text.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// Brings the loopback interface of this network namespace up.
///
/// # Errors
/// The kernel's.
pub fn loopback_up() -> io::Result<()> {
    // SAFETY: no memory is passed.
    let fd =
        check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the kernel just gave us this descriptor.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: ifreq is plain data.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP).expect("a low bit");
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which this is.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })
        .map(drop)
}
