//! `/sandboxes`: listing, reading, ending; and finding the node that has one.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use futures::stream::{FuturesUnordered, StreamExt};
use prism_api::{SandboxView, TimeoutBody};
use prism_link::NodeService;
use prism_spec::ImageRef;
use prism_state::{Command, SandboxRecord, State};
use prism_types::{Reason, SandboxId, SandboxState, parse_duration};

use crate::app::App;
use crate::ask::Ask;
use crate::list::{Filter, cursor, limit, page};
use crate::refuse::{Answered, Refusal};
use crate::{answer, jobs, submit};

fn view(state: &State, record: &SandboxRecord) -> SandboxView {
    let spec = &record.spec;
    SandboxView {
        id: record.id,
        name: spec.name.as_ref().map(ToString::to_string),
        namespace: spec.namespace.to_string(),
        status: record.state,
        image: match &spec.image {
            ImageRef::Host => "host".to_owned(),
            ImageRef::Named(name) => name.clone(),
        },
        snapshot: spec.snapshot.clone(),
        resources: spec.resources,
        pids: spec.pids,
        node_id: record.node,
        node: record
            .node
            .and_then(|id| Some(state.node(id)?.record().name.to_string())),
        labels: spec.labels.clone(),
        created: record.created,
        started: record.started,
        finished: record.finished,
        expires: record.expires,
        reason: record.reason,
        message: jobs::some(&record.message),
    }
}

pub(crate) async fn list(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let filter = Filter::of(ask)?;
    let limit = limit(ask)?;
    let before: Option<SandboxId> = cursor(ask, "s")?;
    let all = ask.query.flag("all");
    let items = app
        .control
        .read(|s| {
            s.sandboxes()
                .rev()
                .filter(|b| before.is_none_or(|id| b.id < id))
                .filter(|b| all || !b.state.is_final())
                .filter(|b| filter.takes(&b.spec.labels, &b.spec.namespace))
                .take(limit + 1)
                .map(|b| view(s, b))
                .collect()
        })
        .await;
    answer::json(&page(items, limit, "s", |b: &SandboxView| b.id.to_string()))
}

async fn id_of(app: &App, ask: &Ask) -> Answered<SandboxId> {
    let text = ask.param("id")?;
    let sight = ask.sight();
    let found = app
        .control
        .read(|s| s.find_sandbox(text, &sight).map(|b| b.id));
    Ok(found.await?)
}

pub(crate) async fn get(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let id = id_of(app, ask).await?;
    by_id(app, id).await
}

pub(crate) async fn by_id(app: &Arc<App>, id: SandboxId) -> Answered<Response<Body>> {
    match app
        .control
        .read(|s| s.sandbox(id).map(|b| view(s, b)))
        .await
    {
        Some(view) => answer::json(&view),
        None => Err(Refusal::not_found(format!("sandbox {id} is gone"))),
    }
}

pub(crate) async fn delete(app: &Arc<App>, ask: Ask) -> Answered<Response<Body>> {
    let id = id_of(app, &ask).await?;
    let command = Command::DeleteSandbox { id };
    app.propose(&ask, command).await?;
    by_id(app, id).await
}

pub(crate) async fn timeout(app: &Arc<App>, ask: Ask) -> Answered<Response<Body>> {
    let body: TimeoutBody = ask.json()?;
    let length = body.timeout.as_deref().map(parse_duration).transpose();
    let length = length.map_err(|why| Refusal::invalid(why).detail("field", "timeout"))?;
    let id = id_of(app, &ask).await?;
    let until = length.map(|length| app.control.now().after(length));
    let command = Command::SetSandboxTimeout { id, until };
    app.propose(&ask, command).await?;
    by_id(app, id).await
}

/// A sandbox and the node that has it.
pub(crate) struct Place {
    pub(crate) id: SandboxId,
    pub(crate) node: Arc<dyn NodeService>,
}

/// Finds the sandbox of the request and its node. One that is being started is waited for; with `over`, one that has ended
/// (its output and snapshots may still be there) is found as well.
pub(crate) async fn place(app: &App, ask: &Ask, over: bool) -> Answered<Place> {
    let id = id_of(app, ask).await?;
    let mut state = app.control.read(|s| s.sandbox(id).map(|b| b.state)).await;
    if matches!(state, Some(SandboxState::Pending | SandboxState::Starting)) {
        state = submit::settled(app, id).await;
    }
    let record = app.control.read(|s| s.sandbox(id).cloned()).await;
    let Some(record) = record else {
        return Err(Refusal::not_found(format!("sandbox {id} is gone")));
    };
    if state != Some(SandboxState::Running) && !(over && record.node.is_some()) {
        let why = jobs::some(&record.message).map_or_else(String::new, |m| format!(" ({m})"));
        return Err(Refusal::new(
            Reason::WrongState,
            format!(
                "sandbox {id} is {}{why}; only a running one can be used",
                record.state
            ),
        )
        .detail("status", record.state.as_str()));
    }
    match record.node.and_then(|node| app.control.node(node)) {
        Some(node) => Ok(Place { id, node }),
        None => Err(Refusal::new(
            Reason::Lost,
            format!("the node of sandbox {id} is not connected; nothing was changed, try again when it is back"),
        )
        .retryable()),
    }
}

/// How long a node may take to say which snapshots it has.
const NODE_WAIT: Duration = Duration::from_secs(5);

/// Refuses a snapshot unless it is of a sandbox that is there for whoever asks.
pub(crate) async fn snapshot_there(app: &App, ask: &Ask, snapshot: &str) -> Answered<()> {
    let nodes: Vec<_> = app
        .control
        .read(|s| s.nodes().map(|n| n.record().id).collect())
        .await;
    let live = nodes.into_iter().filter_map(|id| app.control.node(id));
    let mut asked: FuturesUnordered<_> = live
        .map(|node| async move { tokio::time::timeout(NODE_WAIT, node.snapshots(None)).await })
        .collect();
    let mut silent = 0;
    while let Some(told) = asked.next().await {
        let Ok(Ok(all)) = told else {
            silent += 1;
            continue;
        };
        let Some(found) = all.into_iter().find(|s| s.id == snapshot) else {
            continue;
        };
        let sees = |s: &State| {
            let origin = s.sandbox(found.sandbox);
            origin.is_some_and(|b| ask.sees(&b.spec.namespace))
        };
        if app.control.read(sees).await {
            return Ok(());
        }
    }
    let shown: String = snapshot.chars().take(80).collect();
    if silent > 0 {
        return Err(Refusal::new(
            Reason::Lost,
            format!("snapshot {shown:?} was not found, and {silent} nodes that may have it did not answer; nothing was changed, try again when they are back: prismctl node ls"),
        )
        .retryable()
        .detail("field", "snapshot"));
    }
    Err(Refusal::not_found(format!(
        "there is no snapshot {shown:?} of a sandbox that this token sees"
    ))
    .detail("field", "snapshot"))
}
