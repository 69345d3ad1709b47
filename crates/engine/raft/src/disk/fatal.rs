//! The one way a store gives up. After a failed write or sync nobody knows what the disk holds: the kernel may have
//! dropped the data and will report the next sync as a success. So it is not tried again; the process ends, and the
//! next start reads back what the disk really has.

use std::io::{self, Write};
use std::path::Path;

/// The exit status of a process whose store could not write.
const EXIT_DISK: i32 = 70;

/// Says what failed, and ends the process.
pub(crate) fn fatal(what: &str, path: &Path, error: &io::Error) -> ! {
    // A closed stderr must not turn this into a panic: the process has to end either way.
    let _said = writeln!(
        io::stderr(),
        "prism: fatal: cannot {what} {}: {error}; the store stops here and does not try again, because what the disk \
         holds is no longer known; writes that were not acknowledged may be lost, acknowledged ones are on disk; \
         check the disk and its free space, then start again",
        path.display()
    );
    std::process::exit(EXIT_DISK)
}
