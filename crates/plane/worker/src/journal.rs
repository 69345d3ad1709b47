//! A checked file of records that is only added to, and written anew when most of it is of the past.
//!
//! It must survive the daemon, not the machine: what it tells of does not survive that either, so nothing is synced and a file
//! from before the last boot is begun anew. One write adds a record, and no file is made or removed for it. Used by the table of
//! sandboxes; never decides what a record means.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use prism_faults::point;
use serde::{Deserialize, Serialize};

/// What such a file begins with.
const MAGIC: &[u8; 8] = b"prismwj2";
/// The magic, the boot of the machine that it is of, and a checksum of both.
const START: usize = 8 + 36 + 4;
/// Length of a body, checksum of the body, checksum of these two; each four bytes, little-endian.
const HEAD: usize = 12;
/// Below this size it is never written anew, bytes.
const SMALL: u64 = 1 << 20;

/// The file, open for adding to.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Size after it was last written anew.
    base: u64,
}

impl Journal {
    /// Reads what an earlier daemon left, in order. A record that was cut short at the end is dropped: it was never acted on.
    ///
    /// # Errors
    /// The disk's; `InvalidData`, naming the byte, when something else than the end is damaged. The file is left as it is then.
    pub(crate) fn open<T: for<'de> Deserialize<'de>>(path: &Path) -> io::Result<(Self, Vec<T>)> {
        let old = match fs::read(path) {
            Ok(bytes) if boot_of(&bytes).is_some_and(|boot| boot != this_boot()) => Vec::new(),
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(e),
        };
        let (records, whole) = replay(&old).map_err(|damage| damage.told_of(path))?;
        // A new file that did not come to its place does not count.
        if let Err(e) = fs::remove_file(path.with_extension("new"))
            && e.kind() != io::ErrorKind::NotFound
        {
            return Err(e);
        }
        point!("worker.journal.before_open")?;
        let file = File::options().create(true).append(true).open(path)?;
        file.set_len(whole as u64)?;
        point!("worker.journal.after_open")?;
        let mut journal = Self {
            path: path.to_owned(),
            file,
            bytes: whole as u64,
            base: 0,
        };
        if whole == 0 {
            journal.write(&start())?;
        }
        Ok((journal, records))
    }

    /// Adds a record.
    ///
    /// # Errors
    /// The disk's; then the record is not there.
    pub(crate) fn add<T: Serialize>(&mut self, record: &T) -> io::Result<()> {
        let mut frame = Vec::new();
        append(&mut frame, record)?;
        self.write(&frame)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let before = self.bytes;
        let written = point!("worker.journal.before_append")
            .and_then(|()| self.file.write_all(bytes))
            .and_then(|()| {
                self.bytes += bytes.len() as u64;
                point!("worker.journal.after_append")
            });
        if written.is_err() {
            // Half a record must not stand before the next one.
            self.file.set_len(before)?;
            self.bytes = before;
        }
        written
    }

    /// Whether most of it is of the past.
    pub(crate) fn is_stale(&self) -> bool {
        self.bytes > SMALL && self.bytes > 4 * self.base
    }

    /// Writes it anew with only these records.
    ///
    /// # Errors
    /// The disk's; the old file stays then.
    pub(crate) fn rewrite<T: Serialize>(&mut self, records: &[T]) -> io::Result<()> {
        let mut bytes = start();
        for record in records {
            append(&mut bytes, record)?;
        }
        let new = self.path.with_extension("new");
        point!("worker.journal.before_rewrite")?;
        fs::write(&new, &bytes)?;
        let file = File::options().append(true).open(&new)?;
        point!("worker.journal.before_rename")?;
        fs::rename(&new, &self.path)?;
        let old = std::mem::replace(&mut self.file, file);
        // Its last descriptor: to free its blocks takes some file systems milliseconds, for which nobody should wait.
        let _or_here = std::thread::Builder::new().spawn(move || drop(old));
        self.bytes = bytes.len() as u64;
        self.base = self.bytes;
        point!("worker.journal.after_rename")
    }
}

fn append<T: Serialize>(out: &mut Vec<u8>, record: &T) -> io::Result<()> {
    let body = serde_json::to_vec(record)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let head = [length, crc32fast::hash(&body)]
        .map(u32::to_le_bytes)
        .concat();
    out.extend(&head);
    out.extend(crc32fast::hash(&head).to_le_bytes());
    out.extend(body);
    Ok(())
}

/// What is wrong, and where.
#[derive(Debug)]
struct Damage {
    at: usize,
    what: String,
}

impl Damage {
    fn told_of(self, path: &Path) -> io::Error {
        let Self { at, what } = self;
        let text = format!(
            "{} is damaged at byte {at}: {what}; nothing was started or changed; remove the file to go on, which ends the sandboxes of this node",
            path.display()
        );
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}

/// The records, and how many bytes of the file are whole.
fn replay<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<(Vec<T>, usize), Damage> {
    let damage = |at, what: &str| Damage {
        at,
        what: what.to_owned(),
    };
    if bytes.len() < START && MAGIC.starts_with(bytes.get(..MAGIC.len()).unwrap_or(bytes)) {
        return Ok((Vec::new(), 0));
    }
    if let Some(newer) = newer(bytes) {
        return Err(damage(
            0,
            &format!("a newer version wrote it ({newer}); use the version that wrote it"),
        ));
    }
    if boot_of(bytes).is_none() {
        return Err(damage(0, "it does not begin as such a file does"));
    }
    let (mut records, mut at) = (Vec::new(), START);
    while let Some(head) = bytes[at..].first_chunk::<HEAD>() {
        let word = |n: usize| {
            let word = head[4 * n..][..4].first_chunk();
            u32::from_le_bytes(*word.expect("four bytes are there"))
        };
        if crc32fast::hash(&head[..8]) != word(2) {
            return Err(damage(
                at,
                "the head of a record does not match its checksum",
            ));
        }
        let Some(body) = bytes[at + HEAD..].get(..word(0) as usize) else {
            break;
        };
        if crc32fast::hash(body) != word(1) {
            return Err(damage(at, "a record does not match its checksum"));
        }
        let record = serde_json::from_slice(body)
            .map_err(|e| damage(at, &format!("a record cannot be read: {e}")))?;
        records.push(record);
        at += HEAD + body.len();
    }
    Ok((records, at))
}

/// What a file of this boot begins with.
fn start() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(this_boot());
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// The boot that a file is of, if it begins as it must.
fn boot_of(bytes: &[u8]) -> Option<&[u8]> {
    let (head, sum) = bytes.get(..START)?.split_last_chunk::<4>()?;
    let boot = head.strip_prefix(MAGIC)?;
    (crc32fast::hash(head) == u32::from_le_bytes(*sum)).then_some(boot)
}

/// What a file of a newer version calls itself, if this is one.
fn newer(bytes: &[u8]) -> Option<String> {
    let (name, number) = bytes.get(..MAGIC.len())?.split_at(MAGIC.len() - 1);
    let ours = MAGIC.split_last()?;
    let newer = name == ours.1 && number[0].is_ascii_digit() && number[0] > *ours.0;
    newer.then(|| String::from_utf8_lossy(&bytes[..MAGIC.len()]).into_owned())
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

    fn filled(dir: &Path) -> PathBuf {
        let path = dir.join("journal");
        let (mut journal, old) = Journal::open::<String>(&path).unwrap();
        assert!(old.is_empty());
        for word in ["one", "two", "three"] {
            journal.add(&word).unwrap();
        }
        path
    }

    #[test]
    fn a_newer_version_s_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = filled(dir.path());
        let mut bytes = fs::read(&path).unwrap();
        bytes[7] = b'3';
        fs::write(&path, &bytes).unwrap();
        let why = Journal::open::<String>(&path).unwrap_err().to_string();
        assert!(why.contains("a newer version wrote it (prismwj3)"), "{why}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "it is left as it is");
    }

    #[test]
    fn records_come_back_in_order_and_more_can_be_added() {
        let dir = tempfile::tempdir().unwrap();
        let path = filled(dir.path());
        let (mut journal, records) = Journal::open::<String>(&path).unwrap();
        assert_eq!(records, ["one", "two", "three"]);
        journal.add(&"four").unwrap();
        journal.rewrite(&["three", "four"]).unwrap();
        journal.add(&"five").unwrap();
        let (_, records) = Journal::open::<String>(&path).unwrap();
        assert_eq!(records, ["three", "four", "five"]);
    }

    #[test]
    fn cut_anywhere_it_is_a_shorter_journal_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let whole = fs::read(filled(dir.path())).unwrap();
        for cut in 0..whole.len() {
            let path = dir.path().join("cut");
            fs::write(&path, &whole[..cut]).unwrap();
            let (mut journal, records) = Journal::open::<String>(&path).unwrap();
            let all = ["one", "two", "three"];
            assert_eq!(records, all[..records.len()], "cut at {cut}");
            journal.add(&"next").unwrap();
            let (_, again) = Journal::open::<String>(&path).unwrap();
            assert_eq!(again.len(), records.len() + 1, "cut at {cut}");
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let whole = fs::read(filled(dir.path())).unwrap();
        for at in 0..whole.len() {
            let path = dir.path().join("flipped");
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(&path, &bytes).unwrap();
            let error = Journal::open::<String>(&path).unwrap_err().to_string();
            assert!(error.contains("is damaged at byte "), "{at}: {error}");
            assert_eq!(fs::read(&path).unwrap(), bytes, "left as it is");
        }
    }

    #[test]
    fn of_an_earlier_boot_nothing_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = filled(dir.path());
        let mut bytes = fs::read(&path).unwrap();
        bytes[8..44].fill(b'x');
        let sum = crc32fast::hash(&bytes[..44]).to_le_bytes();
        bytes[44..START].copy_from_slice(&sum);
        fs::write(&path, bytes).unwrap();
        let (_, records) = Journal::open::<String>(&path).unwrap();
        assert!(records.is_empty());
    }
}
