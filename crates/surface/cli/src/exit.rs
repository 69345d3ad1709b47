//! How a command ends: exit codes, and failures as people read them. Prints nothing itself; `main` does.

use std::fmt;
use std::io;

use prism_types::Reason;

use crate::output::text;

/// What the shell is told. The numbers are documented in `prismctl --help` and are never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All went well.
    Ok,
    /// It failed.
    Failure,
    /// The command line or a file is wrong; nothing was done.
    Usage,
    /// Some tasks completed and some did not.
    Partial,
    /// The server could not be reached.
    Unreachable,
    /// Ended from the keyboard.
    Interrupted,
    /// The status of a command that ran in a sandbox.
    Program(u8),
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Partial => 3,
            Self::Unreachable => 4,
            Self::Interrupted => 130,
            Self::Program(code) => code,
        }
    }
}

/// Why a command did not succeed: what failed and why, what state the work is in, what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    exit: Exit,
    message: String,
    next: Option<String>,
    reason: Option<Reason>,
    request: Option<String>,
    quiet: bool,
}

/// What every verb answers.
pub type Done = Result<Exit, Failure>;

impl Failure {
    /// A failure with its exit code.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            next: None,
            reason: None,
            request: None,
            quiet: false,
        }
    }

    /// A wrong command line or file.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Anything that failed without being the caller's fault.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failure, message)
    }

    /// The same with what to do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// The same with the reason that a server gave, and the id of the request it was given for.
    #[must_use]
    pub fn because(mut self, reason: Reason, request: impl Into<String>) -> Self {
        self.reason = Some(reason);
        self.request = Some(request.into()).filter(|r: &String| !r.is_empty());
        self
    }

    /// The exit code.
    pub const fn exit(&self) -> Exit {
        self.exit
    }

    /// The reason that a server gave.
    pub const fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// What failed and why.
    #[cfg(test)]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether there is nothing to tell: the reader of our output is gone.
    pub const fn is_quiet(&self) -> bool {
        self.quiet
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", text::escape_lines(&self.message))?;
        if let Some(next) = &self.next {
            write!(f, "\n  next: {}", text::escape_lines(next))?;
        }
        if let Some(reason) = self.reason {
            write!(f, "\n  {} {reason}", reason.as_code())?;
            if let Some(request) = &self.request {
                write!(f, ", request {}", text::escape(request))?;
            }
            write!(f, "; about it: prismctl explain {}", reason.as_code())?;
        }
        Ok(())
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        let gone = e.kind() == io::ErrorKind::BrokenPipe;
        let mut failure = Self::failed(format!("cannot write the output: {e}"));
        if gone {
            failure.quiet = true;
            failure.exit = Exit::Ok;
        }
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_codes_stay() {
        let all = [
            (Exit::Ok, 0),
            (Exit::Failure, 1),
            (Exit::Usage, 2),
            (Exit::Partial, 3),
            (Exit::Unreachable, 4),
            (Exit::Interrupted, 130),
            (Exit::Program(7), 7),
        ];
        for (exit, code) in all {
            assert_eq!(exit.code(), code);
        }
    }

    #[test]
    fn a_broken_pipe_is_quiet_and_well() {
        let f = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(f.is_quiet());
        assert_eq!(f.exit(), Exit::Ok);
    }

    #[test]
    fn a_failure_reads_as_text_in_at_most_four_lines() {
        let f = Failure::failed("there is no job \u{1b}[31m1")
            .next("prismctl job ls")
            .because(Reason::NotFound, "r1");
        assert_eq!(
            f.to_string(),
            "error: there is no job \\x1b[31m1\n  next: prismctl job ls\n  \
             PRISM-R002 not_found, request r1; about it: prismctl explain PRISM-R002"
        );
    }
}
