//! Leads while this server is the leader, and tells who is otherwise.

use prism_control::{Control, ControlError, Leader, Seat};
use prism_store::StoreError;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::keeper::{Keeper, Turn, Turns};

/// Whether another server leads now, or what keeps the state is away or full, so that it is no failure to lead no more.
pub(crate) fn lost(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::NotLeader { .. }
            | StoreError::Fenced { .. }
            | StoreError::Unanswered(_)
            | StoreError::Unavailable { .. }
            | StoreError::Full { .. }
    )
}

/// Leads whenever it is this server's turn, until it is told to stop. `first` is a leadership that was taken already.
///
/// # Errors
/// When it had to stop; every answer that was given is durable.
pub(crate) async fn lead(
    keeper: Keeper,
    first: Option<(Control, Leader)>,
    seat: watch::Sender<Seat>,
    stop: CancellationToken,
) -> Result<(), ControlError> {
    let mut turns = keeper.turns();
    let mut taken = first;
    loop {
        let (control, leader) = match taken.take() {
            Some(taken) => taken,
            None => match turn(&keeper, &mut turns, &seat, &stop).await? {
                Some(taken) => taken,
                None => return Ok(()),
            },
        };
        seat.send_replace(Seat::Here(control));
        let ended = leader.run(stop.clone()).await;
        if let Err(why) = &ended {
            // Before it is seen that nobody leads: whoever asks is told why.
            keeper.lost(why);
        }
        seat.send_replace(Seat::Nowhere);
        match ended {
            Ok(()) => return Ok(()),
            // What it has decided on was replaced by a backup: it begins anew with that.
            Err(ControlError::Replaced) if !stop.is_cancelled() => {}
            Err(ControlError::Store(why)) if lost(&why) && !stop.is_cancelled() => {
                tracing::warn!(%why, "this server leads no more");
            }
            Err(why) => return Err(why),
        }
    }
}

/// Waits for this server's turn, and tells meanwhile who leads; `None` when it is told to stop.
async fn turn(
    keeper: &Keeper,
    turns: &mut Turns,
    seat: &watch::Sender<Seat>,
    stop: &CancellationToken,
) -> Result<Option<(Control, Leader)>, ControlError> {
    loop {
        let told = match turns.look() {
            Turn::Mine => {
                // Whoever led before does not any more.
                seat.send_if_modified(|was| {
                    let other = matches!(was, Seat::There(_));
                    if other {
                        *was = Seat::Nowhere;
                    }
                    other
                });
                let opened = tokio::select! {
                    opened = keeper.take() => opened,
                    () = stop.cancelled() => return Ok(None),
                };
                let why = match opened {
                    Ok(taken) => {
                        tracing::info!(term = keeper.store().status().fence.0, "this server leads");
                        return Ok(Some(taken));
                    }
                    Err(ControlError::Store(why)) if lost(&why) => ControlError::Store(why),
                    Err(why) => return Err(why),
                };
                tokio::select! {
                    () = tokio::time::sleep(keeper.lost(&why)) => {}
                    () = stop.cancelled() => return Ok(None),
                }
                continue;
            }
            Turn::Other(address) => Seat::There(address),
            Turn::Nobody => Seat::Nowhere,
        };
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
            more = turns.changed() => if !more { return Ok(None) },
            () = stop.cancelled() => return Ok(None),
        }
    }
}
