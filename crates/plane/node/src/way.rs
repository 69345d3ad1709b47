//! The way to other servers, for the store and for the API. It is given out before there is one: what needs it is made first.

use std::io;
use std::sync::{Arc, OnceLock};

use prism_gateway::Reach;
use prism_members::{House, Leads, ServerToken};
use prism_raft::{Dial, Pipe, Standing};
use prism_store::BoxFuture;
use tokio::sync::watch;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Way(
    Arc<OnceLock<Arc<House>>>,
    /// Where the servers are now.
    Arc<OnceLock<watch::Receiver<Standing>>>,
);

impl Way {
    /// From now on there is one.
    pub(crate) fn open(&self, house: Arc<House>) {
        // Opened once, at the start.
        let _twice = self.0.set(house);
    }

    /// From now on servers are dialled where the configuration has them: whoever replicates to one that has moved still has the address
    /// that it had at first.
    pub(crate) fn follow(&self, standing: watch::Receiver<Standing>) {
        // Once, at the start.
        let _twice = self.1.set(standing);
    }

    /// Where a server is now, as the configuration says.
    fn now(&self, number: u64) -> Option<String> {
        let standing = self.1.get()?.borrow();
        let server = standing.servers.iter().find(|s| s.number == number)?;
        (!server.address.is_empty()).then(|| server.address.clone())
    }

    pub(crate) fn house(&self) -> Option<Arc<House>> {
        self.0.get().cloned()
    }

    fn there(&self) -> io::Result<Arc<House>> {
        let none = || io::Error::other("this server has no way to others yet");
        self.house().ok_or_else(none)
    }

    /// For requests to the API.
    pub(crate) fn reach(&self) -> Reach {
        let way = self.clone();
        Arc::new(move |address| {
            let way = way.clone();
            Box::pin(async move {
                let dialled = way.there()?.dial_api(&address).await;
                let stream = dialled.map_err(io::Error::other)?.stream;
                Ok(Box::new(stream) as Box<dyn prism_gateway::Pipe>)
            })
        })
    }
}

/// Tells the leader where this server is, and of a token for those who use it: asks each of these servers who leads, and then whoever
/// does. Says whether it is told.
pub(crate) async fn introduce(
    house: &House,
    servers: impl IntoIterator<Item = String>,
    token: Option<&ServerToken>,
) -> bool {
    for server in servers {
        let said = match house.introduce(&server, token.cloned()).await {
            Ok(said) => said,
            Err(why) => {
                tracing::debug!(%server, %why, "a server does not say who leads");
                continue;
            }
        };
        let leader = match said.leads {
            Leads::Me => return true,
            Leads::Other(leader) => leader,
            Leads::Nobody => continue,
        };
        let asked = house.introduce(&leader, token.cloned()).await;
        if asked.is_ok_and(|said| said.leads == Leads::Me) {
            return true;
        }
    }
    false
}

impl Dial for Way {
    fn dial(&self, server: u64, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Pipe>>> {
        let address = self.now(server).unwrap_or_else(|| address.to_owned());
        let way = self.clone();
        Box::pin(async move {
            let house = way.there()?;
            // A server that has moved may be the one without whose vote no configuration says so.
            let moved = house.moved(server).filter(|said| *said != address);
            let mut dialled = house.dial_raft(moved.as_ref().unwrap_or(&address)).await;
            if dialled.is_err() && moved.is_some() {
                dialled = house.dial_raft(&address).await;
            }
            let stream = dialled.map_err(io::Error::other)?.stream;
            Ok(Box::new(stream) as Box<dyn Pipe>)
        })
    }
}
