//! Servers that found a cluster together, in memory and from seeds: all orders of asking, answering, keeping and telling, with crashes,
//! partitions, lost disks and survivors of an older cluster. However it goes, there is one cluster at most, and nobody who could hear of
//! one founds another.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use prism_identity::ClusterId;
use prism_members::cohort::{Belongs, Kept, Round, Said, Step, Waits, decide};
use prism_types::{Id, NodeId};

type Decide = fn(&Waits, &Kept, &Round, bool) -> Step;

/// Random numbers that follow from a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// What a server is doing, lost when it crashes.
#[derive(Default)]
struct Busy {
    view: BTreeSet<NodeId>,
    whole: bool,
    boot: u64,
    /// Slots to ask in this round, and the answers.
    asking: VecDeque<usize>,
    asked: BTreeSet<usize>,
    /// Those who have to answer.
    named: BTreeSet<usize>,
    round: Round,
    /// Decided and not done yet.
    step: Option<(Step, Kept)>,
    /// Rounds since anything was kept.
    idle: u32,
}

struct Server {
    id: NodeId,
    kept: Kept,
    /// What it tells of that: what was kept before it was told.
    told: Kept,
    cluster: Option<ClusterId>,
    up: bool,
    busy: Busy,
}

struct World {
    dice: Dice,
    decide: Decide,
    /// Whether what is kept outlives a crash.
    forgets: bool,
    expect: u16,
    /// To whom every server was told to go.
    names: Vec<usize>,
    servers: Vec<Server>,
    /// Who asked whom and is asked back.
    callers: Vec<BTreeSet<usize>>,
    cut: BTreeSet<(usize, usize)>,
    /// Stopped, and to go on later as if nothing had been.
    frozen: BTreeSet<usize>,
    founded: Vec<ClusterId>,
    boots: u64,
    calm: bool,
}

impl World {
    fn new(seed: u64, decide: Decide, forgets: bool) -> Self {
        let mut dice = Dice(seed);
        let expect = 2 + dice.below(3);
        // Often more come than are expected.
        let slots = expect + dice.below(3);
        let names = if dice.one_in(2) {
            vec![0]
        } else {
            (0..slots).collect()
        };
        let survivors = match dice.below(4) {
            0 => 1 + dice.below(slots - 1),
            _ => 0,
        };
        let old = ClusterId(Id(77));
        let mut world = Self {
            decide,
            forgets,
            expect: u16::try_from(expect).unwrap(),
            names,
            servers: Vec::new(),
            callers: vec![BTreeSet::new(); slots],
            cut: BTreeSet::new(),
            frozen: BTreeSet::new(),
            founded: Vec::new(),
            boots: 0,
            calm: false,
            dice,
        };
        for slot in 0..slots {
            let id = NodeId(Id(u128::from(world.dice.next())));
            world.servers.push(Server {
                id,
                kept: Kept::default(),
                told: Kept::default(),
                cluster: (slot < survivors).then_some(old),
                up: !world.dice.one_in(3),
                busy: Busy::default(),
            });
            world.boot(slot);
        }
        if survivors > 0 {
            world.founded.push(old);
        }
        world
    }

    fn boot(&mut self, slot: usize) {
        self.boots += 1;
        self.callers[slot].clear();
        let server = &mut self.servers[slot];
        server.busy = Busy {
            boot: self.boots,
            view: [server.id].into(),
            ..Busy::default()
        };
        server.told = server.kept.clone();
    }

    fn said(&self, slot: usize) -> Option<Said> {
        let server = &self.servers[slot];
        if !server.up
            || self.frozen.contains(&slot)
            || (server.kept.founds && server.cluster.is_none())
        {
            return None;
        }
        Some(match server.cluster {
            Some(cluster) => Said::Belongs(Belongs {
                cluster,
                pin: [0; 32],
                address: slot.to_string(),
            }),
            None => Said::Waits(Box::new(self.waits(slot))),
        })
    }

    fn waits(&self, slot: usize) -> Waits {
        let server = &self.servers[slot];
        Waits {
            id: server.id,
            boot: server.busy.boot,
            name: format!("s{slot}").parse().unwrap(),
            address: slot.to_string(),
            expect: self.expect,
            epoch: server.told.epoch,
            promise: server.told.promise.clone(),
            view: server.busy.view.clone(),
            whole: server.busy.whole,
            told: self
                .names
                .iter()
                .chain(&self.callers[slot])
                .map(ToString::to_string)
                .collect(),
        }
    }

    /// A server does the next thing.
    fn act(&mut self, slot: usize) {
        let server = &mut self.servers[slot];
        if !server.up || server.cluster.is_some() || self.frozen.contains(&slot) {
            return;
        }
        if server.kept.founds {
            let cluster = ClusterId(Id(1000 + u128::from(self.boots)));
            server.cluster = Some(cluster);
            self.boots += 1;
            self.founded.push(cluster);
            return;
        }
        if let Some((step, next)) = server.busy.step.take() {
            return self.carry_out(slot, &step, next);
        }
        if server.busy.asked.is_empty() {
            let mut next: Vec<usize> = self.names.clone();
            next.extend(self.callers[slot].iter());
            next.retain(|s| *s != slot);
            server.busy.named = next.iter().copied().collect();
            next.extend(
                server
                    .kept
                    .peers
                    .iter()
                    .map(|p| p.parse::<usize>().unwrap()),
            );
            server.busy.round = Round::default();
            server.busy.asked = BTreeSet::from([slot]);
            for other in next {
                if server.busy.asked.insert(other) {
                    server.busy.asking.push_back(other);
                }
            }
            return;
        }
        match server.busy.asking.pop_front() {
            Some(other) => self.ask(slot, other),
            None => self.close(slot),
        }
    }

    fn ask(&mut self, slot: usize, other: usize) {
        let there = !self.cut.contains(&(slot, other)) && self.servers[other].up;
        if there {
            self.callers[other].insert(slot);
        }
        let said = self.said(other).filter(|_| there);
        // The answer may be lost though the question came.
        let said = said.filter(|_| !self.cut.contains(&(other, slot)));
        let me = self.servers[slot].id;
        let busy = &mut self.servers[slot].busy;
        match said {
            None => busy
                .round
                .silent
                .push((other.to_string(), "silent".to_owned())),
            Some(Said::Belongs(belongs)) => busy.round.belongs.push(belongs),
            Some(Said::Waits(waits)) => {
                for name in &waits.told {
                    let name = name.parse().unwrap();
                    busy.named.insert(name);
                    if busy.asked.insert(name) {
                        busy.asking.push_back(name);
                    }
                }
                if waits.id != me {
                    busy.round.waits.insert(waits.id, *waits);
                }
            }
        }
    }

    /// Everybody was asked: decides. It is done later.
    fn close(&mut self, slot: usize) {
        let stalled = if self.calm {
            self.servers[slot].busy.idle > 12
        } else {
            self.dice.one_in(5)
        };
        let server = &mut self.servers[slot];
        let mut round = std::mem::take(&mut server.busy.round);
        let named = |at: &str| server.busy.named.contains(&at.parse().unwrap());
        round.silent.retain(|(at, _)| named(at));
        server.busy.asked.clear();
        server.busy.view = round.waits.keys().copied().chain([server.id]).collect();
        server.busy.whole = round.silent.is_empty() && round.strangers.is_empty();
        server.busy.idle += 1;
        let kept = server.kept.clone();
        let step = (self.decide)(&self.waits(slot), &kept, &round, stalled);
        let next = kept.after(self.servers[slot].id, &step, &round);
        self.servers[slot].busy.step = Some((step, next));
    }

    fn carry_out(&mut self, slot: usize, step: &Step, next: Kept) {
        let server = &mut self.servers[slot];
        if next != server.kept {
            server.busy.idle = 0;
            server.kept = next;
            // Now and then it crashes between keeping and telling.
            if self.dice.one_in(20) && !self.calm {
                return self.crash(slot);
            }
            let server = &mut self.servers[slot];
            server.told = server.kept.clone();
        }
        if let Step::Join(belongs) = step {
            let by: usize = belongs.address.parse().unwrap();
            let reached = self.servers[by].up && !self.cut.contains(&(slot, by));
            if reached && self.servers[by].cluster == Some(belongs.cluster) {
                self.servers[slot].cluster = Some(belongs.cluster);
            }
        }
    }

    fn crash(&mut self, slot: usize) {
        let server = &mut self.servers[slot];
        server.up = false;
        if self.forgets && !server.kept.founds {
            server.kept = Kept::default();
        }
    }

    fn step(&mut self) {
        let slots = self.servers.len();
        let slot = self.dice.below(slots);
        match self.dice.below(60) {
            0 if self.servers[slot].up => self.crash(slot),
            1..=3 if !self.servers[slot].up => {
                self.servers[slot].up = true;
                self.boot(slot);
            }
            4 => {
                let pair = (slot, self.dice.below(slots));
                if !self.cut.remove(&pair) {
                    self.cut.insert(pair);
                }
            }
            5 => self.cut.clear(),
            7 => {
                self.frozen.insert(slot);
            }
            8 | 9 => {
                self.frozen.remove(&slot);
            }
            // A disk is lost, of one that has not founded.
            6 if self.dice.one_in(12) => {
                // One that is named by all and names nobody could not be told of a cluster any more.
                let named = slot == 0 && self.names.len() == 1;
                let server = &mut self.servers[slot];
                if server.cluster.is_none() && !server.kept.founds && !named {
                    server.id = NodeId(Id(u128::from(self.dice.next())));
                    server.kept = Kept::default();
                    self.boot(slot);
                }
            }
            _ => self.act(slot),
        }
    }

    /// What must hold at every moment.
    fn check(&self) -> Result<(), String> {
        let clusters: BTreeSet<ClusterId> = self.servers.iter().filter_map(|s| s.cluster).collect();
        if self.founded.len() > 1 || clusters.len() > 1 {
            return Err(format!("more than one cluster: {:?}", self.founded));
        }
        Ok(())
    }

    /// Whether a server waits for a founder that is lost: nobody can know what that one did.
    fn orphaned(&self) -> bool {
        let ids: BTreeSet<NodeId> = self.servers.iter().map(|s| s.id).collect();
        let promises = self.servers.iter().filter_map(|s| s.kept.promise.as_ref());
        let mut founders = promises.filter_map(|p| p.set.first());
        founders.any(|f| !ids.contains(f))
    }

    /// Everything works again: there is one cluster, and all are in it.
    fn settle(&mut self) -> Result<(), String> {
        self.calm = true;
        self.cut.clear();
        self.frozen.clear();
        for slot in 0..self.servers.len() {
            if !self.servers[slot].up {
                self.servers[slot].up = true;
                self.boot(slot);
            }
        }
        for _ in 0..4_000 {
            let slot = self.dice.below(self.servers.len());
            self.act(slot);
            self.check()?;
            if self.servers.iter().all(|s| s.cluster.is_some()) {
                return Ok(());
            }
        }
        let too_many = self.servers.len() > usize::from(self.expect);
        if self.orphaned() || (too_many && self.founded.is_empty()) {
            return Ok(());
        }
        let states: Vec<_> = self
            .servers
            .iter()
            .map(|s| (s.id, &s.kept, s.cluster))
            .collect();
        Err(format!("it does not come to an end: {states:?}"))
    }
}

fn run(seed: u64, decide: Decide, forgets: bool) -> Result<bool, String> {
    let mut world = World::new(seed, decide, forgets);
    let fresh = world.founded.is_empty();
    for _ in 0..400 {
        world.step();
        world.check()?;
    }
    world.settle()?;
    Ok(fresh && !world.founded.is_empty())
}

#[test]
fn ten_thousand_races_found_one_cluster_at_most_and_come_to_an_end() {
    let mut founded = 0;
    for seed in 0..10_000 {
        match run(seed, decide, false) {
            Ok(new) => founded += u32::from(new),
            Err(why) => panic!("seed {seed}: {why}"),
        }
    }
    // A run in which nothing is founded shows nothing.
    assert!(founded > 2_000, "only {founded} founded");
}

/// Whether a planted fault shows, as more than one cluster.
fn found_by(bug: Decide, forgets: bool) -> bool {
    let shows = |why: String| why.contains("more than one");
    (0..10_000).any(|seed| run(seed, bug, forgets).is_err_and(shows))
}

#[test]
fn planted_faults_are_found() {
    let hasty: Decide = |me, kept, round, stalled| match decide(me, kept, round, stalled) {
        Step::Promise(p) if p.set.first() == Some(&me.id) => Step::Found,
        other => other,
    };
    assert!(
        found_by(hasty, false),
        "founds before the others have promised"
    );
    let deaf: Decide = |me, kept, round, stalled| {
        let mut round = round.clone();
        round.belongs.clear();
        round.silent.clear();
        let mut told = me.clone();
        told.whole = true;
        told.expect = u16::try_from(round.waits.len() + 1).unwrap();
        round.waits.values_mut().for_each(|w| {
            w.expect = told.expect;
            w.whole = true;
        });
        decide(&told, kept, &round, stalled)
    };
    assert!(found_by(deaf, false), "does not care who is silent");
    let fickle: Decide = |me, kept, round, stalled| match decide(me, kept, round, stalled) {
        Step::Wait(_) if kept.promise.is_some() && stalled => Step::Release,
        other => other,
    };
    assert!(
        found_by(fickle, false),
        "gives another's promise up by itself"
    );
    assert!(found_by(decide, true), "forgets its promise in a crash");
}

#[test]
fn strangers_copies_and_other_numbers_hold_everything_up() {
    let server = |n: u64| {
        let name = format!("s{n}").parse().unwrap();
        let mut waits = Waits::new(NodeId::new(1, u128::from(n)), name, format!("h{n}:1"));
        waits.expect = 2;
        waits.whole = true;
        waits.view = [NodeId::new(1, 1), NodeId::new(1, 2)].into();
        waits
    };
    let (me, other) = (server(1), server(2));
    let good = Round {
        waits: BTreeMap::from([(other.id, other.clone())]),
        ..Round::default()
    };
    let kept = Kept::default();
    assert!(matches!(decide(&me, &kept, &good, false), Step::Promise(_)));
    let cluster = |n| ClusterId(Id(n));
    let belongs = |n| Belongs {
        cluster: cluster(n),
        pin: [0; 32],
        address: "h:1".to_owned(),
    };
    let with = |change: fn(&mut Round)| {
        let mut round = good.clone();
        change(&mut round);
        decide(&me, &kept, &round, true)
    };
    assert!(matches!(
        with(|r| r.twice = Some(NodeId::new(1, 2))),
        Step::Wait(_)
    ));
    assert!(matches!(
        with(|r| r.silent.push(("h".into(), "x".into()))),
        Step::Wait(_)
    ));
    assert!(matches!(
        with(|r| r.strangers.push(("h".into(), ClusterId(Id(3))))),
        Step::Stop(_)
    ));
    for change in [
        (|w: &mut Waits| w.expect = 3) as fn(&mut Waits),
        |w| w.whole = false,
        |w| w.name = "s1".parse().unwrap(),
        |w| {
            w.view.insert(NodeId::new(1, 3));
        },
    ] {
        let mut round = good.clone();
        change(round.waits.values_mut().next().unwrap());
        assert!(matches!(decide(&me, &kept, &round, true), Step::Wait(_)));
    }
    let mut two = good.clone();
    two.belongs = vec![belongs(3), belongs(3)];
    assert_eq!(decide(&me, &kept, &two, false), Step::Join(belongs(3)));
    two.belongs.push(belongs(4));
    assert!(matches!(decide(&me, &kept, &two, false), Step::Stop(_)));
}
