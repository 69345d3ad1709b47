//! Why an archive or an image is refused, in words for the person who handed it in.
//!
//! Never holds the hostile bytes raw: names are escaped before they reach a message.
//! Used by the unpacker, the image store and the snapshots.

use std::io;
use std::path::{Path, PathBuf};

/// One reason to refuse an archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The entry has no name.
    #[error("the name is empty")]
    EmptyName,
    /// The name starts at the root of the machine.
    #[error("the path is absolute")]
    AbsolutePath,
    /// The name climbs with `..`.
    #[error("the path contains '..'")]
    ParentPath,
    /// The name holds a NUL byte.
    #[error("the path contains a NUL byte")]
    NulInPath,
    /// The path, or one component of it, is too long.
    #[error("the path is longer than the file system allows (4096, 255 per component)")]
    PathTooLong,
    /// Too many directories inside one another.
    #[error("the path is more than {max} directories deep")]
    TooDeep {
        /// The deepest allowed.
        max: usize,
    },
    /// A `.wh.` name that hides nothing that can be named.
    #[error("the whiteout name is malformed")]
    BadWhiteout,
    /// A parent of the entry is a link or a file.
    #[error("a parent of the path is not a directory in this archive")]
    ThroughNonDirectory,
    /// A directory was unpacked under this name before.
    #[error("it would replace a directory of the same archive")]
    ReplacesDirectory,
    /// A hard link to nothing in the archive, to a directory or to itself.
    #[error("the hard link's target is not an earlier file of the same archive")]
    BadLinkTarget,
    /// A symbolic link without a usable target.
    #[error("the symbolic link's target is empty, too long or contains a NUL byte")]
    BadSymlink,
    /// A character or block device.
    #[error("device nodes are not allowed")]
    DeviceNode,
    /// A kind of entry nobody should send.
    #[error("entries of type {0:?} are not allowed")]
    UnknownType(char),
    /// A sparse file where none is allowed, or one with a senseless map.
    #[error("sparse file: {0}")]
    Sparse(&'static str),
    /// More entries than the limit.
    #[error("more than {max} entries")]
    TooManyEntries {
        /// The limit.
        max: u64,
    },
    /// More bytes than the limit.
    #[error("unpacks to more than {max} bytes")]
    TooManyBytes {
        /// The limit.
        max: u64,
    },
    /// It expands too much to be honest.
    #[error("expands more than {max} times")]
    ExpandsTooMuch {
        /// The largest factor allowed.
        max: u64,
    },
    /// A tar header that makes no sense.
    #[error("malformed header: {0}")]
    BadHeader(&'static str),
    /// An extended header that makes no sense.
    #[error("malformed extended header: {0}")]
    BadExtension(&'static str),
    /// It ends too early.
    #[error("the archive is truncated")]
    Truncated,
    /// Not a tar at all.
    #[error("this is not a tar archive")]
    NotTar,
    /// Compressed, and compressed again.
    #[error("compressed more than once")]
    NestedCompression,
    /// Compressed in a way that is not read here.
    #[error("{0} compression is not supported (use gzip, zstd or none)")]
    Compression(&'static str),
    /// The compressed stream is damaged.
    #[error("the compressed data is damaged: {0}")]
    Damaged(String),
    /// An attribute that would steer the overlay file system.
    #[error("the attribute {0} is reserved for the overlay file system")]
    OverlayAttribute(String),
    /// The file system below cannot hold whiteouts.
    #[error(
        "the file system refuses whiteouts; use ext4, xfs, btrfs or tmpfs for the data directory"
    )]
    NoWhiteouts,
    /// Reading or writing failed.
    #[error("{action}: {error}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

impl Refusal {
    pub(crate) fn io(action: &'static str, error: impl Into<io::Error>) -> Self {
        Self::Io {
            action,
            error: error.into(),
        }
    }

    /// What went wrong when reading the archive's stream: our own limits arrive wrapped.
    pub(crate) fn reading(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(refusal) => refusal,
            Err(error) => match error.kind() {
                io::ErrorKind::UnexpectedEof => Self::Truncated,
                io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
                    Self::Damaged(error.to_string())
                }
                _ => Self::io("cannot read the archive", error),
            },
        }
    }

    pub(crate) fn at(self, name: &[u8]) -> ArchiveError {
        ArchiveError {
            place: format!("entry \"{}\"", printable(name)),
            reason: self,
        }
    }

    pub(crate) fn at_byte(self, offset: u64) -> ArchiveError {
        ArchiveError {
            place: format!("byte {offset}"),
            reason: self,
        }
    }

    pub(crate) fn whole(self) -> ArchiveError {
        ArchiveError {
            place: "archive".to_owned(),
            reason: self,
        }
    }
}

/// A refused archive: which entry, and why.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct ArchiveError {
    /// The entry, escaped and shortened, or the offset when no entry has a name yet.
    pub place: String,
    /// Why it is refused.
    pub reason: Refusal,
}

/// Why an image cannot be loaded, found or removed. Nothing half-unpacked is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The name does not follow `name[:tag]`.
    #[error("image name \"{name}\" is not valid: {why}")]
    Name {
        /// The name as given, escaped.
        name: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// No image by that name.
    #[error("there is no image \"{0}\" on this node; load it first")]
    NotFound(String),
    /// The archive or layout holds no usable image.
    #[error("{file}: {why}; nothing was loaded")]
    Layout {
        /// The archive or directory, and the document in it.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// The content is not what its digest or size promises.
    #[error("{file}: blob {blob}: {what} is {found}, expected {expected}; nothing was loaded")]
    Mismatch {
        /// The archive or directory.
        file: String,
        /// The blob's digest as referred to.
        blob: String,
        /// "size", "digest" or "unpacked digest".
        what: &'static str,
        /// What was found.
        found: String,
        /// What was promised.
        expected: String,
    },
    /// The archive, or a layer of it, is refused.
    #[error("{file}: {error}; nothing was loaded")]
    Archive {
        /// The archive or directory, and the layer in it.
        file: String,
        /// Where and why.
        error: ArchiveError,
    },
    /// The store's own files cannot be read or written.
    #[error("image store: {action} {path}: {error}")]
    Store {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl ImageError {
    pub(crate) fn store(action: &'static str, path: &Path, error: impl Into<io::Error>) -> Self {
        Self::Store {
            action,
            path: path.to_owned(),
            error: error.into(),
        }
    }

    pub(crate) fn layout(file: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Layout {
            file: file.into(),
            why: why.into(),
        }
    }
}

/// A hostile name made fit for a message: escaped, at most 120 characters.
pub(crate) fn printable(name: &[u8]) -> String {
    let mut text: String = name.escape_ascii().take(120).map(char::from).collect();
    if name.len() > 120 {
        text.push_str("...");
    }
    text
}
