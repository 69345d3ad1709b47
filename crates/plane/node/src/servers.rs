//! Makes the configuration of the store what the members say, one step at a time, while this server leads: new servers learn first and
//! vote when they have caught up, those that were removed go, and those that moved are found where they are.

use std::sync::Arc;
use std::time::Duration;

use prism_control::{Control, Seat, Seats};
use prism_raft::{Progress, RaftStore, Server};
use prism_state::ServerRecord;
use tokio_util::sync::CancellationToken;

use crate::lan;
use crate::way::{self, Way};

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How often the others are asked who leads when nobody is known to.
const ASK: Duration = Duration::from_secs(1);
/// A server that lacks no more entries than this may vote.
const CAUGHT_UP: u64 = 64;

/// A server that was heard of so lately may vote.
const HEARD: Duration = Duration::from_secs(2);

/// What is to be changed next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Readdress(u64, String),
    Add(u64, String),
    Promote(u64),
    Remove(u64),
    /// This server was removed: another is to lead, and remove it.
    HandOver,
}

/// The next step from what is to what should be.
fn step(
    wanted: &[ServerRecord],
    servers: &[Server],
    progress: &[Progress],
    me: u64,
) -> Option<Step> {
    for want in wanted {
        let Some(is) = servers.iter().find(|s| s.number == want.number) else {
            return Some(Step::Add(want.number, want.address.clone()));
        };
        if is.address != want.address {
            return Some(Step::Readdress(want.number, want.address.clone()));
        }
        // One that is not there now must not be needed for a majority.
        let near = |p: &&Progress| p.number == want.number && p.heard.is_some_and(|h| h < HEARD);
        let behind = progress.iter().find(near).and_then(|p| p.behind);
        if !is.voter && behind.is_some_and(|behind| behind <= CAUGHT_UP) {
            return Some(Step::Promote(want.number));
        }
    }
    let gone = servers
        .iter()
        .find(|s| wanted.iter().all(|w| w.number != s.number))?;
    Some(if gone.number == me {
        Step::HandOver
    } else {
        Step::Remove(gone.number)
    })
}

async fn take(store: &RaftStore, control: &Control, me: u64) {
    let wanted: Vec<ServerRecord> = control.read(|s| s.servers().cloned().collect()).await;
    if wanted.is_empty() {
        // A cluster without members: nobody may come.
        return;
    }
    let servers = store.standing().borrow().servers.clone();
    let Some(step) = step(&wanted, &servers, &store.progress(), me) else {
        return;
    };
    let done = match &step {
        Step::Readdress(number, address) => store.readdress(*number, address).await,
        Step::Add(number, address) => store.add(*number, address).await,
        Step::Promote(number) => store.promote(*number).await,
        Step::Remove(number) => store.remove(*number).await,
        Step::HandOver => {
            store.hand_over().await;
            Ok(())
        }
    };
    match done {
        Ok(()) => tracing::info!(?step, "the servers of the cluster have changed"),
        Err(why) => tracing::warn!(?step, %why, "the servers of the cluster are not changed yet"),
    }
}

/// Where the other servers are, as far as this one knows.
pub(crate) fn others<'a>(store: &RaftStore, told: impl Iterator<Item = &'a String>) -> Vec<String> {
    let me = store.number();
    let standing = store.standing().borrow().clone();
    let known = standing.servers.into_iter().filter(|s| s.number != me);
    let mut all: Vec<String> = known.map(|s| s.address).chain(told.cloned()).collect();
    all.retain(|address| !address.is_empty() && address != lan::MDNS);
    all.dedup();
    all
}

/// Until it is told to stop. While nobody is known to lead, the others are asked: they may not know where this server is.
pub(crate) async fn tend(
    store: Arc<RaftStore>,
    (mut seats, way): (Seats, Way),
    me: u64,
    stop: CancellationToken,
) {
    loop {
        let seat = seats.look();
        let look = async {
            match &seat {
                Seat::Here(control) => {
                    let mut admission = control.admission_changed();
                    if let Some(house) = way.house()
                        && let Err(why) = house.note_address(control).await
                    {
                        tracing::warn!(%why, "where this server is was not noted yet");
                    }
                    take(&store, control, me).await;
                    // Woken at once when somebody joins, and now and then for those that catch up.
                    let _either = tokio::time::timeout(LOOK, admission.changed()).await;
                }
                Seat::Nowhere => {
                    tokio::time::sleep(ASK).await;
                    if let Some(house) = way.house() {
                        let known = others(&store, std::iter::empty());
                        way::introduce(&house, known, None).await;
                    }
                }
                Seat::There(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            () = look => {}
            () = seats.changed() => {}
            () = stop.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prism_types::NodeId;

    fn want(number: u64) -> ServerRecord {
        ServerRecord {
            id: NodeId::new(1, u128::from(number)),
            number,
            address: format!("at-{number}"),
            gone: false,
        }
    }

    fn is(number: u64, voter: bool) -> Server {
        Server {
            number,
            address: format!("at-{number}"),
            voter,
        }
    }

    fn behind(number: u64, behind: u64) -> Progress {
        Progress {
            number,
            behind: Some(behind),
            heard: Some(Duration::ZERO),
        }
    }

    #[test]
    fn servers_come_one_step_at_a_time_and_vote_when_they_have_caught_up() {
        let both = [want(1), want(2)];
        let one = [is(1, true)];
        assert_eq!(step(&both[..1], &one, &[], 1), None);
        assert_eq!(step(&both, &one, &[], 1), Some(Step::Add(2, "at-2".into())));
        let learns = [is(1, true), is(2, false)];
        for far in [&[][..], &[behind(2, 65)]] {
            assert_eq!(step(&both, &learns, far, 1), None, "{far:?}");
        }
        let near = [behind(2, 64)];
        assert_eq!(step(&both, &learns, &near, 1), Some(Step::Promote(2)));
        let mut silent = near;
        for heard in [None, Some(HEARD)] {
            silent[0].heard = heard;
            assert_eq!(step(&both, &learns, &silent, 1), None, "{heard:?}");
        }
        assert_eq!(step(&both, &[is(1, true), is(2, true)], &near, 1), None);
    }

    #[test]
    fn servers_that_moved_or_went_are_followed() {
        let servers = [is(1, true), is(2, true), is(3, true)];
        let mut moved = [want(1), want(2), want(3)];
        moved[1].address = "elsewhere".into();
        let found = step(&moved, &servers, &[], 1);
        assert_eq!(found, Some(Step::Readdress(2, "elsewhere".into())));
        let two = [want(1), want(3)];
        assert_eq!(step(&two, &servers, &[], 1), Some(Step::Remove(2)));
        assert_eq!(step(&two, &servers, &[], 2), Some(Step::HandOver));
    }
}
