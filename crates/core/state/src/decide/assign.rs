//! Carries out a plan. The planner saw an older state, so every part is checked again, and what does not hold is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use prism_spec::IsolationSpec;
use prism_types::{JobState, NodeId, Reason, SandboxId, SandboxState, TaskState};

use super::draft::Draft;
use crate::{Action, Change, Node, Placement, Plan, Reply, SandboxRecord, Subject, misfit};

/// Most tasks that one node holds.
const NODE_TASKS_MAX: u32 = 1_000_000;

pub(super) fn assign(d: &mut Draft<'_>, plan: &Plan) -> Reply {
    let (mut accepted, mut dropped) = (0, 0);
    // Tasks added to each node by this plan.
    let mut added: BTreeMap<NodeId, u32> = BTreeMap::new();
    for placement in &plan.placements {
        let taken = place(d, placement, &mut added);
        accepted += taken;
        dropped += u32::try_from(placement.tasks.len()).unwrap_or(u32::MAX) - taken;
    }
    for (id, node) in &plan.sandboxes {
        let placed = place_sandbox(d, *id, *node);
        accepted += u32::from(placed);
        dropped += u32::from(!placed);
    }
    Reply::Assigned { accepted, dropped }
}

fn open_node<'a>(d: &Draft<'a>, id: NodeId) -> Option<&'a Node> {
    d.state.nodes.get(&id).filter(|n| n.is_open())
}

/// How many tasks were placed.
fn place(d: &mut Draft<'_>, p: &Placement, added: &mut BTreeMap<NodeId, u32>) -> u32 {
    let Some(node) = open_node(d, p.node) else {
        return 0;
    };
    let no = node.record.no;
    let free = node.record.capacity.minus(&d.reserved(node), 1);
    let on_node = added.entry(p.node).or_default();
    let Some(job) = d.job(p.job).filter(|j| j.is_open()) else {
        return 0;
    };
    let spec = &job.job.spec;
    if misfit(&node.record, &spec.image, spec.isolation).is_some() {
        return 0;
    }
    let before = job.lanes_on(no);
    let more = p.lanes.saturating_sub(before).min(job.lanes_left());
    let more = spec.resources.times_in(&free, more);
    let spec = Arc::clone(spec);
    let more = d.quota_lanes(&spec.namespace, &spec.resources, more);
    let Some(job) = d.job(p.job) else { return 0 };
    let most = before + more;
    if most == 0 {
        return 0;
    }
    let mut tasks = Vec::with_capacity(p.tasks.len());
    for index in &p.tasks {
        let Some(cell) = job.cell(*index) else {
            continue;
        };
        let room = node.tasks + *on_node < NODE_TASKS_MAX;
        if cell.state == TaskState::Queued && job.in_turn(*index) && room {
            let cell = cell.assigned(no);
            job.set(*index, cell);
            tasks.push((*index, cell.attempt));
            *on_node += 1;
        }
    }
    let lanes = most.min(job.placed_on(no)).max(before);
    d.set_lanes(p.job, no, lanes);
    let taken = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
    if taken > 0 {
        mark_running(d, p);
        d.actions.push(Action::Assign {
            node: p.node,
            job: p.job,
            lanes,
            tasks,
        });
    } else if lanes != before {
        d.actions.push(Action::SetLanes {
            node: p.node,
            job: p.job,
            lanes,
        });
    }
    taken
}

fn mark_running(d: &mut Draft<'_>, p: &Placement) {
    let now = d.now;
    let Some(job) = d.job(p.job) else { return };
    if job.record().state == JobState::Queued {
        let record = job.record_mut();
        record.state = JobState::Running;
        record.started.get_or_insert(now);
        let message = "its first tasks are placed".to_owned();
        d.event("job.running", Subject::Job(p.job), None, message);
    }
}

fn place_sandbox(d: &mut Draft<'_>, id: SandboxId, node_id: NodeId) -> bool {
    let Some(node) = open_node(d, node_id) else {
        return false;
    };
    let sandbox = d.state.sandboxes.get(&id);
    let Some(sandbox) = sandbox.filter(|s| s.state == SandboxState::Pending) else {
        return false;
    };
    let twice = d
        .changes
        .iter()
        .any(|c| matches!(c, Change::Sandbox(s) if s.id == id));
    let reserved = d.reserved(node).plus(&sandbox.spec.resources, 1);
    let cannot = misfit(&node.record, &sandbox.spec.image, IsolationSpec::Sandbox).is_some();
    let spec = &sandbox.spec;
    let allowed = d.quota_holds(&spec.namespace, &spec.resources);
    if twice || cannot || !allowed || !reserved.fits(&node.record.capacity) {
        return false;
    }
    d.use_resources(&spec.namespace, &spec.resources);
    d.set_reserved(node, reserved);
    d.changes.push(Change::Sandbox(SandboxRecord {
        state: SandboxState::Starting,
        node: Some(node_id),
        ..sandbox.clone()
    }));
    d.actions.push(Action::StartSandbox { node: node_id, id });
    let message = format!("placed on {}", node.record.name);
    d.event(
        "sandbox.placed",
        Subject::Sandbox(id),
        None::<Reason>,
        message,
    );
    true
}
