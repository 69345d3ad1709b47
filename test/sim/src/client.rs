//! Clients: submit jobs under a key, repeat what is not answered with the same key, perhaps at another server, cancel the jobs that
//! never end by themselves, and read.

use std::collections::VecDeque;

use prism_store::StoreError;
use prism_types::JobId;

use crate::bugs::Bug;
use crate::invariants::reads_and_watches_never_go_back::WATCHED;
use crate::server::Server;
use crate::sim::{Addr, Ask, Msg, Sim, Timer, Told, short};
use crate::work;

/// Commits that a watch takes at once.
const WATCH_TAKE: usize = 64;

#[derive(Clone, Debug)]
struct Op {
    id: u64,
    tries: u32,
    what: What,
    floor: u64,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Submit(u64),
    Cancel(JobId),
    Pause(JobId, bool),
    Read,
}

/// A client.
#[derive(Debug)]
pub struct Client {
    no: u32,
    op: Option<Op>,
    ops: u64,
    left: u32,
    /// What is to be asked of jobs, in order.
    plans: VecDeque<(u64, What)>,
    hint: Option<u32>,
    watched: u64,
    /// It submits what is left, and reads no more.
    pub closing: bool,
    /// Requests that were carried out, and tries of all.
    pub done: (u64, u64),
}

impl Client {
    /// A client that will submit so many jobs.
    pub fn new(no: u32, sim: &mut Sim) -> Self {
        let jobs = sim.setup.jobs.div_ceil(sim.setup.clients);
        let client = Self {
            no,
            op: None,
            ops: 0,
            left: jobs,
            plans: VecDeque::new(),
            hint: None,
            watched: 0,
            closing: false,
            done: (0, 0),
        };
        client.later(sim);
        client.timer(sim, 500, Timer::Watch);
        client
    }

    fn addr(&self) -> Addr {
        Addr::Client(self.no)
    }

    fn timer(&self, sim: &mut Sim, wait: u64, timer: Timer) {
        sim.timer(self.addr(), 0, wait, timer);
    }

    fn later(&self, sim: &mut Sim) {
        let wait = sim.rng.within(50, 2_000);
        self.timer(sim, wait, Timer::Next);
    }

    /// Whether it waits for something.
    pub fn is_busy(&self) -> bool {
        self.op.is_some() || !self.plans.is_empty() || self.left > 0
    }

    /// Does the next thing.
    pub fn on_next(&mut self, sim: &mut Sim) {
        if self.op.is_some() {
            return;
        }
        let due = self
            .plans
            .front()
            .is_some_and(|(at, _)| *at <= sim.now || self.closing);
        let what = if let Some((_, what)) = self.plans.pop_front_if(|_| due) {
            what
        } else if self.closing && self.left == 0 {
            return;
        } else if self.left > 0 && (self.closing || sim.rng.permille(600)) {
            self.left -= 1;
            sim.requests += 1;
            What::Submit(sim.requests)
        } else {
            What::Read
        };
        self.ops += 1;
        self.op = Some(Op {
            id: self.ops,
            tries: 0,
            what,
            floor: sim.truth.reads.begins(),
        });
        self.try_it(sim);
    }

    fn try_it(&mut self, sim: &mut Sim) {
        let hint = self.hint.take();
        let server = hint.or_else(|| sim.rng.pick(&sim.servers)).unwrap_or(0);
        let careless = sim.has(Bug::RetryWithoutKey);
        let Some(op) = &mut self.op else {
            return;
        };
        op.tries += 1;
        self.done.1 += 1;
        let ask = match op.what {
            What::Submit(number) => Ask::Submit {
                number,
                keyed: op.tries == 1 || !careless,
            },
            What::Cancel(job) => Ask::Cancel(job),
            What::Pause(job, on) => Ask::Pause(job, on),
            What::Read => Ask::Read,
        };
        if op.tries > 1 {
            sim.sometimes("a request was repeated");
        }
        let (id, tries) = (op.id, op.tries);
        let msg = Msg::Ask {
            client: self.no,
            op: (id, tries),
            ask,
            passed: false,
        };
        sim.send(self.addr(), Addr::Server(server), msg);
        let patience = sim.rng.within(400, 4_000);
        self.timer(sim, patience, Timer::Late((id, tries)));
    }

    /// It has waited long enough for one try.
    pub fn on_late(&mut self, sim: &mut Sim, (id, tries): (u64, u32)) {
        let present = self.op.as_ref().map(|op| (op.id, op.tries));
        if present == Some((id, tries)) {
            self.try_it(sim);
        }
    }

    /// A server answers.
    pub fn on_told(&mut self, sim: &mut Sim, (id, tries): (u64, u32), told: Told, revision: u64) {
        let Some(op) = self.op.as_ref().filter(|op| op.id == id) else {
            return;
        };
        match told {
            // Late answers of earlier tries say nothing of the present one.
            Told::NotLeader(_) | Told::Unknown if tries != op.tries => return,
            Told::NotLeader(hint) => {
                self.hint = hint;
                let wait = sim.rng.within(20, 300);
                return self.timer(sim, wait, Timer::Late((id, tries)));
            }
            Told::Unknown => {
                sim.sometimes("a client was told that the outcome is not known");
                let wait = sim.rng.within(20, 300);
                return self.timer(sim, wait, Timer::Late((id, tries)));
            }
            Told::Refused => {}
            Told::Job(job) => self.on_job(sim, job, revision),
            Told::Done => {
                sim.truth.reads.seen(revision);
                if let What::Cancel(job) = op.what {
                    sim.truth.acknowledged.cancelled(job);
                }
            }
            Told::Read => {
                let floor = op.floor;
                let held = sim.truth.reads.shows(floor, revision);
                sim.check("reads_and_watches_never_go_back", held);
            }
        }
        self.op = None;
        self.done.0 += u64::from(told != Told::Refused);
        self.later(sim);
    }

    fn on_job(&mut self, sim: &mut Sim, job: JobId, revision: u64) {
        let Some(What::Submit(number)) = self.op.as_ref().map(|op| op.what) else {
            return;
        };
        sim.note("client.has_job", [number, short(job), revision]);
        sim.truth.reads.seen(revision);
        sim.truth.acknowledged.accepted(job, sim.now);
        let once = sim.truth.keys.answered(number, job);
        sim.check("a_key_is_answered_once", once.map(|_| ()));
        if work::is_endless(number) {
            let at = sim.now + sim.rng.within(2_000, 12_000);
            self.plans.push_back((at, What::Cancel(job)));
        } else if sim.rng.permille(450) {
            let mut at = sim.now;
            for _ in 0..sim.rng.within(1, 5) {
                for on in [true, false] {
                    at += sim.rng.within(200, 2_000);
                    self.plans.push_back((at, What::Pause(job, on)));
                }
            }
        }
    }

    /// Its watch looks for news at a server.
    pub fn on_watch(&mut self, sim: &mut Sim, server: &Server) {
        let wait = sim.rng.within(200, 4_000);
        self.timer(sim, wait, Timer::Watch);
        if !server.up {
            return;
        }
        let after = prism_store::Revision(self.watched);
        match server.table.commits_after(WATCHED, after, WATCH_TAKE) {
            Ok((commits, seen)) => {
                let held = sim.truth.reads.watched(self.watched, &commits, seen.0);
                sim.check("reads_and_watches_never_go_back", held);
                self.watched = seen.0;
            }
            Err(StoreError::Compacted { oldest, .. }) => {
                sim.sometimes("a watch fell behind what is kept");
                if sim.has(Bug::WatchSkips) {
                    let held = sim.truth.reads.watched(self.watched, &[], oldest.0);
                    sim.check("reads_and_watches_never_go_back", held);
                }
                // It reads everything anew, and goes on from there.
                self.watched = server.table.revision().0;
            }
            // That server has not come so far.
            Err(_) => {}
        }
    }
}
