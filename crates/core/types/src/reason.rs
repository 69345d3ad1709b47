//! Why something did not happen: an enum for programs, a sentence for people, what became of the request.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Millis;

/// Stable reasons. Clients match on them; `as_code` gives the page that `prismctl explain` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The request or file is malformed or breaks a limit.
    Invalid,
    /// No such thing.
    NotFound,
    /// The name or id is taken by something different.
    Conflict,
    /// The thing is in a state in which this cannot be done.
    WrongState,
    /// The same idempotency key came with another request.
    KeyReused,
    /// No or a wrong token.
    Unauthenticated,
    /// The token does not allow it.
    Forbidden,
    /// No node has room or the wanted properties now.
    NoPlacement,
    /// A bound of the system is reached (queue, count, body).
    Overloaded,
    /// The node's memory or disk is under pressure.
    Pressure,
    /// The command ended with a non-zero status.
    ExitCode,
    /// A signal ended the command.
    Signal,
    /// The memory limit was hit.
    OutOfMemory,
    /// The time limit was hit.
    Timeout,
    /// The command, image or sandbox could not be started.
    StartFailed,
    /// The node or its supervisor went away while it ran.
    Lost,
    /// Ended by request.
    Cancelled,
    /// Ended early by the sweep's rule.
    EarlyStopped,
    /// A job it depends on did not complete.
    DependencyFailed,
    /// More tasks failed than allowed.
    TooManyFailures,
    /// This server does not lead, or the store lost its quorum.
    NotLeader,
    /// The lease of life ended.
    Expired,
    /// The machine lacks something that was asked for.
    Unsupported,
    /// A defect or a failing disk.
    Internal,
    /// The disk limit was hit.
    DiskExceeded,
    /// What issues the cluster's certificates, and is not Prism, is away or refuses.
    Issuer,
}

impl Reason {
    /// Every reason with its stable code.
    pub const ALL: &[(Self, &'static str)] = &[
        (Self::Invalid, "PRISM-R001"),
        (Self::NotFound, "PRISM-R002"),
        (Self::Conflict, "PRISM-R003"),
        (Self::WrongState, "PRISM-R004"),
        (Self::KeyReused, "PRISM-R005"),
        (Self::Unauthenticated, "PRISM-A001"),
        (Self::Forbidden, "PRISM-A002"),
        (Self::NoPlacement, "PRISM-P001"),
        (Self::Overloaded, "PRISM-P002"),
        (Self::Pressure, "PRISM-P003"),
        (Self::ExitCode, "PRISM-T001"),
        (Self::Signal, "PRISM-T002"),
        (Self::OutOfMemory, "PRISM-T003"),
        (Self::Timeout, "PRISM-T004"),
        (Self::StartFailed, "PRISM-T005"),
        (Self::Lost, "PRISM-T006"),
        (Self::Cancelled, "PRISM-T007"),
        (Self::EarlyStopped, "PRISM-T008"),
        (Self::DependencyFailed, "PRISM-T009"),
        (Self::TooManyFailures, "PRISM-T010"),
        (Self::NotLeader, "PRISM-Q001"),
        (Self::Expired, "PRISM-T011"),
        (Self::Unsupported, "PRISM-N001"),
        (Self::DiskExceeded, "PRISM-T012"),
        (Self::Issuer, "PRISM-E002"),
        (Self::Internal, "PRISM-I001"),
    ];

    /// The stable code, such as `PRISM-T003`.
    pub fn as_code(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(r, _)| *r == self)
            .map_or("PRISM-I001", |(_, code)| code)
    }

    /// The name that clients see, such as `out_of_memory`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::WrongState => "wrong_state",
            Self::KeyReused => "key_reused",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NoPlacement => "no_placement",
            Self::Overloaded => "overloaded",
            Self::Pressure => "pressure",
            Self::ExitCode => "exit_code",
            Self::Signal => "signal",
            Self::OutOfMemory => "out_of_memory",
            Self::Timeout => "timeout",
            Self::StartFailed => "start_failed",
            Self::Lost => "lost",
            Self::Cancelled => "cancelled",
            Self::EarlyStopped => "early_stopped",
            Self::DependencyFailed => "dependency_failed",
            Self::TooManyFailures => "too_many_failures",
            Self::NotLeader => "not_leader",
            Self::Expired => "expired",
            Self::Unsupported => "unsupported",
            Self::DiskExceeded => "disk_exceeded",
            Self::Issuer => "issuer",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What became of a request that was not answered with success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was carried out.
    Applied,
    /// Nothing was changed.
    NotApplied,
    /// It may have been carried out; repeat it with the same idempotency key.
    Unknown,
}

/// A "no" with its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// For programs.
    pub reason: Reason,
    /// For people: what failed, why, and what to do next.
    pub message: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// When to try again, if that is known.
    pub retry_after: Option<Millis>,
    /// What became of the request.
    pub outcome: Outcome,
}

impl Rejection {
    /// A rejection that changed nothing and will not change by itself.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            retryable: false,
            retry_after: None,
            outcome: Outcome::NotApplied,
        }
    }

    /// A rejection that changed nothing and is worth repeating.
    pub fn retryable(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            retryable: true,
            ..Self::new(reason, message)
        }
    }

    /// No answer to a request that may have been carried out; it is worth repeating under the same idempotency key.
    pub fn unknown(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Unknown,
            ..Self::retryable(reason, message)
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Rejection {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_one_code() {
        let codes: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|(_, c)| c).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for (reason, code) in Reason::ALL {
            assert_eq!(reason.as_code(), *code);
        }
    }
}
