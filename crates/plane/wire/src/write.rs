//! The writing half: signs of life first, then the session's messages and the calls by turns, a frame each.

use std::collections::VecDeque;
use std::io;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};

use crate::calls::Calls;
use crate::frame::{BODY_MAX, Head, Kind};

/// Messages that wait in a lane; a full lane makes the sender wait.
const LANE: usize = 64;

/// Signs that wait. Those for which there is no room are dropped: then the other end does not read.
const SIGNS: usize = 1_024;

/// Calls and answers that are written by turns.
const AT_ONCE: usize = 32;

/// A message on its way out.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) kind: Kind,
    pub(crate) number: u64,
    pub(crate) body: Vec<u8>,
}

/// Where messages are put.
#[derive(Clone, Debug)]
pub(crate) struct Lanes {
    /// Signs.
    signs: mpsc::Sender<Outgoing>,
    /// The session's messages, in order.
    pub(crate) session: mpsc::Sender<Outgoing>,
    /// Calls and answers.
    pub(crate) calls: mpsc::Sender<Outgoing>,
}

impl Lanes {
    /// Puts a sign where signs wait, if there is room.
    pub(crate) fn sign(&self, kind: Kind, number: u64) {
        let sign = Outgoing {
            kind,
            number,
            body: Vec::new(),
        };
        let _dropped = self.signs.try_send(sign);
    }
}

/// The other ends of the lanes.
#[derive(Debug)]
pub(crate) struct Waiting {
    signs: mpsc::Receiver<Outgoing>,
    session: mpsc::Receiver<Outgoing>,
    calls: mpsc::Receiver<Outgoing>,
}

/// New lanes.
pub(crate) fn lanes() -> (Lanes, Waiting) {
    let (signs, signs_out) = mpsc::channel(SIGNS);
    let (session, session_out) = mpsc::channel(LANE);
    let (calls, calls_out) = mpsc::channel(LANE);
    (
        Lanes {
            signs,
            session,
            calls,
        },
        Waiting {
            signs: signs_out,
            session: session_out,
            calls: calls_out,
        },
    )
}

/// A message of which a part is written.
struct Rest {
    message: Outgoing,
    at: usize,
    /// Whether it is a call that nobody waits for any more.
    given_up: bool,
}

impl Rest {
    fn new(message: Outgoing) -> Self {
        Self {
            message,
            at: 0,
            given_up: false,
        }
    }

    fn cancel(number: u64) -> Self {
        Self::new(Outgoing {
            kind: Kind::Cancel,
            number,
            body: Vec::new(),
        })
    }

    /// Writes its next frame; answers whether that was the last.
    async fn write<W: AsyncWrite + Unpin>(&mut self, to: &mut W) -> io::Result<bool> {
        let Outgoing { kind, number, body } = &self.message;
        let end = body.len().min(self.at + BODY_MAX);
        let part = &body[self.at..end];
        let head = Head {
            kind: *kind,
            last: end == body.len(),
            number: *number,
            length: part.len(),
        };
        to.write_all(&head.encode()).await?;
        to.write_all(part).await?;
        self.at = end;
        Ok(head.last)
    }
}

/// Messages of which parts are written, by turns.
#[derive(Default)]
struct Turns {
    session: Option<Rest>,
    calls: VecDeque<Rest>,
}

impl Turns {
    fn is_empty(&self) -> bool {
        self.session.is_none() && self.calls.is_empty()
    }

    /// Takes a call or an answer, unless it is a call that was given up meanwhile.
    fn take(&mut self, message: Outgoing, calls: Option<&Calls>) {
        let wanted = message.kind != Kind::Call || calls.is_none_or(|c| c.write(message.number));
        if wanted {
            self.calls.push_back(Rest::new(message));
        }
    }

    /// Cancels what was given up: at once, or after its last frame.
    async fn cancel<W: AsyncWrite + Unpin>(&mut self, calls: &Calls, to: &mut W) -> io::Result<()> {
        for number in calls.take_given_up() {
            let part = self.calls.iter_mut().find(|c| c.message.number == number);
            match part {
                Some(part) => part.given_up = true,
                None => {
                    Rest::cancel(number).write(to).await?;
                }
            }
        }
        Ok(())
    }

    /// Writes one frame of the session's messages and one of the calls.
    async fn write<W: AsyncWrite + Unpin>(&mut self, to: &mut W) -> io::Result<()> {
        if let Some(message) = &mut self.session
            && message.write(to).await?
        {
            self.session = None;
        }
        if let Some(mut call) = self.calls.pop_front() {
            if !call.write(to).await? {
                self.calls.push_back(call);
            } else if call.given_up {
                Rest::cancel(call.message.number).write(to).await?;
            }
        }
        Ok(())
    }
}

/// Writes until it is told to finish and nothing waits any more, then closes the stream. `calls`: those of an end that asks.
///
/// # Errors
/// The stream's.
pub(crate) async fn write<W>(
    to: W,
    mut waiting: Waiting,
    calls: Option<&Calls>,
    finish: &Notify,
) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    let mut to = tokio::io::BufWriter::with_capacity(BODY_MAX, to);
    let mut turns = Turns::default();
    let given_up = async || match calls {
        Some(calls) => calls.some_given_up().await,
        None => std::future::pending().await,
    };
    loop {
        while let Ok(sign) = waiting.signs.try_recv() {
            Rest::new(sign).write(&mut to).await?;
        }
        if let Some(calls) = calls {
            turns.cancel(calls, &mut to).await?;
        }
        if turns.session.is_none() {
            turns.session = waiting.session.try_recv().ok().map(Rest::new);
        }
        while turns.calls.len() < AT_ONCE
            && let Ok(call) = waiting.calls.try_recv()
        {
            turns.take(call, calls);
        }
        if turns.is_empty() {
            to.flush().await?;
            tokio::select! {
                biased;
                Some(sign) = waiting.signs.recv() => {
                    Rest::new(sign).write(&mut to).await?;
                }
                () = given_up() => {}
                Some(message) = waiting.session.recv() => turns.session = Some(Rest::new(message)),
                Some(call) = waiting.calls.recv() => turns.take(call, calls),
                () = finish.notified() => return to.shutdown().await,
            }
            continue;
        }
        turns.write(&mut to).await?;
    }
}
