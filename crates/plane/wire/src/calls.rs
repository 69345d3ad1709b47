//! Calls of the asking side: who waits for which answer, which of them are on the wire, and which were given up.
//!
//! A call that is given up before its first byte is written is never sent. Later ones are cancelled, and the cancel follows the call's
//! last frame: the other end hears of a call before it hears that nobody waits for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prism_types::{Reason, Rejection};
use tokio::sync::{Notify, oneshot};

/// Calls that wait for their answers at once; more are refused here.
pub(crate) const AT_ONCE: usize = 1_024;

#[derive(Debug)]
struct Waiting {
    to: oneshot::Sender<Vec<u8>>,
    on_the_wire: bool,
}

#[derive(Debug, Default)]
struct State {
    waiting: HashMap<u64, Waiting>,
    /// On the wire, and not waited for any more. At most as many as calls that were under way.
    given_up: Vec<u64>,
    over: bool,
}

/// Calls that wait for their answers.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    state: Mutex<State>,
    next: AtomicU64,
    given_up: Notify,
}

/// A call that is waited for. Dropped before its answer has come, it is given up.
#[derive(Debug)]
pub(crate) struct Asked {
    calls: Arc<Calls>,
    pub(crate) number: u64,
    answer: oneshot::Receiver<Vec<u8>>,
}

impl Calls {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to wait for the answer of a call that is about to be made.
    ///
    /// # Errors
    /// When the connection is over, or too many are under way; nothing was sent then.
    pub(crate) fn begin(self: &Arc<Self>) -> Result<Asked, Rejection> {
        let (to, answer) = oneshot::channel();
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let mut state = self.state();
        if state.over {
            return Err(gone());
        }
        if state.waiting.len() >= AT_ONCE {
            let busy = format!("{AT_ONCE} calls to the node are under way; try again in a moment");
            return Err(Rejection::retryable(Reason::Overloaded, busy));
        }
        let waiting = Waiting {
            to,
            on_the_wire: false,
        };
        state.waiting.insert(number, waiting);
        Ok(Asked {
            calls: Arc::clone(self),
            number,
            answer,
        })
    }

    /// A call is to be written now; answers whether it is still waited for. If not, it is not to be written.
    pub(crate) fn write(&self, number: u64) -> bool {
        let mut state = self.state();
        let waiting = state.waiting.get_mut(&number);
        waiting.map(|call| call.on_the_wire = true).is_some()
    }

    /// Ends when there may be calls that were given up.
    pub(crate) async fn some_given_up(&self) {
        self.given_up.notified().await;
    }

    /// Calls that were given up since this was asked last.
    pub(crate) fn take_given_up(&self) -> Vec<u64> {
        std::mem::take(&mut self.state().given_up)
    }

    /// An answer has come. One that nobody waits for was given up.
    pub(crate) fn answered(&self, number: u64, body: Vec<u8>) {
        let waiting = self.state().waiting.remove(&number);
        if let Some(waiting) = waiting {
            let _gone = waiting.to.send(body);
        }
    }

    /// Whether a call is waited for: what else answers is not kept.
    pub(crate) fn expects(&self, number: u64) -> bool {
        self.state().waiting.contains_key(&number)
    }

    /// No answer will come any more.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.over = true;
        state.waiting.clear();
        state.given_up.clear();
    }
}

impl Asked {
    /// The answer.
    ///
    /// # Errors
    /// When the connection has ended before it came.
    pub(crate) async fn answer(mut self) -> Result<Vec<u8>, Rejection> {
        (&mut self.answer).await.map_err(|_| unknown())
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut state = self.calls.state();
        let given_up = state.waiting.remove(&self.number);
        if given_up.is_some_and(|call| call.on_the_wire) {
            state.given_up.push(self.number);
            self.calls.given_up.notify_one();
        }
    }
}

pub(crate) fn gone() -> Rejection {
    Rejection::retryable(
        Reason::Lost,
        "the node is not connected; it dials again by itself; try again in a moment",
    )
}

fn unknown() -> Rejection {
    Rejection::unknown(
        Reason::Lost,
        "the connection to the node broke before its answer came; it may have done what was asked",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_on_the_wire_is_cancelled() {
        let calls = Calls::new();
        let (waits, written, answered) = (
            calls.begin().unwrap(),
            calls.begin().unwrap(),
            calls.begin().unwrap(),
        );
        assert!(calls.write(written.number) && calls.write(answered.number));
        let number = written.number;
        drop(written);
        calls.answered(answered.number, vec![1]);
        drop(answered);
        let early = waits.number;
        drop(waits);
        assert_eq!(calls.take_given_up(), [number]);
        assert!(calls.take_given_up().is_empty());
        assert!(!calls.write(early), "given up before it was written");
        assert!(!calls.expects(number));
    }

    #[test]
    fn there_are_only_so_many_and_one_that_is_over_makes_room() {
        let calls = Calls::new();
        let mut all: Vec<Asked> = (0..AT_ONCE).map(|_| calls.begin().unwrap()).collect();
        let refused = calls.begin().unwrap_err();
        assert_eq!(refused.reason, Reason::Overloaded);
        all.pop();
        calls.begin().unwrap();
        calls.end();
        assert_eq!(calls.begin().unwrap_err().reason, Reason::Lost);
    }
}
