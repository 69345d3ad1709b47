//! A compact model of consensus: pre-vote, log matching, commit on a majority, snapshots, learners, one change of members at a
//! time, transfer of leadership. Sans I/O: it takes messages and the time, and leaves what to send and to write in `out`.
//!
//! After Ongaro, "Consensus: bridging theory and practice" (2014), chapters 3, 4, 6 and 9.6.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::bugs::Bug;
use crate::disk::{Image, Op, Pending};
use crate::log::{Config, Entry, Payload, ServerId, Snapshot};
pub use crate::message::Msg;
use crate::rng::Rng;
use crate::sim::Sim;

/// Between two heartbeats, milliseconds.
const BEAT: u64 = 200;
/// A leader that a majority does not answer for so long leads no longer.
const ALONE: u64 = 2_000;
/// Entries in one message.
const AT_ONCE: usize = 16;
/// A snapshot that was not answered for so long is sent again.
const SEND_AGAIN: u64 = 500;

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Out {
    /// Send at once.
    Send(ServerId, Msg),
    /// Write, and then send.
    Write(Pending),
    /// It leads from now on.
    Leads,
    /// It leads no longer.
    Deposed,
    /// The state machine is to be replaced.
    Installed(Arc<Snapshot>),
    /// A committed entry was to be replaced: never.
    Broken(String),
}

/// What a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows, or waits.
    Follower,
    /// Asks whether it could win.
    Asking,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
}

#[derive(Clone, Debug)]
struct Peer {
    next: u64,
    matched: u64,
    heard: u64,
    probe: u64,
    sent_snapshot: u64,
}

/// One server's part in consensus.
#[derive(Clone, Debug)]
pub struct Raft {
    /// Who.
    pub id: ServerId,
    /// Its term.
    pub term: u64,
    voted: Option<ServerId>,
    /// The latest snapshot.
    pub snapshot: Option<Arc<Snapshot>>,
    entries: Vec<Entry>,
    /// Members, committed or not.
    pub config: Config,
    config_at: u64,
    /// How far is committed.
    pub commit: u64,
    durable: u64,
    /// What it is.
    pub role: Role,
    /// Who leads, as far as it knows.
    pub leader: Option<ServerId>,
    deadline: u64,
    election: (u64, u64),
    heard: u64,
    votes: BTreeSet<ServerId>,
    peers: BTreeMap<ServerId, Peer>,
    probe: u64,
    term_start: u64,
    beat: u64,
    /// What is to be done.
    pub out: Vec<Out>,
    bug: Option<Bug>,
}

impl Raft {
    /// What a server is that starts with this on its disk.
    pub fn start(id: ServerId, image: &Image, sim: &mut Sim) -> Self {
        let (now, bug, election) = (sim.now, sim.bug, sim.setup.election);
        let rng = &mut sim.rng;
        let logged = image.log.last().map_or(0, |e| e.term);
        let snapped = image.snapshot.as_ref().map_or(0, |s| s.term);
        let base = image.snapshot.as_ref().map_or(0, |s| s.index);
        let term = image.vote.0.max(logged).max(snapped);
        let mut raft = Self {
            id,
            term,
            voted: image.vote.1.filter(|_| term == image.vote.0),
            snapshot: image.snapshot.clone(),
            entries: image.log.clone(),
            config: Config::default(),
            config_at: 0,
            commit: base,
            durable: base + image.log.len() as u64,
            role: Role::Follower,
            leader: None,
            deadline: now + rng.within(election.0, election.1),
            election,
            heard: 0,
            votes: BTreeSet::new(),
            peers: BTreeMap::new(),
            probe: 0,
            term_start: 0,
            beat: 0,
            out: Vec::new(),
            bug,
        };
        raft.find_config();
        raft
    }

    fn base(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |s| s.index)
    }

    /// Index of the last entry.
    pub fn last(&self) -> u64 {
        self.base() + self.entries.len() as u64
    }

    /// Entries after the snapshot.
    pub fn logged(&self) -> u64 {
        self.entries.len() as u64
    }

    /// The entry at an index.
    pub fn entry(&self, index: u64) -> Option<&Entry> {
        let at = index.checked_sub(self.base() + 1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// The term of the entry at an index.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        match &self.snapshot {
            Some(s) if s.index == index => Some(s.term),
            None if index == 0 => Some(0),
            _ => self.entry(index).map(|e| e.term),
        }
    }

    fn find_config(&mut self) {
        let base = self.base();
        let found = self.entries.iter().enumerate().rev().find_map(|(at, e)| {
            let Payload::Config(config) = &*e.payload else {
                return None;
            };
            Some((base + 1 + at as u64, config.clone()))
        });
        let (at, config) = found.unwrap_or_else(|| {
            let snapped = self.snapshot.as_ref().map(|s| s.config.clone());
            (base, snapped.unwrap_or_default())
        });
        self.config_at = at;
        self.config = config;
    }

    /// The members as of an applied index.
    pub fn committed_config(&self, index: u64) -> Option<Config> {
        let base = self.base();
        let upto = usize::try_from(index.checked_sub(base)?).ok()?;
        let found = self.entries.iter().take(upto).rev().find_map(|e| {
            let Payload::Config(config) = &*e.payload else {
                return None;
            };
            Some(config.clone())
        });
        let snapped = || self.snapshot.as_ref().map(|s| s.config.clone());
        Some(found.or_else(snapped).unwrap_or_default())
    }

    /// Whether it leads.
    pub fn leads(&self) -> bool {
        self.role == Role::Leader
    }

    /// Whether it leads and has committed an entry of its term, so that it knows what is committed.
    pub fn is_settled(&self) -> bool {
        self.leads() && self.commit >= self.term_start
    }

    fn send(&mut self, to: ServerId, msg: Msg) {
        self.out.push(Out::Send(to, msg));
    }

    fn write(&mut self, op: Op, after: Vec<(ServerId, Msg)>, durable: Option<(u64, u64)>) {
        self.out.push(Out::Write(Pending { op, after, durable }));
    }

    /// Answers after all that is being written.
    fn answer(&mut self, to: ServerId, msg: Msg) {
        self.write(Op::None, vec![(to, msg)], None);
    }

    fn others(&self) -> Vec<ServerId> {
        let all = self.config.voters.iter();
        all.copied().filter(|id| *id != self.id).collect()
    }

    fn is_voter(&self) -> bool {
        self.config.voters.contains(&self.id)
    }

    fn rest(&mut self, now: u64, rng: &mut Rng) {
        self.deadline = now + rng.within(self.election.0, self.election.1);
    }

    fn follow(&mut self, term: u64) {
        if self.role == Role::Leader {
            self.out.push(Out::Deposed);
            self.peers.clear();
        }
        self.role = Role::Follower;
        if term > self.term {
            self.term = term;
            self.voted = None;
            self.leader = None;
            self.write(Op::Vote(term, None), Vec::new(), None);
        }
    }

    /// Time passes.
    pub fn tick(&mut self, now: u64, rng: &mut Rng) {
        if self.leads() {
            let recent = |p: &&ServerId| {
                **p == self.id
                    || self
                        .peers
                        .get(p)
                        .is_some_and(|p| now.saturating_sub(p.heard) < ALONE)
            };
            let live = self.config.voters.iter().filter(recent).count();
            if live < self.config.quorum() {
                self.leader = None;
                self.follow(self.term);
                return self.rest(now, rng);
            }
            if now >= self.beat + BEAT {
                self.beat = now;
                self.probe += 1;
                self.replicate(now, true);
            }
        } else if self.is_voter() && now >= self.deadline {
            self.rest(now, rng);
            self.role = Role::Asking;
            self.leader = None;
            self.votes = BTreeSet::from([self.id]);
            if self.votes.len() >= self.config.quorum() {
                return self.stand(false);
            }
            self.ask(self.term + 1, true, false);
        }
    }

    fn ask(&mut self, term: u64, pre: bool, wanted: bool) {
        let last = self.last();
        let last = (last, self.term_at(last).unwrap_or(0));
        let msg = Msg::Vote {
            term,
            pre,
            wanted,
            last,
        };
        let all: Vec<_> = self
            .others()
            .into_iter()
            .map(|p| (p, msg.clone()))
            .collect();
        match pre {
            true => self
                .out
                .extend(all.into_iter().map(|(p, m)| Out::Send(p, m))),
            false => {
                // Its own vote counts when it is durable, as those of others do.
                let own = Msg::Voted {
                    term,
                    pre: false,
                    granted: true,
                };
                let after = all.into_iter().chain([(self.id, own)]).collect();
                self.write(Op::Vote(term, Some(self.id)), after, None);
            }
        }
    }

    fn stand(&mut self, wanted: bool) {
        self.term += 1;
        self.voted = Some(self.id);
        self.role = Role::Candidate;
        self.leader = None;
        self.votes.clear();
        self.ask(self.term, false, wanted);
    }

    /// A message came.
    pub fn on(&mut self, from: ServerId, msg: Msg, now: u64, rng: &mut Rng) {
        match msg {
            Msg::Vote {
                term,
                pre,
                wanted,
                last,
            } => self.on_vote(from, (term, pre, wanted, last), now, rng),
            Msg::Voted { term, pre, granted } => self.on_voted(from, term, pre, granted, now),
            Msg::Append {
                term,
                prev,
                entries,
                commit,
                probe,
            } => {
                if self.heed(from, term, probe, now, rng) {
                    self.on_append(from, prev, entries, commit, probe);
                }
            }
            Msg::Appended {
                term,
                ok,
                upto,
                probe,
            } => self.on_appended(from, (term, ok, upto, probe), now),
            Msg::Install {
                term,
                snapshot,
                probe,
            } => {
                if self.heed(from, term, probe, now, rng) {
                    self.on_install(from, snapshot, probe);
                }
            }
            Msg::Stand { term } => {
                if term == self.term && self.is_voter() && !self.leads() {
                    self.rest(now, rng);
                    self.stand(true);
                }
            }
        }
    }

    fn on_vote(
        &mut self,
        from: ServerId,
        (term, pre, wanted, (index, last_term)): (u64, bool, bool, (u64, u64)),
        now: u64,
        rng: &mut Rng,
    ) {
        let led = self.leads() || self.leader.is_some() && now < self.heard + self.election.0;
        if led && !wanted {
            return;
        }
        let last = self.last();
        let mine = (self.term_at(last).unwrap_or(0), last);
        let fresh = (last_term, index) >= mine;
        if pre {
            let granted = fresh && term > self.term;
            let term = if granted { term } else { self.term };
            return self.send(from, Msg::Voted { term, pre, granted });
        }
        if term > self.term {
            self.follow(term);
        }
        let free = self.voted.is_none() || self.voted == Some(from);
        let granted = term == self.term && free && fresh && self.role == Role::Follower;
        let answer = Msg::Voted {
            term: self.term,
            pre,
            granted,
        };
        if granted {
            self.voted = Some(from);
            self.rest(now, rng);
            self.write(Op::Vote(term, Some(from)), vec![(from, answer)], None);
        } else {
            self.answer(from, answer);
        }
    }

    fn on_voted(&mut self, from: ServerId, term: u64, pre: bool, granted: bool, now: u64) {
        if !granted {
            if term > self.term {
                self.follow(term);
            }
            return;
        }
        let (asking, candidate) = (self.role == Role::Asking, self.role == Role::Candidate);
        let counts = match pre {
            true => asking && term == self.term + 1,
            false => candidate && term == self.term,
        };
        if !counts || !self.config.voters.contains(&from) {
            return;
        }
        self.votes.insert(from);
        if self.votes.len() < self.config.quorum() {
            return;
        }
        match pre {
            true => self.stand(false),
            false => self.lead(now),
        }
    }

    fn lead(&mut self, now: u64) {
        self.role = Role::Leader;
        self.leader = Some(self.id);
        self.peers.clear();
        self.add_peers(now);
        self.out.push(Out::Leads);
        self.append(Payload::Blank, now);
        self.term_start = self.last();
        self.beat = now;
    }

    fn add_peers(&mut self, now: u64) {
        let all: BTreeSet<ServerId> = {
            let config = &self.config;
            config.voters.union(&config.learners).copied().collect()
        };
        self.peers.retain(|id, _| all.contains(id));
        let next = self.last() + 1;
        for id in all.into_iter().filter(|id| *id != self.id) {
            self.peers.entry(id).or_insert(Peer {
                next,
                matched: 0,
                heard: now,
                probe: 0,
                sent_snapshot: 0,
            });
        }
    }

    /// Appends an entry as the leader; its index.
    pub fn append(&mut self, payload: Payload, now: u64) -> u64 {
        let entry = Entry::new(self.term, payload);
        let config = match &*entry.payload {
            Payload::Config(config) => Some(config.clone()),
            _ => None,
        };
        self.entries.push(entry.clone());
        let index = self.last();
        let durable = Some((self.term, index));
        self.write(Op::Append(index, vec![entry]), Vec::new(), durable);
        if let Some(config) = config {
            self.config = config;
            self.config_at = index;
            self.add_peers(now);
        }
        self.replicate(now, false);
        index
    }

    /// Changes the members, if no other change is under way.
    pub fn change(&mut self, config: Config, now: u64) -> bool {
        let free = self.is_settled() && self.commit >= self.config_at;
        if free {
            self.append(Payload::Config(config), now);
        }
        free
    }

    /// Whether a member has all but a few of the entries.
    pub fn has_caught_up(&self, id: ServerId) -> bool {
        let peer = self.peers.get(&id);
        peer.is_some_and(|p| p.matched + 2 >= self.last())
    }

    /// Lets the most advanced other voter stand for election.
    pub fn transfer(&mut self) {
        let last = self.last();
        let ready = |id: &ServerId| self.peers.get(id).is_some_and(|p| p.matched == last);
        let to = self.others().into_iter().find(ready);
        if let Some(to) = to.filter(|_| self.leads()) {
            self.send(to, Msg::Stand { term: self.term });
        }
    }

    fn replicate(&mut self, now: u64, beat: bool) {
        let ids: Vec<ServerId> = self.peers.keys().copied().collect();
        for id in ids {
            self.feed(id, now, beat);
        }
    }

    fn feed(&mut self, id: ServerId, now: u64, beat: bool) {
        let (base, last, term, probe) = (self.base(), self.last(), self.term, self.probe);
        let commit = self.commit;
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.next <= base {
            if now >= peer.sent_snapshot + SEND_AGAIN
                && let Some(snapshot) = self.snapshot.clone()
            {
                peer.sent_snapshot = now;
                let install = Msg::Install {
                    term,
                    snapshot,
                    probe,
                };
                self.send(id, install);
            }
            return;
        }
        if peer.next > last && !beat {
            return;
        }
        let prev = peer.next - 1;
        let from = usize::try_from(prev - base).unwrap_or(usize::MAX);
        let entries: Vec<Entry> = self.entries[from.min(self.entries.len())..]
            .iter()
            .take(AT_ONCE)
            .cloned()
            .collect();
        peer.next += entries.len() as u64;
        let prev = (prev, self.term_at(prev).unwrap_or(0));
        let append = Msg::Append {
            term,
            prev,
            entries,
            commit,
            probe,
        };
        self.send(id, append);
    }

    /// Whether a message of a leader is of one to follow.
    fn heed(&mut self, from: ServerId, term: u64, probe: u64, now: u64, rng: &mut Rng) -> bool {
        if term < self.term {
            let answer = Msg::Appended {
                term: self.term,
                ok: false,
                upto: 0,
                probe,
            };
            self.answer(from, answer);
            return false;
        }
        self.follow(term);
        self.leader = Some(from);
        self.heard = now;
        self.rest(now, rng);
        true
    }

    fn on_append(
        &mut self,
        from: ServerId,
        (mut prev, prev_term): (u64, u64),
        mut entries: Vec<Entry>,
        commit: u64,
        probe: u64,
    ) {
        let base = self.base();
        let end = prev + entries.len() as u64;
        if prev < base {
            let skip = usize::try_from(base - prev).unwrap_or(usize::MAX);
            entries.drain(..skip.min(entries.len()));
            prev = base;
        } else if self.term_at(prev) != Some(prev_term) {
            let careless = self.bug == Some(Bug::LogNotMatched) && prev <= self.last();
            if !careless {
                let upto = self.last().min(prev.saturating_sub(1));
                let term = self.term;
                let no = Msg::Appended {
                    term,
                    ok: false,
                    upto,
                    probe,
                };
                return self.answer(from, no);
            }
        }
        let upto = end.max(base);
        let mut at = prev;
        let mut fresh: &[Entry] = &entries;
        while let [first, rest @ ..] = fresh
            && self.term_at(at + 1) == Some(first.term)
        {
            at += 1;
            fresh = rest;
        }
        let yes = Msg::Appended {
            term: self.term,
            ok: true,
            upto,
            probe,
        };
        if fresh.is_empty() {
            self.answer(from, yes);
        } else {
            self.replace(at + 1, fresh, (from, yes));
        }
        self.commit = self.commit.max(commit.min(upto));
    }

    /// Puts entries from an index on, in the place of what is there.
    fn replace(&mut self, from: u64, fresh: &[Entry], answer: (ServerId, Msg)) {
        if from <= self.commit {
            let commit = self.commit;
            let what = format!("entry {from} is replaced, and {commit} entries are committed");
            self.out.push(Out::Broken(what));
        }
        let keep = usize::try_from(from - self.base() - 1).unwrap_or(usize::MAX);
        self.entries.truncate(keep);
        self.durable = self.durable.min(from - 1);
        self.entries.extend(fresh.iter().cloned());
        let last = self.last();
        let durable = self.term_at(last).map(|term| (term, last));
        self.write(Op::Append(from, fresh.to_vec()), vec![answer], durable);
        self.find_config();
    }

    fn on_install(&mut self, from: ServerId, snapshot: Arc<Snapshot>, probe: u64) {
        let yes = Msg::Appended {
            term: self.term,
            ok: true,
            upto: snapshot.index.max(self.commit),
            probe,
        };
        if snapshot.index <= self.commit {
            return self.answer(from, yes);
        }
        match self.term_at(snapshot.index) == Some(snapshot.term) {
            true => {
                let upto = usize::try_from(snapshot.index - self.base()).unwrap_or(0);
                self.entries.drain(..upto.min(self.entries.len()));
            }
            false => self.entries.clear(),
        }
        self.snapshot = Some(Arc::clone(&snapshot));
        self.commit = snapshot.index;
        self.find_config();
        self.out.push(Out::Installed(Arc::clone(&snapshot)));
        let durable = Some((snapshot.term, snapshot.index));
        self.write(Op::Snapshot(snapshot), vec![(from, yes)], durable);
    }

    /// Drops from the log what a snapshot of this server holds.
    pub fn compact(&mut self, snapshot: Snapshot) {
        let upto = usize::try_from(snapshot.index - self.base()).unwrap_or(0);
        self.entries.drain(..upto.min(self.entries.len()));
        let snapshot = Arc::new(snapshot);
        self.snapshot = Some(Arc::clone(&snapshot));
        self.write(Op::Snapshot(snapshot), Vec::new(), None);
    }

    /// Entries up to here are durable.
    pub fn on_durable(&mut self, (term, index): (u64, u64), now: u64) {
        if self.term_at(index) == Some(term) {
            self.durable = self.durable.max(index);
        }
        if self.leads() {
            self.advance();
            self.replicate(now, false);
        }
    }

    fn on_appended(
        &mut self,
        from: ServerId,
        (term, ok, upto, probe): (u64, bool, u64, u64),
        now: u64,
    ) {
        if term > self.term {
            return self.follow(term);
        }
        if !self.leads() || term < self.term {
            return;
        }
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        peer.heard = now;
        peer.probe = peer.probe.max(probe);
        if ok {
            peer.matched = peer.matched.max(upto);
            peer.next = peer.next.max(peer.matched + 1);
            self.advance();
        } else {
            peer.next = (upto + 1).max(peer.matched + 1);
        }
        self.feed(from, now, false);
    }

    /// The highest number that a majority of the voters has reached.
    fn majority(&self, own: u64, of: impl Fn(&Peer) -> u64) -> u64 {
        let reached = |id: &ServerId| match *id == self.id {
            true => own,
            false => self.peers.get(id).map_or(0, &of),
        };
        let mut all: Vec<u64> = self.config.voters.iter().map(reached).collect();
        all.sort_unstable();
        let at = all.len().saturating_sub(self.config.quorum());
        all.get(at).copied().unwrap_or(0)
    }

    fn advance(&mut self) {
        let upto = self.majority(self.durable, |p| p.matched);
        if upto > self.commit && self.term_at(upto) == Some(self.term) {
            self.commit = upto;
        }
        if self.commit >= self.config_at && !self.is_voter() {
            self.leader = None;
            self.follow(self.term);
        }
    }

    /// Asks all others whether this server leads; what [`Raft::heard_of`] says later must reach the number.
    pub fn probe(&mut self, now: u64) -> u64 {
        self.probe += 1;
        self.beat = now;
        self.replicate(now, true);
        self.probe
    }

    /// The latest heartbeat that a majority has answered.
    pub fn heard_of(&self) -> u64 {
        self.majority(self.probe, |p| p.probe)
    }
}
