//! Random sequences of commands, valid and not, repeated, stale, with nodes that come and go. After each, what must hold
//! always holds; after all, every job can be brought to its end.
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::*;
use prism_state::*;
use prism_types::*;
use proptest::prelude::*;

const NODES: u32 = 3;

/// One step, as small numbers that the run makes sense of.
#[derive(Clone, Copy, Debug)]
struct Step {
    verb: u8,
    a: u8,
    b: u8,
    c: u8,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0u8..40, any::<u8>(), any::<u8>(), any::<u8>());
    prop::collection::vec(
        step.prop_map(|(verb, a, b, c)| Step { verb, a, b, c }),
        1..120,
    )
}

/// The world, and what was acknowledged in it.
struct Run {
    w: World,
    jobs: Vec<JobId>,
    /// Everything a node was ever given, also what is stale.
    given: Vec<(u32, TaskRef)>,
    sent: Vec<Command>,
    sandboxes: u64,
}

impl Run {
    fn new() -> Self {
        Self {
            w: World::new(NODES, 2),
            jobs: Vec::new(),
            given: Vec::new(),
            sent: Vec::new(),
            sandboxes: 0,
        }
    }

    fn job(&self, n: u8) -> JobId {
        match self.jobs.len() {
            0 => job_id(999),
            len => self.jobs[usize::from(n) % len],
        }
    }

    fn task(&self, n: u8, m: u8) -> Option<(u32, TaskRef)> {
        let n = usize::from(n) * 256 + usize::from(m);
        let len = self.given.len();
        // Mostly one of the latest.
        let from = if n.is_multiple_of(4) {
            0
        } else {
            len.saturating_sub(12)
        };
        (len > 0).then(|| self.given[from + n % (len - from)])
    }

    fn send(&mut self, command: Command) {
        let before = self.w.store.clone();
        let decided = self.w.run(command.clone());
        if decided.is_err() {
            assert_eq!(self.w.store, before, "a rejection changes nothing");
        }
        for action in std::mem::take(&mut self.w.actions) {
            if let Action::Assign {
                node, job, tasks, ..
            } = action
            {
                let node = (0..NODES).find(|n| node_id(*n) == node).unwrap();
                for (index, attempt) in tasks {
                    let task = TaskRef {
                        job,
                        index,
                        attempt,
                    };
                    assert!(
                        !self.given.iter().any(|(_, t)| *t == task),
                        "attempts repeat"
                    );
                    self.given.push((node, task));
                }
            }
        }
        self.sent.push(command);
    }

    fn submit(&mut self, s: Step) {
        let mut spec = match s.a % 4 {
            0 => sweep(i64::from(s.b % 5) + 1, true, s.c.is_multiple_of(2)),
            1 => array(u32::from(s.b) * 6 + 1),
            _ => array(u32::from(s.b % 5) + 1),
        };
        spec.retries = u32::from(s.c % 3);
        spec.max_failures = (s.c.is_multiple_of(5)).then_some(1);
        spec.concurrency = (s.c.is_multiple_of(7)).then_some(2);
        if s.c.is_multiple_of(6) && !self.jobs.is_empty() {
            spec.after = vec![self.job(s.b).to_string()];
        }
        let n = self.jobs.len() as u64 + 1;
        self.send(submission(n, spec));
        self.jobs.push(job_id(n));
    }

    fn place(&mut self, s: Step) {
        let job = self.job(s.a);
        let from = if s.c % 8 == 7 { u32::from(s.c) * 7 } else { 0 };
        let tasks = self.w.state.job(job).map_or(Vec::new(), |j| {
            let ready = j.ready().flatten().take(usize::from(s.c % 9));
            ready.map(|i| i + from).collect()
        });
        let plan = Plan {
            placements: vec![Placement {
                job,
                node: node_id(u32::from(s.b) % (NODES + 1)),
                lanes: u32::from(s.c % 5),
                tasks,
            }],
            sandboxes: Vec::new(),
        };
        self.send(Command::Assign(plan));
    }

    fn finish(&mut self, s: Step) {
        let Some((node, task)) = self.task(s.a, s.b) else {
            return;
        };
        let report = match s.c % 8 {
            0 => exit(1),
            1 => ended_by(StopCause::Requested),
            2 => ended_by(StopCause::Lost),
            3 => ended_by(StopCause::OutOfMemory),
            _ => success(),
        };
        let node = if s.c == 255 { node + 1 } else { node };
        self.send(Command::Finished {
            node: node_id(node),
            results: vec![result(task, report, Some("{\"acc\": 0.5}"))],
        });
    }

    fn step(&mut self, s: Step) {
        let node = node_id(u32::from(s.a) % NODES);
        let job = self.job(s.a);
        match s.verb {
            0..4 => self.submit(s),
            4..14 => self.place(s),
            14..23 => self.finish(s),
            23..26 => {
                if let Some((node, task)) = self.task(s.a, s.b) {
                    let tasks = vec![(task, self.w.now)];
                    let node = node_id(node);
                    self.send(Command::Started { node, tasks });
                }
            }
            26 => {
                if let Some((node, task)) = self.task(s.a, s.b) {
                    let (node, tasks) = (node_id(node), vec![task]);
                    self.send(Command::Returned { node, tasks });
                }
            }
            27..30 => {
                if let Some((node, task)) = self.task(s.a, s.b) {
                    let step = u32::from(s.c % 4);
                    let metrics = vec![metric(task, step, f64::from(s.c) / 7.0)];
                    let node = node_id(node);
                    self.send(Command::Progress { node, metrics });
                }
            }
            30 => {
                let state = NodeState::ALL[usize::from(s.b) % 3];
                self.send(Command::SetNodeState { id: node, state });
            }
            31 => {
                let again = registration(u32::from(s.a) % NODES, 1 + u32::from(s.b % 2));
                self.send(Command::RegisterNode(again));
            }
            32 => self.send(Command::CancelJob { id: job }),
            33 => self.send(Command::PauseJob { id: job }),
            34 => self.send(Command::ResumeJob { id: job }),
            35 => self.send(Command::RetryJob { id: job }),
            36 => self.sandbox(s),
            37 => {
                self.w.now = TimeMs(self.w.now.0 + u64::from(s.a) * 40);
                self.send(Command::Tick);
            }
            38 => match s.b % 4 {
                3 => self.send(Command::Drain {
                    id: node,
                    limit: s.c.is_multiple_of(2).then(|| Millis(u64::from(s.c) * 100)),
                }),
                0 => self.send(Command::Cordon {
                    id: node,
                    on: s.c.is_multiple_of(2),
                }),
                1 => self.send(Command::Cordon {
                    id: node,
                    on: false,
                }),
                _ => self.send(Command::RemoveNode { id: node }),
            },
            _ => {
                let len = self.sent.len();
                if len > 0 {
                    let old = self.sent[(usize::from(s.a) * 256 + usize::from(s.b)) % len].clone();
                    self.send(old);
                }
            }
        }
    }

    fn sandbox(&mut self, s: Step) {
        let id = sandbox_id(u64::from(s.b) % (self.sandboxes + 1));
        let node = node_id(u32::from(s.a) % NODES);
        match s.c % 5 {
            0 => {
                self.sandboxes += 1;
                let id = sandbox_id(self.sandboxes);
                let spec = Arc::new(sandbox_spec(None));
                self.send(Command::CreateSandbox { id, spec });
            }
            1 => self.send(Command::Assign(Plan {
                placements: Vec::new(),
                sandboxes: vec![(id, node)],
            })),
            2 => {
                let status = SandboxStatus::Running { at: self.w.now };
                self.send(Command::SandboxReport { node, id, status });
            }
            3 => {
                let status = SandboxStatus::Gone;
                self.send(Command::SandboxReport { node, id, status });
            }
            _ => self.send(Command::DeleteSandbox { id }),
        }
    }

    /// What must hold beyond one state: nothing acknowledged is lost, and each task has exactly one result.
    fn check(&mut self) {
        self.w.check();
        for id in &self.jobs {
            assert!(
                self.w.state.job(*id).is_some(),
                "an acknowledged job is lost"
            );
            self.check_results(*id);
        }
    }

    fn check_results(&self, id: JobId) {
        let mut current: BTreeMap<u32, u32> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for record in self.w.results(id) {
            assert!(
                seen.insert((record.index, record.attempt)),
                "an attempt was recorded twice"
            );
            if record.is_current(&self.w.task(id, record.index)) {
                *current.entry(record.index).or_default() += 1;
            }
        }
        for (index, cell) in self.w.job(id).cells(0) {
            let wanted = match cell.state {
                TaskState::Completed | TaskState::Failed => 1,
                TaskState::Cancelled => current.get(&index).copied().unwrap_or(0).min(1),
                _ => 0,
            };
            assert_eq!(current.get(&index).copied().unwrap_or(0), wanted);
        }
    }

    /// With living nodes and time, every job comes to its end.
    fn finish_all(&mut self) {
        for n in 0..NODES {
            self.send(Command::RegisterNode(registration(n, 2)));
            self.send(Command::Cordon {
                id: node_id(n),
                on: false,
            });
        }
        for id in self.jobs.clone() {
            self.send(Command::ResumeJob { id });
        }
        for sandbox in 0..=self.sandboxes {
            let id = sandbox_id(sandbox);
            self.send(Command::DeleteSandbox { id });
            for n in 0..NODES {
                self.send(Command::SandboxReport {
                    node: node_id(n),
                    id,
                    status: SandboxStatus::Gone,
                });
            }
        }
        for _ in 0..400 {
            if self.w.state.jobs().all(|j| j.record().state.is_final()) {
                return;
            }
            self.round();
        }
        panic!("some job never ends");
    }

    fn round(&mut self) {
        self.w.now = TimeMs(self.w.now.0 + 60_000);
        self.send(Command::Tick);
        let jobs: Vec<JobId> = self.w.state.queue().map(Job::id).collect();
        for (n, job) in jobs.into_iter().enumerate() {
            let ready = self.w.job(job).ready().flatten().take(600).collect();
            let node = node_id(u32::try_from(n).unwrap() % NODES);
            let placement = Placement {
                job,
                node,
                lanes: 2,
                tasks: ready,
            };
            self.send(Command::Assign(Plan {
                placements: vec![placement],
                sandboxes: Vec::new(),
            }));
        }
        for n in 0..NODES {
            let node = node_id(n);
            let desired = self.w.state.desired_for(node);
            let each = desired.jobs.iter().flat_map(|j| {
                let to_result = |t: &DesiredTask| {
                    let task = TaskRef {
                        job: j.job,
                        index: t.index,
                        attempt: t.attempt,
                    };
                    let report = match t.stop {
                        Some(_) => ended_by(StopCause::Requested),
                        None => success(),
                    };
                    result(task, report, None)
                };
                j.tasks.iter().map(to_result)
            });
            let results = each.collect();
            self.send(Command::Finished { node, results });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(
            proptest::test_runner::FileFailurePersistence::WithSource("seeds"),
        )),
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_must_hold_holds(steps in steps()) {
        let mut run = Run::new();
        for step in steps {
            run.step(step);
            run.check();
        }
        run.finish_all();
        run.check();
        for id in run.jobs.clone() {
            let counts = run.w.job(id).counts();
            prop_assert_eq!(counts.finished(), run.w.job(id).record().tasks);
        }
    }
}
