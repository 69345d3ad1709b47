//! Tokens: stored by the digest of their secret, and forgotten.

use prism_types::{Reason, Rejection, TokenId};

use super::draft::Draft;
use crate::{Change, Reply, Role, Sight, Subject, TokenRecord};

/// Most tokens.
const TOKENS_MAX: usize = 10_000;

pub(super) fn create(
    d: &mut Draft<'_>,
    new: TokenRecord,
    by: Option<TokenId>,
) -> Result<Reply, Rejection> {
    if !(1..=100).contains(&new.name.chars().count()) {
        return Err(Rejection::new(
            Reason::Invalid,
            "a token's name has 1 to 100 characters",
        ));
    }
    if let Some(by) = by {
        may_make(d, by, &new)?;
    }
    for name in new.scope.namespaces.iter().flatten() {
        d.state
            .find_namespace(name.as_str(), &Sight::everything())?;
    }
    let taken = d.state.tokens.contains_key(&new.id);
    if taken || d.state.index.token_by_hash.contains_key(&new.hash) {
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
    let id = new.id;
    let message = format!("token {:?} made", new.name);
    d.changes.push(Change::Token(new));
    d.event("token.created", Subject::Token(id), None, message);
    Ok(Reply::TokenCreated { id })
}

/// Whether the holder of a token may make another: an administrator, as far as their own token goes and no further.
fn may_make(d: &Draft<'_>, by: TokenId, new: &TokenRecord) -> Result<(), Rejection> {
    let maker = d.state.tokens.get(&by);
    let maker = maker.filter(|m| m.role == Role::Admin && m.expires.is_none_or(|at| at > d.now));
    let Some(maker) = maker else {
        return Err(Rejection::new(
            Reason::Forbidden,
            "only an administrator's token that is good makes others",
        ));
    };
    if !maker.scope.covers(&new.scope) {
        return Err(Rejection::new(
            Reason::Forbidden,
            "the token would be for more than the one that makes it; name namespaces, resources and verbs that are within yours",
        ));
    }
    let outlives = maker
        .expires
        .is_some_and(|end| new.expires.is_none_or(|at| at > end));
    if outlives {
        return Err(Rejection::new(
            Reason::Forbidden,
            "the token would outlive the one that makes it; let it expire earlier",
        ));
    }
    Ok(())
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
