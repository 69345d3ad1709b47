//! `prism-bench NAME`: runs one bench on this machine and prints one JSON object, `{name, metrics, host}`.
//!
//! Both sides of a comparison are measured in the same run. Progress goes to standard error. `cargo xtask bench` calls it.

#![forbid(unsafe_code)]

mod burst;
mod exhaustion;
mod failover;
mod fleet;
mod host;
mod idle_footprint;
mod node;
mod placement;
mod plane;
mod played;
mod procs;
mod sandbox_start;
mod servers;
mod slow_members;
mod stats;
mod store_commit;
mod task_overhead;
mod task_throughput;
mod worker_scale;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use prism_types::nearest;
use serde_json::{Value, json};

const USAGE: &str = "usage: prism-bench NAME [--quick] [--json], or prism-bench --list";

/// How large a bench runs.
#[derive(Clone, Copy, Debug)]
struct Scale {
    quick: bool,
}

impl Scale {
    /// The full size, or the one for a quick look.
    fn pick<T>(self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// A bench.
struct Bench {
    name: &'static str,
    about: &'static str,
    /// Measures; answers the metrics as a JSON object.
    run: fn(Scale) -> Result<Value>,
}

const BENCHES: &[Bench] = &[
    Bench {
        name: "burst",
        about: "sandboxes all alive at once on one node, then all gone",
        run: burst::run,
    },
    Bench {
        name: "exhaustion",
        about: "a small command in a sandbox, alone and beside one that takes all it can get",
        run: exhaustion::run,
    },
    Bench {
        name: "failover",
        about: "leader killed under load until a write is acknowledged again; what was lost",
        run: failover::run,
    },
    Bench {
        name: "idle-footprint",
        about: "memory and processor time of an idle single node",
        run: idle_footprint::run,
    },
    Bench {
        name: "placement",
        about: "placement decisions per second over simulated nodes",
        run: placement::run,
    },
    Bench {
        name: "sandbox-start",
        about: "API create to the first byte of the first command's output",
        run: sandbox_start::run,
    },
    Bench {
        name: "slow-members",
        about: "GET /cluster/resources and others while 5 of 50 workers have fallen silent",
        run: slow_members::run,
    },
    Bench {
        name: "store-commit",
        about: "durable commits per second: 1, 64, 1,024 callers; 3 servers; etcd",
        run: store_commit::run,
    },
    Bench {
        name: "task-overhead",
        about: "no-op tasks: submit, decide, commit, worker session, result, without a process",
        run: task_overhead::run,
    },
    Bench {
        name: "task-throughput",
        about: "tasks of /bin/true, plain and sandboxed, beside a bare loop of the same program",
        run: task_throughput::run,
    },
    Bench {
        name: "worker-scale",
        about: "what 100 to 5,000 workers cost that are only there; tasks/s of 1 to 64",
        run: worker_scale::run,
    },
];

fn main() -> ExitCode {
    // Before any thread or runtime exists: a supervisor is single-threaded.
    prism_sandbox::maybe_supervise();
    match real_main() {
        Ok(code) => code,
        Err(e) => {
            eprintln!("prism-bench: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn real_main() -> Result<ExitCode> {
    let mut names = Vec::new();
    let mut scale = Scale { quick: false };
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--quick" => scale.quick = true,
            // The only form there is.
            "--json" => {}
            "--list" => {
                for bench in BENCHES {
                    println!("{:<16} {}", bench.name, bench.about);
                }
                return Ok(ExitCode::SUCCESS);
            }
            "-h" | "--help" => {
                println!("{USAGE}");
                return Ok(ExitCode::SUCCESS);
            }
            flag if flag.starts_with('-') => return Ok(usage(&format!("no option {flag:?}"))),
            name => names.push(name.to_owned()),
        }
    }
    let [name] = names.as_slice() else {
        return Ok(usage("expected one name"));
    };
    let Some(bench) = BENCHES.iter().find(|b| b.name == name) else {
        let near = nearest(name, BENCHES.iter().map(|b| b.name));
        let hint = near.map_or_else(String::new, |n| format!("; did you mean {n:?}?"));
        return Ok(usage(&format!("no bench {name:?}{hint}")));
    };
    logging()?;
    let metrics = (bench.run)(scale).with_context(|| format!("{name} did not finish"))?;
    let host = host::describe();
    println!(
        "{}",
        json!({"name": bench.name, "metrics": metrics, "host": host})
    );
    Ok(ExitCode::SUCCESS)
}

fn usage(what: &str) -> ExitCode {
    eprintln!("prism-bench: {what}\n{USAGE}");
    ExitCode::from(2)
}

/// Warnings of what is measured belong beside the figures.
fn logging() -> Result<()> {
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN);
    match log.try_init() {
        Ok(()) => Ok(()),
        Err(e) => bail!("logging cannot start: {e}"),
    }
}
