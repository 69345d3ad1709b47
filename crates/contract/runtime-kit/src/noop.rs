//! A runtime that starts nothing: every task has started and ended well the moment it is launched. What is left is Prism's own cost.

use std::sync::Mutex;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{SystemTime, UNIX_EPOCH};

use prism_runtime::{
    BootMs, Capability, EventSink, Launch, Observed, RunEvent, Runtime, RuntimeError,
};
use prism_types::{ExitStatus, Millis, RunId, RunReport, StopCause, TimeMs};

/// The runtime.
pub struct Noop {
    batches: Mutex<Option<SyncSender<Vec<Launch>>>>,
}

impl Noop {
    /// One that tells `sink` on a thread of its own. `lanes`: most tasks that run at once, so that no launch ever waits.
    pub fn new(sink: EventSink, lanes: u32) -> Self {
        let (batches, launched) = sync_channel::<Vec<Launch>>(lanes as usize);
        std::thread::spawn(move || {
            for batch in launched {
                let at = now();
                let events = batch.into_iter().flat_map(|l| ended(l.id, at));
                sink(events.collect());
            }
        });
        Self {
            batches: Mutex::new(Some(batches)),
        }
    }
}

fn now() -> TimeMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    TimeMs(since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
}

fn ended(id: RunId, at: TimeMs) -> [RunEvent; 2] {
    let report = RunReport {
        exit: ExitStatus::Code(0),
        cause: StopCause::None,
        started: at,
        wall: Millis(0),
        cpu_us: 0,
        memory_peak: 0,
        stdout_bytes: 0,
        stderr_bytes: 0,
        detail: String::new(),
    };
    let started = RunEvent::Started {
        id: id.clone(),
        at,
        pid: 0,
    };
    [started, RunEvent::Exited { id, report }]
}

impl std::fmt::Debug for Noop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Noop")
    }
}

impl Runtime for Noop {
    fn capabilities(&self) -> Vec<Capability> {
        Vec::new()
    }

    fn launch(&self, batch: Vec<Launch>) -> Result<(), RuntimeError> {
        let batches = self.batches.lock().expect("no holder of this lock panics");
        let sent = batches.as_ref().is_some_and(|b| b.send(batch).is_ok());
        sent.then_some(())
            .ok_or_else(|| RuntimeError::Unavailable("it was shut down".to_owned()))
    }

    fn stop(&self, _: &[RunId], _: Millis) -> Result<(), RuntimeError> {
        Ok(())
    }

    fn renew(&self, _: &[RunId], _: BootMs) -> Result<(), RuntimeError> {
        Ok(())
    }

    fn forget(&self, _: &[RunId]) -> Result<(), RuntimeError> {
        Ok(())
    }

    fn observe(&self) -> Result<Vec<Observed>, RuntimeError> {
        Ok(Vec::new())
    }

    without_processes!();

    fn shutdown(&self) {
        *self.batches.lock().expect("no holder of this lock panics") = None;
    }
}
