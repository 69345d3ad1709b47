//! The node that `run` starts in this process when no server is known.

use std::path::PathBuf;
use std::time::Duration;

use prism_node::{EmbedConfig, Embedded};

use crate::exit::Failure;
use crate::output::Out;
use crate::server::Server;
use crate::settings::Target;

/// A running node of our own.
#[derive(Debug)]
pub struct Node {
    embedded: Embedded,
}

/// Starts it on a free loopback port, with its data in `data`.
///
/// # Errors
/// When it cannot start: the message says what the machine lacks.
pub async fn start(data: PathBuf, out: &Out) -> Result<Node, Failure> {
    out.detail(&format!(
        "starting a node in this process; its data is in {}",
        data.display()
    ));
    let embedded = prism_node::embed(EmbedConfig { data_dir: data })
        .await
        .map_err(|e| {
            let failure =
                Failure::defect(format!("cannot start a node on this machine: {e}")).code(e.code());
            failure.next("prismctl doctor says what this machine lacks")
        })?;
    Ok(Node { embedded })
}

impl Node {
    /// Talks to it over its own API, as to any server.
    ///
    /// # Errors
    /// When its address is none.
    pub fn server(&self, out: &Out) -> Result<Server, Failure> {
        let target = Target {
            trusted: crate::context::Trusted::default(),
            api: self.embedded.api_url.clone(),
            token: Some(self.embedded.token.clone()),
            context: None,
            namespace: None,
            named: true,
        };
        Server::new(&target, Duration::from_secs(60), out)
    }

    /// Ends it in order: what runs is saved or taken up again by the next start.
    pub async fn stop(self) {
        self.embedded.shutdown().await;
    }
}
