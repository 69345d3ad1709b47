//! Why a connection ends.

use std::io;

/// Why a connection ended, or did not begin.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other end closed it.
    #[error("the other end closed the connection")]
    Closed,
    /// This end has nothing more to say.
    #[error("this end closed the connection")]
    Over,
    /// The stream failed.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// Nothing came, not even a sign of life.
    #[error("nothing was heard from the other end for {0} s")]
    Silent(u64),
    /// The other end is none of ours.
    #[error("the other end does not speak this protocol")]
    Stranger,
    /// No version is common to both ends.
    #[error(
        "the other end speaks {}, and here {} is needed; bring the older one within one version of the other",
        versions(*theirs_min, *theirs_max), versions(*ours_min, *ours_max)
    )]
    Version {
        /// The oldest that the other end speaks.
        theirs_min: u16,
        /// The newest.
        theirs_max: u16,
        /// The oldest that this end speaks.
        ours_min: u16,
        /// The newest.
        ours_max: u16,
    },
    /// What came breaks the protocol.
    #[error("the other end broke the protocol: {0}")]
    Protocol(&'static str),
}

/// `v9`, or `v7–v8`.
pub fn versions(min: u16, max: u16) -> String {
    if min == max {
        format!("v{min}")
    } else {
        format!("v{min}–v{max}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_do_not_meet_are_told() {
        let why = WireError::Version {
            theirs_min: 9,
            theirs_max: 9,
            ours_min: 7,
            ours_max: 8,
        };
        let said = why.to_string();
        assert!(
            said.starts_with("the other end speaks v9, and here v7–v8 is needed"),
            "{said}"
        );
    }
}
