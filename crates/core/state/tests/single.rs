//! Jobs whose tasks never run twice at the same time.
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

mod common;

use common::*;
use prism_state::*;
use prism_types::*;

fn single(w: &mut World) -> JobId {
    let mut spec = array(1);
    spec.single_instance = true;
    spec.retries = 100;
    // Nothing but the lease makes it wait.
    (spec.backoff.initial, spec.backoff.max) = (Millis(1), Millis(1));
    w.submit(1, spec)
}

fn offline(w: &mut World, node: u32) {
    w.ok(Command::SetNodeState {
        id: node_id(node),
        state: NodeState::Offline,
    });
}

fn lost() -> RunReport {
    RunReport {
        cause: StopCause::Lost,
        ..RunReport::not_started(TimeMs(1), "")
    }
}

/// How long the task waits from now on.
fn wait(w: &World, job: JobId) -> u64 {
    w.task(job, 0).due.unwrap().since(w.now).0
}

#[test]
fn a_silent_node_is_waited_for_to_the_end_of_its_lease() {
    let mut w = World::new(2, 4);
    let job = single(&mut w);
    w.place(job, 0, [0]);
    w.start(job, 0, 0);
    offline(&mut w, 0);
    assert_eq!(w.task(job, 0).state, TaskState::Retrying);
    assert_eq!(
        wait(&w, job),
        LEASE_GRACE.0,
        "it was silent for a lease before"
    );
    w.check();
    w.pass(LEASE_GRACE.0);
    assert_eq!(w.place(job, 1, [0]), 1);
    assert_eq!(w.task(job, 0).attempt, 2, "its number is greater");
}

#[test]
fn what_a_node_says_is_over_begins_at_once_and_what_it_does_not_know_waits() {
    let expired = RunReport {
        cause: StopCause::LeaseExpired,
        ..lost()
    };
    for (report, waits) in [(lost(), LEASE_WAIT.0), (expired, 0)] {
        let mut w = World::new(2, 4);
        let job = single(&mut w);
        w.place(job, 0, [0]);
        w.finish(job, 0, 0, report);
        assert_eq!(wait(&w, job), waits);
        assert_eq!(w.task(job, 0).failures, 0, "it uses up no retry");
        w.check();
    }
}

#[test]
fn a_node_that_comes_back_smaller_may_run_it_still() {
    let mut w = World::new(2, 4);
    let job = single(&mut w);
    w.place(job, 0, [0]);
    w.start(job, 0, 0);
    w.ok(Command::RegisterNode(registration(0, 0)));
    assert_eq!(wait(&w, job), LEASE_WAIT.0);
    w.check();
}

#[test]
fn a_retry_by_hand_waits_unless_the_end_is_known() {
    for (report, waits) in [(exit(1), None), (lost(), Some(LEASE_WAIT.0))] {
        let mut w = World::new(2, 4);
        let mut spec = array(1);
        spec.single_instance = true;
        spec.retries = 0;
        let job = w.submit(1, spec);
        w.place(job, 0, [0]);
        let cancelled = report.cause == StopCause::Lost;
        if cancelled {
            w.ok(Command::CancelJob { id: job });
        }
        w.finish(job, 0, 0, report);
        w.ok(Command::RetryJob { id: job });
        let due = w.task(job, 0).due;
        assert_eq!(due.map(|at| at.since(w.now).0), waits);
        w.check();
    }
}

#[test]
fn a_new_leader_begins_the_wait_anew_and_only_for_what_may_live() {
    let mut w = World::new(2, 4);
    let job = single(&mut w);
    let fresh = w.submit(2, array(1));
    w.place(job, 0, [0]);
    offline(&mut w, 0);
    // Its clock is ahead of that of the one before.
    w.pass(3_600_000);
    assert_eq!(w.task(job, 0).state, TaskState::Queued);
    w.ok(Command::TakeOver);
    assert_eq!(wait(&w, job), LEASE_WAIT.0);
    assert_eq!(
        w.task(fresh, 0).state,
        TaskState::Queued,
        "no run of it was ever begun"
    );
    w.check();
    let before = w.state.encode();
    w.ok(Command::TakeOver);
    assert_eq!(
        w.state.encode(),
        before,
        "told twice, it changes nothing more"
    );
}

#[test]
fn its_spec_is_read_again_and_others_are_written_as_before() {
    let mut w = World::new(1, 4);
    let (job, other) = (single(&mut w), w.submit(2, array(1)));
    let again = w.reloaded();
    assert!(again.job(job).unwrap().spec().single_instance);
    assert!(!again.job(other).unwrap().spec().single_instance);
    let version = |id: JobId| w.store[&format!("specs/{id}").into_bytes()][0];
    assert_eq!((version(job), version(other)), (2, 1));
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// A node as it really is: what runs there until when, and until when it may begin something.
#[derive(Clone, Copy, Default)]
struct Machine {
    run: Option<u32>,
    until: u64,
    heard: u64,
    /// It hears nothing, and is not heard.
    cut: bool,
}

/// Leaders with clocks of their own, nodes that fall silent and come back, in real time.
struct Model {
    w: World,
    job: JobId,
    machines: [Machine; 3],
    now: u64,
    /// When the present leader began, and what its clock is ahead by.
    began: u64,
    ahead: u64,
    greatest: u32,
    runs: u32,
    /// A node is given up after so long.
    patience: u64,
}

impl Model {
    fn new() -> Self {
        let mut w = World::new(3, 4);
        let job = single(&mut w);
        Self {
            w,
            job,
            machines: [Machine::default(); 3],
            now: 0,
            began: 0,
            ahead: 2_000_000,
            greatest: 0,
            runs: 0,
            patience: LEASE.0,
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now += ms;
        for m in &mut self.machines {
            if m.until <= self.now {
                m.run = None;
            }
        }
        self.w.now = TimeMs(self.now + self.ahead);
        (0..3).for_each(|n| self.renew(n));
        self.look();
        self.w.ok(Command::Tick);
    }

    /// A leader that still leads answers a node's question.
    fn renew(&mut self, n: usize) {
        let id = node_id(u32::try_from(n).unwrap());
        let offline = self.w.state.node(id).unwrap().record().state == NodeState::Offline;
        let m = &mut self.machines[n];
        if offline || m.cut {
            return;
        }
        (m.heard, m.until) = (self.now, self.now + LEASE_KILL.0);
    }

    /// The leader looks at its leases.
    fn look(&mut self) {
        for n in 0..3 {
            let heard = self.machines[n].heard.max(self.began);
            if self.now >= heard + self.patience {
                offline(&mut self.w, u32::try_from(n).unwrap());
            }
        }
    }

    /// A node greets: it is told what to stop, and what it does not have is lost.
    fn greet(&mut self, n: usize) {
        let no = u32::try_from(n).unwrap();
        self.w.ok(Command::RegisterNode(registration(no, 4)));
        let desired = self.w.state.desired_for(node_id(no));
        let held = desired.jobs.iter().flat_map(|j| &j.tasks);
        let held = held.map(|t| t.attempt).next();
        if self.machines[n].run != held {
            self.machines[n].run = None;
            if held.is_some() {
                self.w.finish(self.job, no, 0, lost());
            }
        }
        self.machines[n].heard = self.now;
    }

    /// The leader places the task, and the node begins it if it may.
    fn place(&mut self, n: usize) {
        let no = u32::try_from(n).unwrap();
        let m = self.machines[n];
        if self.w.place(self.job, no, [0]) == 0 || m.cut || m.until <= self.now {
            return;
        }
        let attempt = self.w.task(self.job, 0).attempt;
        assert!(attempt > self.greatest, "fences grow");
        let live = self.machines.iter().filter(|m| m.run.is_some()).count();
        assert_eq!(live, 0, "two runs live at {} ms", self.now);
        self.greatest = attempt;
        self.runs += 1;
        self.machines[n].run = Some(attempt);
    }

    /// A node says that its run is over, by itself or by its lease.
    fn end(&mut self, n: usize) {
        let no = u32::try_from(n).unwrap();
        let present = self.w.task_ref(self.job, 0).attempt;
        self.machines[n].run.take_if(|run| *run == present);
        let report = RunReport {
            cause: StopCause::LeaseExpired,
            ..lost()
        };
        self.w.finish(self.job, no, 0, report);
    }

    /// Another leads, whose clock is not behind what is known, and may be far ahead.
    fn succeed(&mut self, ahead: u64) {
        self.began = self.now;
        self.ahead += ahead;
        self.w.now = TimeMs(self.now + self.ahead);
        self.w.ok(Command::TakeOver);
        self.w.ok(Command::Tick);
    }

    fn step(&mut self, dice: &mut Dice) {
        let n = usize::try_from(dice.below(3)).unwrap();
        let cut = self.machines[n].cut;
        match dice.below(16) {
            0..=9 => self.pass(1 + dice.below(1_000)),
            10 => self.machines[n].cut = !cut,
            11 | 12 => self.place(n),
            13 if !cut => self.greet(n),
            14 if !cut && dice.below(4) == 0 => self.end(n),
            15 if dice.below(8) == 0 => {
                let ahead = dice.below(2) * 3_600_000;
                self.succeed(ahead);
            }
            _ => {}
        }
        let over = self.w.job_state(self.job).is_final();
        if over {
            self.w.ok(Command::RetryJob { id: self.job });
        }
    }
}

/// How many runs there were.
fn model(patience: u64) -> u32 {
    let mut runs = 0;
    for seed in 0..600 {
        let (mut model, mut dice) = (Model::new(), Dice(seed));
        model.patience = patience;
        for _ in 0..1_000 {
            model.step(&mut dice);
        }
        runs += model.runs;
    }
    runs
}

#[test]
fn no_two_runs_live_at_once_whatever_becomes_of_nodes_and_leaders() {
    let runs = model(LEASE.0);
    assert!(runs > 2_000, "only {runs} runs: that shows nothing");
}

#[test]
#[should_panic(expected = "two runs live")]
fn a_leader_that_gives_a_node_up_too_early_is_found_out() {
    model(LEASE.0 / 2);
}
