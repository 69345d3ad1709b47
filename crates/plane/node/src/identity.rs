//! Who this node is: minted once, kept in its directory for life.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use prism_faults::point;
use prism_runtime::sealed;
use prism_types::{Name, NodeId};
use serde::{Deserialize, Serialize};

/// What is kept of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    pub(crate) id: NodeId,
    pub(crate) name: Name,
}

/// Who a directory's node is, if it is any.
pub(crate) fn kept(dir: &Path) -> io::Result<Option<Identity>> {
    let path = dir.join("node.json");
    match fs::read(&path) {
        Ok(bytes) => read(&path, &bytes).map(Some).map_err(|e| {
            let what = format!("{e}; restore it, or move the directory away to start a new node");
            io::Error::new(io::ErrorKind::InvalidData, what)
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Reads the identity of a directory, or makes one. A given name replaces the kept one.
pub(crate) fn load(dir: &Path, name: Option<&Name>, fresh: NodeId) -> io::Result<Identity> {
    let path = dir.join("node.json");
    let kept = kept(dir)?;
    let wanted = Identity {
        id: kept.as_ref().map_or(fresh, |k| k.id),
        name: name
            .cloned()
            .or_else(|| kept.as_ref().map(|k| k.name.clone()))
            .unwrap_or_else(host_name),
    };
    if kept.as_ref() != Some(&wanted) {
        write(dir, &path, &wanted)?;
    }
    Ok(wanted)
}

fn read(path: &Path, bytes: &[u8]) -> io::Result<Identity> {
    serde_json::from_slice(sealed::unseal(path, bytes)?).map_err(|e| {
        let lines = bytes.split_inclusive(|b| *b == b'\n');
        let before: usize = lines
            .take(e.line().saturating_sub(1))
            .map(<[u8]>::len)
            .sum();
        sealed::damaged(path, before + e.column(), &e.to_string())
    })
}

fn write(dir: &Path, path: &Path, identity: &Identity) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    point!("node.identity.before_write")?;
    let mut file = fs::File::create(&temporary)?;
    file.write_all(&sealed::seal(serde_json::to_vec_pretty(identity)?))?;
    point!("node.identity.before_sync")?;
    file.sync_all()?;
    point!("node.identity.before_rename")?;
    fs::rename(&temporary, path)?;
    point!("node.identity.before_dir_sync")?;
    fs::File::open(dir)?.sync_all()?;
    point!("node.identity.after")
}

/// The host's name as far as it is a name of ours.
fn host_name() -> Name {
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .to_lowercase();
    let host: String = host
        .split('.')
        .next()
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(63)
        .collect();
    host.parse()
        .unwrap_or_else(|_| "node".parse().expect("a valid name"))
}
