//! What gossip among the servers leads to: its keys, what it says of a server, and the end of one that is long gone. Gossip is a hint;
//! whoever proposes these has held it against what consensus says.

use prism_types::{NodeId, Reason, Rejection};

use super::draft::Draft;
use super::join;
use crate::{Change, GossipRecord, Reply, ServerSeen, Subject};

/// Most keys at once, as in a ring.
const KEYS_MAX: usize = 8;
/// Most bytes of the sealed keys.
const SEALED_MAX: usize = 1024;
/// Longest reason for which a server is taken out, in bytes.
const WHY_MAX: usize = 400;

/// Takes the keys over, if they were made from those that are there.
pub(super) fn set_keys(d: &mut Draft<'_>, new: &GossipRecord) -> Result<Reply, Rejection> {
    let invalid = |message: &str| Rejection::new(Reason::Invalid, message.to_owned());
    let mut ids = new.keys.clone();
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() || ids.len() != new.keys.len() || ids.len() > KEYS_MAX {
        return Err(invalid("gossip has 1 to 8 keys, each once"));
    }
    if new.sealed.is_empty() || new.sealed.len() > SEALED_MAX {
        return Err(invalid("sealed gossip keys have 1 to 1024 bytes"));
    }
    let now = d.state.gossip.as_ref().map_or(0, |g| g.revision);
    if new.revision != now + 1 {
        return Err(Rejection::retryable(
            Reason::Conflict,
            "the gossip keys were changed by somebody else meanwhile; nothing was changed: look at them, then try again",
        ));
    }
    let message = format!(
        "gossip has {} keys now, and {} seals",
        new.keys.len(),
        new.keys.first().map(key_text).unwrap_or_default()
    );
    d.event("gossip.keys", Subject::Cluster, None, message);
    d.changes.push(Change::Gossip(new.clone()));
    Ok(Reply::Ok)
}

fn key_text(id: &[u8; 4]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Notes what is seen of a server.
pub(super) fn note(d: &mut Draft<'_>, id: NodeId, seen: ServerSeen) -> Result<Reply, Rejection> {
    known(d, id)?;
    let name = d.state.members.get(&id).map(|m| m.name.to_string());
    let name = name.unwrap_or_else(|| id.to_string());
    let (kind, what) = match seen {
        ServerSeen::Suspect => ("server.suspect", "does not answer the others' probes"),
        ServerSeen::Failed => ("server.failed", "is not heard of any more"),
        ServerSeen::Left => ("server.left", "was stopped"),
        ServerSeen::Back => ("server.back", "is heard of again"),
    };
    let message = format!("server {name} {what}");
    d.event(kind, Subject::Node(id), None, message);
    Ok(Reply::Ok)
}

fn known(d: &Draft<'_>, id: NodeId) -> Result<(), Rejection> {
    if d.state.servers.get(&id).is_none_or(|s| s.gone) {
        let message = format!("there is no server {id}");
        return Err(Rejection::new(Reason::NotFound, message));
    }
    Ok(())
}

/// Takes a server out that is long gone, by rule.
pub(super) fn retire(d: &mut Draft<'_>, id: NodeId, why: &str) -> Result<Reply, Rejection> {
    known(d, id)?;
    if why.is_empty() || why.len() > WHY_MAX {
        let message = format!("why a server is taken out is said in 1 to {WHY_MAX} bytes");
        return Err(Rejection::new(Reason::Invalid, message));
    }
    let reply = join::leave(d, id)?;
    d.event("server.retired", Subject::Node(id), None, why.to_owned());
    Ok(reply)
}
