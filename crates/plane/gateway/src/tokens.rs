//! `/tokens`.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use prism_api::{TokenCreate, TokenCreated, TokenView};
use prism_state::{Command, Reply, State, TokenRecord};
use prism_types::{Reason, Scope, TokenId, parse_duration};

use crate::app::App;
use crate::ask::Ask;
use crate::list::{cursor, limit, page};
use crate::refuse::{Answered, Refusal};
use crate::submit::unexpected;
use crate::{answer, auth};

/// Longest name, characters.
const NAME_MAX: usize = 100;
/// Most namespaces of one token.
const LISTED_MAX: usize = 64;

fn view(record: &TokenRecord) -> TokenView {
    TokenView {
        id: record.id,
        name: record.name.clone(),
        role: auth::wire_role(record.role),
        namespaces: listed(record.scope.namespaces.as_ref()),
        resources: listed(record.scope.nouns.as_ref()),
        verbs: listed(record.scope.verbs.as_ref()),
        created: record.created,
        expires: record.expires,
    }
}

fn listed<T: Clone>(some: Option<&BTreeSet<T>>) -> Option<Vec<T>> {
    some.map(|some| some.iter().cloned().collect())
}

/// A part of a scope as it was asked for. None at all would be a token for nothing.
pub(crate) fn limit_of<T: Ord + Clone>(
    field: &str,
    some: Option<&Vec<T>>,
) -> Answered<Option<BTreeSet<T>>> {
    let some: Option<BTreeSet<T>> = some.map(|some| some.iter().cloned().collect());
    if some
        .as_ref()
        .is_some_and(|s| s.is_empty() || s.len() > LISTED_MAX)
    {
        return Err(Refusal::invalid(format!(
            "{field} is to name 1 to {LISTED_MAX}; leave it out for no limit"
        ))
        .detail("field", field));
    }
    Ok(some)
}

fn scope_of(body: &TokenCreate) -> Answered<Scope> {
    Ok(Scope {
        namespaces: limit_of("namespaces", body.namespaces.as_ref())?,
        nouns: limit_of("resources", body.resources.as_ref())?,
        verbs: limit_of("verbs", body.verbs.as_ref())?,
    })
}

/// Whether a token is there for whoever asks: one that they could have made.
fn there(ask: &Ask, record: &TokenRecord) -> bool {
    let caller = ask.caller.as_ref();
    caller.is_none_or(|caller| caller.scope.covers(&record.scope))
}

/// Refuses what is no name of a token.
pub(crate) fn check_name(name: &str) -> Answered<()> {
    let fits = (1..=NAME_MAX).contains(&name.chars().count());
    if !fits || name.chars().any(char::is_control) {
        return Err(Refusal::invalid(format!(
            "name is to be 1 to {NAME_MAX} characters without control characters"
        ))
        .detail("field", "name"));
    }
    Ok(())
}

pub(crate) async fn create(app: &Arc<App>, ask: Ask) -> Answered<Response<Body>> {
    let body: TokenCreate = ask.json()?;
    check_name(&body.name)?;
    let scope = scope_of(&body)?;
    let length = body.expires_in.as_deref().map(parse_duration).transpose();
    let length = length.map_err(|why| Refusal::invalid(why).detail("field", "expires_in"))?;
    if length.is_some_and(|length| length.0 == 0) {
        return Err(Refusal::invalid(
            "expires_in is no time at all: the token would never be good",
        )
        .detail("field", "expires_in"));
    }
    let expires = length.map(|length| app.control.now().after(length));
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|e| {
        Refusal::new(
            Reason::Internal,
            format!("the system gives no random numbers: {e}"),
        )
    })?;
    let (ms, entropy) = app.control.mint();
    let minted = TokenId::new(ms, entropy);
    let token = auth::new_token(minted, secret);
    let command = Command::CreateToken {
        id: minted,
        name: body.name.clone(),
        role: auth::state_role(body.role),
        scope: Box::new(scope),
        by: ask.caller.as_ref().map(|caller| caller.token),
        hash: token.hash,
        expires,
    };
    let id = match app.propose(&ask, command).await? {
        Reply::TokenCreated { id } => id,
        other => return Err(unexpected(&other)),
    };
    let stored = app.control.read(|s| s.token(id).map(|t| t.expires)).await;
    answer::json(&TokenCreated {
        id,
        // A repeated request is answered with the first token's id; its secret is gone.
        token: (id == minted).then_some(token.text),
        name: body.name,
        role: body.role,
        namespaces: body.namespaces,
        resources: body.resources,
        verbs: body.verbs,
        expires: stored.unwrap_or(expires),
    })
}

pub(crate) async fn list(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let limit = limit(ask)?;
    let after: Option<TokenId> = cursor(ask, "k")?;
    let items = app
        .control
        .read(|s| {
            s.tokens()
                .filter(|t| after.is_none_or(|id| t.id > id) && there(ask, t))
                .take(limit + 1)
                .map(view)
                .collect()
        })
        .await;
    answer::json(&page(items, limit, "k", |t: &TokenView| t.id.to_string()))
}

pub(crate) async fn revoke(app: &Arc<App>, ask: Ask) -> Answered<Response<Body>> {
    let text = ask.param("id")?;
    let id: TokenId = text
        .parse()
        .map_err(|e| Refusal::not_found(format!("there is no token {text:?}: {e}")))?;
    let hidden = |s: &State| s.token(id).is_some_and(|t| !there(&ask, t));
    if app.control.read(hidden).await {
        return Err(Refusal::not_found(format!("there is no token {id}")));
    }
    app.propose(&ask, Command::RevokeToken { id }).await?;
    Ok(answer::nothing())
}
