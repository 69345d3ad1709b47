//! Execs in a sandbox on the wire.

use prism_types::{Labels, Reason, TimeMs};

use crate::{ErrorBody, Stream};

wire! {
    /// Size of a terminal.
    #[request]
    pub struct TtySize {
        /// Rows.
        pub rows: u16,
        /// Columns.
        pub columns: u16,
    }

    /// A program to run in a sandbox.
    #[request]
    pub struct ExecBody {
        /// Its id, 1 to 26 of `[a-z0-9-]`; made by the server unless said. Starting the same id again answers with what is there.
        pub id: Option<String>,
        /// Program and arguments.
        pub argv: Vec<String>,
        /// Environment on top of the sandbox's.
        pub env: Option<Labels>,
        /// Working directory.
        pub cwd: Option<String>,
        /// Whether standard input stays open for `POST .../input`.
        pub stdin: Option<bool>,
        /// Terminal, if it wants one.
        pub tty: Option<TtySize>,
        /// Wall time, such as `30s`.
        pub timeout: Option<String>,
    }

    /// How a program ended.
    pub struct ExitView {
        /// Exit code, if it ended by itself.
        pub code: Option<i32>,
        /// Signal that ended it.
        pub signal: Option<i32>,
        /// Why it did not succeed; `null` if it did.
        pub reason: Option<Reason>,
        /// The same for people.
        pub message: Option<String>,
        /// When it started.
        pub started: TimeMs,
        /// Wall time, milliseconds.
        pub wall_ms: u64,
        /// Processor time, microseconds.
        pub cpu_us: u64,
        /// Highest memory use, bytes.
        pub memory_peak: u64,
        /// Bytes of standard output.
        pub stdout_bytes: u64,
        /// Bytes of standard error.
        pub stderr_bytes: u64,
    }

    /// An exec.
    pub struct ExecView {
        /// Its id.
        pub id: String,
        /// What runs.
        pub argv: Vec<String>,
        /// Since when; `null` while it is being started.
        pub started: Option<TimeMs>,
        /// How it ended; `null` while it runs.
        pub exit: Option<ExitView>,
    }

    /// A line of a streamed exec: first `exec`, then output, at last `exit` (or `error`). Other fields are left out.
    pub struct ExecEvent {
        /// The exec, in the first line.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub exec: Option<String>,
        /// Which stream the output is of.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub stream: Option<Stream>,
        /// Offset of the first byte in its stream.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub offset: Option<u64>,
        /// The output, when it is UTF-8.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub text: Option<String>,
        /// The output in base 64, when it is not.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub base64: Option<String>,
        /// How it ended, in the last line.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub exit: Option<ExitView>,
        /// Why the stream broke off, in the last line; the exec may still run.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub error: Option<ErrorBody>,
    }

    /// A signal to send.
    #[request]
    pub struct SignalBody {
        /// Its name or number: `TERM`, `SIGTERM` or `15`.
        pub signal: String,
    }
}

impl ExecBody {
    /// A program without input, in the default directory.
    pub fn new(argv: Vec<String>) -> Self {
        Self {
            id: None,
            argv,
            env: None,
            cwd: None,
            stdin: None,
            tty: None,
            timeout: None,
        }
    }
}

impl ExecEvent {
    /// An event with nothing in it, to fill in.
    pub const fn empty() -> Self {
        Self {
            exec: None,
            stream: None,
            offset: None,
            text: None,
            base64: None,
            exit: None,
            error: None,
        }
    }
}
