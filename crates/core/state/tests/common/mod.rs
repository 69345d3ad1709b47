//! A small world for tests: a state, the keys and values that a store would hold, and short words for commands.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "a kit for tests, of which each file uses a part"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use prism_spec::{
    Backoff, Dimension, Direction, EarlyStop, Halving, ImageRef, IsolationSpec, JobSpec, Objective,
    Runner, SandboxSpec, Search, SweepWork, Work,
};
use prism_state::*;
use prism_types::*;

/// A state with its store.
#[derive(Default)]
pub struct World {
    pub state: State,
    pub store: BTreeMap<Vec<u8>, Vec<u8>>,
    pub now: TimeMs,
    pub actions: Vec<Action>,
}

impl World {
    /// A world with `nodes` nodes of `cpus` cores and as many GiB.
    pub fn new(nodes: u32, cpus: u32) -> Self {
        let mut world = Self {
            now: TimeMs(1_000_000),
            ..Self::default()
        };
        for n in 0..nodes {
            world.ok(Command::RegisterNode(registration(n, cpus)));
        }
        world
    }

    pub fn run(&mut self, command: Command) -> Result<Reply, Rejection> {
        self.propose(&command.into())
    }

    pub fn propose(&mut self, proposal: &Proposal) -> Result<Reply, Rejection> {
        let decided = propose(&self.state, proposal, self.now)?;
        self.state.apply(&decided.changes);
        for (key, value) in encode_batch(&decided.changes) {
            match value {
                Some(value) => self.store.insert(key, value),
                None => self.store.remove(&key),
            };
        }
        self.actions = decided.actions;
        Ok(decided.reply)
    }

    #[track_caller]
    pub fn ok(&mut self, command: Command) -> Reply {
        match self.run(command) {
            Ok(reply) => reply,
            Err(why) => panic!("{why}"),
        }
    }

    #[track_caller]
    pub fn err(&mut self, command: Command) -> Rejection {
        self.run(command).unwrap_err()
    }

    pub fn submit(&mut self, n: u64, spec: JobSpec) -> JobId {
        self.ok(submission(n, spec));
        job_id(n)
    }

    /// Places tasks with as many lanes as there are tasks; how many were taken.
    pub fn place(&mut self, job: JobId, node: u32, tasks: impl IntoIterator<Item = u32>) -> u32 {
        let tasks: Vec<u32> = tasks.into_iter().collect();
        let placement = Placement {
            job,
            node: node_id(node),
            lanes: u32::try_from(tasks.len()).unwrap(),
            tasks,
        };
        let reply = self.ok(Command::Assign(Plan {
            placements: vec![placement],
            sandboxes: Vec::new(),
        }));
        match reply {
            Reply::Assigned { accepted, .. } => accepted,
            other => panic!("{other:?}"),
        }
    }

    pub fn task_ref(&self, job: JobId, index: u32) -> TaskRef {
        TaskRef {
            job,
            index,
            attempt: self.task(job, index).attempt,
        }
    }

    pub fn task(&self, job: JobId, index: u32) -> TaskView {
        self.state.task(job, index).unwrap()
    }

    pub fn start(&mut self, job: JobId, node: u32, index: u32) -> Reply {
        let task = self.task_ref(job, index);
        self.ok(Command::Started {
            node: node_id(node),
            tasks: vec![(task, self.now)],
        })
    }

    /// Ends a task where it is, by its present attempt.
    pub fn finish(&mut self, job: JobId, node: u32, index: u32, report: RunReport) -> Reply {
        let task = self.task_ref(job, index);
        self.ok(Command::Finished {
            node: node_id(node),
            results: vec![result(task, report, None)],
        })
    }

    pub fn finish_with(&mut self, job: JobId, node: u32, index: u32, json: &str) -> Reply {
        let task = self.task_ref(job, index);
        self.ok(Command::Finished {
            node: node_id(node),
            results: vec![result(task, success(), Some(json))],
        })
    }

    pub fn job(&self, job: JobId) -> &Job {
        self.state.job(job).unwrap()
    }

    pub fn job_state(&self, job: JobId) -> JobState {
        self.job(job).record().state
    }

    pub fn pass(&mut self, ms: u64) {
        self.now = TimeMs(self.now.0 + ms);
        self.ok(Command::Tick);
    }

    /// Every stored result of a job.
    pub fn results(&self, job: JobId) -> Vec<ResultRecord> {
        let prefix = job_results_prefix(job).into_bytes();
        self.store
            .range(prefix.clone()..)
            .take_while(|(k, _)| k.starts_with(&prefix))
            .flat_map(|(k, v)| decode_results(k, v).unwrap())
            .collect()
    }

    /// The state, rebuilt from what was committed, as far as a start reads it.
    pub fn reloaded(&self) -> State {
        let read = |key: &[u8]| {
            let mut all = State::LOAD_PREFIXES.iter();
            all.any(|prefix| key.starts_with(prefix.as_bytes()))
        };
        State::load(self.store.iter().filter(|(key, _)| read(key))).unwrap()
    }

    /// Checks what must hold always.
    #[track_caller]
    pub fn check(&self) {
        if let Err(why) = self.state.check_invariants() {
            panic!("{why}");
        }
        let reloaded = self.reloaded();
        assert_eq!(reloaded.encode(), self.state.encode());
        assert!(reloaded == self.state, "the indexes differ after a reload");
    }

    pub fn events(&self) -> Vec<EventRecord> {
        let prefix = events_prefix().as_bytes();
        self.store
            .iter()
            .filter(|(k, _)| k.starts_with(prefix))
            .map(|(k, v)| decode_event(k, v).unwrap())
            .collect()
    }
}

pub fn node_id(n: u32) -> NodeId {
    NodeId::new(1, u128::from(n) + 1)
}

pub fn job_id(n: u64) -> JobId {
    JobId::new(n, 7)
}

pub fn sandbox_id(n: u64) -> SandboxId {
    SandboxId::new(n, 9)
}

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub fn cores(millis: u32, mib: u64) -> Resources {
    Resources {
        cpu: MilliCpu(millis),
        memory: Bytes::mib(mib),
        disk: Bytes(0),
    }
}

pub fn registration(n: u32, cpus: u32) -> Registration {
    Registration {
        id: node_id(n),
        name: name(&format!("n{n}")),
        labels: Labels::new(),
        capacity: cores(cpus * 1000, u64::from(cpus) * 1024),
        allow_plain: false,
        facts: NodeFacts {
            isolation: true,
            ..NodeFacts::default()
        },
    }
}

pub fn spec(work: Work) -> JobSpec {
    JobSpec {
        name: name("job"),
        namespace: name("default"),
        group: None,
        task: String::new(),
        work,
        env: BTreeMap::new(),
        files: Vec::new(),
        image: ImageRef::Host,
        isolation: IsolationSpec::Sandbox,
        resources: cores(500, 256),
        pids: 64,
        retries: 2,
        backoff: Backoff::default(),
        timeout: None,
        concurrency: None,
        priority: 0,
        max_failures: None,
        after: Vec::new(),
        labels: Labels::new(),
        single_instance: false,
    }
}

pub fn array(count: u32) -> JobSpec {
    spec(Work::Array {
        command: vec!["true".into()],
        count,
    })
}

/// A sweep of `beams` beams that maximizes `acc`, with halving by 2 over 2 rungs at lines 1 and 2 if asked for.
pub fn sweep(beams: i64, halving: bool, aggregate: bool) -> JobSpec {
    let rule = EarlyStop::Halving(Halving {
        metric: "acc".into(),
        direction: Direction::Maximize,
        rounds: 2,
        factor: 2,
        first: 1,
    });
    spec(Work::Sweep(SweepWork {
        runners: vec![Runner {
            name: "main".into(),
            command: vec!["train".into()],
            files: Vec::new(),
        }],
        space: vec![(
            "x".into(),
            Dimension::Range {
                from: 1,
                to: beams,
                step: 1,
            },
        )],
        search: Search::Grid,
        objective: Some(Objective {
            direction: Direction::Maximize,
            metric: "acc".into(),
        }),
        early_stop: halving.then_some(rule),
        aggregate: aggregate.then(|| prism_spec::Aggregate {
            command: vec!["sum".into()],
            files: Vec::new(),
        }),
    }))
}

pub fn submission(n: u64, spec: JobSpec) -> Command {
    Command::SubmitJob(Submission {
        id: job_id(n),
        spec: Arc::new(spec),
        blobs: Vec::new(),
        seed: n * 31,
    })
}

pub fn sandbox_spec(label: Option<&str>) -> SandboxSpec {
    SandboxSpec {
        name: label.map(name),
        namespace: name("default"),
        image: ImageRef::Host,
        snapshot: None,
        resources: cores(1000, 512),
        pids: 64,
        env: BTreeMap::new(),
        timeout: Some(Millis(60_000)),
        labels: Labels::new(),
    }
}

pub fn success() -> RunReport {
    RunReport {
        exit: ExitStatus::Code(0),
        cause: StopCause::None,
        started: TimeMs(1),
        wall: Millis(5),
        cpu_us: 900,
        memory_peak: 1 << 20,
        stdout_bytes: 3,
        stderr_bytes: 0,
        detail: String::new(),
    }
}

pub fn exit(code: i32) -> RunReport {
    RunReport {
        exit: ExitStatus::Code(code),
        ..success()
    }
}

pub fn ended_by(cause: StopCause) -> RunReport {
    RunReport {
        exit: ExitStatus::Signal(9),
        cause,
        ..success()
    }
}

pub fn result(task: TaskRef, report: RunReport, json: Option<&str>) -> TaskResult {
    TaskResult {
        task,
        report,
        result: json.map(Arc::from),
        stderr_tail: "".into(),
        output: None,
    }
}

pub fn metric(task: TaskRef, step: u32, value: f64) -> Metric {
    Metric {
        task,
        step,
        value,
        line: format!("{{\"acc\":{value}}}").into(),
    }
}

/// A spec in a namespace.
pub fn within(namespace: &str, spec: JobSpec) -> JobSpec {
    JobSpec {
        namespace: name(namespace),
        ..spec
    }
}

/// Makes a namespace, or gives it another quota.
pub fn namespace(text: &str, quota: Quota) -> Command {
    Command::PutNamespace {
        name: name(text),
        quota,
        new: None,
    }
}
