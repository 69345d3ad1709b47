//! Files that are not there.

use std::path::Path;

use prism_runtime::{Entry, HostFiles, ImageInfo, RuntimeError, Saved};
use prism_types::RunId;

use crate::none;

/// Files of a node without files.
#[derive(Debug)]
pub struct NoFiles;

impl HostFiles for NoFiles {
    fn read(&self, _: &RunId, _: &str, _: u64, _: usize) -> Result<(Vec<u8>, bool), RuntimeError> {
        none()
    }

    fn write(&self, _: &RunId, _: &str, _: &[u8], _: u32) -> Result<(), RuntimeError> {
        none()
    }

    fn list(&self, _: &RunId, _: &str) -> Result<Vec<Entry>, RuntimeError> {
        none()
    }

    fn stat(&self, _: &RunId, _: &str) -> Result<Entry, RuntimeError> {
        none()
    }

    fn mkdir(&self, _: &RunId, _: &str) -> Result<(), RuntimeError> {
        none()
    }

    fn remove(&self, _: &RunId, _: &str) -> Result<(), RuntimeError> {
        none()
    }

    fn snapshot(&self, _: &Path, _: &Path) -> Result<Saved, RuntimeError> {
        none()
    }

    fn restore(&self, _: &Path, _: &Path) -> Result<(), RuntimeError> {
        none()
    }

    fn image_load(&self, _: &Path, _: Option<&str>) -> Result<String, RuntimeError> {
        none()
    }

    fn images(&self) -> Result<Vec<String>, RuntimeError> {
        Ok(Vec::new())
    }

    fn image(&self, _: &str) -> Result<ImageInfo, RuntimeError> {
        none()
    }
}
