//! Who this node is: minted once, kept in its directory for life.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use prism_types::{Name, NodeId};
use serde::{Deserialize, Serialize};

/// What is kept of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    pub(crate) id: NodeId,
    pub(crate) name: Name,
}

/// Reads the identity of a directory, or makes one. A given name replaces the kept one.
pub(crate) fn load(dir: &Path, name: Option<&Name>, fresh: NodeId) -> io::Result<Identity> {
    let path = dir.join("node.json");
    let kept: Option<Identity> = match fs::read(&path) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).map_err(|e| {
            let what = format!(
                "{} is damaged ({e}); restore it, or move the directory away to start a new node",
                path.display()
            );
            io::Error::new(io::ErrorKind::InvalidData, what)
        })?),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
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

fn write(dir: &Path, path: &Path, identity: &Identity) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(&serde_json::to_vec_pretty(identity)?)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    fs::File::open(dir)?.sync_all()
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
