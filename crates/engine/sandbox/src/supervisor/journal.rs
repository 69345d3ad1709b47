//! The supervisor's memory on disk: which runs it started and how they ended, until they are forgotten.
//!
//! For a supervisor that is killed, not for a host that crashes: runs do not outlive the host, so nothing is synced.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use prism_runtime::Observed;
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
}

/// Below this size it is never rewritten.
const SMALL: u64 = 4 << 20;

impl Journal {
    /// Reads what an earlier supervisor left, and goes on from there. A torn last record is dropped.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn open(path: &Path) -> io::Result<(Self, BTreeMap<RunId, Observed>)> {
        let old = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(e),
        };
        let runs = replay(&old);
        let mut journal = Self {
            path: path.to_owned(),
            file: File::options().create(true).append(true).open(path)?,
            pending: Vec::new(),
            bytes: 0,
            base: 0,
        };
        journal.rewrite(runs.values())?;
        Ok((journal, runs))
    }

    /// Notes a record; it is written by the next [`Journal::flush`].
    pub fn note(&mut self, record: &Record) {
        append(&mut self.pending, record);
    }

    /// Writes what was noted, in one call.
    ///
    /// # Errors
    /// The disk's.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.file.write_all(&self.pending)?;
        self.bytes += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    /// Whether most of it is of forgotten runs.
    pub fn is_stale(&self) -> bool {
        self.bytes > SMALL && self.bytes > 4 * self.base
    }

    /// Writes it anew with only these runs.
    ///
    /// # Errors
    /// The disk's; the old file stays then.
    pub fn rewrite<'a>(&mut self, runs: impl Iterator<Item = &'a Observed>) -> io::Result<()> {
        let mut bytes = Vec::new();
        for run in runs {
            append(&mut bytes, &Record::Run(run.clone()));
        }
        let new = self.path.with_extension("new");
        fs::write(&new, &bytes)?;
        fs::rename(&new, &self.path)?;
        self.file = File::options().append(true).open(&self.path)?;
        self.pending.clear();
        self.bytes = bytes.len() as u64;
        self.base = self.bytes;
        Ok(())
    }
}

fn append(out: &mut Vec<u8>, record: &Record) {
    let body = postcard::to_stdvec(record).expect("a record of plain data always has a form");
    let length = u32::try_from(body.len()).expect("a record is small");
    out.extend(length.to_le_bytes());
    out.extend(checksum(&body).to_le_bytes());
    out.extend(body);
}

/// FNV-1a: tells a torn record from a whole one.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum: u32, b| {
        (sum ^ u32::from(*b)).wrapping_mul(0x0100_0193)
    })
}

fn replay(mut bytes: &[u8]) -> BTreeMap<RunId, Observed> {
    let mut runs = BTreeMap::new();
    while let Some((head, rest)) = bytes.split_at_checked(8) {
        let number = |at: usize| {
            u32::from_le_bytes(head[at..at + 4].try_into().expect("four of eight bytes"))
        };
        let Some((body, rest)) = rest.split_at_checked(number(0) as usize) else {
            break;
        };
        if checksum(body) != number(4) {
            break;
        }
        match postcard::from_bytes(body) {
            Ok(Record::Run(run)) => {
                runs.insert(run.id.clone(), run);
            }
            Ok(Record::Forgotten(ids)) => ids.iter().for_each(|id| {
                runs.remove(id);
            }),
            Err(_) => break,
        }
        bytes = rest;
    }
    runs
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
}
