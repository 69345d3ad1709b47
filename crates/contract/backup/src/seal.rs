//! A passphrase around a file: a key from Argon2id, and ChaCha20-Poly1305 over pieces of 64 KiB, each of which says where it belongs and
//! whether it is the last (the STREAM construction, as in age). The salt is drawn for each file, so no key seals two.
//!
//! ```text
//! PRISMSEA  version, memory in KiB, passes, lanes: 4 bytes each; salt, 16 bytes
//! pieces    64 KiB and a tag of 16 bytes; the last may be shorter. All of the above is bound to each.
//! ```

use std::io::{self, Read, Write};

use argon2::{Algorithm, Argon2, Params};
use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use crate::BackupError;

/// What a sealed file begins with.
pub const SEALED_MAGIC: [u8; 8] = *b"PRISMSEA";
/// The shortest passphrase, in characters.
pub const PASSPHRASE_MIN: usize = 12;

const VERSION: u32 = 1;
const HEAD: usize = 40;
const PIECE: usize = 64 << 10;
const TAG: usize = 16;
/// What a new file costs to try a passphrase: memory in KiB, passes, lanes.
const COST: [u32; 3] = [64 << 10, 3, 1];
/// What a file may ask for at most: whoever made it may mean no good.
const COST_MAX: [u32; 3] = [256 << 10, 10, 4];

fn head_of(cost: [u32; 3], salt: &[u8; 16]) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(&SEALED_MAGIC);
    for (n, number) in [VERSION, cost[0], cost[1], cost[2]].into_iter().enumerate() {
        head[8 + 4 * n..12 + 4 * n].copy_from_slice(&number.to_le_bytes());
    }
    head[24..].copy_from_slice(salt);
    head
}

fn key(
    passphrase: &str,
    [memory, passes, lanes]: [u32; 3],
    salt: &[u8],
) -> io::Result<LessSafeKey> {
    let failed = |why: &dyn std::fmt::Display| io::Error::other(why.to_string());
    let params = Params::new(memory, passes, lanes, Some(32)).map_err(|e| failed(&e))?;
    let argon = Argon2::new(Algorithm::Argon2id, argon2::Version::V0x13, params);
    let mut key = [0; 32];
    let made = argon.hash_password_into(passphrase.as_bytes(), salt, &mut key);
    made.map_err(|e| failed(&e))?;
    let key = UnboundKey::new(&CHACHA20_POLY1305, &key).map_err(|e| failed(&e))?;
    Ok(LessSafeKey::new(key))
}

fn nonce(piece: u64, last: bool) -> Nonce {
    let mut bytes = [0; 12];
    bytes[3..11].copy_from_slice(&piece.to_be_bytes());
    bytes[11] = u8::from(last);
    Nonce::assume_unique_for_key(bytes)
}

/// Seals what is written to it. One that is dropped before [`Sealer::finish`] leaves a file that is refused as cut off.
pub struct Sealer<W: Write> {
    sink: W,
    key: LessSafeKey,
    head: [u8; HEAD],
    piece: Vec<u8>,
    count: u64,
}

impl<W: Write> std::fmt::Debug for Sealer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

impl<W: Write> Sealer<W> {
    /// Begins, with random bytes that were never used before.
    ///
    /// # Errors
    /// The sink's, or that the passphrase is too short.
    pub fn new(mut sink: W, passphrase: &str, salt: [u8; 16]) -> Result<Self, BackupError> {
        if passphrase.chars().count() < PASSPHRASE_MIN {
            return Err(BackupError::Short);
        }
        let head = head_of(COST, &salt);
        let key = key(passphrase, COST, &salt)?;
        sink.write_all(&head)?;
        Ok(Self {
            sink,
            key,
            head,
            piece: Vec::with_capacity(PIECE + TAG),
            count: 0,
        })
    }

    fn seal(&mut self, last: bool) -> io::Result<()> {
        let (nonce, bound) = (nonce(self.count, last), Aad::from(&self.head[..]));
        let sealed = self
            .key
            .seal_in_place_append_tag(nonce, bound, &mut self.piece);
        sealed.map_err(|_| io::Error::other("the cipher refused"))?;
        self.sink.write_all(&self.piece)?;
        self.piece.clear();
        self.count += 1;
        Ok(())
    }

    /// Ends it, and gives back the sink, which is flushed.
    ///
    /// # Errors
    /// The sink's.
    pub fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        self.sink.flush()?;
        Ok(self.sink)
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() == PIECE {
            self.seal(false)?;
        }
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    /// Nothing before the end: what is in a piece is written when that is full.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads what was sealed. An error of it that is a [`BackupError`] says so within the `io::Error`.
pub struct Opener<R: Read> {
    source: R,
    key: LessSafeKey,
    head: [u8; HEAD],
    /// Read and not opened yet: the first bytes of the next piece.
    ahead: Vec<u8>,
    open: Vec<u8>,
    used: usize,
    count: u64,
    over: bool,
}

impl<R: Read> std::fmt::Debug for Opener<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").finish_non_exhaustive()
    }
}

/// Reads until there are so many bytes or no more.
fn fill(source: &mut impl Read, bytes: &mut Vec<u8>, most: usize) -> io::Result<()> {
    let left = most.saturating_sub(bytes.len()) as u64;
    source.take(left).read_to_end(bytes).map(drop)
}

impl<R: Read> Opener<R> {
    /// Begins, and makes the key, which takes a moment.
    ///
    /// # Errors
    /// When it is not sealed, of a newer version, or its head asks for more than it may.
    pub fn new(mut source: R, passphrase: &str) -> Result<Self, BackupError> {
        let mut bytes = Vec::with_capacity(HEAD);
        fill(&mut source, &mut bytes, HEAD)?;
        match bytes.get(..8) {
            Some(magic) if magic == SEALED_MAGIC => {}
            Some(magic) if magic == crate::MAGIC => return Err(BackupError::NotSealed),
            _ => return Err(BackupError::Foreign),
        }
        let size = bytes.len() as u64;
        let head: [u8; HEAD] = bytes.try_into().map_err(|_| BackupError::Cut { size })?;
        let number = |n: usize| {
            let bytes = head[8 + 4 * n..12 + 4 * n].iter().rev();
            bytes.fold(0, |n, b| (n << 8) | u32::from(*b))
        };
        if number(0) > VERSION {
            return Err(BackupError::Newer {
                found: number(0),
                known: VERSION,
            });
        }
        let cost = [number(1), number(2), number(3)];
        let sound = cost
            .iter()
            .zip(COST_MAX)
            .all(|(n, most)| (1..=most).contains(n));
        if number(0) == 0 || !sound || cost[0] < 8 * cost[2] {
            let why = "its head asks for what no backup does";
            return Err(BackupError::Damaged { offset: 8, why });
        }
        Ok(Self {
            key: key(passphrase, cost, &head[24..])?,
            source,
            head,
            ahead: Vec::new(),
            open: Vec::new(),
            used: 0,
            count: 0,
            over: false,
        })
    }

    /// Opens the next piece.
    fn next(&mut self) -> Result<(), BackupError> {
        // One byte more than a piece says whether another follows.
        fill(&mut self.source, &mut self.ahead, PIECE + TAG + 1)?;
        let last = self.ahead.len() <= PIECE + TAG;
        let at = HEAD as u64 + self.count * (PIECE + TAG) as u64;
        if self.ahead.len() < TAG {
            let size = at + self.ahead.len() as u64;
            return Err(BackupError::Cut { size });
        }
        let next = match last {
            true => Vec::new(),
            false => self.ahead.split_off(PIECE + TAG),
        };
        let (nonce, bound) = (nonce(self.count, last), Aad::from(&self.head[..]));
        let size = at + self.ahead.len() as u64;
        let opened = self.key.open_in_place(nonce, bound, &mut self.ahead);
        let length = match opened {
            Ok(plain) => plain.len(),
            Err(_) if self.count == 0 => return Err(BackupError::WrongPassphrase),
            Err(_) if last => return Err(BackupError::Cut { size }),
            Err(_) => {
                let why = "a piece of it is not what was sealed";
                return Err(BackupError::Damaged { offset: at, why });
            }
        };
        self.open = std::mem::replace(&mut self.ahead, next);
        self.open.truncate(length);
        self.used = 0;
        self.count += 1;
        self.over = last;
        Ok(())
    }
}

impl<R: Read> Read for Opener<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.used == self.open.len() {
            if self.over {
                return Ok(0);
            }
            self.next()?;
        }
        let taken = into.len().min(self.open.len() - self.used);
        into[..taken].copy_from_slice(&self.open[self.used..self.used + taken]);
        self.used += taken;
        Ok(taken)
    }
}
