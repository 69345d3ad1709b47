//! Restoring a backup into a cluster that has nothing in it: all of it or nothing, whatever happens meanwhile.
//!
//! A marker is committed first, then what an empty cluster has nothing of, in pieces, and at last, in one batch, the rest of the state
//! together with the end of the marker. Whoever takes the leadership and finds the marker removes what was written so far. The leader
//! does it between two rounds, and starts anew from the store when it is done.

use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::sync::atomic::Ordering;

use prism_backup::{BackupError, Head, Item, Reader};
use prism_state::{
    BACKUP_PREFIXES, BackupOf, KeyValue, Origin, RESTORED_FIRST, Restored, State, decode_blob,
    decode_results,
};
use prism_store::{Batch, BoxFuture, KeyRange, MAX_BATCH_BYTES, Store, StoreError};
use prism_types::{Fence, Reason, Rejection, TimeMs};
use tokio::sync::oneshot;

use crate::handle::{gone, stopped};
use crate::leader::Leader;
use crate::{Control, ControlError};

/// Says that a restore is under way.
const MARKER: &str = "restoring";
/// Bytes of a batch on the way.
const BATCH: usize = 4 << 20;
/// Keys that are removed at once.
const REMOVED: usize = 4096;
/// Most bytes of events; a cluster keeps a bounded number of short ones.
const EVENTS: usize = 256 << 20;

/// A backup that can be read twice.
pub trait Source: Read + Seek + Send {}

impl<T: Read + Seek + Send> Source for T {}

/// What came of a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreOutcome {
    /// What it was a backup of.
    pub head: Head,
    /// Jobs.
    pub jobs: u32,
    /// Tasks that were on nodes, and are tried again.
    pub retried: u32,
    /// Sandboxes that ran, and are over.
    pub ended: u32,
    /// Events.
    pub events: u32,
}

/// A restore that waits for the loop.
pub(crate) struct Job {
    backup: Checked,
    origin: Option<Origin>,
    answer: oneshot::Sender<Result<RestoreOutcome, Rejection>>,
}

/// A backup that was read once, to its end.
struct Checked {
    source: Box<dyn Source>,
    head: Head,
    state: State,
    events: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn invalid(why: impl std::fmt::Display) -> Rejection {
    Rejection::new(
        Reason::Invalid,
        format!("the backup cannot be used: {why}; nothing was changed"),
    )
}

fn defect() -> Rejection {
    let why = "the state in the backup makes no sense, and a defect shows it; nothing was changed";
    Rejection::new(Reason::Internal, why)
}

fn is_payload(key: &[u8]) -> bool {
    key.starts_with(b"results/") || key.starts_with(b"blobs/")
}

/// Reads all of it, and keeps what is not to be read again.
fn check(mut source: Box<dyn Source>) -> Result<Checked, Rejection> {
    source.rewind().map_err(invalid)?;
    let mut reader = Reader::open(&mut source).map_err(invalid)?;
    let head = reader.head().clone();
    let (mut state, mut events, mut bytes) = (Vec::new(), BTreeMap::new(), 0usize);
    while let Some(Item { key, value }) = reader.next().map_err(invalid)? {
        let known = |prefix: &&str| key.starts_with(prefix.as_bytes());
        if !BACKUP_PREFIXES.iter().any(known) {
            let shown: String = String::from_utf8_lossy(&key).chars().take(100).collect();
            return Err(invalid(format!("{shown:?} does not belong in one")));
        }
        if key.len() + value.len() > MAX_BATCH_BYTES - BATCH {
            return Err(invalid("a value in it is larger than the store takes"));
        }
        if key.starts_with(b"events/") {
            bytes += key.len() + value.len();
            if bytes > EVENTS {
                return Err(invalid("it has more events than a cluster keeps"));
            }
            prism_state::decode_event(&key, &value).map_err(invalid)?;
            events.insert(key, value);
        } else if key.starts_with(b"results/") {
            decode_results(&key, &value).map_err(invalid)?;
        } else if key.starts_with(b"blobs/") {
            decode_blob(&key, &value).map_err(invalid)?;
        } else {
            state.push((key, value));
        }
    }
    let state = State::load(state).map_err(invalid)?;
    Ok(Checked {
        source,
        head,
        state,
        events,
    })
}

impl Control {
    /// Makes a backup's state that of this cluster, which has nothing in it. Afterwards this handle answers no more: the leader starts
    /// anew with what was restored.
    ///
    /// # Errors
    /// When the backup is none, is damaged or newer, or the cluster is not empty: nothing is changed then. When this server stops
    /// meanwhile, the cluster is empty afterwards, or whole.
    pub fn restore(
        &self,
        source: Box<dyn Source>,
        origin: Option<Origin>,
    ) -> BoxFuture<'_, Result<RestoreOutcome, Rejection>> {
        Box::pin(async move {
            self.read(prism_state::is_restorable).await?;
            let backup = tokio::task::spawn_blocking(move || check(source));
            let backup = backup.await.unwrap_or_else(|_| Err(defect()))?;
            let (answer, done) = oneshot::channel();
            let job = Job {
                backup,
                origin,
                answer,
            };
            let sent = self.shared.restores.send(job).await;
            sent.map_err(|_| gone())?;
            done.await.unwrap_or_else(|_| Err(stopped()))
        })
    }
}

/// Removes what a restore that broke off has left.
pub(crate) async fn sweep(store: &dyn Store, fence: Fence) -> Result<(), ControlError> {
    let marker = store.get(MARKER.as_bytes(), None).await;
    if marker.map_err(ControlError::Store)?.is_none() {
        return Ok(());
    }
    tracing::warn!("a restore broke off: what it had written is removed, and the cluster is empty");
    for prefix in RESTORED_FIRST {
        let range = KeyRange::prefix(*prefix);
        loop {
            let page = store.range(range.clone(), None, REMOVED).await;
            let page = page.map_err(ControlError::Store)?;
            let mut batch = Batch::new();
            batch.deletes.extend(page.items.into_iter().map(|i| i.key));
            if batch.is_empty() {
                break;
            }
            commit(store, fence, batch).await?;
        }
    }
    commit(store, fence, Batch::new().delete(MARKER)).await
}

async fn commit(store: &dyn Store, fence: Fence, batch: Batch) -> Result<(), ControlError> {
    let done = store.commit(fence, batch).await;
    done.map(drop).map_err(ControlError::Store)
}

fn add(batch: &mut Batch, (key, value): KeyValue) {
    match value {
        Some(value) => batch.puts.push((key.into(), value.into())),
        None => batch.deletes.push(key.into()),
    }
}

/// The next results and files of a backup, as a batch; an empty one is the end.
fn payload(
    mut reader: Reader<Box<dyn Source>>,
) -> Result<(Batch, Reader<Box<dyn Source>>), BackupError> {
    let (mut batch, mut bytes) = (Batch::new(), 0);
    while bytes < BATCH {
        let Some(Item { key, value }) = reader.next()? else {
            break;
        };
        if is_payload(&key) {
            bytes += key.len() + value.len();
            batch.puts.push((key.into(), value.into()));
        }
    }
    Ok((batch, reader))
}

impl Leader {
    /// Restores, and answers. What is refused changes nothing, and this leader goes on; otherwise it ends.
    pub(crate) async fn restore(&mut self, job: Job) -> Result<(), ControlError> {
        let Job {
            backup,
            origin,
            answer,
        } = job;
        let Checked {
            source,
            head,
            state,
            events,
        } = backup;
        let made = self.made(state, events, &head, origin).await;
        let made = made.and_then(|made| {
            let bytes: usize = made.last.iter().map(pair_bytes).sum();
            match bytes + BATCH > MAX_BATCH_BYTES {
                true => Err(invalid(
                    "its tokens, events and keys are too many to be written at once",
                )),
                false => Ok(made),
            }
        });
        let made = match made {
            Ok(made) => made,
            Err(why) => {
                // Whoever asked may be gone.
                let _gone = answer.send(Err(why));
                return Ok(());
            }
        };
        let outcome = RestoreOutcome {
            head,
            jobs: made.jobs,
            retried: made.retried,
            ended: made.ended,
            events: made.events,
        };
        let written = self.write(source, made).await;
        // What is in memory is not what is stored, whatever came of it.
        self.control.shared.over.store(true, Ordering::SeqCst);
        match written {
            Ok(()) => {
                let _gone = answer.send(Ok(outcome));
                Err(ControlError::Replaced)
            }
            Err(Broken::Source(why)) => {
                let _gone = answer.send(Err(invalid(why)));
                Err(ControlError::Replaced)
            }
            Err(Broken::Store(why)) => {
                let _gone = answer.send(Err(stopped()));
                Err(why)
            }
        }
    }

    /// What is to be written, made where a defect harms nobody.
    async fn made(
        &self,
        state: State,
        events: BTreeMap<Vec<u8>, Vec<u8>>,
        head: &Head,
        origin: Option<Origin>,
    ) -> Result<Restored, Rejection> {
        let own = self.control.read(|own| {
            prism_state::is_restorable(own)?;
            Ok::<_, Rejection>(own.clone())
        });
        let (own, now) = (own.await?, self.control.now());
        let now: TimeMs = now.max(state.latest_time());
        let of = BackupOf {
            cluster: head.cluster.chars().take(100).collect(),
            revision: head.revision,
        };
        let made = tokio::task::spawn_blocking(move || {
            prism_state::restore(state, events, &own, &of, origin.as_ref(), now)
        });
        made.await.unwrap_or_else(|_| Err(defect()))
    }

    async fn write(&self, source: Box<dyn Source>, made: Restored) -> Result<(), Broken> {
        let (store, fence) = (&*self.control.shared.store, self.leadership.fence);
        commit(store, fence, Batch::new().put(MARKER, "1")).await?;
        let mut batch = Batch::new();
        let mut bytes = 0;
        for pair in made.first {
            bytes += pair_bytes(&pair);
            add(&mut batch, pair);
            if bytes > BATCH {
                bytes = 0;
                commit(store, fence, std::mem::take(&mut batch)).await?;
            }
        }
        commit(store, fence, batch).await?;
        let begin = move || {
            let mut source = source;
            source.rewind()?;
            Reader::open(source)
        };
        let mut reader = blocking(begin).await?;
        loop {
            let (batch, next) = blocking(move || payload(reader)).await?;
            if batch.is_empty() {
                break;
            }
            commit(store, fence, batch).await?;
            reader = next;
        }
        let mut last = Batch::new().delete(MARKER);
        for pair in made.last {
            add(&mut last, pair);
        }
        Ok(commit(store, fence, last).await?)
    }
}

fn pair_bytes((key, value): &KeyValue) -> usize {
    key.len() + value.as_ref().map_or(0, Vec::len)
}

/// Why it is not written.
enum Broken {
    Source(BackupError),
    Store(ControlError),
}

impl From<BackupError> for Broken {
    fn from(why: BackupError) -> Self {
        Self::Source(why)
    }
}

impl From<ControlError> for Broken {
    fn from(why: ControlError) -> Self {
        Self::Store(why)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T, Broken> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|e| Err(std::io::Error::other(e).into()));
    done.map_err(Broken::Source)
}

impl From<StoreError> for Broken {
    fn from(why: StoreError) -> Self {
        Self::Store(ControlError::Store(why))
    }
}
