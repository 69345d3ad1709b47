//! Sweeps step by step: best, halving, aggregate.
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

mod common;

use common::*;
use prism_state::*;
use prism_types::*;

fn report(w: &mut World, job: JobId, index: u32, step: u32, value: f64) -> Reply {
    let task = w.task_ref(job, index);
    w.ok(Command::Progress {
        node: node_id(0),
        metrics: vec![metric(task, step, value)],
    })
}

fn stopped(w: &World) -> Vec<u32> {
    let each = w.actions.iter().flat_map(|a| match a {
        Action::StopTasks { tasks, reason, .. } => {
            assert_eq!(*reason, Reason::EarlyStopped);
            tasks.clone()
        }
        _ => Vec::new(),
    });
    each.map(|t| t.index).collect()
}

#[test]
fn halving_gives_up_the_worse_half() {
    let mut w = World::new(1, 4);
    let job = w.submit(1, sweep(6, true, false));
    w.place(job, 0, 0..6);
    // Rung 0 is reached with the first line; it judges once two beams have reached it.
    report(&mut w, job, 0, 1, 0.5);
    assert_eq!(stopped(&w), [0; 0]);
    report(&mut w, job, 1, 1, 0.4);
    assert_eq!(stopped(&w), [1]);
    report(&mut w, job, 2, 1, 0.9);
    assert_eq!(stopped(&w), [0; 0]);
    report(&mut w, job, 3, 1, 0.45);
    assert_eq!(stopped(&w), [3]);
    report(&mut w, job, 0, 2, 0.6);
    assert_eq!(stopped(&w), [0; 0]);
    report(&mut w, job, 2, 2, 0.7);
    assert_eq!(stopped(&w), [0; 0]);
    w.check();
    let known = report(&mut w, job, 2, 2, 0.1);
    assert_eq!(
        known,
        Reply::Recorded {
            accepted: 0,
            duplicates: 1
        }
    );
    let view = w.job(job).sweep().unwrap();
    assert_eq!(view.stopped(), 2);
    assert_eq!(view.rungs()[0], [(0.9, 2), (0.5, 0), (0.45, 3), (0.4, 1)]);
    assert_eq!(
        w.state.desired_for(node_id(0)).jobs[0].tasks[1].stop,
        Some(Reason::EarlyStopped)
    );

    w.finish(job, 0, 1, ended_by(StopCause::Requested));
    assert_eq!(w.task(job, 1).state, TaskState::Completed);
    assert_eq!(w.task(job, 1).reason, Some(Reason::EarlyStopped));
    let kept = &w.results(job)[0];
    assert_eq!(kept.result.as_deref(), Some("{\"acc\":0.4}"));
    // The other stopped beam's node goes away: it is over all the same, with its last line.
    w.ok(Command::SetNodeState {
        id: node_id(0),
        state: NodeState::Offline,
    });
    assert_eq!(w.task(job, 3).reason, Some(Reason::EarlyStopped));
    assert_eq!(w.task(job, 0).state, TaskState::Retrying);
    w.check();
}

#[test]
fn hostile_metrics_are_ignored() {
    let mut w = World::new(1, 4);
    let job = w.submit(1, sweep(2, true, true));
    let plain = w.submit(2, array(1));
    w.place(job, 0, 0..2);
    w.place(plain, 0, [0]);
    let none = Reply::Recorded {
        accepted: 0,
        duplicates: 1,
    };
    assert_eq!(report(&mut w, job, 0, 1, f64::NAN), none);
    assert_eq!(report(&mut w, job, 0, 1, f64::INFINITY), none);
    assert_eq!(report(&mut w, job, 0, 0, 1.0), none);
    assert_eq!(report(&mut w, plain, 0, 1, 1.0), none);
    assert_eq!(
        report(&mut w, job, 2, 1, 1.0),
        none,
        "the aggregate is no beam"
    );
    w.check();
}

#[test]
fn the_best_is_kept_and_ties_go_to_the_lowest() {
    let mut w = World::new(1, 4);
    let job = w.submit(1, sweep(4, false, false));
    w.place(job, 0, 0..4);
    let best = |w: &World| {
        w.job(job)
            .sweep()
            .unwrap()
            .best()
            .map(|b| (b.index, b.value))
    };
    w.finish_with(job, 0, 2, "{\"acc\": 0.5}");
    assert_eq!(best(&w), Some((2, 0.5)));
    w.finish_with(job, 0, 3, "{\"acc\": \"no number\"}");
    assert_eq!(best(&w), Some((2, 0.5)));
    w.finish_with(job, 0, 1, "{\"acc\": 0.5}");
    assert_eq!(best(&w), Some((1, 0.5)));
    w.finish_with(job, 0, 0, "{\"acc\": 0.7}");
    assert_eq!(best(&w), Some((0, 0.7)));
    assert_eq!(w.job_state(job), JobState::Completed);
    w.check();
}

#[test]
fn the_aggregate_runs_last_and_failed_beams_do_not_fail_the_sweep() {
    let mut w = World::new(1, 4);
    let mut s = sweep(2, false, true);
    s.retries = 0;
    let job = w.submit(1, s);
    assert_eq!(w.job(job).ready_len(), 2);
    assert_eq!(w.place(job, 0, 0..3), 2);
    w.finish_with(job, 0, 0, "{\"acc\": 1}");
    assert_eq!(w.place(job, 0, [2]), 0);
    w.finish(job, 0, 1, exit(1));
    assert_eq!(w.job(job).ready_len(), 1);
    assert_eq!(w.state.queue().count(), 1);
    w.check();
    assert_eq!(w.place(job, 0, [2]), 1);
    w.finish_with(job, 0, 2, "{\"sum\": 1}");
    assert_eq!(w.job_state(job), JobState::PartiallyCompleted);
    // Retrying the failed beam makes the aggregate run again, after it.
    assert_eq!(
        w.ok(Command::RetryJob { id: job }),
        Reply::Retried { tasks: 1 }
    );
    w.check();
    assert_eq!(w.place(job, 0, [1, 2]), 1);
    w.finish_with(job, 0, 1, "{\"acc\": 2}");
    assert_eq!(w.place(job, 0, [2]), 1);
    w.finish_with(job, 0, 2, "{\"sum\": 3}");
    assert_eq!(w.job_state(job), JobState::Completed);
    w.check();
}

#[test]
fn an_aggregate_over_nothing_does_not_run() {
    let mut w = World::new(1, 4);
    let mut s = sweep(1, false, true);
    s.retries = 0;
    let job = w.submit(1, s);
    w.place(job, 0, [0]);
    w.finish(job, 0, 0, exit(1));
    assert_eq!(w.job_state(job), JobState::Failed);
    w.check();
}
