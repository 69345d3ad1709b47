//! The files side of the process engine, as the worker's contract wants it.

use std::ffi::OsStr;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use prism_runtime::{Entry, EntryKind, HostFiles, ImageInfo, Runtime, RuntimeError, Saved};
use prism_sandbox::files::{self, FileError, RootDir, WriteOptions};
use prism_sandbox::image::{ImageError, ImageStore, Limits};
use prism_sandbox::snapshot::{self, SnapshotError};
use prism_types::{RunId, TimeMs};

/// Longest file that is written through the API.
const WRITE_MAX: u64 = 64 << 20;
/// Most entries of a listing.
const LIST_MAX: usize = 10_000;

/// Files of sandboxes, snapshots and images of the process engine.
#[derive(Debug)]
pub struct EngineFiles {
    images: ImageStore,
    runtime: OnceLock<Runtimed>,
}

/// The runtime that knows where the roots of running sandboxes are.
struct Runtimed(Arc<dyn Runtime>);

impl std::fmt::Debug for Runtimed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Runtime")
    }
}

impl EngineFiles {
    /// Opens the image store in `dir`.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn open(dir: &Path) -> Result<Self, RuntimeError> {
        let images = ImageStore::open(dir).map_err(image_error)?;
        Ok(Self {
            images,
            runtime: OnceLock::new(),
        })
    }

    /// Names the runtime whose sandboxes these are; once.
    pub fn attach(&self, runtime: Arc<dyn Runtime>) {
        let _already_attached = self.runtime.set(Runtimed(runtime));
    }

    fn root(&self, id: &RunId) -> Result<RootDir, RuntimeError> {
        let runtime = self.runtime.get();
        let runtime = runtime.ok_or_else(|| {
            RuntimeError::Unavailable("the runtime is being started; try again".to_owned())
        })?;
        RootDir::open(&runtime.0.root(id)?).map_err(file_error)
    }
}

fn image_error(e: ImageError) -> RuntimeError {
    RuntimeError::Invalid(chain(&e))
}

fn snapshot_error(e: SnapshotError) -> RuntimeError {
    RuntimeError::Invalid(chain(&e))
}

fn file_error(e: FileError) -> RuntimeError {
    let text = chain(&e);
    match e {
        FileError::NotFound { .. } => RuntimeError::NotFound(text),
        _ => RuntimeError::Invalid(text),
    }
}

/// An error with its causes.
fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut next = e.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

fn io_error(e: &std::io::Error) -> RuntimeError {
    RuntimeError::Invalid(format!("cannot read the file: {e}"))
}

fn entry(e: files::Entry) -> Entry {
    Entry {
        name: e.name.to_string_lossy().into_owned(),
        kind: match e.kind {
            files::FileKind::File => EntryKind::File,
            files::FileKind::Directory => EntryKind::Dir,
            files::FileKind::Symlink => EntryKind::Symlink,
            _ => EntryKind::Other,
        },
        size: e.size,
        mode: e.mode,
        modified: TimeMs(u64::try_from(e.mtime_ms).unwrap_or(0)),
        target: e.target.map(|t| t.to_string_lossy().into_owned()),
    }
}

/// As root the sandbox's disk is seen through its ids, so on disk they begin at 0; a user's sandbox has one id only.
fn uid_base() -> Option<u32> {
    rustix::process::geteuid().is_root().then_some(0)
}

impl HostFiles for EngineFiles {
    fn fresh(&self, to: &Path) -> bool {
        let made = prism_sandbox::fresh(to);
        made.inspect_err(|e| tracing::debug!(error = %e, "no scratch directory is made ahead"))
            .is_ok()
    }

    fn recycle(&self, scratch: &Path, to: &Path) -> bool {
        prism_sandbox::recycle(scratch, to).unwrap_or_else(|e| {
            tracing::debug!(error = %e, "a scratch directory is not used again");
            false
        })
    }

    fn read(
        &self,
        id: &RunId,
        path: &str,
        offset: u64,
        max: usize,
    ) -> Result<(Vec<u8>, bool), RuntimeError> {
        let mut file = self
            .root(id)?
            .open_file(OsStr::new(path))
            .map_err(file_error)?;
        file.seek(SeekFrom::Start(offset))
            .map_err(|e| io_error(&e))?;
        let mut data = Vec::new();
        file.by_ref()
            .take(max as u64)
            .read_to_end(&mut data)
            .map_err(|e| io_error(&e))?;
        let end = data.len() < max || offset + data.len() as u64 >= file.size;
        Ok((data, end))
    }

    fn write(&self, id: &RunId, path: &str, data: &[u8], mode: u32) -> Result<(), RuntimeError> {
        let options = WriteOptions {
            mode: Some(mode),
            owner: None,
            bytes_max: WRITE_MAX,
        };
        self.root(id)?
            .write(OsStr::new(path), &mut &data[..], &options)
            .map(|_| ())
            .map_err(file_error)
    }

    fn list(&self, id: &RunId, path: &str) -> Result<Vec<Entry>, RuntimeError> {
        let listing = self
            .root(id)?
            .list(OsStr::new(path), LIST_MAX)
            .map_err(file_error)?;
        Ok(listing.entries.into_iter().map(entry).collect())
    }

    fn stat(&self, id: &RunId, path: &str) -> Result<Entry, RuntimeError> {
        self.root(id)?
            .stat(OsStr::new(path))
            .map(entry)
            .map_err(file_error)
    }

    fn mkdir(&self, id: &RunId, path: &str) -> Result<(), RuntimeError> {
        self.root(id)?
            .mkdir(OsStr::new(path), None)
            .map_err(file_error)
    }

    fn remove(&self, id: &RunId, path: &str) -> Result<(), RuntimeError> {
        self.root(id)?
            .remove(OsStr::new(path), true)
            .map_err(file_error)
    }

    fn snapshot(&self, scratch: &Path, archive: &Path) -> Result<Saved, RuntimeError> {
        let saved = snapshot::snapshot(
            &scratch.join("upper"),
            archive,
            uid_base(),
            Limits::SNAPSHOT,
        );
        saved
            .map(|s| Saved {
                bytes: s.bytes,
                entries: s.files,
            })
            .map_err(snapshot_error)
    }

    fn restore(&self, archive: &Path, scratch: &Path) -> Result<(), RuntimeError> {
        let upper = scratch.join("upper");
        std::fs::create_dir_all(scratch).map_err(|e| {
            RuntimeError::Unavailable(format!("cannot make {}: {e}", scratch.display()))
        })?;
        snapshot::restore(archive, &upper, uid_base(), Limits::SNAPSHOT)
            .map(|_| ())
            .map_err(snapshot_error)
    }

    fn image_load(&self, path: &Path, name: Option<&str>) -> Result<String, RuntimeError> {
        self.images
            .load(path, name)
            .map(|i| i.name.to_string())
            .map_err(image_error)
    }

    fn images(&self) -> Result<Vec<String>, RuntimeError> {
        let list = self.images.list().map_err(image_error)?;
        Ok(list.into_iter().map(|i| i.name.to_string()).collect())
    }

    fn image(&self, name: &str) -> Result<ImageInfo, RuntimeError> {
        let found = self.images.resolve(name).map_err(image_error)?;
        let env = found.config.env.iter().filter_map(|e| e.split_once('='));
        Ok(ImageInfo {
            name: found.name.to_string(),
            digest: found.digest,
            layers: found.layers,
            env: env.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        })
    }
}
