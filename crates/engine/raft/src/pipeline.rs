//! Entries on their way to one server, several messages at once: each is sent as soon as there is something to send, whether or not those
//! before it were answered, and the answers come in the same order. So the log at the other end takes in one while it syncs another.

use std::io;
use std::pin::Pin;
use std::task::Poll;

use futures::{Stream, StreamExt, stream};
use openraft::OptionalSend;
use openraft::base::BoxStream;
use openraft::errors::{RPCError, Unreachable};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, StreamAppendResult};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use crate::exchange::{self, Answer, Question};
use crate::network::{patience, within};
use crate::peers::Pipe;
use crate::raft::{LogId, Types};

/// Messages under way at once: more than there are entries under way while all is well.
const UNDER_WAY: usize = 8;

/// What becomes of each message.
pub(crate) type Results<'s> = BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>;

/// The halves of a stream on which nothing is under way. A half that is missing was on the way when something went wrong.
#[derive(Default)]
pub(crate) struct Idle {
    pub(crate) from: Option<ReadHalf<Box<dyn Pipe>>>,
    pub(crate) to: Option<WriteHalf<Box<dyn Pipe>>>,
}

impl std::fmt::Debug for Idle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Idle")
            .field("from", &self.from.is_some())
            .field("to", &self.to.is_some())
            .finish()
    }
}

/// A message whose answer is waited for.
struct Sent {
    before: Option<LogId>,
    last: Option<LogId>,
    bytes: usize,
}

/// Sends all of `input` on a stream; answers what came of each in order, until one was not taken as a whole. The halves go back to `idle`
/// when all was sent and answered.
pub(crate) fn send_all<'s, S>(
    (from, to): (ReadHalf<Box<dyn Pipe>>, WriteHalf<Box<dyn Pipe>>),
    idle: &'s mut Idle,
    input: S,
) -> Results<'s>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
{
    let (sent, waits) = mpsc::channel(UNDER_WAY);
    let Idle {
        from: from_idle,
        to: to_idle,
    } = idle;
    let mut writing = Some(Box::pin(async move {
        *to_idle = Some(write(to, input, sent).await?);
        Ok::<_, io::Error>(())
    }));
    let mut reading = Box::pin(read(from, from_idle, waits));
    let mut failed = None;
    // Both by whoever looks at the results: what is dropped with them does nothing more.
    Box::pin(stream::poll_fn(move |cx| {
        if let Some(wrote) = &mut writing
            && let Poll::Ready(done) = Pin::new(wrote).poll(cx)
        {
            writing = None;
            failed = done.err();
        }
        match reading.poll_next_unpin(cx) {
            Poll::Ready(None) => Poll::Ready(failed.take().map(|why| Err(unreachable(&why)))),
            read => read,
        }
    }))
}

fn unreachable(why: &io::Error) -> RPCError<Types> {
    Unreachable::from_string(why).into()
}

async fn write<S>(
    mut to: WriteHalf<Box<dyn Pipe>>,
    mut input: S,
    sent: mpsc::Sender<Sent>,
) -> io::Result<WriteHalf<Box<dyn Pipe>>>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Unpin,
{
    loop {
        // A place first: a message is not put together before it can go.
        let Ok(place) = sent.reserve().await else {
            return Err(io::Error::other("the answers are not read any more"));
        };
        let Some(request) = input.next().await else {
            return Ok(to);
        };
        let before = request.prev_log_id;
        let last = request.entries.last().map(|e| e.log_id).or(before);
        let message = exchange::encode(&Question::Append(request))?;
        let bytes = message.len();
        // Known before it is sent, so that whoever waits for the answer notices when the sending does not end.
        place.send(Sent {
            before,
            last,
            bytes,
        });
        exchange::send(&mut to, &message).await?;
    }
}

/// Reads the answer to each message.
fn read<'s>(
    from: ReadHalf<Box<dyn Pipe>>,
    idle: &'s mut Option<ReadHalf<Box<dyn Pipe>>>,
    waits: mpsc::Receiver<Sent>,
) -> impl Stream<Item = Result<StreamAppendResult<Types>, RPCError<Types>>> + 's {
    stream::unfold(Some((from, idle, waits)), async |state| {
        let (mut from, idle, mut waits) = state?;
        let Some(sent) = waits.recv().await else {
            *idle = Some(from);
            return None;
        };
        let answer = exchange::receive(&mut from);
        let answer = within(patience(sent.bytes), "no answer in time", answer).await;
        let answer = match answer {
            Ok(Answer::Append(answer)) => answer,
            Ok(Answer::No(why)) => return Some((Err(unreachable(&io::Error::other(why))), None)),
            Ok(_) => {
                let why = io::Error::other("an answer to something else");
                return Some((Err(unreachable(&why)), None));
            }
            Err(why) => return Some((Err(unreachable(&why)), None)),
        };
        let whole = match &answer {
            AppendEntriesResponse::Success => true,
            AppendEntriesResponse::PartialSuccess(to) => *to == sent.last,
            AppendEntriesResponse::Conflict | AppendEntriesResponse::HigherVote(_) => false,
        };
        let result = answer.into_stream_result(sent.before, sent.last);
        Some((Ok(result), whole.then_some((from, idle, waits))))
    })
}
