//! What can go wrong between asking and being answered, and what to do about it.

use prism_api::ErrorBody;
use prism_types::{Outcome, Reason};

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server said no.
    #[error("{}", .body.message)]
    Api {
        /// HTTP status.
        status: u16,
        /// What it said.
        body: Box<ErrorBody>,
    },
    /// No connection could be made; nothing was sent.
    #[error(
        "no answer from {address}: {why}; nothing was sent. Is prismd running there? start it with: prismd dev"
    )]
    Unreachable {
        /// Where.
        address: String,
        /// What the system said.
        why: String,
    },
    /// The connection broke, or time ran out, after the request was sent.
    #[error(
        "the connection to {address} was lost before the answer came ({why}); the request may have been carried out. Repeating it with the same idempotency key is safe{}",
        .key.as_ref().map(|k| format!(": {k}")).unwrap_or_default()
    )]
    Lost {
        /// Where.
        address: String,
        /// What happened.
        why: String,
        /// The key it was sent with.
        key: Option<String>,
    },
    /// Whoever answers there is not the server that is meant.
    #[error(
        "the server at {address} is not the one that is meant: {why}; nothing was sent to it. Possible interception, or its root was changed: get its pin from an administrator, who sees it with prismctl ca status"
    )]
    NotTheServer {
        /// Where.
        address: String,
        /// What was found.
        why: String,
    },
    /// The server does not take the certificate that was shown.
    #[error(
        "the server at {address} does not take the certificate that was shown to it ({why}); nothing was carried out. Get another with prismctl ca issue"
    )]
    NotTheClient {
        /// Where.
        address: String,
        /// What it said.
        why: String,
    },
    /// The address is not one this client can use.
    #[error(
        "{address:?} is not an address of the API: expected http://host:port or https://host:port ({why})"
    )]
    Address {
        /// As given.
        address: String,
        /// Why not.
        why: String,
    },
    /// The answer is not what the API promises.
    #[error(
        "{address} answered something that is not the prism API ({why}); check the address of the context"
    )]
    Protocol {
        /// Where.
        address: String,
        /// What was wrong.
        why: String,
    },
}

impl ClientError {
    /// The server's reason, if the server answered.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Api { body, .. } => Some(body.reason),
            Self::Unreachable { .. }
            | Self::Lost { .. }
            | Self::NotTheServer { .. }
            | Self::NotTheClient { .. }
            | Self::Address { .. }
            | Self::Protocol { .. } => None,
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Api { body, .. } => body.retryable,
            Self::Unreachable { .. } | Self::Lost { .. } => true,
            Self::NotTheServer { .. }
            | Self::NotTheClient { .. }
            | Self::Address { .. }
            | Self::Protocol { .. } => false,
        }
    }

    /// Whether the call was carried out, as far as is known.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Api { body, .. } => body.outcome,
            Self::Unreachable { .. }
            | Self::NotTheServer { .. }
            | Self::NotTheClient { .. }
            | Self::Address { .. } => Outcome::NotApplied,
            Self::Lost { .. } | Self::Protocol { .. } => Outcome::Unknown,
        }
    }
}
