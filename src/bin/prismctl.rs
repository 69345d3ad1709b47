//! `prismctl`: the command line. Only starts: the supervisor of `prismctl run` when this process is one, else the CLI.

use std::process::ExitCode;

fn main() -> ExitCode {
    let armed = prism_faults::arm();
    // Before any thread or runtime exists: a supervisor is single-threaded.
    prism_sandbox::maybe_supervise();
    match armed {
        Ok(Some(faults)) => eprintln!(
            "prismctl: FAILPOINTS ARE ARMED ({faults}): it fails on purpose; unset PRISM_FAULTS"
        ),
        Ok(None) => {}
        Err(why) => {
            let code = prism_types::Fault::Usage.as_code();
            return prism_cli::fail(code, 2, &format!("{why}; nothing was done"), None);
        }
    }
    prism_cli::main()
}
