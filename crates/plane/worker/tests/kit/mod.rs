//! A runtime that does what a test says, and files that are not there.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use prism_runtime::{
    Capability, Entry, EventSink, Exec, HostFiles, ImageInfo, Launch, Observed, RunEvent, Runtime,
    RuntimeError, Saved, Usage,
};
use prism_types::{Millis, RunId};

/// What was asked of the runtime, and how it tells.
#[derive(Default)]
pub struct Script {
    pub launched: Mutex<Vec<RunId>>,
    pub stopped: Mutex<Vec<RunId>>,
    pub forgotten: Mutex<Vec<RunId>>,
    pub observed: Mutex<Vec<Observed>>,
    sink: Mutex<Option<EventSink>>,
}

impl Script {
    /// The runtime of this script.
    pub fn runtime(self: &Arc<Self>, sink: EventSink) -> Arc<dyn Runtime> {
        *self.sink.lock().unwrap() = Some(sink);
        Arc::new(Scripted(self.clone()))
    }

    /// Tells events, as the runtime's own thread would.
    pub fn tell(&self, events: Vec<RunEvent>) {
        let sink = self.sink.lock().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| sink.as_ref().unwrap()(events));
        });
    }
}

struct Scripted(Arc<Script>);

fn nothing<T>() -> Result<T, RuntimeError> {
    Err(RuntimeError::NotFound("the script has none".into()))
}

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
        let ids = batch.into_iter().map(|launch| launch.id);
        self.0.launched.lock().unwrap().extend(ids);
        Ok(())
    }
    fn exec(&self, _: Exec) -> Result<(), RuntimeError> {
        nothing()
    }
    fn input(&self, _: &RunId, _: &[u8], _: bool) -> Result<(), RuntimeError> {
        nothing()
    }
    fn signal(&self, _: &RunId, _: i32) -> Result<(), RuntimeError> {
        nothing()
    }
    fn resize(&self, _: &RunId, _: u16, _: u16) -> Result<(), RuntimeError> {
        nothing()
    }
    fn stop(&self, ids: &[RunId], _: Millis) -> Result<(), RuntimeError> {
        self.0.stopped.lock().unwrap().extend_from_slice(ids);
        Ok(())
    }
    fn forget(&self, ids: &[RunId]) -> Result<(), RuntimeError> {
        self.0.forgotten.lock().unwrap().extend_from_slice(ids);
        Ok(())
    }
    fn observe(&self) -> Result<Vec<Observed>, RuntimeError> {
        Ok(self.0.observed.lock().unwrap().clone())
    }
    fn usage(&self, _: &RunId) -> Result<Usage, RuntimeError> {
        nothing()
    }
    fn root(&self, _: &RunId) -> Result<PathBuf, RuntimeError> {
        nothing()
    }
    fn shutdown(&self) {}
}

/// No files.
pub struct NoFiles;

impl HostFiles for NoFiles {
    fn read(&self, _: &RunId, _: &str, _: u64, _: usize) -> Result<(Vec<u8>, bool), RuntimeError> {
        nothing()
    }
    fn write(&self, _: &RunId, _: &str, _: &[u8], _: u32) -> Result<(), RuntimeError> {
        nothing()
    }
    fn list(&self, _: &RunId, _: &str) -> Result<Vec<Entry>, RuntimeError> {
        nothing()
    }
    fn stat(&self, _: &RunId, _: &str) -> Result<Entry, RuntimeError> {
        nothing()
    }
    fn mkdir(&self, _: &RunId, _: &str) -> Result<(), RuntimeError> {
        nothing()
    }
    fn remove(&self, _: &RunId, _: &str) -> Result<(), RuntimeError> {
        nothing()
    }
    fn snapshot(&self, _: &Path, _: &Path) -> Result<Saved, RuntimeError> {
        nothing()
    }
    fn restore(&self, _: &Path, _: &Path) -> Result<(), RuntimeError> {
        nothing()
    }
    fn image_load(&self, _: &Path, _: Option<&str>) -> Result<String, RuntimeError> {
        nothing()
    }
    fn images(&self) -> Result<Vec<String>, RuntimeError> {
        Ok(Vec::new())
    }
    fn image(&self, _: &str) -> Result<ImageInfo, RuntimeError> {
        nothing()
    }
}
