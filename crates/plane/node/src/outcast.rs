//! A server that its cluster goes on without: one that was taken out while it was away, or left behind by a recovery. Others of its
//! kind may be enough to elect one of them; they must not, so whoever is told by a server that has proven to be of the cluster ends.

use std::sync::Arc;
use std::time::Duration;

use prism_control::{ControlError, Seat, Seats};
use prism_members::{House, MemberError};
use prism_raft::RaftStore;
use tokio_util::sync::CancellationToken;

use crate::servers;
use crate::way::Way;

/// How often the servers that say nothing are asked.
const ASK: Duration = Duration::from_secs(2);
/// From when on one that this server leads says nothing.
const SILENT: Duration = Duration::from_secs(3);

/// Whether a server at one of these addresses keeps this one out; says which.
pub(crate) async fn kept_out(house: &House, servers: &[String]) -> Option<String> {
    for server in servers {
        if let Err(MemberError::KeptOut { address }) = house.introduce(server, None).await {
            return Some(told(house, &address.to_string()));
        }
    }
    None
}

fn told(house: &House, address: &str) -> String {
    format!(
        "this server (node {}) was taken out of cluster {}: the server at {address} goes on without it and keeps it out; what \
         it holds of the cluster's state does not count any more",
        house.node(),
        house.cluster()
    )
}

/// Those to be asked: all others while nobody leads, the silent ones while this server does.
fn silent(store: &RaftStore, seat: &Seat) -> Vec<String> {
    match seat {
        Seat::Nowhere => servers::others(store, std::iter::empty()),
        Seat::There(_) => Vec::new(),
        Seat::Here(_) => {
            let progress = store.progress();
            let heard = |number| {
                let of = progress.iter().find(|p| p.number == number);
                of.and_then(|p| p.heard).is_some_and(|ago| ago < SILENT)
            };
            let standing = store.standing().borrow().clone();
            let others = standing.servers.into_iter();
            let others = others.filter(|s| s.number != store.number() && !heard(s.number));
            others
                .map(|s| s.address)
                .filter(|a| !a.is_empty())
                .collect()
        }
    }
}

/// Until this server is told that the cluster goes on without it.
pub(crate) async fn watch(
    store: Arc<RaftStore>,
    seats: Seats,
    way: Way,
    stop: CancellationToken,
) -> ControlError {
    loop {
        tokio::select! {
            () = tokio::time::sleep(ASK) => {}
            () = stop.cancelled() => std::future::pending().await,
        }
        let Some(house) = way.house() else { continue };
        let ask = silent(&store, &seats.now());
        if let Some(why) = kept_out(&house, &ask).await {
            return ControlError::TakenOut(why);
        }
    }
}
