//! The files side of a runtime: what is inside a live sandbox, its snapshots, and the images that things start from.
//!
//! Blocking calls; the worker makes them on threads that may wait.

use std::path::{Path, PathBuf};

use prism_types::{RunId, TimeMs};

use crate::RuntimeError;

/// What a path inside a sandbox is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name; bytes that are not UTF-8 are replaced.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Last change of its content.
    pub modified: TimeMs,
    /// Where a symbolic link points.
    pub target: Option<String>,
}

/// Kinds of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A device, socket or pipe.
    Other,
}

/// Size of a saved file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Size of the archive in bytes.
    pub bytes: u64,
    /// Number of entries in it.
    pub entries: u64,
}

/// An image that is ready to start from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// Its name.
    pub name: String,
    /// Digest of its manifest.
    pub digest: String,
    /// Unpacked layers, topmost first.
    pub layers: Vec<PathBuf>,
    /// Environment it sets.
    pub env: Vec<(String, String)>,
}

/// Files of live sandboxes, snapshots and images. Every path from outside is opened beneath its root and never followed out of it.
pub trait HostFiles: Send + Sync + 'static {
    /// At most `max` bytes of a regular file from `offset`, and whether that was the end.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` when it is no regular file.
    fn read(
        &self,
        id: &RunId,
        path: &str,
        offset: u64,
        max: usize,
    ) -> Result<(Vec<u8>, bool), RuntimeError>;

    /// Replaces a regular file whole, making its parents; it belongs to the sandbox's root user.
    ///
    /// # Errors
    /// `NotFound` for the sandbox; `Invalid` when the path is something else already, or the disk is full.
    fn write(&self, id: &RunId, path: &str, data: &[u8], mode: u32) -> Result<(), RuntimeError>;

    /// Entries of a directory by name, at most 10,000.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` when it is no directory.
    fn list(&self, id: &RunId, path: &str) -> Result<Vec<Entry>, RuntimeError>;

    /// What a path is, without following a symbolic link at its end.
    ///
    /// # Errors
    /// `NotFound`.
    fn stat(&self, id: &RunId, path: &str) -> Result<Entry, RuntimeError>;

    /// Makes a directory and its parents; not an error when it is there.
    ///
    /// # Errors
    /// `Invalid` when something else is there.
    fn mkdir(&self, id: &RunId, path: &str) -> Result<(), RuntimeError>;

    /// Removes a file, or a directory with everything in it.
    ///
    /// # Errors
    /// `NotFound`.
    fn remove(&self, id: &RunId, path: &str) -> Result<(), RuntimeError>;

    /// Saves what a sandbox has written (the scratch directory it was launched with) as an archive.
    ///
    /// # Errors
    /// `Unavailable` when the disk fails; nothing is left behind.
    fn snapshot(&self, scratch: &Path, archive: &Path) -> Result<Saved, RuntimeError>;

    /// Fills a new scratch directory from an archive, before the sandbox is launched with it.
    ///
    /// # Errors
    /// `Invalid` for a damaged or hostile archive; nothing is left behind.
    fn restore(&self, archive: &Path, scratch: &Path) -> Result<(), RuntimeError>;

    /// Empties the scratch directory of an ended sandbox and moves it to `to`, where it is as good as a new one for the next;
    /// false when it cannot be, and must be removed.
    fn recycle(&self, scratch: &Path, to: &Path) -> bool {
        let (_, _) = (scratch, to);
        false
    }

    /// Makes a scratch directory at `to` ahead of time, as the engine would at a launch; false when it cannot be.
    fn fresh(&self, to: &Path) -> bool {
        let _ = to;
        false
    }

    /// Loads an image from an OCI archive or layout directory; answers its name.
    ///
    /// # Errors
    /// `Invalid` for a damaged or hostile image; nothing is left behind.
    fn image_load(&self, path: &Path, name: Option<&str>) -> Result<String, RuntimeError>;

    /// Names of the images that are loaded.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be read.
    fn images(&self) -> Result<Vec<String>, RuntimeError>;

    /// A loaded image by name.
    ///
    /// # Errors
    /// `NotFound`, with the names there are.
    fn image(&self, name: &str) -> Result<ImageInfo, RuntimeError>;
}
