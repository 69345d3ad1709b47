//! What goes wrong where certificates are made.

/// Why a key, a request or a certificate could not be made or used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The system gives no random numbers, or the library refuses what it was given.
    #[error("{what} could not be made: {why}")]
    Make {
        /// What.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// What was read is not what it should be.
    #[error("{what} is damaged or of another kind: {why}")]
    Read {
        /// What.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// The issuer's own certificate ends before what it is to sign would be of use.
    #[error(
        "this server's issuing certificate ends at {ends} (Unix seconds): it signs nothing any more; renew it from the root"
    )]
    IssuerEnds {
        /// When, in Unix seconds.
        ends: i64,
    },
}

impl IdentityError {
    pub(crate) fn make(what: &'static str) -> impl FnOnce(rcgen::Error) -> Self {
        move |why| Self::Make {
            what,
            why: why.to_string(),
        }
    }

    pub(crate) fn read(what: &'static str, why: impl ToString) -> Self {
        Self::Read {
            what,
            why: why.to_string(),
        }
    }
}
