//! Why a file is not taken.

use std::io;

/// Why a file is not taken. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("it is no backup of Prism: it does not begin as one does")]
    Foreign,
    /// It is sealed.
    #[error("it is sealed with a passphrase, which is needed to read it")]
    Sealed,
    /// It is not sealed.
    #[error("it is not sealed, and a passphrase was given: leave that out")]
    NotSealed,
    /// A newer version wrote it.
    #[error(
        "it is of format {found}, and this version of Prism reads up to {known}; use the version that made it, or a newer one"
    )]
    Newer {
        /// Its version.
        found: u32,
        /// The newest that is read here.
        known: u32,
    },
    /// It is not as it was written.
    #[error("it is damaged at byte {offset}: {why}")]
    Damaged {
        /// Where, from the beginning of the file (of the sealed content, if it is sealed).
        offset: u64,
        /// In what way.
        why: &'static str,
    },
    /// It ends too early.
    #[error("it is cut off after {size} bytes: it was not written or copied to its end")]
    Cut {
        /// Its bytes.
        size: u64,
    },
    /// The passphrase does not open it.
    #[error(
        "the passphrase does not open it: it is another one, or the file was altered in its first 64 KiB"
    )]
    WrongPassphrase,
    /// The passphrase is too short.
    #[error("a passphrase has at least {PASSPHRASE_MIN} characters: take a longer one", PASSPHRASE_MIN = crate::PASSPHRASE_MIN)]
    Short,
}

impl From<BackupError> for io::Error {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Io(error) => error,
            other => Self::new(io::ErrorKind::InvalidData, other),
        }
    }
}

impl BackupError {
    /// An error that came through a reader of [`crate::Opener`] as what it was.
    pub(crate) fn of(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(known) => known,
            Err(error) => Self::Io(error),
        }
    }
}
