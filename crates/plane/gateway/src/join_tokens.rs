//! `/join-tokens`: what lets machines become members.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use prism_api::{JoinTokenCreate, JoinTokenCreated, JoinTokenView, MemberRole};
use prism_identity::{JoinSecret, JoinToken, Pin};
use prism_state::{Command, JoinTokenRecord, Reply};
use prism_types::{IpRange, Reason, TimeMs, TokenId, parse_duration};

use crate::answer;
use crate::app::App;
use crate::ask::Ask;
use crate::list::{cursor, limit, page};
use crate::refuse::{Answered, Refusal};
use crate::submit::unexpected;

/// How long one is good unless said.
const HOUR: &str = "1h";

/// How machines join by this server.
#[derive(Clone, Debug)]
pub struct Joining {
    /// The root of the cluster.
    pub pin: Pin,
    /// Where members come to.
    pub address: String,
}

pub(crate) fn role(role: prism_state::MemberRole) -> MemberRole {
    match role {
        prism_state::MemberRole::Server => MemberRole::Server,
        prism_state::MemberRole::Worker => MemberRole::Worker,
    }
}

fn view(record: &JoinTokenRecord) -> JoinTokenView {
    JoinTokenView {
        id: record.id,
        role: role(record.role),
        uses: record.uses,
        name: record.name.clone(),
        labels: record.labels.clone(),
        from: record.from.iter().map(ToString::to_string).collect(),
        created: record.created,
        expires: record.expires,
    }
}

pub(crate) async fn create(app: &Arc<App>, ask: Ask) -> Answered<Response<Body>> {
    let body: JoinTokenCreate = ask.json()?;
    let Some(joining) = &app.config.joining else {
        return Err(Refusal::new(
            Reason::Unsupported,
            "no member can come to this server: it was started without --serf",
        ));
    };
    let length = parse_duration(body.expires_in.as_deref().unwrap_or(HOUR))
        .map_err(|why| Refusal::invalid(why).detail("field", "expires_in"))?;
    let from: Result<Vec<IpRange>, _> = body
        .from
        .iter()
        .flatten()
        .map(|text| text.parse())
        .collect();
    let from =
        from.map_err(|why| Refusal::invalid(format!("from: {why}")).detail("field", "from"))?;
    let internal = |why: prism_identity::IdentityError| {
        Refusal::new(Reason::Internal, format!("no token was made: {why}"))
    };
    let secret = JoinSecret::generate().map_err(internal)?;
    let (ms, entropy) = app.control.mint();
    let minted = TokenId::new(ms, entropy);
    let record = JoinTokenRecord {
        id: minted,
        hash: secret.hash(),
        role: match body.role {
            Some(MemberRole::Server) => prism_state::MemberRole::Server,
            Some(MemberRole::Worker) | None => prism_state::MemberRole::Worker,
        },
        name: body.name,
        labels: body.labels.unwrap_or_default(),
        from,
        uses: body.uses.unwrap_or(1),
        created: TimeMs(0),
        expires: app.control.now().after(length),
    };
    let (uses, expires) = (record.uses, record.expires);
    let joins_as = role(record.role);
    let command = Command::CreateJoinToken(record);
    let id = match app.propose(&ask, command).await? {
        Reply::TokenCreated { id } => id,
        other => return Err(unexpected(&other)),
    };
    let text = JoinToken {
        id,
        secret,
        pin: app.config.pin().unwrap_or(joining.pin),
    };
    let stored = |s: &prism_state::State| {
        let mut all = s.join_tokens();
        all.find(|t| t.id == id).map(|t| (t.uses, t.expires))
    };
    let (uses, expires) = app.control.read(stored).await.unwrap_or((uses, expires));
    answer::json(&JoinTokenCreated {
        id,
        // A repeated request is answered with the first token's id; its secret is gone.
        token: (id == minted).then(|| text.expose()),
        role: joins_as,
        address: joining.address.clone(),
        uses,
        expires,
    })
}

pub(crate) async fn list(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let limit = limit(ask)?;
    let after: Option<TokenId> = cursor(ask, "k")?;
    let items = app
        .control
        .read(|s| {
            s.join_tokens()
                .filter(|t| after.is_none_or(|id| t.id > id))
                .take(limit + 1)
                .map(view)
                .collect()
        })
        .await;
    let key = |t: &JoinTokenView| t.id.to_string();
    answer::json(&page(items, limit, "k", key))
}

pub(crate) async fn revoke(app: &Arc<App>, ask: Ask) -> Answered<Response<Body>> {
    let text = ask.param("id")?;
    let id: TokenId = text
        .parse()
        .map_err(|e| Refusal::not_found(format!("there is no join token {text:?}: {e}")))?;
    let command = Command::RevokeJoinToken { id };
    app.propose(&ask, command).await?;
    Ok(answer::nothing())
}
