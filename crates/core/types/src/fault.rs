//! What can go wrong before a server answers, or instead of one: faults of a command line, and of a server that does not start.

use std::fmt;

use crate::Reason;

/// Stable faults. They are never in an answer of the API; `as_code` gives the page that `prismctl explain` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The command line is wrong.
    Usage,
    /// No server is known to talk to.
    NoServer,
    /// The server could not be reached; nothing was sent.
    Unreachable,
    /// The connection broke after the request was sent.
    AnswerLost,
    /// What answered is not this API, or of another version.
    NotPrism,
    /// A local file cannot be read or written.
    File,
    /// Standard output or the terminal cannot be used.
    Output,
    /// The contexts file cannot be used, or has no such context.
    Contexts,
    /// Whoever answers is not the server that is meant, or does not take the certificate that is shown.
    ServerKey,
    /// Another process has the data directory open.
    DataInUse,
    /// The data directory cannot be made, read or written.
    DataDir,
    /// Stored data is damaged.
    DataDamaged,
    /// The store stopped while the server ran: full or failing disk.
    DiskFailed,
    /// The data belongs to another server, or to a newer version.
    DataForeign,
    /// The address cannot be listened on.
    Listen,
    /// The etcd that keeps the state cannot be used.
    Etcd,
}

impl Fault {
    /// Every fault with its stable code and its name.
    pub const ALL: &[(Self, &'static str, &'static str)] = &[
        (Self::Usage, "PRISM-C001", "usage"),
        (Self::NoServer, "PRISM-C002", "no_server"),
        (Self::Unreachable, "PRISM-C003", "unreachable"),
        (Self::AnswerLost, "PRISM-C004", "answer_lost"),
        (Self::NotPrism, "PRISM-C005", "not_prism"),
        (Self::File, "PRISM-C006", "file"),
        (Self::Output, "PRISM-C007", "output"),
        (Self::Contexts, "PRISM-C008", "contexts"),
        (Self::ServerKey, "PRISM-C009", "server_key"),
        (Self::DataInUse, "PRISM-D001", "data_in_use"),
        (Self::DataDir, "PRISM-D002", "data_dir"),
        (Self::DataDamaged, "PRISM-D003", "data_damaged"),
        (Self::DiskFailed, "PRISM-D004", "disk_failed"),
        (Self::DataForeign, "PRISM-D005", "data_foreign"),
        (Self::Listen, "PRISM-D006", "listen"),
        (Self::Etcd, "PRISM-E001", "etcd"),
    ];

    fn row(self) -> (&'static str, &'static str) {
        Self::ALL
            .iter()
            .find(|(f, ..)| *f == self)
            .map_or(("PRISM-I001", "internal"), |(_, code, name)| (code, name))
    }

    /// The stable code, such as `PRISM-C003`.
    pub fn as_code(self) -> &'static str {
        self.row().0
    }

    /// The name that people see, such as `unreachable`.
    pub fn as_str(self) -> &'static str {
        self.row().1
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Every stable code with its name, of reasons and faults.
pub fn codes() -> impl Iterator<Item = (&'static str, &'static str)> {
    let reasons = Reason::ALL.iter().map(|(r, code)| (*code, r.as_str()));
    reasons.chain(Fault::ALL.iter().map(|(_, code, name)| (*code, *name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_and_names_are_unique() {
        let all: Vec<_> = codes().collect();
        for part in [
            all.iter().map(|(c, _)| *c).collect::<BTreeSet<_>>(),
            all.iter().map(|(_, n)| *n).collect(),
        ] {
            assert_eq!(part.len(), all.len());
        }
        for (fault, code, name) in Fault::ALL {
            assert_eq!((fault.as_code(), fault.as_str()), (*code, *name));
        }
    }
}
