//! What a node is told at its start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use prism_types::{Labels, Name, Resources};

use crate::{ExpectConfig, JoinConfig, TlsFiles};

/// Settings of a node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Everything of the node is in here; private to its user.
    pub data_dir: PathBuf,
    /// Its name; `None`: the one it had, or the host's.
    pub name: Option<Name>,
    /// Its labels.
    pub labels: Labels,
    /// Where the API listens. Port 0: any free one.
    pub api: SocketAddr,
    /// Whether it is served with TLS; off loopback it is in any case.
    pub api_tls: bool,
    /// What it shows then; `None`: a certificate of the cluster's own authority.
    pub tls: Option<TlsFiles>,
    /// Where members come to, if they may; a server that joins others listens in any case.
    pub serf: Option<SocketAddr>,
    /// Where the others reach that, `HOST`, `ADDRESS` or `HOST:PORT`; `None`: it is found out.
    pub advertise: Option<String>,
    /// A server that is to join others; `None`: it is the first of its cluster, or what it was.
    pub join: Option<JoinConfig>,
    /// The etcd that keeps the cluster's state; `None`: the servers do. Its name and address are set by the node.
    pub etcd: Option<prism_etcd::Config>,
    /// The Vault that signs for the cluster's members; `None`: its own authority does.
    pub vault: Option<prism_vault::Config>,
    /// Others with which it founds a cluster, unless it is of one or hears of one; they are among those that it joins.
    pub expect: Option<ExpectConfig>,
    /// Whether it does not start while any server of `join` can't be reached or is of another cluster.
    pub strict_join: bool,
    /// Whether this server is announced on the local network by multicast DNS, in clear text: the cluster's id, its name and its port.
    pub announce_mdns: bool,
    /// A server that gossip and consensus have not heard of for so long is taken out of the cluster, as long as the rest stays safe;
    /// `None`: never.
    pub remove_gone_after: Option<Duration>,
    /// Whether plain, unisolated tasks may run here.
    pub allow_plain: bool,
    /// What it offers; `None`: what the machine has.
    pub capacity: Option<Resources>,
    /// Share of memory in use above which nothing new is started.
    pub pressure_threshold: f64,
    /// Whether everything that runs ends with the node (an embedded node and `dev`), or goes on (a service).
    pub runs_end_with_node: bool,
    /// Makes an administrator's token under this name at every start, in place of the one before.
    pub token_name: String,
}

impl NodeConfig {
    /// Defaults for a node with this directory, which may be relative: the processes that it starts have other working directories,
    /// so it is made absolute here.
    pub fn new(data_dir: PathBuf) -> Self {
        Self {
            data_dir: std::path::absolute(&data_dir).unwrap_or(data_dir),
            name: None,
            labels: Labels::new(),
            api: SocketAddr::from(([127, 0, 0, 1], 0)),
            api_tls: false,
            tls: None,
            serf: None,
            advertise: None,
            join: None,
            etcd: None,
            vault: None,
            expect: None,
            strict_join: false,
            announce_mdns: false,
            remove_gone_after: Some(Duration::from_secs(24 * 3600)),
            allow_plain: false,
            capacity: None,
            pressure_threshold: 0.8,
            runs_end_with_node: true,
            token_name: "dev".to_owned(),
        }
    }
}
