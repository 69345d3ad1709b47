//! Runtimes that start no process, for benches and for tests of what stands on a runtime.

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
