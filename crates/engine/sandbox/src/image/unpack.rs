//! Unpacks one tar stream into a directory that nobody else uses yet.
//!
//! Every path is opened beneath the root by the kernel, without following any link; parents are
//! directories that this unpacker made. Directory permissions and times are set at the end, so a
//! read-only directory can be filled. On an error the caller deletes the whole tree.
//! Called by the image store (layers) and by the restoring of snapshots.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use prism_sys::beneath::open_beneath;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::error::{ArchiveError, Refusal};
use super::limits::Budget;
use super::metadata::{Owners, ids, mark_opaque, set_attributes, times};
use super::path::{Meaning, clean, meaning, split};
use super::pax::Literal;
use super::stream::Skip;
use super::tar::{Header, Kind, TarReader};

/// Permission bits that survive: no setuid, no setgid; the sticky bit of `/tmp` stays.
const MODE_KEPT: u32 = 0o1777;
const SYMLINK_MAX: usize = 4095;

/// What differs between layers and snapshots.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) owners: Owners,
    /// A snapshot of ours: sparse files and literal names are allowed, the end must be there.
    pub(crate) snapshot: bool,
}

#[derive(Debug, Default)]
struct Directory {
    mode: u32,
    uid: u64,
    gid: u64,
    mtime: Option<(i64, u32)>,
    opaque: bool,
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The state of one unpacking.
#[derive(Debug)]
pub(crate) struct Unpacker<'a> {
    root: OwnedFd,
    rules: Rules,
    budget: &'a mut Budget,
    directories: BTreeMap<Vec<u8>, Directory>,
    parent: Option<(Vec<u8>, OwnedFd)>,
}

impl<'a> Unpacker<'a> {
    /// Unpacks into `root`, an empty directory private to the caller.
    pub(crate) fn new(root: OwnedFd, rules: Rules, budget: &'a mut Budget) -> Self {
        let directories = BTreeMap::from([(Vec::new(), implied())]);
        Self {
            root,
            rules,
            budget,
            directories,
            parent: None,
        }
    }

    /// Unpacks the whole stream, to its very end.
    pub(crate) fn run<R: Skip>(mut self, stream: R) -> Result<(), ArchiveError> {
        let mut tar = TarReader::new(stream, self.rules.snapshot);
        while let Some(mut header) = tar.next()? {
            let name = header.path.clone();
            self.entry(&mut header, &mut tar)
                .map_err(|why| why.at(&name))?;
        }
        tar.drain()?;
        self.finish()
    }

    fn entry<R: Skip>(
        &mut self,
        header: &mut Header,
        tar: &mut TarReader<R>,
    ) -> Result<(), Refusal> {
        self.budget.charge(header.size)?;
        if !self.rules.snapshot && header.extensions.sparse_size.is_some() {
            return Err(Refusal::Sparse("sparse files are not allowed in images"));
        }
        let path = clean(&header.path)?;
        if path.is_empty() {
            if header.kind != Kind::Directory {
                return Err(Refusal::EmptyName);
            }
            self.describe(&path, header);
            return Ok(());
        }
        let (parent, name) = split(&path);
        let literal = header.extensions.literal.filter(|_| self.rules.snapshot);
        let meant = match literal {
            None => meaning(&path)?,
            Some(Literal::File) => Meaning::File,
            Some(Literal::Whiteout) => Meaning::Hides(name),
            Some(Literal::Mark) => meaning(name)?,
        };
        match meant {
            Meaning::Ignored => Ok(()),
            Meaning::Opaque => {
                self.parent(parent)?;
                self.directories
                    .entry(parent.to_vec())
                    .or_insert_with(implied)
                    .opaque = true;
                Ok(())
            }
            Meaning::Hides(hidden) => self.whiteout(parent, hidden),
            Meaning::File => self.file(&path, parent, name, header, tar),
        }
    }

    fn file<R: Skip>(
        &mut self,
        path: &[u8],
        parent: &[u8],
        name: &[u8],
        header: &mut Header,
        tar: &mut TarReader<R>,
    ) -> Result<(), Refusal> {
        match header.kind {
            Kind::Directory => self.directory(path, parent, name, header),
            Kind::File => self.regular(parent, name, header, tar),
            Kind::HardLink => self.hard_link(path, parent, name, &header.link),
            Kind::Symlink => {
                let target = &header.link;
                if target.is_empty() || target.len() > SYMLINK_MAX || target.contains(&0) {
                    return Err(Refusal::BadSymlink);
                }
                self.create(parent, name, |at| {
                    rustix::fs::symlinkat(target.as_slice(), at, name)
                })?;
                self.describe_unopened(parent, name, header, None)
            }
            Kind::Fifo => {
                let mode = Mode::from_raw_mode(0o600);
                self.create(parent, name, |at| {
                    rustix::fs::mknodat(at, name, FileType::Fifo, mode, 0)
                })?;
                self.describe_unopened(parent, name, header, Some(header.mode & MODE_KEPT))
            }
        }
    }

    fn directory(
        &mut self,
        path: &[u8],
        parent: &[u8],
        name: &[u8],
        header: &mut Header,
    ) -> Result<(), Refusal> {
        let at = self.parent(parent)?;
        let mut opaque = false;
        match rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(Errno::EXIST) if self.directories.contains_key(path) => {}
            Err(Errno::EXIST) => {
                // A whiteout and then a directory of that name: nothing from below shows in it.
                let at = self.parent(parent)?;
                opaque = is_whiteout(at, name)?;
                rustix::fs::unlinkat(at, name, AtFlags::empty())
                    .map_err(|error| Refusal::io("cannot replace it", error))?;
                rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o700))
                    .map_err(|error| Refusal::io("cannot create the directory", error))?;
            }
            Err(error) => return Err(Refusal::io("cannot create the directory", error)),
        }
        self.describe(path, header);
        if let Some(directory) = self.directories.get_mut(path) {
            directory.opaque |= opaque;
        }
        Ok(())
    }

    fn regular<R: Skip>(
        &mut self,
        parent: &[u8],
        name: &[u8],
        header: &mut Header,
        tar: &mut TarReader<R>,
    ) -> Result<(), Refusal> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(0o600);
        let file = self.create(parent, name, |at| {
            open_beneath(at, OsStr::from_bytes(name), flags, mode)
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        })?;
        let mut file = File::from(file);
        match header.extensions.sparse_size {
            Some(size) => super::sparse::unpack(tar, header.size, &mut file, size)?,
            None => copy(tar, &mut file, header.size)?,
        }
        let attributes = std::mem::take(&mut header.extensions.attributes);
        set_attributes(&file, &attributes)?;
        self.own(&file, header.uid, header.gid)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(header.mode & MODE_KEPT))
            .map_err(|error| Refusal::io("cannot set the mode", error))?;
        rustix::fs::futimens(&file, &times(Some((header.mtime_s, header.mtime_ns))))
            .map_err(|error| Refusal::io("cannot set the time", error))
    }

    fn hard_link(
        &mut self,
        path: &[u8],
        parent: &[u8],
        name: &[u8],
        link: &[u8],
    ) -> Result<(), Refusal> {
        let target = clean(link)?;
        if target.is_empty() || target == path {
            return Err(Refusal::BadLinkTarget);
        }
        let (target_parent, target_name) = split(&target);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let from = open_beneath(&self.root, os(target_parent), flags, Mode::empty())
            .map_err(|_| Refusal::BadLinkTarget)?;
        let stat = rustix::fs::statat(&from, target_name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|_| Refusal::BadLinkTarget)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile | FileType::Symlink | FileType::Fifo => {}
            _ => return Err(Refusal::BadLinkTarget),
        }
        self.create(parent, name, |at| {
            rustix::fs::linkat(&from, target_name, at, name, AtFlags::empty())
        })
    }

    fn whiteout(&mut self, parent: &[u8], hidden: &[u8]) -> Result<(), Refusal> {
        let at = self.parent(parent)?;
        match rustix::fs::mknodat(at, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => {
                // The layer's own file stays; a directory of its own hides what is below.
                let path = join(parent, hidden);
                if let Some(directory) = self.directories.get_mut(&path) {
                    directory.opaque = true;
                }
                Ok(())
            }
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::ACCESS) => Err(Refusal::NoWhiteouts),
            Err(error) => Err(Refusal::io("cannot create the whiteout", error)),
        }
    }

    /// Creates something new at `name`; an earlier file of that name goes, a directory does not.
    fn create<T>(
        &mut self,
        parent: &[u8],
        name: &[u8],
        make: impl Fn(&OwnedFd) -> Result<T, Errno>,
    ) -> Result<T, Refusal> {
        let at = self.parent(parent)?;
        let made = match make(at) {
            Err(Errno::EXIST) => {
                match rustix::fs::unlinkat(at, name, AtFlags::empty()) {
                    Ok(()) => {}
                    Err(Errno::ISDIR | Errno::PERM) => return Err(Refusal::ReplacesDirectory),
                    Err(error) => return Err(Refusal::io("cannot replace it", error)),
                }
                make(at)
            }
            other => other,
        };
        made.map_err(|error| Refusal::io("cannot create it", error))
    }

    /// The directory at `path`, made with its parents if need be, never through a link.
    fn parent(&mut self, path: &[u8]) -> Result<&OwnedFd, Refusal> {
        let known = self.parent.as_ref().is_some_and(|(last, _)| last == path);
        if !known {
            let opened = match self.open_directory(path) {
                Err(Errno::NOENT) => {
                    self.make_parents(path)?;
                    self.open_directory(path)
                }
                other => other,
            };
            let opened = opened.map_err(|error| match error {
                Errno::LOOP | Errno::NOTDIR | Errno::XDEV => Refusal::ThroughNonDirectory,
                other => Refusal::io("cannot open the parent directory", other),
            })?;
            self.parent = Some((path.to_vec(), opened));
        }
        match &self.parent {
            Some((_, opened)) => Ok(opened),
            None => Err(Refusal::ThroughNonDirectory),
        }
    }

    fn open_directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        open_beneath(
            &self.root,
            os(path),
            OFlags::PATH | OFlags::DIRECTORY,
            Mode::empty(),
        )
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    fn make_parents(&mut self, path: &[u8]) -> Result<(), Refusal> {
        let ends = path
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'/')
            .map(|(at, _)| at);
        let ends: Vec<usize> = ends.chain([path.len()]).collect();
        for end in ends {
            let prefix = &path[..end];
            if self.directories.contains_key(prefix) {
                continue;
            }
            self.budget.charge(0)?;
            let (parent, name) = split(prefix);
            let at = self
                .open_directory(parent)
                .map_err(|_| Refusal::ThroughNonDirectory)?;
            match rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o700)) {
                Ok(()) => {}
                Err(Errno::EXIST) => return Err(Refusal::ThroughNonDirectory),
                Err(error) => return Err(Refusal::io("cannot create a parent", error)),
            }
            self.directories.insert(prefix.to_vec(), implied());
        }
        Ok(())
    }

    fn describe(&mut self, path: &[u8], header: &mut Header) {
        let directory = self.directories.entry(path.to_vec()).or_default();
        directory.mode = header.mode & MODE_KEPT;
        directory.uid = header.uid;
        directory.gid = header.gid;
        directory.mtime = Some((header.mtime_s, header.mtime_ns));
        directory.attributes = std::mem::take(&mut header.extensions.attributes);
    }

    /// Owner, time and mode of what cannot be opened: links and pipes.
    fn describe_unopened(
        &mut self,
        parent: &[u8],
        name: &[u8],
        header: &Header,
        mode: Option<u32>,
    ) -> Result<(), Refusal> {
        let owners = self.rules.owners;
        let at = self.parent(parent)?;
        if let Owners::Offset(base) = owners {
            let (uid, gid) = ids(base, header.uid, header.gid);
            rustix::fs::chownat(at, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| Refusal::io("cannot set the owner", error))?;
        }
        if let Some(mode) = mode {
            // The tree is private and the name is a pipe made just now: nothing to follow.
            rustix::fs::chmodat(at, name, Mode::from_raw_mode(mode), AtFlags::empty())
                .map_err(|error| Refusal::io("cannot set the mode", error))?;
        }
        let times = times(Some((header.mtime_s, header.mtime_ns)));
        rustix::fs::utimensat(at, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| Refusal::io("cannot set the time", error))
    }

    fn own(&self, file: impl AsFd, uid: u64, gid: u64) -> Result<(), Refusal> {
        let Owners::Offset(base) = self.rules.owners else {
            return Ok(());
        };
        let (uid, gid) = ids(base, uid, gid);
        rustix::fs::fchown(file, Some(uid), Some(gid))
            .map_err(|error| Refusal::io("cannot set the owner", error))
    }

    fn finish(mut self) -> Result<(), ArchiveError> {
        self.parent = None;
        // Backwards, so that a directory is closed only after everything inside it.
        for (path, directory) in std::mem::take(&mut self.directories).into_iter().rev() {
            self.close(&path, &directory).map_err(|why| why.at(&path))?;
        }
        Ok(())
    }

    fn close(&self, path: &[u8], directory: &Directory) -> Result<(), Refusal> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let opened = open_beneath(&self.root, os(path), flags, Mode::empty())
            .map_err(|error| Refusal::io("cannot open the directory", error))?;
        if directory.opaque {
            mark_opaque(&opened)?;
        }
        set_attributes(&opened, &directory.attributes)?;
        self.own(&opened, directory.uid, directory.gid)?;
        rustix::fs::fchmod(&opened, Mode::from_raw_mode(directory.mode))
            .map_err(|error| Refusal::io("cannot set the mode", error))?;
        rustix::fs::futimens(&opened, &times(directory.mtime))
            .map_err(|error| Refusal::io("cannot set the time", error))
    }
}

fn implied() -> Directory {
    Directory {
        mode: 0o755,
        ..Directory::default()
    }
}

fn os(path: &[u8]) -> &OsStr {
    OsStr::from_bytes(if path.is_empty() { b"." } else { path })
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() {
        name.to_vec()
    } else {
        [parent, b"/", name].concat()
    }
}

fn is_whiteout(at: &OwnedFd, name: &[u8]) -> Result<bool, Refusal> {
    let stat = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| Refusal::io("cannot look at it", error))?;
    let device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    Ok(device && stat.st_rdev == 0)
}

/// Copies exactly `size` bytes, telling a broken archive from a full disk.
pub(super) fn copy(
    from: &mut impl Read,
    to: &mut impl io::Write,
    size: u64,
) -> Result<(), Refusal> {
    let mut buffer = vec![0; 64 << 10];
    let mut left = size;
    while left > 0 {
        let wanted = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = match from.read(&mut buffer[..wanted]) {
            Ok(0) => return Err(Refusal::Truncated),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Refusal::reading(error)),
        };
        to.write_all(&buffer[..read])
            .map_err(|error| Refusal::io("cannot write it", error))?;
        left -= read as u64;
    }
    Ok(())
}
