//! A leader and its sessions: one that was held up judges nobody for it, and a session begins however much its worker has.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

mod kit;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kit::{cluster, hello, nobody, node, until};
use prism_control::Control;
use prism_link::{Hello, Holding, Readings, ToControl, ToWorker, WorkerEnd, pair};
use prism_spec::WireKind;
use prism_state::{Command, State, Submission};
use prism_types::{JobId, NodeState, Resources, TaskRef, TimeMs};
use tokio::sync::mpsc::Sender;

const LIMIT: Duration = Duration::from_secs(60);

/// A session within this process of a node that greets so.
async fn session(control: &Control, hello: Hello) -> WorkerEnd {
    let (end, worker) = pair();
    let (control, service) = (control.clone(), nobody().await);
    tokio::spawn(async move { control.serve_worker(end, service).await.unwrap() });
    let greeting = ToControl::Hello(Box::new(hello));
    worker.to_control.send(greeting).await.unwrap();
    worker
}

fn beat(credits: u32) -> ToControl {
    let readings = Readings::default();
    ToControl::Heartbeat { readings, credits }
}

/// How it is, and since when.
fn state(state: &State) -> (NodeState, TimeMs) {
    let record = state.node(node(7)).unwrap().record();
    (record.state, record.since)
}

/// What nodes say waits to be read while the leader's disk is stuck, or the whole machine: behind a report that is not answered yet. One
/// thread runs everything here, so that the leader goes on before it is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_leader_that_was_held_up_gives_nobody_up() {
    let c = cluster().await;
    let worker = session(&c.control, hello(7)).await;
    assert!(c.is_there(7).await);
    let beats = Arc::new(AtomicBool::new(true));
    let (to, still) = (worker.to_control.clone(), beats.clone());
    let beating = std::thread::spawn(move || {
        while still.load(Ordering::SeqCst) {
            to.blocking_send(beat(0)).unwrap();
            to.blocking_send(ToControl::Returned(Vec::new())).unwrap();
            std::thread::sleep(Duration::from_millis(500));
        }
    });
    let (_, since) = c.control.read(state).await;
    // Whoever reads the state holds up who changes it, and with it all that wait behind.
    let held = c.control.clone();
    let holding = std::thread::spawn(move || {
        let held = held.read(|_| std::thread::sleep(Duration::from_secs(9)));
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(held);
    });
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(12) {
        // Not even for a moment.
        assert_eq!(c.control.read(state).await, (NodeState::Healthy, since));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    holding.join().unwrap();
    // One that is silent in truth is found out all the same.
    beats.store(false, Ordering::SeqCst);
    beating.join().unwrap();
    let late = || async { c.control.read(state).await.0 == NodeState::Suspect };
    assert!(until(late).await);
}

/// Between the greeting that makes it known and its session there may be a look at the leases: it was heard of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_greeted_was_heard_of_before_its_session_is_there() {
    let c = cluster().await;
    let (end, worker) = pair();
    // It is to be told first what it should hold, and there is no room for that.
    let full = ToWorker::SandboxStop(Vec::new());
    while end.to_worker.try_send(full.clone()).is_ok() {}
    let (control, service) = (c.control.clone(), nobody().await);
    let serving = tokio::spawn(async move { control.serve_worker(end, service).await });
    let greeting = ToControl::Hello(Box::new(hello(7)));
    worker.to_control.send(greeting).await.unwrap();
    let known = || async { c.control.read(|s| s.node(node(7)).is_some()).await };
    assert!(until(known).await);
    assert!(c.control.node(node(7)).is_none(), "it has no session yet");
    assert!(c.control.last_heard(node(7)).is_some());
    serving.abort();
}

const JOBS: u32 = 1_200;

fn job(control: &Control) -> Command {
    let body = serde_json::json!({
        "job": "one", "command": ["true"], "resources": {"cpu": "10m", "memory": "1Mi"},
    });
    let parsed = prism_spec::parse_wire(WireKind::Job, body.to_string().as_bytes()).unwrap();
    let (ms, entropy) = control.mint();
    Command::SubmitJob(Submission {
        id: JobId::new(ms, entropy),
        spec: Arc::new(parsed.spec),
        blobs: Vec::new(),
        seed: 1,
    })
}

fn roomy() -> Hello {
    let mut roomy = hello(7);
    roomy.capacity = Resources {
        cpu: "100".parse().unwrap(),
        memory: "900Gi".parse().unwrap(),
        disk: "900Gi".parse().unwrap(),
    };
    roomy.facts.isolation = true;
    roomy
}

/// The next message; the session is to be there still.
async fn next(worker: &mut WorkerEnd) -> ToWorker {
    let message = tokio::time::timeout(LIMIT, worker.from_control.recv());
    message.await.unwrap().expect("the session goes on")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_begins_however_many_jobs_its_worker_has() {
    let c = cluster().await;
    let mut first = session(&c.control, roomy()).await;
    assert!(c.is_there(7).await);
    let beating = tokio::spawn(beats(first.to_control.clone()));
    let mut tasks = Vec::new();
    for _ in 0..JOBS {
        c.propose(job(&c.control)).await;
        while let Ok(message) = first.from_control.try_recv() {
            note(&message, &mut tasks);
        }
    }
    while tasks.len() < JOBS as usize {
        note(&next(&mut first).await, &mut tasks);
    }
    beating.abort();
    assert!(beating.await.is_err());
    drop(first);
    assert!(until(|| async { c.control.node(node(7)).is_none() }).await);
    // It comes back with all of them, and takes its time to read what it is told.
    let mut again = roomy();
    again.tasks = tasks
        .iter()
        .map(|t| (*t, Holding::Running(TimeMs(1))))
        .collect();
    let mut worker = session(&c.control, again).await;
    assert!(c.is_there(7).await);
    let mut told = 0;
    let settled = || {
        let (before, now) = (told, worker.from_control.len());
        told = now;
        now > 100 && now == before
    };
    settle(settled).await;
    assert!(c.control.node(node(7)).is_some(), "its session goes on");
    let beating = tokio::spawn(beats(worker.to_control.clone()));
    let (mut specs, mut lanes) = (BTreeSet::new(), BTreeSet::new());
    while lanes.len() < JOBS as usize {
        match next(&mut worker).await {
            ToWorker::Job(bundle) => assert!(specs.insert(bundle.job)),
            ToWorker::Assign {
                job,
                lanes: n,
                tasks,
            } => {
                assert!(specs.contains(&job) && n == 1 && tasks.is_empty());
                lanes.insert(job);
            }
            ToWorker::Desired { tasks, .. } => assert_eq!(tasks.len(), JOBS as usize),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(specs, lanes);
    beating.abort();
}

/// As a worker that wants more than there is.
async fn beats(to: Sender<ToControl>) {
    while to.send(beat(100_000)).await.is_ok() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn note(message: &ToWorker, into: &mut Vec<TaskRef>) {
    if let ToWorker::Assign { job, tasks, .. } = message {
        into.extend(tasks.iter().map(|t| TaskRef {
            job: *job,
            index: t.index,
            attempt: t.attempt,
        }));
    }
}

/// Looks now and then until it is so.
async fn settle(mut is: impl FnMut() -> bool) {
    let settled = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    tokio::time::timeout(LIMIT, settled).await.unwrap();
}
