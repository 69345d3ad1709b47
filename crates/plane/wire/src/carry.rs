//! Carrying a session: one end of a pair of queues on each side, and between them a stream.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prism_link::{ControlEnd, NodeService, WorkerEnd};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};

use crate::WireError;
use crate::answer::Answers;
use crate::ask::RemoteNode;
use crate::calls::Calls;
use crate::frame::{Kind, Limits};
use crate::greet::greet;
use crate::read::{Heard, Readers, RoundTrip, read};
use crate::versions::{Message, RESUMES};
use crate::write::{Lanes, Outgoing, lanes, write};

/// Between two signs of life.
const SIGN: Duration = Duration::from_secs(5);

/// Between two moments at which signs are sent.
const TOGETHER: Duration = Duration::from_millis(50);

/// How long the other end may take to greet.
const GREETING: Duration = Duration::from_secs(10);

/// What a worker may be sent at once: a job's files are the largest.
const TO_WORKER: Limits = Limits {
    message: 160 << 20,
    all: 192 << 20,
    count: 128,
};

/// What a control plane may be sent at once: many workers send to it.
const TO_CONTROL: Limits = Limits {
    message: 12 << 20,
    all: 48 << 20,
    count: 128,
};

/// A connection as the control plane sees it.
#[derive(Clone, Debug)]
pub struct Link {
    /// The node at the other end.
    pub node: RemoteNode,
}

/// A stream whose ends have greeted each other.
#[derive(Debug)]
pub struct Greeted<S> {
    stream: S,
    version: u16,
}

impl<S> Greeted<S> {
    /// Whether the other end knows [`prism_link::ToControl::Resume`].
    pub fn resumes(&self) -> bool {
        self.version >= RESUMES
    }
}

/// Greets the control plane at the other end of a stream.
///
/// # Errors
/// When it does not greet in time, speaks no version that this program speaks, or is something else.
pub async fn greet_control<S>(mut stream: S) -> Result<Greeted<S>, WireError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let version = greeted(&mut stream).await?;
    Ok(Greeted { stream, version })
}

/// The worker's side: greets, then carries as [`carry_greeted`] does. For who does not ask what the other end knows.
pub async fn carry_worker<S>(stream: S, end: ControlEnd, service: Arc<dyn NodeService>) -> WireError
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    match greet_control(stream).await {
        Ok(greeted) => carry_greeted(greeted, end, service).await,
        Err(why) => why,
    }
}

/// The worker's side: carries between the stream and the worker, which has the other end of the pair, until either is over; answers
/// why.
pub async fn carry_greeted<S>(
    greeted: Greeted<S>,
    end: ControlEnd,
    service: Arc<dyn NodeService>,
) -> WireError
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let Greeted { stream, version } = greeted;
    let (lanes, waiting) = lanes();
    let (from, to) = tokio::io::split(stream);
    // It answers signs of life and sends none of its own: with one side's both hear of each other, and of thousands of workers each sign
    // costs the control plane something.
    let readers = Readers {
        session: end.to_worker,
        calls: None,
        answers: Some(Answers::new(service, lanes.clone())),
        lanes: lanes.clone(),
        round_trip: RoundTrip::default(),
        began: Instant::now(),
        version,
        heard: Heard::first(),
    };
    let finish = Notify::new();
    tokio::select! {
        why = read(from, readers, TO_WORKER) => why,
        written = write(to, waiting, None, &finish) => over(written),
        why = feed(end.from_worker, version, lanes, &finish) => why,
    }
}

/// The control plane's side: greets, and answers the connection and what carries it until either end is over; that answers why.
///
/// # Errors
/// When the greeting fails.
pub async fn carry_control<S>(
    mut stream: S,
    end: WorkerEnd,
) -> Result<(Link, impl Future<Output = WireError> + Send), WireError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let version = greeted(&mut stream).await?;
    let (lanes, waiting) = lanes();
    let calls = Calls::new();
    let link = Link {
        node: RemoteNode {
            lanes: lanes.clone(),
            calls: Arc::clone(&calls),
            round_trip: RoundTrip::default(),
            version,
            heard: Heard::first(),
            name: None,
        },
    };
    let (round_trip, heard) = (link.node.round_trip.clone(), link.node.heard.clone());
    let carried = async move {
        let (from, to) = tokio::io::split(stream);
        let began = Instant::now();
        let readers = Readers {
            session: end.to_control,
            calls: Some(Arc::clone(&calls)),
            answers: None,
            lanes: lanes.clone(),
            round_trip: round_trip.clone(),
            began,
            version,
            heard,
        };
        let finish = Notify::new();
        let why = tokio::select! {
            why = read(from, readers, TO_CONTROL) => why,
            written = write(to, waiting, Some(&*calls), &finish) => over(written),
            why = feed(end.from_control, version, lanes.clone(), &finish) => why,
            why = signs(lanes, round_trip, began) => why,
        };
        calls.end();
        why
    };
    Ok((link, carried))
}

async fn greeted<S>(stream: &mut S) -> Result<u16, WireError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let greeting = tokio::time::timeout(GREETING, greet(stream)).await;
    greeting.unwrap_or(Err(WireError::Silent(GREETING.as_secs())))
}

fn over(written: std::io::Result<()>) -> WireError {
    written.map_or_else(WireError::Broken, |()| WireError::Over)
}

/// Hands the session's messages over, in order; when there will be no more, has them written to the last. Answers only if that is
/// not possible. What the session's version does not have is left out.
async fn feed<M: Message>(
    mut from: mpsc::Receiver<M>,
    version: u16,
    lanes: Lanes,
    finish: &Notify,
) -> WireError {
    while let Some(message) = from.recv().await {
        let Some(body) = message.write(version) else {
            continue;
        };
        let message = Outgoing {
            kind: Kind::Message,
            number: 0,
            body,
        };
        if lanes.session.send(message).await.is_err() {
            return WireError::Over;
        }
    }
    finish.notify_one();
    std::future::pending().await
}

/// Sends a sign of life now and then, which the other end answers; that shows life in both directions, and how long the way is.
async fn signs(lanes: Lanes, round_trip: RoundTrip, began: Instant) -> WireError {
    loop {
        let number = round_trip.sent(began.elapsed());
        lanes.sign(Kind::Ping, number);
        sleep_until(together(Instant::now() + SIGN)).await;
    }
}

/// The last moment before this one at which all connections of this process send their signs. To be woken for many at once costs a
/// fraction of being woken for each.
fn together(at: Instant) -> Instant {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let since = at.saturating_duration_since(*FIRST.get_or_init(Instant::now));
    let over = since.as_micros() % TOGETHER.as_micros();
    at - Duration::from_micros(u64::try_from(over).unwrap_or(0))
}
