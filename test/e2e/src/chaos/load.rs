//! Work that goes on while something is killed, in a thread of its own: jobs, files, programs; all of it told to an oracle.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::http::Api;
use crate::oracle::Oracle;

use super::Random;

/// What one round of load does at most.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Tasks of the first job.
    pub tasks: u64,
    /// Small jobs after it.
    pub jobs: u64,
    /// The sandbox that gets files, if there is one.
    pub sandbox: Option<usize>,
}

/// What a round of load came to.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Jobs that were acknowledged.
    pub ids: Vec<String>,
    /// Requests with the right answer.
    pub done: u64,
    /// Requests without one.
    pub failed: u64,
}

impl Loaded {
    fn note<T>(&mut self, result: anyhow::Result<T>) -> Option<T> {
        match &result {
            Ok(_) => self.done += 1,
            Err(_) => self.failed += 1,
        }
        result.ok()
    }
}

impl Load {
    /// Goes on until all is done, `stop` is set, or a request has no answer.
    pub fn run(
        self,
        oracle: &mut Oracle,
        api: &Api,
        random: &mut Random,
        stop: &AtomicBool,
    ) -> Loaded {
        let mut loaded = Loaded::default();
        let first = loaded.note(oracle.submit(api, self.tasks));
        loaded.ids.extend(first);
        for _ in 0..self.jobs {
            if stop.load(Ordering::Relaxed) || loaded.failed > 0 {
                break;
            }
            let tasks = 1 + random.below(30);
            let job = loaded.note(oracle.submit(api, tasks));
            loaded.ids.extend(job);
            if let Some(sandbox) = self.sandbox
                && random.below(2) == 0
            {
                let size = usize::try_from(random.below(9_000)).unwrap_or(1);
                let content = vec![b'a' + random.number() as u8 % 26; size];
                loaded.note(oracle.file(api, sandbox, &content));
            }
        }
        loaded
    }
}
