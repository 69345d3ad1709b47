//! What the gateway is told when it is made, with its bounds.

use std::time::Duration;

/// Settings of the gateway.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Name of this server.
    pub server: String,
    /// Prism's version.
    pub version: String,
    /// What to do to get a first token; ends the sentence that refuses every request while there is none.
    pub token_hint: String,
    /// Connections at once; more wait to be accepted.
    pub connections_max: usize,
    /// Longest time for the head of a request, and between requests of one connection.
    pub header_timeout: Duration,
    /// Longest time for a request body.
    pub body_timeout: Duration,
    /// Longest time that creating a sandbox waits for it to run.
    pub start_wait: Duration,
    /// Silence after which an open stream of events gets a comment.
    pub keep_alive: Duration,
    /// How long open requests may go on after the end is asked for.
    pub drain: Duration,
}

impl GatewayConfig {
    /// Defaults for a server of this name.
    pub fn new(server: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            server: server.into(),
            version: version.into(),
            token_hint:
                "start this server with `prismd dev`, which writes a token into prismctl's context"
                    .to_owned(),
            connections_max: 1024,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(60),
            start_wait: Duration::from_secs(10),
            keep_alive: Duration::from_secs(15),
            drain: Duration::from_secs(3),
        }
    }
}
