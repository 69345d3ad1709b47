//! Nodes: registration, leases, cordons, removal, and what becomes of the work of a node that is gone.

use prism_types::{Id, NodeId, NodeNo, NodeState, Reason, Rejection, Resources, SandboxState};

use super::draft::Draft;
use super::task::{GiveBack, give_back};
use crate::{Node, NodeRecord, Registration, Reply, Subject};

pub(super) fn init(d: &mut Draft<'_>, cluster: Id) -> Result<Reply, Rejection> {
    match d.meta.cluster {
        Some(id) if id == cluster => Ok(Reply::Ok),
        Some(id) => Err(Rejection::new(
            Reason::Conflict,
            format!("this cluster is initialised already, as {id}"),
        )),
        None => {
            d.meta.cluster = Some(cluster);
            d.meta.created = d.now;
            d.event(
                "cluster.created",
                Subject::Cluster,
                None,
                format!("cluster {cluster} created"),
            );
            Ok(Reply::Ok)
        }
    }
}

pub(super) fn register(d: &mut Draft<'_>, r: &Registration) -> Result<Reply, Rejection> {
    let taken = d.state.index.node_by_name.get(&r.name);
    if let Some(other) = taken.filter(|other| **other != r.id) {
        return Err(Rejection::new(
            Reason::Conflict,
            format!(
                "the name {} belongs to node {other}; start this one with another --name, or remove the other with prismctl node rm",
                r.name
            ),
        ));
    }
    let old = d.state.nodes.get(&r.id);
    let no = match old {
        Some(node) => node.record.no,
        None => {
            let no = NodeNo(d.meta.next_node);
            d.meta.next_node += 1;
            no
        }
    };
    let was_healthy = old.is_some_and(|n| n.record.state == NodeState::Healthy);
    let record = NodeRecord {
        id: r.id,
        no,
        name: r.name.clone(),
        labels: r.labels.clone(),
        capacity: r.capacity,
        allow_plain: r.allow_plain,
        facts: r.facts.clone(),
        state: NodeState::Healthy,
        since: match old {
            Some(node) if was_healthy => node.record.since,
            _ => d.now,
        },
        cordoned: old.is_some_and(|n| n.record.cordoned),
        registered: old.map_or(d.now, |n| n.record.registered),
        drain: old.and_then(|n| n.record.drain),
    };
    if let Some(node) = old {
        make_room(d, node, r.capacity);
    }
    if !was_healthy {
        let kind = match old {
            None => "node.registered",
            Some(_) => "node.healthy",
        };
        let message = format!("node {} is there", r.name);
        d.event(kind, Subject::Node(r.id), None, message);
    }
    if old.is_none_or(|n| *n.record != record) {
        d.put_node(record);
    }
    Ok(Reply::NodeRegistered { no })
}

/// A node that comes back with less than is granted on it loses grants, the newest jobs' first, until the rest fits.
fn make_room(d: &mut Draft<'_>, node: &Node, capacity: Resources) {
    let no = node.record.no;
    for (job, lanes) in node.lanes.iter().rev() {
        let mut left = *lanes;
        while left > 0 && !d.reserved(node).fits(&capacity) {
            left -= 1;
            d.set_lanes(*job, no, left);
        }
        if left == 0 {
            let Some(job) = d.state.jobs.get(job) else {
                continue;
            };
            for index in job.tasks_on(no) {
                give_back(d, job.id(), index, GiveBack::Evicted);
            }
        }
    }
    for id in node.sandboxes.iter().rev() {
        let Some(sandbox) = d.state.sandboxes.get(id) else {
            continue;
        };
        let reserved = d.reserved(node);
        if reserved.fits(&capacity) {
            return;
        }
        d.set_reserved(node, reserved.minus(&sandbox.spec.resources, 1));
        let why = "its node came back with less room".to_owned();
        super::sandbox::end(
            d,
            sandbox,
            SandboxState::Failed,
            Some(Reason::NoPlacement),
            why,
        );
    }
}

pub(super) fn set_state(
    d: &mut Draft<'_>,
    id: NodeId,
    state: NodeState,
) -> Result<Reply, Rejection> {
    let node = d.known_node(id)?;
    if node.record.state == state {
        return Ok(Reply::Ok);
    }
    let name = &node.record.name;
    if node.record.state == NodeState::Offline {
        // A heartbeat and the check of the leases may cross: only a greeting says what the node runs, and is told what to stop.
        return Err(Rejection::new(
            Reason::WrongState,
            format!(
                "node {name} was given up, and its work given to others; it has to greet again"
            ),
        ));
    }
    let (kind, reason, message) = match state {
        NodeState::Healthy => ("node.healthy", None, format!("node {name} is there again")),
        NodeState::Suspect => (
            "node.suspect",
            None,
            format!("node {name} is late; nothing new is placed on it"),
        ),
        NodeState::Offline => (
            "node.offline",
            Some(Reason::Lost),
            format!(
                "node {name} is gone; its {} tasks and {} sandboxes are given up",
                node.tasks,
                node.sandboxes.len()
            ),
        ),
    };
    d.event(kind, Subject::Node(id), reason, message);
    d.put_node(NodeRecord {
        state,
        since: d.now,
        ..(*node.record).clone()
    });
    if state == NodeState::Offline {
        lose(d, node);
    }
    Ok(Reply::Ok)
}

/// Gives up everything that a node has.
pub(super) fn lose(d: &mut Draft<'_>, node: &Node) {
    let no = node.record.no;
    for id in &node.jobs {
        let Some(job) = d.state.jobs.get(id) else {
            continue;
        };
        for index in job.tasks_on(no) {
            give_back(d, *id, index, GiveBack::Lost);
        }
    }
    for id in &node.sandboxes {
        let Some(sandbox) = d.state.sandboxes.get(id) else {
            continue;
        };
        let (state, reason) = match sandbox.state {
            SandboxState::Stopping => (SandboxState::Stopped, sandbox.reason),
            _ => (SandboxState::Failed, Some(Reason::Lost)),
        };
        let why = format!("its node {} is gone", node.record.name);
        super::sandbox::end(d, sandbox, state, reason, why);
    }
}

pub(super) fn cordon(d: &mut Draft<'_>, id: NodeId, on: bool) -> Result<Reply, Rejection> {
    let node = d.known_node(id)?;
    if node.record.cordoned != on {
        let (kind, what) = match on {
            true => ("node.cordoned", "takes nothing new"),
            false => ("node.uncordoned", "takes new work again"),
        };
        let message = format!("node {} {what}", node.record.name);
        d.event(kind, Subject::Node(id), None, message);
        d.put_node(NodeRecord {
            cordoned: on,
            // Whoever lets work come again does not want the node emptied.
            drain: None,
            ..(*node.record).clone()
        });
    }
    Ok(Reply::Ok)
}

pub(super) fn remove(d: &mut Draft<'_>, id: NodeId) -> Result<Reply, Rejection> {
    let node = d.known_node(id)?;
    let busy = node.tasks > 0 || !node.sandboxes.is_empty();
    if busy {
        return Err(Rejection::retryable(
            Reason::WrongState,
            format!(
                "node {0} has {1} tasks and {2} sandboxes; empty it first: prismctl node drain {0}",
                node.record.name,
                node.tasks,
                node.sandboxes.len()
            ),
        ));
    }
    let message = format!("node {} removed", node.record.name);
    d.event("node.removed", Subject::Node(id), None, message);
    d.changes.push(crate::Change::NodeRemoved(id));
    Ok(Reply::Ok)
}
