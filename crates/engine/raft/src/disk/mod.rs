//! The directory of a store: its lock, its format, small checked files, and the one way a file is made durable.
//!
//! ```text
//! format    one line of text; written last when a store is made, so that its absence means "not made"
//! lock      held by the process that has the store open
//! vote      the vote of this server, replaced as a whole
//! tail      how far the log is known to be durable, overwritten in place, never synced by itself
//! snapshot  the state up to some entry, replaced as a whole
//! log/      the entries, in segments
//! ```

mod fatal;
mod format;
mod lock;
mod small;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use fatal::fatal;
pub(crate) use format::prepare;
pub(crate) use lock::DirLock;
pub(crate) use small::{Tail, TailFile, read_vote, write_vote};

use crate::{Config, OpenError};

/// Makes what was written to a file durable.
pub(crate) type Sync = fn(&File) -> io::Result<()>;

/// The real one: data and the metadata needed to read it back.
pub(crate) fn sync_file(file: &File) -> io::Result<()> {
    file.sync_data()
}

/// The directory of one open store.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    dir: Arc<Path>,
    sync: Sync,
    /// Room set aside in a fresh log segment, in bytes.
    pub(crate) room: u64,
    /// Held as long as anything may write to the directory.
    pub(crate) lock: Arc<DirLock>,
}

impl Disk {
    /// Locks the directory of a store.
    pub(crate) fn take(config: &Config, sync: Sync) -> Result<Self, OpenError> {
        let dir = &config.dir;
        fs::create_dir_all(dir).map_err(OpenError::io("make", dir))?;
        Ok(Self {
            dir: Arc::from(dir.as_path()),
            sync,
            room: config.segment_bytes,
            lock: Arc::new(DirLock::take(dir)?),
        })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn log_dir(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Makes a file durable, or ends the process.
    pub(crate) fn sync(&self, file: &File, path: &Path) {
        (self.sync)(file).unwrap_or_else(|error| fatal("sync", path, &error));
    }

    /// Makes the names in a directory durable, or ends the process.
    pub(crate) fn sync_dir(&self, dir: &Path) {
        let opened = File::open(dir).unwrap_or_else(|error| fatal("open", dir, &error));
        self.sync(&opened, dir);
    }

    /// Puts a file under its name as a whole: whoever opens it sees the old content or the new one. The content is
    /// written by `fill` to a file beside it first. A failure ends the process.
    pub(crate) fn replace<T>(
        &self,
        path: &Path,
        fill: impl FnOnce(&mut File) -> io::Result<T>,
    ) -> T {
        let beside = path.with_extension("tmp");
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&beside)
            .and_then(|mut file| Ok((fill(&mut file)?, file)));
        let (answer, file) = written.unwrap_or_else(|error| fatal("write", &beside, &error));
        self.sync(&file, &beside);
        fs::rename(&beside, path).unwrap_or_else(|error| fatal("rename", path, &error));
        self.sync_dir(path.parent().unwrap_or(&self.dir));
        answer
    }

    /// As [`Disk::replace`], with content that is at hand.
    pub(crate) fn replace_with(&self, path: &Path, content: &[u8]) {
        self.replace(path, |file| file.write_all(content));
    }
}
