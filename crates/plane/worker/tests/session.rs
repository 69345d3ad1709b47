//! A worker's session with a control plane and a runtime that do what a test says.

#![expect(
    clippy::unwrap_used,
    reason = "the script is the test's own; a panic is how it fails"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prism_link::{AssignedTask, ControlEnd, JobBundle, ToControl, ToWorker};
use prism_runtime::{BootMs, RunEvent};
use prism_runtime_kit::{NoFiles, Script};
use prism_spec::{JobSpec, parse_file};
use prism_types::{
    ExitStatus, JobId, LEASE_KILL, Millis, Name, NodeId, RunId, RunReport, StopCause, TaskRef,
    TimeMs,
};
use prism_worker::{Config, Worker};
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(20);

fn spec(single: bool) -> Arc<JobSpec> {
    let text = format!("job: scripted\ncommand: [\"true\"]\narray: 3\nsingle_instance: {single}\n");
    let document = parse_file("job.yaml", text.as_bytes()).unwrap();
    Arc::new(document.resolve(BTreeMap::new()).unwrap().spec)
}

fn assigned(index: u32) -> AssignedTask {
    AssignedTask {
        index,
        attempt: 1,
        results: None,
    }
}

fn report() -> RunReport {
    RunReport {
        exit: ExitStatus::Code(0),
        cause: StopCause::None,
        ..RunReport::not_started(TimeMs(1), "")
    }
}

/// A worker whose runtime does what the script says.
fn opened(script: &Arc<Script>, dir: &Path, heartbeat: u64) -> Worker {
    let name = "n1".parse::<Name>().unwrap();
    let mut config = Config::new(NodeId::new(1, 1), name, dir.to_owned());
    config.heartbeat = Millis(heartbeat);
    let from = script.clone();
    Worker::open(config, Arc::new(NoFiles), |sink| Ok(from.runtime(sink))).unwrap()
}

async fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(LIMIT, async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}

/// The next report of ended tasks.
async fn finished(control: &mut ControlEnd) -> Vec<TaskRef> {
    let told = tokio::time::timeout(LIMIT, async {
        loop {
            match control.from_worker.recv().await.unwrap() {
                ToControl::Finished(outcomes) => break outcomes,
                _ => continue,
            }
        }
    });
    told.await.unwrap().into_iter().map(|o| o.task).collect()
}

/// The end of a task may be on its way to the control plane while that, not knowing, gives the task to the node once more. The
/// second giving must not keep the lane when the first one's end is recorded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_given_while_its_end_is_told_keeps_no_lane() {
    let dir = tempfile::tempdir().unwrap();
    let script = Arc::new(Script::default());
    let mut worker = opened(&script, dir.path(), 2_000);
    let (mut control, end) = prism_link::pair();
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let session = tokio::spawn(async move { worker.run(end, stop).await });

    let job = JobId::new(7, 7);
    let task = |index| TaskRef {
        job,
        index,
        attempt: 1,
    };
    let run = |index| RunId::task(task(index));
    let say = |message| control.to_worker.try_send(message).unwrap();
    say(ToWorker::Desired {
        tasks: Vec::new(),
        sandboxes: Vec::new(),
    });
    say(ToWorker::Job(Box::new(JobBundle {
        job,
        spec: spec(false),
        blobs: Vec::new(),
    })));
    script.tell(vec![RunEvent::Exited {
        id: run(0),
        report: report(),
    }]);
    assert_eq!(finished(&mut control).await, [task(0)]);
    let say = |message| control.to_worker.try_send(message).unwrap();
    say(ToWorker::Assign {
        job,
        lanes: 1,
        tasks: vec![assigned(0), assigned(1)],
    });
    eventually("the task is started once more", || {
        *script.launched.lock().unwrap() == [run(0)]
    })
    .await;
    say(ToWorker::Ack(vec![task(0)]));
    eventually("the next one has the lane", || {
        *script.launched.lock().unwrap() == [run(0), run(1)]
    })
    .await;
    assert_eq!(*script.stopped.lock().unwrap(), [run(0)]);
    assert_eq!(*script.forgotten.lock().unwrap(), [run(0)]);
    shutdown.cancel();
    session.await.unwrap();
}

/// The worker's next question for more time: when it was sent.
async fn asked(control: &mut ControlEnd) -> u64 {
    let told = tokio::time::timeout(LIMIT, async {
        loop {
            match control.from_worker.recv().await.unwrap() {
                ToControl::Renew { sent } => break sent,
                _ => continue,
            }
        }
    });
    told.await.unwrap()
}

/// What may run once only begins when a leader has answered, lives from the question on, has more time with each answer, and none any
/// more when it is not wanted, even where it could not be stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_run_once_only_lives_by_the_answers_of_a_leader() {
    let dir = tempfile::tempdir().unwrap();
    let script = Arc::new(Script::default());
    let mut worker = opened(&script, dir.path(), 50);
    let (mut control, end) = prism_link::pair();
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let session = tokio::spawn(async move { worker.run(end, stop).await });
    let job = JobId::new(7, 7);
    let task = TaskRef {
        job,
        index: 0,
        attempt: 1,
    };
    let orders = control.to_worker.clone();
    let say = |message| orders.try_send(message).unwrap();
    let wanted = |tasks| ToWorker::Desired {
        tasks,
        sandboxes: Vec::new(),
    };
    say(wanted(Vec::new()));
    say(ToWorker::Job(Box::new(JobBundle {
        job,
        spec: spec(true),
        blobs: Vec::new(),
    })));
    say(ToWorker::Assign {
        job,
        lanes: 1,
        tasks: vec![assigned(0)],
    });
    let first = asked(&mut control).await;
    let second = asked(&mut control).await;
    assert!(second >= first, "it goes on asking");
    assert!(
        script.launched.lock().unwrap().is_empty(),
        "nobody answered"
    );
    say(ToWorker::Renewed { sent: first });
    eventually("it begins", || !script.launched.lock().unwrap().is_empty()).await;
    let until = BootMs(first + LEASE_KILL.0);
    assert_eq!(*script.leases.lock().unwrap(), [Some(until)]);
    let third = asked(&mut control).await.max(second + 1);
    say(ToWorker::Renewed { sent: third });
    let run = RunId::task(task);
    eventually("it has more time", || {
        let renewed = script.renewed.lock().unwrap();
        renewed
            .last()
            .is_some_and(|(id, at)| *id == run && *at > until)
    })
    .await;
    say(wanted(Vec::new()));
    eventually("it is stopped", || {
        !script.stopped.lock().unwrap().is_empty()
    })
    .await;
    let before = script.renewed.lock().unwrap().len();
    say(ToWorker::Renewed { sent: third + 1 });
    say(ToWorker::Recall(job));
    while !matches!(
        control.from_worker.recv().await.unwrap(),
        ToControl::Returned(_)
    ) {}
    assert_eq!(script.renewed.lock().unwrap().len(), before);
    shutdown.cancel();
    session.await.unwrap();
}
