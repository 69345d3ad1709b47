//! Submissions: a body read by `prism-spec`, an id, a seed, a command. Also waits for a sandbox to run.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use bytes::Bytes;
use prism_spec::{SpecError, WireKind, parse_sandbox_wire, parse_wire};
use prism_state::{Command, Reply, State, Submission};
use prism_types::{JobId, Reason, SandboxId, SandboxState};

use crate::app::App;
use crate::ask::Ask;
use crate::refuse::{Answered, Refusal};
use crate::{jobs, sandboxes, sweeps};

/// A body up to this many bytes is read where it came in.
const SMALL: usize = 16 << 10;

impl From<SpecError> for Refusal {
    fn from(error: SpecError) -> Self {
        let mut refusal = Self::invalid(error.to_string());
        if error.place.line > 0 {
            refusal = refusal
                .detail("line", error.place.line)
                .detail("column", error.place.column);
        }
        if !error.field.is_empty() {
            refusal = refusal.detail("field", error.field);
        }
        refusal
    }
}

/// An answer of the control plane that does not belong to the command: a defect.
pub(crate) fn unexpected(reply: &Reply) -> Refusal {
    Refusal::new(
        Reason::Internal,
        format!("the control plane answered {reply:?}, which is not an answer to this"),
    )
}

async fn submit(app: &Arc<App>, ask: Ask, kind: WireKind) -> Answered<JobId> {
    let (key, origin, sight) = (ask.key.clone(), ask.origin(), ask.sight());
    let Ask { body, room, .. } = ask;
    // Large ones go one at a time, from here until they are in the state or refused.
    let _turn = match body.len() > SMALL {
        true => Some(app.reader.lock().await),
        false => None,
    };
    let submission = read(kind, body).await?;
    drop(room);
    let namespace = submission.spec.namespace.as_str();
    let there = |s: &State| s.find_namespace(namespace, &sight).map(drop);
    app.control.read(there).await?;
    let (ms, entropy) = app.control.mint();
    let command = Command::SubmitJob(Submission {
        id: JobId::new(ms, entropy),
        spec: Arc::new(submission.spec),
        blobs: submission.blobs.into_iter().collect(),
        seed: seed(entropy),
    });
    match app.control.propose_for(command, key, origin).await? {
        Reply::JobCreated { id } => Ok(id),
        other => Err(unexpected(&other)),
    }
}

/// Reads a body: a small one at once, a large one off the threads that serve everyone. The body itself is gone before its files are put in their places.
async fn read(kind: WireKind, body: Bytes) -> Answered<prism_spec::Submission> {
    if body.len() <= SMALL {
        return Ok(parse_wire(kind, body)?);
    }
    let parsed = tokio::task::spawn_blocking(move || parse_wire(kind, body));
    Ok(parsed.await.map_err(|e| {
        Refusal::new(
            Reason::Internal,
            format!("the submission could not be read: {e}; nothing was changed"),
        )
    })??)
}

/// 64 bits of the entropy that an id does not use whole.
fn seed(entropy: u128) -> u64 {
    let low = u64::try_from(entropy & u128::from(u64::MAX)).unwrap_or_default();
    let high = u64::try_from(entropy >> 64).unwrap_or_default();
    low ^ high.rotate_left(32)
}

pub(crate) async fn job(app: &Arc<App>, ask: Ask) -> Answered<Response<Body>> {
    let id = submit(app, ask, WireKind::Job).await?;
    jobs::by_id(app, id).await
}

pub(crate) async fn sweep(app: &Arc<App>, ask: Ask) -> Answered<Response<Body>> {
    let id = submit(app, ask, WireKind::Sweep).await?;
    sweeps::by_id(app, id).await
}

pub(crate) async fn sandbox(app: &Arc<App>, ask: Ask) -> Answered<Response<Body>> {
    let body: &[u8] = if ask.body.is_empty() {
        b"{}"
    } else {
        &ask.body
    };
    let spec = Arc::new(parse_sandbox_wire(body)?);
    let sight = ask.sight();
    let there = |s: &State| s.find_namespace(spec.namespace.as_str(), &sight).map(drop);
    app.control.read(there).await?;
    if let Some(snapshot) = spec.snapshot.as_deref().filter(|_| sight.only.is_some()) {
        sandboxes::snapshot_there(app, &ask, snapshot).await?;
    }
    let (ms, entropy) = app.control.mint();
    let id = SandboxId::new(ms, entropy);
    let command = Command::CreateSandbox { id, spec };
    let id = match app.propose(&ask, command).await? {
        Reply::SandboxCreated { id } => id,
        other => return Err(unexpected(&other)),
    };
    if ask.query.given("wait") != Some(false) {
        settled(app, id).await;
    }
    sandboxes::by_id(app, id).await
}

/// Waits until a sandbox neither waits nor starts, or for as long as is configured; answers with its state then.
pub(crate) async fn settled(app: &App, id: SandboxId) -> Option<SandboxState> {
    let deadline = tokio::time::Instant::now() + app.config.start_wait;
    let wait = app.control.await_sandbox(id);
    loop {
        let change = wait.change();
        let state = app.control.read(|s| s.sandbox(id).map(|b| b.state)).await;
        match state {
            Some(SandboxState::Pending | SandboxState::Starting) => {}
            other => return other,
        }
        tokio::select! {
            () = change => {}
            () = app.stop.cancelled() => return state,
            () = tokio::time::sleep_until(deadline) => return state,
        }
    }
}
