//! Sandboxes that wait for a place, oldest first, each to the best node with room.

use prism_spec::IsolationSpec;
use prism_state::State;
use prism_types::{NodeId, Resources, SandboxId};

use crate::Config;
use crate::pool::{Need, Pool};
use crate::quota::Quotas;

/// Things that found no room are remembered, so that a thousand alike cost one look.
const NO_ROOM_MAX: usize = 16;

pub(crate) fn plan(
    state: &State,
    pool: &mut Pool<'_>,
    quotas: &Quotas<'_>,
    config: &Config,
) -> Vec<(SandboxId, NodeId)> {
    let mut placed = Vec::new();
    let mut no_room: Vec<(Resources, &prism_spec::ImageRef)> = Vec::new();
    for sandbox in state.sandboxes_pending() {
        if placed.len() >= config.sandboxes_max as usize || no_room.len() >= NO_ROOM_MAX {
            break;
        }
        let spec = &sandbox.spec;
        let hopeless = |(r, image): &(Resources, &prism_spec::ImageRef)| {
            **image == spec.image && r.fits(&spec.resources)
        };
        if no_room.iter().any(hopeless) || !quotas.holds(&spec.namespace, &spec.resources) {
            continue;
        }
        let need = Need {
            resources: &spec.resources,
            image: &spec.image,
            isolation: IsolationSpec::Sandbox,
            single: false,
        };
        match pool.candidates(&need).first() {
            Some(best) => {
                let slot = &mut pool.slots[*best];
                slot.free = slot.free.minus(&spec.resources, 1);
                quotas.take_sandbox(&spec.namespace, &spec.resources);
                placed.push((sandbox.id, slot.node.record().id));
            }
            None => no_room.push((spec.resources, &spec.image)),
        }
    }
    placed
}
