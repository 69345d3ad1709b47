//! Opening and deleting files strictly below a directory that is held open.
//!
//! Every name comes from an archive, a sandbox or a caller of the API, so nothing here resolves a
//! path from the process root: the kernel does the confinement (`openat2`), not string checks.
//! It never follows a magic link and never opens a file that was not looked at first.
//! Called by the image store, the files API and the snapshots of `prism-sandbox`.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::thread::CapabilitySets;

/// How often a lookup is repeated when a rename elsewhere made the kernel unsure of `..`.
const RACE_RETRIES_MAX: u32 = 256;

/// How often [`remove_tree`] starts again: once per moved-up level, or because files keep appearing.
const REMOVE_PASSES_MAX: u32 = 100_000;

/// How many directories deep [`remove_tree`] holds descriptors before it flattens the rest.
const REMOVE_DEPTH_MAX: u32 = 96;

/// Opens `path` below `dir` without following any symbolic link, not even in the middle.
///
/// # Errors
/// `EXDEV` when the path would leave `dir`, `ELOOP` when a component is a symbolic link, and
/// whatever `openat2` says otherwise.
pub fn open_beneath(
    dir: impl AsFd,
    path: &OsStr,
    flags: OFlags,
    mode: Mode,
) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    open(dir, path, flags, mode, resolve)
}

/// Like [`open_beneath`], and refuses to cross into another mount.
///
/// # Errors
/// As [`open_beneath`]; `EXDEV` also for a mount point.
pub fn open_beneath_same_mount(dir: impl AsFd, path: &OsStr, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    open(dir, path, flags, Mode::empty(), resolve)
}

/// Opens `path` as if `root` were `/`: absolute links and `..` stay inside.
///
/// # Errors
/// `ELOOP` for a magic link, `EAGAIN` when renames kept racing the lookup, and whatever `openat2`
/// says otherwise.
pub fn open_in_root(root: impl AsFd, path: &OsStr, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    open(root, path, flags, Mode::empty(), resolve)
}

fn open(
    dir: impl AsFd,
    path: &OsStr,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    for _ in 0..RACE_RETRIES_MAX {
        let attempt = openat2(
            dir.as_fd(),
            path.as_bytes(),
            flags | OFlags::CLOEXEC,
            mode,
            resolve,
        );
        match attempt {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other.map_err(Into::into),
        }
    }
    Err(Errno::AGAIN.into())
}

/// Opens for real what an `O_PATH` descriptor points at, through this process's own
/// `/proc/self/fd`.
///
/// The caller has looked at the type with `fstat` first, so no device or pipe is ever opened.
///
/// # Errors
/// When `/proc` is not mounted, or access is refused.
pub fn reopen(fd: impl AsFd, flags: OFlags) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    let fd = rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())?;
    Ok(File::from(fd))
}

/// Changes the mode of what an `O_PATH` descriptor points at (never of a symbolic link).
///
/// # Errors
/// When `/proc` is not mounted, or the caller does not own the file.
pub fn chmod_path_fd(fd: impl AsFd, mode: u32) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    rustix::fs::chmod(path, Mode::from_raw_mode(mode))?;
    Ok(())
}

/// While it lives, this thread creates files as another user and keeps its capabilities.
///
/// A file system mounted inside a user namespace refuses new files of users it has no number for,
/// such as the host's root; the sandbox's own user must be borrowed for the moment.
#[derive(Debug)]
pub struct FilesAs {
    uid: u32,
    gid: u32,
    before: CapabilitySets,
    /// The identity belongs to one thread, so the guard must stay on it.
    here: PhantomData<*const ()>,
}

impl FilesAs {
    /// Takes on the host ids `uid` and `gid` for the file system accesses of this thread.
    ///
    /// # Errors
    /// `EPERM` when this process may not, in which case nothing has changed.
    pub fn take(uid: u32, gid: u32) -> io::Result<Self> {
        let before = rustix::thread::capabilities(None)?;
        let guard = Self {
            gid: set_fs_gid(gid),
            uid: set_fs_uid(uid),
            before,
            here: PhantomData,
        };
        // The calls report no error; asking with an impossible id tells the current one.
        if set_fs_gid(u32::MAX) != gid || set_fs_uid(u32::MAX) != uid {
            return Err(Errno::PERM.into());
        }
        rustix::thread::set_capabilities(None, before)?;
        Ok(guard)
    }
}

impl Drop for FilesAs {
    fn drop(&mut self) {
        set_fs_uid(self.uid);
        set_fs_gid(self.gid);
        // Taking back what was effective before cannot be refused: it never left `permitted`.
        let _ = rustix::thread::set_capabilities(None, self.before);
    }
}

fn set_fs_uid(uid: u32) -> u32 {
    // SAFETY: passes no memory; changes only this thread's identity for file access.
    unsafe { libc::setfsuid(uid) }.cast_unsigned()
}

fn set_fs_gid(gid: u32) -> u32 {
    // SAFETY: passes no memory; changes only this thread's identity for file access.
    unsafe { libc::setfsgid(gid) }.cast_unsigned()
}

/// Deletes `name` in `parent`, with everything below it when it is a directory.
///
/// Stays within one mount and follows no link. Directories without permissions for their owner
/// are given them first. A tree of any depth is deleted with a bounded number of descriptors: what
/// lies too deep is moved up beside its ancestor and deleted from there.
///
/// # Errors
/// `ENOENT` when there is nothing by that name, `EXDEV` when a mount is in the way; part of the
/// tree may be gone then.
pub fn remove_tree(parent: impl AsFd, name: &OsStr) -> io::Result<()> {
    let parent = parent.as_fd();
    match rustix::fs::unlinkat(parent, name.as_bytes(), AtFlags::empty()) {
        Ok(()) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(other) => return Err(other.into()),
    }
    let top = open_directory(parent, name)?;
    let mut passes_left = REMOVE_PASSES_MAX;
    loop {
        let mut moved = 0;
        empty_directory(&top, &top, 0, &mut moved)?;
        match rustix::fs::unlinkat(parent, name.as_bytes(), AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY) if passes_left > 0 => passes_left -= 1,
            other => return other.map_err(Into::into),
        }
    }
}

fn open_directory(parent: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY;
    let handle = open_beneath_same_mount(parent.as_fd(), name, look)?;
    let stat = rustix::fs::fstat(&handle)?;
    if stat.st_mode & 0o700 != 0o700 {
        chmod_path_fd(&handle, 0o700)?;
    }
    open_beneath_same_mount(handle, OsStr::new("."), OFlags::RDONLY | OFlags::DIRECTORY)
}

fn empty_directory(
    top: &OwnedFd,
    directory: &OwnedFd,
    depth: u32,
    moved: &mut u64,
) -> io::Result<()> {
    let mut entries = Dir::read_from(directory)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        match rustix::fs::unlinkat(directory, name.as_bytes(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(other) => return Err(other.into()),
        }
        if depth >= REMOVE_DEPTH_MAX {
            move_up(directory, name, top, moved)?;
            continue;
        }
        let child = open_directory(directory, name)?;
        empty_directory(top, &child, depth + 1, moved)?;
        drop(child);
        match rustix::fs::unlinkat(directory, name.as_bytes(), AtFlags::REMOVEDIR) {
            // Still filled by someone, or by what was moved up: the next pass comes back to it.
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => {}
            Err(other) => return Err(other.into()),
        }
    }
    Ok(())
}

fn move_up(directory: &OwnedFd, name: &OsStr, top: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    loop {
        let aside = format!(".prism-remove-{moved}");
        *moved += 1;
        match rustix::fs::renameat(directory, name.as_bytes(), top, aside) {
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) if *moved < 100_000 => {}
            other => return other.map_err(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn scratch(name: &str) -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("prism-beneath-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn links_and_parents_do_not_leave() {
        let dir = scratch("leave");
        symlink("/etc", dir.join("out")).unwrap();
        let root = File::open(&dir).unwrap();
        let open =
            |path: &str| open_beneath(&root, OsStr::new(path), OFlags::RDONLY, Mode::empty());
        for path in ["..", "../x", "/etc/passwd", "out/passwd", "out"] {
            assert!(open(path).is_err(), "{path} left the root");
        }
        let inside = open_in_root(&root, OsStr::new("out/passwd"), OFlags::RDONLY);
        assert_eq!(inside.unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_removed() {
        let dir = scratch("deep");
        let root = File::open(&dir).unwrap();
        let mut here: OwnedFd = root.try_clone().unwrap().into();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&here, "d", Mode::from_raw_mode(0o755)).unwrap();
            here = open_beneath_same_mount(&here, OsStr::new("d"), OFlags::RDONLY).unwrap();
        }
        remove_tree(&root, OsStr::new("d")).unwrap();
        assert!(!dir.join("d").exists());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
