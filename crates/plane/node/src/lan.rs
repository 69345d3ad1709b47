//! Servers on the local network, found by multicast DNS when a node is told to join `mdns`, and announced when a server is told to. What
//! is found is an address to try: it is believed only when the server there proves to be of the cluster that is meant.

use std::net::SocketAddr;
use std::time::Duration;

use prism_membership::mdns::{Announcement, announce, find};
use prism_types::{Id, Name};

/// What `--join` says instead of a server.
pub(crate) const MDNS: &str = "mdns";
/// How long one search takes, and how often it is made when nobody answers.
const SEARCH: Duration = Duration::from_secs(2);
const SEARCHES: usize = 3;

/// Where servers say that they are.
pub(crate) async fn search() -> Vec<SocketAddr> {
    for _ in 0..SEARCHES {
        // It blocks.
        let found = tokio::task::spawn_blocking(|| find(SEARCH)).await;
        match found {
            Ok(Ok(found)) if !found.is_empty() => {
                for server in &found {
                    let (name, address, cluster) = (&server.name, server.address, server.cluster);
                    tracing::info!(%name, %address, %cluster, "found on the local network");
                }
                return found.into_iter().map(|f| f.address).collect();
            }
            Ok(Ok(_)) => {}
            Ok(Err(why)) => {
                tracing::warn!(%why, "servers on the local network are not found");
                return Vec::new();
            }
            Err(_) => return Vec::new(),
        }
    }
    tracing::warn!(
        "no server announces itself on the local network; start one with --announce-mdns"
    );
    Vec::new()
}

/// Announces this server for as long as the answer is kept; what does not work is said in the log.
pub(crate) fn tell(cluster: Id, name: &Name, port: u16) -> Option<Announcement> {
    match announce(cluster, name, port) {
        Ok(announcement) => Some(announcement),
        Err(why) => {
            tracing::warn!(%why, "this server is not announced on the local network");
            None
        }
    }
}
