//! The engine: one node's gossip as a function of datagrams and time. It decides nothing for others: what it knows is a hint.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::{AccumulatingRuntime, Foca, NoCustomBroadcast, PostcardCodec};
use prism_types::{Id, NodeId};
use rand::rngs::SmallRng;

use crate::protocol::ask::{NodeAnswer, Pending};
use crate::protocol::noise::Noise;
use crate::protocol::peer::{Peer, PeerError};
use crate::protocol::profile::{Profile, Tags, Who};
use crate::protocol::refusal::{Counts, Refusal};
use crate::protocol::ring::KeyRing;
use crate::protocol::seal::{Boot, Sealer, open};
use crate::protocol::swim::{self, MAX_PACKET};
use crate::protocol::timers::{Job, Timers};
use crate::protocol::view::Seen;
use crate::protocol::window::Windows;
use crate::protocol::wire::{Body, SWIM, read};

/// Most addresses that are looked for until a member answers there.
pub(crate) const MAX_SEEDS: usize = 64;
/// How often one transmits an update: members × retransmissions of SWIM, for up to some hundred members.
const TRANSMISSIONS: NonZeroU8 = NonZeroU8::new(12).expect("not zero");
const THREE: NonZeroUsize = NonZeroUsize::new(3).expect("not zero");
const ONE: NonZeroUsize = NonZeroUsize::new(1).expect("not zero");

/// The failure detector's times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Each period one member is probed. Default 1 s.
    pub probe_period: Duration,
    /// After this long without an answer others are asked to probe it. At most half a period. Default 400 ms.
    pub probe_rtt: Duration,
    /// How long a suspect may take to say that it lives. Default 5 s.
    pub suspicion: Duration,
    /// How long those that are down or have left are remembered. Default 72 h.
    pub forget_after: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            probe_period: Duration::from_secs(1),
            probe_rtt: Duration::from_millis(400),
            suspicion: Duration::from_secs(5),
            forget_after: Duration::from_secs(72 * 3600),
        }
    }
}

impl Timing {
    /// Whether the failure detector can work with them.
    pub fn is_sound(&self) -> bool {
        !self.probe_rtt.is_zero()
            && self.probe_rtt * 2 <= self.probe_period
            && self.suspicion >= self.probe_period
            && self.forget_after >= self.suspicion
    }

    fn detector(&self) -> foca::Config {
        foca::Config {
            probe_period: self.probe_period,
            probe_rtt: self.probe_rtt,
            num_indirect_probes: THREE,
            max_transmissions: TRANSMISSIONS,
            suspect_to_down_after: self.suspicion,
            // The sweep forgets them.
            remove_down_after: None,
            max_packet_size: NonZeroUsize::new(MAX_PACKET).expect("not zero"),
            notify_down_members: true,
            periodic_announce: Some(foca::PeriodicParams {
                frequency: self.probe_period * 5,
                num_members: ONE,
            }),
            // Our own search reaches them when nobody is left, too.
            periodic_announce_to_down_members: None,
            periodic_gossip: Some(foca::PeriodicParams {
                frequency: self.probe_period / 5,
                num_members: THREE,
            }),
        }
    }
}

/// What an engine begins with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The cluster.
    pub cluster: Id,
    /// Who this node is.
    pub who: Who,
    /// Higher than at any earlier start: Unix milliseconds will do. If it is not, the node finds out from others and goes beyond.
    pub incarnation: u64,
    /// Where others reach its gossip.
    pub address: SocketAddr,
    /// Its tags.
    pub tags: Tags,
    /// Its keys.
    pub ring: KeyRing,
    /// 16 random bytes, new at each start: no two starts may share them.
    pub boot: Boot,
    /// For choices that are no secrets.
    pub seed: u64,
    /// Most members that are remembered, this one not counted.
    pub max_members: usize,
    /// Times.
    pub timing: Timing,
}

/// What the shell should know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// [`Engine::members`] differs.
    Members,
    /// [`Engine::ring`] differs: it should be kept.
    Keys,
    /// A question to all has been answered, as far as it will be.
    Answered {
        /// Which.
        request: u64,
        /// This node's part first.
        answers: Vec<NodeAnswer>,
    },
    /// Another process, at this address, says that it is this node.
    SameId(SocketAddr),
}

pub(crate) type Detector = Foca<Peer, PostcardCodec, SmallRng, NoCustomBroadcast>;

/// One node's gossip.
pub struct Engine {
    pub(crate) cluster: Id,
    pub(crate) timing: Timing,
    pub(crate) max_members: usize,
    pub(crate) ring: KeyRing,
    pub(crate) sealer: Sealer,
    pub(crate) windows: Windows,
    pub(crate) counts: Counts,
    pub(crate) detector: Detector,
    pub(crate) effects: AccumulatingRuntime<Peer>,
    pub(crate) timers: Timers,
    pub(crate) noise: Noise,
    pub(crate) now: Duration,
    /// This node as it tells of itself.
    pub(crate) mine: Profile,
    pub(crate) since: Duration,
    pub(crate) leaving: bool,
    pub(crate) gone: bool,
    /// All others, as last looked at.
    pub(crate) seen: BTreeMap<NodeId, Seen>,
    pub(crate) profiles: BTreeMap<NodeId, Profile>,
    /// Addresses to look at, and who answered there.
    pub(crate) seeds: Vec<(SocketAddr, Option<NodeId>)>,
    /// Hellos that may still be answered: echo, address.
    pub(crate) hellos: VecDeque<(u64, SocketAddr)>,
    pub(crate) asks: BTreeMap<u64, Pending>,
    pub(crate) next_ask: u64,
    /// The newest question of each member: an older one comes too late.
    pub(crate) asked: BTreeMap<NodeId, (u64, u64)>,
    /// How often this node was said to be elsewhere.
    pub(crate) elsewhere: u32,
    pub(crate) out: Vec<(SocketAddr, Vec<u8>)>,
    pub(crate) events: Vec<Event>,
    pub(crate) members_changed: bool,
    /// When each was last probed and has not answered yet.
    pub(crate) probed: BTreeMap<NodeId, Duration>,
    /// How long each took to answer a probe, smoothed.
    pub(crate) round_trips: BTreeMap<NodeId, Duration>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("id", &self.mine.who.id)
            .field("members", &self.seen.len())
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// A node alone. `now` is any clock that never goes back.
    ///
    /// # Errors
    /// When others could not send to its address, or the incarnation is out of range.
    pub fn new(setup: Setup, now: Duration) -> Result<Self, PeerError> {
        let me = Peer::new(setup.who.id, setup.incarnation, setup.address)?;
        let mut noise = Noise::new(setup.seed);
        let random = noise.split();
        let detector = Foca::new(me, setup.timing.detector(), random, PostcardCodec);
        let mut engine = Self {
            cluster: setup.cluster,
            timing: setup.timing,
            max_members: setup.max_members,
            sealer: Sealer::new(setup.cluster, setup.boot, &setup.ring),
            ring: setup.ring,
            windows: Windows::new(setup.max_members.saturating_mul(2).max(16)),
            counts: Counts::default(),
            detector,
            effects: AccumulatingRuntime::new(),
            timers: Timers::new(setup.timing.probe_period / 4),
            noise,
            now,
            mine: Profile {
                who: setup.who,
                incarnation: setup.incarnation,
                version: 1,
                left: false,
                tags: setup.tags,
            },
            since: now,
            leaving: false,
            gone: false,
            seen: BTreeMap::new(),
            profiles: BTreeMap::new(),
            seeds: Vec::new(),
            hellos: VecDeque::new(),
            asks: BTreeMap::new(),
            next_ask: 1,
            asked: BTreeMap::new(),
            elsewhere: 0,
            out: Vec::new(),
            events: vec![Event::Members],
            members_changed: false,
            probed: BTreeMap::new(),
            round_trips: BTreeMap::new(),
        };
        for job in [Job::Sync, Job::Seek, Job::Sweep] {
            engine.again(job);
        }
        Ok(engine)
    }

    /// This node as the detector knows it now.
    pub fn me(&self) -> Peer {
        *self.detector.identity()
    }

    /// Its keys.
    pub fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// Replaces this node's ring by one that was agreed upon elsewhere.
    pub fn set_ring(&mut self, ring: KeyRing) {
        if self.ring != ring {
            self.ring = ring;
            self.events.push(Event::Keys);
        }
    }

    /// What went in and was refused; what went out is counted by who sends it.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Datagrams to be sent.
    pub fn take_out(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        std::mem::take(&mut self.out)
    }

    /// What happened since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        if std::mem::take(&mut self.members_changed) {
            self.events.push(Event::Members);
        }
        std::mem::take(&mut self.events)
    }

    /// How many things are kept, of all kinds that a peer could make grow: for the tests of bounds.
    pub fn kept(&self) -> usize {
        self.timers.len()
            + self.windows.len()
            + self.seen.len()
            + self.profiles.len()
            + self.asked.len()
            + self.asks.len()
            + self.hellos.len()
            + self.seeds.len()
            + self.detector.updates_backlog()
            + self.detector.iter_membership_state().len()
    }

    /// A datagram came in. It is opened in place.
    ///
    /// # Errors
    /// Why it was refused; it is counted, and changed nothing.
    pub fn receive(&mut self, now: Duration, datagram: &mut [u8]) -> Result<(), Refusal> {
        self.now = now;
        self.counts.received += 1;
        self.counts.received_bytes += datagram.len() as u64;
        let taken = self.take_in(datagram);
        if let Err(why) = taken {
            self.counts.refused[why.index()] += 1;
        }
        taken
    }

    fn take_in(&mut self, datagram: &mut [u8]) -> Result<(), Refusal> {
        let (boot, counter, body) = open(self.cluster, &self.ring, datagram)?;
        if boot == self.sealer.boot() {
            return Err(Refusal::Ourselves);
        }
        self.windows.accept(boot, counter)?;
        match read(body)? {
            Body::Swim(packet) => self.swim_in(packet),
            Body::Letter(letter) => self.letter_in(*letter),
        }
    }

    /// When [`Self::tick`] should be called next.
    pub fn next_due(&self) -> Option<Duration> {
        if self.gone {
            return None;
        }
        let asks = self.asks.values().map(|a| a.again.min(a.deadline)).min();
        match (self.timers.next(), asks) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Does what is due. Datagrams that have arrived should be handed in first: they may hold the answers that are waited for.
    pub fn tick(&mut self, now: Duration) {
        self.now = now;
        if self.gone {
            return;
        }
        if self.timers.notice(now) {
            self.counts.held_up += 1;
        }
        while let Some(job) = self.timers.take(now) {
            match job {
                Job::Swim(_) if self.leaving => continue,
                Job::Swim(timer) if self.is_refuted(&timer) => continue,
                Job::Swim(timer) => {
                    // What it may complain of (a round that was not whole) it puts right itself.
                    let _ = self.detector.handle_timer(timer, &mut self.effects);
                    self.settle(true);
                    continue;
                }
                Job::Sync => self.sync(),
                Job::Seek => self.seek(),
                Job::Sweep => self.sweep(),
            }
            self.again(job);
        }
        self.ask_again();
    }

    /// Whether a suspicion whose time is over was answered. The library (2.0.0) would tell the suspect that it is dead all the same, and
    /// each suspicion would cost its subject an incarnation.
    fn is_refuted(&self, timer: &foca::Timer<Peer>) -> bool {
        let foca::Timer::ChangeSuspectToDown {
            member_id,
            incarnation,
            ..
        } = timer
        else {
            return false;
        };
        !self.detector.iter_members().any(|m| {
            m.id() == member_id
                && m.incarnation() == *incarnation
                && m.state() == foca::State::Suspect
        })
    }

    fn again(&mut self, job: Job) {
        let period = self.timing.probe_period;
        let after = match job {
            Job::Seek => period * 3,
            Job::Sweep => period * 10,
            _ => period,
        };
        self.timers.add(self.now, after, job);
    }

    /// Carries out what the detector wants: datagrams, timers, a new incarnation.
    pub(crate) fn settle(&mut self, look: bool) {
        let mut renewed = None;
        while let Some(note) = self.effects.to_notify() {
            if let foca::OwnedNotification::Rejoin(me) = note {
                renewed = Some(me.incarnation);
            }
        }
        if let Some(incarnation) = renewed {
            self.counts.refuted += 1;
            self.renewed(incarnation);
        }
        while let Some((after, timer)) = self.effects.to_schedule() {
            self.timers.add(self.now, after, Job::Swim(timer));
        }
        while let Some((to, packet)) = self.effects.to_send() {
            if swim::is_obituary(&packet) {
                self.correct(to);
                continue;
            }
            if swim::is_probe(&packet) {
                self.probed.insert(to.id, self.now);
            }
            let mut body = Vec::with_capacity(packet.len() + 1);
            body.push(SWIM);
            body.extend_from_slice(&packet);
            self.send(to.address, &body);
        }
        if look {
            self.look();
        }
    }

    pub(crate) fn send(&mut self, to: SocketAddr, body: &[u8]) {
        let datagram = self.sealer.seal(&self.ring, body);
        self.out.push((to, datagram));
    }
}
