//! Group commit: everything that waits when the log is ready for more becomes one entry. Many callers, one write, one
//! sync. Called by `store`; proposes to consensus; the state machine's answer goes straight to each caller.

use std::collections::VecDeque;
use std::sync::Arc;

use openraft::errors::ClientWriteError;
use openraft::raft::ClientWriteResult;
use prism_store::{Leadership, Revision, SharedTable, StoreError};
use prism_types::Fence;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::command::{Answer, Command, Proposal, Write};
use crate::raft::{Raft, Reply, Types};

/// Callers that may wait in the queue; more wait for a place in it.
pub(crate) const WAITING: usize = 8192;
/// Batches that become one entry at most. Few enough that an entry is still in the processor's caches when it is applied, and that
/// the callers of one are at work while the next is synced (with 1,024 callers a sixth more commits than without a bound).
const GROUP: usize = 512;
/// Bytes of batches that become one entry at most, unless a single batch is larger.
const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// Entries under way at once: while one is being synced, the next is put together and waits behind it.
const UNDER_WAY: usize = 4;

type Done<T> = oneshot::Sender<Result<T, StoreError>>;

/// What a caller waits for.
pub(crate) enum Job {
    Commit(Write, Done<Revision>),
    Lead(Done<Leadership>),
    Compact(Revision, Done<()>),
    Stop,
}

/// Who waits for an entry.
enum Callers {
    Commit(Vec<(Fence, Done<Revision>)>),
    Lead(Done<Leadership>),
    Compact(Revision, Done<()>),
}

/// Turns jobs into entries until it is stopped.
pub(crate) async fn run(raft: Raft, table: Arc<SharedTable>, mut jobs: mpsc::Receiver<Job>) {
    let permits = Arc::new(Semaphore::new(UNDER_WAY));
    let mut waiting = VecDeque::new();
    let mut taken = Vec::new();
    loop {
        // First the permit: whatever arrives while the log is busy joins the group.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        if waiting.len() < GROUP {
            if waiting.is_empty() && jobs.recv_many(&mut taken, GROUP).await == 0 {
                return;
            }
            while taken.len() < GROUP {
                let Ok(job) = jobs.try_recv() else { break };
                taken.push(job);
            }
            waiting.extend(taken.drain(..));
        }
        let Some((command, callers)) = group(&mut waiting) else {
            return;
        };
        if !propose(&raft, &table, permit, command, callers).await {
            return;
        }
    }
}

/// Takes the next entry's worth from the front; `None` says to stop.
fn group(waiting: &mut VecDeque<Job>) -> Option<(Command, Callers)> {
    let mut writes = Vec::new();
    let mut callers = Vec::new();
    let mut bytes = 0;
    while writes.len() < GROUP && bytes < GROUP_BYTES {
        match waiting.pop_front() {
            Some(Job::Commit(write, done)) => {
                bytes += write.batch.bytes();
                callers.push((write.fence, done));
                writes.push(write);
            }
            Some(other) if !writes.is_empty() => {
                waiting.push_front(other);
                break;
            }
            Some(Job::Lead(done)) => return Some((Command::Grant, Callers::Lead(done))),
            Some(Job::Compact(to, done)) => {
                return Some((Command::Compact(to), Callers::Compact(to, done)));
            }
            Some(Job::Stop) => return None,
            None => break,
        }
    }
    Some((Command::Commit(writes), Callers::Commit(callers)))
}

/// Hands an entry to consensus; returns false when consensus has stopped.
async fn propose(
    raft: &Raft,
    table: &Arc<SharedTable>,
    permit: OwnedSemaphorePermit,
    command: Command,
    callers: Callers,
) -> bool {
    let table = Arc::clone(table);
    let reply = Reply::new(move |result: ClientWriteResult<Types>| {
        drop(permit);
        match result {
            Ok(response) => callers.answer(response.data, &table),
            Err(error) => callers.refuse(&not_written(&error)),
        }
    });
    let proposal = Proposal(Arc::new(command));
    // A caller whose reply is dropped unanswered learns that the outcome is unknown.
    raft.client_write_ff(proposal, Some(reply)).await.is_ok()
}

/// What an error of consensus means for the write.
fn not_written(error: &ClientWriteError<Types>) -> StoreError {
    match error {
        ClientWriteError::ForwardToLeader(to) => StoreError::NotLeader {
            leader: match to.leader_id {
                Some(id) => format!("server {id} does"),
                None => "no leader is known".to_owned(),
            },
        },
        other => StoreError::Unanswered(other.to_string()),
    }
}

fn send<T>(done: Done<T>, result: Result<T, StoreError>) {
    // A caller that has gone away does not want to know.
    let _gone = done.send(result);
}

impl Callers {
    fn answer(self, answer: Answer, table: &SharedTable) {
        match (self, answer) {
            (Self::Commit(callers), Answer::Commit(results)) => {
                for ((fence, done), result) in callers.into_iter().zip(results) {
                    let result = result.map_err(|no| no.into_error(fence, Revision(0)));
                    send(done, result);
                }
            }
            (Self::Lead(done), Answer::Grant(fence)) => send(done, Ok(table.leadership(fence))),
            (Self::Compact(to, done), Answer::Compact(result)) => {
                send(done, result.map_err(|no| no.into_error(Fence(0), to)));
            }
            (callers, answer) => {
                let why = format!("an entry was answered with {answer:?}");
                callers.refuse(&StoreError::Unanswered(why));
            }
        }
    }

    fn refuse(self, error: &StoreError) {
        match self {
            Self::Commit(callers) => {
                for (_, done) in callers {
                    send(done, Err(error.clone()));
                }
            }
            Self::Lead(done) => send(done, Err(error.clone())),
            Self::Compact(_, done) => send(done, Err(error.clone())),
        }
    }
}
