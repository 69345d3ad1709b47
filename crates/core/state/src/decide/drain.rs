//! Draining: a node is emptied before it is taken away. Nothing new comes, what has not started goes back at once, what runs may end by
//! itself until a deadline and is stopped and run elsewhere then.
//!
//! The same order as Nomad's `node drain` with its deadline (batch work is left to finish); nothing is ever started elsewhere before the
//! node has said that it is over here.

use prism_types::{Millis, NodeId, Reason, Rejection, TaskRef, TimeMs};

use super::draft::Draft;
use super::sandbox;
use crate::{Action, Drain, Node, NodeRecord, Phase, Reply, Subject};

pub(super) fn begin(
    d: &mut Draft<'_>,
    id: NodeId,
    limit: Option<Millis>,
) -> Result<Reply, Rejection> {
    let node = d.known_node(id)?;
    let deadline = limit.map(|limit| d.now.after(limit));
    let before = node.record.drain;
    if before.is_some_and(|drain| drain.phase != Phase::Waiting) {
        // It is being emptied by force, or is empty: there is nothing to wait for.
        return Ok(Reply::Ok);
    }
    d.put_node(NodeRecord {
        cordoned: true,
        drain: Some(Drain {
            since: before.map_or(d.now, |drain| drain.since),
            deadline,
            phase: Phase::Waiting,
        }),
        ..(*node.record).clone()
    });
    if before.is_none() {
        for job in &node.jobs {
            let (node, job) = (id, *job);
            d.actions.push(Action::Recall { node, job });
        }
        let until = match limit {
            Some(limit) => format!("what runs may go on for {limit}"),
            None => "what runs may go on until it ends".to_owned(),
        };
        let message = format!("node {} takes nothing new; {until}", node.record.name);
        d.event("node.draining", Subject::Node(id), None, message);
    }
    Ok(Reply::Ok)
}

/// The next moment at which a draining node has to be looked at.
pub(crate) fn next<'a>(nodes: impl Iterator<Item = &'a Node>) -> Option<TimeMs> {
    nodes.filter_map(due).min()
}

fn due(node: &Node) -> Option<TimeMs> {
    let drain = node.record.drain.filter(|d| d.phase != Phase::Done)?;
    match drain.phase {
        _ if is_empty(node) => Some(TimeMs(0)),
        Phase::Waiting => drain.deadline,
        Phase::Stopping | Phase::Done => None,
    }
}

fn is_empty(node: &Node) -> bool {
    node.tasks == 0 && node.sandboxes.is_empty()
}

/// Moves every draining node on whose time has come.
pub(super) fn tick(d: &mut Draft<'_>) {
    let (state, now) = (d.state, d.now);
    let draining = state.index.draining.iter();
    for node in draining.filter_map(|id| state.nodes.get(id)) {
        if due(node).is_none_or(|at| at > now) {
            continue;
        }
        if is_empty(node) {
            let message = format!("node {} is empty, and can be taken away", node.record.name);
            go_on(d, node, Phase::Done, "node.drained", message);
        } else {
            stop(d, node);
        }
    }
}

/// The deadline has passed: what still runs is stopped; the node says when.
fn stop(d: &mut Draft<'_>, node: &Node) {
    let id = node.record.id;
    let mut tasks = Vec::new();
    for job in node.jobs.iter().filter_map(|id| d.state.jobs.get(id)) {
        for index in job.tasks_on(node.record.no) {
            let cell = job.cell(index);
            tasks.extend(cell.map(|cell| TaskRef {
                job: job.id(),
                index,
                attempt: cell.attempt,
            }));
        }
    }
    let message = format!(
        "node {} is out of time; its last {} tasks are run elsewhere, its {} sandboxes end",
        node.record.name,
        tasks.len(),
        node.sandboxes.len()
    );
    go_on(d, node, Phase::Stopping, "node.drain_deadline", message);
    if !tasks.is_empty() {
        let (node, reason) = (id, Reason::Cancelled);
        d.actions.push(Action::StopTasks {
            node,
            tasks,
            reason,
        });
    }
    let why = format!("its node {} was drained", node.record.name);
    for id in &node.sandboxes {
        let living = d.state.sandboxes.get(id);
        if let Some(living) = living.filter(|s| s.state != prism_types::SandboxState::Stopping) {
            sandbox::stop(d, living, Reason::Cancelled, &why);
        }
    }
}

fn go_on(d: &mut Draft<'_>, node: &Node, phase: Phase, kind: &str, message: String) {
    let drain = node.record.drain.map(|drain| Drain { phase, ..drain });
    d.event(kind, Subject::Node(node.record.id), None, message);
    d.put_node(NodeRecord {
        drain,
        ..(*node.record).clone()
    });
}
