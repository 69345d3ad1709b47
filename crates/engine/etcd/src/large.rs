//! What is larger than a request. A large value is brought to etcd in pieces before the commit that refers to them; nobody
//! sees pieces that nothing refers to. A commit that is still too large for one transaction is written down whole in
//! pieces, then made by one small transaction that refers to it (from there on it is durable and every reader shows it),
//! and then brought into its keys step by step; whoever leads next goes on where that stopped.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prism_store::{Batch, Key, StoreError};
use prism_types::Fence;

use crate::client::Pause;
use crate::engine::{Engine, Held, unavailable};
use crate::error::Fault;
use crate::group::{fits, merged, write};
use crate::json::{self, Done, Holds, OPERATIONS, Operations};
use crate::layout::{Change, Parts, Stage, To, span};
use crate::load::{LoadError, staged};
use crate::mirror::Entry;

/// How a batch gets into etcd.
#[derive(Debug)]
pub(crate) enum Form {
    /// In one transaction, also together with others.
    Whole,
    /// In one transaction that refers to pieces.
    Parted(Vec<(Key, Parts)>),
    /// As a stage.
    Staged(Parts, Vec<Change>),
}

impl Engine {
    /// Brings what is too large of a batch to etcd, where nobody sees it yet.
    pub(crate) async fn prepare(&self, fence: Fence, batch: &Batch) -> Result<Form, StoreError> {
        let limit = self.config.request_bytes;
        if fits(batch, limit) {
            return Ok(Form::Whole);
        }
        let Ok(_place) = self.uploads.acquire().await else {
            return Err(StoreError::Stopped("it was closed".to_owned()));
        };
        let held = self.may_write(fence)?;
        // What is put twice counts once, and a batch may get small by that.
        let mut changes = merged(batch, &[]);
        let mut parted = Vec::new();
        for (key, to) in &mut changes {
            let To::Value(value) = to else { continue };
            if value.len() > limit / 2 {
                let parts = self.upload(held, value).await?;
                parted.push((key.clone(), parts));
                *to = To::Parts(parts);
            }
        }
        if fits(&rest(&changes), limit) {
            return Ok(Form::Parted(parted));
        }
        let changes: Vec<Change> = changes
            .into_iter()
            .map(|(key, to)| Change { key, to })
            .collect();
        let written = postcard::to_allocvec(&changes).expect("changes are plain data");
        let parts = self.upload(held, &Bytes::from(written)).await?;
        Ok(Form::Staged(parts, changes))
    }

    /// Brings bytes to etcd in pieces.
    async fn upload(&self, held: Held, bytes: &Bytes) -> Result<Parts, StoreError> {
        let size = self.config.request_bytes / 2;
        let parts = Parts {
            fence: held.fence,
            stamp: self.stamp(),
            count: u32::try_from(bytes.len().div_ceil(size)).unwrap_or(u32::MAX),
            bytes: bytes.len() as u64,
        };
        for (nth, piece) in (0..).zip(bytes.chunks(size)) {
            let mut operations = Operations::default();
            operations.put(&self.layout.part(&parts, nth), &[piece], 0);
            // A late repetition must not put back what a later leader removed.
            let holds = [Holds::Changed(&self.layout.leader, held.seated)];
            let body = json::transaction(&holds, operations, None, &[]);
            if let Err(error) = self.upload_one(held, body).await {
                if let Err(fault) = self.remove_parts(&parts.id()).await {
                    tracing::info!(%fault, "pieces of a commit that was given up stay until the next leader");
                }
                return Err(error);
            }
        }
        Ok(parts)
    }

    async fn upload_one(&self, held: Held, body: Bytes) -> Result<(), StoreError> {
        let mut pause = Pause::default();
        loop {
            if self.held() != Some(held) {
                return Err(self.not_ours(Fence(held.fence)));
            }
            match self.client.call::<Done>("/v3/kv/txn", body.clone()).await {
                Ok(done) if done.succeeded => return Ok(()),
                Ok(_) => {
                    self.depose(
                        held.fence,
                        "another server took it, or its lease ended in etcd",
                    );
                }
                Err(fault) if fault.passes() => pause.wait().await,
                Err(fault) => return Err(unavailable(&fault)),
            }
        }
    }

    /// Removes the pieces of one thing.
    pub(crate) async fn remove_parts(&self, id: &str) -> Result<(), Fault> {
        let mut operations = Operations::default();
        let (all, _) = self.layout.all_parts();
        operations.delete(&span(&[&all, id.as_bytes(), b"/"].concat()));
        let body = json::transaction(&[], operations, None, &[]);
        self.client
            .call::<Done>("/v3/kv/txn", body)
            .await
            .map(|_| ())
    }

    /// Brings a stage into its keys, if there is one; `changes` are its own when they are known here, `garbage` is what it replaces.
    pub(crate) async fn unfold(
        &self,
        held: Held,
        changes: Option<Vec<Change>>,
        garbage: Vec<Parts>,
    ) -> Result<(), StoreError> {
        let (_, head) = self.mirror.head();
        let Some(mut stage) = head.pending else {
            return Ok(());
        };
        let changes = match changes {
            Some(changes) => changes,
            None => self.read_stage(&stage).await?,
        };
        while let Some(next) = self.step(held, stage, &changes, &garbage).await? {
            stage = next;
        }
        Ok(())
    }

    /// One step of it; `None` after the last.
    pub(crate) async fn step(
        &self,
        held: Held,
        mut stage: Stage,
        changes: &[Change],
        garbage: &[Parts],
    ) -> Result<Option<Stage>, StoreError> {
        let mut operations = Operations::default();
        let (mut bytes, mut count) = (0, 0);
        let from = usize::try_from(stage.done).unwrap_or(usize::MAX);
        for change in changes.iter().skip(from).take(OPERATIONS / 2) {
            let value = if let To::Value(value) = &change.to {
                value.len()
            } else {
                64
            };
            let cost = change.key.len() + value + 64;
            if bytes + cost > self.config.request_bytes && count > 0 {
                break;
            }
            bytes += cost;
            count += 1;
            write(
                &mut operations,
                &self.layout,
                &change.key,
                stage.revision,
                &change.to,
            );
        }
        stage.done += count;
        let next = (stage.done < changes.len() as u64).then_some(stage);
        if next.is_none() {
            operations.delete(&span(&self.layout.parts_of(&stage.parts)));
            for parts in garbage.iter().take(OPERATIONS / 4) {
                operations.delete(&span(&self.layout.parts_of(parts)));
            }
        }
        let (version, mut head) = self.next_head();
        head.pending = next;
        let entry = Entry {
            version,
            head,
            batches: Vec::new(),
            parted: Vec::new(),
        };
        self.propose(held, operations, entry).await?;
        Ok(next)
    }

    async fn read_stage(&self, stage: &Stage) -> Result<Vec<Change>, StoreError> {
        let read = staged(&self.client, &self.layout, stage, 0).await;
        read.map_err(|error| match error {
            LoadError::Fault(fault) => unavailable(&fault),
            LoadError::Open(error) => StoreError::Stopped(error.to_string()),
        })
    }
}

/// What is left for a transaction when the pieces lie beside it.
fn rest(changes: &BTreeMap<Key, To>) -> Batch {
    let mut batch = Batch::new();
    for (key, to) in changes {
        batch = match to {
            To::Value(value) => batch.put(key.clone(), value.clone()),
            To::Parts(_) => batch.put(key.clone(), Bytes::from_static(&[0; 64])),
            To::Gone => batch.delete(key.clone()),
        };
    }
    batch
}

/// Turns the batch's form into what the queue takes, in a task of its own: a caller that goes away does not take it back.
pub(crate) async fn prepared(
    engine: Arc<Engine>,
    fence: Fence,
    batch: Batch,
) -> Result<(Batch, Form), StoreError> {
    let form = engine.prepare(fence, &batch).await?;
    Ok((batch, form))
}
