//! Why a file of a sandbox cannot be read or written.

use std::io;

/// A refused or failed operation on one path of a sandbox.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The path itself is unusable.
    #[error("path {path:?}: {why}")]
    Path {
        /// The path, escaped and shortened.
        path: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// Nothing is there.
    #[error("{path}: no such file or directory in the sandbox")]
    NotFound {
        /// The path.
        path: String,
    },
    /// Something is there, of a kind that the operation does not work on.
    #[error("{path}: is a {kind}, expected a {expected}")]
    Kind {
        /// The path.
        path: String,
        /// What it is.
        kind: &'static str,
        /// What the operation needs.
        expected: &'static str,
    },
    /// It lies on a file system of the kernel's own, not on storage.
    #[error(
        "{path}: not on a storage file system (type {magic:#x}); /proc, /sys and their like are off limits"
    )]
    NotStorage {
        /// The path.
        path: String,
        /// The file system's magic number.
        magic: u64,
    },
    /// More bytes than allowed.
    #[error("{path}: larger than {max} bytes")]
    TooLarge {
        /// The path.
        path: String,
        /// The limit.
        max: u64,
    },
    /// The system refused.
    #[error("{path}: {action}: {error}")]
    Io {
        /// The path.
        path: String,
        /// What was being done.
        action: &'static str,
        /// What the system said.
        error: io::Error,
    },
}
