//! Where the servers are: what this one knows of that, tells others, and notes of what they say of themselves.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prism_control::{Control, Seat};
use prism_identity::{Peer, Role};
use prism_state::{Command, State};
use prism_store::BoxFuture;
use prism_types::{NodeId, Outcome, Rejection};

use crate::exchange::{Directions, Leads, ServerToken, WhoLeads};
use crate::{House, MemberError, alpn};

/// What a server knows of where it and the others are.
#[derive(Debug)]
pub(crate) struct Whereabouts {
    /// All servers, as far as this one knows.
    servers: Mutex<Vec<String>>,
    /// Where servers have said that they are, by number, since this one started: the configuration may still say where they were.
    moved: Mutex<BTreeMap<u64, String>>,
}

impl Whereabouts {
    /// Of a server at this address that knows no other yet.
    pub(crate) fn new(address: &str) -> Self {
        Self {
            servers: Mutex::new(vec![address.to_owned()]),
            moved: Mutex::default(),
        }
    }

    /// Takes over where all servers are.
    pub(crate) fn set_servers(&self, servers: Vec<String>) {
        *self.servers() = servers;
    }

    fn servers(&self) -> MutexGuard<'_, Vec<String>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moved(&self) -> MutexGuard<'_, BTreeMap<u64, String>> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes what a server says of itself.
async fn introduced(control: &Control, id: NodeId, asked: WhoLeads) -> Result<(), Rejection> {
    if let Some(address) = asked.address {
        let moved = Command::MoveServer { id, address };
        control.propose(moved, None).await?;
    }
    match asked.token {
        Some(token) => note_token(control, token).await,
        None => Ok(()),
    }
}

/// Takes an administrator's token for those who use a server, in place of its last one.
///
/// # Errors
/// The leader's.
pub fn note_token(control: &Control, token: ServerToken) -> BoxFuture<'_, Result<(), Rejection>> {
    Box::pin(async move {
        let named = |s: &State| -> Vec<prism_types::TokenId> {
            let same = s.tokens().filter(|t| t.name == token.name);
            same.map(|t| t.id).collect()
        };
        let old = control.read(named).await;
        if old.contains(&token.id) {
            return Ok(());
        }
        for id in old {
            control.propose(Command::RevokeToken { id }, None).await?;
        }
        let create = Command::CreateToken {
            id: token.id,
            name: token.name,
            role: prism_state::Role::Admin,
            scope: Box::default(),
            by: None,
            hash: token.hash,
            expires: None,
        };
        control.propose(create, None).await?;
        Ok(())
    })
}

impl House {
    /// Notes where this server is, when it leads: the others find it there from then on.
    ///
    /// # Errors
    /// The leader's.
    pub fn note_address<'a>(&'a self, leader: &'a Control) -> BoxFuture<'a, Result<(), Rejection>> {
        Box::pin(async move {
            let (id, address) = (self.me().node, self.links.address.clone());
            let same = |s: &State| s.server(id).is_none_or(|r| r.gone || r.address == address);
            if leader.read(same).await {
                return Ok(());
            }
            let moved = Command::MoveServer { id, address };
            leader.propose(moved, None).await.map(drop)
        })
    }

    /// Asks another server who leads. If it does itself, it learns where this one is, and takes a token for those who use it.
    ///
    /// # Errors
    /// As of [`House::dial_raft`].
    pub fn introduce<'a>(
        &'a self,
        address: &'a str,
        token: Option<ServerToken>,
    ) -> BoxFuture<'a, Result<Directions, MemberError>> {
        Box::pin(async move {
            let mut dialled = self.dial(address, alpn::WHERE).await?;
            let question = WhoLeads {
                address: Some(self.links.address.clone()),
                token,
            };
            crate::dial::ask_directions(&mut dialled, question).await
        })
    }

    /// Keeps where a server says that it is, before that is committed: the commit may need its vote, which is asked for there.
    async fn note_moved(&self, control: &Control, id: NodeId, address: &str) {
        let server = |s: &State| s.server(id).filter(|r| !r.gone).map(|r| r.number);
        if let Some(number) = control.read(server).await {
            self.whereabouts.moved().insert(number, address.to_owned());
        }
    }

    /// Where a server has said last that it is, to this one.
    pub fn moved(&self, number: u64) -> Option<String> {
        self.whereabouts.moved().get(&number).cloned()
    }

    /// Who leads; a server that says where it is now is found there from now on.
    pub(crate) async fn directions(&self, peer: &Peer, asked: WhoLeads) -> Directions {
        let seat = self.links.seats.now();
        let mut again = false;
        if let (Seat::Here(control), Role::Server) = (&seat, peer.holder.role) {
            let id = peer.holder.id;
            if let Some(address) = &asked.address {
                self.note_moved(control, id, address).await;
            }
            if let Err(why) = introduced(control, id, asked).await {
                tracing::warn!(server = %id, %why, "what a server says of itself was not noted");
                again = why.retryable || why.outcome == Outcome::Unknown;
            }
        }
        let leads = match seat {
            // Whoever leads next is to be told, and would not be if this one said that it leads.
            Seat::Here(_) if again => Leads::Nobody,
            Seat::Here(_) => Leads::Me,
            Seat::There(address) => Leads::Other(address),
            Seat::Nowhere => Leads::Nobody,
        };
        let servers = self.whereabouts.servers().clone();
        Directions { leads, servers }
    }

    /// Servers, as far as this one knows, but for itself.
    pub(crate) fn other_servers(&self) -> Vec<String> {
        let servers = self.whereabouts.servers();
        let others = servers.iter().filter(|s| **s != self.links.address);
        others.cloned().collect()
    }
}
