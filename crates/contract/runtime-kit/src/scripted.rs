//! A runtime that does what a test says.

use std::sync::{Arc, Mutex};

use prism_runtime::{
    BootMs, Capability, EventSink, Launch, Observed, RunEvent, Runtime, RuntimeError,
};
use prism_types::{Millis, RunId};

/// What was asked of the runtime, and how it tells.
#[derive(Default)]
pub struct Script {
    /// Asked to be launched, in order.
    pub launched: Mutex<Vec<RunId>>,
    /// Asked to be stopped, in order.
    pub stopped: Mutex<Vec<RunId>>,
    /// Leases of what was asked to be launched.
    pub leases: Mutex<Vec<Option<BootMs>>>,
    /// Leases that were renewed, in order.
    pub renewed: Mutex<Vec<(RunId, BootMs)>>,
    /// Asked to be forgotten, in order.
    pub forgotten: Mutex<Vec<RunId>>,
    /// What it says it found when it is asked.
    pub observed: Mutex<Vec<Observed>>,
    sink: Mutex<Option<EventSink>>,
}

impl Script {
    /// The runtime of this script.
    pub fn runtime(self: &Arc<Self>, sink: EventSink) -> Arc<dyn Runtime> {
        *self.sink.lock().expect("no holder of this lock panics") = Some(sink);
        Arc::new(Scripted(self.clone()))
    }

    /// Tells events, as the runtime's own thread would.
    pub fn tell(&self, events: Vec<RunEvent>) {
        let sink = self.sink.lock().expect("no holder of this lock panics");
        std::thread::scope(|scope| {
            scope.spawn(|| sink.as_ref().expect("a runtime was made of it")(events));
        });
    }
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Script")
            .field("launched", &self.launched)
            .finish_non_exhaustive()
    }
}

struct Scripted(Arc<Script>);

impl Runtime for Scripted {
    fn capabilities(&self) -> Vec<Capability> {
        vec![Capability {
            name: "scripts".into(),
            works: true,
            found: String::new(),
            lost: String::new(),
            required: false,
        }]
    }
    fn launch(&self, batch: Vec<Launch>) -> Result<(), RuntimeError> {
        self.0
            .leases
            .lock()
            .expect("no holder of this lock panics")
            .extend(batch.iter().map(|launch| launch.lease));
        let ids = batch.into_iter().map(|launch| launch.id);
        self.0
            .launched
            .lock()
            .expect("no holder of this lock panics")
            .extend(ids);
        Ok(())
    }
    fn stop(&self, ids: &[RunId], _: Millis) -> Result<(), RuntimeError> {
        self.0
            .stopped
            .lock()
            .expect("no holder of this lock panics")
            .extend_from_slice(ids);
        Ok(())
    }
    fn renew(&self, ids: &[RunId], until: BootMs) -> Result<(), RuntimeError> {
        self.0
            .renewed
            .lock()
            .expect("no holder of this lock panics")
            .extend(ids.iter().map(|id| (id.clone(), until)));
        Ok(())
    }
    fn forget(&self, ids: &[RunId]) -> Result<(), RuntimeError> {
        self.0
            .forgotten
            .lock()
            .expect("no holder of this lock panics")
            .extend_from_slice(ids);
        Ok(())
    }
    fn observe(&self) -> Result<Vec<Observed>, RuntimeError> {
        Ok(self
            .0
            .observed
            .lock()
            .expect("no holder of this lock panics")
            .clone())
    }
    without_processes!();

    fn shutdown(&self) {}
}
