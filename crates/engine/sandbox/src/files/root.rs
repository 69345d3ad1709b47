//! The root of a sandbox, and looking at what is in it.
//!
//! Follows links only inside the root; opens nothing before it knows its type.
//! Called through [`super`].

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use prism_sys::beneath::{open_in_root, reopen};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};

use super::error::FileError;

const PATH_MAX: usize = 4096;
/// The most entries one listing returns, whatever the caller asks for.
const LIST_MAX: usize = 100_000;

/// File systems that hold files rather than the kernel's controls.
const STORAGE: [u64; 14] = [
    0x794c_7630, // overlay
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683e, // btrfs
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0x2fc1_2fc1, // zfs
    0xf2f5_2010, // f2fs
    0xca45_1a4e, // bcachefs
    0x6969,      // nfs
    0xe0f5_e1e2, // erofs
    0x7371_7368, // squashfs
    0x0102_1997, // 9p
    0x4d44,      // vfat
];

/// What a directory entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A pipe, socket or device, which these functions never open.
    Special,
}

impl FileKind {
    pub(super) fn of(stat: &Stat) -> Self {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            _ => Self::Special,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Symlink => "symbolic link",
            Self::Special => "pipe, socket or device",
        }
    }
}

/// One entry of a directory, or the answer of [`RootDir::stat`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name in its directory; `/` for the root.
    pub name: OsString,
    /// What it is.
    pub kind: FileKind,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Last modification, milliseconds since 1970.
    pub mtime_ms: i64,
    /// Where a symbolic link points, as written.
    pub target: Option<OsString>,
}

/// Part or all of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Entries, sorted by name.
    pub entries: Vec<Entry>,
    /// There are more than the limit let through.
    pub truncated: bool,
}

/// A file opened for reading; reads never block on anything but the disk.
#[derive(Debug)]
pub struct FileReader {
    file: File,
    /// Size when it was opened; it may change while being read.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl io::Seek for FileReader {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// The root directory of a sandbox.
#[derive(Debug)]
pub struct RootDir {
    pub(super) root: OwnedFd,
}

impl RootDir {
    /// Opens a root, such as `/proc/<pid>/root` of a process inside. The path is trusted.
    ///
    /// # Errors
    /// When it is not there or not a directory.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(root) => Ok(Self { root }),
            Err(error) => Err(failed(path.as_os_str(), "cannot open the root", error)),
        }
    }

    /// Reads a whole file of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`FileError`]; a larger file is refused, not cut.
    pub fn read(&self, path: &OsStr, bytes_max: u64) -> Result<Vec<u8>, FileError> {
        let file = self.open_file(path)?;
        let too_large = || FileError::TooLarge {
            path: shown(path),
            max: bytes_max,
        };
        if file.size > bytes_max {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        file.take(bytes_max.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| failed(path, "cannot read", error))?;
        if bytes.len() as u64 > bytes_max {
            return Err(too_large());
        }
        Ok(bytes)
    }

    /// Opens a file for streaming.
    ///
    /// # Errors
    /// [`FileError`], also for everything that is not a regular file.
    pub fn open_file(&self, path: &OsStr) -> Result<FileReader, FileError> {
        let (handle, stat) = self.look(path, OFlags::empty())?;
        expect(path, &stat, FileKind::File)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = reopen(&handle, flags).map_err(|error| failed(path, "cannot open", error))?;
        Ok(FileReader {
            file,
            size: size(&stat),
            mode: stat.st_mode & 0o7777,
        })
    }

    /// Describes what is at `path`, without following a link in the last place.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn stat(&self, path: &OsStr) -> Result<Entry, FileError> {
        let (handle, stat) = self.look(path, OFlags::NOFOLLOW)?;
        let name = Path::new(path).file_name().unwrap_or(OsStr::new("/"));
        entry(&handle, OsStr::new(""), name, &stat)
            .map_err(|error| failed(path, "cannot look at it", error))
    }

    /// Lists a directory: the first `entries_max` names met, sorted.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn list(&self, path: &OsStr, entries_max: usize) -> Result<Listing, FileError> {
        let (handle, stat) = self.look(path, OFlags::empty())?;
        expect(path, &stat, FileKind::Directory)?;
        let refuse = |error: io::Error| failed(path, "cannot list", error);
        let opened = reopen(&handle, OFlags::RDONLY | OFlags::DIRECTORY).map_err(refuse)?;
        let entries_max = entries_max.min(LIST_MAX);
        let mut listing = Listing {
            entries: Vec::new(),
            truncated: false,
        };
        let mut directory = Dir::new(opened).map_err(|error| refuse(error.into()))?;
        while let Some(found) = directory.read() {
            let found = found.map_err(|error| refuse(error.into()))?;
            let name = OsStr::from_bytes(found.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            if listing.entries.len() == entries_max {
                listing.truncated = true;
                break;
            }
            match rustix::fs::statat(&handle, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    let found = entry(&handle, name, name, &stat).map_err(refuse)?;
                    listing.entries.push(found);
                }
                // Deleted since: it is simply not there any more.
                Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(refuse(error.into())),
            }
        }
        listing
            .entries
            .sort_by(|one, other| one.name.cmp(&other.name));
        Ok(listing)
    }

    /// Opens `path` only to look at it, and makes sure that it lies on storage.
    pub(super) fn look(&self, path: &OsStr, flags: OFlags) -> Result<(OwnedFd, Stat), FileError> {
        check(path)?;
        let handle = open_in_root(&self.root, path, OFlags::PATH | flags)
            .map_err(|error| failed(path, "cannot open", error))?;
        let stat =
            rustix::fs::fstat(&handle).map_err(|error| failed(path, "cannot look at it", error))?;
        storage(path, &handle)?;
        Ok((handle, stat))
    }
}

/// Refuses `/proc` and everything else that is not storage.
fn storage(path: &OsStr, handle: &OwnedFd) -> Result<(), FileError> {
    let statfs = rustix::fs::fstatfs(handle)
        .map_err(|error| failed(path, "cannot look at its file system", error))?;
    let magic = u64::try_from(statfs.f_type).unwrap_or_default() & 0xffff_ffff;
    if STORAGE.contains(&magic) {
        return Ok(());
    }
    Err(FileError::NotStorage {
        path: shown(path),
        magic,
    })
}

/// The rules for a path that hold before the kernel is asked.
pub(super) fn check(path: &OsStr) -> Result<(), FileError> {
    let refuse = |why| {
        Err(FileError::Path {
            path: shown(path),
            why,
        })
    };
    match path.as_bytes() {
        [] => refuse("it is empty"),
        bytes if bytes.contains(&0) => refuse("it contains a NUL byte"),
        bytes if bytes.len() > PATH_MAX => refuse("it is longer than 4096 bytes"),
        bytes
            if bytes
                .split(|byte| *byte == b'/')
                .any(|part| part.len() > 255) =>
        {
            refuse("a component is longer than 255 bytes")
        }
        _ => Ok(()),
    }
}

pub(super) fn expect(path: &OsStr, stat: &Stat, expected: FileKind) -> Result<(), FileError> {
    let kind = FileKind::of(stat);
    if kind == expected {
        return Ok(());
    }
    Err(FileError::Kind {
        path: shown(path),
        kind: kind.word(),
        expected: expected.word(),
    })
}

pub(super) fn failed(path: &OsStr, action: &'static str, error: impl Into<io::Error>) -> FileError {
    let error = error.into();
    match error.kind() {
        io::ErrorKind::NotFound => FileError::NotFound { path: shown(path) },
        _ => FileError::Io {
            path: shown(path),
            action,
            error,
        },
    }
}

pub(super) fn shown(path: &OsStr) -> String {
    crate::image::printable(path.as_bytes())
}

fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or_default()
}

fn entry(at: impl AsFd, path: &OsStr, name: &OsStr, stat: &Stat) -> io::Result<Entry> {
    let kind = FileKind::of(stat);
    let target = match kind {
        FileKind::Symlink => Some(OsString::from_vec(
            rustix::fs::readlinkat(at, path, Vec::new())?.into_bytes(),
        )),
        _ => None,
    };
    Ok(Entry {
        name: name.to_owned(),
        kind,
        size: size(stat),
        mode: stat.st_mode & 0o7777,
        mtime_ms: stat
            .st_mtime
            .saturating_mul(1000)
            .saturating_add(i64::try_from(stat.st_mtime_nsec).unwrap_or_default() / 1_000_000),
        target,
    })
}
