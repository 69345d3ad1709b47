//! A worker's session with a control plane and a runtime that do what a test says.

#![expect(
    clippy::unwrap_used,
    reason = "the script is the test's own; a panic is how it fails"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prism_link::{AssignedTask, ControlEnd, JobBundle, ToControl, ToWorker};
use prism_runtime::RunEvent;
use prism_runtime_kit::{NoFiles, Script};
use prism_spec::{JobSpec, parse_file};
use prism_types::{ExitStatus, JobId, Name, NodeId, RunId, RunReport, StopCause, TaskRef, TimeMs};
use prism_worker::{Config, Worker};
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(20);

fn spec() -> Arc<JobSpec> {
    let text = b"job: scripted\ncommand: [\"true\"]\narray: 3\n";
    let document = parse_file("job.yaml", text).unwrap();
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
    let config = Config::new(
        NodeId::new(1, 1),
        "n1".parse::<Name>().unwrap(),
        dir.path().to_owned(),
    );
    let from = script.clone();
    let mut worker =
        Worker::open(config, Arc::new(NoFiles), |sink| Ok(from.runtime(sink))).unwrap();
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
        spec: spec(),
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
