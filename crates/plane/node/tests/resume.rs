//! Workers with many live runs that are cut off and come back: over a connection whose bytes are counted, to a leader of this version
//! or as to one of the version before. The worker and the control plane are real, what runs is a script.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prism_control::Control;
use prism_link::pair;
use prism_runtime::{Observed, RunEvent};
use prism_runtime_kit::{NoFiles, Script};
use prism_spec::WireKind;
use prism_state::{Command, State, Submission, TaskResult};
use prism_store_kit::FakeStore;
use prism_types::{
    Bytes, ExitStatus, JobId, MilliCpu, Millis, NodeId, Resources, RunId, RunReport, StopCause,
    TaskRef, TaskState, TimeMs,
};
use prism_wire::{carry_control, carry_greeted, greet_control};
use prism_worker::{Config, Worker};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const NODE: NodeId = NodeId(prism_types::Id(7));
const LIMIT: Duration = Duration::from_secs(120);

/// What crossed a connection.
#[derive(Debug)]
struct Way {
    began: Instant,
    up: AtomicU64,
    down: AtomicU64,
    /// When the last byte crossed, microseconds after the begin.
    last: AtomicU64,
}

impl Way {
    fn crossed(&self) -> (u64, u64) {
        let get = |n: &AtomicU64| n.load(Ordering::SeqCst);
        (get(&self.up), get(&self.down))
    }
}

/// Carries bytes one way and counts them.
async fn copy(
    mut from: tokio::io::ReadHalf<DuplexStream>,
    mut to: tokio::io::WriteHalf<DuplexStream>,
    way: Arc<Way>,
    count: fn(&Way) -> &AtomicU64,
) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut piece).await {
        let since = u64::try_from(way.began.elapsed().as_micros()).unwrap();
        way.last.store(since, Ordering::SeqCst);
        count(&way).fetch_add(n as u64, Ordering::SeqCst);
        if to.write_all(&piece[..n]).await.is_err() {
            return;
        }
    }
}

/// A connection whose worker speaks no later version than this.
async fn connection(newest: u16) -> (DuplexStream, DuplexStream, Arc<Way>, Vec<JoinHandle<()>>) {
    let way = Arc::new(Way {
        began: Instant::now(),
        up: AtomicU64::new(0),
        down: AtomicU64::new(0),
        last: AtomicU64::new(0),
    });
    let (at_worker, near) = duplex(1 << 20);
    let (far, at_control) = duplex(1 << 20);
    let (mut from_worker, to_worker) = split(near);
    let (from_control, mut to_control) = split(far);
    let (up, down) = (way.clone(), way.clone());
    let upward = tokio::spawn(async move {
        let mut greeting = [0; 8];
        from_worker.read_exact(&mut greeting).await.unwrap();
        assert_eq!(greeting[..4], *b"PRSM");
        greeting[6..].copy_from_slice(&newest.to_le_bytes());
        to_control.write_all(&greeting).await.unwrap();
        copy(from_worker, to_control, up, |way| &way.up).await;
    });
    // What the worker hears is that the other end is of that version as well.
    let downward = tokio::spawn(async move {
        let (mut from, mut to) = (from_control, to_worker);
        let mut greeting = [0; 8];
        from.read_exact(&mut greeting).await.unwrap();
        greeting[6..].copy_from_slice(&newest.to_le_bytes());
        to.write_all(&greeting).await.unwrap();
        copy(from, to, down, |way| &way.down).await;
    });
    (at_worker, at_control, way, vec![upward, downward])
}

/// A control plane, and a worker whose runs do what the test says.
struct Site {
    control: Control,
    script: Arc<Script>,
    worker: Option<Worker>,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A session that can be cut.
struct Session {
    way: Arc<Way>,
    wires: Vec<JoinHandle<()>>,
    running: JoinHandle<Worker>,
}

async fn site(runs: u32) -> Site {
    let stop = CancellationToken::new();
    let (control, leader) = prism_control::open(Arc::new(FakeStore::default()))
        .await
        .unwrap();
    tokio::spawn(leader.run(stop.clone()));
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(NODE, "w7".parse().unwrap(), dir.path().to_owned());
    config.capacity = Some(Resources {
        cpu: MilliCpu(runs * 1_000),
        memory: Bytes(1 << 50),
        disk: Bytes(0),
    });
    // Only the first one: what is counted is what a session begins with.
    config.heartbeat = Millis(3_600_000);
    (config.pressure_memory, config.pressure_disk) = (1.0, 1.0);
    let script = Arc::new(Script::default());
    let from = script.clone();
    let worker = Worker::open(config, Arc::new(NoFiles), |sink| Ok(from.runtime(sink))).unwrap();
    Site {
        control,
        script,
        worker: Some(worker),
        stop,
        _dir: dir,
    }
}

async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(LIMIT, async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}

fn report() -> RunReport {
    RunReport {
        exit: ExitStatus::Code(0),
        cause: StopCause::None,
        ..RunReport::not_started(TimeMs(1), "")
    }
}

async fn submit(control: &Control, tasks: u32) -> JobId {
    let body = serde_json::json!({
        "job": "many", "command": ["run"], "array": tasks,
        "resources": {"cpu": "1", "memory": "1Mi"},
    });
    let parsed = prism_spec::parse_wire(WireKind::Job, body.to_string().as_bytes()).unwrap();
    let (ms, entropy) = control.mint();
    let id = JobId::new(ms, entropy);
    let submission = Submission {
        id,
        spec: Arc::new(parsed.spec),
        blobs: Vec::new(),
        seed: 1,
    };
    let submit = Command::SubmitJob(submission);
    control.propose(submit, None).await.unwrap();
    id
}

impl Site {
    async fn session(&mut self, newest: u16) -> Session {
        let (at_worker, at_control, way, wires) = connection(newest).await;
        let (control_end, far) = pair();
        let control = self.control.clone();
        tokio::spawn(async move {
            let (link, carried) = carry_control(at_control, far).await.unwrap();
            let mut served = control.serve_worker(control_end, Arc::new(link.node));
            tokio::select! {
                served = &mut served => served.unwrap(),
                // Its queue ends with that, and so does the session.
                _over = carried => served.await.unwrap(),
            }
        });
        let greeted = greet_control(at_worker).await.unwrap();
        assert_eq!(greeted.resumes(), newest >= 3);
        let (far, mut end) = pair();
        end.resumes = greeted.resumes();
        let mut worker = self.worker.take().unwrap();
        let carried = tokio::spawn(carry_greeted(greeted, far, worker.service()));
        let stop = self.stop.clone();
        let running = tokio::spawn(async move {
            worker.run(end, stop).await;
            carried.abort();
            worker
        });
        until("it has a session", async || {
            self.control.readings(NODE).is_some()
        })
        .await;
        Session {
            way,
            wires,
            running,
        }
    }

    /// Cuts the connection; both ends have noticed when this returns.
    async fn cut(&mut self, session: Session) {
        session.wires.iter().for_each(JoinHandle::abort);
        self.worker = Some(session.running.await.unwrap());
        until("the control plane has noticed", async || {
            self.control.readings(NODE).is_none()
        })
        .await;
    }

    /// Waits until so many were ever launched, says of those after `from` that they run, and that the leader knows.
    async fn run(&self, from: usize, upto: usize) {
        let launched = || self.script.launched.lock().unwrap().len();
        until("all are launched", async || launched() >= upto).await;
        assert_eq!(launched(), upto);
        let ids = self.script.launched.lock().unwrap()[from..].to_vec();
        let observed = |id: &RunId| Observed {
            id: id.clone(),
            started: TimeMs(5),
            pid: 1,
            logs: "/nowhere".into(),
            exited: None,
        };
        let found: Vec<Observed> = ids.iter().map(observed).collect();
        self.script.observed.lock().unwrap().extend(found);
        let started = |id| RunEvent::Started {
            id,
            at: TimeMs(5),
            pid: 1,
        };
        self.script.tell(ids.into_iter().map(started).collect());
        until("the leader knows that they run", async || {
            let tasks = |s: &State| {
                let jobs = s.desired_for(NODE).jobs;
                jobs.iter().all(|j| j.tasks.iter().all(|t| t.started))
            };
            self.control.read(tasks).await
        })
        .await;
    }

    /// The state takes runs for lost, and their tasks for not done.
    async fn supersede(&self, tasks: &[TaskRef]) {
        let lost = |task: &TaskRef| TaskResult {
            task: *task,
            report: RunReport {
                cause: StopCause::Lost,
                ..RunReport::not_started(TimeMs(9), "it was taken for lost")
            },
            result: None,
            stderr_tail: "".into(),
            output: None,
        };
        let results = tasks.iter().map(lost).collect();
        let command = Command::Finished {
            node: NODE,
            results,
        };
        self.control.propose(command, None).await.unwrap();
    }

    fn stopped(&self) -> BTreeSet<TaskRef> {
        let stopped = self.script.stopped.lock().unwrap();
        stopped.iter().filter_map(RunId::as_task).collect()
    }
}

impl Session {
    /// What crossed until nothing did for a while, and how long that took.
    async fn settled(&self) -> (u64, u64, Duration) {
        let mut before = (0, 0);
        loop {
            tokio::time::sleep(Duration::from_millis(400)).await;
            let now = self.way.crossed();
            if now == before {
                let last = self.way.last.load(Ordering::SeqCst);
                return (now.0, now.1, Duration::from_micros(last));
            }
            before = now;
        }
    }
}

/// Cuts a worker off and lets it back, as of this version and of the one before, with the same runs; what crosses, `[lists, sums]`.
async fn resumed(site: &mut Site, mut session: Session, name: &str) -> ([u64; 2], Session) {
    let mut all = [0; 2];
    for (place, newest) in [(0, 2), (1, 3)] {
        site.cut(session).await;
        session = site.session(newest).await;
        let (up, down, took) = session.settled().await;
        let how = ["lists", "sums"][place];
        println!("{name}, {how}: {up} bytes up, {down} down, {took:?}");
        all[place] = up + down;
        assert!(site.stopped().is_empty());
    }
    (all, session)
}

/// What differs costs about a bucket each, and the sums.
async fn differing(site: &mut Site, mut session: Session) {
    for (from, differ) in [(0, 1), (1_000, 100)] {
        site.cut(session).await;
        let launched = site.script.launched.lock().unwrap()[from..from + differ].to_vec();
        let gone: Vec<TaskRef> = launched.iter().filter_map(RunId::as_task).collect();
        site.supersede(&gone).await;
        session = site.session(3).await;
        let (up, down, took) = session.settled().await;
        println!("10000 runs, {differ} differ: {up} bytes up, {down} down, {took:?}");
        assert!(up + down < 15_000 + 900 * differ as u64, "{up} {down}");
        assert!(site.stopped().is_superset(&gone.into_iter().collect()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_without_a_difference_costs_as_little_however_much_runs() {
    let mut costs = Vec::new();
    for runs in [10, 1_000, 10_000] {
        for jobs in [1, runs] {
            let mut site = site(runs).await;
            let session = site.session(3).await;
            // All at once: they are decided and placed together.
            let submitting = (0..jobs).map(|_| {
                let control = site.control.clone();
                tokio::spawn(async move { submit(&control, runs / jobs).await })
            });
            for submitted in submitting.collect::<Vec<_>>() {
                submitted.await.unwrap();
            }
            site.run(0, runs as usize).await;
            let name = format!("{runs} runs of {jobs} jobs");
            let (cost, session) = resumed(&mut site, session, &name).await;
            costs.push(cost);
            let launched = site.script.launched.lock().unwrap().len();
            assert_eq!(launched, runs as usize, "nothing was begun anew");
            if (runs, jobs) == (10_000, 1) {
                differing(&mut site, session).await;
            }
        }
    }
    let [least, most] = [costs[0], costs[5]];
    assert!(
        most[0] > 500_000 && costs[4][0] > 400_000,
        "lists: {costs:?}"
    );
    for cost in &costs {
        assert!(cost[1] <= least[1] + 200, "sums: {costs:?}");
        assert!(cost[1] < 2_000, "sums: {costs:?}");
    }
}

const RUNS: u32 = 2_000;

/// A site whose worker was cut off, and what happened meanwhile.
struct Cut {
    site: Site,
    job: JobId,
    /// What was given up, by index.
    gone: Vec<TaskRef>,
    /// What was cancelled.
    cancelled: Vec<TaskRef>,
}

fn of(job: JobId, index: u32, attempt: u32) -> TaskRef {
    TaskRef {
        job,
        index,
        attempt,
    }
}

/// 50 of 2,000 runs are superseded and a job of 20 is cancelled while their worker is cut off; two runs end meanwhile, one of them
/// superseded.
async fn cut(newest: u16) -> Cut {
    let mut site = site(RUNS + 20).await;
    let session = site.session(newest).await;
    let job = submit(&site.control, RUNS).await;
    let other = submit(&site.control, 20).await;
    site.run(0, RUNS as usize + 20).await;
    site.cut(session).await;
    let gone: Vec<TaskRef> = (0..50).map(|n| of(job, n * 37, 1)).collect();
    site.supersede(&gone).await;
    let cancel = Command::CancelJob { id: other };
    site.control.propose(cancel, None).await.unwrap();
    for task in [gone[3], of(job, 1, 1)] {
        let mut observed = site.script.observed.lock().unwrap();
        let run = observed.iter_mut().find(|o| o.id == RunId::task(task));
        run.unwrap().exited = Some(report());
    }
    Cut {
        site,
        job,
        gone,
        cancelled: (0..20).map(|index| of(other, index, 1)).collect(),
    }
}

impl Cut {
    /// Waits until so many tasks of the job are done.
    async fn done(&self, count: u32) {
        until("valid ends are recorded", async || {
            let ended = |s: &State| s.job(self.job).unwrap().counts().of(TaskState::Completed);
            self.site.control.read(ended).await == count
        })
        .await;
    }

    /// The attempt of a task, and how it is.
    async fn cell(&self, task: TaskRef) -> (u32, TaskState) {
        let cell = |s: &State| {
            let cell = s.job(self.job).unwrap().cell(task.index).unwrap();
            (cell.attempt, cell.state)
        };
        self.site.control.read(cell).await
    }

    /// That alone is stopped which is not wanted, and what was given up is begun anew as the next attempt.
    async fn is_settled(&self) {
        let over = self.gone[3];
        // What is over may have been found out before or after it was to be stopped.
        let live = |all: BTreeSet<TaskRef>| -> BTreeSet<TaskRef> {
            all.into_iter().filter(|task| *task != over).collect()
        };
        let unwanted = self.gone.iter().chain(&self.cancelled).copied();
        let unwanted = live(unwanted.collect());
        until("what is not wanted is stopped", async || {
            live(self.site.stopped()).len() >= unwanted.len()
        })
        .await;
        assert_eq!(live(self.site.stopped()), unwanted);
        // What is stopped ends, and leaves its place to others.
        let ends = unwanted.iter().map(|task| RunEvent::Exited {
            id: RunId::task(*task),
            report: report(),
        });
        self.site.script.tell(ends.collect());
        let all = RUNS as usize + 20;
        let launched = || self.site.script.launched.lock().unwrap().clone();
        until("they are begun anew", async || {
            launched().len() >= all + self.gone.len()
        })
        .await;
        let anew: BTreeSet<TaskRef> = launched()[all..]
            .iter()
            .filter_map(RunId::as_task)
            .collect();
        let next = self.gone.iter().map(|t| of(self.job, t.index, 2));
        assert_eq!(anew, next.collect());
    }
}

/// Some of what runs was given up meanwhile, and one job is cancelled. After the resume that alone is stopped; what is valid runs on,
/// and its results count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_cut_what_is_superseded_is_stopped_and_what_is_valid_is_kept() {
    for newest in [2, 3] {
        let mut cut = cut(newest).await;
        let session = cut.site.session(newest).await;
        let (up, down, took) = session.settled().await;
        println!("to version {newest}, 72 of {RUNS} differ: {up} bytes up, {down} down, {took:?}");
        cut.is_settled().await;
        // The late result of a superseded run is not the task's; that of a valid one is.
        cut.done(1).await;
        let late = cut.cell(cut.gone[3]).await;
        assert!(late.0 == 2 && late.1 != TaskState::Completed, "{late:?}");
        let valid = cut.cell(of(cut.job, 1, 1)).await;
        assert_eq!(valid, (1, TaskState::Completed));
        let id = RunId::task(of(cut.job, 2, 1));
        let told = RunEvent::Exited {
            id,
            report: report(),
        };
        cut.site.script.tell(vec![told]);
        cut.done(2).await;
        cut.site.cut(session).await;
    }
}
