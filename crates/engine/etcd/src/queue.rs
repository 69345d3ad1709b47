//! Group commit: everything that waits when etcd has answered becomes the next entry. One entry is under way at a time, so that
//! what came of it is known before the next is built on it. Called by `store`.

use std::collections::VecDeque;
use std::sync::Arc;

use prism_store::{Batch, Leadership, Revision, StoreError};
use prism_types::Fence;
use tokio::sync::{mpsc, oneshot};

use crate::engine::{Engine, Held};
use crate::group::Group;
use crate::large::Form;
use crate::layout::{Change, Parts, Stage, What};
use crate::mirror::Entry;

/// Callers that may wait in the queue; more wait for a place in it.
pub(crate) const WAITING: usize = 8192;
/// Jobs that are taken from it at once.
const TAKEN: usize = 1024;

type Done<T> = oneshot::Sender<Result<T, StoreError>>;

/// What a caller waits for.
#[derive(Debug)]
pub(crate) enum Job {
    Commit(Fence, Batch, Form, Done<Revision>),
    Lead(Done<Leadership>),
    Compact(Revision, Done<()>),
    Stop,
}

fn send<T>(done: Done<T>, result: Result<T, StoreError>) {
    // A caller that has gone away does not want to know.
    let _gone = done.send(result);
}

/// Carries jobs out until it is told to stop.
pub(crate) async fn run(engine: Arc<Engine>, mut jobs: mpsc::Receiver<Job>) {
    let mut waiting = VecDeque::new();
    let mut taken = Vec::new();
    loop {
        if waiting.is_empty() && jobs.recv_many(&mut taken, TAKEN).await == 0 {
            return;
        }
        while taken.len() + waiting.len() < TAKEN {
            let Ok(job) = jobs.try_recv() else { break };
            taken.push(job);
        }
        waiting.extend(taken.drain(..));
        let Some(job) = waiting.pop_front() else {
            continue;
        };
        match job {
            Job::Stop => return,
            Job::Lead(done) => send(done, engine.take().await),
            Job::Compact(to, done) => send(done, engine.drop_before(to).await),
            Job::Commit(fence, batch, form, done) => match ready(&engine, fence).await {
                Err(error) => send(done, Err(error)),
                Ok(held) => match form {
                    Form::Whole => together(&engine, held, batch, done, &mut waiting).await,
                    Form::Parted(parted) => {
                        let mut group = Group::after(engine.mirror.head().1.revision);
                        group.add(batch, parted);
                        send(done, commit(&engine, held, group).await);
                    }
                    Form::Staged(parts, changes) => {
                        stage(&engine, held, (batch, parts, changes), done).await;
                    }
                },
            },
        }
    }
}

/// Whether a fence may write, with nothing half done before it.
async fn ready(engine: &Arc<Engine>, fence: Fence) -> Result<Held, StoreError> {
    let held = engine.may_write(fence)?;
    engine.unfold(held, None, Vec::new()).await?;
    Ok(held)
}

/// Commits one batch with those that wait right behind it.
async fn together(
    engine: &Arc<Engine>,
    held: Held,
    batch: Batch,
    done: Done<Revision>,
    waiting: &mut VecDeque<Job>,
) {
    let limit = engine.config.request_bytes;
    let before = engine.mirror.head().1.revision;
    let mut group = Group::after(before);
    group.add(batch, Vec::new());
    let mut callers = vec![done];
    while let Some(Job::Commit(fence, batch, Form::Whole, _)) = waiting.front() {
        if fence.0 != held.fence || !group.takes(batch, limit) {
            break;
        }
        if let Some(Job::Commit(_, batch, _, done)) = waiting.pop_front() {
            group.add(batch, Vec::new());
            callers.push(done);
        }
    }
    let result = commit(engine, held, group).await;
    for (revision, done) in (before + 1..).zip(callers) {
        send(done, result.clone().map(|_| Revision(revision)));
    }
}

async fn commit(engine: &Engine, held: Held, mut group: Group) -> Result<Revision, StoreError> {
    let (version, mut head) = engine.next_head();
    head.revision = group.revision();
    let count = u32::try_from(group.batches.len()).expect("a group is small");
    let operations = engine
        .mirror
        .parted(|old| group.operations(&engine.layout, old));
    head.what = What::Commits(count, std::mem::take(&mut group.hidden));
    let entry = Entry {
        version,
        head,
        batches: group.batches,
        parted: group.parted,
    };
    engine.propose(held, operations, entry).await
}

/// Makes a commit that lies in pieces, answers, and brings it into its keys.
async fn stage(
    engine: &Arc<Engine>,
    held: Held,
    (batch, parts, changes): (Batch, Parts, Vec<Change>),
    done: Done<Revision>,
) {
    let (version, mut head) = engine.next_head();
    head.revision += 1;
    head.what = What::Staged;
    head.pending = Some(Stage {
        parts,
        revision: head.revision,
        done: 0,
    });
    let old = |change: &Change| engine.mirror.parted(|all| all.get(&change.key).copied());
    let garbage: Vec<Parts> = changes.iter().filter_map(old).collect();
    let parted = changes.iter().filter_map(|change| match &change.to {
        crate::layout::To::Parts(parts) => Some((change.key.clone(), *parts)),
        _ => None,
    });
    let entry = Entry {
        version,
        head,
        batches: vec![batch],
        parted: parted.collect(),
    };
    let result = engine
        .propose(held, crate::json::Operations::default(), entry)
        .await;
    let made = result.is_ok();
    send(done, result);
    if made && let Err(error) = engine.unfold(held, Some(changes), garbage).await {
        tracing::warn!(%error, "a large commit is durable, but not yet in its keys; the next commit or leader goes on with it");
    }
}

impl Engine {
    /// Raises the floor.
    async fn drop_before(&self, to: Revision) -> Result<(), StoreError> {
        self.mirror.table.running()?;
        let status = self.mirror.table.status(true);
        if to > status.revision {
            let latest = status.revision;
            return Err(StoreError::Ahead { asked: to, latest });
        }
        let Some(held) = self.held() else {
            let leader = self.who_leads();
            return Err(StoreError::NotLeader { leader });
        };
        if to <= status.oldest {
            return Ok(());
        }
        let (version, mut head) = self.next_head();
        head.floor = to.0;
        head.what = What::Compacted;
        let entry = Entry {
            version,
            head,
            batches: Vec::new(),
            parted: Vec::new(),
        };
        let operations = crate::json::Operations::default();
        self.propose(held, operations, entry).await.map(|_| ())
    }
}
