//! Letters: how nodes meet and compare what they know of each other.

use std::net::SocketAddr;
use std::time::Duration;

use prism_types::NodeId;

use crate::protocol::engine::{Engine, MAX_SEEDS};
use crate::protocol::member::MemberState;
use crate::protocol::peer::{Peer, unfit};
use crate::protocol::profile::Profile;
use crate::protocol::refusal::Refusal;
use crate::protocol::seal::MAX_BODY;
use crate::protocol::wire::{Have, Letter, MAX_HAVES, MAX_PROFILES, Say, To, letter_body};

/// Most hellos that are remembered until they are answered.
const MAX_HELLOS: usize = 2 * MAX_SEEDS;
/// Most letters of profiles in answer to one digest.
const MAX_ANSWERS: usize = 8;
/// Members that are told at once of a new profile; the others hear of it by comparing.
const TOLD: usize = 16;

impl Engine {
    /// Looks for members at these addresses, now and until one answers there. At most 64 are kept, the newest.
    pub fn join(&mut self, now: Duration, addresses: &[SocketAddr]) {
        self.now = now;
        for address in addresses {
            let known = self.seeds.iter().any(|(a, _)| a == address);
            if !known && unfit(*address).is_none() {
                if self.seeds.len() == MAX_SEEDS {
                    self.seeds.remove(0);
                }
                self.seeds.push((*address, None));
            }
            self.hello(*address);
        }
    }

    fn hello(&mut self, to: SocketAddr) {
        if self.leaving || to == self.me().address || unfit(to).is_some() {
            return;
        }
        let echo = self.noise.number();
        if self.hellos.len() == MAX_HELLOS {
            self.hellos.pop_front();
        }
        self.hellos.push_back((echo, to));
        self.write(to, None, Say::Hello { echo });
    }

    fn write(&mut self, address: SocketAddr, to: Option<To>, say: Say) {
        let from = self.me();
        let body = letter_body(&Letter { from, to, say });
        self.send(address, &body);
    }

    pub(crate) fn write_to(&mut self, peer: Peer, say: Say) {
        let to = To {
            id: peer.id,
            incarnation: peer.incarnation,
        };
        self.write(peer.address, Some(to), say);
    }

    /// Says hello at addresses where nobody has answered, or who did is not there any more, and to one that is down.
    pub(crate) fn seek(&mut self) {
        let reached = |id: &NodeId| self.seen.get(id).is_some_and(|s| s.is_active());
        let mut at: Vec<SocketAddr> = self
            .seeds
            .iter()
            .filter(|(a, id)| {
                let known = self
                    .seen
                    .values()
                    .any(|s| s.peer.address == *a && s.is_active());
                !known && !id.is_some_and(|id| reached(&id))
            })
            .map(|(a, _)| *a)
            .collect();
        let down = self.seen.values().filter(|s| s.state == MemberState::Down);
        let down: Vec<SocketAddr> = down.map(|s| s.peer.address).collect();
        at.extend(self.noise.pick(&down));
        for address in at {
            self.hello(address);
        }
    }

    /// A letter whose seal is good.
    pub(crate) fn letter_in(&mut self, letter: Letter) -> Result<(), Refusal> {
        let Letter { from, to, say } = letter;
        let me = self.me();
        if from.id == me.id {
            return Err(Refusal::Ourselves);
        }
        let ours = |to: To| to.id == me.id && to.incarnation == me.incarnation;
        if to.is_some_and(|to| !ours(to)) {
            return Err(Refusal::NotForUs);
        }
        if self.leaving && !matches!(say, Say::Answer { .. }) {
            return Err(Refusal::Leaving);
        }
        match say {
            Say::Hello { echo } => return self.welcome(from, echo),
            Say::Welcome { echo, known, over } => return self.met(from, echo, (known, over)),
            Say::Known(known) => {
                self.known_as(known);
                return Ok(());
            }
            _ => {}
        }
        let current = self.seen.get(&from.id).map(|s| s.peer.incarnation);
        if current.is_none_or(|current| from.incarnation < current) {
            return Err(Refusal::Stale);
        }
        match say {
            Say::Digest(haves) => self.compare(from, &haves),
            Say::Profiles(profiles) => profiles.into_iter().for_each(|p| self.hear(p)),
            Say::Ask { request, op } => return self.asked(from, request, op),
            Say::Answer { request, reply } => return self.answered(from, request, reply),
            Say::Known(_) | Say::Hello { .. } | Say::Welcome { .. } => {}
        }
        Ok(())
    }

    fn welcome(&mut self, from: Peer, echo: u64) -> Result<(), Refusal> {
        let known = self.seen.get(&from.id);
        let say = Say::Welcome {
            echo,
            known: known.map_or(0, |s| s.peer.incarnation),
            over: known.is_some_and(|s| !s.is_active()),
        };
        self.write_to(from, say);
        Ok(())
    }

    /// Somebody is there: the detector is told to ask it for the members it knows.
    fn met(&mut self, from: Peer, echo: u64, known: (u64, bool)) -> Result<(), Refusal> {
        let hello = self.hellos.iter().position(|(e, _)| *e == echo);
        let (_, at) = hello
            .and_then(|n| self.hellos.remove(n))
            .ok_or(Refusal::Stale)?;
        for seed in self.seeds.iter_mut().filter(|(a, _)| *a == at) {
            seed.1 = Some(from.id);
        }
        let (highest, over) = known;
        let mine = self.me().incarnation;
        if highest > mine || (highest == mine && over) {
            self.outdo(highest);
        }
        let _ = self.detector.announce(from, &mut self.effects);
        self.settle(false);
        Ok(())
    }

    /// Compares profiles with one member.
    pub(crate) fn sync(&mut self) {
        let active = self.active();
        let Some(with) = self.noise.pick(&active) else {
            return;
        };
        if self.leaving {
            return;
        }
        let lacking = active.iter().filter(|p| !self.profiles.contains_key(&p.id));
        let mut ids: Vec<NodeId> = lacking.map(|p| p.id).take(MAX_HAVES - 1).collect();
        let start = self.noise.number();
        let known: Vec<NodeId> = self.profiles.keys().copied().collect();
        let start = usize::try_from(start % known.len().max(1) as u64).unwrap_or(0);
        let room = MAX_HAVES - 1 - ids.len();
        ids.extend(known.iter().cycle().skip(start).take(room.min(known.len())));
        ids.push(self.me().id);
        let haves = ids.into_iter().map(|id| self.have(id)).collect();
        self.write_to(with, Say::Digest(haves));
    }

    pub(crate) fn profile(&self, id: NodeId) -> Option<&Profile> {
        if id == self.mine.who.id {
            Some(&self.mine)
        } else {
            self.profiles.get(&id)
        }
    }

    fn have(&self, id: NodeId) -> Have {
        Have {
            id,
            age: self.profile(id).map_or((0, 0), Profile::age),
        }
    }

    /// Tells what is newer here, and asks for what is newer there.
    fn compare(&mut self, with: Peer, haves: &[Have]) {
        let (mut tell, mut want) = (Vec::new(), Vec::new());
        let stranger = |h: &Have| h.id != self.mine.who.id && !self.seen.contains_key(&h.id);
        if haves.iter().any(stranger) && self.seen.len() < self.max_members {
            // It knows somebody that this node does not: it is asked for the members it knows.
            let _ = self.detector.announce(with, &mut self.effects);
            self.settle(false);
        }
        for have in haves {
            let mine = self.have(have.id);
            let known = have.id == self.mine.who.id || self.seen.contains_key(&have.id);
            match mine.age.cmp(&have.age) {
                std::cmp::Ordering::Greater => tell.extend(self.profile(have.id).cloned()),
                std::cmp::Ordering::Less if known => want.push(mine),
                _ => {}
            }
        }
        self.tell(with, &tell);
        if !want.is_empty() {
            self.write_to(with, Say::Digest(want));
        }
    }

    /// Sends profiles, as many as fit in each letter.
    fn tell(&mut self, to: Peer, mut profiles: &[Profile]) {
        // What a letter has besides profiles, at its longest.
        let room = MAX_BODY - 128;
        for _ in 0..MAX_ANSWERS {
            let mut size = 0;
            let fits = profiles.iter().take(MAX_PROFILES).take_while(|p| {
                size += postcard::to_stdvec(p).map_or(room, |bytes| bytes.len());
                size <= room
            });
            let count = fits.count();
            let (now, later) = profiles.split_at(count);
            if now.is_empty() {
                return;
            }
            self.write_to(to, Say::Profiles(now.to_vec()));
            profiles = later;
        }
    }

    /// Tells some members, or all if they are few, of this node's profile.
    pub(crate) fn push(&mut self) {
        let mut active = self.active();
        while active.len() > TOLD {
            let out = self.noise.number() % active.len() as u64;
            active.swap_remove(usize::try_from(out).unwrap_or(0));
        }
        let mine = self.mine.clone();
        for peer in active {
            self.tell(peer, std::slice::from_ref(&mine));
        }
    }

    /// A profile that somebody told of.
    pub(crate) fn hear(&mut self, profile: Profile) {
        let id = profile.who.id;
        if id == self.mine.who.id {
            return self.refute(&profile);
        }
        let newer = self
            .profiles
            .get(&id)
            .is_none_or(|p| p.age() < profile.age());
        let Some(seen) = self.seen.get(&id).filter(|_| newer) else {
            return;
        };
        let peer = seen.peer;
        let left = profile.left && profile.incarnation == peer.incarnation;
        self.profiles.insert(id, profile);
        self.members_changed = true;
        if left {
            let update = std::iter::once(foca::Member::down(peer));
            // Not passed on: who hears of the death before the goodbye takes it for one.
            let _ = self.detector.apply_many(update, false, &mut self.effects);
            self.settle(true);
        }
    }

    /// What others tell of this node and it never said is outdone.
    fn refute(&mut self, told: &Profile) {
        if told.age() < self.mine.age() || *told == self.mine {
            return;
        }
        if told.incarnation > self.mine.incarnation {
            self.outdo(told.incarnation);
        } else {
            self.counts.refuted += 1;
            self.mine.version = told.version + 1;
            self.push();
        }
    }
}
