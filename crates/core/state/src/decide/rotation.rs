//! The change of the root, step by step: it begins, members come along, it ends. Each step is a commit; whoever leads goes on from the last.

use prism_types::{NodeId, Reason, Rejection};

use super::draft::Draft;
use crate::{Change, MemberRole, Reply, RootRecord, RotationRecord, Subject};

/// Most bytes of a root's certificate.
const ROOT_MAX: usize = 8 << 10;

fn conflict(message: impl Into<String>) -> Rejection {
    Rejection::new(Reason::Conflict, message.into())
}

pub(super) fn begin(
    d: &mut Draft<'_>,
    old: &RootRecord,
    new: &RootRecord,
    again: bool,
) -> Result<Reply, Rejection> {
    if [old, new]
        .iter()
        .any(|r| r.certificate.is_empty() || r.certificate.len() > ROOT_MAX)
    {
        let message = format!("a root's certificate has 1 to {ROOT_MAX} bytes");
        return Err(Rejection::new(Reason::Invalid, message));
    }
    let old = match d.state.rotation() {
        Some(r) if r.ended.is_none() && !again => {
            return Err(conflict(
                "the root is being changed already; see how far it is with prismctl ca status",
            ));
        }
        // Everybody trusts the root from before that until it ends.
        Some(r) if r.ended.is_none() => r.old.clone(),
        Some(r) if r.new.pin != old.pin => {
            return Err(conflict(
                "this server does not have the cluster's root any more; ask another",
            ));
        }
        _ => old.clone(),
    };
    if old.pin == new.pin {
        return Err(conflict("the new root is the old one"));
    }
    let rotation = RotationRecord {
        old,
        new: new.clone(),
        started: d.now,
        moved: std::collections::BTreeSet::new(),
        ended: None,
    };
    d.changes.push(Change::Rotation(Box::new(rotation)));
    let message = "the change of the cluster's root has begun".to_owned();
    d.event("ca.rotation_started", Subject::Cluster, None, message);
    Ok(Reply::Ok)
}

/// Members have shown certificates of the root with this pin. One that is gone, or another rotation, changes nothing.
pub(super) fn moved(d: &mut Draft<'_>, pin: &[u8; 32], members: &[NodeId]) -> Reply {
    let Some(rotation) = d.state.rotating().filter(|r| r.new.pin == *pin) else {
        return Reply::Ok;
    };
    let new = members
        .iter()
        .filter(|id| d.state.member(**id).is_some() && !rotation.moved.contains(*id));
    let mut next = rotation.clone();
    next.moved.extend(new);
    if next.moved.len() > rotation.moved.len() {
        d.changes.push(Change::Rotation(Box::new(next)));
    }
    Reply::Ok
}

pub(super) fn end(d: &mut Draft<'_>, force: bool) -> Result<Reply, Rejection> {
    let Some(rotation) = d.state.rotating() else {
        return Err(Rejection::new(
            Reason::WrongState,
            "the root is not being changed",
        ));
    };
    let late = d.now >= rotation.latest();
    let waiting: Vec<_> = d.state.waiting_for_root(rotation).collect();
    let names = |all: &[&crate::MemberRecord]| {
        let some: Vec<&str> = all.iter().take(10).map(|m| m.name.as_str()).collect();
        some.join(", ")
    };
    if !waiting.is_empty() && !force && !late {
        return Err(conflict(format!(
            "{} members have no certificate of the new root yet: {}",
            waiting.len(),
            names(&waiting)
        )));
    }
    let servers = waiting.iter().filter(|m| m.role == MemberRole::Server);
    let servers: Vec<_> = servers.copied().collect();
    if !servers.is_empty() && !late {
        return Err(conflict(format!(
            "servers have no certificate of the new root yet: {}; nothing was changed: start them, or take them out with prismctl peer rm",
            names(&servers)
        )));
    }
    let next = RotationRecord {
        ended: Some(d.now),
        ..rotation.clone()
    };
    let message = match waiting.len() {
        0 => "the change of the cluster's root is over".to_owned(),
        n => format!(
            "the change of the cluster's root is over; {n} members are to join again: {}",
            names(&waiting)
        ),
    };
    d.event("ca.rotation_ended", Subject::Cluster, None, message);
    d.changes.push(Change::Rotation(Box::new(next)));
    Ok(Reply::Ok)
}
