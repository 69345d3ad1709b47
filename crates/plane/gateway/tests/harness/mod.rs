//! A real control plane on the store in memory, a node that is played, and plain sockets to speak HTTP with: what a test
//! sends is exactly what goes out.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

pub mod http;
pub mod node;

use std::sync::Arc;
use std::time::Duration;

use prism_api::Role;
use prism_control::{Control, open};
use prism_gateway::{Gateway, GatewayConfig, Ground, new_token, serve};
use prism_state::Command;
use prism_store_kit::FakeStore;
use prism_types::{Scope, TimeMs, TokenId};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use http::{Answer, Request};
pub use node::FakeNode;

/// A server for one test.
pub struct Server {
    pub address: std::net::SocketAddr,
    pub control: Control,
    pub node: Arc<FakeNode>,
    pub stop: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Settings with short times.
pub fn config() -> GatewayConfig {
    GatewayConfig {
        start_wait: Duration::from_secs(10),
        keep_alive: Duration::from_millis(50),
        drain: Duration::from_millis(200),
        ..GatewayConfig::new("n1", "1.2.3")
    }
}

/// A server without a node.
pub async fn bare(config: GatewayConfig) -> Server {
    let stop = CancellationToken::new();
    let (control, leader) = open(Arc::new(FakeStore::default())).await.unwrap();
    tokio::spawn(leader.run(stop.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ground = Ground::alone(control.clone());
    let gateway = Gateway::new(address, ground, config, stop.clone());
    tokio::spawn(serve(listener, gateway));
    Server {
        address,
        control,
        node: Arc::default(),
        stop,
    }
}

/// A server with a node that runs what it is given.
pub async fn server() -> Server {
    let server = bare(config()).await;
    server.connect().await;
    server
}

impl Server {
    /// Connects the played node.
    pub async fn connect(&self) {
        let (control_end, worker_end) = prism_link::pair();
        let control = self.control.clone();
        let service = self.node.clone();
        let session = async move { control.serve_worker(control_end, service).await };
        tokio::spawn(session);
        tokio::spawn(node::work(worker_end, self.stop.clone()));
        self.until(|c| async move {
            c.read(|s| s.nodes().any(|n| n.is_open())).await && {
                let ids: Vec<_> = c.read(|s| s.nodes().map(|n| n.record().id).collect()).await;
                ids.into_iter().all(|id| c.node(id).is_some())
            }
        })
        .await;
    }

    /// A token of a role.
    pub async fn token(&self, role: Role) -> String {
        self.scoped(role, Scope::default()).await.1
    }

    /// A token of a role with a scope, and its id.
    pub async fn scoped(&self, role: Role, scope: Scope) -> (TokenId, String) {
        self.token_until(role, scope, None).await
    }

    /// The same, good until a moment.
    pub async fn token_until(
        &self,
        role: Role,
        scope: Scope,
        expires: Option<TimeMs>,
    ) -> (TokenId, String) {
        let (ms, entropy) = self.control.mint();
        let id = TokenId::new(ms, entropy);
        let secret: [u8; 32] = std::array::from_fn(|i| (entropy >> (i % 16 * 8)) as u8);
        let token = new_token(id, secret);
        let role = match role {
            Role::Viewer => prism_state::Role::Viewer,
            Role::Submitter => prism_state::Role::Submitter,
            Role::Operator => prism_state::Role::Operator,
            Role::Admin => prism_state::Role::Admin,
        };
        let command = Command::CreateToken {
            id,
            name: role_name(role),
            role,
            scope: Box::new(scope),
            by: None,
            hash: token.hash,
            expires,
        };
        self.control.propose(command, None).await.unwrap();
        (id, token.text)
    }

    /// Makes a namespace without a quota.
    pub async fn namespace(&self, name: &str) {
        let command = Command::PutNamespace {
            name: name.parse().unwrap(),
            quota: prism_state::Quota::default(),
            new: None,
        };
        self.control.propose(command, None).await.unwrap();
    }

    /// Waits until something committed makes this true, at most 20 s.
    pub async fn until<F: Future<Output = bool>>(&self, test: impl Fn(Control) -> F) {
        let mut changed = self.control.changed();
        let wait = async {
            while !test(self.control.clone()).await {
                let _ = tokio::time::timeout(Duration::from_millis(50), changed.changed()).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .expect("it comes true within 20 s");
    }

    /// Sends a request on a connection of its own.
    pub async fn ask(&self, request: Request) -> Answer {
        http::ask(self.address, request).await
    }
}

fn role_name(role: prism_state::Role) -> String {
    format!("a test's {role:?}")
}
