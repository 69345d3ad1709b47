//! How to open a store on etcd. Plain values; made by the node from its own configuration.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use prism_store::Window;

/// How to open a store on an etcd cluster.
#[derive(Clone, Debug)]
pub struct Config {
    /// Client URLs of the cluster's members: `http://host:port` or `https://host:port`, all of one kind.
    pub endpoints: Vec<String>,
    /// What all keys of this store begin with; nothing else may write beneath it.
    pub prefix: String,
    /// What other servers show people as the name of this one while it leads.
    pub name: String,
    /// Where other servers reach this one, told to them while it leads; empty: nowhere.
    pub address: String,
    /// How much of the past can be read and watched from.
    pub window: Window,
    /// How long a leadership outlives the last word between its server and etcd. At least 2 s; whole seconds.
    pub lease: Duration,
    /// Longest time of one call to one member.
    pub timeout: Duration,
    /// Bytes of keys and values in one request at most. etcd's own limit (`--max-request-bytes`, 1.5 MiB unless set)
    /// must leave room above it.
    pub request_bytes: usize,
    /// How often the leader drops etcd's history, up to what was current one such time before. It is the history of all
    /// users of that etcd: `None` leaves it to others, who then must do it.
    pub compact_every: Option<Duration>,
    /// Needed for `https`.
    pub tls: Option<Tls>,
    /// When etcd has authentication enabled.
    pub login: Option<Login>,
}

impl Config {
    /// The defaults, for a store on this cluster.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            prefix: "/prism/".to_owned(),
            name: "another server".to_owned(),
            address: String::new(),
            window: Window::default(),
            lease: Duration::from_secs(5),
            timeout: Duration::from_secs(3),
            request_bytes: 1024 * 1024,
            compact_every: Some(Duration::from_secs(300)),
            tls: None,
            login: None,
        }
    }
}

/// Whom to trust, and who we are. Files in PEM form.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The authorities that signed the members' certificates.
    pub ca: PathBuf,
    /// Our certificate with its chain, and its key, when the cluster asks for one.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// A user of etcd. Needs to read and write everything beneath the prefix.
#[derive(Clone)]
pub struct Login {
    /// The name.
    pub user: String,
    /// The password; never shown.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
