//! The heir of a normal user's supervisor: its parent, to which everything falls that a killed supervisor leaves behind, and which ends it.
//!
//! A plain program dies with the supervisor, but what it started does not, and without control groups nothing else holds the two
//! together. But whoever loses its parent becomes a child of the nearest ancestor that asked for that, and of these the heir is one.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use prism_sys::process::{self, Fork, SingleThread};
use prism_sys::stdio;

use super::bootstrap::COMMAND;
use crate::procfs;

/// The word on the command line, before the supervisor's number.
pub const WORD: &str = "--heir";

/// Makes two of this process: the one that comes back supervises, the other is its heir.
///
/// # Errors
/// The kernel's, when there can be no other process.
pub fn appoint(proof: SingleThread) -> Result<(), String> {
    process::adopt_orphans();
    let side = process::fork(proof, 0, None).map_err(|e| format!("make an heir: {e}"))?;
    let Fork::Parent(supervisor) = side else {
        return Ok(());
    };
    // Anew, so that whoever looks for a supervisor does not take it for one. Its streams and the pipe of the news of the start are
    // the caller's, who waits until they are closed.
    let _why_not = Command::new("/proc/self/exe")
        .args([COMMAND, WORD, &supervisor.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .exec();
    let _ = stdio::close_range(0, u32::MAX);
    inherit(supervisor)
}

/// Waits for the supervisor's end, then ends what is left of its runs.
pub fn inherit(supervisor: u32) -> ! {
    for signal in [libc::SIGPIPE, libc::SIGINT, libc::SIGHUP] {
        process::ignore(signal);
    }
    // Meanwhile what plain programs have left behind, which comes here too, goes on.
    while process::reap(None, true).is_ok_and(|ended| ended.is_some_and(|e| e.pid != supervisor)) {}
    loop {
        // Its own children only: nobody else reaps them, so their numbers are theirs. With each that ends come those beneath it.
        for pid in procfs::children(std::process::id()) {
            let _ = process::kill(pid.cast_signed(), libc::SIGKILL);
        }
        if !matches!(process::reap(None, true), Ok(Some(_))) {
            process::exit(0);
        }
        while matches!(process::reap(None, false), Ok(Some(_))) {}
    }
}
