//! `/ca`: who belongs to the cluster, and who is kept out.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use prism_api::{CaAllow, CaDeny, CaView, DeniedView, JoinedView, Op};
use prism_state::{Command, Whom};
use prism_types::NodeId;

use crate::app::App;
use crate::ask::Ask;
use crate::refuse::{Answered, Refusal};
use crate::{answer, certificates, join_tokens};

/// Most of those who are kept out that are named in one answer.
const NAMED: usize = 1_000;

pub(crate) fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Whom a request means: a node by its name or id, or a certificate by its fingerprint.
async fn whom(app: &App, node: Option<&str>, certificate: Option<&str>) -> Answered<Whom> {
    match (node, certificate) {
        (Some(text), None) => {
            let find = |s: &prism_state::State| -> Option<NodeId> {
                let member = s.members().find(|m| m.name.as_str() == text);
                text.parse().ok().or(member.map(|m| m.id))
            };
            let found = app.control.read(find).await;
            found.map(Whom::Node).ok_or_else(|| {
                Refusal::not_found(format!("there is no member {text:?}, and it is no id"))
            })
        }
        (None, Some(text)) => {
            let digits: String = text.chars().filter(|c| *c != ':').collect();
            fingerprint(&digits).map(Whom::Certificate).ok_or_else(|| {
                let what = "certificate is to be its SHA-256 in 64 hex digits";
                Refusal::invalid(what).detail("field", "certificate")
            })
        }
        _ => Err(Refusal::invalid("name either node or certificate")),
    }
}

fn fingerprint(digits: &str) -> Option<[u8; 32]> {
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

pub(crate) async fn get(app: &Arc<App>) -> Answered<Response<Body>> {
    let authority = app.config.authority.as_ref();
    let issuer = authority.and_then(|a| a.issuer());
    let api = authority.and_then(|a| a.api_pin());
    let view = app
        .control
        .read(|s| CaView {
            cluster: s.cluster().map(|id| id.to_string()).unwrap_or_default(),
            root: app.config.pin().map(|pin| hex(&pin.0)),
            issuer: issuer.clone(),
            api: api.map(|pin| hex(&pin.0)),
            address: app
                .config
                .joining
                .as_ref()
                .map(|joining| joining.address.to_string()),
            rotation: s.rotation().map(|r| certificates::rotation(s, r)),
            members: s
                .members()
                .map(|m| JoinedView {
                    id: m.id,
                    name: m.name.clone(),
                    role: join_tokens::role(m.role),
                    joined: m.joined,
                })
                .collect(),
            denied: s
                .denied()
                .take(NAMED)
                .map(|d| DeniedView {
                    node: match d.whom {
                        Whom::Node(id) => Some(id),
                        Whom::Certificate(_) => None,
                    },
                    certificate: match d.whom {
                        Whom::Node(_) => None,
                        Whom::Certificate(sha) => Some(hex(&sha)),
                    },
                    why: d.why.clone(),
                    since: d.since,
                })
                .collect(),
        })
        .await;
    answer::json(&view)
}

/// Changes something of it.
pub(crate) async fn act(app: &Arc<App>, ask: Ask) -> Answered<Response<Body>> {
    match ask.route.op {
        Op::CaDeny => deny(app, ask).await,
        Op::CaAllow => allow(app, ask).await,
        Op::CaIssue => certificates::issue(app, ask).await,
        _ => certificates::rotate(app, ask).await,
    }
}

async fn deny(app: &Arc<App>, ask: Ask) -> Answered<Response<Body>> {
    let body: CaDeny = ask.json()?;
    let whom = whom(app, body.node.as_deref(), body.certificate.as_deref()).await?;
    let why = body.why;
    let command = Command::Deny { whom, why };
    app.propose(&ask, command).await?;
    get(app).await
}

async fn allow(app: &Arc<App>, ask: Ask) -> Answered<Response<Body>> {
    let body: CaAllow = ask.json()?;
    let whom = whom(app, body.node.as_deref(), body.certificate.as_deref()).await?;
    app.propose(&ask, Command::Allow { whom }).await?;
    get(app).await
}
