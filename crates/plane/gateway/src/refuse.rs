//! A "no" on its way to the client: a rejection, the status if it is not the reason's own, and details for programs.

use prism_api::{ErrorBody, status_of};
use prism_state::Corrupt;
use prism_store::StoreError;
use prism_types::{Outcome, Reason, Rejection};
use serde_json::{Map, Value};

/// Why a request is not answered with success.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) rejection: Rejection,
    pub(crate) status: u16,
    pub(crate) details: Box<Map<String, Value>>,
    /// Value of the `allow` header, for 405.
    pub(crate) allow: Option<Box<str>>,
}

/// What a handler answers with.
pub(crate) type Answered<T> = Result<T, Refusal>;

impl Refusal {
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Rejection::new(reason, message).into()
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Reason::Invalid, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Reason::NotFound, message)
    }

    pub(crate) fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Whether it says only what became of a commit, and nothing of what the state holds.
    pub(crate) fn is_of_the_store(&self) -> bool {
        matches!(self.rejection.reason, Reason::NotLeader | Reason::Pressure)
    }

    pub(crate) fn retryable(mut self) -> Self {
        self.rejection.retryable = true;
        self
    }

    pub(crate) fn detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// The body that goes out.
    pub(crate) fn body(&self, request_id: &str) -> ErrorBody {
        let mut body = ErrorBody::new(&self.rejection, request_id);
        if let Value::Object(details) = &mut body.details {
            details.extend((*self.details).clone());
        }
        body
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self {
            // Without an answer there is no status of the reason's own.
            status: match (rejection.outcome, rejection.reason) {
                (Outcome::Unknown, _) => 504,
                // Of a commit: what keeps the state has no room left.
                (_, Reason::Pressure) => 507,
                (_, reason) => status_of(reason),
            },
            rejection,
            details: Box::default(),
            allow: None,
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let refusal = Self::new(
            Reason::NotLeader,
            format!("the store could not be read: {error}"),
        )
        .retryable();
        Self {
            status: 503,
            ..refusal
        }
    }
}

impl From<Corrupt> for Refusal {
    fn from(error: Corrupt) -> Self {
        Self::new(
            Reason::Internal,
            format!("a stored value cannot be read: {error}"),
        )
    }
}
