//! The snapshot file: the whole state up to one entry, in checked blocks, replaced as a whole. Written in pages of the
//! pinned revision, so that neither writers nor memory feel it.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use openraft::RaftSnapshotBuilder;
use openraft::alias::SnapshotOf;
use prism_faults::point;
use prism_store::{Item, KeyRange, Revision, SnapshotPin, Table, Window};
use prism_types::Fence;
use serde::{Deserialize, Serialize};

use crate::OpenError;
use crate::disk::{Disk, SNAPSHOT, Vital};
use crate::raft::{LogId, Membership, SnapshotMeta, Types};

const MAGIC: &[u8; 8] = b"PRISMSNP";
const VERSION: u32 = 1;
const FILE_HEADER: usize = 12;
/// Items in a block at most.
const BLOCK_ITEMS: usize = 256;

/// A finished snapshot on disk.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFile(pub(crate) PathBuf);

/// One block of the file.
#[derive(Debug, Serialize, Deserialize)]
enum Block {
    Head(Head),
    Items(Vec<Item>),
    End { items: u64 },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Head {
    last: Option<LogId>,
    membership: Membership,
    revision: Revision,
    fence: Fence,
}

/// What a snapshot held.
pub(crate) struct Loaded {
    pub(crate) last: Option<LogId>,
    pub(crate) membership: Membership,
    pub(crate) table: Table,
    pub(crate) bytes: u64,
}

/// The snapshot of an open store.
#[derive(Debug)]
pub(crate) struct Snapshots {
    disk: Disk,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    meta: Option<SnapshotMeta>,
    bytes: u64,
    closed: bool,
}

impl Snapshots {
    /// Reads the snapshot, if there is one.
    pub(crate) fn open(
        disk: &Disk,
        window: Window,
    ) -> Result<(Arc<Self>, Option<Loaded>), OpenError> {
        let path = disk.path("snapshot");
        let loaded = match File::open(&path) {
            Ok(file) => Some(load(file, &path, window)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(OpenError::io("open", &path)(error)),
        };
        let mut state = State::default();
        if let Some(loaded) = &loaded {
            state.meta = Some(SnapshotMeta {
                last_log_id: loaded.last,
                last_membership: loaded.membership.clone(),
            });
            state.bytes = loaded.bytes;
        }
        let snapshots = Self {
            disk: disk.clone(),
            state: Mutex::new(state),
        };
        Ok((Arc::new(snapshots), loaded))
    }

    fn path(&self) -> PathBuf {
        self.disk.path("snapshot")
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("a failure to write ends the process, so the lock cannot be poisoned")
    }

    /// The latest snapshot.
    pub(crate) fn current(&self) -> Option<SnapshotOf<Types, SnapshotFile>> {
        let meta = self.state().meta.clone()?;
        Some(SnapshotOf::<Types, SnapshotFile> {
            meta,
            snapshot: SnapshotFile(self.path()),
        })
    }

    /// Bytes of the latest snapshot.
    pub(crate) fn bytes(&self) -> u64 {
        self.state().bytes
    }

    /// Whether something waits for room on the disk.
    pub(crate) fn is_disk_full(&self) -> bool {
        self.disk.full.is_full()
    }

    /// From now on a full disk is an error again.
    pub(crate) fn stop_waiting(&self) {
        self.disk.full.close();
    }

    /// Waits for a snapshot that is being written, and allows no other.
    pub(crate) fn close(&self) {
        self.state().closed = true;
    }

    /// Takes in a file that another server sent, and returns what it holds.
    pub(crate) fn install(&self, from: &Path, window: Window) -> io::Result<Loaded> {
        let mut state = self.state();
        let loaded = File::open(from)
            .map_err(OpenError::io("open", from))
            .and_then(|file| load(file, from, window))
            .map_err(io::Error::other)?;
        if from != self.path() {
            let mut source = File::open(from)?;
            self.disk
                .replace(&SNAPSHOT, &self.path(), |file| io::copy(&mut source, file));
        }
        state.meta = Some(SnapshotMeta {
            last_log_id: loaded.last,
            last_membership: loaded.membership.clone(),
        });
        state.bytes = loaded.bytes;
        Ok(loaded)
    }

    fn write(&self, head: &Head, pin: &SnapshotPin) -> io::Result<()> {
        let _vital = Vital("the writer of snapshots");
        let mut state = self.state();
        if state.closed {
            return Err(io::Error::other("the store is closing"));
        }
        let fill = |file: &mut File| {
            self.disk.full.wait(&self.path(), || {
                file.set_len(0)?;
                file.rewind()?;
                let mut sink = BufWriter::new(&mut *file);
                write_all(&mut sink, head, pin)?;
                sink.into_inner().map_err(io::IntoInnerError::into_error)?;
                file.metadata()
            })
        };
        state.bytes = self.disk.replace(&SNAPSHOT, &self.path(), fill).len();
        state.meta = Some(SnapshotMeta {
            last_log_id: head.last,
            last_membership: head.membership.clone(),
        });
        Ok(())
    }
}

fn write_all(sink: &mut impl Write, head: &Head, pin: &SnapshotPin) -> io::Result<()> {
    sink.write_all(MAGIC)?;
    sink.write_all(&VERSION.to_le_bytes())?;
    write_block(sink, &Block::Head(head.clone()))?;
    let mut items = 0;
    let mut range = KeyRange::all();
    loop {
        let page = pin.range(&range, BLOCK_ITEMS).map_err(io::Error::other)?;
        items += page.items.len() as u64;
        let next = page.items.last().filter(|_| page.more);
        let next = next.map(|last| range.clone().after(&last.key));
        if !page.items.is_empty() {
            write_block(sink, &Block::Items(page.items))?;
        }
        match next {
            Some(next) => range = next,
            None => break,
        }
    }
    write_block(sink, &Block::End { items })?;
    sink.flush()
}

fn write_block(sink: &mut impl Write, block: &Block) -> io::Result<()> {
    let body = postcard::to_stdvec(block).map_err(io::Error::other)?;
    let len = u64::try_from(body.len()).map_err(io::Error::other)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&len.to_le_bytes());
    hasher.update(&body);
    sink.write_all(&len.to_le_bytes())?;
    sink.write_all(&hasher.finalize().to_le_bytes())?;
    sink.write_all(&body)
}

/// Reads blocks one by one, keeping count of where it is.
struct Blocks<'a> {
    source: BufReader<File>,
    path: &'a Path,
    at: u64,
    size: u64,
}

impl Blocks<'_> {
    fn corrupt(&self, why: &str) -> OpenError {
        OpenError::corrupt(self.path, self.at, why)
    }

    fn bytes(&mut self, len: usize) -> Result<Vec<u8>, OpenError> {
        let mut bytes = vec![0; len];
        match self.source.read_exact(&mut bytes) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.corrupt("the file ends inside a block"))
            }
            Err(error) => Err(OpenError::io("read", self.path)(error)),
        }
    }

    fn block(&mut self) -> Result<Block, OpenError> {
        let head = self.bytes(12)?;
        let (len, crc) = head.split_at(8);
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(len);
        let len = len.iter().rev().fold(0, |n, b| (n << 8) | u64::from(*b));
        if len > self.size.saturating_sub(self.at) {
            return Err(self.corrupt("a block is longer than the file"));
        }
        let body = self.bytes(usize::try_from(len).unwrap_or(usize::MAX))?;
        hasher.update(&body);
        if crc != hasher.finalize().to_le_bytes() {
            return Err(self.corrupt("the checksum of a block does not match"));
        }
        let block = postcard::from_bytes(&body)
            .map_err(|error| self.corrupt(&format!("a block does not decode ({error})")))?;
        self.at += 12 + len;
        Ok(block)
    }
}

fn load(file: File, path: &Path, window: Window) -> Result<Loaded, OpenError> {
    let size = file.metadata().map_err(OpenError::io("read", path))?.len();
    let mut blocks = Blocks {
        source: BufReader::new(file),
        path,
        at: 0,
        size,
    };
    let header = blocks.bytes(FILE_HEADER)?;
    if header[..8] != *MAGIC {
        return Err(blocks.corrupt("it does not begin as a snapshot does"));
    }
    let version = header[8..]
        .iter()
        .rev()
        .fold(0, |n, b| (n << 8) | u64::from(*b));
    if version > u64::from(VERSION) {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            found: version,
            known: u64::from(VERSION),
        });
    }
    if version != u64::from(VERSION) {
        return Err(blocks.corrupt("its version is not one this program knows"));
    }
    blocks.at = FILE_HEADER as u64;
    let Block::Head(head) = blocks.block()? else {
        return Err(blocks.corrupt("its first block is not the head"));
    };
    let mut table = Table::restored(window, head.revision, head.fence);
    let mut count = 0;
    loop {
        match blocks.block()? {
            Block::Items(items) => {
                count += items.len() as u64;
                for item in items {
                    table.load(item.key, item.value, item.revision);
                }
            }
            Block::End { items } if items == count && blocks.at == size => break,
            _ => return Err(blocks.corrupt("its end is not where it should be")),
        }
    }
    Ok(Loaded {
        last: head.last,
        membership: head.membership,
        table,
        bytes: size,
    })
}

/// Writes one snapshot of the state that it pinned.
pub(crate) struct Builder {
    snapshots: Arc<Snapshots>,
    head: Head,
    pin: Arc<SnapshotPin>,
}

impl Builder {
    pub(crate) fn new(
        snapshots: &Arc<Snapshots>,
        pin: SnapshotPin,
        last: Option<LogId>,
        membership: Membership,
    ) -> Self {
        let head = Head {
            last,
            membership,
            revision: pin.revision,
            fence: pin.fence,
        };
        Self {
            snapshots: Arc::clone(snapshots),
            head,
            pin: Arc::new(pin),
        }
    }
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, SnapshotFile>, io::Error> {
        let (snapshots, head) = (Arc::clone(&self.snapshots), self.head.clone());
        let pin = Arc::clone(&self.pin);
        tokio::task::spawn_blocking(move || snapshots.write(&head, &pin))
            .await
            .map_err(io::Error::other)??;
        Ok(SnapshotOf::<Types, SnapshotFile> {
            meta: SnapshotMeta {
                last_log_id: self.head.last,
                last_membership: self.head.membership.clone(),
            },
            snapshot: SnapshotFile(self.snapshots.path()),
        })
    }
}

/// Removes what an interrupted replacement left behind.
pub(crate) fn sweep(disk: &Disk) -> Result<(), OpenError> {
    for dir in [disk.path(""), disk.log_dir()] {
        let Ok(entries) = fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                point!("raft.sweep.before_remove")
                    .and_then(|()| fs::remove_file(&path))
                    .map_err(OpenError::io("remove", &path))?;
            }
        }
    }
    Ok(())
}
