//! What time alone brings about. Bounded per tick, so that no tick is long; the next one goes on.

use std::sync::Arc;

use prism_types::{Reason, TaskState};

use super::draft::Draft;
use super::{drain, sandbox};
use crate::{Change, Reply};

/// Most timers of one kind that one tick handles.
const PER_TICK: usize = 20_000;

pub(super) fn tick(d: &mut Draft<'_>) -> Reply {
    let index = &d.state.index;
    let now = d.now;
    for (_, job, task) in index
        .due
        .iter()
        .take_while(|(at, ..)| *at <= now)
        .take(PER_TICK)
    {
        let Some(job) = d.job(*job) else { continue };
        if let Some(cell) = job.cell(*task)
            && cell.state == TaskState::Retrying
        {
            job.set(*task, cell.queued());
        }
    }
    let timers = index.sandbox_timer.iter();
    for (_, id) in timers.take_while(|(at, _)| *at <= now).take(PER_TICK) {
        match d.state.sandboxes.get(id) {
            Some(dead) if dead.state.is_final() => d.changes.push(Change::SandboxRemoved(*id)),
            Some(alive) => sandbox::stop(d, alive, Reason::Expired, "its time is over"),
            None => {}
        }
    }
    drain::tick(d);
    let timers = index.join_token_timer.iter();
    for (_, id) in timers.take_while(|(at, _)| *at <= now).take(PER_TICK) {
        d.changes.push(Change::JoinTokenRemoved(*id));
    }
    let timers = index.key_timer.iter();
    for (_, key) in timers.take_while(|(at, _)| *at <= now).take(PER_TICK) {
        d.changes.push(Change::KeyRemoved(Arc::clone(key)));
    }
    Reply::Ok
}
