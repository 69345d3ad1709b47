//! Why a store does not open. Every message names the file, and says what to do.

use std::io;
use std::path::{Path, PathBuf};

/// Why a store does not open. Nothing on disk was changed by the attempt, except that a torn tail may be cut off.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A file cannot be read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file does not hold what was written to it.
    #[error(
        "{} is damaged at offset {offset}: {why}; the store was not opened, so that no wrong data is served; \
         restore the directory from a backup, or remove it to start empty",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where, in bytes from its start.
        offset: u64,
        /// What is wrong there.
        why: String,
    },
    /// The directory was written by a newer version.
    #[error(
        "{} says format {found}, but this version reads up to {known}; use the version that wrote it",
        path.display()
    )]
    Newer {
        /// The file that says so.
        path: PathBuf,
        /// What it says.
        found: u64,
        /// The latest this version reads.
        known: u64,
    },
    /// Another process has the store open.
    #[error("{} is in use by process {holder}; stop that process, or use another directory", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// Its process id, as it wrote it down.
        holder: String,
    },
    /// The store belongs to another server.
    #[error("{} belongs to server {found}, but this is server {asked}; correct the configuration", dir.display())]
    WrongServer {
        /// The directory.
        dir: PathBuf,
        /// The server that made it.
        found: u64,
        /// The server that was asked for.
        asked: u64,
    },
    /// Consensus did not start.
    #[error("consensus did not start on {}: {why}", dir.display())]
    Consensus {
        /// The directory.
        dir: PathBuf,
        /// What it said.
        why: String,
    },
}

impl OpenError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }

    pub(crate) fn corrupt(path: &Path, offset: u64, why: impl Into<String>) -> Self {
        Self::Corrupt {
            path: path.to_owned(),
            offset,
            why: why.into(),
        }
    }
}
