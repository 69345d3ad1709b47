//! Where an image's blobs come from: a layout directory, or a tar of one, read in place.
//!
//! An archive is only indexed: no name chosen by its author is ever created on disk. A directory
//! is read beneath its root, without following links. Used by the loader of images.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use prism_sys::beneath::{open_beneath, reopen};
use rustix::fs::{FileType, Mode, OFlags};

use super::error::{ArchiveError, ImageError, Refusal};
use super::limits::{Budget, Limits};
use super::path::{clean, split};
use super::stream::{Compression, Slice, plain};
use super::tar::{Kind, TarReader};

/// The largest JSON document that is read.
pub(crate) const DOCUMENT_MAX: u64 = 4 << 20;
/// How many links one name of an old `docker save` archive may go through.
const LINK_HOPS_MAX: usize = 4;

#[derive(Debug)]
enum Member {
    File { offset: u64, size: u64 },
    Link(Vec<u8>),
}

/// An opened layout.
#[derive(Debug)]
pub(crate) struct Source {
    /// How messages call it.
    pub(crate) label: String,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Directory(OwnedFd),
    Archive {
        file: Arc<File>,
        members: BTreeMap<Vec<u8>, Member>,
    },
}

impl Source {
    /// Opens the archive or directory at `path`; a compressed archive is spooled into `spool`.
    pub(crate) fn open(
        path: &Path,
        limits: Limits,
        spool: impl FnOnce() -> Result<File, ImageError>,
    ) -> Result<Self, ImageError> {
        let label = path.display().to_string();
        let handle = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| ImageError::layout(&label, format!("cannot open it: {error}")))?;
        let stat = rustix::fs::fstat(&handle)
            .map_err(|error| ImageError::layout(&label, format!("cannot look at it: {error}")))?;
        let content = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Content::Directory(handle),
            FileType::RegularFile => {
                let file = reopen(&handle, OFlags::RDONLY).map_err(|error| {
                    ImageError::layout(&label, format!("cannot open it: {error}"))
                })?;
                archive(file, limits, spool, &label)?
            }
            _ => return Err(ImageError::layout(label, "neither a file nor a directory")),
        };
        Ok(Self { label, content })
    }

    /// A small document of the layout, or nothing when there is none by that name.
    pub(crate) fn document(&self, name: &str) -> Result<Option<Vec<u8>>, ImageError> {
        let Some(slice) = self.blob(name)? else {
            return Ok(None);
        };
        if slice.size() > DOCUMENT_MAX {
            return Err(self.wrong(name, format!("larger than {DOCUMENT_MAX} bytes")));
        }
        let mut bytes = Vec::new();
        let mut slice = slice;
        slice
            .read_to_end(&mut bytes)
            .map_err(|error| self.wrong(name, format!("cannot read it: {error}")))?;
        Ok(Some(bytes))
    }

    /// A file of the layout by its path.
    pub(crate) fn blob(&self, name: &str) -> Result<Option<Slice>, ImageError> {
        let path = clean(name.as_bytes()).map_err(|why| self.wrong(name, why.to_string()))?;
        match &self.content {
            Content::Directory(root) => self.file(root, name),
            Content::Archive { file, members } => {
                let found = find(members, path).map_err(|why| self.wrong(name, why))?;
                Ok(found.map(|(offset, size)| Slice::new(Arc::clone(file), offset, size)))
            }
        }
    }

    pub(crate) fn wrong(&self, name: &str, why: impl Into<String>) -> ImageError {
        ImageError::layout(format!("{}: {}", self.label, name.escape_debug()), why)
    }

    fn file(&self, root: &OwnedFd, name: &str) -> Result<Option<Slice>, ImageError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let handle = match open_beneath(root, name.as_ref(), flags, Mode::empty()) {
            Ok(handle) => handle,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.wrong(name, format!("cannot open it: {error}"))),
        };
        let stat = rustix::fs::fstat(&handle)
            .map_err(|error| self.wrong(name, format!("cannot look at it: {error}")))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.wrong(name, "not a regular file (links are not followed)"));
        }
        let file = reopen(&handle, OFlags::RDONLY)
            .map_err(|error| self.wrong(name, format!("cannot open it: {error}")))?;
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        Ok(Some(Slice::new(Arc::new(file), 0, size)))
    }
}

fn find(
    members: &BTreeMap<Vec<u8>, Member>,
    mut path: Vec<u8>,
) -> Result<Option<(u64, u64)>, &'static str> {
    for _ in 0..=LINK_HOPS_MAX {
        match members.get(&path) {
            None => return Ok(None),
            Some(Member::File { offset, size }) => return Ok(Some((*offset, *size))),
            Some(Member::Link(target)) => path = target.clone(),
        }
    }
    Err("too many links")
}

fn archive(
    mut file: File,
    limits: Limits,
    spool: impl FnOnce() -> Result<File, ImageError>,
    label: &str,
) -> Result<Content, ImageError> {
    let refuse = |error: ArchiveError| ImageError::Archive {
        file: label.to_owned(),
        error,
    };
    let mut start = [0; 6];
    let read = file
        .read(&mut start)
        .and_then(|read| file.seek(SeekFrom::Start(0)).map(|_| read))
        .map_err(|error| refuse(Refusal::reading(error).whole()))?;
    if Compression::of(&start[..read]) != Compression::None {
        let stream_max = Budget::new(limits).stream_max();
        let mut stream = plain(file, limits, stream_max).map_err(|why| refuse(why.whole()))?;
        let mut plain_file = spool()?;
        spool_into(&mut stream.reader, &mut plain_file).map_err(|why| refuse(why.whole()))?;
        file = plain_file;
    }
    let size = file
        .metadata()
        .map_err(|error| refuse(Refusal::reading(error).whole()))?
        .len();
    let file = Arc::new(file);
    let members = index(Slice::new(Arc::clone(&file), 0, size), limits).map_err(refuse)?;
    Ok(Content::Archive { file, members })
}

fn spool_into(from: &mut impl Read, to: &mut File) -> Result<(), Refusal> {
    let mut buffer = vec![0; 128 << 10];
    loop {
        let read = from.read(&mut buffer).map_err(Refusal::reading)?;
        if read == 0 {
            return Ok(());
        }
        std::io::Write::write_all(to, &buffer[..read])
            .map_err(|error| Refusal::io("cannot spool the archive", error))?;
    }
}

fn index(slice: Slice, limits: Limits) -> Result<BTreeMap<Vec<u8>, Member>, ArchiveError> {
    let mut members = BTreeMap::new();
    let mut budget = Budget::new(Limits {
        bytes_max: u64::MAX,
        ..limits
    });
    let mut tar = TarReader::new(slice, false);
    while let Some(header) = tar.next()? {
        let refuse = |why: Refusal| why.at(&header.path);
        budget.charge(0).map_err(refuse)?;
        if header.extensions.sparse_size.is_some() {
            return Err(refuse(Refusal::Sparse("not allowed in image archives")));
        }
        let path = clean(&header.path).map_err(refuse)?;
        let member = match header.kind {
            Kind::Directory => continue,
            Kind::File => Member::File {
                offset: header.offset,
                size: header.size,
            },
            Kind::Symlink => Member::Link(inside(&path, &header.link).map_err(refuse)?),
            Kind::HardLink => Member::Link(clean(&header.link).map_err(refuse)?),
            Kind::Fifo => return Err(refuse(Refusal::UnknownType('6'))),
        };
        if members.insert(path, member).is_some() {
            return Err(refuse(Refusal::BadHeader("the name occurs twice")));
        }
    }
    Ok(members)
}

/// The target of a link inside the archive: `../<layer>/layer.tar` as `docker save` once wrote.
fn inside(path: &[u8], target: &[u8]) -> Result<Vec<u8>, Refusal> {
    if target.starts_with(b"/") {
        return Err(Refusal::AbsolutePath);
    }
    let (mut parent, _) = split(path);
    let mut target = target;
    while let Some(rest) = target.strip_prefix(b"../") {
        if parent.is_empty() {
            return Err(Refusal::ParentPath);
        }
        parent = split(parent).0;
        target = rest;
    }
    if parent.is_empty() {
        return clean(target);
    }
    clean(&[parent, b"/", target].concat())
}
