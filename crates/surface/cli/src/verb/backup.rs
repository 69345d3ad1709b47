//! `backup` and `restore`: the cluster's state as a file.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use prism_api::RestoreView;
use prism_backup::{BackupError, Opener, Reader, Sealer, Summary};
use prism_types::{Fault, TimeMs};
use serde_json::{Value, json};

use crate::exit::{Done, Exit, Failure};
use crate::output::{Format, Out, Table, human};
use crate::server::Server;

/// Bytes of a backup that are sent at once.
const PIECE: usize = 4 << 20;

/// Flags of `backup`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  prismctl backup cluster.prism
  prismctl backup cluster.prism --passphrase-file key
  prismctl backup --check cluster.prism

The file holds all jobs, sweeps, results, events, namespaces and quotas at one
moment, while work goes on. It lets nobody in: tokens, members and keys are
left out. What jobs were given is in it, so keep it as you keep secrets, or
seal it with a passphrase. --check reads a file to its end, without a server.")]
pub struct BackupArgs {
    /// The file; made new, readable by its owner only
    file: PathBuf,
    /// Check a file that is there instead
    #[arg(long)]
    pub check: bool,
    /// File with a passphrase of at least 12 characters, which seals the backup or opens it
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// Flags of `restore`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  prismctl restore cluster.prism
  prismctl restore cluster.prism --passphrase-file key

The cluster is to be new: one server without jobs, sandboxes, namespaces and
members. It keeps its own id and tokens. What was finished is there; what was
under way is tried again; sandboxes that ran are over. If it breaks off, the
cluster is empty or whole.")]
pub struct RestoreArgs {
    /// The file
    file: PathBuf,
    /// File with the passphrase, if it is sealed
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

fn unreadable(path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::file(format!("{}: {why}", path.display())).state("nothing was changed")
}

fn unwritable(path: &Path, why: impl std::fmt::Display) -> Failure {
    let message = format!("cannot write {}: {why}; no backup was kept", path.display());
    Failure::failed(Fault::Output, message)
}

fn passphrase(path: Option<&Path>) -> Result<Option<String>, Failure> {
    let Some(path) = path else { return Ok(None) };
    let text = fs::read_to_string(path).map_err(|e| unreadable(path, e))?;
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// The content of a backup, opened if it is sealed.
fn content(file: File, passphrase: Option<&str>) -> Result<Box<dyn Read>, BackupError> {
    let file = BufReader::new(file);
    Ok(match passphrase {
        Some(passphrase) => Box::new(Opener::new(file, passphrase)?),
        None => Box::new(file),
    })
}

fn checked(file: File, passphrase: Option<&str>) -> Result<Summary, BackupError> {
    Reader::open(content(file, passphrase)?)?.check()
}

fn opened(path: &Path, passphrase: Option<&str>) -> Result<Summary, Failure> {
    let file = File::open(path).map_err(|e| unreadable(path, e))?;
    checked(file, passphrase).map_err(|e| {
        let failure = unreadable(path, &e);
        match e {
            BackupError::Sealed => failure.next("give its passphrase: --passphrase-file FILE"),
            _ => failure,
        }
    })
}

fn document(path: &Path, sealed: bool, s: &Summary) -> Value {
    let digest: String = s.digest.iter().map(|b| format!("{b:02x}")).collect();
    json!({
        "file": path, "cluster": s.head.cluster, "revision": s.head.revision, "made": s.head.made_ms,
        "prism": s.head.prism, "items": s.items, "bytes": s.bytes, "sealed": sealed, "sha256": digest,
    })
}

fn tell(path: &Path, sealed: bool, s: &Summary, out: &Out) -> Result<(), Failure> {
    if out.format != Format::Table {
        return out.doc(&document(path, sealed, s), Table::fields);
    }
    let sealed = if sealed { ", sealed" } else { "" };
    out.print(&format!(
        "{}: backup of cluster {} at revision {}\n  made     {} by Prism {}\n  holds    {}, {}{sealed}\n",
        path.display(),
        s.head.cluster,
        s.head.revision,
        human::moment(TimeMs(s.head.made_ms)),
        s.head.prism,
        human::plural(s.items, "record"),
        human::size(s.bytes),
    ))
}

/// Checks a file to its end, without a server.
///
/// # Errors
/// What is wrong with it.
pub fn check(args: &BackupArgs, out: &Out) -> Done {
    let passphrase = passphrase(args.passphrase_file.as_deref())?;
    let summary = opened(&args.file, passphrase.as_deref())?;
    tell(&args.file, passphrase.is_some(), &summary, out)?;
    Ok(Exit::Ok)
}

/// A file beside the one that is to be, which goes unless it is kept.
struct Draft {
    path: PathBuf,
    kept: bool,
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            // It is of no use to anybody.
            let _left = fs::remove_file(&self.path);
        }
    }
}

enum Sink {
    Plain(BufWriter<File>),
    Sealed(Box<Sealer<BufWriter<File>>>),
}

impl Sink {
    fn new(file: File, passphrase: Option<&str>) -> Result<Self, BackupError> {
        let file = BufWriter::new(file);
        Ok(match passphrase {
            None => Self::Plain(file),
            Some(passphrase) => {
                let mut salt = [0; 16];
                let drawn =
                    rustix::rand::getrandom(&mut salt, rustix::rand::GetRandomFlags::empty());
                if drawn != Ok(salt.len()) {
                    return Err(io::Error::other("the system gives no random bytes").into());
                }
                Self::Sealed(Box::new(Sealer::new(file, passphrase, salt)?))
            }
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.write_all(bytes),
            Self::Sealed(sealer) => sealer.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<()> {
        let file = match self {
            Self::Plain(file) => file,
            Self::Sealed(sealer) => sealer.finish()?,
        };
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()
    }
}

/// Takes a backup into a file, reads it back, and only then gives it its name.
///
/// # Errors
/// What the server says, or when the file cannot be written; there is no file then.
pub async fn backup(args: &BackupArgs, server: &Server, out: &Out) -> Done {
    let path = &args.file;
    let passphrase = passphrase(args.passphrase_file.as_deref())?;
    if fs::symlink_metadata(path).is_ok() {
        let message = format!("{} is there already", path.display());
        return Err(Failure::file(message)
            .state("nothing was changed")
            .next("name another file, or move that one away"));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut draft = Draft {
        path: path.with_file_name(format!(".{name}.{}.tmp", std::process::id())),
        kept: false,
    };
    let mut options = File::options();
    let made = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft.path);
    let made = made.map_err(|e| unwritable(path, e))?;
    let mut sink = Sink::new(made, passphrase.as_deref()).map_err(|e| match e {
        BackupError::Short => Failure::usage(e.to_string()).state("nothing was changed"),
        other => unwritable(path, other),
    })?;
    let mut stream = server.client().backup().await?;
    while let Some(bytes) = stream.next().await? {
        sink.write(&bytes).map_err(|e| unwritable(path, e))?;
    }
    sink.finish().map_err(|e| unwritable(path, e))?;
    let written = File::open(&draft.path).map_err(|e| unwritable(path, e))?;
    let summary = checked(written, passphrase.as_deref()).map_err(|e| unwritable(path, e))?;
    // A name that came to be meanwhile is not overwritten.
    fs::hard_link(&draft.path, path).map_err(|e| unwritable(path, e))?;
    fs::remove_file(&draft.path).map_err(|e| unwritable(path, e))?;
    draft.kept = true;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = File::open(dir.unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all());
    dir.map_err(|e| unwritable(path, e))?;
    tell(path, passphrase.is_some(), &summary, out)?;
    Ok(Exit::Ok)
}

/// Checks a backup, and restores it.
///
/// # Errors
/// What is wrong with it, or what the server says.
pub async fn restore(args: &RestoreArgs, server: &Server, out: &Out) -> Done {
    let passphrase = passphrase(args.passphrase_file.as_deref())?;
    let summary = opened(&args.file, passphrase.as_deref())?;
    let file = File::open(&args.file).map_err(|e| unreadable(&args.file, e))?;
    let content = content(file, passphrase.as_deref());
    let mut content = content.map_err(|e| unreadable(&args.file, e))?;
    let mut offset = 0;
    let done = loop {
        let mut piece = Vec::new();
        let read = (&mut content).take(PIECE as u64).read_to_end(&mut piece);
        let read = read.map_err(|e| unreadable(&args.file, e))? as u64;
        let more = offset + read < summary.size && read > 0;
        let sent = server.client().restore(offset, Bytes::from(piece), more);
        let view = sent.await?;
        offset += read;
        if !more {
            break view;
        }
    };
    told(&done, out)?;
    Ok(Exit::Ok)
}

fn told(done: &RestoreView, out: &Out) -> Result<(), Failure> {
    if out.format != Format::Table {
        let value = serde_json::to_value(done);
        let value = value.map_err(|e| Failure::defect(e.to_string()))?;
        return out.doc(&value, Table::fields);
    }
    let count = |n: Option<u32>| u64::from(n.unwrap_or_default());
    out.print(&format!(
        "restored the backup of cluster {} at revision {}\n  there    {}, {}\n  again    tasks that were on nodes: {}\n  over     sandboxes that ran: {}\n",
        done.cluster.as_deref().unwrap_or("?"),
        done.revision.unwrap_or_default(),
        human::plural(count(done.jobs), "job"),
        human::plural(count(done.events), "event"),
        human::count(count(done.retried)),
        human::count(count(done.ended)),
    ))
}
