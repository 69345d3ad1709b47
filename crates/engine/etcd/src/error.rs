//! What goes wrong with etcd, in Prism's words: why a store does not open, and what an answer means for a request.

use std::path::PathBuf;

/// Why a store on etcd does not open. Nothing was changed by the attempt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The configuration cannot be right.
    #[error("{what}: {why}; nothing was asked of etcd, correct the configuration")]
    Config {
        /// Which setting.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A file of the TLS settings cannot be used.
    #[error("{} cannot be used for TLS with etcd: {why}; correct the file or its path", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// No member answered.
    #[error(
        "no etcd member answered ({why}); nothing was changed, check that etcd runs, its addresses, certificates and firewalls"
    )]
    Unreachable {
        /// What was tried and how it failed.
        why: String,
    },
    /// etcd answered, and refused.
    #[error("etcd refused: {why}; nothing was changed")]
    Refused {
        /// What it said, and what to do.
        why: String,
    },
    /// An etcd that is too old for us.
    #[error(
        "etcd {found} is too old, 3.4 is the oldest that works; nothing was changed, upgrade etcd"
    )]
    TooOld {
        /// Its version.
        found: String,
    },
    /// The state was written by a newer version.
    #[error(
        "{key} in etcd has format {found}, but this version reads up to {known}; use the version that wrote it"
    )]
    Newer {
        /// The key that says so.
        key: String,
        /// What it says.
        found: u8,
        /// The latest this version reads.
        known: u8,
    },
    /// What is stored is not what Prism writes.
    #[error(
        "{key} in etcd does not hold what Prism writes there: {why}; the store was not opened, so that no wrong data is \
         served; remove what others wrote beneath the prefix, use another prefix, or restore etcd from a backup"
    )]
    Foreign {
        /// The key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
}

/// What kind of no an etcd member said, when its words say for sure that nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No connection came about, so nothing was sent.
    Unreachable,
    /// Its quota is used up.
    NoSpace,
    /// A request over its limit.
    TooLarge,
    /// The revision is gone.
    Compacted,
    /// The token is not, or no more, good.
    Token,
    /// The user or the password is wrong, or must not do this.
    Denied,
    /// Its gateway takes no client certificate with a common name while users are enabled.
    Named,
    /// It is too busy.
    Busy,
    /// Anything else.
    Other,
}

/// How a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It was certainly not done.
    Not(Kind, String),
    /// It may have been done, or may be yet.
    Lost(String),
}

impl Fault {
    /// What a member's error says.
    pub(crate) fn of(status: u16, said: &str) -> Self {
        const KNOWN: &[(&str, Kind)] = &[
            ("database space exceeded", Kind::NoSpace),
            ("request is too large", Kind::TooLarge),
            ("too many operations", Kind::TooLarge),
            ("received message larger", Kind::TooLarge),
            ("has been compacted", Kind::Compacted),
            ("invalid auth token", Kind::Token),
            ("revision of auth store is old", Kind::Token),
            ("user name is empty", Kind::Token),
            ("invalid user ID or password", Kind::Denied),
            ("permission denied", Kind::Denied),
            ("authentication is not enabled", Kind::Denied),
            ("CommonName of client", Kind::Named),
            ("too many requests", Kind::Busy),
            ("not capable", Kind::Busy),
            ("duplicate key", Kind::Other),
            ("lease already exists", Kind::Other),
            ("requested lease not found", Kind::Other),
            ("is a future revision", Kind::Other),
        ];
        let said = said.trim();
        let known = KNOWN.iter().find(|(words, _)| said.contains(words));
        match known {
            Some((_, kind)) => Self::Not(*kind, said.to_owned()),
            None if status == 404 => Self::Not(
                Kind::Other,
                "it has no /v3 interface; is this etcd, with its JSON gateway enabled?".to_owned(),
            ),
            None => Self::Lost(format!("it answered {status}: {said}")),
        }
    }

    pub(crate) fn kind(&self) -> Option<Kind> {
        match self {
            Self::Not(kind, _) => Some(*kind),
            Self::Lost(_) => None,
        }
    }

    /// Whether the same call may go better at once, or at another member.
    pub(crate) fn passes(&self) -> bool {
        matches!(
            self.kind(),
            None | Some(Kind::Unreachable | Kind::Busy | Kind::Token)
        )
    }

    /// What was wrong, without what to do about it.
    pub(crate) fn why(&self) -> &str {
        match self {
            Self::Not(_, why) | Self::Lost(why) => why,
        }
    }

    /// What a person can do about it.
    pub(crate) fn advice(&self) -> &'static str {
        match self.kind() {
            Some(Kind::NoSpace) => {
                "make room in etcd: compact, `etcdctl defrag` each member, raise --quota-backend-bytes if it is still \
                 full, then `etcdctl alarm disarm`"
            }
            Some(Kind::TooLarge) => {
                "set --max-request-bytes of etcd back to 1.5 MiB or more, or lower the bytes of a request here"
            }
            Some(Kind::Denied | Kind::Token) => {
                "check user and password, and that the user may read and write everything beneath the prefix"
            }
            Some(Kind::Named) => {
                "while it has users, give Prism a client certificate without a common name (CN): the user says who it is"
            }
            Some(Kind::Compacted) => "read the current state",
            Some(Kind::Busy) => "etcd is overloaded, try again",
            Some(Kind::Unreachable | Kind::Other) | None => "check that etcd runs and has a quorum",
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.why())
    }
}

impl From<Fault> for OpenError {
    fn from(fault: Fault) -> Self {
        match fault.kind() {
            None | Some(Kind::Unreachable) => Self::Unreachable {
                why: fault.why().to_owned(),
            },
            Some(_) => Self::Refused {
                why: format!("{fault}; {}", fault.advice()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_that_are_known_say_that_nothing_was_done() {
        let full = Fault::of(429, "etcdserver: mvcc: database space exceeded");
        assert_eq!(full.kind(), Some(Kind::NoSpace));
        assert!(full.advice().contains("alarm disarm"));
        for unsure in [
            "etcdserver: request timed out",
            "etcdserver: leader changed",
            "etcdserver: request timed out, possibly due to previous leader failure",
            "",
        ] {
            assert_eq!(Fault::of(503, unsure).kind(), None, "{unsure}");
        }
    }
}
