//! `/cluster/peers`: the servers that keep the cluster's state.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use prism_api::{GossipState, Op, PeerView};
use prism_state::Command;
use prism_types::{NodeId, Reason};

use crate::app::App;
use crate::ask::Ask;
use crate::gossip_keys::{Hint, HintState};
use crate::refuse::{Answered, Refusal};
use crate::{answer, list};

/// A server that was heard of within this time counts as there.
const THERE: Duration = Duration::from_secs(3);

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What gossip says of a server.
fn hint(hint: &Hint) -> GossipState {
    match hint.state {
        HintState::Alive => GossipState::Alive,
        HintState::Suspect => GossipState::Suspect,
        HintState::Failed => GossipState::Failed,
        HintState::Left => GossipState::Left,
    }
}

async fn all(app: &App) -> Vec<PeerView> {
    let peers = app.config.peers.as_ref().map(|p| p.all());
    let hints = match &app.config.gossip {
        Some(gossip) => gossip.hints().await,
        None => Vec::new(),
    };
    let known = app.control.read(|s| {
        let of = |peer: crate::Peer| {
            let server = s.servers().find(|r| r.number == peer.number);
            let said = server.and_then(|r| hints.iter().find(|h| h.id == r.id));
            let trip = said.and_then(|h| h.round_trip);
            PeerView {
                number: peer.number,
                id: server.map(|r| r.id),
                name: server.and_then(|r| Some(s.member(r.id)?.name.clone())),
                address: peer.address,
                leader: peer.leader,
                voter: peer.voter,
                behind: peer.behind,
                heard_ms: peer.heard.map(ms),
                gossip: said.map(hint),
                round_trip_us: trip.map(|t| u64::try_from(t.as_micros()).unwrap_or(u64::MAX)),
                stays: said.and_then(|h| h.stays.clone()),
            }
        };
        peers.unwrap_or_default().into_iter().map(of).collect()
    });
    known.await
}

/// Lists them, or takes one out.
pub(crate) async fn serve(app: &Arc<App>, op: Op, ask: Ask) -> Answered<Response<Body>> {
    match op {
        Op::PeerRemove => remove(app, ask).await,
        _ => list(app, &ask).await,
    }
}

async fn list(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let key = |p: &PeerView| format!("{:020}", p.number);
    answer::json(&list::slice(ask, all(app).await, "p", key)?)
}

async fn remove(app: &Arc<App>, ask: Ask) -> Answered<Response<Body>> {
    let text = ask.param("id")?;
    let peers = all(app).await;
    let named = |p: &&PeerView| {
        p.id.is_some_and(|id| id.to_string() == text)
            || p.name.as_ref().is_some_and(|n| n.as_str() == text)
            || p.number.to_string() == text
    };
    let found = peers.iter().find(named);
    let Some((peer, id)) = found.and_then(|p| Some((p, p.id?))) else {
        return Err(Refusal::not_found(format!("there is no server {text}")));
    };
    safe(&peers, peer, id)?;
    app.propose(&ask, Command::RemoveMember { id }).await?;
    Ok(answer::nothing())
}

/// Whether those that stay are enough to go on.
fn safe(peers: &[PeerView], gone: &PeerView, id: NodeId) -> Answered<()> {
    let stay = |p: &&PeerView| p.voter && p.number != gone.number;
    let there = |p: &&PeerView| p.heard_ms.is_some_and(|heard| heard < ms(THERE));
    let voters = peers.iter().filter(stay).count();
    let up = peers.iter().filter(stay).filter(there).count();
    if voters == 0 || up > voters / 2 {
        return Ok(());
    }
    Err(Refusal::new(
        Reason::WrongState,
        format!(
            "without server {} ({id}) only {up} of {voters} servers would be there, which is no majority; nothing was changed: start the others first",
            gone.number
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u64, heard_ms: Option<u64>) -> PeerView {
        PeerView {
            number,
            id: Some(NodeId::new(1, u128::from(number))),
            name: None,
            address: String::new(),
            leader: number == 1,
            voter: true,
            behind: Some(0),
            heard_ms,
            gossip: None,
            round_trip_us: None,
            stays: None,
        }
    }

    #[test]
    fn a_server_goes_only_when_a_majority_of_the_others_is_there() {
        let three = [peer(1, Some(0)), peer(2, Some(50)), peer(3, None)];
        let goes = |peers: &[PeerView], n: usize| {
            let gone = &peers[n];
            safe(peers, gone, gone.id.unwrap()).is_ok()
        };
        assert!(goes(&three, 2), "the one that is away goes");
        assert!(!goes(&three, 1), "one of two would be there");
        let two = [peer(1, Some(0)), peer(2, Some(9_000))];
        assert!(goes(&two, 1) && !goes(&two, 0));
        assert!(goes(&two[..1], 0), "the last one is kept by the state");
    }
}
