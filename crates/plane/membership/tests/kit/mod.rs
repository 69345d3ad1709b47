//! A network in memory: engines, one clock, one seed. It loses, delays, reorders and repeats datagrams, cuts links, stops and restarts
//! nodes. The same seed gives the same run, byte for byte.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod stage;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use prism_membership::protocol::{
    Boot, Engine, Event, GossipKey, KeyRing, Member, MemberState, Setup, Tags, Timing, Who,
};
use prism_types::{Id, NodeId};

pub const CLUSTER: Id = Id(0x0123_4567_89ab_cdef);
pub const PERIOD: Duration = Duration::from_secs(1);
/// Datagrams that the kernel holds for a node that is stopped.
const BACKLOG: usize = 200;

/// SplitMix64 (prng.di.unimi.it/splitmix64.c).
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n.max(1)
    }

    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

pub fn key(n: u8) -> GossipKey {
    GossipKey::from_bytes([n; 32])
}

pub fn id(n: usize) -> NodeId {
    NodeId::new(
        1_700_000_000_000 + n as u64,
        0x5f3a_91c2_77e4_0d1b_9a3c + n as u128,
    )
}

pub fn address(n: usize) -> SocketAddr {
    if n.is_multiple_of(2) {
        SocketAddr::from(([10, 0, 0, u8::try_from(n + 1).unwrap()], 7946))
    } else {
        format!("[fd00::{:x}]:7946", n + 1).parse().unwrap()
    }
}

pub fn who(n: usize) -> Who {
    Who {
        id: id(n),
        name: format!("srv-{n}").parse().unwrap(),
        addresses: vec![SocketAddr::from(([10, 9, 0, 1], 7443))],
        raft: n as u64 + 1,
        roles: vec!["server".parse().unwrap()],
    }
}

pub fn tags(pairs: &[(&str, &str)]) -> Tags {
    let pairs = pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Tags::new(pairs.collect()).unwrap()
}

pub fn setup(n: usize, incarnation: u64, boot: u64) -> Setup {
    let mut random = [0; 16];
    random[..8].copy_from_slice(&(n as u64).to_be_bytes());
    random[8..].copy_from_slice(&boot.to_be_bytes());
    Setup {
        cluster: CLUSTER,
        who: who(n),
        incarnation,
        address: address(n),
        tags: tags(&[("rack", "r1")]),
        ring: KeyRing::new(key(1)),
        boot: Boot(random),
        seed: boot.wrapping_mul(31) + n as u64,
        max_members: 1024,
        timing: Timing {
            probe_period: PERIOD,
            probe_rtt: Duration::from_millis(400),
            suspicion: PERIOD * 5,
            forget_after: PERIOD * 3600,
        },
    }
}

pub struct Node {
    pub engine: Option<Engine>,
    pub stopped_until: Option<Duration>,
    backlog: Vec<Vec<u8>>,
    pub events: Vec<Event>,
}

pub struct World {
    pub now: Duration,
    pub nodes: Vec<Node>,
    pub dice: Dice,
    pub loss: u64,
    pub twice: u64,
    /// Slowest delivery in milliseconds.
    pub slow: u64,
    /// Pairs that do not reach each other: from, to.
    pub cut: BTreeSet<(usize, usize)>,
    under_way: BTreeMap<(Duration, u64), (usize, Vec<u8>)>,
    count: u64,
    boots: u64,
    /// Datagrams sent, if they are to be kept.
    pub record: Option<Vec<Vec<u8>>>,
    /// A hash of all that was sent, when and to whom.
    pub trace: u64,
    /// Whom somebody saw in these states while it watched: observer, observed, state.
    pub seen: BTreeSet<(usize, NodeId, MemberState)>,
    places: BTreeMap<SocketAddr, usize>,
}

impl World {
    pub fn new(nodes: usize, seed: u64) -> Self {
        let mut world = Self {
            now: Duration::from_secs(1),
            nodes: Vec::new(),
            dice: Dice(seed),
            loss: 0,
            twice: 0,
            slow: 20,
            cut: BTreeSet::new(),
            under_way: BTreeMap::new(),
            count: 0,
            boots: seed << 20,
            record: None,
            trace: 0,
            seen: BTreeSet::new(),
            places: BTreeMap::new(),
        };
        for n in 0..nodes {
            world.add(n, |_| {});
        }
        world
    }

    /// All nodes know the first one's address.
    pub fn joined(nodes: usize, seed: u64) -> Self {
        let mut world = Self::new(nodes, seed);
        for n in 1..nodes {
            world.join(n, 0);
        }
        world
    }

    pub fn add(&mut self, n: usize, change: impl FnOnce(&mut Setup)) {
        self.boots += 1;
        let mut setup = setup(n, 1000 + self.boots, self.boots);
        change(&mut setup);
        let place = self.nodes.len().min(n);
        self.places.insert(setup.address, place);
        let engine = Engine::new(setup, self.now).unwrap();
        let node = Node {
            engine: Some(engine),
            stopped_until: None,
            backlog: Vec::new(),
            events: Vec::new(),
        };
        if n < self.nodes.len() {
            self.nodes[n] = node;
        } else {
            self.nodes.push(node);
        }
    }

    pub fn engine(&mut self, n: usize) -> &mut Engine {
        self.nodes[n].engine.as_mut().unwrap()
    }

    /// Does something to an engine and carries out what it wants.
    pub fn with<R>(&mut self, n: usize, act: impl FnOnce(&mut Engine, Duration) -> R) -> R {
        let now = self.now;
        let result = act(self.engine(n), now);
        self.collect(n);
        result
    }

    pub fn join(&mut self, n: usize, at: usize) {
        self.with(n, |e, now| e.join(now, &[address(at)]));
    }

    pub fn kill(&mut self, n: usize) {
        self.nodes[n].engine = None;
    }

    /// Two groups do not hear each other.
    pub fn split(&mut self, one: &[usize], other: &[usize]) {
        for a in one {
            for b in other {
                self.cut.extend([(*a, *b), (*b, *a)]);
            }
        }
    }

    fn collect(&mut self, n: usize) {
        let Some(engine) = &mut self.nodes[n].engine else {
            return;
        };
        let out = engine.take_out();
        let events = engine.take_events();
        if events.contains(&Event::Members) {
            for member in engine.members() {
                self.seen.insert((n, member.id, member.state));
            }
        }
        self.nodes[n].events.extend(events);
        for (to, datagram) in out {
            self.send(n, to, &datagram);
        }
    }

    fn send(&mut self, from: usize, to: SocketAddr, datagram: &[u8]) {
        for byte in datagram.iter().chain(to.to_string().as_bytes()) {
            self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.trace ^= u64::try_from(self.now.as_millis()).unwrap();
        if let Some(record) = &mut self.record {
            record.push(datagram.to_vec());
        }
        let Some(to) = self.places.get(&to).copied() else {
            return;
        };
        if self.cut.contains(&(from, to)) {
            return;
        }
        let copies = 1 + u64::from(self.dice.percent(self.twice));
        for _ in 0..copies {
            if self.dice.percent(self.loss) {
                continue;
            }
            let delay = 1 + self.dice.below(self.slow);
            self.count += 1;
            let at = (self.now + Duration::from_millis(delay), self.count);
            self.under_way.insert(at, (to, datagram.to_vec()));
        }
    }

    fn hand_in(&mut self, n: usize, mut datagram: Vec<u8>) {
        let now = self.now;
        if let Some(engine) = &mut self.nodes[n].engine {
            let _ = engine.receive(now, &mut datagram);
        }
        self.collect(n);
    }

    /// When a node wants to be called.
    fn due(&self, n: usize) -> Option<Duration> {
        let node = &self.nodes[n];
        let due = node.engine.as_ref()?.next_due();
        match (node.stopped_until, due) {
            (Some(until), due) => Some(due.map_or(until, |due| due.max(until))),
            (None, due) => due,
        }
    }

    /// One step: the next datagram or timer. No later than a time.
    fn step(&mut self, until: Duration) -> bool {
        let arrival = self.under_way.keys().next().copied();
        let timers = (0..self.nodes.len()).filter_map(|n| self.due(n).map(|at| (at, n)));
        let timer = timers.min();
        let next = match (arrival, timer) {
            (Some((a, _)), Some((t, _))) => a.min(t),
            (Some((a, _)), None) => a,
            (None, Some((t, _))) => t,
            (None, None) => until,
        };
        if next >= until {
            self.now = until;
            return false;
        }
        self.now = self.now.max(next);
        if let Some((at, _)) = arrival
            && at <= self.now
        {
            let (_, (to, datagram)) = self.under_way.pop_first().unwrap();
            if self.nodes[to].stopped_until.is_some_and(|u| u > self.now) {
                if self.nodes[to].backlog.len() < BACKLOG {
                    self.nodes[to].backlog.push(datagram);
                }
            } else {
                self.hand_in(to, datagram);
            }
            return true;
        }
        let (_, n) = timer.unwrap();
        self.nodes[n].stopped_until = None;
        for datagram in std::mem::take(&mut self.nodes[n].backlog) {
            self.hand_in(n, datagram);
        }
        self.with(n, |e, now| e.tick(now));
        true
    }

    pub fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
    }

    /// Runs until something holds; panics when it does not within so many periods. How many it took.
    pub fn until(&mut self, what: &str, periods: u32, holds: impl Fn(&mut Self) -> bool) -> u32 {
        for n in 0..=periods {
            if holds(self) {
                return n;
            }
            self.run(PERIOD);
        }
        panic!("not within {periods} periods: {what}\n{}", self.picture());
    }

    pub fn picture(&mut self) -> String {
        let mut text = String::new();
        for n in 0..self.nodes.len() {
            let Some(engine) = &self.nodes[n].engine else {
                text.push_str(&format!("{n}: dead\n"));
                continue;
            };
            let members = engine.members();
            let alive = members.iter().filter(|m| m.state == MemberState::Alive);
            let named = alive.filter(|m| m.name.is_some()).count();
            let others = members
                .iter()
                .filter(|m| m.state != MemberState::Alive || m.name.is_none());
            let states: Vec<String> = others
                .map(|m| format!("{:?}={} {} {}", m.name, m.state, m.incarnation, m.address))
                .collect();
            let me = engine.me();
            text.push_str(&format!("{n} {}: {named} alive; ", me.incarnation));
            text.push_str(&format!(
                "{} {:?}\n",
                states.join(" "),
                engine.counts().refused
            ));
        }
        text
    }

    pub fn members(&mut self, n: usize) -> Vec<Member> {
        self.engine(n).members()
    }

    pub fn state(&mut self, n: usize, of: usize) -> Option<MemberState> {
        let members = self.members(n);
        members.iter().find(|m| m.id == id(of)).map(|m| m.state)
    }

    pub fn live(&self) -> Vec<usize> {
        let live = |n: &usize| self.nodes[*n].engine.is_some();
        (0..self.nodes.len()).filter(live).collect()
    }

    /// Whether all that live see one node in a state.
    pub fn all_see(&mut self, of: usize, state: MemberState) -> bool {
        let live = self.live();
        let mut others = live.into_iter().filter(|n| *n != of);
        others.all(|n| self.state(n, of) == Some(state))
    }

    /// Whether all that live see all that live as alive, with their profiles.
    pub fn whole(&mut self) -> bool {
        let live = self.live();
        live.iter().all(|n| {
            let members = self.members(*n);
            live.iter().all(|of| {
                members
                    .iter()
                    .any(|m| m.id == id(*of) && m.state == MemberState::Alive && m.name.is_some())
            })
        })
    }

    /// What came of a question to all.
    pub fn answers(&mut self, n: usize, request: u64) -> Vec<prism_membership::NodeAnswer> {
        let of = |e: &Event| matches!(e, Event::Answered { request: r, .. } if *r == request);
        self.until("the question ends", 30, |w| {
            w.nodes[n].events.iter().any(of)
        });
        let found = self.nodes[n].events.iter().find(|e| of(e)).cloned();
        match found {
            Some(Event::Answered { answers, .. }) => answers,
            other => panic!("{other:?}"),
        }
    }
}
