//! The writing half: signs of life first, then the session's messages and the calls by turns, a frame each.

use std::collections::VecDeque;
use std::io;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};

use crate::frame::{BODY_MAX, Head, Kind};

/// Messages that wait in a lane; a full lane makes the sender wait.
const LANE: usize = 64;

/// Signs that wait. Those for which there is no room are dropped: then the other end does not read, and that of a call which is given
/// up only saves it work.
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
}

impl Rest {
    fn new(message: Outgoing) -> Self {
        Self { message, at: 0 }
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

/// Writes until it is told to finish and nothing waits any more, then closes the stream.
///
/// # Errors
/// The stream's.
pub(crate) async fn write<W>(to: W, mut waiting: Waiting, finish: &Notify) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    let mut to = tokio::io::BufWriter::with_capacity(BODY_MAX, to);
    let mut session: Option<Rest> = None;
    let mut calls: VecDeque<Rest> = VecDeque::new();
    loop {
        while let Ok(sign) = waiting.signs.try_recv() {
            Rest::new(sign).write(&mut to).await?;
        }
        if session.is_none() {
            session = waiting.session.try_recv().ok().map(Rest::new);
        }
        while calls.len() < AT_ONCE
            && let Ok(call) = waiting.calls.try_recv()
        {
            calls.push_back(Rest::new(call));
        }
        if session.is_none() && calls.is_empty() {
            to.flush().await?;
            tokio::select! {
                biased;
                Some(sign) = waiting.signs.recv() => {
                    Rest::new(sign).write(&mut to).await?;
                }
                Some(message) = waiting.session.recv() => session = Some(Rest::new(message)),
                Some(call) = waiting.calls.recv() => calls.push_back(Rest::new(call)),
                () = finish.notified() => return to.shutdown().await,
            }
            continue;
        }
        if let Some(message) = &mut session
            && message.write(&mut to).await?
        {
            session = None;
        }
        if let Some(mut call) = calls.pop_front()
            && !call.write(&mut to).await?
        {
            calls.push_back(call);
        }
    }
}
