//! What the daemon and its supervisor say to each other, over a unix socket: a greeting of fixed shape, then frames of a length
//! and a body. Bodies are batches wherever something can come in numbers.

use std::io::{self, Read};

use prism_runtime::{BootMs, Capability, Exec, Launch, Observed, RunEvent, RuntimeError, Usage};
use prism_types::{Millis, RunId};
use serde::{Deserialize, Serialize};

/// Version of everything in this file. A supervisor of another version is left alone, with a clear error.
pub const VERSION: u32 = 4;

/// Largest frame.
pub const MAX_FRAME: usize = 256 << 20;

/// First eight bytes from each side: this and the version.
const MAGIC: [u8; 4] = *b"PRSV";

/// From the daemon.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Start a batch.
    Launch(Vec<Launch>),
    /// Start a program in a sandbox.
    Exec(Exec),
    /// End runs.
    Stop(Vec<RunId>, Millis),
    /// Drop what is remembered of runs that are over.
    Forget(Vec<RunId>),
    /// End everything, then the supervisor.
    Shutdown,
    /// Move the ends of leases.
    Renew(Vec<RunId>, BootMs),
    /// Something that is answered by an [`Answer`] with the same number.
    Ask(u64, Question),
}

/// From the daemon, to be answered.
#[derive(Debug, Serialize, Deserialize)]
pub enum Question {
    /// Feed standard input, and close it if so told.
    Input(RunId, Vec<u8>, bool),
    /// Send a signal.
    Signal(RunId, i32),
    /// Set a terminal's rows and columns.
    Resize(RunId, u16, u16),
    /// Tell of every run.
    Observe,
    /// Tell what a run uses.
    Usage(RunId),
    /// Tell the number of a sandbox's first process.
    FirstProcess(RunId),
    /// Tell what works here.
    Capabilities,
}

/// To the daemon, in answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// It is done.
    Done,
    /// Every run.
    Runs(Vec<Observed>),
    /// What it uses.
    Usage(Usage),
    /// The number of a process on the host.
    Process(u32),
    /// What works.
    Capabilities(Vec<Capability>),
}

/// To the daemon.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The first: a number of this supervisor's life, and whether it took over from one that died with runs.
    Hello {
        /// Differs between lives.
        life: u64,
        /// Whether runs were lost before it began.
        lost: bool,
    },
    /// The answer to a question.
    Answer(u64, Result<Answer, RuntimeError>),
    /// What happened since.
    Events(Vec<RunEvent>),
    /// The processors to keep to, the others being taken by runs that are held there; all that the supervisor has when none is.
    KeepTo(Vec<usize>),
}

/// The greeting of this version.
pub fn greeting() -> [u8; 8] {
    let mut out = [0; 8];
    out[..4].copy_from_slice(&MAGIC);
    out[4..].copy_from_slice(&VERSION.to_le_bytes());
    out
}

/// Checks the other side's greeting.
///
/// # Errors
/// What it is instead.
pub fn check_greeting(bytes: [u8; 8]) -> Result<(), String> {
    let (magic, version) = bytes.split_at(4);
    if magic != MAGIC {
        return Err("the other side is no supervisor".into());
    }
    let version = u32::from_le_bytes(version.try_into().expect("four of eight bytes"));
    if version == VERSION {
        Ok(())
    } else {
        Err(format!(
            "a supervisor of protocol version {version} runs, this program speaks {VERSION}; \
             its runs go on; start the program it belongs to, or stop its runs, then try again"
        ))
    }
}

/// Appends a frame.
///
/// # Errors
/// When it is too large.
pub fn frame<T: Serialize>(value: &T, mut out: Vec<u8>) -> io::Result<Vec<u8>> {
    let at = out.len();
    out.extend([0; 4]);
    let mut out = postcard::to_extend(value, out).map_err(io::Error::other)?;
    let length = out.len() - at - 4;
    if length > MAX_FRAME {
        return Err(io::Error::other(format!(
            "a frame of {length} bytes, at most {MAX_FRAME} are possible"
        )));
    }
    let length = u32::try_from(length).map_err(io::Error::other)?;
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
    Ok(out)
}

/// The length in a frame's head.
///
/// # Errors
/// When it is too large.
pub fn length(head: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_le_bytes(head) as usize;
    if length > MAX_FRAME {
        return Err(io::Error::other(format!("a frame of {length} bytes")));
    }
    Ok(length)
}

/// Reads one frame, blocking.
///
/// # Errors
/// The stream's, or a body that is no `T`.
pub fn read_frame<T: for<'de> Deserialize<'de>>(from: &mut impl Read) -> io::Result<T> {
    let mut head = [0; 4];
    from.read_exact(&mut head)?;
    let mut body = vec![0; length(head)?];
    from.read_exact(&mut body)?;
    postcard::from_bytes(&body).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> RunId {
        RunId::new("a-run").unwrap()
    }

    #[test]
    fn frames_come_back() {
        let bytes = frame(&Request::Forget(vec![id()]), Vec::new()).unwrap();
        let back: Request = read_frame(&mut bytes.as_slice()).unwrap();
        assert!(matches!(back, Request::Forget(ids) if ids == [id()]));
    }

    #[test]
    fn other_versions_are_named() {
        let mut other = greeting();
        other[4] = 9;
        assert!(check_greeting(other).unwrap_err().contains("version 9"));
        assert!(check_greeting(greeting()).is_ok());
    }
}
