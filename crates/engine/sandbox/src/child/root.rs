//! The root file system of a sandbox: layers, scratch space, `/usr` of the host, `/dev`, `/proc`, and the change of root.
//!
//! Starts in the template's directory, in a mount namespace of its own. Every source is ours or was named by the daemon; every
//! target inside the new root is checked to be a real directory first, because an image may hold links to anywhere.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use prism_runtime::{Image, Launch, Scratch};
use prism_sys::{creds, mounts};

use super::{Context, Named, Step};
use crate::slots::Slot;
use crate::template::MAX_LAYERS;

/// Where the merged root is mounted, seen from the scratch directory.
const MERGED: &str = "../m";

const NO_POWERS: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV;

/// Builds the root and moves into it; the old one is gone afterwards.
pub fn build(ctx: &Context<'_>, slot: &Slot, launch: &Launch) -> Step<()> {
    std::env::set_current_dir(&ctx.template.dir).step("enter the template")?;
    // What is made from here on belongs to root inside; mounting still needs the powers of root outside.
    creds::act_on_files_as(slot.base, slot.base).step("act as root inside")?;
    scratch(slot, launch)?;
    upper(launch)?;
    overlay(ctx, slot, launch)?;
    if launch.image == Image::Host {
        for dir in &ctx.template.host_dirs {
            real_directory(dir)?;
            relocate(&format!("../{dir}"), &format!("{MERGED}/{dir}"))?;
        }
    }
    proc_dir(ctx)?;
    dev(launch)?;
    std::env::set_current_dir(MERGED).step("enter the new root")?;
    mounts::pivot_here().step("change the root")?;
    mounts::unmount_here().step("unmount the old root")?;
    std::env::set_current_dir("/").step("enter the new root")
}

/// Mounts the scratch space at `b` and enters it.
fn scratch(slot: &Slot, launch: &Launch) -> Step<()> {
    let at = Path::new("b");
    match &launch.scratch {
        Scratch::Memory { bytes } => {
            let size = match (bytes.0, launch.limits.memory.0) {
                (0, 0) => 256 << 20,
                (0, memory) => memory,
                (size, _) => size,
            };
            let inodes = (size / 4096).clamp(1_024, 1 << 20);
            let base = slot.base;
            let options =
                format!("size={size},nr_inodes={inodes},mode=755,uid={base},gid={base}");
            mounts::mount("tmpfs", at, "tmpfs", NO_POWERS, &options).step("mount scratch space")?;
        }
        Scratch::Disk { dir } => {
            attach(dir, at, false, slot).step("mount the scratch directory")?;
        }
    }
    std::env::set_current_dir(at).step("enter the scratch space")
}

/// Mounts a private copy of a directory: without devices or set-user-id, and seen through the sandbox's ids.
fn attach(from: &Path, at: &Path, read_only: bool, slot: &Slot) -> io::Result<()> {
    let tree = mounts::clone_tree(from, false)?;
    let user: Option<BorrowedFd<'_>> = match (&slot.user, slot.base) {
        // A base of 0 means that the ids outside and inside are the same.
        (Some(user), 1..) => Some(user.as_fd()),
        _ => None,
    };
    mounts::restrict(tree.as_fd(), read_only, user)?;
    mounts::attach(tree.as_fd(), at)
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

fn overlay(ctx: &Context<'_>, slot: &Slot, launch: &Launch) -> Step<()> {
    let image = match &launch.image {
        Image::Host => &[][..],
        Image::Layers(layers) => layers,
    };
    let count = launch.layers.len() + image.len() + 1;
    if count > MAX_LAYERS {
        return Err(format!("{count} layers, at most {MAX_LAYERS} are possible"));
    }
    let mut lower = Vec::with_capacity(count + 1);
    let skeleton = ctx.template.dir.join("skel");
    let last = (launch.image == Image::Host).then_some(&skeleton);
    let layers = launch.layers.iter().chain(image).chain(last);
    for (i, layer) in layers.enumerate() {
        let at = format!("../l/{i}");
        attach(layer, Path::new(&at), true, slot)
            .step(format_args!("mount layer {}", layer.display()))?;
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
    Ok(())
}

fn dev(launch: &Launch) -> Step<()> {
    real_directory("dev")?;
    relocate("../dev", &format!("{MERGED}/dev"))?;
    // A task without a terminal has no use for any; a sandbox may want one later.
    if launch.program.as_ref().is_none_or(|p| p.tty.is_some()) {
        let flags = libc::MS_NOSUID | libc::MS_NOEXEC;
        let options = "newinstance,ptmxmode=0666,mode=620";
        let at = Path::new(MERGED).join("dev/pts");
        mounts::mount("devpts", &at, "devpts", flags, options).step("mount /dev/pts")?;
    }
    Ok(())
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
