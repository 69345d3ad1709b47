//! What a server tells the leader of itself at its start: where it is, and of the administrator's token of those who use it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prism_control::{Seat, Seats};
use prism_members::{House, ServerToken};
use prism_types::Reason;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::keeper::Keeper;
use crate::node::NodeError;
use crate::{members, outcast, way};

/// How long a start waits for a leader when there may be another, and how often it looks.
const SETTLE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(200);

/// Who tells, and whom.
pub(crate) struct Introduction {
    pub(crate) seats: Seats,
    pub(crate) store: Keeper,
    pub(crate) house: Option<Arc<House>>,
    /// Servers that it was told of.
    pub(crate) peers: Vec<String>,
    /// The token's name: it takes the place of the one of the same name before.
    pub(crate) name: String,
}

impl Introduction {
    /// Makes an administrator's token: here, or at the leader, to which this server says where it is. When nobody leads for a while the
    /// token is given out, and told to whoever leads later.
    pub(crate) async fn make(
        mut self,
        stop: CancellationToken,
    ) -> Result<(String, Option<JoinHandle<()>>), NodeError> {
        let (id, secret) = members::token_parts();
        let token = prism_gateway::new_token(id, secret);
        let made = ServerToken {
            id,
            name: self.name.clone(),
            hash: token.hash,
        };
        let end = Instant::now() + SETTLE;
        while !self.told(&made).await? {
            if Instant::now() > end {
                tracing::warn!(
                    "no server leads yet; this one takes part, and answers when one does"
                );
                let later = tokio::spawn(async move {
                    tokio::select! {
                        () = self.later(made) => {}
                        () = stop.cancelled() => {}
                    }
                });
                return Ok((token.text, Some(later)));
            }
            let _changed = tokio::time::timeout(LOOK, self.seats.changed()).await;
        }
        Ok((token.text, None))
    }

    async fn later(mut self, made: ServerToken) {
        loop {
            match self.told(&made).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(why) => {
                    return tracing::error!(%why, "the leader does not take this server's token; start it again for another");
                }
            }
            let _changed = tokio::time::timeout(LOOK * 5, self.seats.changed()).await;
        }
    }

    /// Whether the leader knows.
    async fn told(&mut self, made: &ServerToken) -> Result<bool, NodeError> {
        Ok(match (self.seats.look(), &self.house) {
            (Seat::Here(control), house) => {
                match prism_members::note_token(&control, made.clone()).await {
                    // Another leads by now, or may later.
                    Err(why)
                        if matches!(why.reason, Reason::NotLeader | Reason::Pressure)
                            && (house.is_some() || !self.store.is_alone()) =>
                    {
                        false
                    }
                    noted => noted.map(|()| true).map_err(NodeError::Refused)?,
                }
            }
            (Seat::There(leader), Some(house)) => way::introduce(house, [leader], Some(made)).await,
            // Whoever has just joined, or has moved, hears of the leader when that calls; the others may know.
            (Seat::Nowhere, Some(house)) => {
                let known = self.store.others(self.peers.iter());
                if let Some(why) = outcast::kept_out(house, &known).await {
                    return Err(NodeError::TakenOut(why));
                }
                way::introduce(house, known, Some(made)).await
            }
            _ => false,
        })
    }
}
