//! Joining: tokens are made and used up, members come and go, somebody is kept out. Whoever asks has shown the secret over a
//! connection that is pinned to the cluster's root; the certificate is signed after the commit, so a token that is good for one
//! lets one in, however many ask at once of however many servers.

use prism_types::{Millis, NodeId, Reason, Rejection, TokenId};

use super::draft::Draft;
use crate::{
    Change, DeniedRecord, Join, JoinTokenRecord, MemberRecord, MemberRole, Reply, ServerRecord,
    Subject, Whom,
};

/// Most join tokens at once.
const JOIN_TOKENS_MAX: usize = 1_000;
/// Most nodes that one lets in.
const USES_MAX: u32 = 10_000;
/// Longest life of one.
const LIFE_MAX: Millis = Millis(30 * 24 * 3_600_000);
/// Most ranges of addresses, and most labels, of one.
const RANGES_MAX: usize = 64;
const LABELS_MAX: usize = 64;
/// Most that are kept out.
const DENIED_MAX: usize = 100_000;
/// Longest address of a server, in bytes.
const ADDRESS_MAX: usize = 300;
/// Longest reason for that, in bytes.
const WHY_MAX: usize = 400;

fn invalid(message: impl Into<String>) -> Rejection {
    Rejection::new(Reason::Invalid, message.into())
}

fn forbidden(message: impl Into<String>) -> Rejection {
    Rejection::new(Reason::Forbidden, message.into())
}

pub(super) fn create_token(d: &mut Draft<'_>, new: &JoinTokenRecord) -> Result<Reply, Rejection> {
    if !(1..=USES_MAX).contains(&new.uses) {
        return Err(invalid(format!(
            "a join token lets in 1 to {USES_MAX} nodes, not {}",
            new.uses
        )));
    }
    if new.name.is_some() && new.uses != 1 {
        return Err(invalid("a join token for one name lets in one node"));
    }
    if new.expires <= d.now || new.expires > d.now.after(LIFE_MAX) {
        return Err(invalid("a join token lives for up to 30 days"));
    }
    if new.from.len() > RANGES_MAX || new.labels.len() > LABELS_MAX {
        return Err(invalid(format!(
            "a join token has at most {RANGES_MAX} ranges of addresses and {LABELS_MAX} labels"
        )));
    }
    if d.state.join_tokens.contains_key(&new.id) {
        return Err(Rejection::new(
            Reason::Conflict,
            "there is such a join token already",
        ));
    }
    if d.state.join_tokens.len() >= JOIN_TOKENS_MAX {
        return Err(Rejection::new(
            Reason::Overloaded,
            format!("there are {JOIN_TOKENS_MAX} join tokens; revoke some first"),
        ));
    }
    d.changes.push(Change::JoinToken(JoinTokenRecord {
        created: d.now,
        ..new.clone()
    }));
    let message = format!("join token for {} of role {} made", new.uses, new.role);
    d.event("join_token.created", Subject::Token(new.id), None, message);
    Ok(Reply::TokenCreated { id: new.id })
}

pub(super) fn revoke_token(d: &mut Draft<'_>, id: TokenId) -> Result<Reply, Rejection> {
    if !d.state.join_tokens.contains_key(&id) {
        let message = format!("there is no join token {id}");
        return Err(Rejection::new(Reason::NotFound, message));
    }
    let message = format!("join token {id} revoked");
    d.event("join_token.revoked", Subject::Token(id), None, message);
    d.changes.push(Change::JoinTokenRemoved(id));
    Ok(Reply::Ok)
}

/// The founder of a cluster, which nobody lets in.
pub(super) fn found(
    d: &mut Draft<'_>,
    founder: &MemberRecord,
    address: &str,
) -> Result<Reply, Rejection> {
    if let Some(known) = d.state.members.get(&founder.id)
        && known.key == founder.key
    {
        place(d, founder.id, address)?;
        return Ok(Reply::Ok);
    }
    if !d.state.members.is_empty() {
        return Err(Rejection::new(
            Reason::Conflict,
            "this cluster has members; join it with a token",
        ));
    }
    d.changes.push(Change::Member(MemberRecord {
        token: None,
        joined: d.now,
        ..founder.clone()
    }));
    place(d, founder.id, address)?;
    Ok(Reply::Ok)
}

/// Notes where a server is; a new one gets the next number.
fn place(d: &mut Draft<'_>, id: NodeId, address: &str) -> Result<(), Rejection> {
    if address.is_empty() || address.len() > ADDRESS_MAX || !address.contains(':') {
        return Err(invalid(format!(
            "a server is reached at HOST:PORT, of at most {ADDRESS_MAX} bytes"
        )));
    }
    let known = d.state.servers.get(&id);
    if known.is_some_and(|s| s.address == address && !s.gone) {
        return Ok(());
    }
    let taken = |s: &&ServerRecord| s.id != id && !s.gone && s.address == address;
    if let Some(other) = d.state.servers.values().find(taken) {
        return Err(Rejection::new(
            Reason::Conflict,
            format!(
                "server {} is at {address}; say where this one is with --advertise",
                other.id
            ),
        ));
    }
    let last = d.state.servers.values().map(|s| s.number).max();
    let number = known.map_or(last.unwrap_or_default() + 1, |s| s.number);
    d.changes.push(Change::Server(ServerRecord {
        id,
        number,
        address: address.to_owned(),
        gone: false,
    }));
    Ok(())
}

pub(super) fn move_server(
    d: &mut Draft<'_>,
    id: NodeId,
    address: &str,
) -> Result<Reply, Rejection> {
    if d.state.servers.get(&id).is_none_or(|s| s.gone) {
        let message = format!("there is no server {id}");
        return Err(Rejection::new(Reason::NotFound, message));
    }
    place(d, id, address)?;
    if !d.changes.is_empty() {
        let message = format!("server is at {address}");
        d.event("server.moved", Subject::Node(id), None, message);
    }
    Ok(Reply::Ok)
}

pub(super) fn join(d: &mut Draft<'_>, join: &Join) -> Result<Reply, Rejection> {
    let token = allowed(d, join)?;
    if let Some(why) = d.state.denied.get(&Whom::Node(join.node)) {
        return Err(forbidden(format!(
            "node {} is kept out: {}; let it in again with prismctl ca allow",
            join.node, why.why
        )));
    }
    if d.state.servers.get(&join.node).is_some_and(|s| s.gone) {
        return Err(forbidden(format!(
            "server {} was removed from this cluster; start it with an empty directory, as another node",
            join.node
        )));
    }
    let known = d.state.members.get(&join.node);
    if let Some(known) = known {
        same_node(known, join)?;
        if known.token == Some(token.id) && known.name == join.name {
            // It has not heard the answer, and asks again.
            if let Some(address) = &join.server {
                place(d, join.node, address)?;
            }
            return Ok(Reply::Ok);
        }
    }
    let taken = d.state.index.member_by_name.get(&join.name);
    if let Some(other) = taken.filter(|other| **other != join.node) {
        return Err(Rejection::new(
            Reason::Conflict,
            format!(
                "the name {} belongs to node {other}; start this one with another --name, or remove the other with prismctl node rm",
                join.name
            ),
        ));
    }
    if token.uses == 0 {
        return Err(Rejection::new(
            Reason::Unauthenticated,
            format!(
                "join token {} is used up; make another with prismctl server join-token",
                token.id
            ),
        ));
    }
    match (&join.server, join.role) {
        (Some(address), MemberRole::Server) => place(d, join.node, address)?,
        (None, MemberRole::Worker) => {}
        _ => return Err(invalid("servers, and nobody else, say where they are")),
    }
    d.changes.push(Change::JoinToken(JoinTokenRecord {
        uses: token.uses - 1,
        ..token.clone()
    }));
    d.changes.push(Change::Member(MemberRecord {
        id: join.node,
        role: join.role,
        name: join.name.clone(),
        key: join.key,
        labels: token.labels.clone(),
        token: Some(token.id),
        joined: d.now,
    }));
    let message = format!("{} {} joined from {}", join.role, join.name, join.address);
    d.event("member.joined", Subject::Node(join.node), None, message);
    Ok(Reply::Ok)
}

/// The token, if it is good for this join but for its uses. What is said of one whose secret was not shown does not tell whether
/// there is such a one.
fn allowed<'a>(d: &Draft<'a>, join: &Join) -> Result<&'a JoinTokenRecord, Rejection> {
    let token = d.state.join_tokens.get(&join.token);
    let Some(token) = token.filter(|token| token.hash == join.hash) else {
        return Err(Rejection::new(
            Reason::Unauthenticated,
            "there is no such join token, or it was revoked or has expired; make one with prismctl server join-token",
        ));
    };
    if token.expires <= d.now {
        return Err(Rejection::new(
            Reason::Unauthenticated,
            format!(
                "join token {} has expired; make another with prismctl server join-token",
                token.id
            ),
        ));
    }
    if token.role != join.role {
        return Err(forbidden(format!(
            "this join token is for a {}, and this is a {}",
            token.role, join.role
        )));
    }
    if let Some(name) = token.name.as_ref().filter(|name| **name != join.name) {
        return Err(forbidden(format!(
            "this join token is for node {name}, and this is {}",
            join.name
        )));
    }
    let near = token.from.iter().any(|range| range.contains(join.address));
    if !token.from.is_empty() && !near {
        return Err(forbidden(format!(
            "this join token is not for address {}",
            join.address
        )));
    }
    Ok(token)
}

/// Whether a member that joins again is what it was.
fn same_node(known: &MemberRecord, join: &Join) -> Result<(), Rejection> {
    if known.key != join.key {
        return Err(Rejection::new(
            Reason::Conflict,
            format!(
                "node {} is a member with another key; if this is a copy of its data directory, start with an empty one; if its key is lost, remove it with prismctl node rm first",
                join.node
            ),
        ));
    }
    if known.role != join.role {
        return Err(Rejection::new(
            Reason::Conflict,
            format!(
                "node {} is a {}; remove it with prismctl node rm before it becomes a {}",
                join.node, known.role, join.role
            ),
        ));
    }
    Ok(())
}

/// A member goes for good: nobody lets it in any more.
pub(super) fn leave(d: &mut Draft<'_>, id: NodeId) -> Result<Reply, Rejection> {
    let Some(member) = d.state.members.get(&id) else {
        let message = format!("there is no member {id}");
        return Err(Rejection::new(Reason::NotFound, message));
    };
    if member.role == MemberRole::Server {
        let server = d.state.servers.get(&id).filter(|s| !s.gone);
        if d.state.servers().count() < 2 {
            return Err(Rejection::new(
                Reason::Conflict,
                "this is the only server of its cluster; let another join before this one goes",
            ));
        }
        d.changes.extend(server.map(|server| {
            Change::Server(ServerRecord {
                gone: true,
                ..server.clone()
            })
        }));
    }
    let message = format!("{} {} removed", member.role, member.name);
    d.event("member.removed", Subject::Node(id), None, message);
    d.changes.push(Change::MemberRemoved(id));
    if member.role == MemberRole::Server {
        // What it has signed stays good: others hold that. Itself it is known to have gone.
        return Ok(Reply::Ok);
    }
    deny(d, Whom::Node(id), "it was removed from the cluster")
}

pub(super) fn deny(d: &mut Draft<'_>, whom: Whom, why: &str) -> Result<Reply, Rejection> {
    if why.is_empty() || why.len() > WHY_MAX {
        return Err(invalid(format!(
            "whoever is kept out is told why, in 1 to {WHY_MAX} bytes"
        )));
    }
    let known = d.state.denied.contains_key(&whom);
    if !known && d.state.denied.len() >= DENIED_MAX {
        return Err(Rejection::new(
            Reason::Overloaded,
            format!("{DENIED_MAX} are kept out already; rotate the root with prismctl ca rotate"),
        ));
    }
    if !known {
        let subject = match whom {
            Whom::Node(id) => Subject::Node(id),
            Whom::Certificate(_) => Subject::Cluster,
        };
        d.event(
            "member.denied",
            subject,
            None,
            format!("{whom} is kept out: {why}"),
        );
        d.changes.push(Change::Denied(DeniedRecord {
            whom,
            why: why.to_owned(),
            since: d.now,
        }));
    }
    Ok(Reply::Ok)
}

pub(super) fn allow(d: &mut Draft<'_>, whom: Whom) -> Result<Reply, Rejection> {
    if !d.state.denied.contains_key(&whom) {
        let message = format!("{whom} is not kept out");
        return Err(Rejection::new(Reason::NotFound, message));
    }
    let subject = match whom {
        Whom::Node(id) => Subject::Node(id),
        Whom::Certificate(_) => Subject::Cluster,
    };
    d.event(
        "member.allowed",
        subject,
        None,
        format!("{whom} may come again"),
    );
    d.changes.push(Change::DeniedRemoved(whom));
    Ok(Reply::Ok)
}
