//! A job's spec as it was before `single_instance`: how earlier versions wrote it down and tell each other of it.

use std::collections::BTreeMap;

use prism_types::{Labels, Millis, Name, Resources};
use serde::Deserialize;

use crate::job::{Backoff, FileSpec, ImageRef, IsolationSpec, JobSpec, Work};

/// The first form of a [`JobSpec`]. Only read; written, it is cut from the present form ([`FirstSpec::cut`]).
#[derive(Debug, Deserialize)]
pub struct FirstSpec {
    name: Name,
    namespace: Name,
    group: Option<Name>,
    task: String,
    work: Work,
    env: BTreeMap<String, String>,
    files: Vec<FileSpec>,
    image: ImageRef,
    isolation: IsolationSpec,
    resources: Resources,
    pids: u32,
    retries: u32,
    backoff: Backoff,
    timeout: Option<Millis>,
    concurrency: Option<u32>,
    priority: i32,
    max_failures: Option<u32>,
    after: Vec<String>,
    labels: Labels,
}

impl FirstSpec {
    /// Makes the first form of a spec out of the present one, which has just been written (in postcard) at the end of `written`:
    /// `single_instance`, the last field, is a byte of its own. Answers whether it did: a spec that says something there has no
    /// first form, and is left as it is.
    pub fn cut(spec: &JobSpec, written: &mut Vec<u8>) -> bool {
        if !spec.single_instance {
            written.pop();
        }
        !spec.single_instance
    }
}

impl From<FirstSpec> for JobSpec {
    fn from(old: FirstSpec) -> Self {
        Self {
            name: old.name,
            namespace: old.namespace,
            group: old.group,
            task: old.task,
            work: old.work,
            env: old.env,
            files: old.files,
            image: old.image,
            isolation: old.isolation,
            resources: old.resources,
            pids: old.pids,
            retries: old.retries,
            backoff: old.backoff,
            timeout: old.timeout,
            concurrency: old.concurrency,
            priority: old.priority,
            max_failures: old.max_failures,
            after: old.after,
            labels: old.labels,
            single_instance: false,
        }
    }
}
