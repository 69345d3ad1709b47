//! Runtimes that start no process, for benches and for tests of what stands on a runtime.

/// What neither runtime has: programs in sandboxes, input, signals, terminals, figures, roots.
macro_rules! without_processes {
    () => {
        fn exec(&self, _: prism_runtime::Exec) -> Result<(), RuntimeError> {
            crate::none()
        }

        fn input(&self, _: &RunId, _: &[u8], _: bool) -> Result<(), RuntimeError> {
            crate::none()
        }

        fn signal(&self, _: &RunId, _: i32) -> Result<(), RuntimeError> {
            crate::none()
        }

        fn resize(&self, _: &RunId, _: u16, _: u16) -> Result<(), RuntimeError> {
            crate::none()
        }

        fn usage(&self, _: &RunId) -> Result<prism_runtime::Usage, RuntimeError> {
            crate::none()
        }

        fn root(&self, _: &RunId) -> Result<std::path::PathBuf, RuntimeError> {
            crate::none()
        }
    };
}

mod files;
mod noop;
mod scripted;

pub use files::NoFiles;
pub use noop::Noop;
use prism_runtime::RuntimeError;
pub use scripted::Script;

fn none<T>() -> Result<T, RuntimeError> {
    Err(RuntimeError::Unsupported(
        "a runtime that runs nothing has nothing of the kind".to_owned(),
    ))
}
