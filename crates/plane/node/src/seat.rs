//! Leads while this server is the leader, and tells who is otherwise.

use std::sync::Arc;
use std::time::Duration;

use prism_control::{Control, ControlError, Leader, Seat};
use prism_raft::{RaftStore, Standing};
use prism_store::{Store, StoreError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Between two attempts to take a leadership that consensus gives.
const AGAIN: Duration = Duration::from_millis(20);

/// Who leads when this server does not.
fn other(standing: &Standing) -> Seat {
    match standing.leader_address() {
        Some(address) if !standing.leading && !address.is_empty() => {
            Seat::There(address.to_owned())
        }
        _ => Seat::Nowhere,
    }
}

/// Whether another server leads now, so that it is no failure to lead no more.
fn lost(error: &ControlError) -> bool {
    matches!(
        error,
        ControlError::Replaced
            | ControlError::Store(
                StoreError::NotLeader { .. }
                    | StoreError::Fenced { .. }
                    | StoreError::Unanswered(_)
            )
    )
}

/// Leads whenever it is this server's turn, until it is told to stop. `first` is a leadership that was taken already.
///
/// # Errors
/// When it had to stop; every answer that was given is durable.
pub(crate) async fn lead(
    store: Arc<RaftStore>,
    first: Option<(Control, Leader)>,
    seat: watch::Sender<Seat>,
    stop: CancellationToken,
) -> Result<(), ControlError> {
    let mut standing = store.standing();
    let mut taken = first;
    loop {
        let (control, leader) = match taken.take() {
            Some(taken) => taken,
            None => match turn(&store, &mut standing, &seat, &stop).await? {
                Some(taken) => taken,
                None => return Ok(()),
            },
        };
        seat.send_replace(Seat::Here(control));
        let ended = leader.run(stop.clone()).await;
        seat.send_replace(Seat::Nowhere);
        match ended {
            Ok(()) => return Ok(()),
            Err(why) if lost(&why) && !stop.is_cancelled() => {
                tracing::warn!(%why, "this server leads no more");
            }
            Err(why) => return Err(why),
        }
    }
}

/// Waits for this server's turn, and tells meanwhile who leads; `None` when it is told to stop.
async fn turn(
    store: &Arc<RaftStore>,
    standing: &mut watch::Receiver<Standing>,
    seat: &watch::Sender<Seat>,
    stop: &CancellationToken,
) -> Result<Option<(Control, Leader)>, ControlError> {
    loop {
        let now = standing.borrow_and_update().clone();
        if now.leading {
            let object: Arc<dyn Store> = store.clone();
            match prism_control::open(object).await {
                Ok(opened) => {
                    tracing::info!(term = now.term, "this server leads");
                    return Ok(Some(opened));
                }
                Err(why) if lost(&why) => {}
                Err(why) => return Err(why),
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = stop.cancelled() => return Ok(None),
            }
            continue;
        }
        let told = other(&now);
        seat.send_if_modified(|was| {
            let same = match (&*was, &told) {
                (Seat::There(was), Seat::There(now)) => was == now,
                (Seat::Nowhere, Seat::Nowhere) => true,
                _ => false,
            };
            *was = told;
            !same
        });
        tokio::select! {
            changed = standing.changed() => if changed.is_err() { return Ok(None) },
            () = stop.cancelled() => return Ok(None),
        }
    }
}
