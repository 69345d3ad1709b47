//! The server that a command talks to: the client, what it is asked with by default, and its errors as failures.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prism_api::Route;
use prism_client::{Ask, Client, ClientError};
use prism_types::{Fault, Outcome, Reason, TimeMs};
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
        let security = target.trusted.read().map_err(|e| {
            Failure::new(Exit::Usage, Fault::Contexts, e.to_string()).next("prismctl context ls")
        })?;
        let token = target.token.as_deref();
        let client = Client::secured(&target.api, token, patience, &security)?;
        let client = client.within(target.namespace.as_ref().map(prism_types::Name::as_str));
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
            let _ = writeln!(
                std::io::stderr(),
                "{}: {} {how} in {:?}",
                self.address(),
                op.name(),
                started.elapsed()
            );
        }
        answer.map_err(Failure::from)
    }

    /// The same failure, with the state of the work and what to do next as far as they are not told yet.
    pub fn hint(&self, failure: Failure, about: &About) -> Failure {
        if failure.exit() == Exit::Unreachable && self.target.may_be_gone() {
            return failure.next(
                "it was the throw-away node of the context dev: start it again with `prismd dev`, \
                 or choose another with `prismctl context use NAME`",
            );
        }
        let Some(reason) = failure.reason() else {
            return failure;
        };
        let failure = if about.changes && reason != Reason::StartFailed {
            failure.state("nothing was changed")
        } else {
            failure
        };
        failure.or_next(self.advice(reason, about))
    }

    fn advice(&self, reason: Reason, about: &About) -> Option<String> {
        let noun = about.noun;
        let list = || format!("prismctl {noun} ls");
        Some(match reason {
            Reason::NotFound | Reason::Conflict if about.listed => list(),
            Reason::WrongState if matches!(noun, "job" | "sweep" | "sandbox") => match &about.subject {
                Some(subject) => format!("prismctl {noun} get {subject}"),
                None => list(),
            },
            Reason::Unauthenticated if self.target.may_be_gone() => {
                "start the node of the context dev again with `prismd dev`: it makes a new token".to_owned()
            }
            Reason::Unauthenticated => {
                "give a token in PRISM_TOKEN; an administrator makes one with `prismctl token create NAME`".to_owned()
            }
            Reason::Forbidden => {
                "have an administrator make a token that may: prismctl token create NAME --role ROLE".to_owned()
            }
            Reason::NoPlacement | Reason::Pressure | Reason::Lost => "prismctl node top".to_owned(),
            Reason::Overloaded => "repeat it in a moment; see what takes the room: prismctl info".to_owned(),
            Reason::NotLeader => "repeat it; see whether the server is well: prismctl info".to_owned(),
            Reason::Timeout => "repeat it".to_owned(),
            Reason::Unsupported => "prismctl doctor".to_owned(),
            Reason::Internal => "see the server's log at that request; prismctl doctor".to_owned(),
            _ => return None,
        })
    }
}

/// What a command is about, for advice when it fails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The noun on the command line.
    pub noun: &'static str,
    /// Whether `NOUN ls` lists such things.
    pub listed: bool,
    /// The thing, as it was named.
    pub subject: Option<String>,
    /// Whether it was to change something.
    pub changes: bool,
}

impl From<ClientError> for Failure {
    fn from(e: ClientError) -> Self {
        match e {
            ClientError::Api { body, .. } => {
                let exit = match body.reason {
                    Reason::Invalid => Exit::Usage,
                    _ => Exit::Failure,
                };
                let failure = Self::new(exit, Fault::NotPrism, body.message.clone())
                    .because(body.reason, &*body.request_id);
                match body.outcome {
                    Outcome::Unknown => failure.state("whether it was carried out is not known"),
                    Outcome::Applied => failure.state("it was carried out"),
                    Outcome::NotApplied => failure,
                }
            }
            ClientError::Unreachable { address, why } => Self::new(
                Exit::Unreachable,
                Fault::Unreachable,
                format!("cannot reach the server at {address}: {why}; nothing was sent"),
            )
            .next("start it with `prismd dev`, or name another with --api or --context"),
            ClientError::Lost { address, why, key } => {
                let failure = Self::new(
                    Exit::Unreachable,
                    Fault::AnswerLost,
                    format!(
                        "the connection to {address} was lost before the answer came ({why}); whether it was carried out is not known"
                    ),
                );
                match key {
                    Some(key) => failure.next(format!(
                        "look first: prismctl events; a submission may be repeated with --key {key}: it cannot run twice"
                    )),
                    None => failure.next("repeat it: it changes nothing"),
                }
            }
            ClientError::NotTheServer { address, why } => Self::new(
                Exit::Unreachable,
                Fault::ServerKey,
                format!(
                    "the server at {address} is not the one that is meant: {why}; nothing was sent to it; possible interception, or its root was changed"
                ),
            )
            .next("get its pin from an administrator, who sees it with `prismctl ca status`; then prismctl context add NAME --api URL --pin PIN"),
            ClientError::NotTheClient { address, why } => Self::new(
                Exit::Unreachable,
                Fault::ServerKey,
                format!(
                    "the server at {address} does not take the certificate that was shown to it ({why}); nothing was carried out"
                ),
            )
            .next("get another from an administrator, who makes it with `prismctl ca issue`"),
            ClientError::Address { .. } => Self::new(Exit::Usage, Fault::NotPrism, e.to_string())
                .next("name it as in --api http://127.0.0.1:8008"),
            ClientError::Protocol { .. } => Self::new(Exit::Usage, Fault::NotPrism, e.to_string())
                .next("see which address is used: prismctl context ls"),
        }
    }
}

/// An answer as its type.
///
/// # Errors
/// When the server is of another version and answers something else.
pub fn typed<T: DeserializeOwned>(answer: &Value) -> Result<T, Failure> {
    T::deserialize(answer).map_err(|e| {
        Failure::failed(
            Fault::NotPrism,
            format!("the server's answer is not as this version expects it: {e}"),
        )
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
