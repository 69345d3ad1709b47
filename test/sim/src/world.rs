//! The loop: one event after the other, in virtual time, until all is over or something does not hold.

use std::collections::BTreeMap;

use prism_types::{Fence, TaskRef};

use crate::bugs::Bug;
use crate::client::Client;
use crate::disk::Disk;
use crate::faults::{Act, clock};
use crate::invariants::everything_converges::Left;
use crate::log::Config;
use crate::net::{Frame, SIGN, SILENCE};
use crate::server::{Server, Written};
use crate::sim::{Addr, Event, Msg, Sim, Timer, Violation};
use crate::worker::Worker;

/// Everything has to be over so long after it was healed, virtual milliseconds. Retries of tasks wait at most seconds, a node is
/// given up after 15, and the longest task runs 60; a small node runs many one after the other.
const CONVERGES: u64 = 900_000;
/// Most events of a run.
pub const STEPS: u64 = 2_000_000;
/// Sessions are there again so long after everything was healed.
const SETTLED: u64 = 15_000;
/// Signs of life are looked for so often.
const LOOK: u64 = 1_000;

/// How a run went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What did not hold.
    pub violation: Option<Violation>,
    /// Number and digest of what happened.
    pub fingerprint: (u64, u64),
    /// The last of what happened.
    pub trace: String,
    /// What happened that should sometimes.
    pub seen: BTreeMap<&'static str, u64>,
    /// Requests carried out, and tries.
    pub requests: (u64, u64),
    /// Jobs that clients were told of.
    pub jobs: usize,
    /// Events.
    pub steps: u64,
}

/// A whole cluster with its clients.
#[derive(Debug)]
pub struct World {
    /// What all share.
    pub sim: Sim,
    /// Every server that ever was, by id.
    pub servers: Vec<Server>,
    /// The workers.
    pub workers: Vec<Worker>,
    /// The clients.
    pub clients: Vec<Client>,
    /// Nothing goes wrong any more.
    pub healed: bool,
    conns: u64,
}

/// Runs a seed.
pub fn run(seed: u64, bug: Option<Bug>, steps: u64, loud: bool) -> Outcome {
    let mut world = World::new(seed, bug, loud);
    let taken = world.run(steps);
    let requests = world
        .clients
        .iter()
        .fold((0, 0), |(a, b), c| (a + c.done.0, b + c.done.1));
    let sim = world.sim;
    Outcome {
        violation: sim.violation,
        fingerprint: sim.trace.fingerprint(),
        trace: sim.trace.text(),
        jobs: sim.truth.acknowledged.jobs().count(),
        seen: sim.seen,
        requests,
        steps: taken,
    }
}

impl World {
    fn new(seed: u64, bug: Option<Bug>, loud: bool) -> Self {
        let mut sim = Sim::new(seed, bug, 60);
        sim.loud = loud;
        let setup = sim.setup.clone();
        if loud {
            println!("{setup:?}");
        }
        sim.servers = (0..setup.servers).collect();
        let config = Config {
            voters: (0..setup.servers).collect(),
            ..Config::default()
        };
        let servers = (0..setup.servers).map(|id| {
            let clock = clock(&mut sim);
            Server::new(id, Disk::founding(config.clone()), clock, &mut sim)
        });
        let servers = servers.collect();
        let workers = (0..setup.workers).map(|no| {
            let clock = clock(&mut sim);
            Worker::new(no, clock, &mut sim)
        });
        let workers = workers.collect();
        let clients = (0..setup.clients)
            .map(|no| Client::new(no, &mut sim))
            .collect();
        sim.at(setup.chaos, Event::Fault(Act::Heal));
        sim.at(3_000, Event::Draw);
        sim.at(1_000, Event::Operator);
        Self {
            sim,
            servers,
            workers,
            clients,
            healed: false,
            conns: 0,
        }
    }

    fn run(&mut self, steps: u64) -> u64 {
        let heal = self.sim.setup.chaos;
        let mut looked = heal;
        for step in 0..steps {
            if self.sim.violation.is_some() {
                return step;
            }
            let Some(event) = self.sim.pop() else {
                return step;
            };
            self.on(event);
            if self.healed && self.sim.now >= looked + LOOK {
                looked = self.sim.now;
                if looked > heal + SETTLED {
                    self.look_for_ghosts();
                }
                let left = self.left();
                if left.is_nothing() {
                    self.at_the_end();
                    return step;
                }
                if self.sim.now > heal + CONVERGES {
                    let held = left.holds(CONVERGES, &self.first_unfinished());
                    self.sim.check("everything_converges", held);
                }
            }
        }
        steps
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Deliver(to, from, msg) => self.on_message(to, from, msg),
            Event::Pump(conn, server) => self.on_pump(conn, server),
            Event::Closed(conn, server) => self.on_closed(conn, server),
            Event::Timer(Addr::Server(id), life, timer) => self.on_server_timer(id, life, timer),
            Event::Timer(Addr::Worker(no), life, timer) => self.on_worker_timer(no, life, timer),
            Event::Timer(Addr::Client(no), _, timer) => self.on_client_timer(no, timer),
            Event::Fault(act) => self.act(act),
            Event::Draw => self.draw(),
            Event::Operator => self.operate(),
        }
    }

    fn on_message(&mut self, to: Addr, from: Addr, msg: Msg) {
        let sim = &mut self.sim;
        match to {
            Addr::Server(id) => {
                let server = &mut self.servers[id as usize];
                if !server.up {
                    return;
                }
                match (msg, from) {
                    (Msg::Raft(msg), Addr::Server(from)) => server.on_raft(sim, from, msg),
                    (
                        Msg::Ask {
                            client,
                            op,
                            ask,
                            passed,
                        },
                        _,
                    ) => server.on_ask(sim, client, op, ask, passed),
                    (Msg::Commit { write, ticket }, Addr::Server(from)) => {
                        let waiter = crate::server::Waiter::Remote(from, ticket);
                        server.write(sim, write, waiter);
                    }
                    (
                        Msg::Committed {
                            ticket,
                            revision,
                            fenced,
                        },
                        _,
                    ) => {
                        let written = match (revision, fenced) {
                            (Some(revision), _) => Written::At(prism_store::Revision(revision)),
                            (None, true) => Written::Fenced,
                            (None, false) => Written::Unanswered,
                        };
                        server.on_written(sim, ticket, written);
                    }
                    _ => {}
                }
            }
            Addr::Client(no) => {
                if let Msg::Tell { op, told, revision } = msg {
                    self.clients[no as usize].on_told(sim, op, told, revision);
                }
            }
            Addr::Worker(_) => {}
        }
    }

    fn on_pump(&mut self, conn: u64, to_server: bool) {
        if let Some(until) = self.stuck(conn).filter(|_| !to_server) {
            return self.sim.at(until, Event::Pump(conn, to_server));
        }
        let Some(frame) = self.sim.readable(conn, to_server) else {
            return;
        };
        let sim = &mut self.sim;
        let Some((server, worker)) = sim.conns.get(&conn).map(|c| (c.server, c.worker)) else {
            return;
        };
        match (frame, server, worker) {
            (Frame::Up(message), Addr::Server(id), _) => {
                self.servers[id as usize].on_frame(sim, conn, *message);
            }
            (Frame::Down(message), _, Addr::Worker(no)) => {
                let worker = &mut self.workers[no as usize];
                if worker.conn == Some(conn) {
                    worker.on_order(sim, *message);
                }
            }
            (Frame::Elsewhere(hint), _, Addr::Worker(no)) => {
                self.workers[no as usize].target = hint;
            }
            _ => {}
        }
    }

    /// Until when the loop of the worker of a session is stuck, if it is.
    fn stuck(&self, conn: u64) -> Option<u64> {
        let Addr::Worker(no) = self.sim.conns.get(&conn)?.worker else {
            return None;
        };
        let until = self.workers[no as usize].stuck_until;
        (until > self.sim.now).then_some(until)
    }

    fn on_closed(&mut self, conn: u64, at_server: bool) {
        let sim = &mut self.sim;
        let Some(known) = sim.conns.get_mut(&conn).filter(|c| c.is_open(at_server)) else {
            return;
        };
        let (server, worker) = (known.server, known.worker);
        match (at_server, server, worker) {
            (true, Addr::Server(id), _) => self.servers[id as usize].on_hang_up(sim, conn),
            (false, _, Addr::Worker(no)) => self.workers[no as usize].on_hang_up(sim, conn),
            _ => {}
        }
    }

    fn on_server_timer(&mut self, id: u32, life: u32, timer: Timer) {
        let sim = &mut self.sim;
        let server = &mut self.servers[id as usize];
        if server.life != life || server.gone {
            return;
        }
        match timer {
            Timer::Start if !server.up => server.start(sim),
            Timer::Raft => server.on_tick(sim),
            Timer::Synced => server.on_synced(sim),
            Timer::Round => server.on_round(sim),
            Timer::Leases(fence) => server.on_leases(sim, Fence(fence)),
            Timer::Deposed(fence) if server.leads_under(Fence(fence)) => {
                server.resign(sim);
                server.settle(sim);
            }
            Timer::Sign(conn) if self.sign(conn, true) => {
                self.servers[id as usize].on_hang_up(&mut self.sim, conn);
            }
            _ => {}
        }
    }

    fn on_worker_timer(&mut self, no: u32, life: u32, timer: Timer) {
        let sim = &mut self.sim;
        let worker = &mut self.workers[no as usize];
        let of_machine = matches!(
            timer,
            Timer::Begin(_)
                | Timer::End(..)
                | Timer::Killed(..)
                | Timer::Lease(..)
                | Timer::Journaled(..)
                | Timer::Daemon
        );
        let present = if of_machine { worker.boot } else { worker.life };
        if present != life {
            return;
        }
        match timer {
            Timer::Begin(task) => worker.on_begin(sim, task),
            Timer::End(task, nonce) => worker.on_end(sim, task, nonce),
            Timer::Killed(task, nonce) => worker.on_killed(sim, task, nonce),
            Timer::Lease(task, nonce) => worker.on_lease(sim, task, nonce),
            Timer::Journaled(task, nonce) => worker.on_journaled(sim, task, nonce),
            Timer::Daemon => {
                worker.on = true;
                worker.start(sim);
            }
            Timer::Heartbeat if worker.stuck_until > sim.now => {
                sim.at(
                    worker.stuck_until,
                    Event::Timer(Addr::Worker(no), life, timer),
                );
            }
            Timer::Heartbeat => worker.on_heartbeat(sim),
            Timer::Dial => self.dial(no),
            Timer::Sign(conn) if self.sign(conn, false) => {
                self.workers[no as usize].on_hang_up(&mut self.sim, conn);
            }
            _ => {}
        }
    }

    fn on_client_timer(&mut self, no: u32, timer: Timer) {
        let sim = &mut self.sim;
        let client = &mut self.clients[no as usize];
        match timer {
            Timer::Next => client.on_next(sim),
            Timer::Late(op) => client.on_late(sim, op),
            Timer::Watch => {
                let id = sim.rng.pick(&sim.servers).unwrap_or(0);
                client.on_watch(sim, &self.servers[id as usize]);
            }
            _ => {}
        }
    }

    /// A worker dials the server that it was pointed to, or any.
    fn dial(&mut self, no: u32) {
        let sim = &mut self.sim;
        let worker = &mut self.workers[no as usize];
        if worker.conn.is_some() || !worker.up {
            return;
        }
        let known = worker.target.take().filter(|id| sim.servers.contains(id));
        let id = known.or_else(|| sim.rng.pick(&sim.servers)).unwrap_or(0);
        let server = &self.servers[id as usize];
        let (from, to) = (worker.addr(), server.addr());
        let cut = sim.net.cut.contains(&(from, to)) || sim.net.cut.contains(&(to, from));
        let still = sim.paused.get(&to).is_some_and(|until| *until > sim.now);
        if !server.up || cut || still {
            return worker.dial_later(sim);
        }
        self.conns += 1;
        let conn = self.conns;
        sim.note("net.connects", [from.number(), to.number(), conn]);
        sim.connect(conn, from, to);
        sim.timer(from, worker.life, LOOK, Timer::Sign(conn));
        sim.timer(to, server.life, LOOK, Timer::Sign(conn));
        worker.on_connected(sim, conn);
    }

    /// An end of a session shows a sign of life. Whether it has heard none of the other for too long.
    fn sign(&mut self, conn: u64, at_server: bool) -> bool {
        let now = self.sim.now;
        let Some(known) = self
            .sim
            .conns
            .get_mut(&conn)
            .filter(|c| c.is_open(at_server))
        else {
            return false;
        };
        let who = if at_server {
            known.server
        } else {
            known.worker
        };
        let end = known.end(at_server);
        if now > end.heard + SILENCE && !end.is_readable(now) {
            return true;
        }
        let life = match who {
            Addr::Server(id) => self.servers[id as usize].life,
            Addr::Worker(no) => self.workers[no as usize].life,
            Addr::Client(_) => 0,
        };
        if (now / LOOK).is_multiple_of(SIGN / LOOK) {
            self.sim.stream(conn, !at_server, Frame::Sign);
        }
        self.sim.timer(who, life, LOOK, Timer::Sign(conn));
        false
    }

    fn first_unfinished(&self) -> String {
        let leader = self.servers.iter().find(|s| s.up && s.raft.leads());
        let state = leader.and_then(|s| s.control.as_ref()).map(|c| &c.state);
        let mut jobs = state.into_iter().flat_map(prism_state::State::jobs);
        let job = jobs.find(|j| !j.record().state.is_final());
        job.map_or(String::new(), |job| {
            let record = job.record();
            format!(
                "; {} is {} (paused: {}, waits for: {:?}) with {:?}",
                job.spec().name,
                record.state,
                record.paused,
                record.waiting_for,
                job.counts().by_state()
            )
        })
    }

    fn look_for_ghosts(&mut self) {
        let leader = self.servers.iter().filter(|s| s.up && s.raft.leads());
        let Some(control) = leader.filter_map(|s| s.control.as_ref()).next() else {
            return;
        };
        let mut ghosts = Vec::new();
        for worker in &self.workers {
            let desired = control.state.desired_for(worker.node);
            let wanted = |t: &TaskRef| {
                let job = desired.jobs.iter().find(|j| j.job == t.job);
                let mut tasks = job.into_iter().flat_map(|j| &j.tasks);
                tasks.any(|d| (d.index, d.attempt) == (t.index, t.attempt))
            };
            let running = worker.running().filter(|t| !wanted(t));
            ghosts.extend(running.map(|t| (worker.node, t)));
        }
        let held = self.sim.truth.ghosts.seen(self.sim.now, ghosts.into_iter());
        self.sim.check("nothing_runs_unwanted", held);
    }

    fn left(&self) -> Left {
        let mut left = Left::default();
        let leader = self.servers.iter().filter(|s| s.up && s.raft.leads());
        let leading = leader.filter_map(|s| s.control.as_ref()).next();
        match leading {
            // While it commits, its state is ahead of the store.
            Some(control) if !control.is_committing() => {
                let jobs = control.state.jobs();
                left.jobs = jobs.filter(|j| !j.record().state.is_final()).count();
                let known = |w: &&Worker| {
                    let node = control.state.node(w.node);
                    let healthy = node.is_some_and(prism_state::Node::is_open);
                    !(healthy && control.sessions.contains_key(&w.node))
                };
                left.strangers = self.workers.iter().filter(known).count();
            }
            _ => left.jobs = 1,
        }
        left.requests = self.clients.iter().filter(|c| c.is_busy()).count();
        for worker in &self.workers {
            let (running, remembered) = worker.left();
            left.running += running;
            left.remembered += remembered;
        }
        let last = self.sim.truth.entries.last();
        let alive = self.servers.iter().filter(|s| !s.gone);
        left.behind = alive.filter(|s| s.applied < last).count();
        left
    }

    /// All is over: a last look at everything.
    fn at_the_end(&mut self) {
        let leader = self.servers.iter().find(|s| s.up && s.raft.leads());
        let Some(leader) = leader else {
            return;
        };
        let Some(control) = &leader.control else {
            return;
        };
        let state = &control.state;
        let truth = &self.sim.truth;
        let held = [
            (
                "what_was_acknowledged_is_durable",
                truth.acknowledged.holds(state),
            ),
            ("a_key_is_answered_once", truth.keys.holds(state)),
            (
                "a_task_has_one_result",
                truth.runs.holds(state, &leader.table),
            ),
            (
                "the_state_is_what_the_store_holds",
                crate::invariants::the_state_is_what_the_store_holds::holds(state, &leader.table),
            ),
        ];
        for server in self.servers.iter().filter(|s| !s.gone) {
            let truth = &mut self.sim.truth.replicas;
            let same = truth.whole(server.id, server.applied, &server.table);
            self.sim.check("replicas_agree", same);
        }
        for (invariant, held) in held {
            self.sim.check(invariant, held);
        }
    }
}
