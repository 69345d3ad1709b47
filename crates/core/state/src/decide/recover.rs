//! After a loss: of a majority of the servers, or of a whole cluster.

use prism_types::{NodeId, Reason, Rejection};

use super::draft::Draft;
use crate::{Change, MemberRole, Reply, ServerRecord, Subject};

/// All servers but one are none any more. What they have signed stays good, since workers hold it; they themselves are let in no more,
/// and their numbers are never given again.
pub(super) fn alone(d: &mut Draft<'_>, id: NodeId) -> Result<Reply, Rejection> {
    let left = d.state.servers.get(&id).filter(|s| !s.gone);
    let Some(left) = left else {
        return Err(Rejection::new(
            Reason::NotFound,
            format!("there is no server {id} in this state"),
        ));
    };
    let number = left.number;
    let state = d.state;
    for server in state.servers.values().filter(|s| s.id != id && !s.gone) {
        d.changes.push(Change::Server(ServerRecord {
            gone: true,
            ..server.clone()
        }));
        let name = state.members.get(&server.id).map(|m| m.name.to_string());
        let name = name.unwrap_or_else(|| server.id.to_string());
        let message = format!(
            "server {name} was left behind when the cluster was recovered with server {number} alone"
        );
        d.event("member.removed", Subject::Node(server.id), None, message);
    }
    let servers = state
        .members
        .values()
        .filter(|m| m.role == MemberRole::Server && m.id != id);
    for member in servers {
        d.changes.push(Change::MemberRemoved(member.id));
    }
    if !d.changes.is_empty() {
        let message = format!("recovered with server {number} alone");
        d.event("cluster.recovered", Subject::Cluster, None, message);
    }
    Ok(Reply::Ok)
}
