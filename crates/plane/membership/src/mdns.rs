//! Finding servers on a local network by multicast DNS (RFC 6762, RFC 6763). Off unless it is called. What is found is an address to try,
//! told by whoever is on the network: it is believed only when what answers there has the cluster's key.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mdns_sd::{ServiceDaemon, ServiceEvent, ServiceInfo};
use prism_types::{Id, Name};

/// The type of our service.
pub const SERVICE: &str = "_prism._udp.local.";

/// Most servers that are remembered in one search.
const MOST: usize = 256;
/// Most addresses of one.
const MOST_ADDRESSES: usize = 16;
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// Why multicast DNS does not work here. Nothing else is affected.
#[derive(Debug, thiserror::Error)]
#[error("multicast DNS does not work here: {0}; name the servers to join instead")]
pub struct MdnsError(String);

/// Keeps a node announced until it is dropped.
pub struct Announcement {
    daemon: ServiceDaemon,
    name: String,
}

impl std::fmt::Debug for Announcement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Announcement")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        // The goodbye is sent by its thread; nobody waits for longer.
        if let Ok(done) = self.daemon.unregister(&self.name) {
            let _ = done.recv_timeout(GOODBYE);
        }
        let _ = self.daemon.shutdown();
    }
}

/// A server that was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// Its cluster.
    pub cluster: Id,
    /// Its name.
    pub name: Name,
    /// Where it says that it listens.
    pub address: SocketAddr,
}

/// Announces a node, on all addresses of this machine but loopback, in clear text: the cluster's id, the node's name and a port.
///
/// # Errors
/// When the machine has no sockets for it.
pub fn announce(cluster: Id, node: &Name, port: u16) -> Result<Announcement, MdnsError> {
    let fail = |why: mdns_sd::Error| MdnsError(why.to_string());
    let daemon = ServiceDaemon::new().map_err(fail)?;
    let properties = [("cluster", cluster.to_string()), ("name", node.to_string())];
    // Two clusters may have a node of one name.
    let instance = format!("{node}-{}", &cluster.to_string()[18..]);
    let instance: String = instance.chars().rev().take(63).collect();
    let instance: String = instance.chars().rev().collect();
    let host = format!("{instance}.local.");
    let info = ServiceInfo::new(SERVICE, &instance, &host, "", port, &properties[..])
        .map_err(fail)?
        .enable_addr_auto();
    let name = info.get_fullname().to_owned();
    daemon.register(info).map_err(fail)?;
    Ok(Announcement { daemon, name })
}

/// Looks for servers for as long as it is given, and returns all that were found, sorted. Blocks: call it where that is allowed.
///
/// # Errors
/// When the machine has no sockets for it.
pub fn find(within: Duration) -> Result<Vec<Found>, MdnsError> {
    let fail = |why: mdns_sd::Error| MdnsError(why.to_string());
    let deadline = Instant::now() + within;
    let daemon = ServiceDaemon::new().map_err(fail)?;
    let events = daemon.browse(SERVICE).map_err(fail)?;
    let mut found: BTreeMap<String, Vec<Found>> = BTreeMap::new();
    while let Ok(event) = events.recv_deadline(deadline) {
        match event {
            ServiceEvent::ServiceResolved(service)
                if found.len() < MOST || found.contains_key(&service.fullname) =>
            {
                found.insert(service.fullname.clone(), servers(&service));
            }
            ServiceEvent::ServiceRemoved(_, name) => {
                found.remove(&name);
            }
            _ => {}
        }
    }
    let _ = daemon.shutdown();
    let mut all: Vec<Found> = found.into_values().flatten().collect();
    all.sort();
    all.dedup();
    Ok(all)
}

/// What one answer says, as far as it makes sense.
fn servers(service: &mdns_sd::ResolvedService) -> Vec<Found> {
    let text = |key| service.txt_properties.get_property_val_str(key);
    let cluster = text("cluster").and_then(|t| t.parse().ok());
    let name = text("name").and_then(|t| t.parse::<Name>().ok());
    let (Some(cluster), Some(name)) = (cluster, name) else {
        return Vec::new();
    };
    let fit = |address: &SocketAddr| crate::protocol::Peer::new(Default::default(), 0, *address);
    let ips = service.addresses.iter().map(mdns_sd::ScopedIp::to_ip_addr);
    let addresses = ips.map(|ip| SocketAddr::new(ip, service.port));
    addresses
        .filter(|a| fit(a).is_ok())
        .take(MOST_ADDRESSES)
        .map(|address| Found {
            cluster,
            name: name.clone(),
            address,
        })
        .collect()
}
