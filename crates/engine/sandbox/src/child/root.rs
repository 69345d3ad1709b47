//! The root file system of a sandbox: layers, scratch space, `/usr` of the host, `/dev`, `/proc`, and the change of root.
//!
//! What comes from the host is opened first, from outside. The rest happens in a copy of the template's mount namespace, where
//! the host's tree is not: nothing in an image can lead to it. Targets inside the new root are still checked to be real
//! directories, because an image may hold links to anywhere in the template.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use prism_runtime::{Image, Launch, Scratch};
use prism_sys::{creds, mounts};

use super::{Context, Named, Place, Step};
use crate::template::MAX_LAYERS;

/// Where the merged root is mounted, seen from the scratch directory.
const MERGED: &str = "../m";

const NO_POWERS: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV;

/// What a root takes from the host, as detached mounts.
pub struct Sources {
    layers: Vec<OwnedFd>,
    scratch: Option<OwnedFd>,
}

/// Opens what the launch names, while the host's tree is still there.
pub fn open(place: &Place<'_>, launch: &Launch) -> Step<Sources> {
    let image = match &launch.image {
        Image::Host => &[][..],
        Image::Layers(layers) => layers,
    };
    let count = launch.layers.len() + image.len();
    // One more is kept for the skeleton.
    if count >= MAX_LAYERS {
        return Err(format!(
            "{count} layers, at most {} are possible",
            MAX_LAYERS - 1
        ));
    }
    let layers = launch.layers.iter().chain(image).map(|layer| {
        detach(layer, true, place).step(format_args!("mount layer {}", layer.display()))
    });
    let scratch = match &launch.scratch {
        Scratch::Memory { .. } => None,
        Scratch::Disk { dir, .. } => {
            Some(detach(dir, false, place).step("mount the scratch directory")?)
        }
    };
    Ok(Sources {
        layers: layers.collect::<Step<_>>()?,
        scratch,
    })
}

/// A private copy of a directory's mount: without devices or set-user-id, and seen through the sandbox's ids.
fn detach(from: &Path, read_only: bool, place: &Place<'_>) -> io::Result<OwnedFd> {
    let tree = mounts::clone_tree(from, false)?;
    let user: Option<BorrowedFd<'_>> = match (place.user, place.base) {
        // A base of 0 means that the ids outside and inside are the same.
        (Some(user), 1..) => Some(user),
        _ => None,
    };
    mounts::restrict(tree.as_fd(), read_only, user)?;
    Ok(tree)
}

/// Builds the root, in a new copy of the template's mount namespace, and moves into it.
pub fn build(ctx: &Context<'_>, place: &Place<'_>, launch: &Launch, sources: &Sources) -> Step<()> {
    // What is made from here on belongs to root inside; mounting still needs the powers of root outside.
    creds::act_on_files_as(place.base, place.base).step("act as root inside")?;
    scratch(place, launch, sources)?;
    upper(launch)?;
    overlay(ctx, place, launch, sources)?;
    if launch.image == Image::Host {
        for dir in &ctx.template.host_dirs {
            real_directory(dir)?;
            relocate(&format!("../{dir}"), &format!("{MERGED}/{dir}"))?;
        }
    }
    proc_dir(ctx)?;
    dev(launch)?;
    std::env::set_current_dir(MERGED).step("enter the new root")?;
    mounts::cover_root_with_here().step("change the root")
}

/// Mounts the scratch space at `b` and enters it.
fn scratch(place: &Place<'_>, launch: &Launch, sources: &Sources) -> Step<()> {
    let at = Path::new("/b");
    match (&launch.scratch, &sources.scratch) {
        (Scratch::Memory { bytes }, _) => {
            let size = match (bytes.0, launch.limits.memory.0) {
                (0, 0) => 256 << 20,
                (0, memory) => memory,
                (size, _) => size,
            };
            let inodes = crate::supervisor::files(size);
            let base = place.base;
            let options = format!("size={size},nr_inodes={inodes},mode=755,uid={base},gid={base}");
            mounts::mount("tmpfs", at, "tmpfs", NO_POWERS, &options).step("mount scratch space")?;
        }
        (Scratch::Disk { .. }, Some(tree)) => {
            mounts::attach(tree.as_fd(), at).step("mount the scratch directory")?;
        }
        (Scratch::Disk { .. }, None) => return Err("the scratch directory was not opened".into()),
    }
    std::env::set_current_dir(at).step("enter the scratch space")
}

/// Directories at the top: real ones, whatever an image has in their place.
fn upper(launch: &Launch) -> Step<()> {
    const ALWAYS: &[(&str, u32)] = &[
        ("upper", 0o755),
        ("work", 0o755),
        // These are written to by nearly every program; here they need no copying up first.
        ("upper/tmp", 0o1777),
        ("upper/work", 0o755),
    ];
    const IMAGE: &[(&str, u32)] = &[
        ("upper/dev", 0o755),
        ("upper/proc", 0o555),
        ("upper/run", 0o755),
    ];
    let host = launch.image == Image::Host;
    let more = if host { &[][..] } else { IMAGE };
    for (dir, mode) in ALWAYS.iter().chain(more) {
        match fs::DirBuilder::new().mode(*mode).create(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(format!("make {dir} in the scratch space: {e}"));
            }
            _ => {}
        }
    }
    Ok(())
}

fn overlay(ctx: &Context<'_>, place: &Place<'_>, launch: &Launch, sources: &Sources) -> Step<()> {
    let skeleton = match launch.image {
        Image::Host => Some(detach(Path::new("/skel"), true, place).step("mount the skeleton")?),
        Image::Layers(_) => None,
    };
    let mut lower = Vec::with_capacity(sources.layers.len() + 1);
    for (i, tree) in sources.layers.iter().chain(&skeleton).enumerate() {
        let at = format!("../l/{i}");
        mounts::attach(tree.as_fd(), Path::new(&at)).step(format_args!("mount layer {i}"))?;
        lower.push(at);
    }
    if lower.is_empty() {
        return Err("the image has no layers".into());
    }
    // Attributes of a normal user's own overlay live where a normal user may write them.
    let user = if ctx.user.is_some() { ",userxattr" } else { "" };
    let options = format!(
        "lowerdir={},upperdir=upper,workdir=work{user}",
        lower.join(":")
    );
    mounts::mount("overlay", Path::new(MERGED), "overlay", NO_POWERS, &options)
        .step("mount the root overlay")
}

/// An image, or a scratch directory from an archive, may have a link here that leads out of the root.
fn real_directory(name: &str) -> Step<()> {
    let meta = fs::symlink_metadata(Path::new(MERGED).join(name))
        .step(format_args!("look at /{name} of the image"))?;
    if meta.is_dir() {
        Ok(())
    } else {
        Err(format!("/{name} of the image is not a directory"))
    }
}

fn relocate(from: &str, to: &str) -> Step<()> {
    mounts::mount(from, Path::new(to), "", libc::MS_MOVE, "")
        .step(format_args!("mount /{}", from.trim_start_matches("../")))
}

/// A `/proc` of the sandbox's own processes, read-only, without what tells of the host.
fn proc_dir(ctx: &Context<'_>) -> Step<()> {
    real_directory("proc")?;
    let at = Path::new(MERGED).join("proc");
    let flags = NO_POWERS | libc::MS_NOEXEC | libc::MS_RDONLY;
    mounts::mount("proc", &at, "proc", flags, "").step("mount /proc")?;
    for (name, is_dir) in &ctx.template.masked {
        let over = if *is_dir { "../empty" } else { "../dev/null" };
        mounts::mount(over, &at.join(name), "", libc::MS_BIND, "")
            .step(format_args!("mask /proc/{name}"))?;
    }
    if ctx.user.is_some() {
        mounts::unmount(Path::new("/proc")).step("drop the template's /proc")?;
    }
    Ok(())
}

fn dev(launch: &Launch) -> Step<()> {
    real_directory("dev")?;
    relocate("../dev", &format!("{MERGED}/dev"))?;
    // A sandbox gets its terminals with its first program: file systems are what many idle ones cost.
    if launch.program.as_ref().is_some_and(|p| p.tty.is_some()) {
        terminals(&Path::new(MERGED).join("dev/pts"))?;
    }
    Ok(())
}

/// Mounts a `/dev/pts`.
fn terminals(at: &Path) -> Step<()> {
    let flags = libc::MS_NOSUID | libc::MS_NOEXEC;
    let options = "newinstance,ptmxmode=0666,mode=620";
    mounts::mount("devpts", at, "devpts", flags, options).step("mount /dev/pts")
}

/// What is to be told of the scratch space of a program that failed, seen from inside its root: whether it is full. Only for
/// space of its own; that of a disk is the host's.
pub fn room_left(launch: &Launch) -> Option<&'static str> {
    if !matches!(launch.scratch, Scratch::Memory { .. }) {
        return None;
    }
    let room = rustix::fs::statvfs("/").ok()?;
    full([room.f_blocks, room.f_bavail, room.f_files, room.f_ffree])
}

/// The same of a file system's blocks, those free to all, inodes, and those free.
pub fn full([blocks, free, inodes, free_inodes]: [u64; 4]) -> Option<&'static str> {
    if blocks > 0 && free <= blocks / 100 {
        Some("its space for files, in memory, is full")
    } else if inodes > 0 && free_inodes == 0 {
        Some("its space for files, in memory, has no room for another file (inodes)")
    } else {
        None
    }
}

/// Gives a running sandbox its terminals, unless it has them. Its `/dev` is ours and read-only, so the path is what it says.
pub fn add_terminals() -> Step<()> {
    if Path::new("/dev/pts/ptmx").exists() {
        return Ok(());
    }
    terminals(Path::new("/dev/pts"))
}

/// Makes inside, where no link can lead out, what an image may lack.
pub fn finish(launch: &Launch) -> Step<()> {
    if launch.image == Image::Host {
        return Ok(());
    }
    // Shared memory; see the template's `/dev`.
    let dir = "/run/shm";
    match fs::create_dir(dir) {
        Ok(()) => fs::set_permissions(dir, fs::Permissions::from_mode(0o1777))
            .step(format_args!("open {dir} to all")),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(format!("make {dir}: {e}")),
    }
}
