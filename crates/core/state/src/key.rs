//! The keys of the store, as text: `jobs/01J…`, `tasks/01J…/0000002a`. Fixed widths, so that order of keys is order of numbers.

use prism_types::{JobId, Name, NodeId, NodeNo, SandboxId, TokenId};

use crate::Whom;

pub(crate) const META: &str = "meta";
pub(crate) const GOSSIP: &str = "gossip";

pub(crate) const ROTATION: &str = "rotation/root";

pub(crate) fn node(id: NodeId) -> String {
    format!("nodes/{id}")
}

pub(crate) fn job(id: JobId) -> String {
    format!("jobs/{id}")
}

pub(crate) fn spec(id: JobId) -> String {
    format!("specs/{id}")
}

pub(crate) fn block(job: JobId, number: u32) -> String {
    format!("tasks/{job}/{number:08x}")
}

pub(crate) fn lanes(job: JobId, node: NodeNo) -> String {
    format!("lanes/{job}/{:08x}", node.0)
}

pub(crate) fn sweep(job: JobId) -> String {
    format!("sweeps/{job}")
}

pub(crate) fn beam(job: JobId, beam: u32) -> String {
    format!("sweeps/{job}/{beam:08x}")
}

pub(crate) fn sandbox(id: SandboxId) -> String {
    format!("sandboxes/{id}")
}

pub(crate) fn token(id: TokenId) -> String {
    format!("tokens/{id}")
}

pub(crate) fn namespace(name: &Name) -> String {
    format!("namespaces/{name}")
}

pub(crate) fn join_token(id: TokenId) -> String {
    format!("joins/{id}")
}

pub(crate) fn member(id: NodeId) -> String {
    format!("members/{id}")
}

pub(crate) fn server(id: NodeId) -> String {
    format!("servers/{id}")
}

pub(crate) fn denied(whom: Whom) -> String {
    match whom {
        Whom::Node(id) => format!("denied/node-{id}"),
        Whom::Certificate(sha) => {
            let hex: String = sha.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("denied/certificate-{hex}")
        }
    }
}

pub(crate) fn idempotency(key: &str) -> String {
    format!("keys/{key}")
}

pub(crate) fn results(job: JobId, block: u32, seq: u32) -> String {
    format!("results/{job}/{block:08x}/{seq:08x}")
}

/// Key of what there is one of; its value is read with [`crate::decode_meta`].
pub fn meta_key() -> &'static str {
    META
}

/// Key of an event; its value is read with [`crate::decode_event`].
pub fn event_key(seq: u64) -> String {
    format!("events/{seq:016x}")
}

/// What the keys of all events begin with.
pub fn events_prefix() -> &'static str {
    "events/"
}

/// Key of a file's content by its SHA-256; its value is read with [`crate::decode_blob`].
pub fn blob_key(sha256: &str) -> String {
    format!("blobs/{sha256}")
}

/// What the keys of all results of a job begin with; values are read with [`crate::decode_results`].
pub fn job_results_prefix(job: JobId) -> String {
    format!("results/{job}/")
}

/// What the keys of the results of one block of a job begin with (task `i` is in block `i / 512`).
pub fn results_prefix(job: JobId, block: u32) -> String {
    format!("results/{job}/{block:08x}/")
}
