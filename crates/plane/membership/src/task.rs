//! The one task: the socket, the time, and what is asked of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::protocol::{
    Counts, Engine, Event, KeyRing, MAX_DATAGRAM, Member, NodeAnswer, Op, Refusal, RingError, Tags,
};
use crate::socket::{outward, plain};

/// Datagrams that are read before the time is looked at again.
const BURST: usize = 128;
/// How often a reason for refusals is written to the log at most.
const QUIET: Duration = Duration::from_secs(10);

/// What came of a question to all.
pub(crate) type Answered = Result<Vec<NodeAnswer>, AskError>;

/// Why nobody was asked.
#[derive(Debug)]
pub(crate) enum AskError {
    Ring(RingError),
    Busy,
}

/// What the handle asks of the task.
pub(crate) enum Command {
    Join(Vec<SocketAddr>),
    SetTags(Tags),
    SetRing(KeyRing),
    /// The members as they are now, with their round-trip times.
    Look(oneshot::Sender<Vec<Member>>),
    Ask(Op, Duration, oneshot::Sender<Answered>),
    Leave(Duration, oneshot::Sender<Answered>),
}

pub(crate) struct Task {
    pub(crate) engine: Engine,
    pub(crate) socket: UdpSocket,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) members: watch::Sender<Arc<Vec<Member>>>,
    pub(crate) ring: watch::Sender<KeyRing>,
    pub(crate) counts: Arc<Mutex<Counts>>,
    pub(crate) start: Instant,
    pub(crate) waiting: BTreeMap<u64, oneshot::Sender<Answered>>,
    pub(crate) log: Log,
    pub(crate) v6: bool,
    /// Sent and unsent ones; the engine counts the rest.
    pub(crate) own: Counts,
}

impl Task {
    /// Until the handle is gone.
    pub(crate) async fn run(mut self) {
        // One byte more than may be: a longer datagram shows.
        let mut buffer = vec![0; MAX_DATAGRAM + 1];
        self.deliver();
        loop {
            let idle = Instant::now() + Duration::from_secs(1);
            let due = self.engine.next_due().map_or(idle, |at| self.start + at);
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                // An error here is that of an earlier send, which is lost as datagrams may be.
                _ = self.socket.readable() => {}
                () = sleep_until(due) => {}
            }
            // What has arrived comes before what is due: it may be the answer that is waited for.
            for _ in 0..BURST {
                match self.socket.try_recv_from(&mut buffer) {
                    Ok((length, from)) => self.receive(&mut buffer[..length], from),
                    Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => break,
                    Err(_) => {}
                }
            }
            let now = self.now();
            self.engine.tick(now);
            self.deliver();
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn receive(&mut self, datagram: &mut [u8], from: SocketAddr) {
        let now = self.now();
        if let Err(why) = self.engine.receive(now, datagram) {
            self.log.refused(now, why, plain(from));
        }
    }

    fn obey(&mut self, command: Command) {
        let now = self.now();
        let (asked, answer) = match command {
            Command::Join(addresses) => return self.engine.join(now, &addresses),
            Command::SetTags(tags) => return self.engine.set_tags(now, tags),
            Command::SetRing(ring) => return self.engine.set_ring(ring),
            // Who asked and does not wait any more is not told.
            Command::Look(answer) => return drop(answer.send(self.members())),
            Command::Ask(op, within, answer) => (self.engine.ask(now, op, within), answer),
            Command::Leave(within, answer) => (Ok(self.engine.leave(now, within)), answer),
        };
        match asked {
            Ok(Some(request)) => {
                self.waiting.insert(request, answer);
            }
            // Who asked and does not wait any more is not told.
            Ok(None) => drop(answer.send(Err(AskError::Busy))),
            Err(why) => drop(answer.send(Err(AskError::Ring(why)))),
        }
    }

    /// Sends what is to be sent, and tells what happened.
    fn deliver(&mut self) {
        for (to, datagram) in self.engine.take_out() {
            match self.socket.try_send_to(&datagram, outward(to, self.v6)) {
                Ok(_) => {
                    self.own.sent += 1;
                    self.own.sent_bytes += datagram.len() as u64;
                }
                Err(why) => {
                    self.own.unsent += 1;
                    tracing::debug!(%to, %why, "a gossip datagram was not sent; it is repeated by the protocol");
                }
            }
        }
        for event in self.engine.take_events() {
            self.tell(event);
        }
        let counts = Counts {
            sent: self.own.sent,
            sent_bytes: self.own.sent_bytes,
            unsent: self.own.unsent,
            ..self.engine.counts()
        };
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }

    fn tell(&mut self, event: Event) {
        match event {
            Event::Members => {
                let members = self.members();
                self.log.members(&self.members.borrow(), &members);
                self.members.send_replace(Arc::new(members));
            }
            Event::Keys => {
                self.ring.send_replace(self.engine.ring().clone());
                let primary = self.engine.ring().primary().id();
                tracing::info!(%primary, keys = ?self.engine.ring().ids(), "the gossip keys changed");
            }
            Event::Answered { request, answers } => {
                if let Some(waiting) = self.waiting.remove(&request) {
                    // Who asked and does not wait any more is not told.
                    let _ = waiting.send(Ok(answers));
                }
            }
            Event::SameId(address) => tracing::error!(
                id = %self.engine.me().id,
                %address,
                "another process says that it is this node: stop one of them; a copied data directory must not be started"
            ),
        }
    }

    /// With their times as Unix time.
    fn members(&self) -> Vec<Member> {
        let now = self.now();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        let unix = unix.unwrap_or(Duration::ZERO);
        let mut members = self.engine.members();
        for member in &mut members {
            member.since = unix.saturating_sub(now.saturating_sub(member.since));
        }
        members
    }
}

/// What is written to the log, and how often.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// For each reason: when it was written last, and how many were not since.
    refused: [Option<(Duration, u64)>; Refusal::KINDS],
}

impl Log {
    fn refused(&mut self, now: Duration, why: Refusal, from: SocketAddr) {
        let last = &mut self.refused[why.index()];
        let unsaid = match last {
            Some((at, more)) if now.saturating_sub(*at) < QUIET => {
                *more += 1;
                return;
            }
            Some((_, more)) => *more,
            None => 0,
        };
        *last = Some((now, 0));
        tracing::warn!(%from, reason = why.name(), unsaid, "a gossip datagram was refused: {why}");
    }

    fn members(&self, before: &[Member], after: &[Member]) {
        for member in after.iter().filter(|m| !m.me) {
            let was = before.iter().find(|b| b.id == member.id).map(|b| b.state);
            if was != Some(member.state) {
                let name = member.name.as_ref().map(ToString::to_string);
                let name = name.unwrap_or_else(|| member.id.to_string());
                tracing::info!(%name, address = %member.address, state = %member.state, "gossip: a member changed");
            }
        }
    }
}
