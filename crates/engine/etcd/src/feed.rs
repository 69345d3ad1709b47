//! Reads what others write: a watch of everything beneath the prefix, from where the mirror is. While this server leads nobody else
//! writes, and only the seat is watched. A watch that breaks is opened again where it was; one that cannot go on
//! from there, because etcd dropped that history, is replaced by reading the state anew.

use std::sync::Arc;

use bytes::Bytes;
use prism_store::{Batch, Key};

use crate::client::Pause;
use crate::engine::{Engine, Held, Mode, Seat};
use crate::error::Fault;
use crate::json::{self, Event, Line, Pair, Seen};
use crate::layout::{Stage, To, What, stored};
use crate::load::{self, LoadError, gather, staged};
use crate::mirror::{Applied, Entry};

/// Why a watch ended.
#[derive(Debug)]
enum End {
    /// To be opened again.
    Broken(String),
    /// The state has to be read anew.
    Behind(String),
    /// Somebody removed the store's keys, or wrote what is not ours.
    Wrong(String),
}

impl From<LoadError> for End {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Fault(fault) => Self::Behind(fault.to_string()),
            LoadError::Open(error) => Self::Wrong(error.to_string()),
        }
    }
}

/// Keeps the mirror current until the store is closed.
pub(crate) async fn run(engine: Arc<Engine>) {
    let mut modes = engine.mode.subscribe();
    let mut pause = Pause::default();
    loop {
        let mode = *modes.borrow_and_update();
        let before = engine.mirror.version();
        let end = tokio::select! {
            // The sender lives in the engine that is held here.
            _changed = modes.changed() => continue,
            () = engine.poke.notified() => End::Behind("nothing comes on the watch".to_owned()),
            end = follow(&engine, mode) => end,
        };
        if engine.mirror.version() > before {
            pause = Pause::default();
        }
        match end {
            End::Broken(why) => tracing::debug!(why, "the watch of etcd is opened again"),
            End::Behind(why) => {
                tracing::info!(why, "the state is read anew from etcd");
                if let Err(why) = again(&engine, mode).await {
                    engine.mirror.table.stop(why);
                    return;
                }
            }
            End::Wrong(why) => {
                engine.mirror.table.stop(why);
                return;
            }
        }
        pause.wait().await;
    }
}

/// Reads what a watch would have said, when it cannot say it any more. Errors end the store.
async fn again(engine: &Engine, mode: Mode) -> Result<(), String> {
    if mode == Mode::Lead {
        // What was on the way when the watch ended is looked at, too.
        if let Err(fault) = look(engine).await {
            tracing::debug!(%fault, "who leads could not be read from etcd, trying again");
        }
        return Ok(());
    }
    let window = engine.mirror.window();
    match load::state(&engine.client, &engine.layout, window).await {
        Ok((table, position)) => engine.mirror.replace(table, position),
        Err(LoadError::Open(error)) => Err(error.to_string()),
        Err(LoadError::Fault(fault)) => {
            tracing::warn!(%fault, "the state cannot be read from etcd, trying again");
            Ok(())
        }
    }
}

/// Compares the seat and the number of entries with etcd: a change that a broken watch never told of shows here.
pub(crate) async fn look(engine: &Engine) -> Result<i64, Fault> {
    let held = engine.reign().held;
    let (_, pair) = load::one(&engine.client, &engine.layout.leader).await?;
    let seated = pair.as_ref().map(|pair| pair.mod_revision);
    match held {
        Some(held) if seated != Some(held.seated) => {
            unseat(engine, held, pair.as_ref());
        }
        Some(_) => {}
        None => {
            let seat = pair.and_then(|pair| serde_json::from_slice::<Seat>(&pair.value).ok());
            engine.seat.send_if_modified(|now| {
                let other = *now != seat;
                *now = seat;
                other
            });
        }
    }
    // After the seat, so that nothing of it is skipped by a watch from here.
    let (version, etcd) = engine.latest().await?;
    engine.mirror.current(version, etcd);
    Ok(version)
}

async fn follow(engine: &Engine, mode: Mode) -> End {
    let from = engine.mirror.etcd() + 1;
    let span = match mode {
        Mode::Follow => engine.layout.everything(),
        Mode::Lead => (engine.layout.leader.clone(), Vec::new()),
    };
    let body = Bytes::from(json::watch(&span, from));
    let mut lines = match engine.client.stream("/v3/watch", body).await {
        Ok(lines) => lines,
        Err(fault) => return End::Broken(fault.to_string()),
    };
    let mut collected = Collected::default();
    loop {
        let seen = match lines.next::<Line<Seen>>().await {
            Ok(Some(Line {
                error: Some(problem),
                ..
            })) => return End::Broken(problem.message),
            Ok(Some(line)) => line.result.unwrap_or_default(),
            Ok(None) => return End::Broken("it ended".to_owned()),
            Err(why) => return End::Broken(why),
        };
        if seen.compact_revision > 0 {
            return End::Behind(format!(
                "etcd dropped its history before {}",
                seen.compact_revision
            ));
        }
        if seen.canceled {
            return End::Broken(seen.cancel_reason);
        }
        for event in seen.events {
            let taken = match mode {
                Mode::Lead => {
                    seated(engine, &event);
                    Ok(())
                }
                Mode::Follow => collected.take(engine, event).await,
            };
            if let Err(end) = taken {
                return end;
            }
        }
    }
}

/// Looks at a change of the seat.
fn seated(engine: &Engine, event: &Event) {
    let pair = (!event.removes()).then_some(&event.kv);
    let seat = pair.and_then(|pair| serde_json::from_slice::<Seat>(&pair.value).ok());
    if seat
        .as_ref()
        .is_some_and(|seat| seat.writer == engine.writer)
    {
        return;
    }
    // An event of before this leadership says nothing about it.
    let held = engine.reign().held;
    if let Some(held) = held.filter(|held| event.kv.mod_revision > held.seated) {
        unseat(engine, held, pair);
    }
}

/// Ends a leadership because of what is on the seat; not another that this server got since.
fn unseat(engine: &Engine, held: Held, pair: Option<&Pair>) {
    let seat = pair.and_then(|pair| serde_json::from_slice::<Seat>(&pair.value).ok());
    let why = match &seat {
        Some(seat) => format!("{} took it", seat.name),
        None => "its lease ended in etcd, or somebody removed its key".to_owned(),
    };
    engine.seat.send_replace(seat);
    engine.depose(held.fence, &why);
}

/// The events of one revision of etcd, up to its head, which comes last.
#[derive(Debug, Default)]
struct Collected {
    etcd: i64,
    pairs: Vec<Pair>,
}

impl Collected {
    async fn take(&mut self, engine: &Engine, event: Event) -> Result<(), End> {
        let pair = event.kv.clone();
        if pair.mod_revision != self.etcd {
            self.stray(engine);
            self.etcd = pair.mod_revision;
        }
        if pair.key == engine.layout.leader {
            let seat = serde_json::from_slice::<Seat>(&pair.value).ok();
            engine.seat.send_replace(seat.filter(|_| !event.removes()));
            return Ok(());
        }
        if pair.key != engine.layout.head {
            // Removals of keys are in the head.
            if !event.removes() && engine.layout.name_of(&pair.key).is_some() {
                self.pairs.push(pair);
            }
            return Ok(());
        }
        if event.removes() {
            let head = engine.config.prefix.clone();
            return Err(End::Wrong(format!(
                "somebody removed {head}head from etcd, and with it what Prism knows; restore etcd from a backup"
            )));
        }
        let pairs = std::mem::take(&mut self.pairs);
        if pair.version <= engine.mirror.version() {
            return Ok(());
        }
        let entry = entry(engine, &pair, pairs).await?;
        match engine.mirror.apply(pair.mod_revision, &entry) {
            Applied::Yes => Ok(()),
            Applied::Gap => Err(End::Behind("entries are missing from the watch".to_owned())),
        }
    }

    fn stray(&mut self, engine: &Engine) {
        if let Some(pair) = self.pairs.first() {
            let key = pair.key.escape_ascii();
            let prefix = &engine.config.prefix;
            tracing::warn!(%key, prefix, "something else than Prism wrote beneath its prefix; that is not shown, remove it");
        }
        self.pairs.clear();
    }
}

/// The entry that a head and the keys beside it make.
async fn entry(engine: &Engine, pair: &Pair, pairs: Vec<Pair>) -> Result<Entry, End> {
    let Engine { client, layout, .. } = engine;
    let head = load::head_of(pair)?;
    let mut parted: Vec<(Key, crate::layout::Parts)> = Vec::new();
    let mut batches = Vec::new();
    match &head.what {
        What::Step | What::Granted | What::Compacted => {}
        What::Commits(count, hidden) => {
            batches.resize(*count as usize, Batch::new());
            let first = head.revision + 1 - u64::from(*count);
            let nth =
                |revision: u64| usize::try_from(revision.wrapping_sub(first)).unwrap_or(usize::MAX);
            for pair in pairs {
                let wrong = |why: String| End::Wrong(format!("{}: {why}", pair.key.escape_ascii()));
                let found = stored(&pair.value).map_err(wrong)?;
                let batch = batches.get_mut(nth(found.revision));
                let batch =
                    batch.ok_or_else(|| wrong("its revision is of another entry".to_owned()))?;
                let key = Key::from(layout.name_of(&pair.key).unwrap_or_default());
                let value = match found.to {
                    To::Value(value) => value,
                    To::Gone => continue,
                    To::Parts(parts) => {
                        parted.push((key.clone(), parts));
                        gather(client, layout, &parts, pair.mod_revision).await?
                    }
                };
                batch.puts.push((key, value));
            }
            for change in hidden {
                let Some(batch) = batches.get_mut(nth(change.revision)) else {
                    continue;
                };
                match &change.value {
                    Some(value) => batch.puts.push((change.key.clone(), value.clone())),
                    None => batch.deletes.push(change.key.clone()),
                }
            }
        }
        What::Staged => {
            if let Some(stage) = &head.pending {
                let batch = unstage(engine, stage, pair.mod_revision, &mut parted).await?;
                batches.push(batch);
            }
        }
    }
    Ok(Entry {
        version: pair.version,
        head,
        batches,
        parted,
    })
}

async fn unstage(
    engine: &Engine,
    stage: &Stage,
    etcd: i64,
    parted: &mut Vec<(Key, crate::layout::Parts)>,
) -> Result<Batch, End> {
    let Engine { client, layout, .. } = engine;
    let mut batch = Batch::new();
    for change in staged(client, layout, stage, etcd).await? {
        let value = match change.to {
            To::Value(value) => value,
            To::Gone => {
                batch.deletes.push(change.key);
                continue;
            }
            To::Parts(parts) => {
                parted.push((change.key.clone(), parts));
                gather(client, layout, &parts, etcd).await?
            }
        };
        batch.puts.push((change.key, value));
    }
    Ok(batch)
}
