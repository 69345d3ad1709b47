//! Taking a snapshot: walks the upper layer and writes the archive.
//!
//! Holds a descriptor for each directory it is in and follows nothing. Files may vanish, grow or
//! shrink meanwhile; the archive stays well-formed, and the result says how many did.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use prism_faults::point;
use prism_sys::beneath::{chmod_path_fd, open_beneath_same_mount, reopen};
use rustix::fs::{Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::error::SnapshotError;
use super::examine::{Records, attributes, extents, is_opaque, join, literal};
use super::format::{self, EntryType, TarEntry};
use super::{ID_OVERFLOW, ID_RANGE};
use crate::image::sparse::{Extent, map};
use crate::image::{
    Budget, DEPTH_MAX, LITERAL_KEY, Limits, NAME_MAX, PATH_MAX, Refusal, hex, printable,
};

/// zstd level: the default; higher costs more time than the disk saves.
const LEVEL: i32 = 3;
const MODE_KEPT: u32 = 0o1777;

/// A snapshot that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// `sha256:<hex>` of the archive.
    pub digest: String,
    /// Size of the archive.
    pub bytes: u64,
    /// Entries in it: files, directories, links and whiteouts.
    pub files: u64,
    /// Files that changed while they were read; their content may mix old and new.
    pub changed: u64,
    /// Files that were gone before they could be read.
    pub vanished: u64,
    /// Sockets, and attributes that an archive cannot hold.
    pub skipped: u64,
}

/// Writes the upper layer in `upper` to the new archive `out`, atomically.
///
/// `uid_base` is the first host id of the sandbox's range (as root), or `None` when everything
/// belongs to this process's user.
///
/// # Errors
/// [`SnapshotError`]; `out` is not there then, or still the old one.
pub fn snapshot(
    upper: &Path,
    out: &Path,
    uid_base: Option<u32>,
    limits: Limits,
) -> Result<Snapshot, SnapshotError> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let directory = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let temporary = directory.join(format!(".prism-snapshot-{}-{number}", std::process::id()));
    let refuse = |error: io::Error| SnapshotError::file("cannot write", out, error);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    let file = point!("snapshot.before_write").and_then(|()| options.open(&temporary));
    let taken = file.map_err(refuse).and_then(|file| {
        let taken = capture(upper, out, file, uid_base, limits)?;
        point!("snapshot.before_rename")
            .and_then(|()| fs::rename(&temporary, out))
            .map_err(refuse)?;
        File::open(directory)
            .and_then(|opened| opened.sync_all())
            .and_then(|()| point!("snapshot.after"))
            .map_err(refuse)?;
        Ok(taken)
    });
    if taken.is_err() {
        // The error that matters is the first one.
        let _ = fs::remove_file(&temporary);
    }
    taken
}

fn capture(
    upper: &Path,
    out: &Path,
    file: File,
    uid_base: Option<u32>,
    limits: Limits,
) -> Result<Snapshot, SnapshotError> {
    let refuse = |error: io::Error| SnapshotError::file("cannot write", out, error);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(upper, flags, Mode::empty())
        .map_err(|error| SnapshotError::file("cannot open", upper, error))?;
    let metered = Digesting {
        inner: file,
        hasher: Sha256::new(),
        bytes: 0,
    };
    let mut to = zstd::stream::write::Encoder::new(metered, LEVEL).map_err(refuse)?;
    to.include_checksum(true).map_err(refuse)?;
    let mut capture = Capture {
        upper,
        out,
        to,
        uid_base,
        budget: Budget::new(limits),
        linked: HashMap::new(),
        files: 0,
        changed: 0,
        vanished: 0,
        skipped: 0,
    };
    let stat = rustix::fs::fstat(&root)
        .map_err(|error| SnapshotError::file("cannot look at", upper, error))?;
    capture.descend(&root, &stat, &mut Vec::new(), 0)?;
    format::end(&mut capture.to).map_err(refuse)?;
    let metered = capture.to.finish().map_err(refuse)?;
    point!("snapshot.before_sync")
        .and_then(|()| metered.inner.sync_all())
        .map_err(refuse)?;
    Ok(Snapshot {
        digest: format!("sha256:{}", hex(&metered.hasher.finalize())),
        bytes: metered.bytes,
        files: capture.files,
        changed: capture.changed,
        vanished: capture.vanished,
        skipped: capture.skipped,
    })
}

struct Digesting {
    inner: File,
    hasher: Sha256,
    bytes: u64,
}

impl Write for Digesting {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

struct Capture<'a> {
    upper: &'a Path,
    out: &'a Path,
    to: zstd::stream::write::Encoder<'static, Digesting>,
    uid_base: Option<u32>,
    budget: Budget,
    /// First path of every file with several names.
    linked: HashMap<(u64, u64), Vec<u8>>,
    files: u64,
    changed: u64,
    vanished: u64,
    skipped: u64,
}

impl Capture<'_> {
    /// Does something with a file or directory that is readable to its own user for that long
    /// (only a process without root's powers ever needs to change the mode for it).
    fn opened_up<T>(
        &mut self,
        handle: &OwnedFd,
        stat: &Stat,
        path: &mut Vec<u8>,
        then: impl FnOnce(&mut Self, &mut Vec<u8>) -> Result<T, SnapshotError>,
    ) -> Result<T, SnapshotError> {
        let mode = stat.st_mode & 0o7777;
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let needed = if directory { 0o500 } else { 0o400 };
        if mode & needed == needed || rustix::process::geteuid().is_root() {
            return then(self, path);
        }
        chmod_path_fd(handle, mode | needed)
            .map_err(|error| self.failed(path, "cannot make it readable", error))?;
        let done = then(self, path);
        chmod_path_fd(handle, mode)
            .map_err(|error| self.failed(path, "cannot give it its mode back", error))?;
        done
    }

    fn descend(
        &mut self,
        handle: &OwnedFd,
        stat: &Stat,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), SnapshotError> {
        self.opened_up(handle, stat, path, |this, path| {
            let opened = this.open(handle, path, OFlags::DIRECTORY)?;
            this.directory(&opened.into(), stat, path, depth)
        })
    }

    fn directory(
        &mut self,
        directory: &OwnedFd,
        stat: &Stat,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), SnapshotError> {
        let records = self.records(path, directory, &["trusted.overlay.redirect"])?;
        let named = if path.is_empty() {
            b"./".to_vec()
        } else {
            [path, b"/".as_slice()].concat()
        };
        self.write(EntryType::Directory, &named, b"", stat, 0, records)?;
        if is_opaque(directory) {
            let marker = join(path, b".wh..wh..opq");
            let records = literal(path, b"mark");
            self.mark(&marker, records)?;
        }
        for name in self.names(directory, path)? {
            let length = path.len();
            *path = join(path, &name);
            if path.len() > PATH_MAX {
                return Err(self.refused(path, Refusal::PathTooLong));
            }
            if depth >= DEPTH_MAX {
                return Err(self.refused(path, Refusal::TooDeep { max: DEPTH_MAX }));
            }
            self.entry(directory, &name, path, depth)?;
            path.truncate(length);
        }
        Ok(())
    }

    fn names(&self, directory: &OwnedFd, path: &[u8]) -> Result<Vec<Vec<u8>>, SnapshotError> {
        let refuse = |error: Errno| self.failed(path, "cannot list it", error);
        let mut names = Vec::new();
        let mut entries = Dir::read_from(directory).map_err(refuse)?;
        while let Some(entry) = entries.read() {
            let name = entry.map_err(refuse)?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
            if names.len() as u64 > self.budget.limits.entries_max {
                let max = self.budget.limits.entries_max;
                return Err(self.refused(path, Refusal::TooManyEntries { max }));
            }
        }
        // In order, so that the same tree gives the same archive.
        names.sort_unstable();
        Ok(names)
    }

    fn entry(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), SnapshotError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let handle = match open_beneath_same_mount(parent, OsStr::from_bytes(name), flags) {
            Ok(handle) => handle,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.vanished += 1;
                return Ok(());
            }
            Err(error) => return Err(self.failed(path, "cannot open it", error)),
        };
        let stat = rustix::fs::fstat(&handle)
            .map_err(|error| self.failed(path, "cannot look at it", error))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            return self.descend(&handle, &stat, path, depth + 1);
        }
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            return self.whiteout(name, path);
        }
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.linked.get(&key).cloned() {
                let records = literal(path, b"file");
                return self.write(EntryType::HardLink, path, &first, &stat, 0, records);
            }
            self.linked.insert(key, path.clone());
        }
        match kind {
            FileType::RegularFile => self.opened_up(&handle, &stat, path, |this, path| {
                this.regular(&handle, &stat, path)
            }),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&handle, "", Vec::new())
                    .map_err(|error| self.failed(path, "cannot read the link", error))?;
                let records = literal(path, b"file");
                self.write(
                    EntryType::Symlink,
                    path,
                    target.as_bytes(),
                    &stat,
                    0,
                    records,
                )
            }
            FileType::Fifo => {
                self.write(EntryType::Fifo, path, b"", &stat, 0, literal(path, b"file"))
            }
            _ => {
                self.skipped += 1;
                Ok(())
            }
        }
    }

    fn whiteout(&mut self, name: &[u8], path: &[u8]) -> Result<(), SnapshotError> {
        // A name too long for the prefix cannot be marked the OCI way either.
        if name.starts_with(b".wh.") || name.len() > NAME_MAX - 4 {
            let records = vec![(LITERAL_KEY.to_owned(), b"whiteout".to_vec())];
            return self.mark(path, records);
        }
        let parent = &path[..path.len() - name.len()];
        let marker = [parent, b".wh.", name].concat();
        self.mark(&marker, literal(parent, b"mark"))
    }

    /// An entry that says something about other entries; it has no owner or time of its own.
    fn mark(&mut self, path: &[u8], records: Records) -> Result<(), SnapshotError> {
        self.put(TarEntry {
            entry_type: EntryType::File,
            path,
            link: b"",
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            size: 0,
            records,
        })
    }

    fn regular(&mut self, handle: &OwnedFd, stat: &Stat, path: &[u8]) -> Result<(), SnapshotError> {
        let file = self.open(handle, path, OFlags::NONBLOCK)?;
        let before = rustix::fs::fstat(&file)
            .map_err(|error| self.failed(path, "cannot look at it", error))?;
        let size = u64::try_from(before.st_size).unwrap_or_default();
        let mut records = self.records(path, &file, &["trusted.overlay.metacopy"])?;
        let extents = extents(&file, size)
            .map_err(|error| self.failed(path, "cannot find its holes", error))?;
        let stored: u64 = extents.iter().map(|extent| extent.size).sum();
        if stored == size {
            self.write(EntryType::File, path, b"", stat, size, records)?;
        } else {
            let map = map(&extents);
            records.push(("GNU.sparse.major".to_owned(), b"1".to_vec()));
            records.push(("GNU.sparse.minor".to_owned(), b"0".to_vec()));
            records.push(("GNU.sparse.name".to_owned(), path.to_vec()));
            records.push((
                "GNU.sparse.realsize".to_owned(),
                size.to_string().into_bytes(),
            ));
            let total = stored + map.len() as u64;
            self.write(EntryType::File, path, b"", stat, total, records)?;
            self.to
                .write_all(&map)
                .map_err(|error| self.unwritten(error))?;
        }
        let mut whole = true;
        for extent in &extents {
            whole &= self.content(&file, *extent, path)?;
        }
        format::padding(&mut self.to, stored).map_err(|error| self.unwritten(error))?;
        let after = rustix::fs::fstat(&file)
            .map_err(|error| self.failed(path, "cannot look at it", error))?;
        let version = |stat: &Stat| {
            (
                stat.st_size,
                stat.st_mtime,
                stat.st_mtime_nsec,
                stat.st_ctime,
                stat.st_ctime_nsec,
            )
        };
        if !whole || version(&after) != version(&before) {
            self.changed += 1;
        }
        Ok(())
    }

    /// Copies one extent; zeros stand in for what was cut off meanwhile.
    fn content(&mut self, file: &File, extent: Extent, path: &[u8]) -> Result<bool, SnapshotError> {
        let mut buffer = vec![0; 128 << 10];
        let (mut at, end) = (extent.offset, extent.offset + extent.size);
        let mut whole = true;
        while at < end {
            let wanted =
                usize::try_from(end - at).map_or(buffer.len(), |left| left.min(buffer.len()));
            let read = if whole {
                match file.read_at(&mut buffer[..wanted], at) {
                    Ok(read) => read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(self.failed(path, "cannot read it", error)),
                }
            } else {
                wanted
            };
            if read == 0 {
                whole = false;
                buffer.fill(0);
                continue;
            }
            self.to
                .write_all(&buffer[..read])
                .map_err(|error| self.unwritten(error))?;
            at += read as u64;
        }
        Ok(whole)
    }

    fn open(&self, handle: &OwnedFd, path: &[u8], flags: OFlags) -> Result<File, SnapshotError> {
        reopen(handle, OFlags::RDONLY | flags)
            .map_err(|error| self.failed(path, "cannot open it", error))
    }

    /// PAX records for attributes, after making sure that none of `forbidden` is set.
    fn records(
        &mut self,
        path: &[u8],
        file: impl AsFd,
        forbidden: &[&'static str],
    ) -> Result<Vec<(String, Vec<u8>)>, SnapshotError> {
        for attribute in forbidden {
            if rustix::fs::fgetxattr(file.as_fd(), *attribute, &mut [0_u8; 0]).is_ok() {
                let (upper, entry) = (self.upper.to_owned(), printable(path));
                return Err(SnapshotError::Refers {
                    upper,
                    entry,
                    attribute,
                });
            }
        }
        let mut records = literal(path, b"file");
        let (attributes, unfit) = attributes(file)
            .map_err(|error| self.failed(path, "cannot read its attributes", error))?;
        self.skipped += unfit;
        records.extend(attributes);
        Ok(records)
    }

    fn write(
        &mut self,
        entry_type: EntryType,
        path: &[u8],
        link: &[u8],
        stat: &Stat,
        size: u64,
        records: Vec<(String, Vec<u8>)>,
    ) -> Result<(), SnapshotError> {
        let mtime = (
            stat.st_mtime,
            u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
        );
        let (uid, gid) = (self.stored(stat.st_uid), self.stored(stat.st_gid));
        let mode = stat.st_mode & MODE_KEPT;
        self.put(TarEntry {
            entry_type,
            path,
            link,
            mode,
            uid,
            gid,
            mtime,
            size,
            records,
        })
    }

    fn put(&mut self, entry: TarEntry<'_>) -> Result<(), SnapshotError> {
        self.budget
            .charge(entry.size)
            .map_err(|why| self.refused(entry.path, why))?;
        self.files += 1;
        format::header(&mut self.to, &entry).map_err(|error| self.unwritten(error))
    }

    /// The id as the sandbox sees it.
    fn stored(&self, id: u32) -> u32 {
        match self.uid_base {
            None => 0,
            Some(base) => match id.checked_sub(base) {
                Some(inside) if inside < ID_RANGE => inside,
                _ => ID_OVERFLOW,
            },
        }
    }

    fn failed(
        &self,
        path: &[u8],
        action: &'static str,
        error: impl Into<io::Error>,
    ) -> SnapshotError {
        let (upper, entry, error) = (self.upper.to_owned(), printable(path), error.into());
        SnapshotError::Entry {
            upper,
            entry,
            action,
            error,
        }
    }

    fn refused(&self, path: &[u8], why: Refusal) -> SnapshotError {
        SnapshotError::Archive {
            file: PathBuf::from(self.out),
            error: why.at(path),
        }
    }

    fn unwritten(&self, error: io::Error) -> SnapshotError {
        SnapshotError::file("cannot write", self.out, error)
    }
}
