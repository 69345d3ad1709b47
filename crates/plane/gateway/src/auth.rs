//! Tokens: `pt_<id>_<secret>`, of which only the SHA-256 of the secret is kept, compared in constant time.
//!
//! Roles come from the table of routes; there is no other place that lets anyone in.

use prism_api::Role;
use prism_control::Control;
use prism_state::TokenRecord;
use prism_types::{Reason, TokenId};
use sha2::{Digest, Sha256};

use crate::refuse::{Answered, Refusal};

/// Hexadecimal digits of a secret: 256 bits.
const SECRET_DIGITS: usize = 64;

/// A token that was just made: its text for the user, and the hash for the state.
#[derive(Clone)]
pub struct NewToken {
    /// `pt_<id>_<secret>`; show it once, keep it nowhere.
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
        text: format!("pt_{id}_{digits}"),
        hash,
    }
}

/// The id and the hash of a token's text, or `None` if it is no token.
pub fn read_token(text: &str) -> Option<(TokenId, [u8; 32])> {
    let (id, secret) = text.strip_prefix("pt_")?.split_once('_')?;
    let id = id.parse().ok()?;
    let well_formed = secret.len() == SECRET_DIGITS
        && secret
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    well_formed.then(|| (id, Sha256::digest(secret.as_bytes()).into()))
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) token: TokenId,
    pub(crate) role: Role,
}

/// Checks the `Authorization` header for a route that needs `needed`.
pub(crate) async fn check(
    control: &Control,
    headers: &[&[u8]],
    needed: Role,
    hint: &str,
) -> Answered<Caller> {
    let now = control.now();
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
            "this needs a token: send `Authorization: Bearer pt_<id>_<secret>`"
        }));
    };
    // The comparison runs for an unknown id as well, so that time tells nothing about which ids exist.
    let stored = record.as_ref().map_or([0; 32], |r| r.hash);
    match record {
        Some(record) if same(&stored, &hash) => allowed(&record, needed, now),
        _ => Err(unauthenticated(
            "the token is not known here, or was revoked; get a new one with `prismctl token create`",
        )),
    }
}

fn allowed(record: &TokenRecord, needed: Role, now: prism_types::TimeMs) -> Answered<Caller> {
    if record.expires.is_some_and(|at| at <= now) {
        return Err(unauthenticated(
            "the token has expired; get a new one with `prismctl token create`",
        ));
    }
    let role = wire_role(record.role);
    if !role.satisfies(needed) {
        return Err(Refusal::new(
            Reason::Forbidden,
            format!(
                "the token {:?} is a {role}'s; this needs {needed}",
                record.name
            ),
        )
        .detail("role", role.as_str())
        .detail("needed", needed.as_str()));
    }
    Ok(Caller {
        token: record.id,
        role,
    })
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
        let upper = token.text.to_uppercase();
        for bad in ["", "pt_", "pt__", &token.text[..80], &upper, "Bearer x"] {
            assert_eq!(read_token(bad), None, "{bad}");
        }
    }
}
