//! `prismctl`: the command line. Only starts: the supervisor of `prismctl run` when this process is one, else the CLI.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before any thread or runtime exists: a supervisor is single-threaded.
    prism_sandbox::maybe_supervise();
    prism_cli::main()
}
