//! Placement: what of the queue runs where. Filter the nodes, score what is left, and fill by ranges.
//!
//! [`plan`] is a pure function of the state, of what the leader has heard from each node, and of the coefficients. It never
//! changes the state: its plan goes through `decide`, which checks everything again. Called by the control loop's scheduling
//! round; [`explain_job`] and [`explain_sandbox`] answer people.

#![forbid(unsafe_code)]

mod config;
mod explain;
mod pool;
mod quota;
mod sandboxes;
mod score;
mod share;
mod tasks;

use std::collections::BTreeMap;

use prism_state::{Plan, State};
use prism_types::NodeId;

pub use config::{Config, JOBS_MAX, NodeView, Weights};
pub use explain::{Explanation, NodeVerdict, Verdict, explain_job, explain_sandbox};
pub use score::Score;

/// Whether anything may want a place. Without it there is nothing to plan, however many nodes there are.
pub fn has_work(state: &State) -> bool {
    state.queue().next().is_some() || state.sandboxes_pending().next().is_some()
}

/// Whether another plan may place more at once: this one, made of this state, is at a bound. A bound keeps a round short, and must
/// not keep what waits behind it until something else happens.
pub fn is_cut(state: &State, plan: &Plan, config: &Config) -> bool {
    let tasks = plan.placements.iter().map(|p| p.tasks.len()).sum::<usize>();
    let few = |n: usize, most: u32| u32::try_from(n).is_ok_and(|n| n < most);
    !plan.is_empty()
        && (!few(tasks, config.tasks_max)
            || !few(plan.sandboxes.len(), config.sandboxes_max)
            || state.queue().nth(config.jobs_max).is_some())
}

/// Plans placements for what waits: sandboxes first (someone is waiting for them), then tasks by priority and age, fairly
/// between jobs of one priority. Nodes without a view are not used.
///
/// Costs the number of nodes once, and then what it places; a task's cost does not grow with nodes or with the job.
pub fn plan(state: &State, views: &BTreeMap<NodeId, NodeView>, config: &Config) -> Plan {
    let mut pool = pool::Pool::new(state, views, config);
    let quotas = quota::Quotas::new(state);
    let sandboxes = sandboxes::plan(state, &mut pool, &quotas, config);
    let placements = tasks::plan(state, &mut pool, &quotas, config);
    Plan {
        placements,
        sandboxes,
    }
}
