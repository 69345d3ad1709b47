//! Tokens: stored by the digest of their secret, and forgotten.

use prism_types::{Reason, Rejection, TimeMs, TokenId};

use super::draft::Draft;
use crate::{Change, Reply, Role, Subject, TokenRecord};

/// Most tokens.
const TOKENS_MAX: usize = 10_000;

pub(super) fn create(
    d: &mut Draft<'_>,
    id: TokenId,
    name: &str,
    role: Role,
    hash: [u8; 32],
    expires: Option<TimeMs>,
) -> Result<Reply, Rejection> {
    if !(1..=100).contains(&name.chars().count()) {
        return Err(Rejection::new(
            Reason::Invalid,
            "a token's name has 1 to 100 characters",
        ));
    }
    let taken = d.state.tokens.contains_key(&id);
    if taken || d.state.index.token_by_hash.contains_key(&hash) {
        return Err(Rejection::new(
            Reason::Conflict,
            "there is such a token already",
        ));
    }
    if d.state.tokens.len() >= TOKENS_MAX {
        return Err(Rejection::new(
            Reason::Overloaded,
            format!("there are {TOKENS_MAX} tokens; revoke some first"),
        ));
    }
    d.changes.push(Change::Token(TokenRecord {
        id,
        name: name.to_owned(),
        role,
        hash,
        created: d.now,
        expires,
    }));
    let message = format!("token {name:?} made");
    d.event("token.created", Subject::Token(id), None, message);
    Ok(Reply::TokenCreated { id })
}

pub(super) fn revoke(d: &mut Draft<'_>, id: TokenId) -> Result<Reply, Rejection> {
    let Some(token) = d.state.tokens.get(&id) else {
        let message = format!("there is no token {id}");
        return Err(Rejection::new(Reason::NotFound, message));
    };
    let message = format!("token {:?} revoked", token.name);
    d.event("token.revoked", Subject::Token(id), None, message);
    d.changes.push(Change::TokenRemoved(id));
    Ok(Reply::Ok)
}
