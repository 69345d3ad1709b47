//! Which version of Prism a data directory is of: one line in it, looked at before anything else is, and written once. A directory
//! without it is of a version before there was one, and opens.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use crate::node::NodeError;

/// What a directory is now. A change after which versions before cannot use it takes the next number.
const VERSION: u32 = 1;
const NAME: &str = "prism-data";

fn path(data: &Path) -> std::path::PathBuf {
    data.join("format")
}

/// The number in a directory, if it has one.
///
/// # Errors
/// When it is of a newer version, damaged, or cannot be read.
pub(crate) fn read(data: &Path) -> Result<Option<u32>, NodeError> {
    let path = path(data);
    let failed = |e| NodeError::Directory(data.display().to_string(), e);
    let text = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let text = String::from_utf8_lossy(&text).into_owned();
    let number = text.strip_prefix(NAME).and_then(|rest| {
        let number = rest.strip_prefix(' ')?.strip_suffix('\n')?;
        number.parse::<u32>().ok().filter(|n| *n > 0)
    });
    match number {
        Some(newer) if newer > VERSION => Err(NodeError::Newer(format!(
            "{} says format {newer}, but this version of Prism reads up to {VERSION}; nothing was started or changed",
            path.display()
        ))),
        Some(known) => Ok(Some(known)),
        None => {
            let why = format!("{} is damaged: it does not say a version", path.display());
            Err(failed(io::Error::new(io::ErrorKind::InvalidData, why)))
        }
    }
}

/// Checks a directory that is to be used from now on, and writes the version into one that has none.
///
/// # Errors
/// As of [`read`], or when it cannot be written.
pub(crate) fn check(data: &Path) -> Result<(), NodeError> {
    if read(data)?.is_some() {
        return Ok(());
    }
    let write = || {
        let temporary = data.join("format.tmp");
        let mut file = fs::File::create(&temporary)?;
        writeln!(file, "{NAME} {VERSION}")?;
        file.sync_all()?;
        fs::rename(&temporary, path(data))?;
        fs::File::open(data)?.sync_all()
    };
    write().map_err(|e| NodeError::Directory(data.display().to_string(), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_directories_open_and_newer_ones_are_refused_by_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path();
        assert_eq!(read(data).expect("it is of before"), None);
        check(data).expect("it is written");
        check(data).expect("and read");
        assert_eq!(read(data).expect("it reads"), Some(1));
        for newer in [2, 77, u32::MAX] {
            fs::write(path(data), format!("{NAME} {newer}\n")).expect("written");
            let why = check(data).expect_err("newer").to_string();
            let said =
                format!("format says format {newer}, but this version of Prism reads up to 1");
            assert!(why.contains(&said), "{why}");
        }
        for bad in [
            "",
            "prism-data",
            "prism-data 1",
            "prism-data 0\n",
            "other 1\n",
            "prism-data x\n",
        ] {
            fs::write(path(data), bad).expect("written");
            let why = check(data).expect_err("damaged").to_string();
            assert!(why.contains("is damaged"), "{bad:?}: {why}");
            assert_eq!(fs::read_to_string(path(data)).expect("it reads"), bad);
        }
    }
}
