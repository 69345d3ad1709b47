//! The reading half: frames become messages, and whoever they are for gets them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::WireError;
use crate::answer::Answers;
use crate::calls::Calls;
use crate::frame::{Assembler, HEAD, Head, Kind, Limits};
use crate::versions::Message;
use crate::write::Lanes;

/// How long nothing may come, signs of life included.
pub(crate) const SILENCE: Duration = Duration::from_secs(15);

/// Time from one end to the other and back, in microseconds; 0 before it was measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct RoundTrip {
    micros: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
}

impl RoundTrip {
    /// A sign was sent, so long after the connection began.
    pub(crate) fn sent(&self, since: Duration) -> u64 {
        let at = u64::try_from(since.as_micros()).unwrap_or(u64::MAX).max(1);
        self.sent.store(at, Ordering::Relaxed);
        at
    }

    /// Its answer has come. One to another sign is nobody's.
    fn answered(&self, number: u64, since: Duration) {
        if number != 0 && self.sent.swap(0, Ordering::Relaxed) == number {
            let now = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
            self.micros
                .store(now.saturating_sub(number).max(1), Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self) -> Option<Duration> {
        match self.micros.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros)),
        }
    }
}

/// When something came last from the other end.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    began: Instant,
    micros: Arc<AtomicU64>,
}

impl Heard {
    /// Something came, for the first time: a greeting.
    pub(crate) fn first() -> Self {
        Self {
            began: Instant::now(),
            micros: Arc::default(),
        }
    }

    fn again(&self) {
        let micros = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.micros.store(micros, Ordering::Relaxed);
    }

    /// How long nothing has come.
    pub(crate) fn silence(&self) -> Duration {
        let heard = Duration::from_micros(self.micros.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(heard)
    }

    /// Ends when nothing has come for so long.
    pub(crate) async fn silent_for(&self, long: Duration) {
        loop {
            match long.saturating_sub(self.silence()) {
                Duration::ZERO => return,
                left => sleep(left).await,
            }
        }
    }
}

/// Who gets what comes in.
pub(crate) struct Readers<M> {
    /// The session's messages.
    pub(crate) session: mpsc::Sender<M>,
    /// Answers to calls of this end, if it makes any.
    pub(crate) calls: Option<Arc<Calls>>,
    /// Calls, if this end answers them.
    pub(crate) answers: Option<Answers>,
    /// For signs in answer to signs.
    pub(crate) lanes: Lanes,
    /// Where the way is measured.
    pub(crate) round_trip: RoundTrip,
    /// When the connection began.
    pub(crate) began: Instant,
    /// What is spoken.
    pub(crate) version: u16,
    /// Noted at each frame.
    pub(crate) heard: Heard,
}

impl<M> Readers<M> {
    /// Whether an answer of this number is waited for.
    fn expects(&self, number: u64) -> bool {
        // An end that asks nothing refuses the answer when it is whole.
        self.calls
            .as_ref()
            .is_none_or(|calls| calls.expects(number))
    }
}

/// Reads until the connection is over; answers why.
pub(crate) async fn read<R, M>(from: R, readers: Readers<M>, limits: Limits) -> WireError
where
    R: AsyncRead + Unpin,
    M: Message,
{
    // One timer for all frames: it is set anew when it has run down and not at each of them.
    let silent = readers.heard.silent_for(SILENCE);
    tokio::select! {
        biased;
        read = read_all(from, &readers, limits) => match read {
            Err(why) => why,
            Ok(never) => match never {},
        },
        () = silent => WireError::Silent(SILENCE.as_secs()),
    }
}

async fn read_all<R, M>(
    from: R,
    readers: &Readers<M>,
    limits: Limits,
) -> Result<std::convert::Infallible, WireError>
where
    R: AsyncRead + Unpin,
    M: Message,
{
    let mut from = tokio::io::BufReader::new(from);
    let mut parts = Assembler::new(limits);
    loop {
        let (head, body) = next(&mut from).await?;
        readers.heard.again();
        match head.kind {
            Kind::Ping => readers.lanes.sign(Kind::Pong, head.number),
            Kind::Pong => {
                let since = readers.began.elapsed();
                readers.round_trip.answered(head.number, since);
            }
            Kind::Cancel => {
                if let Some(answers) = &readers.answers {
                    answers.cancel(head.number);
                }
            }
            // A call that was given up may be answered all the same.
            Kind::Answer if !readers.expects(head.number) => parts.forget(head),
            Kind::Message | Kind::Call | Kind::Answer => {
                if let Some(whole) = parts.take(head, body)? {
                    deliver(readers, head, whole).await?;
                }
            }
        }
    }
}

async fn next<R: AsyncRead + Unpin>(from: &mut R) -> Result<(Head, Vec<u8>), WireError> {
    let mut head = [0; HEAD];
    let first = from.read(&mut head).await?;
    if first == 0 {
        return Err(WireError::Closed);
    }
    from.read_exact(&mut head[first..]).await?;
    let head = Head::decode(head)?;
    let mut body = vec![0; head.length];
    from.read_exact(&mut body).await?;
    Ok((head, body))
}

async fn deliver<M: Message>(
    readers: &Readers<M>,
    head: Head,
    whole: Vec<u8>,
) -> Result<(), WireError> {
    match head.kind {
        Kind::Call => match &readers.answers {
            Some(answers) => answers.call(head.number, &whole),
            None => Err(WireError::Protocol("a call to an end that answers none")),
        },
        Kind::Answer => match &readers.calls {
            Some(calls) => {
                calls.answered(head.number, whole);
                Ok(())
            }
            None => Err(WireError::Protocol(
                "an answer to an end that has asked nothing",
            )),
        },
        _ => {
            let message = M::read(readers.version, &whole)
                .ok_or(WireError::Protocol("a message that cannot be read"))?;
            readers
                .session
                .send(message)
                .await
                .map_err(|_| WireError::Over)
        }
    }
}
