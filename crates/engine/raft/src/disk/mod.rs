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
mod room;
mod small;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use fatal::{Vital, fatal};
pub(crate) use format::prepare;
pub(crate) use lock::DirLock;
pub(crate) use room::Room;
pub(crate) use small::{Tail, TailFile, read_vote, write_vote};

use prism_faults::{Id, id, point};

use crate::{Config, OpenError};

/// Makes what was written to a file durable.
pub(crate) type Sync = fn(&File) -> io::Result<()>;

/// The real one: data and the metadata needed to read it back.
pub(crate) fn sync_file(file: &File) -> io::Result<()> {
    file.sync_data()
}

/// A sync that takes longer is told of.
const SLOW: Duration = Duration::from_secs(1);

/// The failpoints of one replacement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steps {
    before_write: Id,
    before_sync: Id,
    before_rename: Id,
    after: Id,
}

/// Of the file `format`.
pub(crate) const FORMAT: Steps = Steps {
    before_write: id!("raft.format.before_write"),
    before_sync: id!("raft.format.before_sync"),
    before_rename: id!("raft.format.before_rename"),
    after: id!("raft.format.after"),
};

/// Of the first file `tail`.
pub(crate) const TAIL: Steps = Steps {
    before_write: id!("raft.tail_file.before_write"),
    before_sync: id!("raft.tail_file.before_sync"),
    before_rename: id!("raft.tail_file.before_rename"),
    after: id!("raft.tail_file.after"),
};

/// Of a segment.
pub(crate) const SEGMENT: Steps = Steps {
    before_write: id!("raft.segment.before_write"),
    before_sync: id!("raft.segment.before_sync"),
    before_rename: id!("raft.segment.before_rename"),
    after: id!("raft.segment.after"),
};

/// Of the file `vote`.
pub(crate) const VOTE: Steps = Steps {
    before_write: id!("raft.vote.before_write"),
    before_sync: id!("raft.vote.before_sync"),
    before_rename: id!("raft.vote.before_rename"),
    after: id!("raft.vote.after"),
};

/// Of the file `snapshot`.
pub(crate) const SNAPSHOT: Steps = Steps {
    before_write: id!("raft.snapshot.before_write"),
    before_sync: id!("raft.snapshot.before_sync"),
    before_rename: id!("raft.snapshot.before_rename"),
    after: id!("raft.snapshot.after"),
};

/// The directory of one open store.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    dir: Arc<Path>,
    sync: Sync,
    /// Room set aside in a fresh log segment, in bytes.
    pub(crate) room: u64,
    /// What waits while the disk is full.
    pub(crate) full: Arc<Room>,
    /// Held as long as anything may write to the directory.
    pub(crate) lock: Arc<DirLock>,
}

impl Disk {
    /// Locks the directory of a store.
    pub(crate) fn take(config: &Config, sync: Sync) -> Result<Self, OpenError> {
        let dir = &config.dir;
        point!("raft.dir.before_make")
            .and_then(|()| fs::create_dir_all(dir))
            .and_then(|()| point!("raft.dir.after_make"))
            .map_err(OpenError::io("make", dir))?;
        Ok(Self {
            dir: Arc::from(dir.as_path()),
            sync,
            room: config.segment_bytes,
            full: Arc::new(Room::default()),
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
        self.sync_after(Ok(()), file, path);
    }

    /// The same, unless a test wants another error first.
    pub(crate) fn sync_after(&self, before: io::Result<()>, file: &File, path: &Path) {
        let began = Instant::now();
        before
            .and_then(|()| (self.sync)(file))
            .unwrap_or_else(|error| fatal("sync", path, &error));
        let took = began.elapsed();
        if took > SLOW {
            tracing::warn!(
                file = %path.display(),
                took_ms = took.as_millis(),
                "the disk is slow: everything waited for one write to be durable"
            );
        }
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
        steps: &Steps,
        path: &Path,
        fill: impl FnOnce(&mut File) -> io::Result<T>,
    ) -> T {
        let beside = path.with_extension("tmp");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        let written = steps
            .before_write
            .pass()
            .and_then(|()| options.open(&beside))
            .and_then(|mut file| Ok((fill(&mut file)?, file)));
        let (answer, file) = written.unwrap_or_else(|error| fatal("write", &beside, &error));
        self.sync_after(steps.before_sync.pass(), &file, &beside);
        steps
            .before_rename
            .pass()
            .and_then(|()| fs::rename(&beside, path))
            .unwrap_or_else(|error| fatal("rename", path, &error));
        let dir = path.parent().unwrap_or(&self.dir);
        self.sync_dir(dir);
        let after = steps.after.pass();
        after.unwrap_or_else(|error| fatal("sync", dir, &error));
        answer
    }

    /// As [`Disk::replace`], with content that is at hand.
    pub(crate) fn replace_with(&self, steps: &Steps, path: &Path, content: &[u8]) {
        self.replace(steps, path, |file| file.write_all(content));
    }
}
