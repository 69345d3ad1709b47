//! Waiting for one sandbox: who waits is woken by the commits that change it, and by no others. With many that wait, waking all of
//! them at each commit would cost each of them more, the more there are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use prism_types::SandboxId;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// Who waits for which sandbox.
#[derive(Debug, Default)]
pub(crate) struct Waits(Mutex<HashMap<SandboxId, Waited>>);

#[derive(Debug, Default)]
struct Waited {
    by: usize,
    wake: Arc<Notify>,
}

impl Waits {
    fn lock(&self) -> MutexGuard<'_, HashMap<SandboxId, Waited>> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// Wakes all that wait for this one.
    pub(crate) fn changed(&self, id: SandboxId) {
        if let Some(waited) = self.lock().get(&id) {
            waited.wake.notify_waiters();
        }
    }

    pub(crate) fn begin(self: &Arc<Self>, id: SandboxId) -> SandboxWait {
        let mut all = self.lock();
        let waited = all.entry(id).or_default();
        waited.by += 1;
        SandboxWait {
            id,
            wake: waited.wake.clone(),
            waits: self.clone(),
        }
    }
}

/// Wakes whoever waits for one sandbox; see [`crate::Control::await_sandbox`].
#[derive(Debug)]
pub struct SandboxWait {
    id: SandboxId,
    wake: Arc<Notify>,
    waits: Arc<Waits>,
}

impl SandboxWait {
    /// Ends with the next change of the sandbox that is committed after this call: so call it, look at the sandbox, and only
    /// then wait.
    pub fn change(&self) -> OwnedNotified {
        self.wake.clone().notified_owned()
    }
}

impl Drop for SandboxWait {
    fn drop(&mut self) {
        let mut all = self.waits.lock();
        if let Some(waited) = all.get_mut(&self.id) {
            waited.by -= 1;
            if waited.by == 0 {
                all.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn is_over(change: std::pin::Pin<&mut OwnedNotified>) -> bool {
        change.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn a_change_wakes_those_that_wait_for_it_and_no_others() {
        let waits = Arc::new(Waits::default());
        let [a, b] = [1, 2].map(|n| SandboxId::new(n, 1));
        let (first, second, other) = (waits.begin(a), waits.begin(a), waits.begin(b));
        let (mut one, mut two, mut three) = (
            pin!(first.change()),
            pin!(second.change()),
            pin!(other.change()),
        );
        // Even one that nobody has looked at yet.
        waits.changed(a);
        assert!(is_over(one.as_mut()) && is_over(two.as_mut()));
        assert!(!is_over(three.as_mut()));
        waits.changed(b);
        assert!(is_over(three.as_mut()));
        let mut later = pin!(first.change());
        assert!(!is_over(later.as_mut()), "what was before does not count");
    }

    #[test]
    fn nothing_is_kept_when_nobody_waits() {
        let waits = Arc::new(Waits::default());
        let id = SandboxId::new(1, 1);
        let (first, second) = (waits.begin(id), waits.begin(id));
        drop(first);
        let mut change = pin!(second.change());
        waits.changed(id);
        assert!(is_over(change.as_mut()));
        drop(second);
        assert!(waits.lock().is_empty());
        waits.changed(id);
    }
}
