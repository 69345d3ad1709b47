//! The last steps before a program runs: no privilege, no way to get any, and few system calls.

use std::os::fd::AsFd;

use prism_sys::{creds, filter, landlock};

use super::{Context, Named, Step};

/// Gives up all privilege for good. The filter comes last, because it forbids what the steps before it need.
pub fn lock(ctx: &Context<'_>, scoped: bool) -> Step<()> {
    creds::drop_all_capabilities().step("drop capabilities")?;
    creds::no_new_privs().step("forbid new privileges")?;
    creds::umask(0o022);
    if ctx.landlock > 0 {
        confine(ctx.landlock, scoped)?;
    }
    if !ctx.filter.is_empty() {
        filter::load(ctx.filter).step("load the system call filter")?;
    }
    Ok(())
}

/// Within its root a program may do all but make devices; a task's signals and abstract sockets stay in it. In a sandbox several
/// programs that know nothing of each other's rule sets must be able to signal each other, and its own pid and network
/// namespaces keep them in already.
fn confine(abi: u32, scoped: bool) -> Step<()> {
    let mut governed = landlock::FILES_ALL;
    for (since, right) in [
        (2, landlock::REFER),
        (3, landlock::TRUNCATE),
        (5, landlock::IOCTL_DEV),
    ] {
        if abi < since {
            governed &= !right;
        }
    }
    let allowed = governed & !(landlock::MAKE_CHAR | landlock::MAKE_BLOCK);
    let scope = if scoped && abi >= 6 {
        landlock::SCOPE_ABSTRACT | landlock::SCOPE_SIGNAL
    } else {
        0
    };
    let root = std::fs::File::open("/").step("open the root")?;
    landlock::restrict(abi, root.as_fd(), governed, allowed, scope).step("confine by landlock")
}
