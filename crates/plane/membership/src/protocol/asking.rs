//! Questions to all: this node's own, and those of others.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::protocol::ask::{self, NodeAnswer, Op, Outcome, Pending};
use crate::protocol::engine::{Engine, Event};
use crate::protocol::member::MemberState;
use crate::protocol::peer::Peer;
use crate::protocol::refusal::Refusal;
use crate::protocol::ring::RingError;
use crate::protocol::wire::{Reply, Say};

impl Engine {
    /// Asks all that are not known to be down. `None` when too many questions are under way.
    ///
    /// # Errors
    /// When this node cannot do it itself: nobody was asked.
    pub fn ask(
        &mut self,
        now: Duration,
        op: Op,
        within: Duration,
    ) -> Result<Option<u64>, RingError> {
        self.now = now;
        if self.asks.len() >= ask::MOST {
            return Ok(None);
        }
        let mine = self.carry_out(&op)?;
        let request = self.next_ask;
        self.next_ask += 1;
        let mut answers = BTreeMap::from([(self.me().id, Outcome::from(mine))]);
        let down = self
            .seen
            .iter()
            .filter(|(_, s)| s.state == MemberState::Down);
        answers.extend(down.map(|(id, _)| (*id, Outcome::Away)));
        let pending = Pending {
            op,
            waiting: self.active().iter().map(|p| p.id).collect(),
            answers,
            again: now,
            deadline: now + within,
        };
        self.asks.insert(request, pending);
        self.ask_again();
        Ok(Some(request))
    }

    /// Leaves: everybody is told, and told again until they say that they heard it, or the time is over. Nothing is taken in after that.
    /// The answers come as [`Event::Answered`]. `None` when it is leaving already.
    pub fn leave(&mut self, now: Duration, within: Duration) -> Option<u64> {
        if self.leaving {
            return None;
        }
        self.mine.left = true;
        self.mine.version += 1;
        self.asks.clear();
        let op = Op::Left(Box::new(self.mine.clone()));
        let request = self.ask(now, op, within).ok().flatten();
        self.leaving = true;
        self.members_changed = true;
        request
    }

    /// Repeats questions, and ends those that are answered or out of time.
    pub(crate) fn ask_again(&mut self) {
        let now = self.now;
        let over: Vec<u64> = self
            .asks
            .iter()
            .filter(|(_, a)| a.waiting.is_empty() || a.deadline <= now)
            .map(|(request, _)| *request)
            .collect();
        for request in over {
            self.end_ask(request);
        }
        let mut letters = Vec::new();
        for (request, ask) in self.asks.iter_mut().filter(|(_, a)| a.again <= now) {
            ask.again = now + self.timing.probe_rtt;
            let peers = ask.waiting.iter().filter_map(|id| self.seen.get(id));
            let (request, op) = (*request, &ask.op);
            letters.extend(peers.map(|s| (s.peer, request, op.clone())));
        }
        for (peer, request, op) in letters {
            self.write_to(peer, Say::Ask { request, op });
        }
    }

    fn end_ask(&mut self, request: u64) {
        let Some(mut ask) = self.asks.remove(&request) else {
            return;
        };
        let silent = ask.waiting.into_iter().map(|id| (id, Outcome::NoAnswer));
        ask.answers.extend(silent);
        let me = self.me().id;
        let mut answers: Vec<NodeAnswer> = ask
            .answers
            .into_iter()
            .map(|(id, outcome)| NodeAnswer {
                id,
                name: self.profile(id).map(|p| p.who.name.clone()),
                outcome,
            })
            .collect();
        answers.sort_by_key(|a| a.id != me);
        if matches!(ask.op, Op::Left(_)) {
            // Those who have not heard it get it as gossip, once.
            let _ = self.detector.leave_cluster(&mut self.effects);
            self.settle(false);
            self.gone = true;
        }
        self.events.push(Event::Answered { request, answers });
    }

    /// A question of another node.
    pub(crate) fn asked(&mut self, from: Peer, request: u64, op: Op) -> Result<(), Refusal> {
        let this = (from.incarnation, request);
        if self
            .asked
            .get(&from.id)
            .is_some_and(|newest| this < *newest)
        {
            return Err(Refusal::Stale);
        }
        self.asked.insert(from.id, this);
        let reply = match op {
            Op::Left(profile) => {
                self.hear(*profile);
                Reply::Done
            }
            op => self.carry_out(&op).unwrap_or_else(|why| match why {
                RingError::Unknown(_) => Reply::Unknown,
                RingError::Primary(_) => Reply::Primary,
                RingError::Full => Reply::Full,
                RingError::Clash(_) => Reply::Clash,
            }),
        };
        self.write_to(from, Say::Answer { request, reply });
        Ok(())
    }

    /// Does to this node's ring what is asked of all.
    fn carry_out(&mut self, op: &Op) -> Result<Reply, RingError> {
        let changed = match op {
            Op::Report => return Ok(Reply::Keys(self.ring.ids())),
            Op::Left(_) => return Ok(Reply::Done),
            Op::Install(key) => self.ring.install(key.clone())?,
            Op::Use(id) => self.ring.use_key(*id)?,
            Op::Remove(id) => self.ring.remove(*id)?,
        };
        if changed {
            self.events.push(Event::Keys);
        }
        Ok(Reply::Done)
    }

    pub(crate) fn answered(
        &mut self,
        from: Peer,
        request: u64,
        reply: Reply,
    ) -> Result<(), Refusal> {
        let ask = self.asks.get_mut(&request).ok_or(Refusal::Stale)?;
        if !ask.waiting.remove(&from.id) {
            return Err(Refusal::Stale);
        }
        ask.answers.insert(from.id, reply.into());
        if ask.waiting.is_empty() {
            self.end_ask(request);
        }
        Ok(())
    }
}
