//! Plain programs that start without a copy of this process, where nothing stands against it: no files to write first, no
//! terminal, a directory that is there. The others are forked; see `child::plain`.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use prism_runtime::{Launch, Program};
use prism_sys::table::Entry;
use prism_sys::vfork::{Setup, Start, Step};

use super::state::Supervisor;
use crate::child::{self, Each, Stdio};
use crate::slots::Slot;

/// Memory that the kernel may take in the group for a process that has not yet left this one's memory, beside its arguments.
/// Were it killed for want of it, this process would be killed with it.
const SPARE: u64 = 1 << 20;

/// A program that shares this process's memory until it begins.
#[derive(Debug)]
pub struct Apart {
    start: Start,
    name: String,
}

impl Apart {
    /// Whether its program has begun, or it is over.
    pub fn has_left(&self) -> bool {
        self.start.has_left()
    }

    /// Why it could not begin, if so.
    pub fn failure(&self) -> Option<String> {
        let (step, error) = self.start.failure()?;
        let what = match step {
            Step::Join => "join the cgroup",
            Step::Limit => "limit its resources",
            Step::Directory => "enter working directory",
            Step::Streams => "place a stream",
            Step::Exec => return Some(child::why(&self.name, &error)),
        };
        Some(format!("{what}: {error}"))
    }
}

/// Its working directory, if it can just be entered.
fn directory(program: &Program) -> Option<File> {
    let dir = Path::new(&program.cwd);
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    dir.is_absolute()
        .then(|| OpenOptions::new().read(true).custom_flags(flags).open(dir))?
        .ok()
}

impl Supervisor {
    /// Starts a plain program this way; `None` where it has to be forked.
    pub(super) fn start_apart(
        &self,
        entry: &'static Entry,
        launch: &Launch,
        slot: &Slot,
        stdio: &Stdio,
    ) -> Option<std::io::Result<(Apart, u32)>> {
        let program = launch.program.as_ref()?;
        if self.user.is_some() || program.tty.is_some() || !launch.files.is_empty() {
            return None;
        }
        let directory = directory(program)?;
        let plan = child::plan(program).ok()?;
        let grouped = self.driver.as_deref().zip(slot.group.as_ref());
        let (mut joins, mut into) = (Vec::new(), None);
        if let Some((driver, group)) = grouped {
            let needed = group.held() + plan.bytes() as u64 + SPARE;
            if launch.limits.memory.0 != 0 && launch.limits.memory.0 < needed {
                return None;
            }
            into = driver.clone_into(group);
            joins = driver.joins(group);
        }
        let null = self.null.as_fd();
        let end = |end| Option::as_ref(end).map_or(null, OwnedFd::as_fd);
        let setup = Setup {
            joins,
            into,
            limits: Each::plain(&launch.limits).list(self.driver.is_some()),
            directory: directory.as_fd(),
            streams: [end(&stdio.input), end(&stdio.output), end(&stdio.error)],
            umask: 0o022,
        };
        let name = program.argv.first().cloned().unwrap_or_default();
        let begun = Start::begin(self.proof, plan, &setup, entry);
        Some(begun.map(|(start, pid)| (Apart { start, name }, pid)))
    }
}
