//! Why a snapshot cannot be taken or restored.

use std::io;
use std::path::{Path, PathBuf};

use crate::image::ArchiveError;

/// A failed snapshot or restore; neither leaves anything half-made behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// A file of the upper layer cannot be read or described.
    #[error("snapshot of {upper}: \"{entry}\": {action}: {error}; nothing was written")]
    Entry {
        /// The upper directory.
        upper: PathBuf,
        /// The file, escaped.
        entry: String,
        /// What was being done.
        action: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// The content breaks a limit, or the archive is refused.
    #[error("snapshot {file}: {error}; nothing was kept")]
    Archive {
        /// The archive.
        file: PathBuf,
        /// Where and why.
        error: ArchiveError,
    },
    /// The overlay keeps parts of the upper layer elsewhere.
    #[error(
        "snapshot of {upper}: \"{entry}\" refers to a lower layer ({attribute}); \
         mount the overlay with redirect_dir=off,metacopy=off"
    )]
    Refers {
        /// The upper directory.
        upper: PathBuf,
        /// The file, escaped.
        entry: String,
        /// The overlay's attribute that says so.
        attribute: &'static str,
    },
    /// The directory to restore into holds something.
    #[error("cannot restore into {0}: it is not an empty directory; it was left as it is")]
    NotEmpty(PathBuf),
    /// The id range would not fit.
    #[error("the id range from {0} does not fit below 2^32")]
    Base(u32),
    /// The archive or a directory around it cannot be read or written.
    #[error("snapshot: {action} {path}: {error}")]
    File {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl SnapshotError {
    pub(super) fn file(action: &'static str, path: &Path, error: impl Into<io::Error>) -> Self {
        Self::File {
            action,
            path: path.to_owned(),
            error: error.into(),
        }
    }
}
