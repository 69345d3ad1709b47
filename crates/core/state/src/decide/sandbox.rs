//! Sandboxes: accepted, reported on, ended.
//!
//! ```text
//! PENDING -> STARTING -> RUNNING -> STOPPING -> STOPPED
//!    |           |          |----------------> FAILED (died, lost, could not start)
//!    +-> STOPPED (deleted or expired before it was placed)
//! ```

use std::sync::Arc;

use prism_spec::SandboxSpec;
use prism_types::{NodeId, Reason, Rejection, SandboxId, SandboxState, TimeMs};

use super::draft::Draft;
use crate::{Action, Change, Reply, SandboxRecord, SandboxStatus, Subject};

/// Most sandboxes kept, living or remembered.
const SANDBOXES_MAX: usize = 100_000;

pub(super) fn create(
    d: &mut Draft<'_>,
    id: SandboxId,
    spec: &Arc<SandboxSpec>,
) -> Result<Reply, Rejection> {
    if d.state.sandboxes.contains_key(&id) {
        let message = format!("there is a sandbox {id} already");
        return Err(Rejection::new(Reason::Conflict, message));
    }
    let named = spec.name.as_ref();
    let namespace = super::namespace::admit(d.state, &spec.namespace, &spec.resources, 0)?;
    let named = named.and_then(|n| d.state.index.sandbox_by_name.get(n));
    if let Some(other) = named.and_then(|by| by.get(&spec.namespace)) {
        return Err(Rejection::new(
            Reason::Conflict,
            format!("the name is taken by the living sandbox {other}; delete it or use another"),
        ));
    }
    if d.state.sandboxes.len() >= SANDBOXES_MAX {
        return Err(Rejection::retryable(
            Reason::Overloaded,
            format!("there are {SANDBOXES_MAX} sandboxes; delete some or try again later"),
        ));
    }
    let living = d.state.usage(&spec.namespace).sandboxes;
    if let Some(most) = namespace.quota.sandboxes.filter(|most| living >= *most) {
        return Err(Rejection::retryable(
            Reason::Overloaded,
            format!(
                "quota of namespace {}: sandboxes {living} of {most} in use; delete some or try again later",
                spec.namespace
            ),
        ));
    }
    d.changes.push(Change::Sandbox(SandboxRecord {
        id,
        spec: Arc::clone(spec),
        state: SandboxState::Pending,
        node: None,
        created: d.now,
        started: None,
        finished: None,
        expires: spec.timeout.map(|t| d.now.after(t)),
        reason: None,
        message: String::new(),
    }));
    d.event(
        "sandbox.created",
        Subject::Sandbox(id),
        None,
        "accepted".to_owned(),
    );
    Ok(Reply::SandboxCreated { id })
}

/// Ends a sandbox for good.
pub(super) fn end(
    d: &mut Draft<'_>,
    sandbox: &SandboxRecord,
    state: SandboxState,
    reason: Option<Reason>,
    message: String,
) {
    let kind = match state {
        SandboxState::Failed => "sandbox.failed",
        _ => "sandbox.stopped",
    };
    d.event(kind, Subject::Sandbox(sandbox.id), reason, message.clone());
    d.changes.push(Change::Sandbox(SandboxRecord {
        state,
        reason,
        message,
        finished: Some(d.now),
        ..sandbox.clone()
    }));
}

/// Begins to end a sandbox; one that is not placed is over at once.
pub(super) fn stop(d: &mut Draft<'_>, sandbox: &SandboxRecord, reason: Reason, why: &str) {
    let Some(node) = sandbox.node else {
        return end(
            d,
            sandbox,
            SandboxState::Stopped,
            Some(reason),
            why.to_owned(),
        );
    };
    d.changes.push(Change::Sandbox(SandboxRecord {
        state: SandboxState::Stopping,
        reason: Some(reason),
        message: why.to_owned(),
        expires: None,
        ..sandbox.clone()
    }));
    let id = sandbox.id;
    d.event(
        "sandbox.stopping",
        Subject::Sandbox(id),
        Some(reason),
        why.to_owned(),
    );
    d.actions.push(Action::StopSandbox { node, id });
}

pub(super) fn delete(d: &mut Draft<'_>, id: SandboxId) -> Result<Reply, Rejection> {
    let sandbox = known(d, id)?;
    let ending = sandbox.state == SandboxState::Stopping || sandbox.state.is_final();
    if !ending {
        stop(d, sandbox, Reason::Cancelled, "deleted by request");
    }
    Ok(Reply::Ok)
}

pub(super) fn set_timeout(
    d: &mut Draft<'_>,
    id: SandboxId,
    until: Option<TimeMs>,
) -> Result<Reply, Rejection> {
    let sandbox = known(d, id)?;
    if sandbox.state == SandboxState::Stopping || sandbox.state.is_final() {
        return Err(Rejection::new(
            Reason::WrongState,
            format!(
                "sandbox {id} is {}; its time cannot be extended",
                sandbox.state
            ),
        ));
    }
    if sandbox.expires != until {
        d.changes.push(Change::Sandbox(SandboxRecord {
            expires: until,
            ..sandbox.clone()
        }));
    }
    Ok(Reply::Ok)
}

fn known<'a>(d: &Draft<'a>, id: SandboxId) -> Result<&'a SandboxRecord, Rejection> {
    let sandbox = d.state.sandboxes.get(&id);
    sandbox.ok_or_else(|| Rejection::new(Reason::NotFound, format!("there is no sandbox {id}")))
}

pub(super) fn report(
    d: &mut Draft<'_>,
    node: NodeId,
    id: SandboxId,
    status: &SandboxStatus,
) -> Reply {
    let known = d.state.sandboxes.get(&id);
    let here = known.filter(|s| s.node == Some(node) && !s.state.is_final());
    let accepted = here.is_some_and(|sandbox| take_report(d, sandbox, status));
    Reply::Recorded {
        accepted: u32::from(accepted),
        duplicates: u32::from(!accepted),
    }
}

fn take_report(d: &mut Draft<'_>, sandbox: &SandboxRecord, status: &SandboxStatus) -> bool {
    let stopping = sandbox.state == SandboxState::Stopping;
    match status {
        SandboxStatus::Running { at } => {
            if sandbox.state != SandboxState::Starting {
                return false;
            }
            d.changes.push(Change::Sandbox(SandboxRecord {
                state: SandboxState::Running,
                started: Some(*at),
                ..sandbox.clone()
            }));
            let subject = Subject::Sandbox(sandbox.id);
            d.event("sandbox.running", subject, None, "runs".to_owned());
        }
        _ if stopping => {
            let (reason, message) = (sandbox.reason, sandbox.message.clone());
            end(d, sandbox, SandboxState::Stopped, reason, message);
        }
        SandboxStatus::Exited(report) => match report.failure() {
            None => {
                let message = "it ended by itself".to_owned();
                end(d, sandbox, SandboxState::Stopped, None, message);
            }
            Some(reason) => {
                let detail: String = report.detail.chars().take(300).collect();
                let message = match detail.is_empty() {
                    true => format!("it died: {reason}"),
                    false => format!("it died: {reason}: {detail}"),
                };
                end(d, sandbox, SandboxState::Failed, Some(reason), message);
            }
        },
        SandboxStatus::Gone => {
            let message = "its node does not have it any more".to_owned();
            let reason = Some(Reason::Lost);
            end(d, sandbox, SandboxState::Failed, reason, message);
        }
    }
    true
}
