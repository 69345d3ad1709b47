//! How a command ends: exit codes, and failures as people read them. Prints nothing itself; `main` does.

use std::fmt;
use std::io;

use prism_types::{Fault, Reason};

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
    code: &'static str,
    reason: Option<Reason>,
    request: Option<String>,
    quiet: bool,
}

/// What every verb answers.
pub type Done = Result<Exit, Failure>;

impl Failure {
    /// A failure with its exit code and what its page is called.
    pub fn new(exit: Exit, fault: Fault, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: plain(&message.into()),
            next: None,
            code: fault.as_code(),
            reason: None,
            request: None,
            quiet: false,
        }
    }

    /// A wrong command line.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, Fault::Usage, message)
    }

    /// A job, sweep or sandbox that is not written as it should be.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::usage(message).because(Reason::Invalid, "")
    }

    /// A file that was named and cannot be read.
    pub fn file(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, Fault::File, message)
    }

    /// Anything that failed without being the caller's fault.
    pub fn failed(fault: Fault, message: impl Into<String>) -> Self {
        Self::new(Exit::Failure, fault, message)
    }

    /// A defect: what cannot happen to anybody happened.
    pub fn defect(message: impl Into<String>) -> Self {
        Self::failed(Fault::Output, message).because(Reason::Internal, "")
    }

    /// The same with what to do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// The same with what to do next, unless it has that already.
    #[must_use]
    pub fn or_next(mut self, next: Option<String>) -> Self {
        self.next = self.next.or(next);
        self
    }

    /// The same with the state of the work, unless the message tells it.
    #[must_use]
    pub fn state(mut self, state: &str) -> Self {
        if !["nothing was", "not known", state]
            .iter()
            .any(|s| self.message.contains(s))
        {
            self.message = format!("{}; {state}", self.message);
        }
        self
    }

    /// The same with the reason that a server gave, and the id of the request it was given for.
    #[must_use]
    pub fn because(mut self, reason: Reason, request: impl Into<String>) -> Self {
        self.code = reason.as_code();
        self.reason = Some(reason);
        self.request = Some(request.into()).filter(|r: &String| !r.is_empty());
        self
    }

    /// The same with the code of a page.
    #[must_use]
    pub fn code(mut self, code: &'static str) -> Self {
        self.code = code;
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

    /// The text, each line filled to at most `columns`, with the word `error` in colour or not.
    pub fn render(&self, columns: Option<usize>, colour: bool) -> String {
        let (on, off) = if colour {
            ("\x1b[1;31m", "\x1b[0m")
        } else {
            ("", "")
        };
        let body = text::fill(&text::escape_lines(&self.message), "error: ", columns);
        let mut shown = body.replacen("error:", &format!("{on}error:{off}"), 1);
        if let Some(next) = &self.next {
            shown.push('\n');
            shown.push_str(&text::fill(&text::escape_lines(next), "  next: ", columns));
        }
        let mut more = format!("prismctl explain {}", self.code);
        if let Some(request) = &self.request {
            more.push_str(&format!(" (request {})", text::escape(request)));
        }
        shown.push('\n');
        shown.push_str(&text::fill(&more, "  more: ", columns));
        shown
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(None, false))
    }
}

/// A cause without the number that the system gives it, which tells people nothing.
pub fn plain(message: &str) -> String {
    let mut shown = String::with_capacity(message.len());
    let mut rest = message;
    while let Some((before, after)) = rest.split_once(" (os error ") {
        shown.push_str(before);
        rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
        rest = rest.strip_prefix(')').unwrap_or(rest);
    }
    shown.push_str(rest);
    shown
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        let gone = e.kind() == io::ErrorKind::BrokenPipe;
        let mut failure = Self::failed(Fault::Output, format!("cannot write the output: {e}"));
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
        let f = Failure::failed(Fault::File, "there is no job \u{1b}[31m1 (os error 2)")
            .next("prismctl job ls")
            .because(Reason::NotFound, "r1");
        assert_eq!(
            f.to_string(),
            "error: there is no job \\x1b[31m1\n  next: prismctl job ls\n  \
             more: prismctl explain PRISM-R002 (request r1)"
        );
        let f = f.state("nothing was changed");
        assert_eq!(
            f.render(Some(31), false),
            "error: there is no job\n       \\x1b[31m1; nothing was\n       changed\n  next: prismctl job ls\n  \
             more: prismctl explain\n        PRISM-R002 (request r1)"
        );
        assert_eq!(f.clone().state("nothing was changed"), f);
    }
}
