//! The supervisor's memory on disk: which runs it started and how they ended, until they are forgotten.
//!
//! For a supervisor that is killed, not for a host that crashes: runs do not outlive the host, so nothing is synced, and damage in
//! a file from before the last boot is no more than its end. A disk that takes nothing does not stop the supervisor: what could
//! not be written is kept until it can be.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use prism_faults::point;
use prism_runtime::{Observed, sealed};
use prism_types::RunId;
use serde::{Deserialize, Serialize};

/// One line of it. The order of variants is its format.
#[derive(Debug, Serialize, Deserialize)]
pub enum Record {
    /// A run, as it began or as it ended.
    Run(Observed),
    /// Runs that need not be remembered.
    Forgotten(Vec<RunId>),
}

/// The file, open for appending.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    pending: Vec<u8>,
    bytes: u64,
    /// Size after the last rewriting.
    base: u64,
    /// More waited than is kept: only writing it anew helps.
    behind: bool,
}

/// What such a file begins with.
const MAGIC: &[u8; 8] = b"prismsj2";

/// The magic, the boot of the machine that it is of, and a checksum of both.
const START: usize = 8 + 36 + 4;

/// Length of a body, checksum of the body, checksum of these two; each four bytes, little-endian.
const HEAD: usize = 12;

/// Below this size it is never rewritten.
const SMALL: u64 = 4 << 20;

/// Most that waits for a disk that takes nothing, bytes.
const MAX_PENDING: usize = 16 << 20;

impl Journal {
    /// Reads what an earlier supervisor left, and goes on from there. A torn last record is dropped.
    ///
    /// # Errors
    /// When the file cannot be read; `InvalidData`, naming the byte, when something else than its end is damaged. It is left as it
    /// is then.
    pub fn open(path: &Path) -> io::Result<(Self, BTreeMap<RunId, Observed>)> {
        let old = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(e),
        };
        let (runs, whole) = match replay(&old) {
            (_, whole, Some(what)) if !is_of_earlier_boot(&old) => {
                let what = format!(
                    "{what}; nothing was started; remove the file to go on, then tasks whose end was not recorded yet run again"
                );
                return Err(sealed::damaged(path, whole, &what));
            }
            (runs, whole, _) => (runs, whole),
        };
        let mut journal = Self {
            path: path.to_owned(),
            file: File::options().create(true).append(true).open(path)?,
            pending: Vec::new(),
            bytes: whole as u64,
            base: 0,
            behind: false,
        };
        if let Err(e) = journal.rewrite(runs.values()) {
            super::say(&format!(
                "the journal of runs could not be written anew: {e}; the old one goes on"
            ));
            // It serves as well, without what is not whole.
            journal.file.set_len(journal.bytes)?;
            if journal.bytes == 0 {
                journal.pending.extend(start());
            }
        }
        Ok((journal, runs))
    }

    /// Notes a record; it is written by the next [`Journal::flush`].
    pub fn note(&mut self, record: &Record) {
        if self.behind {
            return;
        }
        append(&mut self.pending, record);
        if self.pending.len() > MAX_PENDING {
            self.pending = Vec::new();
            self.behind = true;
        }
    }

    /// Writes what was noted, in one call.
    ///
    /// # Errors
    /// The disk's; it is written by a later call then.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let written = point!("sup.journal.before_append")
            .and_then(|()| self.file.write_all(&self.pending))
            .and_then(|()| point!("sup.journal.after_append"));
        if written.is_err() {
            // Half a record must not stand before the next one.
            self.file.set_len(self.bytes)?;
            return written;
        }
        self.bytes += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    /// Whether most of it is of forgotten runs.
    pub fn is_stale(&self) -> bool {
        self.behind || self.bytes > SMALL && self.bytes > 4 * self.base
    }

    /// Writes it anew with only these runs.
    ///
    /// # Errors
    /// The disk's; the old file stays then.
    pub fn rewrite<'a>(&mut self, runs: impl Iterator<Item = &'a Observed>) -> io::Result<()> {
        let mut bytes = start();
        for run in runs {
            append(&mut bytes, &Record::Run(run.clone()));
        }
        let new = self.path.with_extension("new");
        point!("sup.journal.before_rewrite")?;
        let put = || {
            fs::write(&new, &bytes)?;
            // Open before it takes its place: from then on nothing may be written to the old one.
            let file = File::options().append(true).open(&new)?;
            point!("sup.journal.before_rename")?;
            fs::rename(&new, &self.path)?;
            Ok(file)
        };
        self.file = put().inspect_err(|_: &io::Error| {
            // What could not be put in place is of no use; if it stays, the next one is written over it.
            let _gone = fs::remove_file(&new);
        })?;
        self.pending.clear();
        self.behind = false;
        self.bytes = bytes.len() as u64;
        self.base = self.bytes;
        point!("sup.journal.after_rename")
    }
}

fn append(out: &mut Vec<u8>, record: &Record) {
    let body = postcard::to_stdvec(record).expect("a record of plain data always has a form");
    let length = u32::try_from(body.len()).expect("a record is small");
    let head = [length, checksum(&body)].map(u32::to_le_bytes).concat();
    out.extend(&head);
    out.extend(checksum(&head).to_le_bytes());
    out.extend(body);
}

/// FNV-1a: tells a torn record from a whole one.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum: u32, b| {
        (sum ^ u32::from(*b)).wrapping_mul(0x0100_0193)
    })
}

/// The runs, how many bytes are whole, and what is wrong behind them if that is more than an unfinished write.
fn replay(bytes: &[u8]) -> (BTreeMap<RunId, Observed>, usize, Option<&'static str>) {
    let mut runs = BTreeMap::new();
    if bytes.len() < START && MAGIC.starts_with(bytes.get(..MAGIC.len()).unwrap_or(bytes)) {
        return (runs, 0, None);
    }
    if boot_of(bytes).is_none() {
        return (runs, 0, Some("it does not begin as such a file does"));
    }
    let mut at = START;
    while let Some(head) = bytes[at..].first_chunk::<HEAD>() {
        let number = |n: usize| {
            let four = head[4 * n..][..4].first_chunk();
            u32::from_le_bytes(*four.expect("four of twelve bytes"))
        };
        if checksum(&head[..8]) != number(2) {
            let what = "the head of a record does not match its checksum";
            return (runs, at, Some(what));
        }
        let Some(body) = bytes[at + HEAD..].get(..number(0) as usize) else {
            break;
        };
        if checksum(body) != number(1) {
            return (runs, at, Some("a record does not match its checksum"));
        }
        match postcard::from_bytes(body) {
            Ok(Record::Run(run)) => {
                runs.insert(run.id.clone(), run);
            }
            Ok(Record::Forgotten(ids)) => ids.iter().for_each(|id| {
                runs.remove(id);
            }),
            Err(_) => return (runs, at, Some("a record cannot be read")),
        }
        at += HEAD + body.len();
    }
    (runs, at, None)
}

/// Whether a file is of a time before this machine was started: a power loss may leave anything at its end.
fn is_of_earlier_boot(bytes: &[u8]) -> bool {
    boot_of(bytes).is_some_and(|boot| boot != this_boot())
}

/// What a file of this boot begins with.
fn start() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(this_boot());
    bytes.extend(checksum(&bytes).to_le_bytes());
    bytes
}

/// The boot that a file is of, if it begins as it must.
fn boot_of(bytes: &[u8]) -> Option<&[u8]> {
    let (head, sum) = bytes.get(..START)?.split_last_chunk::<4>()?;
    let boot = head.strip_prefix(MAGIC)?;
    (checksum(head) == u32::from_le_bytes(*sum)).then_some(boot)
}

/// A name for the time since the machine was started, from the kernel: times of day may be wrong.
fn this_boot() -> [u8; 36] {
    let mut name = [b'-'; 36];
    let read = fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    if let Some(read) = read.get(..name.len()) {
        name.copy_from_slice(read);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use prism_types::TimeMs;

    fn run(n: u32) -> Observed {
        Observed {
            id: RunId::new(format!("r{n}")).unwrap(),
            started: TimeMs(7),
            pid: 9,
            logs: "/logs".into(),
            exited: None,
        }
    }

    #[test]
    fn what_was_noted_is_there_again_up_to_a_torn_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut journal, runs) = Journal::open(&path).unwrap();
        assert!(runs.is_empty());
        for n in 0..3 {
            journal.note(&Record::Run(run(n)));
        }
        journal.note(&Record::Forgotten(vec![run(1).id]));
        journal.flush().unwrap();
        let whole = fs::read(&path).unwrap();
        journal.note(&Record::Run(run(5)));
        journal.flush().unwrap();
        let longer = fs::read(&path).unwrap();
        for cut in whole.len()..longer.len() {
            fs::write(&path, &longer[..cut]).unwrap();
            let (_, runs) = Journal::open(&path).unwrap();
            assert_eq!(
                runs.into_values().collect::<Vec<_>>(),
                [run(0), run(2)],
                "{cut}"
            );
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut journal, _) = Journal::open(&path).unwrap();
        for n in 0..3 {
            journal.note(&Record::Run(run(n)));
        }
        journal.flush().unwrap();
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&path, &bytes).unwrap();
            let error = Journal::open(&path).unwrap_err().to_string();
            assert!(
                error.contains("journal is damaged at byte "),
                "{at}: {error}"
            );
            assert_eq!(fs::read(&path).unwrap(), bytes, "left as it is");
        }
    }

    #[test]
    fn what_the_disk_does_not_take_is_written_when_it_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut journal, _) = Journal::open(&path).unwrap();
        journal.file = File::open(&path).unwrap();
        journal.note(&Record::Run(run(1)));
        assert!(journal.flush().is_err());
        journal.note(&Record::Run(run(2)));
        journal.file = File::options().append(true).open(&path).unwrap();
        journal.flush().unwrap();
        let (_, runs) = Journal::open(&path).unwrap();
        assert_eq!(runs.into_values().collect::<Vec<_>>(), [run(1), run(2)]);
    }
}
