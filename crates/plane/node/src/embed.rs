//! A whole node within another program: what `prismctl run` starts when there is no server.

use std::path::PathBuf;

use prism_store::BoxFuture;

use crate::{Node, NodeConfig, NodeError, start};

/// Settings of an embedded node.
#[derive(Clone, Debug)]
pub struct EmbedConfig {
    /// Its directory.
    pub data_dir: PathBuf,
}

/// An embedded node that runs.
#[derive(Debug)]
pub struct Embedded {
    /// Where its API is, such as `http://127.0.0.1:40123`.
    pub api_url: String,
    /// A token for it.
    pub token: String,
    node: Node,
}

/// Starts an embedded node on a free loopback port.
///
/// # Errors
/// As [`start`].
pub fn embed(config: EmbedConfig) -> BoxFuture<'static, Result<Embedded, NodeError>> {
    Box::pin(async move {
        let mut settings = NodeConfig::new(config.data_dir);
        settings.token_name = "embedded".to_owned();
        let node = start(settings).await?;
        node.ready().await;
        Ok(Embedded {
            api_url: format!("http://{}", node.api),
            token: node.token.clone(),
            node,
        })
    })
}

impl Embedded {
    /// Ends it in order and leaves nothing running; what was not finished goes on at the next start.
    pub fn shutdown(self) -> BoxFuture<'static, ()> {
        self.node.stop()
    }
}
