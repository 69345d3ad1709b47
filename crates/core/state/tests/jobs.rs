//! Jobs step by step: retries, cancel, pause, resume, dependencies, limits, losses.

mod common;

use common::*;
use prism_spec::{Backoff, JobSpec};
use prism_state::*;
use prism_types::*;

#[test]
fn a_job_runs_to_its_end() {
    let mut w = World::new(1, 2);
    let job = w.submit(1, array(3));
    assert_eq!(w.job_state(job), JobState::Queued);
    assert_eq!(w.place(job, 0, 0..3), 3);
    assert_eq!(w.job_state(job), JobState::Running);
    assert_eq!(w.job(job).lanes_total(), 3);
    for i in 0..3 {
        w.start(job, 0, i);
        w.finish_with(job, 0, i, "{\"ok\":true}");
        w.check();
    }
    assert_eq!(w.job_state(job), JobState::Completed);
    assert_eq!(w.job(job).lanes_total(), 0);
    assert_eq!(w.state.node(node_id(0)).unwrap().reserved(), cores(0, 0));
    let results = w.results(job);
    assert_eq!(results.len(), 3);
    assert_eq!(results[0].result.as_deref(), Some("{\"ok\":true}"));
    let kinds: Vec<String> = w.events().iter().map(|e| e.kind.to_string()).collect();
    assert_eq!(
        kinds,
        [
            "node.registered",
            "job.submitted",
            "job.running",
            "job.completed"
        ]
    );
}

#[test]
fn a_result_is_recorded_once() {
    let mut w = World::new(2, 2);
    let job = w.submit(1, array(2));
    w.place(job, 0, [0]);
    let task = w.task_ref(job, 0);
    let again = |attempt| Command::Finished {
        node: node_id(0),
        results: vec![result(TaskRef { attempt, ..task }, success(), None)],
    };
    let recorded = |accepted, duplicates| Reply::Recorded {
        accepted,
        duplicates,
    };
    assert_eq!(w.ok(again(7)), recorded(0, 1));
    assert_eq!(w.ok(again(1)), recorded(1, 0));
    assert_eq!(w.ok(again(1)), recorded(0, 1));
    let elsewhere = Command::Finished {
        node: node_id(1),
        results: vec![result(task, success(), None)],
    };
    assert_eq!(w.ok(elsewhere), recorded(0, 1));
    assert_eq!(w.results(job).len(), 1);
    w.check();
}

#[test]
fn failures_wait_and_then_use_up_the_retries() {
    let mut w = World::new(1, 2);
    let job = w.submit(1, array(1));
    for failure in 1..=3u32 {
        assert_eq!(w.place(job, 0, [0]), 1, "attempt {failure}");
        w.finish(job, 0, 0, exit(4));
        w.check();
        let task = w.task(job, 0);
        assert_eq!(task.failures, failure);
        assert_eq!(task.reason, Some(Reason::ExitCode));
        if failure < 3 {
            assert_eq!(task.state, TaskState::Retrying);
            let wait = task.due.unwrap().since(w.now).0;
            let base = 1000 << (failure - 1);
            assert!((base * 8 / 10..=base * 12 / 10).contains(&wait), "{wait}");
            assert_eq!(w.place(job, 0, [0]), 0, "not before it is due");
            w.pass(wait - 1);
            assert_eq!(w.task(job, 0).state, TaskState::Retrying);
            assert_eq!(w.state.next_timer(), Some(TimeMs(w.now.0 + 1)));
            w.pass(1);
            assert_eq!(w.task(job, 0).state, TaskState::Queued);
        }
    }
    assert_eq!(w.task(job, 0).state, TaskState::Failed);
    assert_eq!(w.job_state(job), JobState::Failed);
    assert_eq!(w.results(job).len(), 1);
    assert_eq!(w.results(job)[0].attempt, 3);
}

/// The next leader's clock may be an hour behind; what this one has put off must not wait for it.
#[test]
fn the_latest_time_is_known_from_what_is_put_off() {
    let mut w = World::new(1, 4);
    let job = w.submit(1, array(1));
    w.now = TimeMs(w.now.0 + 3_600_000);
    w.place(job, 0, [0]);
    let started = w.now;
    w.now = TimeMs(w.now.0 + 3_600_000);
    w.finish(job, 0, 0, exit(1));
    let due = w.task(job, 0).due.unwrap();
    let latest = w.reloaded().latest_time();
    assert!(latest <= w.now, "never later than it was");
    let longest = Backoff::default();
    let longest = longest.max.0 + longest.max.0 / 5;
    assert!(latest.0 + longest >= due.0 && latest > started);
    let key = IdempotencyKey {
        key: "k".into(),
        request_digest: [0; 32],
    };
    w.now = TimeMs(w.now.0 + 3_600_000);
    let proposal = Proposal {
        command: Command::PauseJob { id: job },
        key: Some(key),
        origin: None,
    };
    w.propose(&proposal).unwrap();
    assert_eq!(w.reloaded().latest_time(), w.now);
}

/// A heartbeat may cross the check of the leases. The node runs what was given to others until it greets.
#[test]
fn an_offline_node_is_back_only_with_a_greeting() {
    let mut w = World::new(1, 4);
    let id = node_id(0);
    let set = |state| Command::SetNodeState { id, state };
    w.ok(set(NodeState::Suspect));
    w.ok(set(NodeState::Healthy));
    w.ok(set(NodeState::Offline));
    for state in [NodeState::Healthy, NodeState::Suspect] {
        assert_eq!(w.err(set(state)).reason, Reason::WrongState);
    }
    w.ok(set(NodeState::Offline));
    w.ok(Command::RegisterNode(registration(0, 4)));
    let node = w.state.node(id).unwrap();
    assert_eq!(node.record().state, NodeState::Healthy);
}

#[test]
fn a_lost_node_costs_no_retry_but_not_for_ever() {
    let mut w = World::new(1, 2);
    let mut s = array(1);
    s.retries = 0;
    let job = w.submit(1, s);
    for loss in 1..=JobSpec::LOSSES_MAX + 1 {
        assert_eq!(w.place(job, 0, [0]), 1);
        w.ok(Command::SetNodeState {
            id: node_id(0),
            state: NodeState::Offline,
        });
        w.check();
        assert_eq!(w.task(job, 0).losses, loss);
        assert_eq!(w.task(job, 0).failures, 0);
        w.ok(Command::RegisterNode(registration(0, 2)));
        w.pass(100_000);
    }
    assert_eq!(w.task(job, 0).state, TaskState::Failed);
    assert_eq!(w.task(job, 0).reason, Some(Reason::Lost));
    assert_eq!(w.results(job).len(), 1);
}

#[test]
fn a_result_from_before_a_loss_is_superseded() {
    let mut w = World::new(2, 2);
    let job = w.submit(1, array(1));
    w.place(job, 0, [0]);
    let old = w.task_ref(job, 0);
    w.ok(Command::SetNodeState {
        id: node_id(0),
        state: NodeState::Offline,
    });
    w.pass(1);
    assert_eq!(w.place(job, 1, [0]), 1);
    let late = Command::Finished {
        node: node_id(0),
        results: vec![result(old, success(), None)],
    };
    w.ok(late);
    assert_eq!(w.task(job, 0).state, TaskState::Assigned);
    w.finish(job, 1, 0, success());
    assert_eq!(w.results(job).len(), 1);
    assert_eq!(w.results(job)[0].attempt, 2);
}

#[test]
fn cancel_ends_what_waits_and_stops_what_runs() {
    let mut w = World::new(1, 2);
    let job = w.submit(1, array(1000));
    w.place(job, 0, 0..2);
    w.start(job, 0, 0);
    w.ok(Command::CancelJob { id: job });
    assert!(
        matches!(&w.actions[..], [Action::StopTasks { tasks, .. }] if tasks.len() == 2),
        "{:?}",
        w.actions
    );
    assert_eq!(w.job_state(job), JobState::Running);
    assert_eq!(w.job(job).counts().of(TaskState::Cancelled), 998);
    let desired = w.state.desired_for(node_id(0));
    assert_eq!(desired.jobs[0].tasks[0].stop, Some(Reason::Cancelled));
    w.check();
    w.finish(job, 0, 0, ended_by(StopCause::Requested));
    let back = w.task_ref(job, 1);
    w.ok(Command::Returned {
        node: node_id(0),
        tasks: vec![back],
    });
    assert_eq!(w.job_state(job), JobState::Cancelled);
    w.check();
    w.ok(Command::CancelJob { id: job });
    assert_eq!(
        w.err(Command::PauseJob { id: job }).reason,
        Reason::WrongState
    );
}

#[test]
fn retry_runs_failed_and_cancelled_tasks_again() {
    let mut w = World::new(1, 4);
    let mut s = array(3);
    s.retries = 0;
    let job = w.submit(1, s);
    w.place(job, 0, 0..2);
    w.finish(job, 0, 0, success());
    w.finish(job, 0, 1, exit(1));
    w.ok(Command::CancelJob { id: job });
    assert_eq!(w.job_state(job), JobState::Cancelled);
    assert_eq!(
        w.ok(Command::RetryJob { id: job }),
        Reply::Retried { tasks: 2 }
    );
    assert_eq!(w.job_state(job), JobState::Queued);
    assert_eq!(w.task(job, 1).failures, 0);
    w.check();
    w.place(job, 0, 1..3);
    assert_eq!(w.task(job, 1).attempt, 2, "attempts never repeat");
    w.finish(job, 0, 1, success());
    w.finish(job, 0, 2, success());
    assert_eq!(w.job_state(job), JobState::Completed);
    // The failed attempt's record does not count any more.
    assert_eq!(w.results(job).len(), 4);
    let current = |r: &&ResultRecord| r.is_current(&w.task(job, r.index));
    assert_eq!(w.results(job).iter().filter(current).count(), 3);
    assert_eq!(
        w.err(Command::RetryJob { id: job }).reason,
        Reason::WrongState
    );
    w.check();
}

#[test]
fn a_paused_job_gets_nothing_new() {
    let mut w = World::new(1, 2);
    let job = w.submit(1, array(4));
    w.place(job, 0, 0..2);
    w.ok(Command::PauseJob { id: job });
    assert_eq!(
        w.actions,
        [Action::Recall {
            node: node_id(0),
            job
        }]
    );
    assert_eq!(w.state.queue().count(), 0);
    assert_eq!(w.place(job, 0, [2]), 0);
    w.finish(job, 0, 0, success());
    w.check();
    w.ok(Command::ResumeJob { id: job });
    assert_eq!(w.state.queue().count(), 1);
    assert_eq!(w.place(job, 0, [2]), 1);
}

#[test]
fn too_many_failures_end_the_job() {
    let mut w = World::new(1, 4);
    let mut s = array(10);
    s.retries = 0;
    s.max_failures = Some(1);
    let job = w.submit(1, s);
    w.place(job, 0, 0..4);
    w.finish(job, 0, 0, exit(1));
    assert_eq!(w.job(job).record().cancel, None);
    w.finish(job, 0, 1, exit(1));
    assert_eq!(w.job(job).record().cancel, Some(Reason::TooManyFailures));
    w.finish(job, 0, 2, ended_by(StopCause::Requested));
    w.finish(job, 0, 3, success());
    assert_eq!(w.job_state(job), JobState::Failed);
    assert_eq!(w.job(job).counts().of(TaskState::Cancelled), 7);
    w.check();
}

#[test]
fn the_end_says_what_became_of_the_tasks() {
    for (codes, state) in [
        ([0, 0], JobState::Completed),
        ([0, 1], JobState::PartiallyCompleted),
        ([1, 1], JobState::Failed),
    ] {
        let mut w = World::new(1, 2);
        let mut s = array(2);
        s.retries = 0;
        let job = w.submit(1, s);
        w.place(job, 0, 0..2);
        w.finish(job, 0, 0, exit(codes[0]));
        w.finish(job, 0, 1, exit(codes[1]));
        assert_eq!(w.job_state(job), state);
    }
}

#[test]
fn dependencies_release_or_cancel() {
    let mut w = World::new(1, 4);
    let mut first = array(1);
    first.retries = 0;
    first.group = Some(name("prepare"));
    let a = w.submit(1, first.clone());
    let b = w.submit(2, first);
    let mut then = array(1);
    then.name = name("then");
    then.after = vec!["prepare".into()];
    let c = w.submit(3, then.clone());
    then.name = name("last");
    then.after = vec!["then".into()];
    let d = w.submit(4, then);
    assert_eq!(w.job(c).record().waiting_for.len(), 2);
    assert_eq!(w.place(c, 0, [0]), 0, "it waits");
    w.check();
    w.place(a, 0, [0]);
    w.finish(a, 0, 0, success());
    assert_eq!(w.place(c, 0, [0]), 0, "it still waits");
    w.place(b, 0, [0]);
    w.finish(b, 0, 0, exit(1));
    for job in [c, d] {
        assert_eq!(w.job_state(job), JobState::Cancelled);
        assert_eq!(w.job(job).record().cancel, Some(Reason::DependencyFailed));
    }
    w.check();

    let why = w.err(Command::RetryJob { id: c });
    assert_eq!(why.reason, Reason::DependencyFailed);
    w.ok(Command::RetryJob { id: b });
    w.ok(Command::RetryJob { id: c });
    assert_eq!(w.place(c, 0, [0]), 0, "it waits again");
    w.check();
    w.place(b, 0, [0]);
    w.finish(b, 0, 0, success());
    assert_eq!(w.place(c, 0, [0]), 1);
    w.finish(c, 0, 0, success());
    assert_eq!(w.job_state(c), JobState::Completed);
    w.check();
}

#[test]
fn a_job_after_a_failed_one_is_over_at_once() {
    let mut w = World::new(1, 2);
    let a = w.submit(1, array(1));
    w.ok(Command::CancelJob { id: a });
    let mut s = array(700);
    s.after = vec![a.to_string()];
    let b = w.submit(2, s.clone());
    assert_eq!(w.job_state(b), JobState::Cancelled);
    assert_eq!(w.job(b).counts().of(TaskState::Cancelled), 700);
    w.check();
    s.after = vec!["jbo".into()];
    let why = w.err(submission(3, s));
    assert_eq!(why.reason, Reason::NotFound);
    assert!(why.message.contains("did you mean job"), "{why}");
}

#[test]
fn lanes_keep_within_capacity_and_concurrency() {
    let mut w = World::new(2, 2);
    let mut s = array(100);
    s.concurrency = Some(5);
    let job = w.submit(1, s);
    assert_eq!(
        w.place(job, 0, 0..20),
        20,
        "more tasks than lanes wait there"
    );
    assert_eq!(w.job(job).lanes_total(), 4, "2 cores hold 4 lanes of 500m");
    assert_eq!(w.place(job, 1, 20..40), 20);
    assert_eq!(w.job(job).lanes_total(), 5, "concurrency");
    w.check();
    for i in 0..17 {
        w.finish(job, 0, i, success());
    }
    assert_eq!(w.job(job).placed_on(NodeNo(0)), 3);
    assert_eq!(
        w.job(job).lanes_on(NodeNo(0)),
        3,
        "lanes shrink with the work"
    );
    let other = w.submit(2, array(9));
    assert_eq!(w.place(other, 0, 0..9), 9);
    assert_eq!(w.job(other).lanes_total(), 1);
    w.check();
}

#[test]
fn what_does_not_fit_the_node_is_dropped() {
    let mut w = World::new(1, 2);
    let mut s = array(1);
    s.isolation = prism_spec::IsolationSpec::None;
    let plain = w.submit(1, s);
    assert_eq!(w.place(plain, 0, [0]), 0);
    let mut s = array(1);
    s.image = prism_spec::ImageRef::Named("x".into());
    let image = w.submit(2, s);
    assert_eq!(w.place(image, 0, [0]), 0);
    let job = w.submit(3, array(1));
    w.ok(Command::Cordon {
        id: node_id(0),
        on: true,
    });
    assert_eq!(w.place(job, 0, [0]), 0);
    assert_eq!(w.place(job, 5, [0]), 0);
    w.ok(Command::Cordon {
        id: node_id(0),
        on: false,
    });
    assert_eq!(w.place(job, 0, [0, 0, 9]), 1);
    w.check();
}

#[test]
fn a_node_that_shrinks_loses_grants() {
    let mut w = World::new(1, 4);
    let a = w.submit(1, array(4));
    let b = w.submit(2, array(4));
    w.place(a, 0, 0..4);
    w.place(b, 0, 0..4);
    w.ok(Command::RegisterNode(registration(0, 1)));
    w.check();
    assert_eq!(w.job(a).lanes_total(), 2);
    assert_eq!(w.job(b).counts().of(TaskState::Queued), 4);
    assert_eq!(
        w.err(Command::RemoveNode { id: node_id(0) }).reason,
        Reason::WrongState
    );
}

#[test]
fn idempotency_keys_answer_again() {
    let mut w = World::new(1, 1);
    let proposal = |n, digest| Proposal {
        command: submission(n, array(1)),
        key: Some(IdempotencyKey {
            key: "k".into(),
            request_digest: [digest; 32],
        }),
        origin: None,
    };
    let first = w.propose(&proposal(1, 1)).unwrap();
    assert_eq!(first, w.propose(&proposal(2, 1)).unwrap());
    assert_eq!(w.state.jobs().count(), 1);
    let why = w.propose(&proposal(3, 2)).unwrap_err();
    assert_eq!(why.reason, Reason::KeyReused);
    w.check();
    w.pass(KEY_MEMORY.0);
    assert_eq!(w.state.key("k"), None);
    assert!(w.propose(&proposal(3, 2)).is_ok());
    w.check();
}

#[test]
fn old_events_go() {
    let mut w = World::new(1, 1);
    for i in 0..10_700u64 {
        w.ok(Command::Cordon {
            id: node_id(0),
            on: i % 2 == 0,
        });
    }
    let events = w.events();
    assert!((10_000..10_500).contains(&events.len()), "{}", events.len());
    assert_eq!(events.last().unwrap().seq, w.state.meta().events_next - 1);
    assert_eq!(events[0].seq, w.state.meta().events_first);
}
