//! What this host can do for sandboxes, found by doing it in a child that is thrown away.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use prism_runtime::Capability;
use prism_sys::process::{self, Fork, SingleThread};
use prism_sys::{creds, filter, landlock, mounts, stdio};

use crate::{cgroup, slots};

/// What works here, without a supervisor. The program that calls this must call [`crate::maybe_supervise`] first thing in its
/// `main`: the probes need a process without threads, which is this program again.
pub fn probe() -> Vec<Capability> {
    let output = Command::new("/proc/self/exe")
        .args(["supervise", "--probe"])
        .output();
    match output {
        Ok(output) => postcard::from_bytes(&output.stdout).unwrap_or_else(|_| {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            vec![broken(said)]
        }),
        Err(e) => vec![broken(e.to_string())],
    }
}

fn broken(why: String) -> Capability {
    Capability {
        name: "probe".into(),
        works: false,
        found: why,
        lost: "what this host can do is not known".into(),
        required: true,
    }
}

/// The probing process.
pub(crate) fn print_and_exit() -> ! {
    let list = SingleThread::prove().map(|proof| {
        let name = format!("probe-{}", std::process::id());
        let groups = match cgroup::detect(&name) {
            Ok(driver) => {
                let list = driver.capabilities();
                driver.remove_parent();
                list
            }
            Err(why) => vec![no_cgroups(&why)],
        };
        all(proof, groups)
    });
    let written = list.and_then(|list| {
        let bytes = postcard::to_stdvec(&list).map_err(std::io::Error::other)?;
        // Standard output keeps what follows the last line end, and this process ends without its destructors.
        let mut stdout = std::io::stdout().lock();
        std::io::Write::write_all(&mut stdout, &bytes)?;
        std::io::Write::flush(&mut stdout)
    });
    process::exit(i32::from(written.is_err()))
}

/// The line for a host whose cgroups may not be written.
pub(crate) fn no_cgroups(why: &str) -> Capability {
    Capability {
        name: "cgroups".into(),
        works: false,
        found: why.to_owned(),
        lost: "no limit on processor time or i/o; memory is limited per process (its private memory, not what it shares, keeps in files in memory, pipes or \
               sockets) and processes per user, instead of per run together; memory peaks are those of the largest process; run as root, or have a \
               cgroup v2 subtree delegated to this user"
            .into(),
        required: false,
    }
}

type Check = fn(SingleThread) -> Result<String, String>;

struct Probe {
    name: &'static str,
    required: bool,
    lost: &'static str,
    check: Check,
}

const PROBES: &[Probe] = &[
    Probe {
        name: "user-namespaces",
        required: true,
        lost: "no sandbox can be made; raise user.max_user_namespaces, and allow unprivileged user namespaces where the \
               distribution restricts them (kernel.unprivileged_userns_clone, AppArmor)",
        check: |proof| enter(proof, 0).map(|()| "made and mapped".into()),
    },
    Probe {
        name: "pid-namespaces",
        required: true,
        lost: "no sandbox can be made; this kernel has no pid namespaces",
        check: |proof| enter(proof, libc::CLONE_NEWPID).map(|()| "made".into()),
    },
    Probe {
        name: "mount-namespaces",
        required: true,
        lost: "no sandbox can be made; this kernel has no mount namespaces",
        check: |proof| enter(proof, libc::CLONE_NEWNS).map(|()| "made".into()),
    },
    Probe {
        name: "network-namespaces",
        required: true,
        lost: "no sandbox can be made; this kernel has no network namespaces",
        check: |proof| {
            enter(proof, libc::CLONE_NEWNET)?;
            mounts::loopback_up().map_err(|e| format!("bring loopback up: {e}"))?;
            Ok("made, loopback up".into())
        },
    },
    Probe {
        name: "ipc-uts-cgroup-namespaces",
        required: true,
        lost: "no sandbox can be made; this kernel lacks one of them",
        check: |proof| {
            let kinds = libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;
            enter(proof, kinds).map(|()| "made".into())
        },
    },
    Probe {
        name: "overlay",
        required: true,
        lost: "no sandbox can have a root of its own; load the overlay module (normal users need Linux 5.11)",
        check: |proof| overlay(proof).map(|()| "mounted in a user namespace".into()),
    },
    Probe {
        name: "proc",
        required: true,
        lost: "no sandbox can have a /proc; the host's own is partly covered (a container?), so run where it is whole",
        check: proc_mount,
    },
    Probe {
        name: "seccomp",
        required: false,
        lost: "sandboxes may make every system call that their (missing) privileges allow",
        check: |_| {
            creds::no_new_privs().map_err(|e| e.to_string())?;
            let program = crate::seccomp::program();
            filter::load(&program).map_err(|e| e.to_string())?;
            Ok(format!("a filter of {} instructions loads", program.len()))
        },
    },
    Probe {
        name: "landlock",
        required: false,
        lost: "one layer less between a sandbox and the host: the namespaces and the filter still hold",
        check: |_| match landlock::abi() {
            0 => Err("not in this kernel, or not enabled (lsm=)".into()),
            abi => Ok(format!("abi {abi}")),
        },
    },
    Probe {
        name: "idmapped-mounts",
        required: false,
        lost: "images, sent files and scratch directories cannot be given to a sandbox started by root; Linux 5.19 has them",
        check: idmap,
    },
    Probe {
        name: "pidfd",
        required: true,
        lost: "programs cannot be started in running sandboxes; Linux 5.8 has it",
        check: |proof| {
            enter(proof, libc::CLONE_NEWUTS)?;
            let own = process::pidfd(std::process::id()).map_err(|e| e.to_string())?;
            process::join(proof, own.as_fd(), libc::CLONE_NEWUTS).map_err(|e| e.to_string())?;
            Ok("opened and entered".into())
        },
    },
    Probe {
        name: "close-range",
        required: true,
        lost: "no sandbox can be made; Linux 5.9 has it",
        check: |_| {
            stdio::close_range(900, 1_000).map_err(|e| e.to_string())?;
            Ok("works".into())
        },
    },
    Probe {
        name: "openat2",
        required: true,
        lost: "files of sandboxes cannot be reached safely; Linux 5.6 has it",
        check: |_| {
            use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
            let (flags, mode) = (OFlags::PATH, Mode::empty());
            openat2(CWD, ".", flags, mode, ResolveFlags::BENEATH).map_err(|e| e.to_string())?;
            Ok("works".into())
        },
    },
];

/// Probes everything; `groups` is what the cgroup driver says of itself.
pub(crate) fn all(proof: SingleThread, groups: Vec<Capability>) -> Vec<Capability> {
    let mut out: Vec<Capability> = PROBES.iter().map(|p| run(proof, p)).collect();
    out.extend(groups);
    out
}

/// Runs one check in a child, and reads what it says from a pipe.
fn run(proof: SingleThread, probe: &Probe) -> Capability {
    let said = in_child(proof, probe.check);
    let (works, found) = match said {
        Ok(found) => (true, found),
        Err(why) => (false, why),
    };
    Capability {
        name: probe.name.into(),
        works,
        found,
        lost: if works {
            String::new()
        } else {
            probe.lost.into()
        },
        required: probe.required,
    }
}

fn in_child(proof: SingleThread, check: Check) -> Result<String, String> {
    use std::io::{Read, Write};
    let (mut from, mut to) = std::io::pipe().map_err(|e| e.to_string())?;
    match process::fork(proof, 0, None).map_err(|e| format!("fork: {e}"))? {
        Fork::Child => {
            process::die_with_parent();
            let result = std::panic::catch_unwind(|| check(proof))
                .unwrap_or_else(|_| Err("internal error: a panic".into()));
            let (good, text) = match result {
                Ok(text) => (b'+', text),
                Err(text) => (b'-', text),
            };
            let _ = to
                .write_all(&[good])
                .and_then(|()| to.write_all(text.as_bytes()));
            process::exit(0)
        }
        Fork::Parent(pid) => {
            drop(to);
            let mut text = String::new();
            let _ = from.read_to_string(&mut text);
            let _ = process::reap(Some(pid), true);
            match text.split_at_checked(1) {
                Some(("+", found)) => Ok(found.to_owned()),
                Some((_, why)) => Err(why.to_owned()),
                None => Err("the probe was killed".into()),
            }
        }
    }
}

/// Enters a new user namespace as its root, and new namespaces of `kinds` in it.
fn enter(proof: SingleThread, kinds: i32) -> Result<(), String> {
    let (uid, gid) = slots::own_ids();
    process::unshare(proof, libc::CLONE_NEWUSER).map_err(|e| e.to_string())?;
    slots::map_own(0, uid, 0, gid).map_err(|e| format!("map the own user: {e}"))?;
    if kinds != 0 {
        process::unshare(proof, kinds).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// A scratch file system at a place that every host has; seen by this child only.
fn scratch(proof: SingleThread) -> Result<PathBuf, String> {
    enter(proof, libc::CLONE_NEWNS)?;
    let at = Path::new("/tmp");
    mounts::mount("tmpfs", at, "tmpfs", libc::MS_NODEV, "size=1m")
        .map_err(|e| format!("mount a tmpfs: {e}"))?;
    Ok(at.to_owned())
}

fn overlay(proof: SingleThread) -> Result<(), String> {
    let at = scratch(proof)?;
    for dir in ["lower", "upper", "work", "merged"] {
        fs::create_dir(at.join(dir)).map_err(|e| e.to_string())?;
    }
    let options = "lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work,userxattr";
    mounts::mount("overlay", &at.join("merged"), "overlay", 0, options)
        .map_err(|e| e.to_string())?;
    fs::write(at.join("merged/file"), "x").map_err(|e| format!("write into it: {e}"))
}

fn proc_mount(proof: SingleThread) -> Result<String, String> {
    let at = scratch(proof)?.join("proc");
    fs::create_dir(&at).map_err(|e| e.to_string())?;
    process::unshare(proof, libc::CLONE_NEWPID).map_err(|e| e.to_string())?;
    // Only the first process of the new namespace may mount its /proc.
    match process::fork(proof, 0, None).map_err(|e| e.to_string())? {
        Fork::Child => {
            let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
            let mounted = mounts::mount("proc", &at, "proc", flags, "");
            process::exit(mounted.map_or_else(|e| e.raw_os_error().unwrap_or(1), |()| 0))
        }
        Fork::Parent(pid) => {
            let ended = process::reap(Some(pid), true).map_err(|e| e.to_string())?;
            match ended.map(|e| libc::WEXITSTATUS(e.status)) {
                Some(0) => Ok("mounted in a pid namespace".into()),
                Some(error) => Err(std::io::Error::from_raw_os_error(error).to_string()),
                None => Err("the probe was killed".into()),
            }
        }
    }
}

fn idmap(proof: SingleThread) -> Result<String, String> {
    // Root of a user namespace only is what a normal user's supervisor is.
    let ids = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    if creds::uid() != 0 || !ids.contains("4294967295") {
        return Ok("not needed: ids are the same inside and outside".into());
    }
    process::unshare(proof, libc::CLONE_NEWNS).map_err(|e| e.to_string())?;
    let pool = slots::Slots::new(proof, true, 0);
    let (_, user) = pool.make_namespaces(1 << 28).map_err(|e| e.to_string())?;
    let tree = mounts::clone_tree(Path::new("/tmp"), false).map_err(|e| e.to_string())?;
    mounts::restrict(tree.as_fd(), true, Some(user.as_fd())).map_err(|e| e.to_string())?;
    Ok("mounted".into())
}
