//! The decision: a command against the state gives changes, actions and an answer, or a rejection that changes nothing.
//!
//! One file per family of commands; each works on a [`Draft`](draft::Draft), which sees its own writes and turns them into
//! changes at the end. Called by the control loop only.

mod assign;
mod draft;
mod drain;
mod finish;
mod gossip;
mod job;
mod job_draft;
mod join;
mod namespace;
mod node;
mod progress;
mod recover;
mod restore;
mod rotation;
mod sandbox;
mod settle;
mod single;
mod submit;
mod task;
mod tick;
mod token;

use std::sync::Arc;

use prism_types::{Millis, Reason, Rejection, TimeMs};

use crate::{
    Change, Changes, Command, IdempotencyKey, KeyRecord, Origin, Proposal, Reply, State,
    TokenRecord,
};
use draft::Draft;
pub use restore::{
    BACKUP_PREFIXES, BackupOf, RESTORED_FIRST, Restored, is_empty as is_restorable, restore,
};

pub(crate) use drain::next as next_drain;

/// How long an idempotency key is remembered.
pub const KEY_MEMORY: Millis = Millis(24 * 3_600_000);
/// Most idempotency keys remembered; beyond it the oldest is forgotten early.
pub const KEYS_MAX: usize = 100_000;
/// Longest idempotency key in bytes.
pub const KEY_LEN_MAX: usize = 200;

/// Decides a command.
///
/// # Errors
/// When it is refused; nothing changes then.
pub fn decide(state: &State, command: &Command, now: TimeMs) -> Result<Changes, Rejection> {
    decide_for(state, command, None, now)
}

/// Decides a command that may come from somebody, whose audit event then goes with what changes.
fn decide_for(
    state: &State,
    command: &Command,
    origin: Option<&Origin>,
    now: TimeMs,
) -> Result<Changes, Rejection> {
    let mut draft = Draft::new(state, now);
    let reply = carry_out(&mut draft, command)?;
    if let Some(origin) = origin {
        draft.audit(origin, command);
    }
    Ok(draft.finish(reply))
}

fn carry_out(d: &mut Draft<'_>, command: &Command) -> Result<Reply, Rejection> {
    match command {
        Command::Init { cluster } => node::init(d, *cluster),
        Command::RegisterNode(r) => node::register(d, r),
        Command::SetNodeState { id, state } => node::set_state(d, *id, *state),
        Command::TakeOver => Ok(single::take_over(d)),
        Command::Cordon { id, on } => node::cordon(d, *id, *on),
        Command::Drain { id, limit } => drain::begin(d, *id, *limit),
        Command::RemoveNode { id } => node::remove(d, *id),
        Command::SubmitJob(submission) => submit::submit(d, submission),
        Command::CancelJob { id } => job::cancel(d, *id),
        Command::PauseJob { id } => job::pause(d, *id),
        Command::ResumeJob { id } => job::resume(d, *id),
        Command::RetryJob { id } => job::retry(d, *id),
        Command::Assign(plan) => Ok(assign::assign(d, plan)),
        Command::Started { node, tasks } => Ok(task::started(d, *node, tasks)),
        Command::Finished { node, results } => Ok(finish::finished(d, *node, results)),
        Command::Returned { node, tasks } => Ok(task::returned(d, *node, tasks)),
        Command::Progress { node, metrics } => Ok(progress::progress(d, *node, metrics)),
        Command::Tick => Ok(tick::tick(d)),
        Command::CreateSandbox { id, spec } => sandbox::create(d, *id, spec),
        Command::SandboxReport { node, id, status } => Ok(sandbox::report(d, *node, *id, status)),
        Command::DeleteSandbox { id } => sandbox::delete(d, *id),
        Command::SetSandboxTimeout { id, until } => sandbox::set_timeout(d, *id, *until),
        Command::CreateToken {
            id,
            name,
            role,
            scope,
            by,
            hash,
            expires,
        } => {
            let new = TokenRecord {
                id: *id,
                name: name.clone(),
                role: *role,
                scope: (**scope).clone(),
                hash: *hash,
                created: d.now,
                expires: *expires,
            };
            token::create(d, new, *by)
        }
        Command::RevokeToken { id } => token::revoke(d, *id),
        Command::PutNamespace { name, quota, new } => namespace::put(d, name, quota, *new),
        Command::RemoveNamespace { name } => namespace::remove(d, name),
        // All that is wanted of it is its audit event.
        Command::Note { .. } => Ok(Reply::Ok),
        Command::CreateJoinToken(new) => join::create_token(d, new),
        Command::RevokeJoinToken { id } => join::revoke_token(d, *id),
        Command::Found { member, address } => join::found(d, member, address),
        Command::MoveServer { id, address } => join::move_server(d, *id, address),
        Command::Join(join) => join::join(d, join),
        Command::RemoveMember { id } => join::leave(d, *id),
        Command::RecoverAlone { id } => recover::alone(d, *id),
        Command::Deny { whom, why } => join::deny(d, *whom, why),
        Command::Allow { whom } => join::allow(d, *whom),
        Command::Rotate { old, new, again } => rotation::begin(d, old, new, *again),
        Command::Moved { pin, members } => Ok(rotation::moved(d, pin, members)),
        Command::EndRotation { force } => rotation::end(d, *force),
        Command::SetGossipKeys(keys) => gossip::set_keys(d, keys),
        Command::NoteServer { id, seen } => gossip::note(d, *id, *seen),
        Command::RetireServer { id, why } => gossip::retire(d, *id, why),
    }
}

/// Decides a command that may carry an idempotency key: a key seen before with the same request gets the same answer and
/// changes nothing.
///
/// # Errors
/// When the command is refused, or its key came with another request.
pub fn propose(state: &State, proposal: &Proposal, now: TimeMs) -> Result<Changes, Rejection> {
    let Some(key) = &proposal.key else {
        return decide_for(state, &proposal.command, proposal.origin.as_ref(), now);
    };
    if let Some(reply) = answered(state, key, now)? {
        return Ok(Changes {
            changes: Vec::new(),
            actions: Vec::new(),
            reply,
        });
    }
    let origin = proposal.origin.as_ref();
    let mut decided = decide_for(state, &proposal.command, origin, now)?;
    if state.keys.len() >= KEYS_MAX
        && let Some((_, oldest)) = state.index.key_timer.first()
    {
        decided.changes.push(Change::KeyRemoved(Arc::clone(oldest)));
    }
    let record = KeyRecord {
        digest: key.request_digest,
        reply: decided.reply.clone(),
        expires: now.after(KEY_MEMORY),
    };
    decided
        .changes
        .push(Change::Key(Arc::clone(&key.key), record));
    Ok(decided)
}

/// What a request with this key was answered, if it was carried out before.
///
/// # Errors
/// When the key came with another request, or is none.
pub fn answered(
    state: &State,
    key: &IdempotencyKey,
    now: TimeMs,
) -> Result<Option<Reply>, Rejection> {
    if key.key.is_empty() || key.key.len() > KEY_LEN_MAX {
        return Err(Rejection::new(
            Reason::Invalid,
            format!("an idempotency key has 1 to {KEY_LEN_MAX} bytes; send a shorter one"),
        ));
    }
    match state.keys.get(&key.key).filter(|k| k.expires > now) {
        None => Ok(None),
        Some(known) if known.digest == key.request_digest => Ok(Some(known.reply.clone())),
        Some(_) => Err(Rejection::new(
            Reason::KeyReused,
            "this idempotency key came with another request before; use a new key for a new request",
        )),
    }
}
