//! `placement`: decisions per second of the scheduler and the state machine, in memory, over many simulated nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use prism_scheduler::{Config, NodeView};
use prism_spec::WireKind;
use prism_state::{Command, NodeFacts, Registration, Reply, State, Submission};
use prism_types::{Bytes, Id, JobId, Labels, MilliCpu, NodeId, Resources, TimeMs};
use serde_json::{Value, json};

use crate::Scale;
use crate::stats::{per_s, percentile_ms};

/// A moment to begin with.
const BEGIN: TimeMs = TimeMs(1_000_000);
/// Processors of each node.
const CPUS: u32 = 16;

pub fn run(scale: Scale) -> Result<Value> {
    let nodes = scale.pick(5_000, 200);
    let tasks = nodes * CPUS;
    let mut state = State::default();
    let mut views = BTreeMap::new();
    carry_out(
        &mut state,
        &Command::Init {
            cluster: Id::new(1, 1),
        },
    )?;
    for number in 0..nodes {
        let registration = node(number)?;
        views.insert(registration.id, NodeView::default());
        carry_out(&mut state, &Command::RegisterNode(registration))?;
    }
    carry_out(&mut state, &Command::SubmitJob(job(tasks)?))?;
    let (mut placed, mut rounds) = (0u64, Vec::new());
    while placed < u64::from(tasks) {
        let start = Instant::now();
        let plan = prism_scheduler::plan(&state, &views, &Config::default());
        ensure!(
            !plan.is_empty(),
            "nothing more is placed after {placed} of {tasks} tasks"
        );
        let reply = carry_out(&mut state, &Command::Assign(plan))?;
        rounds.push(start.elapsed());
        if let Reply::Assigned { accepted, .. } = reply {
            placed += u64::from(accepted);
        }
    }
    let all: Duration = rounds.iter().sum();
    Ok(json!({
        "nodes": nodes,
        "decisions": placed,
        "decisions_per_s": per_s(placed, all),
        "rounds": rounds.len(),
        "round_p50_ms": percentile_ms(&mut rounds, 0.5),
        "round_p99_ms": percentile_ms(&mut rounds, 0.99),
        "quick": scale.quick,
    }))
}

/// Decides and applies, as the leader does, without the commit.
fn carry_out(state: &mut State, command: &Command) -> Result<Reply> {
    let decided = prism_state::decide(state, command, BEGIN)?;
    state.apply(&decided.changes);
    Ok(decided.reply)
}

fn node(number: u32) -> Result<Registration> {
    let facts = NodeFacts {
        cpus: CPUS,
        isolation: true,
        ..NodeFacts::default()
    };
    Ok(Registration {
        id: NodeId::new(BEGIN.0, u128::from(number) + 1),
        name: format!("node-{number}").parse()?,
        labels: Labels::new(),
        capacity: Resources {
            cpu: MilliCpu(CPUS * 1000),
            memory: Bytes(64 << 30),
            disk: Bytes(1 << 40),
        },
        allow_plain: false,
        facts,
    })
}

fn job(tasks: u32) -> Result<Submission> {
    let body = json!({
        "job": "placed", "command": ["/bin/true"], "array": tasks,
        "resources": {"cpu": "1", "memory": "1Mi"},
    });
    let parsed = prism_spec::parse_wire(WireKind::Job, body.to_string().as_bytes())?;
    Ok(Submission {
        id: JobId::new(BEGIN.0, 1),
        spec: Arc::new(parsed.spec),
        blobs: Vec::new(),
        seed: 1,
    })
}
