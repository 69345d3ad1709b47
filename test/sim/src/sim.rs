//! What all parts of a run share: virtual time, the queue of events, the network, the trace, the truth and the counters.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use prism_types::{JobId, TaskRef};

use crate::bugs::Bug;
use crate::faults::Act;
use crate::invariants::{Held, Truth};
use crate::log::{ServerId, Write};
use crate::net::{Conn, Net};
use crate::raft;
use crate::rng::Rng;
use crate::setup::Setup;
use crate::trace::Trace;

/// Somebody who is sent things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Addr {
    /// A server.
    Server(u32),
    /// A worker.
    Worker(u32),
    /// A client.
    Client(u32),
}

impl Addr {
    /// As a number for the trace.
    pub fn number(self) -> u64 {
        match self {
            Self::Server(n) => u64::from(n),
            Self::Worker(n) => 100 + u64::from(n),
            Self::Client(n) => 200 + u64::from(n),
        }
    }
}

/// What a client asks, or what another server is asked in its name.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Accept the job that request `number` describes.
    Submit {
        /// Number of the request.
        number: u64,
        /// Whether its key comes along.
        keyed: bool,
    },
    /// Cancel a job.
    Cancel(JobId),
    /// Place nothing more of a job, or go on.
    Pause(JobId, bool),
    /// Look at the jobs.
    Read,
}

/// What a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The job is accepted.
    Job(JobId),
    /// Done.
    Done,
    /// Refused for good.
    Refused,
    /// What was read: the revision, and whether the job that the client asks for is over.
    Read,
    /// This server does not lead; perhaps that one does.
    NotLeader(Option<ServerId>),
    /// It may have been done.
    Unknown,
}

/// A datagram: may be lost, come twice, late or in another order.
#[derive(Clone, Debug)]
pub enum Msg {
    /// Between servers.
    Raft(raft::Msg),
    /// A client asks; `client` and `op` say whom to answer.
    Ask {
        /// The client.
        client: u32,
        /// Which of its requests and tries.
        op: (u64, u32),
        /// What.
        ask: Ask,
        /// Whether it was passed on by a server.
        passed: bool,
    },
    /// A client is answered.
    Tell {
        /// Which of its requests and tries.
        op: (u64, u32),
        /// What.
        told: Told,
        /// The revision that the answer shows.
        revision: u64,
    },
    /// A write for the store, by a leader whose server does not lead the log.
    Commit {
        /// The write.
        write: Write,
        /// Number of the round at the sender.
        ticket: u64,
    },
    /// What became of it: a revision, or that it was refused or is not known.
    Committed {
        /// Number of the round.
        ticket: u64,
        /// The revision; `None`: no.
        revision: Option<u64>,
        /// It was refused by its fence.
        fenced: bool,
    },
}

/// What somebody does at a time.
#[derive(Clone, Debug)]
pub enum Timer {
    /// Consensus looks at the time.
    Raft,
    /// A sync ends.
    Synced,
    /// The leader's loop looks at what waits.
    Round,
    /// The leader looks at the leases.
    Leases(u64),
    /// A deposed leader notices.
    Deposed(u64),
    /// A server that fell over starts.
    Start,
    /// A worker says that it is there.
    Heartbeat,
    /// An end of a session shows a sign of life and looks for one.
    Sign(u64),
    /// A worker dials.
    Dial,
    /// A task that was handed to the supervisor begins.
    Begin(TaskRef),
    /// A run ends by itself.
    End(TaskRef, u64),
    /// A run that was stopped ends.
    Killed(TaskRef, u64),
    /// The lease of a run may be over.
    Lease(TaskRef, u64),
    /// The supervisor has written down the end of a run.
    Journaled(TaskRef, u64),
    /// The daemon starts.
    Daemon,
    /// A client does the next thing.
    Next,
    /// A client waits no longer.
    Late((u64, u32)),
    /// A watch looks for news.
    Watch,
}

/// Something that happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// A datagram arrives.
    Deliver(Addr, Addr, Msg),
    /// A session's end has something to read; the flag says that it is the server's.
    Pump(u64, bool),
    /// An end learns that its session is over.
    Closed(u64, bool),
    /// A timer of somebody's life.
    Timer(Addr, u32, Timer),
    /// A fault.
    Fault(Act),
    /// The next fault is drawn.
    Draw,
    /// The members are looked after.
    Operator,
}

#[derive(Debug)]
struct Planned(u64, u64, Event);

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// What does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant.
    pub invariant: &'static str,
    /// In what way.
    pub what: String,
}

/// What all parts of a run share.
#[derive(Debug)]
pub struct Sim {
    /// Virtual milliseconds.
    pub now: u64,
    next: u64,
    queue: BinaryHeap<Reverse<Planned>>,
    /// Randomness.
    pub rng: Rng,
    /// What the seed made.
    pub setup: Setup,
    /// The planted fault.
    pub bug: Option<Bug>,
    /// The network.
    pub net: Net,
    /// Sessions.
    pub conns: BTreeMap<u64, Conn>,
    /// Servers that clients and workers know.
    pub servers: Vec<ServerId>,
    /// Requests that were numbered.
    pub requests: u64,
    /// Who stands still, and until when.
    pub paused: BTreeMap<Addr, u64>,
    /// What happened.
    pub trace: Trace,
    /// Print the trace as it grows.
    pub loud: bool,
    /// The accounts.
    pub truth: Truth,
    /// How often things happened that should sometimes.
    pub seen: BTreeMap<&'static str, u64>,
    /// What does not hold.
    pub violation: Option<Violation>,
}

impl Sim {
    /// An empty world.
    pub fn new(seed: u64, bug: Option<Bug>, keep: usize) -> Self {
        let mut rng = Rng::new(seed);
        let setup = Setup::draw(&mut rng);
        Self {
            now: 0,
            next: 0,
            queue: BinaryHeap::new(),
            net: Net::new(&setup, &mut rng),
            rng,
            setup,
            bug,
            conns: BTreeMap::new(),
            servers: Vec::new(),
            requests: 0,
            paused: BTreeMap::new(),
            trace: Trace::new(keep),
            loud: false,
            truth: Truth::default(),
            seen: BTreeMap::new(),
            violation: None,
        }
    }

    /// Whether this fault is planted.
    pub fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Plans an event.
    pub fn at(&mut self, when: u64, event: Event) {
        self.next += 1;
        let planned = Planned(when.max(self.now), self.next, event);
        self.queue.push(Reverse(planned));
    }

    /// Plans an event after a while.
    pub fn after(&mut self, wait: u64, event: Event) {
        self.at(self.now + wait, event);
    }

    /// Sets a timer of somebody's present life.
    pub fn timer(&mut self, who: Addr, life: u32, wait: u64, timer: Timer) {
        self.after(wait, Event::Timer(who, life, timer));
    }

    /// The next event; time goes on to it. What concerns somebody who stands still waits until they go on, in order.
    pub fn pop(&mut self) -> Option<Event> {
        loop {
            let Reverse(Planned(at, seq, event)) = self.queue.pop()?;
            self.now = at;
            let until = self.whom(&event).and_then(|who| self.paused.get(&who));
            match until {
                Some(until) if *until > at => {
                    let planned = Planned(*until, seq, event);
                    self.queue.push(Reverse(planned));
                }
                _ => return Some(event),
            }
        }
    }

    fn whom(&self, event: &Event) -> Option<Addr> {
        match event {
            Event::Deliver(to, ..) | Event::Timer(to, ..) => Some(*to),
            Event::Pump(conn, server) | Event::Closed(conn, server) => {
                let conn = self.conns.get(conn)?;
                Some(if *server { conn.server } else { conn.worker })
            }
            Event::Fault(_) | Event::Draw | Event::Operator => None,
        }
    }

    /// Notes something in the trace.
    pub fn note(&mut self, what: &'static str, of: [u64; 3]) {
        self.trace.note(self.now, what, of);
        if self.loud {
            let (now, [a, b, c]) = (self.now, of);
            println!(
                "{:>9}.{:03}  {what:<22} {a:>6} {b:>6} {c}",
                now / 1000,
                now % 1000
            );
        }
    }

    /// Counts something that should happen sometimes.
    pub fn sometimes(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// Keeps the first thing that does not hold.
    pub fn check(&mut self, invariant: &'static str, held: Held) {
        if let Err(what) = held
            && self.violation.is_none()
        {
            self.note("violation", [0; 3]);
            self.violation = Some(Violation { invariant, what });
        }
    }
}

/// A short number for an id, for the trace.
pub fn short(id: JobId) -> u64 {
    u64::try_from(id.0.0 & 0xffff).unwrap_or(0)
}

/// The same for an attempt of a task: job, index, attempt.
pub fn task_note(task: TaskRef) -> u64 {
    short(task.job) * 1_000_000 + u64::from(task.index) * 1_000 + u64::from(task.attempt)
}
