//! A program on its way into the world: its directory, its files, its streams, and where it is found.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path};

use prism_runtime::{InlineFile, Program};
use prism_sys::{process, stdio};

use super::{Named, Stdio, Step, WAKE};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const DEFAULT_DIRECTORY: &str = "/work";

/// Makes and enters the working directory and writes the files into it. Inside a sandbox this happens after the change of root,
/// as root inside, so no link in an image leads anywhere else.
pub fn enter(program: Option<&Program>, files: &[InlineFile]) -> Step<()> {
    let dir = program.map_or(DEFAULT_DIRECTORY, |p| p.cwd.as_str());
    let dir = if dir.is_empty() {
        DEFAULT_DIRECTORY
    } else {
        dir
    };
    if !dir.starts_with('/') {
        return Err(format!("working directory {dir:?} is not absolute"));
    }
    if std::env::set_current_dir(dir).is_err() {
        fs::create_dir_all(dir).step(format_args!("make working directory {dir}"))?;
        std::env::set_current_dir(dir).step(format_args!("enter working directory {dir}"))?;
    }
    // A directory that is not beneath the root any more has no name (CVE-2024-21626).
    let name = std::env::current_dir().step("name the working directory")?;
    if !name.is_absolute() {
        return Err("the working directory is outside the root".into());
    }
    files.iter().try_for_each(write_file)
}

fn write_file(file: &InlineFile) -> Step<()> {
    let path = Path::new(&file.path);
    let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
    if !plain || file.path.is_empty() {
        return Err(format!(
            "file {:?} is not beneath the working directory",
            file.path
        ));
    }
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::create_dir_all(parent).step(format_args!("make the directory of {:?}", file.path))?;
    }
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(file.mode & 0o777)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .and_then(|mut f| f.write_all(&file.content))
        .step(format_args!("write file {:?}", file.path))
}

/// Everything that the exec needs, allocated.
pub fn plan(program: &Program) -> Step<process::Plan> {
    let name = program.argv.first().ok_or("the program has no name")?;
    let paths: Vec<String> = if name.contains('/') {
        vec![name.clone()]
    } else {
        let path = program
            .env
            .iter()
            .rev()
            .find(|(k, _)| k == "PATH")
            .map_or(DEFAULT_PATH, |(_, v)| v.as_str());
        path.split(':')
            .filter(|dir| !dir.is_empty())
            .map(|dir| format!("{dir}/{name}"))
            .collect()
    };
    let mut plan = process::Plan::new(&paths, &program.argv, &program.env)
        .step("prepare the program's arguments")?;
    plan.terminal = program.tty.is_some();
    Ok(plan)
}

/// Why a program could not be started, for people.
pub fn why(name: &str, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOENT) => format!("program not found: {name}"),
        Some(libc::EACCES) => format!("program may not be run: {name}"),
        Some(libc::ENOEXEC) => format!("not a program (no #! line and no known format): {name}"),
        _ => format!("start {name}: {error}"),
    }
}

/// Number of a descriptor that is kept until the exec.
pub const KEPT: u32 = 4;

/// Puts the streams at 0 to 2 and the wake-up descriptor at 3, and closes everything else that was inherited but `keep`, if it is
/// given, which goes to [`KEPT`] until an exec; so long does the wake-up descriptor stay unless it is `for_long`.
pub fn place(
    wake: BorrowedFd<'_>,
    stdio: Stdio,
    tty: Option<(u16, u16)>,
    keep: Option<BorrowedFd<'_>>,
    for_long: bool,
) -> Step<()> {
    let keep = keep
        .map(|fd| stdio::copy_above(fd, 10).step("keep a descriptor"))
        .transpose()?;
    let wake = stdio::copy_above(wake, 10).step("keep the wake-up descriptor")?;
    let mut ends: [Option<OwnedFd>; 3] = [stdio.input, stdio.output, stdio.error];
    if let (Some((rows, columns)), Some(socket)) = (tty, stdio.terminal) {
        let (master, slave) = stdio::open_terminal(rows, columns).step("open a terminal")?;
        stdio::send_fd(socket.as_fd(), master.as_fd()).step("hand the terminal over")?;
        let copy = |fd: BorrowedFd<'_>| stdio::copy_above(fd, 10).step("copy the terminal");
        ends = [
            Some(copy(slave.as_fd())?),
            Some(copy(slave.as_fd())?),
            Some(copy(slave.as_fd())?),
        ];
    }
    // First away from the low numbers, so that placing one does not close another.
    let mut high = Vec::with_capacity(3);
    for end in ends {
        let fd = match end {
            Some(fd) => fd,
            None => fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/null")
                .step("open /dev/null")?
                .into(),
        };
        high.push(stdio::copy_above(fd.as_fd(), 10).step("move a stream")?);
    }
    for (number, fd) in (0..).zip(&high) {
        stdio::place(fd.as_fd(), number).step("place a stream")?;
    }
    stdio::place(wake.as_fd(), WAKE.unsigned_abs()).step("place the wake-up descriptor")?;
    let mut first = WAKE.unsigned_abs() + 1;
    if let Some(keep) = keep {
        stdio::place(keep.as_fd(), KEPT).step("place a descriptor")?;
        stdio::close_on_exec(KEPT.cast_signed()).step("mark a descriptor")?;
        if !for_long {
            stdio::close_on_exec(WAKE).step("mark a descriptor")?;
        }
        std::mem::forget(keep);
        first = KEPT + 1;
    }
    // Their numbers are closed by the range below, together with all that the supervisor had open.
    high.into_iter().for_each(std::mem::forget);
    std::mem::forget(wake);
    stdio::close_range(first, u32::MAX).step("close what was inherited")
}
