//! The network: datagrams that are lost, doubled, late and out of order; sessions that keep their order, stall while a link is
//! cut, and break.

use std::collections::{BTreeSet, VecDeque};

use prism_link::{ToControl, ToWorker};

use crate::rng::Rng;
use crate::setup::Setup;
use crate::sim::{Addr, Event, Msg, Sim};

/// A cut link is looked at again after so long, milliseconds: what TCP would send again.
const AGAIN: u64 = 250;
/// An end that hears nothing for so long ends its session (`SILENCE` in `crates/plane/wire/src/read.rs`).
pub const SILENCE: u64 = 15_000;
/// How often an end shows a sign of life (`SIGN` in `crates/plane/wire/src/carry.rs`).
pub const SIGN: u64 = 5_000;

/// How well messages travel.
#[derive(Clone, Debug, Default)]
pub struct Net {
    /// Directions that carry nothing.
    pub cut: BTreeSet<(Addr, Addr)>,
    loss: u32,
    doubled: u32,
    late: u32,
    late_by: u64,
}

impl Net {
    /// A network as the seed wants it.
    pub fn new(setup: &Setup, rng: &mut Rng) -> Self {
        let kinds = &setup.kinds;
        let on = |kind: bool, permille: u64| if kind { permille as u32 } else { 0 };
        Self {
            cut: BTreeSet::new(),
            loss: on(kinds.loss, rng.within(5, 150)),
            doubled: on(kinds.duplicates, rng.within(5, 150)),
            late: on(kinds.delays, rng.within(10, 200)),
            late_by: rng.within(50, 3_000),
        }
    }

    /// From now on everything arrives.
    pub fn heal(&mut self) {
        *self = Self::default();
    }

    fn travel(&self, rng: &mut Rng) -> u64 {
        let late = rng.permille(self.late);
        rng.within(1, 6) + if late { rng.below(self.late_by) } else { 0 }
    }
}

/// What a session carries.
#[derive(Clone, Debug)]
pub enum Frame {
    /// To the server.
    Up(Box<ToControl>),
    /// To the worker.
    Down(Box<ToWorker>),
    /// The server does not lead; perhaps that one does. It closes the session.
    Elsewhere(Option<u32>),
    /// A sign of life.
    Sign,
}

/// One end of a session, as it is read there.
#[derive(Clone, Debug, Default)]
pub struct End {
    inbox: VecDeque<(u64, Frame)>,
    /// This end has not closed it.
    pub open: bool,
    /// When it last heard something.
    pub heard: u64,
}

impl End {
    /// How many frames are on their way to it.
    pub fn waits(&self) -> usize {
        self.inbox.len()
    }

    /// Whether something has arrived.
    pub fn is_readable(&self, now: u64) -> bool {
        self.inbox.front().is_some_and(|(at, _)| *at <= now)
    }
}

/// A session's connection.
#[derive(Clone, Debug)]
pub struct Conn {
    /// Who dialled.
    pub worker: Addr,
    /// Whom.
    pub server: Addr,
    /// What is on its way to the server.
    pub at_server: End,
    /// What is on its way to the worker.
    pub at_worker: End,
}

impl Conn {
    /// Whether an end is open.
    pub fn is_open(&self, server: bool) -> bool {
        match server {
            true => self.at_server.open,
            false => self.at_worker.open,
        }
    }

    /// One of the ends.
    pub fn end(&mut self, server: bool) -> &mut End {
        match server {
            true => &mut self.at_server,
            false => &mut self.at_worker,
        }
    }
}

impl Sim {
    /// Sends a datagram.
    pub fn send(&mut self, from: Addr, to: Addr, msg: Msg) {
        if self.net.cut.contains(&(from, to)) || self.rng.permille(self.net.loss) {
            return self.sometimes("a message lost");
        }
        let wait = self.net.travel(&mut self.rng);
        if self.rng.permille(self.net.doubled) {
            let again = wait + self.rng.below(1_000);
            self.sometimes("a message doubled");
            self.after(again, Event::Deliver(to, from, msg.clone()));
        }
        self.after(wait, Event::Deliver(to, from, msg));
    }

    /// Opens a session; both ends are there at once, and the first frame tells.
    pub fn connect(&mut self, id: u64, worker: Addr, server: Addr) {
        let now = self.now;
        let end = End {
            open: true,
            heard: now,
            ..End::default()
        };
        let conn = Conn {
            worker,
            server,
            at_server: end.clone(),
            at_worker: end,
        };
        self.conns.insert(id, conn);
    }

    /// Sends a frame over a session, to the server or to the worker. Whether the sender's end is open.
    pub fn stream(&mut self, id: u64, to_server: bool, frame: Frame) -> bool {
        let mut wait = self.net.travel(&mut self.rng);
        if self.rng.permille(self.net.loss) {
            // Sent again by the transport.
            wait += AGAIN;
        }
        let ready = self.now + wait;
        let Some(conn) = self.conns.get_mut(&id) else {
            return false;
        };
        if !conn.end(!to_server).open {
            return false;
        }
        let end = conn.end(to_server);
        let ready = end.inbox.back().map_or(ready, |(at, _)| ready.max(*at));
        end.inbox.push_back((ready, frame));
        self.at(ready, Event::Pump(id, to_server));
        true
    }

    /// What an end may read now. A cut link makes it wait.
    pub fn readable(&mut self, id: u64, server: bool) -> Option<Frame> {
        let now = self.now;
        let conn = self.conns.get_mut(&id)?;
        let link = match server {
            true => (conn.worker, conn.server),
            false => (conn.server, conn.worker),
        };
        let end = conn.end(server);
        let due = end.inbox.front().is_some_and(|(at, _)| *at <= now);
        if !due || !end.open {
            return None;
        }
        if self.net.cut.contains(&link) {
            self.after(AGAIN, Event::Pump(id, server));
            return None;
        }
        end.heard = now;
        end.inbox.pop_front().map(|(_, frame)| frame)
    }

    /// An end closes its session; the other learns of it if the link lets it.
    pub fn close(&mut self, id: u64, server: bool) {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        conn.end(server).open = false;
        let link = match server {
            true => (conn.server, conn.worker),
            false => (conn.worker, conn.server),
        };
        let other = conn.end(!server);
        if !other.open {
            self.conns.remove(&id);
            return;
        }
        // It reads what was sent before; what it would learn through a cut link it learns by silence.
        let last = other.inbox.back().map_or(now, |(at, _)| *at);
        if !self.net.cut.contains(&link) {
            self.at(last.max(now) + 2, Event::Closed(id, !server));
        }
    }

    /// A session breaks for both ends; what was under way is lost.
    pub fn sever(&mut self, id: u64) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        // What has been sent may still be read by an end that has not noticed.
        let (up, down) = (self.rng.within(0, 3_000), self.rng.within(0, 400));
        if self.rng.permille(500) {
            conn.at_server.inbox.clear();
            conn.at_worker.inbox.clear();
        } else if self.rng.permille(500) && conn.at_worker.open {
            // A heartbeat was on its way, and comes late.
            let ready = self.now + self.rng.within(300, 2_500);
            let last = conn.at_server.inbox.back().map_or(ready, |(at, _)| *at);
            let heartbeat = ToControl::Heartbeat {
                readings: Default::default(),
                credits: 0,
            };
            let frame = Frame::Up(Box::new(heartbeat));
            conn.at_server.inbox.push_back((ready.max(last), frame));
            self.at(ready.max(last), Event::Pump(id, true));
        }
        self.after(up, Event::Closed(id, true));
        self.after(down, Event::Closed(id, false));
    }
}
