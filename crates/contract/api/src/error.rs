//! The one body that every error has, and the status that goes with a reason.

use prism_types::{Outcome, Reason, Rejection};
use serde_json::Value;

wire! {
    /// What every error answer says.
    pub struct ErrorBody {
        /// Stable code; `prismctl explain CODE` prints its page.
        pub code: String,
        /// For people: what failed, why, and what to do next.
        pub message: String,
        /// For programs.
        pub reason: Reason,
        /// Whether the same request may succeed later.
        pub retryable: bool,
        /// Whether the request was carried out.
        pub outcome: Outcome,
        /// Id of the request, as in the `x-request-id` header and the server's log.
        pub request_id: String,
        /// More, depending on the reason (`line`, `field`, `nearest`, `retry_after_ms`); an object.
        pub details: Value,
    }
}

impl ErrorBody {
    /// The body for a rejection.
    pub fn new(rejection: &Rejection, request_id: impl Into<String>) -> Self {
        let mut details = serde_json::Map::new();
        if let Some(after) = rejection.retry_after {
            details.insert("retry_after_ms".to_owned(), after.0.into());
        }
        Self {
            code: rejection.reason.as_code().to_owned(),
            message: rejection.message.clone(),
            reason: rejection.reason,
            retryable: rejection.retryable,
            outcome: rejection.outcome,
            request_id: request_id.into(),
            details: Value::Object(details),
        }
    }
}

/// The HTTP status that goes with a reason.
pub const fn status_of(reason: Reason) -> u16 {
    match reason {
        Reason::Invalid => 400,
        Reason::Unauthenticated => 401,
        Reason::Forbidden => 403,
        Reason::NotFound => 404,
        Reason::Timeout => 408,
        Reason::Conflict
        | Reason::WrongState
        | Reason::Cancelled
        | Reason::EarlyStopped
        | Reason::DependencyFailed
        | Reason::TooManyFailures => 409,
        Reason::Expired => 410,
        Reason::KeyReused
        | Reason::StartFailed
        | Reason::ExitCode
        | Reason::Signal
        | Reason::OutOfMemory
        | Reason::DiskExceeded => 422,
        Reason::Overloaded => 429,
        Reason::Internal => 500,
        Reason::Unsupported => 501,
        Reason::NoPlacement
        | Reason::Pressure
        | Reason::Lost
        | Reason::NotLeader
        | Reason::Issuer => 503,
    }
}
