//! A small workload that does some of everything, and goes on after a refusal.

use anyhow::Result;
use prism_e2e::{Api, Oracle};
use serde_json::json;

use crate::image;

/// Tasks of the first job.
const TASKS: u64 = 24;
/// Bytes of an argument, of which a few fill a journal.
const LONG: usize = 100_000;

/// What was refused or went unanswered.
pub type Refused = Vec<String>;

fn note<T>(refused: &mut Refused, what: &str, outcome: Result<T>) -> Option<T> {
    outcome
        .map_err(|e| refused.push(format!("{what}: {e:#}")))
        .ok()
}

/// Jobs with and without files, sandboxes with files and programs, a snapshot and what is made of it, an image.
pub fn everything(oracle: &mut Oracle, api: &Api, archive: &str) -> Refused {
    let mut refused = Refused::new();
    let no = &mut refused;
    note(no, "job", oracle.submit(api, TASKS));
    note(no, "job with files", with_files(oracle, api, "the file\n"));
    note(no, "image", oracle.image(api, archive, image::NAME));
    if let Some(sandbox) = note(no, "sandbox", oracle.sandbox(api)) {
        note(no, "file", oracle.file(api, sandbox, b"one"));
        note(no, "exec", oracle.exec(api, sandbox, &["echo", "done"]));
        note(no, "snapshot", oracle.snapshot(api, sandbox));
        note(no, "restore", oracle.restore(api));
        note(no, "file", oracle.file(api, sandbox, b"two"));
    }
    refused
}

/// Submits a job whose tasks need a file that comes along.
pub fn with_files(oracle: &mut Oracle, api: &Api, content: &str) -> Result<String> {
    let spec = json!({
        "command": ["test", "-s", "data.txt"],
        "files": [{"path": "data.txt", "content": content}],
        "resources": {"cpu": "50m", "memory": "32Mi"},
    });
    oracle.submit_spec(api, spec, 2)
}

/// Jobs of a mebibyte each.
pub fn large_jobs(oracle: &mut Oracle, api: &Api, count: usize) -> Refused {
    let mut refused = Refused::new();
    for _ in 0..count {
        // Equal content would be kept once.
        let number = oracle.acknowledged().jobs + refused.len() as u64;
        let content = format!("{number} {}\n", "x".repeat(1 << 20));
        note(&mut refused, "large job", with_files(oracle, api, &content));
    }
    refused
}

/// Programs with long arguments: each is written to the journal of sandboxes twice.
pub fn long_programs(oracle: &mut Oracle, api: &Api, count: usize) -> Refused {
    let mut refused = Refused::new();
    let Some(sandbox) = note(&mut refused, "sandbox", oracle.sandbox(api)) else {
        return refused;
    };
    let long = "y".repeat(LONG);
    for _ in 0..count {
        let run = oracle.exec(api, sandbox, &["true", &long]);
        note(&mut refused, "long program", run);
    }
    refused
}

/// A task that prints 20 MiB, of which 16 are kept.
pub fn much_output(oracle: &mut Oracle, api: &Api) -> Refused {
    let mut refused = Refused::new();
    let spec = json!({
        "command": ["head", "-c", "20971520", "/dev/zero"],
        "resources": {"cpu": "50m", "memory": "32Mi"},
    });
    note(&mut refused, "job", oracle.submit_spec(api, spec, 1));
    refused
}
