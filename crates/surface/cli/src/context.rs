//! The contexts file: which clusters a person knows, and with which token. Read by every verb; written by `context` and
//! by `prismd dev`. Only its owner may read it, and it is replaced whole or not at all.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use prism_client::Security;
use prism_types::Name;
use serde::{Deserialize, Serialize};

use crate::dirs;

/// A larger file is not one of ours.
const SIZE_MAX: u64 = 1 << 20;

/// One known cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// Address of its API, such as `http://127.0.0.1:8008`.
    pub api: String,
    /// The bearer token, whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The namespace to work in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Name>,
    /// SHA-256 of the key of the server or of an authority above it, for `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
    /// A file of authorities (PEM) instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// A file with the certificate that is shown (PEM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// A file with its key (PEM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

impl Context {
    /// What the client is told of it for `https`.
    pub fn trusted(&self) -> Trusted {
        Trusted {
            pin: self.pin.clone(),
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
        }
    }
}

/// How a server with `https` is known, and what is shown to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trusted {
    /// As of [`Context::pin`].
    pub pin: Option<String>,
    /// As of [`Context::ca`].
    pub ca: Option<PathBuf>,
    /// As of [`Context::cert`].
    pub cert: Option<PathBuf>,
    /// As of [`Context::key`].
    pub key: Option<PathBuf>,
}

impl Trusted {
    /// With the contents of the files.
    ///
    /// # Errors
    /// When one cannot be read, or a certificate comes without its key.
    pub fn read(&self) -> Result<Security, ContextError> {
        let read = |path: &PathBuf| {
            let bytes = std::fs::read(path);
            bytes.map_err(|e| ContextError(format!("cannot read {}: {e}", path.display())))
        };
        let certificate = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some((read(cert)?, read(key)?)),
            (None, None) => None,
            _ => {
                let why = "a certificate goes with its key: --cert FILE --key FILE";
                return Err(ContextError(why.to_owned()));
            }
        };
        Ok(Security {
            pin: self.pin.clone(),
            authorities: self.ca.as_ref().map(read).transpose()?,
            certificate,
        })
    }
}

/// The contents of the contexts file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// The one that is used when nothing else is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Name>,
    /// All, by name.
    #[serde(default)]
    pub contexts: BTreeMap<Name, Context>,
}

/// Why the contexts file could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextError(String);

impl std::fmt::Display for ContextError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ContextError {}

/// Where the file is: `$XDG_CONFIG_HOME/prism/contexts.toml`.
///
/// # Errors
/// When neither the variable nor a home directory is known.
pub fn path() -> Result<PathBuf, ContextError> {
    dirs::config().map(|d| d.join("contexts.toml")).ok_or_else(|| {
        ContextError(
            "cannot tell where the contexts file is: neither XDG_CONFIG_HOME nor a home directory is set"
                .to_owned(),
        )
    })
}

/// Adds or replaces a context in the user's file, and makes it current if `make_current`.
///
/// # Errors
/// When the file cannot be read, is not a contexts file, or cannot be written; then it is as it was.
pub fn save(name: &Name, context: Context, make_current: bool) -> Result<PathBuf, ContextError> {
    let path = path()?;
    change(&path, |all| {
        all.contexts.insert(name.clone(), context);
        if make_current {
            all.current = Some(name.clone());
        }
        Ok(())
    })?;
    Ok(path)
}

/// Reads the file; a missing one is empty.
///
/// # Errors
/// When it cannot be read, is too large, is readable by others, or is not a contexts file.
pub fn load(path: &Path) -> Result<Contexts, ContextError> {
    let fail = |why: String| {
        ContextError(format!(
            "cannot read the contexts file {}: {why}",
            path.display()
        ))
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Contexts::default()),
        Err(e) => return Err(fail(e.to_string())),
    };
    let meta = file.metadata().map_err(|e| fail(e.to_string()))?;
    if !meta.is_file() {
        return Err(fail("it is not a regular file".to_owned()));
    }
    if meta.mode() & 0o077 != 0 {
        return Err(fail(format!(
            "it holds tokens and others may read it (mode {:03o}); run: chmod 600 {}",
            meta.mode() & 0o777,
            path.display()
        )));
    }
    let mut text = String::new();
    let read = file.take(SIZE_MAX + 1).read_to_string(&mut text);
    read.map_err(|e| fail(e.to_string()))?;
    if text.len() as u64 > SIZE_MAX {
        return Err(fail(format!("it is larger than {SIZE_MAX} bytes")));
    }
    toml::from_str(&text).map_err(|e| {
        // It quotes the line, which may be the whole file.
        let quoted = e.to_string();
        let told = if quoted.len() > 1_000 {
            e.message()
        } else {
            quoted.trim_end()
        };
        fail(told.to_owned())
    })
}

/// Reads, changes and replaces the file while no other process does.
///
/// # Errors
/// As [`load`], what `f` says, or when it cannot be written; then it is as it was.
pub fn change(
    path: &Path,
    f: impl FnOnce(&mut Contexts) -> Result<(), ContextError>,
) -> Result<(), ContextError> {
    let io = |e: std::io::Error| {
        ContextError(format!(
            "cannot write the contexts file {}: {e}; it is as it was",
            path.display()
        ))
    };
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(io)?;
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path.with_extension("lock"))
        .map_err(io)?;
    lock.lock().map_err(io)?;
    let mut all = load(path)?;
    f(&mut all)?;
    let text = toml::to_string(&all).map_err(|e| io(std::io::Error::other(e)))?;
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let written = write_new(&part, text.as_bytes()).and_then(|()| std::fs::rename(&part, path));
    if let Err(e) = written {
        // What is left of the attempt is of no use; the first error is the one to tell.
        let _ = std::fs::remove_file(&part);
        return Err(io(e));
    }
    File::open(dir).and_then(|d| d.sync_all()).map_err(io)
}

fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

impl ContextError {
    /// An error of a change.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn dev() -> Context {
        Context {
            api: "http://127.0.0.1:8008".into(),
            token: Some("pt1.x.y".into()),
            ..Context::default()
        }
    }

    fn put(path: &Path, text: impl AsRef<[u8]>) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    #[test]
    fn a_change_reads_back_and_only_its_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/contexts.toml");
        assert_eq!(load(&path), Ok(Contexts::default()));
        for name in ["dev", "lab"] {
            change(&path, |all| {
                all.current = Some(name.parse().unwrap());
                all.contexts.insert(name.parse().unwrap(), dev());
                Ok(())
            })
            .unwrap();
        }
        let all = load(&path).unwrap();
        assert_eq!(all.current.unwrap().as_str(), "lab");
        assert_eq!(all.contexts.len(), 2);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let left: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 2, "the file and its lock: {left:?}");
    }

    #[test]
    fn a_refused_change_leaves_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("contexts.toml");
        put(
            &path,
            "current = \"dev\"\n[contexts.dev]\napi = \"http://h\"\n",
        );
        let before = std::fs::read(&path).unwrap();
        assert!(change(&path, |_| Err(ContextError::new("no"))).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn concurrent_changes_are_all_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("contexts.toml");
        std::thread::scope(|s| {
            for n in 0..8 {
                let path = &path;
                s.spawn(move || {
                    change(path, |all| {
                        all.contexts.insert(format!("c{n}").parse().unwrap(), dev());
                        Ok(())
                    })
                    .unwrap();
                });
            }
        });
        assert_eq!(load(&path).unwrap().contexts.len(), 8);
    }

    #[test]
    fn hostile_files_are_refused_with_the_file_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("contexts.toml");
        let deep = format!("current = {}", "[".repeat(100_000));
        let cases: [(&[u8], &str); 8] = [
            (b"current = ", "line 1"),
            (b"curent = \"dev\"", "unknown field `curent`"),
            (b"current = \"../x\"", "not a name"),
            (b"[contexts.\"A B\"]\napi = \"x\"", "not a name"),
            (b"[contexts.dev]\ntoken = \"x\"", "missing field `api`"),
            (b"[contexts.dev]\napi = 5", "invalid type"),
            (b"\xff\xfe", "UTF-8"),
            (deep.as_bytes(), ""),
        ];
        for (content, says) in cases {
            put(&path, content);
            let e = load(&path).unwrap_err().to_string();
            assert!(e.contains(says) && e.contains("contexts.toml"), "{e}");
        }
        put(&path, vec![b'#'; 2 << 20]);
        assert!(load(&path).unwrap_err().to_string().contains("larger"));
        put(&path, "");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("chmod 600"));
        assert!(
            load(dir.path())
                .unwrap_err()
                .to_string()
                .contains("regular file")
        );
    }
}
