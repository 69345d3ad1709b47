//! One job in a planning round: what it still wants, and what it has been given.

use std::collections::BTreeMap;

use prism_state::{Job, Placement};
use prism_types::Resources;

use crate::pool::{Need, Pool};
use crate::quota::Quotas;

pub(crate) struct Share<'a> {
    pub job: &'a Job,
    quotas: &'a Quotas<'a>,
    ready: Box<dyn Iterator<Item = u32> + 'a>,
    /// Ready tasks not yet given away.
    pub left: u32,
    /// Tasks it may run at once, this round's included.
    pub lanes: u32,
    /// Lanes (in all) and tasks by slot.
    given: BTreeMap<usize, (u32, Vec<u32>)>,
}

impl<'a> Share<'a> {
    pub fn new(job: &'a Job, quotas: &'a Quotas<'a>) -> Self {
        Self {
            job,
            quotas,
            ready: Box::new(job.ready().flatten()),
            left: job.ready_len(),
            lanes: job.lanes_total(),
            given: BTreeMap::new(),
        }
    }

    pub fn need(&self) -> Need<'a> {
        Need::of(self.job.spec())
    }

    pub fn resources(&self) -> &'a Resources {
        &self.job.spec().resources
    }

    /// How many more lanes it could use.
    pub fn wants(&self) -> u32 {
        let spec = self.job.spec();
        let all = spec.concurrency.unwrap_or(u32::MAX);
        let most = all.saturating_sub(self.lanes).min(self.left);
        self.quotas.lanes(&spec.namespace, &spec.resources, most)
    }

    fn lanes_on(&self, pool: &Pool<'_>, slot: usize) -> u32 {
        match self.given.get(&slot) {
            Some((lanes, _)) => *lanes,
            None => self.job.lanes_on(pool.slots[slot].node.record().no),
        }
    }

    /// Tasks of it on a slot, this round's included.
    fn placed_on(&self, pool: &Pool<'_>, slot: usize) -> u32 {
        let given = self.given.get(&slot).map_or(0, |(_, tasks)| tasks.len());
        let before = self.job.placed_on(pool.slots[slot].node.record().no);
        before.saturating_add(u32::try_from(given).unwrap_or(u32::MAX))
    }

    /// Gives it `lanes` more lanes on a slot, with a task for each that has none yet.
    pub fn widen(&mut self, pool: &mut Pool<'_>, slot: usize, lanes: u32) -> u32 {
        let now = self.lanes_on(pool, slot);
        let placed = self.placed_on(pool, slot);
        let wanted = (now + lanes).saturating_sub(placed);
        let tasks = self.give(pool, slot, wanted);
        // A lane without a task is refused, so never ask for one.
        let lanes = lanes.min((placed + tasks).saturating_sub(now));
        let resources = *self.resources();
        let target = &mut pool.slots[slot];
        target.free = target.free.minus(&resources, lanes);
        target.lanes += lanes;
        self.lanes += lanes;
        let namespace = &self.job.spec().namespace;
        self.quotas.take(namespace, &resources, lanes);
        let entry = self.given.entry(slot).or_insert((now, Vec::new()));
        entry.0 = now + lanes;
        tasks
    }

    /// Gives it up to `most` tasks on a slot; how many there were.
    pub fn give(&mut self, pool: &mut Pool<'_>, slot: usize, most: u32) -> u32 {
        if most == 0 {
            return 0;
        }
        let lanes = self.lanes_on(pool, slot);
        let (_, tasks) = self.given.entry(slot).or_insert((lanes, Vec::new()));
        let before = tasks.len();
        tasks.extend(self.ready.by_ref().take(most as usize));
        let given = u32::try_from(tasks.len() - before).unwrap_or(u32::MAX);
        self.left = self.left.saturating_sub(given);
        pool.slots[slot].tasks += given;
        given
    }

    /// Slots on which it has lanes, with their number.
    pub fn slots(&self, pool: &Pool<'_>) -> Vec<(usize, u32)> {
        let before = self.job.lanes().keys();
        let before = before.filter_map(|no| pool.slot_of(*no));
        let mut slots: Vec<usize> = before.chain(self.given.keys().copied()).collect();
        slots.sort_unstable();
        slots.dedup();
        let with_lanes = slots.into_iter().map(|s| (s, self.lanes_on(pool, s)));
        with_lanes.filter(|(_, lanes)| *lanes > 0).collect()
    }

    /// Its tasks on a slot that can not run at once.
    pub fn waiting_on(&self, pool: &Pool<'_>, slot: usize) -> u32 {
        self.placed_on(pool, slot)
            .saturating_sub(self.lanes_on(pool, slot))
    }

    pub fn into_placements(self, pool: &Pool<'_>) -> impl Iterator<Item = Placement> {
        let job = self.job;
        let given = self.given.into_iter().map(move |(slot, (lanes, tasks))| {
            let node = pool.slots[slot].node.record();
            let widened = lanes > job.lanes_on(node.no);
            let placement = Placement {
                job: job.id(),
                node: node.id,
                lanes,
                tasks,
            };
            (placement, widened)
        });
        given
            .filter(|(p, widened)| *widened || !p.tasks.is_empty())
            .map(|(p, _)| p)
    }
}
