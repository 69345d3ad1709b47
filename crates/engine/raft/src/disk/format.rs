//! The version of what is in the directory, and making a new one.

use std::fs;
use std::path::Path;

use super::{Disk, FORMAT as STEPS, TailFile};
use crate::OpenError;
use crate::log::make_first_segment;

/// The format this version writes and reads.
const FORMAT: u64 = 1;
const NAME: &str = "prism-store";

/// Checks the format of the directory, or makes a new store in it for this server.
pub(crate) fn prepare(disk: &Disk, server: u64) -> Result<(), OpenError> {
    let path = disk.path("format");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return make(disk, &path, server);
        }
        Err(error) => return Err(OpenError::io("read", &path)(error)),
    };
    let corrupt = |why: &str| OpenError::corrupt(&path, 0, why.to_owned());
    let text = str::from_utf8(&bytes).map_err(|_| corrupt("it is not text"))?;
    let mut words = text.split_whitespace();
    if words.next() != Some(NAME) {
        return Err(corrupt("it does not name a prism store"));
    }
    let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
    let (format, found) = (number(), number());
    match format {
        Some(FORMAT) => {}
        Some(newer) if newer > FORMAT => {
            return Err(OpenError::Newer {
                path: path.clone(),
                found: newer,
                known: FORMAT,
            });
        }
        _ => return Err(corrupt("its version is not a number this program knows")),
    }
    let found = found.ok_or_else(|| corrupt("it does not name its server"))?;
    // The whole text is known now: anything else in the file is damage.
    if text != line(found) {
        return Err(corrupt(
            "it holds more than its name, version, server and checksum",
        ));
    }
    if found != server {
        return Err(OpenError::WrongServer {
            dir: path.parent().unwrap_or(&path).to_owned(),
            found,
            asked: server,
        });
    }
    Ok(())
}

fn line(server: u64) -> String {
    let body = format!("{NAME} {FORMAT} {server}");
    format!("{body} {:08x}\n", crc32fast::hash(body.as_bytes()))
}

fn make(disk: &Disk, path: &Path, server: u64) -> Result<(), OpenError> {
    // Without the format file there must be nothing that an earlier store wrote: entries come after it.
    for name in ["vote", "snapshot"] {
        if disk.path(name).exists() {
            let why = format!("it is missing, yet there is a {name} file beside it");
            return Err(OpenError::corrupt(path, 0, why));
        }
    }
    let log = disk.log_dir();
    fs::create_dir_all(&log).map_err(OpenError::io("make", &log))?;
    make_first_segment(disk, path)?;
    TailFile::make(disk);
    disk.replace_with(&STEPS, path, line(server).as_bytes());
    Ok(())
}
