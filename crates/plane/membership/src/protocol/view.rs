//! Who is there, as the detector and the profiles together say; what this node says of itself; who is forgotten.

use std::time::Duration;

use foca::State;
use prism_types::NodeId;

use crate::protocol::engine::{Engine, Event};
use crate::protocol::member::{Member, MemberState};
use crate::protocol::peer::Peer;
use crate::protocol::profile::{Profile, Tags};
use crate::protocol::refusal::Refusal;
use crate::protocol::swim;
use crate::protocol::wire::Say;

/// Another node, as last looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) peer: Peer,
    pub(crate) state: MemberState,
    pub(crate) since: Duration,
}

impl Seen {
    /// Alive, or not known to be otherwise.
    pub(crate) fn is_active(&self) -> bool {
        matches!(self.state, MemberState::Alive | MemberState::Suspect)
    }
}

impl Engine {
    /// All that are known, this node first.
    pub fn members(&self) -> Vec<Member> {
        let state = if self.leaving {
            MemberState::Left
        } else {
            MemberState::Alive
        };
        let me = Seen {
            peer: self.me(),
            state,
            since: self.since,
        };
        let mut list = vec![member(&me, Some(&self.mine), true)];
        list.extend(self.seen.iter().map(|(id, s)| Member {
            round_trip: self.round_trips.get(id).copied(),
            ..member(s, self.profiles.get(id), false)
        }));
        list
    }

    /// Others that are not known to be down or gone.
    pub(crate) fn active(&self) -> Vec<Peer> {
        let active = self.seen.values().filter(|s| s.is_active());
        active.map(|s| s.peer).collect()
    }

    /// A packet of the detector.
    pub(crate) fn swim_in(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        if self.leaving {
            return Err(Refusal::Leaving);
        }
        let mut packet = swim::read(bytes)?;
        let me = self.me();
        let header = &packet.header;
        if header.src.id == me.id {
            return Err(Refusal::Ourselves);
        }
        // Only one who knew an earlier start of this node may ask by that name who is here.
        let announce = header.message == foca::Message::Announce;
        if header.dst.id == me.id && header.dst.incarnation > me.incarnation {
            // This node was known by a higher one before it started: its clock was set back.
            self.known_as(header.dst);
            return Err(Refusal::NotForUs);
        }
        if header.dst.id != me.id || (header.dst != me && !announce) {
            return Err(Refusal::NotForUs);
        }
        if matches!(header.message, foca::Message::Ack(_)) {
            self.probe_answered(header.src.id);
        }
        let about_me = packet.updates.iter().map(|u| *u.id());
        let about_me = about_me.filter(|p| p.id == me.id && *p > me);
        let highest = about_me.max_by_key(|p| p.incarnation);
        let refit = self.make_room(&mut packet)?;
        let handed = match &refit {
            Some(bytes) => self.detector.handle_data(bytes, &mut self.effects),
            None => self.detector.handle_data(bytes, &mut self.effects),
        };
        self.settle(true);
        if let Some(other) = highest {
            self.known_as(other);
        }
        match handed {
            Err(foca::Error::IndirectForOurselves | foca::Error::MalformedPacket) => {
                Err(Refusal::Malformed)
            }
            Err(foca::Error::DataFromOurselves) => Err(Refusal::Ourselves),
            // The rest is about this side: a round that is not whole is put right by the next.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// A probe was answered: how long that took says how far the node is. Of a late answer nothing is known.
    fn probe_answered(&mut self, id: NodeId) {
        let Some(at) = self.probed.remove(&id) else {
            return;
        };
        let took = self.now.saturating_sub(at);
        if took > self.timing.probe_period || !self.seen.contains_key(&id) {
            return;
        }
        let smoothed = match self.round_trips.get(&id) {
            Some(before) => (*before * 7 + took) / 8,
            None => took,
        };
        self.round_trips.insert(id, smoothed);
    }

    /// Takes updates about strangers out of a packet if there is no room for all: what is left of it then, if not all.
    fn make_room(&mut self, packet: &mut swim::Packet) -> Result<Option<Vec<u8>>, Refusal> {
        let me = self.me().id;
        let seen = &self.seen;
        let stranger = |id: &NodeId| *id != me && !seen.contains_key(id);
        let mut strangers: Vec<NodeId> = packet
            .updates
            .iter()
            .map(|u| u.id().id)
            .chain([packet.header.src.id])
            .filter(stranger)
            .collect();
        strangers.sort_unstable();
        strangers.dedup();
        let room = self.max_members.saturating_sub(self.seen.len());
        if strangers.len() <= room {
            return Ok(None);
        }
        // Those that are gone make room; the longest gone first.
        for _ in room..strangers.len() {
            let gone = self.seen.values().filter(|s| !s.is_active());
            let Some(oldest) = gone.min_by_key(|s| s.since).map(|s| s.peer) else {
                break;
            };
            self.forget(oldest);
        }
        let mut room = self.max_members.saturating_sub(self.seen.len());
        let src = packet.header.src.id;
        if !self.seen.contains_key(&src) {
            room = room.checked_sub(1).ok_or(Refusal::Full)?;
        }
        let (seen, mut left) = (&self.seen, strangers);
        left.retain(|id| *id != src);
        left.truncate(room);
        packet.updates.retain(|u| {
            let id = u.id().id;
            id == me || id == src || seen.contains_key(&id) || left.contains(&id)
        });
        swim::write(packet).map(Some)
    }

    /// Compares what is known with what the detector says.
    pub(crate) fn look(&mut self) {
        let (now, me) = (self.now, self.me().id);
        for known in self.detector.iter_membership_state() {
            let peer = *known.id();
            if peer.id == me {
                continue;
            }
            let left = |p: &Profile| p.left && p.incarnation == peer.incarnation;
            let state = match known.state() {
                State::Alive => MemberState::Alive,
                State::Suspect => MemberState::Suspect,
                State::Down if self.profiles.get(&peer.id).is_some_and(left) => MemberState::Left,
                State::Down => MemberState::Down,
            };
            let fresh = Seen {
                peer,
                state,
                since: now,
            };
            let seen = self.seen.entry(peer.id).or_insert_with(|| {
                self.members_changed = true;
                fresh
            });
            if (seen.peer, seen.state) != (peer, state) {
                self.members_changed = true;
                let since = if seen.state == state { seen.since } else { now };
                *seen = Seen { since, ..fresh };
            }
        }
    }

    /// Forgets those that are long down or gone.
    pub(crate) fn sweep(&mut self) {
        let before = self.now.saturating_sub(self.timing.forget_after);
        let old: Vec<Peer> = self
            .seen
            .values()
            .filter(|s| !s.is_active() && s.since < before)
            .map(|s| s.peer)
            .collect();
        for peer in old {
            self.forget(peer);
        }
    }

    fn forget(&mut self, peer: Peer) {
        let timer = foca::Timer::RemoveDown(peer);
        let _ = self.detector.handle_timer(timer, &mut self.effects);
        self.seen.remove(&peer.id);
        self.profiles.remove(&peer.id);
        self.asked.remove(&peer.id);
        self.probed.remove(&peer.id);
        self.round_trips.remove(&peer.id);
        self.members_changed = true;
    }

    /// Tells a node that it is down here, or known by a higher incarnation.
    pub(crate) fn correct(&mut self, peer: Peer) {
        if let Some(known) = self.seen.get(&peer.id).map(|s| s.peer) {
            self.write_to(peer, Say::Known(known));
        }
    }

    /// Somebody knows this node by another incarnation, or thinks it dead.
    pub(crate) fn known_as(&mut self, known: Peer) {
        if known.address != self.me().address {
            // Once or twice after a start elsewhere it is its own past.
            self.elsewhere = self.elsewhere.saturating_add(1);
            if self.elsewhere > 2 {
                self.events.push(Event::SameId(known.address));
            }
        }
        self.outdo(known.incarnation);
    }

    /// Takes an incarnation beyond one that this node is said to have, or to have had.
    pub(crate) fn outdo(&mut self, incarnation: u64) {
        let me = self.me();
        if incarnation < me.incarnation {
            return;
        }
        let Ok(renewed) = Peer::new(me.id, incarnation.saturating_add(1), me.address) else {
            return;
        };
        self.counts.refuted += 1;
        let _ = self.detector.change_identity(renewed, &mut self.effects);
        self.renewed(renewed.incarnation);
        self.settle(true);
    }

    /// The detector goes by a new incarnation now: so does the profile.
    pub(crate) fn renewed(&mut self, incarnation: u64) {
        self.mine.incarnation = incarnation;
        self.mine.version += 1;
        self.members_changed = true;
        // It takes itself for alone until it is told otherwise.
        let none = std::iter::empty();
        let _ = self.detector.apply_many(none, false, &mut self.effects);
        self.push();
    }

    /// Replaces this node's tags and tells the others.
    pub fn set_tags(&mut self, now: Duration, tags: Tags) {
        self.now = now;
        if self.mine.tags != tags {
            self.mine.tags = tags;
            self.mine.version += 1;
            self.members_changed = true;
            self.push();
        }
    }
}

fn member(seen: &Seen, profile: Option<&Profile>, me: bool) -> Member {
    let who = profile.map(|p| &p.who);
    Member {
        id: seen.peer.id,
        name: who.map(|w| w.name.clone()),
        state: seen.state,
        address: seen.peer.address,
        addresses: who.map(|w| w.addresses.clone()).unwrap_or_default(),
        raft: who.map_or(0, |w| w.raft),
        roles: who.map(|w| w.roles.clone()).unwrap_or_default(),
        tags: profile.map_or_else(Tags::default, |p| p.tags.clone()),
        incarnation: seen.peer.incarnation,
        since: seen.since,
        me,
        round_trip: None,
    }
}
