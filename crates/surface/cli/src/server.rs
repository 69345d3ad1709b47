//! The server that a command talks to: the client, what it is asked with by default, and its errors as failures.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prism_api::Route;
use prism_client::{Ask, Client, ClientError};
use prism_types::{Outcome, Reason, TimeMs};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::exit::{Exit, Failure};
use crate::output::Out;
use crate::settings::Target;

/// A server to ask.
#[derive(Clone, Debug)]
pub struct Server {
    client: Client,
    target: Target,
    verbose: bool,
}

impl Server {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// When the address is none.
    pub fn new(target: &Target, patience: Duration, out: &Out) -> Result<Self, Failure> {
        let client = Client::new(&target.api, target.token.as_deref(), patience)?;
        Ok(Self {
            client,
            target: target.clone(),
            verbose: out.verbose,
        })
    }

    /// The typed client, for streams and files.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Its address.
    pub fn address(&self) -> &str {
        self.client.address()
    }

    /// Where it comes from.
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// Asks, in the namespace to work in where that matters.
    ///
    /// # Errors
    /// What the server says, or that it cannot be reached.
    pub async fn ask(&self, mut ask: Ask) -> Result<Value, Failure> {
        let op = ask.op();
        let scoped = Route::of(op).query.iter().any(|p| p.name == "namespace");
        if scoped && !ask.has("namespace") {
            ask = ask.maybe("namespace", self.target.namespace.as_ref());
        }
        let started = std::time::Instant::now();
        let answer = self.client.ask(ask).await;
        if self.verbose {
            let how = if answer.is_ok() { "answered" } else { "failed" };
            eprintln!(
                "{}: {} {how} in {:?}",
                self.address(),
                op.name(),
                started.elapsed()
            );
        }
        answer.map_err(Failure::from)
    }

    /// The same failure, with what to do when a server that comes and goes is gone.
    pub fn hint(&self, failure: Failure) -> Failure {
        if failure.exit() == Exit::Unreachable && self.target.may_be_gone() {
            return failure.next(
                "it is the throw-away node of the context dev: start it again with `prismd dev`, \
                 or choose another with `prismctl context use NAME`",
            );
        }
        failure
    }
}

impl From<ClientError> for Failure {
    fn from(e: ClientError) -> Self {
        match e {
            ClientError::Api { body, .. } => {
                let exit = match body.reason {
                    Reason::Invalid => Exit::Usage,
                    _ => Exit::Failure,
                };
                let mut message = body.message.clone();
                if body.outcome == Outcome::Unknown {
                    message.push_str("; whether it was carried out is not known");
                }
                Self::new(exit, message).because(body.reason, &*body.request_id)
            }
            ClientError::Unreachable { address, why } => Self::new(
                Exit::Unreachable,
                format!("cannot reach the server at {address}: {why}; nothing was sent"),
            )
            .next("start it with `prismd dev`, or name another with --api or --context"),
            lost @ ClientError::Lost { .. } => Self::new(Exit::Unreachable, lost.to_string()),
            other @ (ClientError::Address { .. } | ClientError::Protocol { .. }) => {
                Self::usage(other.to_string())
            }
        }
    }
}

/// An answer as its type.
///
/// # Errors
/// When the server is of another version and answers something else.
pub fn typed<T: DeserializeOwned>(answer: &Value) -> Result<T, Failure> {
    T::deserialize(answer).map_err(|e| {
        Failure::failed(format!(
            "the server's answer is not as this version expects it: {e}"
        ))
        .next("see which version it is with `prismctl info -o json`; -o json prints any answer")
    })
}

/// The items of a list as their type.
///
/// # Errors
/// As [`typed`].
pub fn typed_all<T: DeserializeOwned>(items: &[Value]) -> Result<Vec<T>, Failure> {
    items.iter().map(typed).collect()
}

/// Our clock, for ages.
pub fn now() -> TimeMs {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    TimeMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use prism_api::ErrorBody;
    use prism_types::Rejection;

    fn api(reason: Reason) -> Failure {
        let body = ErrorBody::new(&Rejection::new(reason, "no"), "r1");
        ClientError::Api {
            status: 400,
            body: Box::new(body),
        }
        .into()
    }

    #[test]
    fn errors_map_to_the_documented_exit_codes() {
        assert_eq!(api(Reason::Invalid).exit(), Exit::Usage);
        assert_eq!(api(Reason::NotFound).exit(), Exit::Failure);
        let gone = ClientError::Unreachable {
            address: "http://h".into(),
            why: "refused".into(),
        };
        assert_eq!(Failure::from(gone).exit(), Exit::Unreachable);
        let lost = ClientError::Lost {
            address: "h".into(),
            why: "w".into(),
            key: None,
        };
        assert_eq!(Failure::from(lost).exit(), Exit::Unreachable);
        let wrong = ClientError::Address {
            address: "x".into(),
            why: "y".into(),
        };
        assert_eq!(Failure::from(wrong).exit(), Exit::Usage);
    }
}
