//! Faults of disk and clock: a preloaded library (`test/shim/faults.c`) that is told what to do while a program runs, and a small
//! disk of its own.

use std::cell::Cell;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::place::Place;

/// Size of the control file.
const SIZE: usize = 4096;

/// The library, compiled for this test, and its control file.
#[derive(Debug)]
pub struct Shim {
    directory: TempDir,
    control: File,
    changes: AtomicU32,
}

impl Shim {
    /// Compiles it with the machine's C compiler.
    ///
    /// # Errors
    /// When there is none, or it says no.
    pub fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("shim").tempdir()?;
        let library = directory.path().join("faults.so");
        let output = Command::new("cc")
            .args(["-O1", "-shared", "-fPIC", "-o"])
            .arg(&library)
            .arg(Place::repo("test/shim/faults.c"))
            .args(["-ldl", "-lpthread"])
            .output()
            .context("starting cc")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cc: {said}");
        let path = directory.path().join("control");
        fs::write(&path, [0; SIZE])?;
        let control = File::options().read(true).write(true).open(path)?;
        Ok(Self {
            directory,
            control,
            changes: AtomicU32::new(0),
        })
    }

    /// What a program needs in its environment.
    pub fn env(&self) -> [(&'static str, PathBuf); 2] {
        let at = |name: &str| self.directory.path().join(name);
        [
            ("LD_PRELOAD", at("faults.so")),
            ("PRISM_SHIM", at("control")),
        ]
    }

    /// From now on these rules hold, one a line (see `faults.c`); none ends all faults.
    ///
    /// # Panics
    /// When they are too long, or the control file cannot be written.
    pub fn set(&self, rules: &str) {
        let mut text = vec![0; SIZE - 8];
        assert!(rules.len() < text.len(), "too many rules");
        text[..rules.len()].copy_from_slice(rules.as_bytes());
        let changes = self.changes.fetch_add(1, Ordering::Relaxed) + 1;
        let written = self
            .control
            .write_all_at(&text, 8)
            .and_then(|()| self.control.write_all_at(&changes.to_ne_bytes(), 0));
        written.expect("the control file can be written");
    }

    /// A call on paths beneath a directory fails with this error, after so many good ones.
    pub fn fail(&self, call: &str, beneath: &Path, error: rustix::io::Errno, after: u32) {
        let number = error.raw_os_error();
        self.set(&format!("{call} {} {number} {after}", beneath.display()));
    }

    /// A call on paths beneath a directory takes so much longer.
    pub fn slow(&self, call: &str, beneath: &Path, ms: u32) {
        self.set(&format!("{call} {} ~{ms} 0", beneath.display()));
    }

    /// The time of day is so far ahead, or behind.
    pub fn clock(&self, ms: i64) {
        self.set(&format!("clock - ~{ms} 0"));
    }

    /// Faults given so far.
    ///
    /// # Panics
    /// When the control file cannot be read.
    pub fn given(&self) -> u32 {
        let mut count = [0; 4];
        let read = self.control.read_exact_at(&mut count, 4);
        read.expect("the control file can be read");
        u32::from_ne_bytes(count)
    }
}

/// A small disk in memory; only root can make one.
#[derive(Debug)]
pub struct Tmpfs {
    directory: TempDir,
    filled: Cell<u32>,
}

impl Tmpfs {
    /// Makes one of so many MiB.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn new(mib: u32) -> Result<Self> {
        use rustix::mount::{MountFlags, mount};
        let directory = tempfile::Builder::new().prefix("disk").tempdir()?;
        let options = std::ffi::CString::new(format!("size={mib}m"))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("none", directory.path(), "tmpfs", flags, options.as_c_str())
            .context("mounting a small disk")?;
        Ok(Self {
            directory,
            filled: Cell::new(0),
        })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Fills it to the last byte.
    ///
    /// # Panics
    /// When it does not get full.
    pub fn fill(&self) {
        use std::io::Write;
        let n = self.filled.get();
        self.filled.set(n + 1);
        let mut file = File::create(self.path().join(format!("filler{n}"))).expect("a new file");
        for size in [1 << 20, 4096, 1] {
            let bytes = vec![1; size];
            while file.write_all(&bytes).is_ok() {}
        }
    }

    /// Gives the space back.
    ///
    /// # Panics
    /// When the files cannot be removed.
    pub fn free(&self) {
        for n in 0..self.filled.replace(0) {
            let removed = fs::remove_file(self.path().join(format!("filler{n}")));
            removed.expect("our own file can be removed");
        }
    }

    /// Makes it read-only, or writable again.
    ///
    /// # Errors
    /// When a file is open for writing, or the kernel says no.
    pub fn read_only(&self, on: bool) -> Result<()> {
        use rustix::mount::{MountFlags, mount_remount};
        let flags = if on {
            MountFlags::RDONLY
        } else {
            MountFlags::empty()
        };
        mount_remount(self.path(), flags, c"").context("remounting")
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Removing the directory says so if this did not work.
        let _ = rustix::mount::unmount(self.path(), rustix::mount::UnmountFlags::DETACH);
    }
}
