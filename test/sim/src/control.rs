//! The leader's loop, as `crates/plane/control/src/leader.rs` has it: takes proposals in rounds, decides each against memory,
//! places what waits, commits all of it under its fence, and only then answers and acts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use prism_link::ToWorker;
use prism_scheduler::NodeView;
use prism_state::{
    Action, Change, Command, IdempotencyKey, Proposal, Reply, State, Submission, encode_batch,
    propose,
};
use prism_store::Batch;
use prism_types::{Fence, Id, JobId, NodeId, NodeState, Reason, Rejection, TimeMs};

use crate::bugs::Bug;
use crate::invariants::a_retry_waits_no_longer_than_it_may;
use crate::invariants::the_state_is_what_the_store_holds as state_held;
use crate::log::Write;
use crate::resume::Serve;
use crate::server::{Server, Waiter, Written};
use crate::session::Session;
use crate::sim::{Addr, Ask, Msg, Sim, Timer, Told, short};
use crate::work;

/// Proposals decided in one round.
const ROUND: usize = 1024;
/// How often leases are looked at, milliseconds.
const LEASE_CHECK: u64 = 1_000;
/// A node that has not been heard of for so long is `SUSPECT`.
const SUSPECT_AFTER: u64 = 6_000;
/// A node that has not been heard of for so long is `OFFLINE`.
const OFFLINE_AFTER: u64 = 15_000;
/// One round in so many is looked at closely.
const LOOK_EVERY: u64 = 12;

/// Who proposed something.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A client.
    Client(u32, (u64, u32)),
    /// A worker's session, which waits for the answer.
    Serve(u64),
    /// Nobody waits.
    Nobody,
}

/// A round that is being committed.
#[derive(Debug, Default)]
pub struct Round {
    changes: Vec<Change>,
    actions: Vec<Action>,
    answers: Vec<(Origin, Result<Reply, Rejection>)>,
    over: Vec<JobId>,
}

/// A leader.
#[derive(Debug)]
pub struct Control {
    /// The fence that it writes under.
    pub fence: Fence,
    /// What it knows.
    pub state: State,
    /// Sessions of workers, by node.
    pub sessions: BTreeMap<NodeId, Session>,
    /// Connections of workers, whether they have a session or not.
    pub serving: BTreeMap<u64, Serve>,
    /// When nodes were last heard of in sessions that are over.
    pub heard: BTreeMap<NodeId, TimeMs>,
    queue: VecDeque<(Proposal, Origin)>,
    committing: Option<(u64, Round)>,
    ticket: u64,
    planned: bool,
    base: u64,
    from: u64,
    started: TimeMs,
    revision: u64,
    rounds: u64,
    reads: Vec<(u64, u32, (u64, u32))>,
    /// Sessions that have asked for more time, each with the question to the other servers and when it was sent.
    renewals: Vec<(u64, u64, NodeId, u64)>,
}

impl Control {
    /// Whether a round is being committed: nobody may read meanwhile.
    pub fn is_committing(&self) -> bool {
        self.committing.is_some()
    }

    /// The time that decisions are made with: the wall clock's at the start, carried by the monotonic one.
    pub fn time(&self, monotonic: u64) -> TimeMs {
        TimeMs(self.base + monotonic.saturating_sub(self.from))
    }

    /// When a node was last heard of by this leader.
    fn heard_of(&self, node: NodeId) -> TimeMs {
        let live = self.sessions.get(&node).map(|s| s.heard);
        let past = self.heard.get(&node).copied();
        let heard = live.unwrap_or_default().max(past.unwrap_or_default());
        heard.max(self.started)
    }

    fn views(&self) -> BTreeMap<NodeId, NodeView> {
        let sessions = self.sessions.iter();
        sessions.map(|(id, s)| (*id, s.view())).collect()
    }
}

/// A node that has not been heard of for so long is `OFFLINE`.
fn offline_after(sim: &Sim) -> u64 {
    match sim.has(Bug::LeaseNotAwaited) {
        true => SUSPECT_AFTER + 1_000,
        false => OFFLINE_AFTER,
    }
}

/// A request other than a submit, with a key: one that the network delivers again and late changes nothing.
fn keyed(command: Command, client: u32, (op, _): (u64, u32)) -> Proposal {
    let key = IdempotencyKey {
        key: format!("client-{client}-{op}").into(),
        request_digest: [0; 32],
    };
    Proposal {
        command,
        key: Some(key),
        origin: None,
    }
}

impl Server {
    /// The fence is granted: loads the state and begins to lead.
    pub fn lead(&mut self, sim: &mut Sim, fence: Fence) {
        let without = sim.has(Bug::KeysNotLoaded).then_some("keys/");
        let state = match state_held::load(&self.table, None, without) {
            Ok(state) => state,
            Err(what) => return sim.check("the_state_is_what_the_store_holds", Err(what)),
        };
        let truth = &sim.truth;
        let held = truth.acknowledged.holds(&state);
        let once = truth.keys.holds(&state);
        sim.check("what_was_acknowledged_is_durable", held);
        sim.check("a_key_is_answered_once", once);
        if self.control.is_some() {
            self.resign(sim);
        }
        let floor = match sim.has(Bug::ClockBehind) {
            true => TimeMs(0),
            false => state.latest_time(),
        };
        let base = self.clock.wall(sim.now).max(floor.0);
        let held = a_retry_waits_no_longer_than_it_may::holds(&state, TimeMs(base));
        sim.check("a_retry_waits_no_longer_than_it_may", held);
        sim.note(
            "control.leads",
            [u64::from(self.id), fence.0, self.table.revision().0],
        );
        if fence.0 > 1 {
            sim.sometimes("a leader took over");
        }
        let init = state.cluster().is_none();
        self.control = Some(Control {
            fence,
            state,
            sessions: BTreeMap::new(),
            serving: BTreeMap::new(),
            heard: BTreeMap::new(),
            queue: VecDeque::new(),
            committing: None,
            ticket: 0,
            planned: false,
            base,
            from: self.clock.monotonic(sim.now),
            started: TimeMs(base),
            revision: self.table.revision().0,
            rounds: 0,
            reads: Vec::new(),
            renewals: Vec::new(),
        });
        self.suggest(sim, Command::TakeOver.into(), Origin::Nobody);
        if init {
            let cluster = Id::new(base, u128::from(sim.rng.draw()));
            self.suggest(sim, Command::Init { cluster }.into(), Origin::Nobody);
        }
        self.timer(sim, LEASE_CHECK, Timer::Leases(fence.0));
        self.poke(sim);
    }

    /// Leads no longer: sessions end, and who waits for an answer learns that it is not known.
    pub fn resign(&mut self, sim: &mut Sim) {
        let Some(control) = self.control.take() else {
            return;
        };
        sim.note("control.resigns", [u64::from(self.id), control.fence.0, 0]);
        let (_, round) = control.committing.unwrap_or_default();
        let answers = round.answers.into_iter().map(|(origin, _)| origin);
        let queued = control.queue.into_iter().map(|(_, origin)| origin);
        for origin in answers.chain(queued) {
            if let Origin::Client(client, op) = origin {
                self.tell_client(sim, client, op, Told::Unknown, 0);
            }
        }
        for (_, client, op) in control.reads {
            self.tell_client(sim, client, op, Told::Unknown, 0);
        }
        for conn in control.serving.into_keys() {
            sim.stream(conn, false, crate::net::Frame::Elsewhere(self.hint()));
            sim.close(conn, true);
        }
    }

    pub(crate) fn tell_client(
        &self,
        sim: &mut Sim,
        client: u32,
        op: (u64, u32),
        told: Told,
        revision: u64,
    ) {
        let msg = Msg::Tell { op, told, revision };
        sim.send(self.addr(), Addr::Client(client), msg);
    }

    /// Whether this server's leader writes under this fence.
    pub fn leads_under(&self, fence: Fence) -> bool {
        self.control.as_ref().is_some_and(|c| c.fence == fence)
    }

    /// Time now, as the leader sees it.
    pub fn leader_time(&self, sim: &Sim) -> TimeMs {
        let monotonic = self.clock.monotonic(sim.now);
        let control = self.control.as_ref();
        control.map_or(TimeMs(0), |c| c.time(monotonic))
    }

    /// Queues a proposal.
    pub fn suggest(&mut self, sim: &mut Sim, proposal: Proposal, origin: Origin) {
        if let Some(control) = &mut self.control {
            control.queue.push_back((proposal, origin));
            self.poke(sim);
        }
    }

    /// Wakes the loop.
    pub fn poke(&mut self, sim: &mut Sim) {
        if let Some(control) = &mut self.control
            && !control.planned
            && control.committing.is_none()
        {
            control.planned = true;
            let wait = sim.rng.below(3);
            self.timer(sim, wait, Timer::Round);
        }
    }

    /// A client asks.
    pub fn on_ask(&mut self, sim: &mut Sim, client: u32, op: (u64, u32), ask: Ask, passed: bool) {
        let leading = self.control.is_some();
        if !leading {
            // A write is passed on to the leader, once.
            if let (Some(leader), false, true) = (self.hint(), passed, sim.rng.permille(500)) {
                let msg = Msg::Ask {
                    client,
                    op,
                    ask,
                    passed: true,
                };
                sim.sometimes("a request passed on to the leader");
                return sim.send(self.addr(), Addr::Server(leader), msg);
            }
            return self.tell_client(sim, client, op, Told::NotLeader(self.hint()), 0);
        }
        let proposal = match ask {
            Ask::Submit { number, keyed } => self.submission(sim, number, keyed),
            Ask::Cancel(id) => keyed(Command::CancelJob { id }, client, op),
            Ask::Pause(id, true) => keyed(Command::PauseJob { id }, client, op),
            Ask::Pause(id, false) => keyed(Command::ResumeJob { id }, client, op),
            Ask::Read => return self.read(sim, client, op),
        };
        self.suggest(sim, proposal, Origin::Client(client, op));
    }

    fn submission(&self, sim: &mut Sim, number: u64, keyed: bool) -> Proposal {
        let id = JobId::new(
            self.leader_time(sim).0,
            u128::from(sim.rng.draw()) & 0xffff_ffff_ffff,
        );
        let command = Command::SubmitJob(Submission {
            id,
            spec: Arc::new(work::spec(number)),
            blobs: Vec::new(),
            seed: number,
        });
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_le_bytes());
        let key = keyed.then(|| IdempotencyKey {
            key: format!("request-{number}").into(),
            request_digest: digest,
        });
        Proposal {
            command,
            key,
            origin: None,
        }
    }

    /// A read waits until a majority has said that this server still leads.
    fn read(&mut self, sim: &mut Sim, client: u32, op: (u64, u32)) {
        if sim.has(Bug::StaleRead) {
            let revision = self.control.as_ref().map_or(0, |c| c.revision);
            return self.tell_client(sim, client, op, Told::Read, revision);
        }
        if !self.raft.is_settled() {
            return self.tell_client(sim, client, op, Told::NotLeader(self.hint()), 0);
        }
        let probe = self.ask_around(sim);
        if let Some(control) = &mut self.control {
            control.reads.push((probe, client, op));
        }
        self.settle(sim);
    }

    /// A node has asked for more time: it gets it when a majority has said that this server still leads.
    pub fn renew(&mut self, sim: &mut Sim, conn: u64, node: NodeId, sent: u64) {
        if !self.raft.is_settled() {
            return;
        }
        let probe = self.ask_around(sim);
        if let Some(control) = &mut self.control {
            control.renewals.push((probe, conn, node, sent));
        }
        self.settle(sim);
    }

    fn answer_renewals(&mut self, sim: &mut Sim) {
        let heard = self.raft.heard_of();
        let (settled, fence) = (self.raft.is_settled(), self.table.fence());
        let Some(control) = &mut self.control else {
            return;
        };
        if !settled || control.fence != fence {
            return;
        }
        let all = std::mem::take(&mut control.renewals).into_iter();
        let (ready, later) = all.partition(|(probe, ..)| *probe <= heard);
        control.renewals = later;
        let ready: Vec<_> = ready;
        for (_, conn, node, sent) in ready {
            let control = self.control.as_ref();
            let session = control.and_then(|c| c.sessions.get(&node));
            if session.is_some_and(|s| s.conn == conn) {
                sim.sometimes("a lease was renewed");
                self.tell(sim, node, ToWorker::Renewed { sent });
            }
        }
    }

    /// Answers the reads whose question was answered, and the nodes that have asked for more time.
    pub fn answer_reads(&mut self, sim: &mut Sim) {
        self.answer_renewals(sim);
        let heard = self.raft.heard_of();
        let (settled, fence) = (self.raft.is_settled(), self.table.fence());
        let Some(control) = &mut self.control else {
            return;
        };
        // The log's leader it may be again, with another leader's decisions in between: then its memory is of the past.
        let present = settled && control.fence == fence;
        if control.committing.is_some() || control.reads.is_empty() || !present {
            return;
        }
        let revision = control.revision;
        let (ready, later) = std::mem::take(&mut control.reads)
            .into_iter()
            .partition(|(probe, ..)| *probe <= heard);
        control.reads = later;
        let ready: Vec<_> = ready;
        for (_, client, op) in ready {
            self.tell_client(sim, client, op, Told::Read, revision);
        }
    }

    /// One round: decide, place, commit.
    pub fn on_round(&mut self, sim: &mut Sim) {
        let now = self.leader_time(sim);
        let Some(control) = &mut self.control else {
            return;
        };
        control.planned = false;
        if control.committing.is_some() {
            return;
        }
        let mut round = Round::default();
        let taken = control.queue.len().min(ROUND);
        let taken: Vec<_> = control.queue.drain(..taken).collect();
        for (proposal, origin) in taken {
            let answer = control.decide(sim, &mut round, &proposal, now);
            round.answers.push((origin, answer));
        }
        if control.state.next_timer().is_some_and(|t| t <= now) {
            control.command(sim, &mut round, Command::Tick, now);
        }
        let views = control.views();
        let plan = prism_scheduler::plan(&control.state, &views, &Default::default());
        if !plan.is_empty() {
            control.command(sim, &mut round, Command::Assign(plan), now);
        }
        if round.changes.is_empty() {
            return self.finish(sim, round);
        }
        self.commit(sim, round);
    }

    fn commit(&mut self, sim: &mut Sim, mut round: Round) {
        let Some(control) = &mut self.control else {
            return;
        };
        let mut batch = Batch::new();
        for (key, value) in encode_batch(&round.changes) {
            match value {
                Some(value) => batch.puts.push((key.into(), value.into())),
                None => batch.deletes.push(key.into()),
            }
        }
        control.ticket += 1;
        let ticket = control.ticket;
        let write = Write {
            fence: control.fence,
            batch: Arc::new(batch),
        };
        sim.note(
            "control.commits",
            [u64::from(self.id), ticket, round.changes.len() as u64],
        );
        let early = match sim.has(Bug::AckBeforeCommit) {
            true => std::mem::take(&mut round.answers),
            false => Vec::new(),
        };
        control.committing = Some((ticket, round));
        for (origin, answer) in early {
            self.answer_origin(sim, origin, answer);
        }
        self.write(sim, write, Waiter::Round(ticket));
    }

    /// The store has answered a round.
    pub fn on_written(&mut self, sim: &mut Sim, ticket: u64, written: Written) {
        let Some(control) = &mut self.control else {
            return;
        };
        let Some((_, round)) = control.committing.take_if(|(t, _)| *t == ticket) else {
            return;
        };
        let Written::At(revision) = written else {
            if written == Written::Fenced {
                sim.sometimes("a leader learned from its fence that it is deposed");
            }
            control.committing = Some((ticket, round));
            return self.resign(sim);
        };
        control.revision = revision.0;
        control.rounds += 1;
        if control.rounds % LOOK_EVERY == 1 && self.table.revision() == revision {
            let held = state_held::holds(&control.state, &self.table);
            sim.check("the_state_is_what_the_store_holds", held);
        }
        sim.note(
            "control.committed",
            [u64::from(self.id), ticket, revision.0],
        );
        self.finish(sim, round);
    }

    /// After the commit: tells everyone.
    fn finish(&mut self, sim: &mut Sim, round: Round) {
        for (origin, answer) in round.answers {
            self.answer_origin(sim, origin, answer);
        }
        self.act(sim, round.actions);
        for job in round.over {
            self.job_over(sim, job);
        }
        self.resume_sessions(sim);
        self.answer_reads(sim);
        let now = self.leader_time(sim);
        let Some(control) = &mut self.control else {
            return;
        };
        if !control.queue.is_empty() {
            return self.poke(sim);
        }
        if let Some(timer) = control.state.next_timer()
            && let wait = timer.since(now).0
            && wait < LEASE_CHECK
            && control.committing.is_none()
        {
            self.timer(sim, wait + 1, Timer::Round);
        }
    }

    fn answer_origin(&mut self, sim: &mut Sim, origin: Origin, answer: Result<Reply, Rejection>) {
        match origin {
            Origin::Nobody => {}
            Origin::Serve(conn) => self.on_serve_answer(sim, conn, answer),
            Origin::Client(client, op) => {
                let revision = self.control.as_ref().map_or(0, |c| c.revision);
                let told = match answer {
                    Ok(Reply::JobCreated { id }) => {
                        sim.note("client.accepted", [op.0, short(id), revision]);
                        Told::Job(id)
                    }
                    Ok(_) => Told::Done,
                    Err(e) if e.reason == Reason::NotLeader => Told::Unknown,
                    Err(_) => Told::Refused,
                };
                self.tell_client(sim, client, op, told, revision);
            }
        }
    }

    /// Looks at the leases: late nodes are suspect, then offline.
    pub fn on_leases(&mut self, sim: &mut Sim, fence: Fence) {
        let now = self.leader_time(sim);
        let Some(control) = self.control.as_ref().filter(|c| c.fence == fence) else {
            return;
        };
        if control.is_committing() {
            return self.timer(sim, LEASE_CHECK, Timer::Leases(fence.0));
        }
        let mut late = Vec::new();
        for node in control.state.nodes() {
            let record = node.record();
            let heard = control.heard_of(record.id);
            let want = match now.since(heard).0 {
                silent if silent >= offline_after(sim) => NodeState::Offline,
                SUSPECT_AFTER.. => NodeState::Suspect,
                _ => continue,
            };
            if record.state < want {
                late.push((record.id, want));
            }
        }
        for (id, state) in late {
            if state == NodeState::Offline {
                sim.sometimes("a node went offline");
            }
            let command = Command::SetNodeState { id, state };
            self.suggest(sim, command.into(), Origin::Nobody);
        }
        self.timer(sim, LEASE_CHECK, Timer::Leases(fence.0));
        self.poke(sim);
    }
}

impl Control {
    fn decide(
        &mut self,
        sim: &mut Sim,
        round: &mut Round,
        proposal: &Proposal,
        now: TimeMs,
    ) -> Result<Reply, Rejection> {
        if let Command::SetNodeState {
            id,
            state: NodeState::Offline,
        } = proposal.command
            && now.since(self.heard_of(id)).0 < offline_after(sim)
        {
            sim.sometimes("a node was heard of before it was given up");
            return Err(Rejection::new(Reason::WrongState, "it was heard of"));
        }
        let known = proposal
            .key
            .as_ref()
            .map(|k| self.state.key(&k.key).is_some());
        let wanted = match sim.has(Bug::LateResultRecorded) {
            true => self.as_of_now(&proposal.command),
            false => None,
        };
        let proposal = wanted.as_ref().unwrap_or(proposal);
        let decided = propose(&self.state, proposal, now)?;
        if known == Some(true) {
            sim.sometimes("a repeated submit was answered from its key");
        }
        let mut changes = decided.changes;
        if let (
            Command::Finished { .. },
            Reply::Recorded {
                duplicates: 1.., ..
            },
        ) = (&proposal.command, &decided.reply)
        {
            sim.sometimes("a result came again, or too late");
            if sim.has(Bug::RecordedTwice) {
                changes.extend(self.once_more(&proposal.command, now));
            }
        }
        self.take(round, changes, decided.actions);
        Ok(decided.reply)
    }

    fn command(&mut self, sim: &mut Sim, round: &mut Round, command: Command, now: TimeMs) {
        match prism_state::decide(&self.state, &command, now) {
            Ok(decided) => self.take(round, decided.changes, decided.actions),
            Err(e) => {
                let what = format!("the core refused what the leader itself asked: {e}");
                sim.check("the_state_is_what_the_store_holds", Err(what));
            }
        }
    }

    fn take(&mut self, round: &mut Round, changes: Vec<Change>, actions: Vec<Action>) {
        self.state.apply(&changes);
        for change in &changes {
            if let Change::Job(record) = change
                && record.state.is_final()
            {
                round.over.push(record.id);
            }
        }
        round.changes.extend(changes);
        round.actions.extend(actions);
    }

    /// A planted fault: results of any attempt are taken for the present one.
    fn as_of_now(&self, command: &Command) -> Option<Proposal> {
        let Command::Finished { results, .. } = command else {
            return None;
        };
        let mut results = results.clone();
        let mut node = None;
        for result in &mut results {
            let task = &mut result.task;
            let cell = self.state.job(task.job)?.cell(task.index)?;
            if let Some(no) = cell.placed_on().filter(|_| cell.attempt != task.attempt) {
                task.attempt = cell.attempt;
                node = self.state.node_id(no);
            }
        }
        let command = Command::Finished {
            node: node?,
            results,
        };
        Some(command.into())
    }

    /// A planted fault: the results of a repeated report are written down again.
    fn once_more(&self, command: &Command, now: TimeMs) -> Vec<Change> {
        let Command::Finished { node, results } = command else {
            return Vec::new();
        };
        let no = self.state.node(*node).map(|n| n.record().no);
        let each = results.iter().filter_map(|r| {
            let cell = self.state.job(r.task.job)?.cell(r.task.index)?;
            let again = cell.state.is_final() && cell.attempt == r.task.attempt;
            let record = prism_state::ResultRecord {
                index: r.task.index,
                attempt: r.task.attempt,
                node: no?,
                state: cell.state,
                reason: cell.reason,
                recorded: now,
                report: r.report.clone(),
                result: r.result.clone(),
                stderr_tail: r.stderr_tail.clone(),
                output: None,
            };
            again.then_some(Change::Results {
                job: r.task.job,
                block: r.task.index / prism_state::BLOCK,
                seq: 1_000_000 + r.task.index,
                records: vec![record],
            })
        });
        each.collect()
    }
}
