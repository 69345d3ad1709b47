//! Emptying a node, step by step.
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

mod common;

use std::sync::Arc;

use common::*;
use prism_state::*;
use prism_types::*;

fn drain(w: &mut World, limit: Option<u64>) {
    w.ok(Command::Drain {
        id: node_id(0),
        limit: limit.map(Millis),
    });
}

fn phase(w: &World) -> Option<Phase> {
    let node = w.state.node(node_id(0)).unwrap();
    node.record().drain.map(|drain| drain.phase)
}

fn uncordon(w: &mut World) {
    let (id, on) = (node_id(0), false);
    w.ok(Command::Cordon { id, on });
}

fn kinds(w: &World) -> Vec<String> {
    let of_node = |e: &EventRecord| e.subject == Subject::Node(node_id(0));
    let events = w.events().into_iter().filter(of_node);
    events.map(|e| e.kind.to_string()).collect()
}

#[test]
fn what_runs_may_end_and_what_waits_goes_back() {
    let mut w = World::new(1, 4);
    let job = w.submit(1, array(4));
    w.place(job, 0, 0..2);
    w.start(job, 0, 0);
    drain(&mut w, Some(60_000));
    let node = node_id(0);
    assert_eq!(w.actions, [Action::Recall { node, job }]);
    assert_eq!(w.place(job, 0, [2]), 0, "nothing new comes");
    let desired = w.state.desired_for(node);
    assert!(desired.jobs[0].recall && desired.jobs[0].tasks[0].stop.is_none());
    let waiting = w.task_ref(job, 1);
    w.ok(Command::Returned {
        node,
        tasks: vec![waiting],
    });
    assert_eq!(w.task(job, 1).state, TaskState::Queued);
    w.pass(59_000);
    assert_eq!(phase(&w), Some(Phase::Waiting));
    w.check();
    w.finish(job, 0, 0, success());
    assert!(w.state.next_timer().is_some_and(|at| at <= w.now));
    w.pass(0);
    assert_eq!(phase(&w), Some(Phase::Done));
    assert_eq!(
        kinds(&w),
        ["node.registered", "node.draining", "node.drained"]
    );
    assert_eq!(w.place(job, 0, [2]), 0, "it stays empty");
    w.check();
    uncordon(&mut w);
    assert_eq!(phase(&w), None);
    assert_eq!(w.place(job, 0, [2]), 1);
    w.check();
}

#[test]
fn at_the_deadline_the_rest_is_stopped_and_runs_elsewhere_without_a_retry_or_a_loss() {
    let mut w = World::new(2, 4);
    let mut spec = array(2);
    spec.retries = 0;
    let job = w.submit(1, spec);
    w.place(job, 0, 0..2);
    w.start(job, 0, 0);
    w.start(job, 0, 1);
    drain(&mut w, Some(1_000));
    w.pass(999);
    assert!(w.actions.is_empty(), "{:?}", w.actions);
    assert_eq!(
        w.state.next_timer().map(|at| at.0),
        Some(w.now.0 + 1),
        "the deadline is a timer"
    );
    w.pass(1);
    assert!(
        matches!(&w.actions[..], [Action::StopTasks { tasks, .. }] if tasks.len() == 2),
        "{:?}",
        w.actions
    );
    // Nothing of it is started elsewhere before the node says that it is over here.
    assert_eq!(w.task(job, 0).state, TaskState::Running);
    let stop = w.state.desired_for(node_id(0)).jobs[0].tasks[0].stop;
    assert_eq!(
        stop,
        Some(Reason::Cancelled),
        "a session that begins anew says it again"
    );
    w.check();
    w.finish(job, 0, 0, ended_by(StopCause::Requested));
    let task = w.task(job, 0);
    assert_eq!(
        (task.state, task.failures, task.losses),
        (TaskState::Queued, 0, 0)
    );
    // One that ended by itself in the same moment keeps its result.
    w.finish(job, 0, 1, success());
    w.pass(0);
    assert_eq!(phase(&w), Some(Phase::Done));
    w.place(job, 1, [0]);
    assert_eq!(w.task(job, 0).attempt, 2);
    w.finish(job, 1, 0, success());
    assert_eq!(w.job_state(job), JobState::Completed);
    assert_eq!(w.results(job).len(), 2);
    w.check();
}

#[test]
fn sandboxes_end_at_the_deadline_and_say_why() {
    let mut w = World::new(1, 4);
    for n in 1..=2 {
        w.ok(Command::CreateSandbox {
            id: sandbox_id(n),
            spec: Arc::new(sandbox_spec(None)),
        });
        w.ok(Command::Assign(Plan {
            placements: Vec::new(),
            sandboxes: vec![(sandbox_id(n), node_id(0))],
        }));
    }
    w.ok(Command::DeleteSandbox { id: sandbox_id(2) });
    drain(&mut w, Some(0));
    w.pass(0);
    let sandbox = w.state.sandbox(sandbox_id(1)).unwrap();
    assert_eq!(sandbox.state, SandboxState::Stopping);
    assert!(sandbox.message.contains("drained"), "{}", sandbox.message);
    let deleted = w.state.sandbox(sandbox_id(2)).unwrap();
    assert!(!deleted.message.contains("drained"), "{}", deleted.message);
    assert_eq!(phase(&w), Some(Phase::Stopping));
    for n in 1..=2 {
        w.ok(Command::SandboxReport {
            node: node_id(0),
            id: sandbox_id(n),
            status: SandboxStatus::Exited(exit(137)),
        });
    }
    w.pass(0);
    assert_eq!(phase(&w), Some(Phase::Done));
    w.check();
}

#[test]
fn an_empty_node_is_done_at_once_and_one_without_a_deadline_waits_for_ever() {
    let mut w = World::new(1, 4);
    drain(&mut w, None);
    w.pass(0);
    assert_eq!(phase(&w), Some(Phase::Done));
    uncordon(&mut w);
    let job = w.submit(1, array(1));
    w.place(job, 0, [0]);
    drain(&mut w, None);
    w.pass(365 * 86_400_000);
    assert_eq!(phase(&w), Some(Phase::Waiting));
    assert_eq!(w.state.next_timer(), None, "nobody is woken for it");
    // Whoever loses patience says so.
    drain(&mut w, Some(0));
    w.pass(0);
    assert_eq!(phase(&w), Some(Phase::Stopping));
    // By force it stays, until it is uncordoned.
    drain(&mut w, None);
    assert_eq!(phase(&w), Some(Phase::Stopping));
    w.check();
}

#[test]
fn a_node_that_is_lost_while_it_is_emptied_is_empty() {
    let mut w = World::new(1, 4);
    let job = w.submit(1, array(1));
    w.place(job, 0, [0]);
    drain(&mut w, None);
    w.ok(Command::SetNodeState {
        id: node_id(0),
        state: NodeState::Offline,
    });
    w.pass(0);
    assert_eq!(phase(&w), Some(Phase::Done));
    // When it comes back it is still to be taken away.
    w.ok(Command::RegisterNode(registration(0, 4)));
    assert_eq!(phase(&w), Some(Phase::Done));
    assert_eq!(w.place(job, 0, [0]), 0);
    w.check();
    w.ok(Command::RemoveNode { id: node_id(0) });
    w.check();
}

#[test]
fn a_node_as_an_earlier_version_wrote_it_is_read() {
    let mut w = World::new(1, 2);
    let key = format!("nodes/{}", node_id(0)).into_bytes();
    let value = w.store.get_mut(&key).unwrap();
    assert_eq!((value[0], value.last()), (2, Some(&0)));
    // Its first form is the second without the last field.
    value[0] = 1;
    value.pop();
    assert!(w.reloaded() == w.state);
}
