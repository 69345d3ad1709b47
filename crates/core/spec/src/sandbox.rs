//! A sandbox as the core keeps it.

use std::collections::BTreeMap;

use prism_types::{Labels, Millis, Name, Resources};
use serde::{Deserialize, Serialize};

use crate::ImageRef;

/// An isolated Linux that lives until it is deleted or its time is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Its name, if it has one; unique among the living.
    pub name: Option<Name>,
    /// Whose it is.
    pub namespace: Name,
    /// Root file system.
    pub image: ImageRef,
    /// A snapshot of another sandbox to start from.
    pub snapshot: Option<String>,
    /// What it is given, and limited to.
    pub resources: Resources,
    /// Most processes and threads.
    pub pids: u32,
    /// Environment of every exec.
    pub env: BTreeMap<String, String>,
    /// Its lease of life; it is deleted when this time after its creation (or the last extension) is over. `None`: for ever.
    pub timeout: Option<Millis>,
    /// For finding it again.
    pub labels: Labels,
}
