//! Tokens: `pt_<id>_<secret><check>`, of which only the SHA-256 of the secret is kept, compared in constant time.
//!
//! The check is the begin of the SHA-256 of all before it, so that a cut or mistyped copy is told from a wrong one, and a scanner
//! from chance. Older texts have none. Who may what comes from the table of routes; nothing else lets anyone in.

use std::sync::Arc;

use prism_api::{Denied, Role, Route};
use prism_control::Control;
use prism_state::TokenRecord;
use prism_types::{Reason, Scope, TimeMs, TokenId};
use sha2::{Digest, Sha256};

use crate::client::Client;
use crate::refuse::{Answered, Refusal};

/// Hexadecimal digits of a secret: 256 bits.
const SECRET_DIGITS: usize = 64;
/// Hexadecimal digits of the check: 32 bits.
const CHECK_DIGITS: usize = 8;

/// A token that was just made: its text for the user, and the hash for the state.
#[derive(Clone)]
pub struct NewToken {
    /// `pt_<id>_<secret><check>`; show it once, keep it nowhere.
    pub text: String,
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
}

impl std::fmt::Debug for NewToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewToken")
    }
}

/// Makes a token of an id and 256 random bits.
pub fn new_token(id: TokenId, secret: [u8; 32]) -> NewToken {
    let digits: String = secret.iter().map(|b| format!("{b:02x}")).collect();
    let hash = Sha256::digest(digits.as_bytes()).into();
    NewToken {
        text: format!("pt_{id}_{digits}{}", check_of(&id.to_string(), &digits)),
        hash,
    }
}

fn check_of(id: &str, digits: &str) -> String {
    let all: [u8; 32] = Sha256::digest(format!("pt_{id}_{digits}")).into();
    let some = &all[..CHECK_DIGITS / 2];
    some.iter().map(|b| format!("{b:02x}")).collect()
}

/// The id and the hash of a token's text, or `None` if it is no token.
pub fn read_token(text: &str) -> Option<(TokenId, [u8; 32])> {
    let (id_text, digits) = text.strip_prefix("pt_")?.split_once('_')?;
    let id = id_text.parse().ok()?;
    let (secret, check) = digits.split_at_checked(SECRET_DIGITS)?;
    let whole = check.is_empty() || check == check_of(id_text, secret);
    let well_formed = whole
        && secret
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    well_formed.then(|| (id, Sha256::digest(secret.as_bytes()).into()))
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) token: TokenId,
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) scope: Arc<Scope>,
    pub(crate) expires: Option<TimeMs>,
    /// The certificate that was shown instead of the token, if it was.
    pub(crate) client: Option<Arc<Client>>,
}

/// Checks the `Authorization` header for a route, or without one the certificate that the connection has shown.
pub(crate) async fn check(
    control: &Control,
    (headers, client): (&[&[u8]], Option<&Client>),
    route: &Route,
    hint: &str,
) -> Answered<Caller> {
    let now = control.now();
    if let (Some(client), []) = (client, headers) {
        let record = control.read(|state| client.record(state)).await;
        let record = record.ok_or_else(|| {
            unauthenticated(
                "the certificate stands for no token that is known here, or was revoked or denied; get a new one with `prismctl ca issue`",
            )
        })?;
        let caller = allowed(&record, route, now)?;
        return Ok(Caller {
            client: Some(Arc::new(client.clone())),
            ..caller
        });
    }
    // Two headers may be read differently by two programs on the way: then neither counts.
    let presented = match headers {
        [one] => bearer(one).and_then(read_token),
        _ => None,
    };
    let (any, record) = control
        .read(|state| {
            let any = state.tokens().any(|t| t.expires.is_none_or(|at| at > now));
            let record = presented.and_then(|(id, _)| state.token(id).cloned());
            (any, record)
        })
        .await;
    if !any {
        return Err(Refusal::new(
            Reason::Unauthenticated,
            format!("no token is configured on this server, so every request is refused; {hint}"),
        )
        .with_status(503));
    }
    let Some((_, hash)) = presented else {
        return Err(unauthenticated(if !headers.is_empty() {
            "the authorization header is not one `Bearer pt_<id>_<secret>`; get a token with `prismctl token create`"
        } else {
            "this needs a token: send `Authorization: Bearer pt_<id>_<secret>`, or show a client certificate"
        }));
    };
    // The comparison runs for an unknown id as well, so that time tells nothing about which ids exist.
    let stored = record.as_ref().map_or([0; 32], |r| r.hash);
    match record {
        Some(record) if same(&stored, &hash) => allowed(&record, route, now),
        _ => Err(unauthenticated(
            "the token is not known here, or was revoked; get a new one with `prismctl token create`",
        )),
    }
}

fn allowed(record: &TokenRecord, route: &Route, now: TimeMs) -> Answered<Caller> {
    if record.expires.is_some_and(|at| at <= now) {
        return Err(unauthenticated(
            "the token has expired; get a new one with `prismctl token create`",
        ));
    }
    let role = wire_role(record.role);
    match route.admits(role, &record.scope) {
        Ok(()) => Ok(Caller {
            token: record.id,
            name: record.name.clone(),
            role,
            scope: Arc::new(record.scope.clone()),
            expires: record.expires,
            client: None,
        }),
        Err(why) => Err(forbidden(record, route, role, why)),
    }
}

fn forbidden(record: &TokenRecord, route: &Route, role: Role, why: Denied) -> Refusal {
    let name = &record.name;
    let message = match why {
        Denied::Role(needed) => format!("the token {name:?} is a {role}'s; this needs {needed}"),
        Denied::Scope => format!(
            "the token {name:?} is not for this: it needs {} of {}",
            route.verb, route.noun
        ),
        Denied::Namespaces => {
            format!("the token {name:?} is for some namespaces; this is about the whole cluster")
        }
    };
    let refusal = Refusal::new(Reason::Forbidden, message).detail("role", role.as_str());
    match why {
        Denied::Role(needed) => refusal.detail("needed", needed.as_str()),
        Denied::Scope => refusal
            .detail("resource", route.noun.as_str())
            .detail("verb", route.verb.as_str()),
        Denied::Namespaces => refusal,
    }
}

/// Whether a token that was good before is so still: neither revoked nor expired, nor the certificate that was shown denied.
pub(crate) async fn is_good(control: &Control, caller: &Caller) -> bool {
    let (now, token) = (control.now(), caller.token);
    if let Some(client) = &caller.client
        && client.denied(control).await
    {
        return false;
    }
    let record = |s: &prism_state::State| {
        s.token(token)
            .is_some_and(|t| t.expires.is_none_or(|at| at > now))
    };
    control.read(record).await
}

fn unauthenticated(message: &str) -> Refusal {
    Refusal::new(Reason::Unauthenticated, message)
}

fn bearer(header: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(header).ok()?;
    let (scheme, token) = text.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_matches(' '))
}

/// Whether two hashes are the same, in a time that does not depend on where they differ.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    let difference = a.iter().zip(b).fold(0u8, |all, (x, y)| all | (x ^ y));
    std::hint::black_box(difference) == 0
}

pub(crate) fn wire_role(role: prism_state::Role) -> Role {
    match role {
        prism_state::Role::Viewer => Role::Viewer,
        prism_state::Role::Submitter => Role::Submitter,
        prism_state::Role::Operator => Role::Operator,
        prism_state::Role::Admin => Role::Admin,
    }
}

pub(crate) fn state_role(role: Role) -> prism_state::Role {
    match role {
        Role::Viewer => prism_state::Role::Viewer,
        Role::Submitter => prism_state::Role::Submitter,
        Role::Operator => prism_state::Role::Operator,
        Role::Admin => prism_state::Role::Admin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_nothing_else_does() {
        let id = TokenId::new(1_700_000_000_000, 9);
        let token = new_token(id, [7; 32]);
        assert_eq!(read_token(&token.text), Some((id, token.hash)));
        // As texts were before they had a check.
        let old = &token.text[..token.text.len() - CHECK_DIGITS];
        assert_eq!(read_token(old), Some((id, token.hash)));
        let upper = token.text.to_uppercase();
        let mut mistyped = token.text.clone();
        mistyped.replace_range(40..41, "f");
        assert_eq!(read_token(&mistyped), None);
        assert_eq!(read_token(&token.text[..token.text.len() - 1]), None);
        for bad in ["", "pt_", "pt__", &token.text[..80], &upper, "Bearer x"] {
            assert_eq!(read_token(bad), None, "{bad}");
        }
    }
}
