//! Tasks: by priority, fairly between the jobs of one priority.
//!
//! A job's tasks run in lanes: room on a node that stays granted while the job has tasks there. A round first widens lanes
//! up to each job's fair share, then gives the rest of the room to whoever wants it, then sends tasks ahead to wait on nodes
//! that want them. When a job cannot get its share because others hold the room, those that it may take it from get no
//! further tasks: their lanes shrink as their tasks end, and the room comes free without stopping anything. It may take room
//! from jobs of lower priority, from jobs above their share, and, while it has none at all, from younger ones.

use std::collections::BTreeMap;

use prism_state::{Job, Placement, State};
use prism_types::{JobId, Resources};

use crate::Config;
use crate::pool::{Need, Pool, Slot};
use crate::quota::Quotas;
use crate::share::Share;

/// Nodes looked at for room that others could give back.
const RECLAIM_LOOKS_MAX: usize = 1_024;
/// Jobs looked at in a round, placed or not.
const LOOKS_MAX: usize = 4_096;

pub(crate) fn plan<'a>(
    state: &'a State,
    pool: &mut Pool<'_>,
    quotas: &'a Quotas<'a>,
    config: &Config,
) -> Vec<Placement> {
    let mut out = Vec::new();
    let mut left = config.tasks_max;
    // Those that only their quota holds back are passed over, so that they take no turn of others.
    let jobs = state.queue().filter(|job| !quotas.holds_back(job));
    let mut jobs = jobs.take(LOOKS_MAX).peekable();
    let mut places = config.jobs_max;
    while let Some(first) = jobs.peek() {
        let priority = first.spec().priority;
        let mut class: Vec<Share<'_>> = Vec::new();
        while let Some(job) = jobs.next_if(|j| j.spec().priority == priority) {
            if places > class.len() && runs_somewhere(pool, job) {
                quotas.promise(job);
                class.push(Share::new(job, quotas));
            }
        }
        places -= class.len();
        let starved = plan_class(state, pool, quotas, &mut class, &mut left);
        for share in class {
            out.extend(share.into_placements(pool));
        }
        if starved || left == 0 || places == 0 {
            break;
        }
    }
    out
}

/// Whether some node of the round could run the job if it were the only one there.
fn runs_somewhere(pool: &Pool<'_>, job: &Job) -> bool {
    let need = Need::of(job.spec());
    pool.slots.iter().any(|slot| {
        let whole = need.resources.fits(&slot.node.record().capacity);
        whole && need.misfit(slot.node, Some(&slot.view)).is_none()
    })
}

/// What a job of the class holds and what is fair.
struct Part {
    lanes: u32,
    fair: u32,
}

/// Plans the jobs of one priority; true if one of them waits for room that others hold.
fn plan_class(
    state: &State,
    pool: &mut Pool<'_>,
    quotas: &Quotas<'_>,
    class: &mut [Share<'_>],
    left: &mut u32,
) -> bool {
    // Whoever has least goes first; of equals the oldest, because the queue is in that order and the sort is stable.
    class.sort_by_key(|share| share.lanes);
    let held: u32 = class.iter().map(|s| s.lanes).sum();
    let many = u32::try_from(class.len()).unwrap_or(u32::MAX).max(1);
    let fair_of = |s: &Share<'_>| {
        let all = held.saturating_add(free_lanes(pool, s));
        all.div_ceil(many).max(1)
    };
    let part = |s: &Share<'_>| {
        let (lanes, fair) = (s.lanes, fair_of(s));
        (s.job.id(), Part { lanes, fair })
    };
    let parts: BTreeMap<JobId, Part> = class.iter().map(part).collect();
    let mut starved = false;
    let mut oldest_without: Option<JobId> = None;
    for share in class.iter_mut() {
        let id = share.job.id();
        if oldest_without.is_some_and(|oldest| id > oldest) {
            continue;
        }
        let fair = parts[&id].fair;
        widen(pool, share, fair.saturating_sub(share.lanes), left);
        let behind = share.lanes < fair && share.wants() > 0 && *left > 0;
        if behind && could_have(state, pool, share, &parts) {
            starved = true;
            if share.lanes == 0 {
                oldest_without.get_or_insert(id);
            }
        }
    }
    for share in class.iter_mut() {
        let id = share.job.id();
        if !starved {
            widen(pool, share, u32::MAX, left);
        }
        let gives_way = share.lanes > parts[&id].fair || oldest_without.is_some_and(|o| id > o);
        if (!starved || !gives_way) && !quotas.gives_way(share.job) {
            send_ahead(pool, share, left);
        }
    }
    starved
}

/// How many lanes of the job the free room of the round would hold.
fn free_lanes(pool: &Pool<'_>, share: &Share<'_>) -> u32 {
    let need = share.resources();
    let each = pool.slots.iter().map(|s| need.times_in(&s.free, 100_000));
    each.fold(0, u32::saturating_add).min(share.wants())
}

/// Whether some node would have room if those that have to give way did.
fn could_have(
    state: &State,
    pool: &Pool<'_>,
    share: &Share<'_>,
    parts: &BTreeMap<JobId, Part>,
) -> bool {
    let need = share.need();
    pool.slots.iter().take(RECLAIM_LOOKS_MAX).any(|slot| {
        let room = reclaimable(state, slot, share, parts);
        need.resources.fits(&room) && need.misfit(slot.node, Some(&slot.view)).is_none()
    })
}

fn reclaimable(
    state: &State,
    slot: &Slot<'_>,
    share: &Share<'_>,
    parts: &BTreeMap<JobId, Part>,
) -> Resources {
    let mut room = slot.free;
    for (id, lanes) in slot.node.lanes() {
        let Some(job) = state.job(*id).filter(|_| *id != share.job.id()) else {
            continue;
        };
        let given = match parts.get(id) {
            Some(_) if share.lanes == 0 && *id > share.job.id() => *lanes,
            Some(part) => part.lanes.saturating_sub(part.fair).min(*lanes),
            // One of the same priority with nothing to place gives its room back anyway, as its tasks end.
            None if job.spec().priority < share.job.spec().priority => *lanes,
            None => 0,
        };
        room = room.plus(&job.spec().resources, given);
    }
    room
}

fn widen(pool: &mut Pool<'_>, share: &mut Share<'_>, most: u32, left: &mut u32) {
    let mut more = most.min(share.wants()).min(*left);
    if more == 0 {
        return;
    }
    let need = share.need();
    for slot in pool.candidates(&need) {
        let lanes = need.resources.times_in(&pool.slots[slot].free, more);
        let tasks = share.widen(pool, slot, lanes);
        *left = left.saturating_sub(tasks);
        more = most
            .min(share.wants())
            .min(*left)
            .min(more - lanes.min(more));
        if more == 0 {
            return;
        }
    }
}

/// Tasks that wait on nodes save the round trip when one ends. Never more than half of a lane's part of what is left, so
/// that the last tasks are spread evenly.
fn send_ahead(pool: &mut Pool<'_>, share: &mut Share<'_>, left: &mut u32) {
    let lanes_all = share.lanes.max(1);
    let ready = share.left;
    for (slot, lanes) in share.slots(pool) {
        let part = u64::from(ready) * u64::from(lanes) / (2 * u64::from(lanes_all));
        let part = u32::try_from(part).unwrap_or(u32::MAX);
        let target = &pool.slots[slot];
        let waiting = target.tasks.saturating_sub(target.lanes);
        let wanted = target.view.credits.saturating_sub(waiting);
        let room = part.saturating_sub(share.waiting_on(pool, slot));
        let given = share.give(pool, slot, wanted.min(room).min(*left));
        *left -= given;
    }
}
