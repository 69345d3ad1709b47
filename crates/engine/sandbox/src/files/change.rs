//! Writing, creating and deleting files of a sandbox.
//!
//! A file is written beside its place and renamed into it; a reader sees the old or the new one.
//! Never writes to a pipe, device or link. Called through [`super`].

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::atomic::{AtomicU64, Ordering};

use prism_faults::point;
use prism_sys::beneath::{FilesAs, open_beneath, remove_tree, reopen};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use super::error::FileError;
use super::root::{FileKind, RootDir, check, expect, failed, shown};

/// How many links in the last place are followed, as the kernel does.
const LINKS_MAX: u32 = 40;
/// How many directories are created on the way to a file.
const PARENTS_MAX: usize = 256;
/// Attempts at a free temporary name.
const NAMES_MAX: u32 = 64;
/// No setuid, setgid or sticky bit comes in from outside.
const MODE_KEPT: u32 = 0o777;

/// How a file is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteOptions {
    /// Permission bits (0 to 0o777); `None` keeps those of a file that is replaced, else 0o644.
    pub mode: Option<u32>,
    /// Host uid and gid; `None` keeps those of a file that is replaced, else the directory's.
    /// Ignored when this process is not root.
    pub owner: Option<(u32, u32)>,
    /// The most bytes accepted.
    pub bytes_max: u64,
}

/// A parent directory that is open, and a name in it.
struct Place {
    parent: OwnedFd,
    name: OsString,
}

impl RootDir {
    /// Writes a file, its missing parents first; returns the bytes written. A link in the last
    /// place is followed inside the root.
    ///
    /// # Errors
    /// [`FileError`]; the file is unchanged then, created parents stay.
    pub fn write(
        &self,
        path: &OsStr,
        content: &mut dyn Read,
        options: &WriteOptions,
    ) -> Result<u64, FileError> {
        check(path)?;
        if path.as_bytes().ends_with(b"/") {
            let why = "it names a directory (it ends with '/')";
            return Err(FileError::Path {
                path: shown(path),
                why,
            });
        }
        if let Some(parent) = parent_of(path) {
            self.make_directories(parent, options.owner)?;
        }
        let (place, existing) = self.place(path)?;
        if let Some(stat) = &existing {
            expect(path, stat, FileKind::File)?;
        }
        let directory = rustix::fs::fstat(&place.parent)
            .map_err(|error| failed(path, "cannot look at its directory", error))?;
        let like = existing.as_ref().unwrap_or(&directory);
        let owner = options.owner.unwrap_or_else(|| owner_of(like));
        point!("file.before_write").map_err(|error| failed(path, "cannot create it", error))?;
        let (temporary, file) = temporary(path, &place.parent, owner)?;
        let mode = options
            .mode
            .or(existing.map(|stat| stat.st_mode))
            .unwrap_or(0o644);
        let written = fill(
            path,
            file,
            content,
            owner,
            mode & MODE_KEPT,
            options.bytes_max,
        )
        .and_then(|written| {
            let (parent, name) = (&place.parent, place.name.as_os_str());
            let put = || {
                point!("file.before_rename")?;
                rustix::fs::renameat(parent, temporary.as_str(), parent, name)?;
                point!("file.after_rename")
            };
            create_for(owner, put)
                .map_err(|error| failed(path, "cannot put it in place", error))?;
            Ok(written)
        });
        if written.is_err() {
            // The error that matters is the first one.
            let _ = rustix::fs::unlinkat(&place.parent, temporary.as_str(), AtFlags::empty());
        }
        written
    }

    /// Creates a directory and its missing parents (0o755); an existing one is left as it is.
    ///
    /// # Errors
    /// [`FileError`], also when a file is in the way.
    pub fn mkdir(&self, path: &OsStr, owner: Option<(u32, u32)>) -> Result<(), FileError> {
        check(path)?;
        self.make_directories(path, owner)
    }

    /// Deletes a file or link, or with `recursive` a directory and everything in it.
    ///
    /// # Errors
    /// [`FileError`]; for the root, for a directory that is not empty without `recursive`, and
    /// for mount points (a recursive removal may be half done then).
    pub fn remove(&self, path: &OsStr, recursive: bool) -> Result<(), FileError> {
        check(path)?;
        let trimmed = trim(path.as_bytes());
        let place = self.open_place(path, OsStr::from_bytes(trimmed))?;
        let stat = rustix::fs::statat(
            &place.parent,
            place.name.as_os_str(),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(|error| failed(path, "cannot look at it", error))?;
        let flags = match FileKind::of(&stat) {
            FileKind::Directory if recursive => {
                return remove_tree(&place.parent, &place.name)
                    .map_err(|error| failed(path, "cannot remove all of it", error));
            }
            FileKind::Directory => AtFlags::REMOVEDIR,
            _ => AtFlags::empty(),
        };
        rustix::fs::unlinkat(&place.parent, place.name.as_os_str(), flags)
            .map_err(|error| failed(path, "cannot remove it", error))
    }

    /// Where a file is to be written: links in the last place are followed by hand, because the
    /// rename needs the directory, and each step is resolved inside the root again.
    fn place(&self, path: &OsStr) -> Result<(Place, Option<Stat>), FileError> {
        let mut current = path.to_owned();
        for _ in 0..LINKS_MAX {
            let place = self.open_place(path, &current)?;
            let stat = rustix::fs::statat(
                &place.parent,
                place.name.as_os_str(),
                AtFlags::SYMLINK_NOFOLLOW,
            );
            let stat = match stat {
                Err(Errno::NOENT) => return Ok((place, None)),
                other => other.map_err(|error| failed(path, "cannot look at it", error))?,
            };
            if FileKind::of(&stat) != FileKind::Symlink {
                return Ok((place, Some(stat)));
            }
            let target = rustix::fs::readlinkat(&place.parent, place.name.as_os_str(), Vec::new())
                .map_err(|error| failed(path, "cannot read the link", error))?;
            current = follow(&current, target.as_bytes());
            check(&current)?;
        }
        Err(failed(path, "cannot follow it", Errno::LOOP))
    }

    fn open_place(&self, shown_path: &OsStr, path: &OsStr) -> Result<Place, FileError> {
        let bytes = path.as_bytes();
        let cut = bytes
            .iter()
            .rposition(|byte| *byte == b'/')
            .map_or(0, |at| at + 1);
        let (parent, name) = bytes.split_at(cut);
        if matches!(name, b"" | b"." | b"..") {
            let why = "it does not end in the name of a file";
            return Err(FileError::Path {
                path: shown(shown_path),
                why,
            });
        }
        let parent = OsStr::from_bytes(if parent.is_empty() { b"/" } else { parent });
        let (parent, _) = self.look(parent, OFlags::DIRECTORY)?;
        Ok(Place {
            parent,
            name: OsStr::from_bytes(name).to_owned(),
        })
    }

    /// Creates `path` one component at a time. What exists is followed like any path; what does
    /// not is created in a directory that is held open.
    fn make_directories(&self, path: &OsStr, owner: Option<(u32, u32)>) -> Result<(), FileError> {
        let bytes = path.as_bytes();
        let parts: Vec<&[u8]> = bytes
            .split(|byte| *byte == b'/')
            .filter(|part| !matches!(*part, b"" | b"."))
            .collect();
        if parts.len() > PARENTS_MAX {
            let why = "it is more than 256 directories deep";
            return Err(FileError::Path {
                path: shown(path),
                why,
            });
        }
        match self.look(path, OFlags::DIRECTORY) {
            Ok(_) => return Ok(()),
            Err(FileError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let mut prefix = Vec::with_capacity(bytes.len() + 1);
        for part in parts {
            let parent = OsString::from_vec(if prefix.is_empty() {
                b"/".to_vec()
            } else {
                prefix.clone()
            });
            prefix.push(b'/');
            prefix.extend_from_slice(part);
            let here = OsStr::from_bytes(&prefix);
            match self.look(here, OFlags::DIRECTORY) {
                Ok(_) => continue,
                Err(FileError::NotFound { .. }) if part != b".." => {}
                Err(error) => return Err(error),
            }
            let (parent, stat) = self.look(&parent, OFlags::DIRECTORY)?;
            make_directory(
                path,
                &parent,
                OsStr::from_bytes(part),
                owner.unwrap_or_else(|| owner_of(&stat)),
            )?;
        }
        Ok(())
    }
}

fn make_directory(
    path: &OsStr,
    parent: &OwnedFd,
    name: &OsStr,
    owner: (u32, u32),
) -> Result<(), FileError> {
    let make = || {
        Ok(rustix::fs::mkdirat(
            parent,
            name,
            Mode::from_raw_mode(0o755),
        )?)
    };
    match create_for(owner, make) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(failed(path, "cannot create a directory", error)),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let made = open_beneath(parent, name, flags, Mode::empty())
        .map_err(|error| failed(path, "cannot open the new directory", error))?;
    let made = reopen(&made, OFlags::RDONLY | OFlags::DIRECTORY)
        .map_err(|error| failed(path, "cannot open the new directory", error))?;
    own(path, &made, owner)?;
    rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))
        .map_err(|error| failed(path, "cannot set its mode", error))
}

/// Creates or renames something; as its future owner where the file system knows no root of the host.
fn create_for<T>(owner: (u32, u32), make: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match make() {
        Err(error) if error.raw_os_error() == Some(Errno::OVERFLOW.raw_os_error()) => {
            let _as_owner = FilesAs::take(owner.0, owner.1)?;
            make()
        }
        other => other,
    }
}

fn temporary(
    path: &OsStr,
    parent: &OwnedFd,
    owner: (u32, u32),
) -> Result<(String, File), FileError> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW;
    for _ in 0..NAMES_MAX {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!(".prism-write-{}-{number}", std::process::id());
        let mode = Mode::from_raw_mode(0o600);
        match create_for(owner, || open_beneath(parent, name.as_ref(), flags, mode)) {
            Ok(file) => return Ok((name, File::from(file))),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(path, "cannot create it", error)),
        }
    }
    Err(failed(
        path,
        "cannot find a free temporary name",
        Errno::EXIST,
    ))
}

fn fill(
    path: &OsStr,
    mut file: File,
    content: &mut dyn Read,
    owner: (u32, u32),
    mode: u32,
    bytes_max: u64,
) -> Result<u64, FileError> {
    let mut buffer = vec![0; 64 << 10];
    let mut written: u64 = 0;
    loop {
        let read = match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(FileError::Io {
                    path: shown(path),
                    action: "cannot receive it",
                    error,
                });
            }
        };
        written += read as u64;
        if written > bytes_max {
            return Err(FileError::TooLarge {
                path: shown(path),
                max: bytes_max,
            });
        }
        file.write_all(&buffer[..read])
            .map_err(|error| failed(path, "cannot write it", error))?;
    }
    own(path, &file, owner)?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))
        .map_err(|error| failed(path, "cannot set its mode", error))?;
    Ok(written)
}

fn own(path: &OsStr, file: &File, (uid, gid): (u32, u32)) -> Result<(), FileError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    if uid == u32::MAX || gid == u32::MAX {
        let why = "the owner's id is not valid";
        return Err(FileError::Path {
            path: shown(path),
            why,
        });
    }
    rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
        .map_err(|error| failed(path, "cannot set its owner", error))
}

fn owner_of(stat: &Stat) -> (u32, u32) {
    (stat.st_uid, stat.st_gid)
}

fn parent_of(path: &OsStr) -> Option<&OsStr> {
    let at = path.as_bytes().iter().rposition(|byte| *byte == b'/')?;
    Some(OsStr::from_bytes(&path.as_bytes()[..at])).filter(|parent| !parent.is_empty())
}

/// Where a link at `path` leads, from the root.
fn follow(path: &OsStr, target: &[u8]) -> OsString {
    if target.starts_with(b"/") {
        return OsStr::from_bytes(target).to_owned();
    }
    let parent = parent_of(path).map(OsStr::as_bytes).unwrap_or_default();
    OsString::from_vec([parent, b"/", target].concat())
}

fn trim(mut path: &[u8]) -> &[u8] {
    while let Some(rest) = path.strip_suffix(b"/") {
        path = rest;
    }
    path
}
