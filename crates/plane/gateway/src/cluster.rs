//! `/cluster`: the cluster in one answer, its servers, its resources.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use prism_api::{ClusterInfo, ClusterResources, MemberView, MissingNode, NodeCounts};
use prism_control::Control;
use prism_state::{Counts, State};
use prism_types::{NodeState, Resources};

use crate::app::App;
use crate::ask::Ask;
use crate::refuse::Answered;
use crate::{answer, jobs, list, nodes};

/// Capacity and what is given away, over the nodes that are not offline.
fn totals(state: &State) -> (Resources, Resources) {
    state
        .nodes()
        .filter(|n| n.record().state != NodeState::Offline)
        .fold(
            Default::default(),
            |(all, used): (Resources, Resources), n| {
                (
                    all.plus(&n.record().capacity, 1),
                    used.plus(&n.reserved(), 1),
                )
            },
        )
}

fn count(state: &State) -> NodeCounts {
    let of = |wanted| {
        let nodes = state.nodes().filter(|n| n.record().state == wanted);
        u32::try_from(nodes.count()).unwrap_or(u32::MAX)
    };
    let cordoned = state.nodes().filter(|n| n.record().cordoned).count();
    NodeCounts {
        total: u32::try_from(state.nodes().count()).unwrap_or(u32::MAX),
        healthy: of(NodeState::Healthy),
        suspect: of(NodeState::Suspect),
        offline: of(NodeState::Offline),
        cordoned: u32::try_from(cordoned).unwrap_or(u32::MAX),
    }
}

/// Who does not answer: what is told of all nodes is told without asking any, so nobody waits for these.
fn missing(control: &Control, state: &State) -> Vec<MissingNode> {
    let away = state
        .nodes()
        .map(|n| n.record())
        .filter(|n| n.state != NodeState::Healthy);
    let mut all: Vec<MissingNode> = away
        .map(|n| MissingNode {
            id: n.id,
            name: n.name.to_string(),
            state: n.state,
            since: n.since,
            last_heartbeat: control.last_heard(n.id),
        })
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// Work is counted as far as it is there for whoever asks.
pub(crate) async fn get(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let store = app.control.store().status();
    let now = app.control.now();
    let info = app
        .control
        .read(|s| {
            let (capacity, allocated) = totals(s);
            let jobs = || s.jobs().filter(|j| ask.sees(&j.spec().namespace));
            let active = || jobs().filter(|j| !j.record().state.is_final());
            let sandboxes = s.sandboxes().filter(|b| !b.state.is_final());
            let sandboxes = sandboxes.filter(|b| ask.sees(&b.spec.namespace));
            let tasks = active()
                .map(|j| j.counts())
                .fold(jobs::no_tasks(), |sum, counts: Counts| {
                    jobs::add(&sum, &jobs::counts(counts))
                });
            ClusterInfo {
                name: app.config.server.clone(),
                version: app.config.version.clone(),
                leader: store.leader.then(|| app.config.server.clone()),
                servers: u32::try_from(s.servers().count().max(1)).unwrap_or(u32::MAX),
                nodes: count(s),
                missing: missing(&app.control, s),
                jobs_active: u32::try_from(active().count()).unwrap_or(u32::MAX),
                jobs_total: u32::try_from(jobs().count()).unwrap_or(u32::MAX),
                tasks,
                sandboxes: u32::try_from(sandboxes.count()).unwrap_or(u32::MAX),
                capacity,
                allocated,
                revision: store.revision.0,
                started: app.started,
                now,
            }
        })
        .await;
    answer::json(&info)
}

pub(crate) async fn members(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let member = MemberView {
        name: app.config.server.clone(),
        address: app.address.clone(),
        leader: app.control.store().status().leader,
        version: app.config.version.clone(),
        started: app.started,
    };
    answer::json(&list::slice(ask, vec![member], "m", |m| m.name.clone())?)
}

pub(crate) async fn resources(app: &Arc<App>) -> Answered<Response<Body>> {
    let resources = app
        .control
        .read(|s| {
            let (capacity, allocated) = totals(s);
            ClusterResources {
                free: capacity.minus(&allocated, 1),
                capacity,
                allocated,
                nodes: s
                    .nodes()
                    .map(|n| nodes::resources_view(&app.control, n))
                    .collect(),
                missing: missing(&app.control, s),
            }
        })
        .await;
    answer::json(&resources)
}
