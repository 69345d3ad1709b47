//! What clients submit: a job follows from the number of its request alone, so that a repeated request is the same.

use std::collections::BTreeMap;

use prism_spec::{Backoff, ImageRef, IsolationSpec, JobSpec, Work};
use prism_types::{Bytes, Labels, MilliCpu, Millis, Name, Resources};

use crate::rng::mix;

/// What one run of a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// For how long it runs; `None`: until it is stopped.
    pub takes: Option<u64>,
    /// How it exits.
    pub code: i32,
}

/// The name of a job by its request.
pub fn name(number: u64) -> Name {
    let text = format!("r{number}");
    text.parse().expect("a letter and digits are a name")
}

/// The request that a job is of.
pub fn number(spec: &JobSpec) -> u64 {
    let digits = spec.name.as_str().trim_start_matches('r');
    digits.parse().unwrap_or(0)
}

/// Whether the job of a request runs until it is cancelled, and its client does that.
pub fn is_endless(number: u64) -> bool {
    mix(number ^ 0xe4d).is_multiple_of(5)
}

/// Whether the tasks of the job of a request may run once only.
pub fn is_single(number: u64) -> bool {
    mix(number ^ 0x51e).is_multiple_of(3)
}

/// The job of a request.
pub fn spec(number: u64) -> JobSpec {
    let draw = |salt: u64, n: u64| mix(number.wrapping_mul(0x9e37) ^ mix(salt)) % n;
    let endless = is_endless(number);
    let count = match endless {
        true => 1 + draw(1, 2),
        false => [1, 2, 4, 8, 20][draw(1, 5) as usize],
    };
    // Some jobs wait for the first one of the run, which may be there or not.
    let after = match draw(2, 8) == 0 && number > 1 && !endless && !is_endless(1) {
        true => vec!["r1".to_owned()],
        false => Vec::new(),
    };
    let patient = draw(9, 2) == 0;
    JobSpec {
        name: name(number),
        namespace: "default".parse().expect("a word is a name"),
        group: None,
        task: String::new(),
        work: Work::Array {
            command: vec!["run".into()],
            count: u32::try_from(count).unwrap_or(1),
        },
        env: BTreeMap::new(),
        files: Vec::new(),
        image: ImageRef::Host,
        isolation: IsolationSpec::Sandbox,
        resources: Resources {
            cpu: MilliCpu([250, 500, 1_000][draw(3, 3) as usize]),
            memory: Bytes::mib([64, 256, 700][draw(4, 3) as usize]),
            disk: Bytes(0),
        },
        pids: 8,
        retries: u32::try_from(draw(5, 3)).unwrap_or(0),
        backoff: Backoff {
            initial: Millis(if patient { 4_000 } else { 200 }),
            factor: 2.0,
            max: Millis(if patient { 15_000 } else { 2_000 }),
            jitter: 0.2,
        },
        timeout: None,
        concurrency: (draw(6, 4) == 0).then_some(2),
        priority: i32::try_from(draw(7, 3)).unwrap_or(0) - 1,
        max_failures: (draw(8, 5) == 0).then_some(1),
        after,
        labels: Labels::new(),
        single_instance: is_single(number),
    }
}

/// What a node of the simulation offers.
pub fn capacity(draw: u64) -> Resources {
    let cpus = [1, 2, 4][(draw % 3) as usize];
    Resources {
        cpu: MilliCpu(cpus * 1_000),
        memory: Bytes::mib(u64::from(cpus) * 1_024),
        disk: Bytes(0),
    }
}
