//! Memory for what goes in and out: bodies and answers take room by their bytes, and wait a moment or are refused when
//! there is none. So the total is bounded however many ask.

use std::sync::Arc;
use std::time::Duration;

use prism_types::{Millis, Reason};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::refuse::{Answered, Refusal};

/// Bytes of one permit.
const UNIT: usize = 1 << 10;
/// What a client that is refused is told to wait.
const AGAIN: Millis = Millis(2_000);

/// Room of a size.
#[derive(Debug)]
pub(crate) struct Room {
    what: &'static str,
    units: Arc<Semaphore>,
    most: u32,
    wait: Duration,
}

/// Room that was taken; given back when dropped.
#[derive(Debug, Default)]
pub(crate) struct Taken(Option<OwnedSemaphorePermit>);

impl Taken {
    /// Gives back all but room for so many bytes.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        if let Some(permit) = &mut self.0 {
            let rest = permit.num_permits().saturating_sub(units(bytes) as usize);
            drop(permit.split(rest));
        }
    }
}

impl Room {
    /// Room for so many bytes of `what`.
    pub(crate) fn new(what: &'static str, bytes: usize, wait: Duration) -> Self {
        let most = units(bytes).max(1);
        Self {
            what,
            units: Arc::new(Semaphore::new(most as usize)),
            most,
            wait,
        }
    }

    /// Takes room for so many bytes, or all there is if that is less. First come, first served.
    pub(crate) async fn take(&self, bytes: usize) -> Answered<Taken> {
        let wanted = units(bytes).min(self.most);
        let taken = self.units.clone().acquire_many_owned(wanted);
        match tokio::time::timeout(self.wait, taken).await {
            Ok(Ok(permit)) => Ok(Taken(Some(permit))),
            Ok(Err(_)) | Err(_) => Err(self.full()),
        }
    }

    fn full(&self) -> Refusal {
        let message = format!(
            "the server has no memory left for {}: others take the {} MiB that there are; nothing was changed, send it again later",
            self.what,
            (self.most as usize * UNIT) >> 20
        );
        let mut refusal = Refusal::new(Reason::Overloaded, message).retryable();
        refusal.rejection.retry_after = Some(AGAIN);
        refusal
    }
}

/// Units of so many bytes.
fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}
