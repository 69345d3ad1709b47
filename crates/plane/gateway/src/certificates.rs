//! `/ca/certificates` and `/ca/rotate`: certificates for those who use the API, and the change of the root.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use prism_api::{CaIssue, CaIssued, CaRotate, RotationView};
use prism_identity::{Pin, pem_of, pins_in, request_in, requested};
use prism_state::{Command, Reply, RootRecord, RotationRecord, State};
use prism_store::BoxFuture;
use prism_types::{Millis, Reason, Rejection, Scope, TokenId, parse_duration};

use crate::app::App;
use crate::ask::Ask;
use crate::ca::hex;
use crate::refuse::{Answered, Refusal};
use crate::submit::unexpected;
use crate::tokens::{check_name, limit_of};
use crate::{answer, auth, ca};

/// Longest life of a client's certificate.
const LIFE_MAX: Millis = Millis(90 * 24 * 3_600_000);

/// A server's part of the cluster's authority.
pub trait Authority: Debug + Send + Sync {
    /// The roots that are trusted now (DER), the newest first.
    fn roots(&self) -> Vec<Vec<u8>>;

    /// The root that this server signs beneath (DER).
    ///
    /// # Errors
    /// When it has none.
    fn root(&self) -> Result<Vec<u8>, Rejection>;

    /// A certificate for a client of the API, which stands for the token of this id, for the key of a request (PKCS #10, DER); good until
    /// then (Unix seconds). Its chain, DER.
    ///
    /// # Errors
    /// When the request is damaged, or this server signs nothing.
    fn sign_client(
        &self,
        request: &[u8],
        id: TokenId,
        until: i64,
    ) -> Result<Vec<Vec<u8>>, Rejection>;

    /// Makes a root that is to take the place of the one there is, and keeps its key; or has it from who signs. Its certificate, DER.
    ///
    /// # Errors
    /// When it cannot be kept, or there is none.
    fn next_root(&self) -> BoxFuture<'_, Result<Vec<u8>, Rejection>>;

    /// What signs for members, for people, if the cluster has no authority of its own.
    fn issuer(&self) -> Option<String>;

    /// What clients of this server pin when that is not the root.
    fn api_pin(&self) -> Option<Pin>;

    /// Whether the change of the root may be ended by hand.
    ///
    /// # Errors
    /// Why not.
    fn may_finish(&self) -> Result<(), Rejection>;

    /// Who was refused at the listener for members since the start, by a word for why.
    fn refused(&self) -> BTreeMap<&'static str, u64>;
}

fn authority(app: &App) -> Answered<Arc<dyn Authority>> {
    app.config.authority.clone().ok_or_else(|| {
        Refusal::new(
            Reason::Unsupported,
            "this server has no authority yet: start it with --serf, or with an API off loopback",
        )
    })
}

pub(crate) async fn issue(app: &Arc<App>, ask: Ask) -> Answered<Response<Body>> {
    let body: CaIssue = ask.json()?;
    check_name(&body.name)?;
    let authority = authority(app)?;
    let scope = Scope {
        namespaces: limit_of("namespaces", body.namespaces.as_ref())?,
        nouns: limit_of("resources", body.resources.as_ref())?,
        verbs: limit_of("verbs", body.verbs.as_ref())?,
    };
    let length = parse_duration(&body.expires_in)
        .map_err(|why| Refusal::invalid(why).detail("field", "expires_in"))?;
    if length.0 < 1_000 || length.0 > LIFE_MAX.0 {
        let what = "a certificate is good for a second up to 90 days";
        return Err(Refusal::invalid(what).detail("field", "expires_in"));
    }
    let expires = app.control.now().after(length);
    let wrong = |why: prism_identity::IdentityError| {
        Refusal::invalid(why.to_string()).detail("field", "request")
    };
    let request = request_in(body.request.as_bytes()).map_err(wrong)?;
    let key = requested(&request).map_err(wrong)?;
    let (ms, entropy) = app.control.mint();
    let minted = TokenId::new(ms, entropy);
    let until = i64::try_from(expires.0 / 1000).unwrap_or(i64::MAX);
    // Before the token is there: a certificate that stands for none is of no use, and a token without one cannot be used either.
    let mut chain = authority.sign_client(&request, minted, until)?;
    let command = Command::CreateToken {
        id: minted,
        name: body.name.clone(),
        role: auth::state_role(body.role),
        scope: Box::new(scope),
        by: ask.caller.as_ref().map(|caller| caller.token),
        hash: key.0,
        expires: Some(expires),
    };
    let id = match app.propose(&ask, command).await? {
        Reply::TokenCreated { id } => id,
        other => return Err(unexpected(&other)),
    };
    if id != minted {
        // A repeated request, for the same key.
        chain = authority.sign_client(&request, id, until)?;
    }
    let stored = app
        .control
        .read(|s| s.token(id).and_then(|t| t.expires))
        .await;
    answer::json(&CaIssued {
        id,
        certificate: pem_of(&chain),
        authority: pem_of(&authority.roots()),
        name: body.name,
        role: body.role,
        expires: stored.unwrap_or(expires),
    })
}

/// How far a change of the root is.
pub(crate) fn rotation(state: &State, rotation: &RotationRecord) -> RotationView {
    RotationView {
        root: hex(&rotation.new.pin),
        old_root: hex(&rotation.old.pin),
        started: rotation.started,
        latest: rotation.latest(),
        ended: rotation.ended,
        moved: u32::try_from(rotation.moved.len()).unwrap_or(u32::MAX),
        waiting: state.names_waiting(),
    }
}

fn record(certificate: Vec<u8>) -> Answered<Box<RootRecord>> {
    let pins = pins_in(std::slice::from_ref(&certificate));
    let pin = pins.ok().and_then(|pins| pins.into_iter().next());
    let pin = pin.ok_or_else(|| Refusal::new(Reason::Internal, "a root is no certificate"))?;
    Ok(Box::new(RootRecord {
        certificate,
        pin: pin.0,
    }))
}

pub(crate) async fn rotate(app: &Arc<App>, ask: Ask) -> Answered<Response<Body>> {
    let body = match ask.body.is_empty() {
        true => CaRotate {
            finish: None,
            again: None,
        },
        false => ask.json()?,
    };
    let (finish, again) = (body.finish == Some(true), body.again == Some(true));
    if finish && again {
        return Err(Refusal::invalid("finish and again exclude each other"));
    }
    if finish {
        if let Some(authority) = &app.config.authority {
            authority.may_finish()?;
        }
        let end = Command::EndRotation { force: true };
        app.propose(&ask, end).await?;
        return ca::get(app).await;
    }
    let under_way = app.control.read(|s| s.rotating().is_some()).await;
    if under_way && !again {
        return Err(Refusal::new(
            Reason::Conflict,
            "the root is being changed already; nothing was changed: see how far it is with prismctl ca status",
        ));
    }
    if !app.control.read(|s| s.members().next().is_some()).await {
        return Err(Refusal::new(
            Reason::Unsupported,
            "no member can come to this server: it was started without --serf",
        ));
    }
    let authority = authority(app)?;
    let (old, new) = (authority.root()?, authority.next_root().await?);
    let begin = Command::Rotate {
        old: record(old)?,
        new: record(new)?,
        again,
    };
    app.propose(&ask, begin).await?;
    ca::get(app).await
}
