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
    let error = error.to_string();
    let cause = error.split(" (os error").next().unwrap_or_default();
    let _said = writeln!(
        io::stderr(),
        "error: cannot {what} {}: {cause}; the store stops and does not try again, because what the disk holds is no \
         longer known; what was acknowledged is on disk, the rest may be lost\n  \
         next: check the disk and its free space, then start it again\n  \
         more: prismctl explain PRISM-D004",
        path.display()
    );
    std::process::exit(EXIT_DISK)
}

/// Held by whoever writes to the store. A panic there leaves as little known as a failed write, and ends the process likewise:
/// a server without its log would only seem to live.
pub(crate) struct Vital(pub(crate) &'static str);

impl Drop for Vital {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // As above.
            let _said = writeln!(
                io::stderr(),
                "error: {} has panicked, which is a defect; the store stops; what was acknowledged is on disk, the rest may \
                 be lost\n  next: start it again\n  more: prismctl explain PRISM-I001",
                self.0
            );
            std::process::exit(EXIT_DISK)
        }
    }
}
