//! Why a job or sandbox is where it is, or waits: a sentence, and a verdict for each node.

use std::collections::BTreeMap;

use prism_spec::IsolationSpec;
use prism_state::{Job, Node, SandboxRecord, State};
use prism_types::{LEASE_KILL, LEASE_WAIT, Name, NodeId, Resources, SandboxState, TaskState};

use crate::pool::{Need, closed};
use crate::{Config, NodeView, Score};

/// Nodes named in a sentence.
const NAMED_MAX: usize = 6;

/// Why something is where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// For people.
    pub sentence: String,
    /// What each node is to it.
    pub nodes: Vec<NodeVerdict>,
}

/// What one node is to it.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeVerdict {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// What it is.
    pub verdict: Verdict,
}

/// Whether it can be placed on a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It could be placed there; the lowest score is chosen.
    Fits(Score),
    /// Not there, for this reason.
    Dropped(String),
}

/// Explains a job.
pub fn explain_job(
    state: &State,
    views: &BTreeMap<NodeId, NodeView>,
    config: &Config,
    job: &Job,
) -> Explanation {
    let spec = job.spec();
    let nodes = verdicts(state, views, config, &Need::of(spec));
    let mut sentence = job_sentence(state, job, &nodes);
    if spec.single_instance && !job.record().state.is_final() {
        sentence.push_str("; ");
        sentence.push_str(&bound());
    }
    Explanation { sentence, nodes }
}

/// Explains a sandbox.
pub fn explain_sandbox(
    state: &State,
    views: &BTreeMap<NodeId, NodeView>,
    config: &Config,
    sandbox: &SandboxRecord,
) -> Explanation {
    let spec = &sandbox.spec;
    let need = Need {
        resources: &spec.resources,
        image: &spec.image,
        isolation: IsolationSpec::Sandbox,
        single: false,
    };
    let nodes = verdicts(state, views, config, &need);
    let place = sandbox.node.and_then(|id| state.node(id));
    let sentence = match (sandbox.state, place) {
        (SandboxState::Pending, _) => quota_sentence(state, &spec.namespace, &spec.resources, 0)
            .unwrap_or_else(|| wait_sentence(&spec.resources, &nodes)),
        (_, Some(node)) => format!("{} on {}", sandbox.state, node.record().name),
        (_, None) => sandbox.state.to_string(),
    };
    let sentence = match sandbox.message.is_empty() {
        true => sentence,
        false => format!("{sentence}: {}", sandbox.message),
    };
    Explanation { sentence, nodes }
}

/// The bound within which no two runs of a task of a single-instance job live.
fn bound() -> String {
    format!(
        "single instance: a run ends by itself {LEASE_KILL} after the last word that a leader confirmed to its node, and the next begins {LEASE_WAIT} after its node was last heard of at the earliest"
    )
}

fn job_sentence(state: &State, job: &Job, nodes: &[NodeVerdict]) -> String {
    let r = job.record();
    let counts = job.counts();
    if r.state.is_final() || r.cancel.is_some() {
        return match r.message.is_empty() {
            true => format!("it is over: {}", r.state),
            false => format!("{}: {}", r.state, r.message),
        };
    }
    if r.paused {
        return "it is paused; prismctl job resume lets it go on".to_owned();
    }
    if let Some(first) = r.waiting_for.first() {
        let name = state.job(*first).map(|j| j.spec().name.to_string());
        let what = name.unwrap_or_else(|| first.to_string());
        return match r.waiting_for.len() - 1 {
            0 => format!("it waits until job {what} ({first}) completes"),
            more => format!("it waits until job {what} ({first}) and {more} more complete"),
        };
    }
    let retrying = counts.of(TaskState::Retrying);
    if job.ready_len() == 0 {
        return format!(
            "no task waits for a place: {} are placed, {retrying} wait to be tried again",
            counts.placed()
        );
    }
    if job.lanes_left() == 0 {
        let limit = job.spec().concurrency.unwrap_or_default();
        return format!(
            "{} tasks wait because its concurrency of {limit} is used up",
            job.ready_len()
        );
    }
    let spec = job.spec();
    if let Some(quota) = quota_sentence(state, &spec.namespace, &spec.resources, 1) {
        return format!("{} tasks wait: {quota}", job.ready_len());
    }
    let wait = wait_sentence(&spec.resources, nodes);
    format!("{} tasks wait; each {wait}", job.ready_len())
}

/// Such as `quota of namespace team: cpu 4 of 4 in use`, if that is what something waits for.
fn quota_sentence(state: &State, namespace: &Name, need: &Resources, tasks: u32) -> Option<String> {
    let quota = &state.namespace(namespace)?.quota;
    let lacks = quota.used_up(&state.usage(namespace), need, tasks)?;
    Some(format!("quota of namespace {namespace}: {lacks}"))
}

/// Such as `needs 2 cpu, 4Gi memory: n1 has 1.2Gi memory free, n3 cordoned`.
fn wait_sentence(need: &Resources, nodes: &[NodeVerdict]) -> String {
    let needs = format!("needs {}", amount(need));
    if nodes.is_empty() {
        return format!("{needs}: there is no node");
    }
    let fits = nodes.iter().find(|n| matches!(n.verdict, Verdict::Fits(_)));
    if let Some(node) = fits {
        return format!(
            "{needs}: {} has room, it is placed with its turn",
            node.name
        );
    }
    let mut parts: Vec<String> = nodes
        .iter()
        .take(NAMED_MAX)
        .filter_map(|n| match &n.verdict {
            Verdict::Dropped(why) => Some(format!("{} {why}", n.name)),
            Verdict::Fits(_) => None,
        })
        .collect();
    if nodes.len() > NAMED_MAX {
        parts.push(format!("and {} more", nodes.len() - NAMED_MAX));
    }
    format!("{needs}: {}", parts.join(", "))
}

fn verdicts(
    state: &State,
    views: &BTreeMap<NodeId, NodeView>,
    config: &Config,
    need: &Need<'_>,
) -> Vec<NodeVerdict> {
    let each = state.nodes().map(|node| {
        let record = node.record();
        let view = views.get(&record.id);
        let verdict = match (dropped(node, view, need), view) {
            (Some(why), _) => Verdict::Dropped(why),
            (None, view) => {
                let view = view.copied().unwrap_or_default();
                let lanes = node.lanes().values().sum();
                let waiting = node.tasks().saturating_sub(lanes);
                let left = node.free().minus(need.resources, 1);
                let w = &config.weights;
                Verdict::Fits(Score::new(
                    w,
                    &view,
                    waiting,
                    lanes,
                    &left,
                    &record.capacity,
                ))
            }
        };
        NodeVerdict {
            node: record.id,
            name: record.name.to_string(),
            verdict,
        }
    });
    each.collect()
}

fn dropped(node: &Node, view: Option<&NodeView>, need: &Need<'_>) -> Option<String> {
    let record = node.record();
    if let Some(why) = closed(node, view) {
        return Some(why);
    }
    if let Some(why) = need.misfit(node, view) {
        return Some(why);
    }
    let wants = need.resources;
    if wants.fits(&node.free()) {
        return None;
    }
    if !wants.fits(&record.capacity) {
        return Some(format!(
            "has only {} in all",
            lacking(wants, &record.capacity)
        ));
    }
    Some(format!("has {} free", lacking(wants, &node.free())))
}

/// The amounts of which there is too little.
fn lacking(wants: &Resources, has: &Resources) -> String {
    let mut parts = Vec::new();
    if wants.cpu > has.cpu {
        parts.push(format!("{} cpu", has.cpu));
    }
    if wants.memory > has.memory {
        parts.push(format!("{} memory", size(has.memory.0)));
    }
    if wants.disk > has.disk {
        parts.push(format!("{} disk", size(has.disk.0)));
    }
    parts.join(" and ")
}

fn amount(r: &Resources) -> String {
    let mut parts = vec![
        format!("{} cpu", r.cpu),
        format!("{} memory", size(r.memory.0)),
    ];
    if r.disk.0 > 0 {
        parts.push(format!("{} disk", size(r.disk.0)));
    }
    parts.join(", ")
}

/// A size for people: `1.2Gi`.
fn size(bytes: u64) -> String {
    let units = [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")];
    for (shift, unit) in units {
        if bytes >= 1 << shift {
            let tenths = (u128::from(bytes) * 10) >> shift;
            let (whole, tenth) = (tenths / 10, tenths % 10);
            return match tenth {
                0 => format!("{whole}{unit}"),
                _ => format!("{whole}.{tenth}{unit}"),
            };
        }
    }
    bytes.to_string()
}
