//! A server: consensus over a disk, and the store on top of it. Follows `crates/engine/raft`: a fence is granted through the
//! log, writes that wait become one entry, an answer means that it is durable on a majority and applied.

use std::collections::BTreeMap;

use prism_store::{KeyRange, Revision, Table, Window};
use prism_types::Fence;

use crate::bugs::Bug;
use crate::control::Control;
use crate::disk::{Disk, Op, Pending};
use crate::log::{Config, Entry, Payload, ServerId, Snapshot, Write};
use crate::raft::{self, Out, Raft};
use crate::rng::fold;
use crate::sim::{Addr, Msg, Sim, Timer};

/// Consensus looks at the time so often, milliseconds.
const TICK: u64 = 100;

/// A node's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// What the wall clock is off by, milliseconds.
    pub offset: i64,
    /// How fast it goes, parts per million off.
    pub drift: i64,
}

impl Clock {
    /// The monotonic clock.
    pub fn monotonic(&self, now: u64) -> u64 {
        let drifted = i64::try_from(now).unwrap_or(i64::MAX) / 1000 * self.drift / 1000;
        now.saturating_add_signed(drifted)
    }

    /// The wall clock, Unix milliseconds.
    pub fn wall(&self, now: u64) -> u64 {
        (1_700_000_000_000 + self.monotonic(now)).saturating_add_signed(self.offset)
    }
}

/// Who waits for an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiter {
    /// This server's leader-to-be, for its fence.
    Lead,
    /// This server's leader, for its round.
    Round(u64),
    /// Another server's leader, for its round.
    Remote(ServerId, u64),
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is durable and applied.
    At(Revision),
    /// Refused by its fence; nothing changed.
    Fenced,
    /// Not taken, or nobody knows.
    Unanswered,
}

/// A server.
#[derive(Debug)]
pub struct Server {
    /// Who.
    pub id: ServerId,
    /// It runs.
    pub up: bool,
    /// Its disk is gone for good.
    pub gone: bool,
    /// Counts its starts.
    pub life: u32,
    /// Its disk.
    pub disk: Disk,
    /// Its part in consensus.
    pub raft: Raft,
    /// The store.
    pub table: Table,
    /// How far the log is applied.
    pub applied: u64,
    /// Of all entries and their outcomes.
    pub digest: u64,
    /// Its clocks.
    pub clock: Clock,
    /// The leader's loop, if it leads.
    pub control: Option<Control>,
    /// It falls over when it has voted next, and is back at once.
    pub falls_after_vote: bool,
    /// It falls over while it writes its next snapshot.
    pub falls_at_snapshot: bool,
    /// It falls over at this sync from now.
    pub falls_at: Option<u32>,
    waiting: BTreeMap<u64, (u64, Vec<Waiter>)>,
    group: Vec<(Write, Waiter)>,
    asked_to_lead: bool,
}

impl Server {
    /// A server with a disk.
    pub fn new(id: ServerId, disk: Disk, clock: Clock, sim: &mut Sim) -> Self {
        let raft = Raft::start(id, &disk.image, sim);
        let mut server = Self {
            id,
            up: false,
            gone: false,
            life: 0,
            disk,
            raft,
            table: Table::new(Window::default()),
            applied: 0,
            digest: 0,
            clock,
            control: None,
            falls_after_vote: false,
            falls_at_snapshot: false,
            falls_at: None,
            waiting: BTreeMap::new(),
            group: Vec::new(),
            asked_to_lead: false,
        };
        server.start(sim);
        server
    }

    /// Its address.
    pub fn addr(&self) -> Addr {
        Addr::Server(self.id)
    }

    /// A timer of this life.
    pub fn timer(&self, sim: &mut Sim, wait: u64, timer: Timer) {
        sim.timer(self.addr(), self.life, wait, timer);
    }

    /// Reads its disk and goes on.
    pub fn start(&mut self, sim: &mut Sim) {
        self.life += 1;
        self.up = true;
        if sim.has(Bug::BootstrapOverData) && self.life > 1 && sim.rng.permille(300) {
            let voters = (0..sim.setup.servers).collect();
            self.disk = Disk::founding(Config {
                voters,
                ..Config::default()
            });
        }
        self.raft = Raft::start(self.id, &self.disk.image, sim);
        let snapshot = self.disk.image.snapshot.clone();
        self.restore(sim, snapshot.as_deref());
        if sim.has(Bug::AppliedApart) {
            self.applied = self.applied.max(self.disk.image.applied);
        }
        let of = [u64::from(self.id), self.raft.term, self.raft.last()];
        sim.note("server.starts", of);
        self.timer(sim, TICK, Timer::Raft);
    }

    fn restore(&mut self, sim: &mut Sim, snapshot: Option<&Snapshot>) {
        let window = Window {
            revisions: sim.setup.window,
            ..Window::default()
        };
        let Some(snapshot) = snapshot else {
            self.table = Table::new(window);
            (self.applied, self.digest) = (0, 0);
            return;
        };
        self.table = Table::restored(window, snapshot.revision, snapshot.fence);
        for item in &snapshot.items {
            self.table
                .load(item.key.clone(), item.value.clone(), item.revision);
        }
        (self.applied, self.digest) = (snapshot.index, snapshot.digest);
        let truth = &mut sim.truth;
        let known = truth.entries.knows(snapshot.index);
        let whole = truth.replicas.whole(self.id, snapshot.index, &self.table);
        sim.check("committed_entries_never_change", known);
        sim.check("replicas_agree", whole);
    }

    /// The process ends at once; what was not durable may be lost.
    pub fn fall(&mut self, sim: &mut Sim) {
        if !self.up {
            return;
        }
        self.up = false;
        self.life += 1;
        self.falls_at = None;
        let crashed = self.disk.crash(&mut sim.rng, sim.bug);
        if crashed.torn {
            sim.sometimes("a torn log tail dropped");
        }
        if crashed.lost > 0 {
            sim.sometimes("an unsynced write lost");
        }
        if self.control.as_ref().is_some_and(Control::is_committing) {
            sim.sometimes("a leader lost in mid-commit");
        }
        sim.note(
            "server.falls",
            [
                u64::from(self.id),
                crashed.lost as u64,
                u64::from(crashed.torn),
            ],
        );
        self.control = None;
        self.waiting.clear();
        self.group.clear();
        self.asked_to_lead = false;
        let addr = self.addr();
        let own: Vec<u64> = {
            let conns = sim.conns.iter();
            conns
                .filter(|(_, c)| c.server == addr)
                .map(|(id, _)| *id)
                .collect()
        };
        for conn in own {
            sim.close(conn, true);
        }
    }

    /// A message of another server.
    pub fn on_raft(&mut self, sim: &mut Sim, from: ServerId, msg: raft::Msg) {
        if matches!(msg, raft::Msg::Install { .. }) {
            sim.sometimes("a snapshot sent");
        }
        self.raft.on(from, msg, sim.now, &mut sim.rng);
        self.settle(sim);
    }

    /// Consensus looks at the time.
    pub fn on_tick(&mut self, sim: &mut Sim) {
        self.raft.tick(sim.now, &mut sim.rng);
        self.timer(sim, TICK, Timer::Raft);
        self.settle(sim);
    }

    /// A sync ends.
    pub fn on_synced(&mut self, sim: &mut Sim) {
        let failed = std::mem::take(&mut self.disk.fails);
        if failed {
            sim.sometimes("a sync failed");
            sim.note("disk.fails", [u64::from(self.id), 0, 0]);
            if !sim.has(Bug::SyncRetried) {
                return self.fall(sim);
            }
        }
        let done = match failed {
            true => self.disk.end_falsely(),
            false => self.disk.end(sim.bug),
        };
        let voted = |w: &Pending| matches!(w.op, Op::Vote(_, Some(v)) if v != self.id);
        let falls = self.falls_after_vote && done.iter().any(voted);
        for write in done {
            self.on_durable(sim, write);
        }
        if falls {
            self.falls_after_vote = false;
            sim.sometimes("a server fell right after its vote");
            self.fall(sim);
            return self.timer(sim, 1, Timer::Start);
        }
        self.settle(sim);
    }

    fn on_durable(&mut self, sim: &mut Sim, write: Pending) {
        if let Some(durable) = write.durable {
            self.raft.on_durable(durable, sim.now);
        }
        for (to, msg) in write.after {
            self.post(sim, to, msg);
        }
    }

    fn post(&mut self, sim: &mut Sim, to: ServerId, msg: raft::Msg) {
        match to == self.id {
            true => self.raft.on(to, msg, sim.now, &mut sim.rng),
            false => sim.send(self.addr(), Addr::Server(to), Msg::Raft(msg)),
        }
    }

    /// Does what consensus wants done, applies what is committed, and hands on what that answers.
    pub fn settle(&mut self, sim: &mut Sim) {
        loop {
            let out = std::mem::take(&mut self.raft.out);
            let idle = out.is_empty();
            for out in out {
                self.carry_out(sim, out);
            }
            self.apply(sim);
            self.flush(sim);
            if idle && self.raft.out.is_empty() {
                break;
            }
        }
        self.take_snapshot(sim);
        if self.raft.is_settled() && !self.asked_to_lead && self.control.is_none() {
            self.asked_to_lead = true;
            self.propose(sim, Payload::Grant, vec![Waiter::Lead]);
            return self.settle(sim);
        }
        if let Some(took) = self.disk.begin(&mut sim.rng) {
            self.timer(sim, took, Timer::Synced);
            if let Some(left) = &mut self.falls_at {
                *left -= 1;
                if *left == 0 {
                    sim.sometimes("a server fell while it wrote");
                    self.fall(sim);
                    return self.timer(sim, 2_000, Timer::Start);
                }
            }
        }
        self.answer_reads(sim);
    }

    fn carry_out(&mut self, sim: &mut Sim, out: Out) {
        match out {
            Out::Send(to, msg) => self.post(sim, to, msg),
            Out::Write(write) => {
                if let Some(done) = self.disk.push(write, sim.bug) {
                    self.on_durable(sim, done);
                }
            }
            Out::Leads => {
                let (id, term) = (self.id, self.raft.term);
                sim.note("raft.leads", [u64::from(id), term, 0]);
                let held = sim.truth.leaders.leads(term, id);
                sim.check("a_term_has_one_leader", held);
            }
            Out::Deposed => self.on_deposed(sim),
            Out::Installed(snapshot) => {
                sim.note("raft.installed", [u64::from(self.id), snapshot.index, 0]);
                sim.sometimes("a snapshot installed");
                self.restore(sim, Some(&snapshot));
            }
            Out::Broken(what) => sim.check("committed_entries_never_change", Err(what)),
        }
    }

    fn on_deposed(&mut self, sim: &mut Sim) {
        sim.note("raft.deposed", [u64::from(self.id), self.raft.term, 0]);
        self.asked_to_lead = false;
        let in_log = std::mem::take(&mut self.waiting).into_values();
        let queued = std::mem::take(&mut self.group).into_iter();
        let waiters: Vec<Waiter> = in_log
            .flat_map(|(_, waiters)| waiters)
            .chain(queued.map(|(_, waiter)| waiter))
            .collect();
        if waiters.iter().any(|w| matches!(w, Waiter::Round(_))) {
            sim.sometimes("a leader lost in mid-commit");
        }
        for waiter in waiters {
            self.answer(sim, waiter, Written::Unanswered);
        }
        self.notice(sim);
    }

    /// The leader is one no longer: it notices now, or only when it next looks.
    fn notice(&mut self, sim: &mut Sim) {
        let Some(control) = &self.control else {
            return;
        };
        if sim.setup.kinds.late_notice {
            let wait = sim.rng.below(3_000);
            let fence = control.fence.0;
            self.timer(sim, wait, Timer::Deposed(fence));
        } else {
            self.resign(sim);
        }
    }

    /// Puts an entry into the log, as the leader of it.
    fn propose(&mut self, sim: &mut Sim, payload: Payload, waiters: Vec<Waiter>) {
        let index = self.raft.append(payload, sim.now);
        self.waiting.insert(index, (self.raft.term, waiters));
    }

    /// Takes a write: into the log, or to the server that leads it.
    pub fn write(&mut self, sim: &mut Sim, write: Write, waiter: Waiter) {
        if self.raft.is_settled() {
            self.group.push((write, waiter));
            return self.settle(sim);
        }
        match (waiter, self.raft.leader) {
            (Waiter::Round(ticket), Some(leader)) if leader != self.id => {
                sim.sometimes("a write passed on by a deposed leader");
                let msg = Msg::Commit { write, ticket };
                sim.send(self.addr(), Addr::Server(leader), msg);
            }
            _ => self.answer(sim, waiter, Written::Unanswered),
        }
    }

    /// Everything that waits when the disk is ready for more becomes one entry.
    fn flush(&mut self, sim: &mut Sim) {
        if self.group.is_empty() || !self.disk.is_idle() || !self.raft.is_settled() {
            return;
        }
        let (writes, waiters): (Vec<_>, Vec<_>) = self.group.drain(..).unzip();
        if writes.len() > 1 {
            sim.sometimes("several writes in one entry");
        }
        self.propose(sim, Payload::Commit(writes), waiters);
    }

    fn apply(&mut self, sim: &mut Sim) {
        while self.applied < self.raft.commit && sim.violation.is_none() {
            let index = self.applied + 1;
            let Some(entry) = self.raft.entry(index).cloned() else {
                return;
            };
            self.applied = index;
            let first = match sim.truth.entries.applied(self.id, index, &entry) {
                Ok(first) => first,
                Err(what) => return sim.check("committed_entries_never_change", Err(what)),
            };
            let results = self.run(sim, &entry, first);
            for result in &results {
                let outcome = match result {
                    Written::At(revision) => revision.0,
                    Written::Fenced => u64::MAX,
                    Written::Unanswered => 0,
                };
                self.digest = fold(self.digest, &outcome.to_le_bytes());
            }
            self.digest = fold(self.digest, &entry.digest.to_le_bytes());
            let (id, digest) = (self.id, self.digest);
            let held = sim.truth.replicas.applied(id, index, digest, &self.table);
            sim.check("replicas_agree", held);
            let Some((term, waiters)) = self.waiting.remove(&index) else {
                continue;
            };
            for (nth, waiter) in waiters.into_iter().enumerate() {
                let result = results.get(nth).copied();
                let result = result.filter(|_| term == entry.term);
                self.answer(sim, waiter, result.unwrap_or(Written::Unanswered));
            }
        }
    }

    /// Carries an entry out; what came of each of its writes.
    fn run(&mut self, sim: &mut Sim, entry: &Entry, first: bool) -> Vec<Written> {
        match &*entry.payload {
            Payload::Blank | Payload::Config(_) => Vec::new(),
            Payload::Grant => {
                let fence = self.table.grant();
                if first {
                    let held = sim.truth.fences.granted(fence);
                    sim.check("a_deposed_leader_writes_nothing", held);
                }
                if self.control.as_ref().is_some_and(|c| c.fence < fence) {
                    self.notice(sim);
                }
                vec![Written::At(Revision(fence.0))]
            }
            Payload::Commit(writes) => {
                let each = writes.iter().map(|write| self.run_write(sim, write, first));
                each.collect()
            }
        }
    }

    fn run_write(&mut self, sim: &mut Sim, write: &Write, first: bool) -> Written {
        let fence = match sim.has(Bug::FenceNotChecked) {
            true => self.table.fence(),
            false => write.fence,
        };
        match self.table.apply(fence, &write.batch) {
            Ok(revision) => {
                if first {
                    let held = sim.truth.fences.wrote(write.fence);
                    sim.check("a_deposed_leader_writes_nothing", held);
                    let held = sim.truth.reads.committed(revision, &self.table);
                    sim.check("reads_and_watches_never_go_back", held);
                }
                Written::At(revision)
            }
            Err(_) => {
                if first {
                    sim.sometimes("a fence refused a write");
                }
                Written::Fenced
            }
        }
    }

    fn answer(&mut self, sim: &mut Sim, waiter: Waiter, written: Written) {
        match waiter {
            Waiter::Lead => match written {
                Written::At(fence) => self.lead(sim, Fence(fence.0)),
                _ => self.asked_to_lead = false,
            },
            Waiter::Round(ticket) => self.on_written(sim, ticket, written),
            Waiter::Remote(server, ticket) => {
                let revision = match written {
                    Written::At(revision) => Some(revision.0),
                    _ => None,
                };
                let msg = Msg::Committed {
                    ticket,
                    revision,
                    fenced: written == Written::Fenced,
                };
                sim.send(self.addr(), Addr::Server(server), msg);
            }
        }
    }

    fn take_snapshot(&mut self, sim: &mut Sim) {
        let base = self.raft.last() - self.raft.logged();
        if self.raft.logged() < sim.setup.snapshot_every || self.applied <= base {
            return;
        }
        let Some(term) = self.raft.term_at(self.applied) else {
            return;
        };
        let Ok(page) = self.table.range(&KeyRange::all(), None, usize::MAX) else {
            return;
        };
        let config = match self.raft.committed_config(self.applied) {
            Some(config) => config,
            None => return,
        };
        let fence = match sim.has(Bug::SnapshotLosesFence) {
            true => Fence(0),
            false => self.table.fence(),
        };
        sim.note("raft.snapshot", [u64::from(self.id), self.applied, 0]);
        sim.sometimes("a snapshot taken");
        if std::mem::take(&mut self.falls_at_snapshot) {
            self.falls_at = Some(1);
        }
        if sim.has(Bug::AppliedApart) {
            let early = Pending {
                op: Op::Applied(self.applied),
                after: Vec::new(),
                durable: None,
            };
            let _queued = self.disk.push(early, sim.bug);
        }
        self.raft.compact(Snapshot {
            index: self.applied,
            term,
            config,
            revision: self.table.revision(),
            fence,
            items: page.items,
            digest: self.digest,
        });
        for out in std::mem::take(&mut self.raft.out) {
            self.carry_out(sim, out);
        }
    }

    /// Asks whether it still leads the log; the number that [`Raft::heard_of`] must reach.
    pub fn ask_around(&mut self, sim: &mut Sim) -> u64 {
        self.raft.probe(sim.now)
    }

    /// What is known of the leader, for those who ask the wrong server.
    pub fn hint(&self) -> Option<ServerId> {
        self.raft.leader.filter(|id| *id != self.id)
    }
}
