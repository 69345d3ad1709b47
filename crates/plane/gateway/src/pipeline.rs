//! The way of every request: id, route, role, query, body, key, handler, answer. One place, in this order, for all routes.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use axum::http::header::{
    ACCEPT, ALLOW, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HeaderName, RETRY_AFTER,
};
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, request};
use bytes::Bytes;
use futures::FutureExt;
use http_body_util::BodyExt;
use prism_api::{Access, Op, Payload, ROUTES, Route};
use prism_types::{Id, Millis, Name, Outcome, Reason, nearest};

use crate::app::{App, Entry, dispatch};
use crate::ask::Ask;
use crate::client::Client;
use crate::config::DiskRoom;
use crate::desk::{Desk, Place};
use crate::forward::{Again, Lost};
use crate::query::Query;
use crate::refuse::{Answered, Refusal};
use crate::room::Taken;
use crate::server::Peer;
use crate::{answer, auth, connections, desk, forward, health, idempotency, watch};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Where the connection of a request came from that is handed on.
const X_FROM: HeaderName = HeaderName::from_static("x-prism-from");
/// The client certificate that its connection has shown.
const X_CLIENT: HeaderName = HeaderName::from_static("x-prism-client");
/// When to try again on a full disk.
const DISK_AGAIN: Millis = Millis(5_000);
/// How long it is tried to hand a request on, and the pause between two attempts.
const HAND_ON: Duration = Duration::from_secs(5);
const HAND_ON_PAUSE: Duration = Duration::from_millis(50);
/// Longest request id that is taken over from a client.
const REQUEST_ID_MAX: usize = 128;
/// A body up to this many bytes is a small one.
const BODY_SMALL: usize = 64 << 10;
/// An answer up to this many bytes is sent without asking for room; each connection sends one at a time.
const ANSWER_SMALL: u64 = 16 << 10;

/// Names in the path, or why they cannot be read.
type Params = Result<Vec<(String, String)>, String>;

/// Serves a request; `route` is `None` when no row of the table matches.
pub(crate) async fn run(
    entry: Entry,
    route: Option<&'static Route>,
    params: Params,
    mut request: Request<Body>,
) -> Response<Body> {
    let began = Instant::now();
    let request_id = request_id(request.headers());
    let method = request.method().clone();
    // Another server says who asked it; nobody else is believed.
    let told = request.headers().get(X_FROM).filter(|_| entry.handed_on);
    let told = told.and_then(|v| Some(v.to_str().ok()?.to_owned()));
    let from = told.unwrap_or_else(|| Peer::of(&request));
    let shown = request.headers().get(X_CLIENT).filter(|_| entry.handed_on);
    let shown: Option<Client> = shown.and_then(|v| v.to_str().ok()?.parse().ok());
    if let Some(client) = shown {
        request.extensions_mut().insert(Arc::new(client));
    }
    let served = placed(&entry, route, params, request, (&request_id, &from));
    let served = AssertUnwindSafe(served).catch_unwind();
    let served = served.await.unwrap_or_else(|_| {
        Err(Refusal::new(
            Reason::Internal,
            "a defect in the server ended this request; nothing more is known of it, look for its id in the server's log",
        ))
    });
    let mut response = match served {
        Ok(mut response) => {
            if let Some(route) = route
                && response.status() == StatusCode::OK
                && let Ok(status) = StatusCode::from_u16(route.success)
            {
                *response.status_mut() = status;
            }
            response
        }
        Err(refusal) => {
            if matches!(
                refusal.rejection.reason,
                Reason::Unauthenticated | Reason::Forbidden
            ) {
                // Counted and logged, never stored: a flood of them must not grow the store.
                let reason = refusal.rejection.reason;
                entry.desk.common.metrics.denied(route, reason.as_str());
                let why = &refusal.rejection.message;
                let name = route.map_or("unknown", |r| r.op.name());
                tracing::info!(%request_id, route = name, from, %why, "denied");
            }
            refused(&refusal, &request_id)
        }
    };
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    let took = began.elapsed();
    let status = response.status().as_u16();
    let name = route.map_or("unknown", |r| r.op.name());
    entry.desk.common.metrics.observe(route, status, took);
    if status >= 500 {
        tracing::warn!(%request_id, %method, route = name, status, ?took, "request failed");
    } else {
        tracing::debug!(%request_id, %method, route = name, status, ?took, "request");
    }
    response
}

/// Answers it here, or hands it on to the server that leads.
async fn placed(
    entry: &Entry,
    route: Option<&'static Route>,
    params: Params,
    request: Request<Body>,
    whence: (&str, &str),
) -> Answered<Response<Body>> {
    let desk = &entry.desk;
    let own = matches!(
        route.map(|r| r.op),
        Some(Op::Health | Op::Metrics | Op::OpenApi | Op::OpenApiVersioned)
    );
    if !desk.leads() && route.is_some() {
        if route.is_some_and(|r| r.op == Op::Health) {
            return health::following(desk, &request);
        }
        if own {
            return serve(&desk.known().await?, route, params, request, whence).await;
        }
        if desk::content(&request) {
            let request = desk::without_stale(request);
            let answer = serve(&desk.known().await?, route, params, request, whence).await?;
            return Ok(desk.marked(answer).await);
        }
    }
    if route.is_none() {
        let (parts, _) = request.into_parts();
        return Err(unknown(&parts));
    }
    match desk.place().await? {
        Place::Here(app) => {
            let request = desk::without_stale(request);
            let answer = serve(&app, route, params, request, whence).await;
            // What another leader has changed meanwhile is not in it.
            let told = match &answer {
                Ok(_) => route.is_some_and(|r| !r.changes()),
                Err(refusal) => refusal.rejection.outcome == Outcome::NotApplied,
            };
            if told
                && !own
                && let Err(lost) = app.control.confirm().await
            {
                // What the store itself refused is the reason why this one leads no more.
                let kept_elsewhere = desk.common.config.store.is_some();
                return match answer {
                    Err(refusal) if kept_elsewhere && refusal.is_of_the_store() => Err(refusal),
                    _ => Err(lost.into()),
                };
            }
            answer
        }
        Place::There(_) if entry.handed_on => Err(desk.nobody()),
        Place::There(leader) => hand_on(desk, leader, request, whence).await,
    }
}

/// Hands a request on to the leader; if it was not sent, and can be sent again, to whoever leads next.
async fn hand_on(
    desk: &Desk,
    leader: String,
    mut request: Request<Body>,
    whence: (&str, &str),
) -> Answered<Response<Body>> {
    for (name, text) in [(X_REQUEST_ID, whence.0), (X_FROM, whence.1)] {
        if let Ok(value) = HeaderValue::from_str(text) {
            request.headers_mut().insert(name, value);
        }
    }
    // From outside nobody says by a header who they are.
    request.headers_mut().remove(X_CLIENT);
    if let Some(client) = Client::of(&request)
        && let Ok(value) = HeaderValue::from_str(&client.to_string())
    {
        request.headers_mut().insert(X_CLIENT, value);
    }
    let (mut request, mut again) = match Again::hold(request).await {
        Ok(again) => (again.request(), Some(Box::new(again))),
        Err(request) => (*request, None),
    };
    let mut leader = leader;
    let end = Instant::now() + HAND_ON;
    loop {
        let lost = match desk.forwarder.send(&leader, request, again).await {
            Ok(answer) => return Ok(answer),
            Err(lost) => lost,
        };
        let held = match lost {
            Lost::Unsent(_, Some(held)) => held,
            Lost::Unknown(_, Some(held)) if Instant::now() < end => held,
            lost => return Err(forward::refusal(lost)),
        };
        if Instant::now() > end {
            return Err(desk.nobody());
        }
        tokio::time::sleep(HAND_ON_PAUSE).await;
        match desk.place().await? {
            Place::There(next) => leader = next,
            // This server leads by now: whoever asked asks it again.
            Place::Here(_) => return Err(desk.nobody()),
        }
        request = held.request();
        again = Some(held);
    }
}

async fn serve(
    app: &Arc<App>,
    route: Option<&'static Route>,
    params: Params,
    request: Request<Body>,
    (request_id, from): (&str, &str),
) -> Answered<Response<Body>> {
    let client = Client::of(&request);
    let (parts, body) = request.into_parts();
    let Some(route) = route else {
        return Err(unknown(&parts));
    };
    refuse_when_full(app, route)?;
    let caller = caller(app, route, &parts.headers, client.as_ref()).await?;
    let params = params.map_err(|why| Refusal::not_found(format!("the path: {why}")))?;
    let query = Query::parse(route, parts.uri.query())?;
    if let Some(text) = query.text("namespace") {
        // Where a name is looked up must not depend on whether what was sent is one.
        text.parse::<Name>().map_err(|why| {
            Refusal::invalid(format!("query parameter namespace: {why}"))
                .detail("field", "namespace")
        })?;
    }
    let (body, room) = read_body(app, route, &parts.headers, body).await?;
    let key = match &caller {
        Some(caller) if route.changes() => idempotency::key_of(
            &parts.headers,
            caller.token,
            &parts.method,
            &parts.uri,
            &body,
        )?,
        _ => None,
    };
    if let Some(caller) = &caller
        && route.changes()
    {
        let (token, role) = (caller.token, caller.role);
        tracing::info!(%request_id, route = route.op.name(), path = parts.uri.path(), %token, %role, "change");
    }
    let text = |name| {
        parts
            .headers
            .get(name)
            .and_then(|v: &HeaderValue| v.to_str().ok())
    };
    let ask = Ask {
        route,
        params,
        query,
        body,
        room,
        key,
        caller: caller.clone(),
        from: from.to_owned(),
        request_id: request_id.to_owned(),
        accept: text(ACCEPT).unwrap_or_default().to_owned(),
        last_event_id: text(HeaderName::from_static("last-event-id")).and_then(|v| v.parse().ok()),
    };
    if matches!(route.request, Payload::Empty) && route.op != Op::Health {
        ask.no_body()?;
    }
    let answer = dispatch(app, route, ask).await?;
    let answer = match &caller {
        Some(caller) => watch::while_good(app, caller, answer),
        None => answer,
    };
    whole(app, answer).await
}

/// Who asks, if the route wants to know.
async fn caller(
    app: &App,
    route: &Route,
    headers: &HeaderMap,
    client: Option<&Client>,
) -> Answered<Option<auth::Caller>> {
    if matches!(route.access, Access::Open) {
        return Ok(None);
    }
    let headers = headers.get_all(AUTHORIZATION);
    let headers: Vec<&[u8]> = headers.iter().map(HeaderValue::as_bytes).collect();
    let hint = &app.config.token_hint;
    let caller = auth::check(&app.control, (&headers, client), route, hint).await?;
    Ok(Some(caller))
}

/// Takes room for an answer that is large and already whole, until it is sent.
async fn whole(app: &App, response: Response<Body>) -> Answered<Response<Body>> {
    let bytes = response.body().size_hint().exact().unwrap_or_default();
    if bytes <= ANSWER_SMALL {
        return Ok(response);
    }
    let room = app
        .answers
        .take(usize::try_from(bytes).unwrap_or(usize::MAX))
        .await?;
    Ok(response.map(|body| connections::holding(body, room)))
}

/// Refuses what needs room that the disk does not have. What runs, what ends and what is asked goes on.
fn refuse_when_full(app: &App, route: &Route) -> Answered<()> {
    let Some(gauge) = &app.config.disk else {
        return Ok(());
    };
    let why = match gauge.read() {
        // The state is locked until what waits is written.
        DiskRoom::Full(why) if route.access != Access::Open => why,
        DiskRoom::Low(why) if adds(route.op) => why,
        _ => return Ok(()),
    };
    let message =
        format!("{why}; nothing was changed, what runs goes on: free space, then send it again");
    let mut refusal = Refusal::new(Reason::Pressure, message)
        .with_status(507)
        .retryable();
    refusal.rejection.retry_after = Some(DISK_AGAIN);
    Err(refusal)
}

/// Whether an operation brings new work or new data.
fn adds(op: Op) -> bool {
    matches!(
        op,
        Op::JobSubmit
            | Op::SweepSubmit
            | Op::SandboxCreate
            | Op::SnapshotCreate
            | Op::ImageLoad
            | Op::FilePut
            | Op::TokenCreate
            | Op::CaIssue
            | Op::JoinTokenCreate
            | Op::NamespacePut
            | Op::ClusterBackup
            | Op::ClusterRestore
    )
}

/// Reads the body within the route's size, the time for bodies and the room for all of them.
async fn read_body(
    app: &App,
    route: &Route,
    headers: &HeaderMap,
    body: Body,
) -> Answered<(Bytes, Taken)> {
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|n| n > route.body_max as u64) {
        return Err(too_large(route));
    }
    // Room for all of it before any of it: two that wait for the rest of each other would never end.
    let expected = match announced {
        Some(n) => usize::try_from(n).unwrap_or(route.body_max),
        None if body.is_end_stream() => 0,
        None => route.body_max,
    };
    let mut room = match expected {
        0 => Taken::default(),
        1..=BODY_SMALL => app.small_bodies.take(expected).await?,
        _ => app.bodies.take(expected).await?,
    };
    let limit = app.config.body_timeout;
    let body = tokio::time::timeout(limit, collect(route, body))
        .await
        .unwrap_or_else(|_| {
            Err(Refusal::new(
                Reason::Timeout,
                format!(
                    "the request body did not come within {} s; nothing was changed, send it again",
                    limit.as_secs()
                ),
            )
            .retryable())
        })?;
    room.shrink(body.len());
    Ok((body, room))
}

async fn collect(route: &Route, mut body: Body) -> Answered<Bytes> {
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| {
            Refusal::invalid(format!(
                "the request body broke off: {e}; nothing was changed"
            ))
        })?;
        // Trailers are not read.
        let Some(data) = frame.data_ref() else {
            continue;
        };
        if all.len() + data.len() > route.body_max {
            return Err(too_large(route));
        }
        all.extend_from_slice(data);
    }
    Ok(all.into())
}

fn too_large(route: &Route) -> Refusal {
    let max = route.body_max;
    Refusal::new(
        Reason::Overloaded,
        format!(
            "the request body is larger than {} MiB, the most that {} {} takes; nothing was changed",
            max >> 20,
            route.method,
            route.path
        ),
    )
    .with_status(413)
    .detail("limit_bytes", max as u64)
}

/// The answer for a path or method that no row has.
fn unknown(parts: &request::Parts) -> Refusal {
    let path = parts.uri.path();
    let shown: String = path.chars().take(120).collect();
    let allowed: Vec<&str> = ROUTES
        .iter()
        .filter(|r| matches(r.path, path))
        .map(|r| r.method.as_str())
        .collect();
    if !allowed.is_empty() {
        let method: String = parts.method.as_str().chars().take(20).collect();
        let allowed = allowed.join(", ");
        let mut refusal = Refusal::invalid(format!(
            "{method} is not possible on {shown}; it takes {allowed}"
        ))
        .with_status(405);
        refusal.allow = Some(allowed.into());
        return refusal;
    }
    let near = nearest(&shown, ROUTES.iter().map(|r| r.path));
    let hint = near.map_or_else(
        || "; GET /openapi.json lists every route".to_owned(),
        |n| format!("; did you mean {n}"),
    );
    let refusal = Refusal::not_found(format!("there is no route {shown}{hint}"));
    match near {
        Some(near) => refusal.detail("nearest", near),
        None => refusal,
    }
}

/// Whether a path is of a template's form.
fn matches(template: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    let all = template.split('/').all(|want| {
        parts
            .next()
            .is_some_and(|have| want == have || want.starts_with('{') && !have.is_empty())
    });
    all && parts.next().is_none()
}

fn refused(refusal: &Refusal, request_id: &str) -> Response<Body> {
    let body = refusal.body(request_id);
    let mut response = answer::of(
        "application/json",
        serde_json::to_vec(&body).unwrap_or_default(),
    );
    *response.status_mut() =
        StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if let Some(after) = refusal.rejection.retry_after {
        headers.insert(
            RETRY_AFTER,
            HeaderValue::from(after.0.div_ceil(1000).max(1)),
        );
    }
    if let Some(allow) = refusal.allow.as_deref()
        && let Ok(value) = HeaderValue::from_str(allow)
    {
        headers.insert(ALLOW, value);
    }
    if matches!(refusal.status, 408 | 413 | 429) {
        // What is left of the body is not read.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The client's request id if it is fit for logs, otherwise a new one.
fn request_id(headers: &HeaderMap) -> String {
    let fit = |text: &&str| {
        (1..=REQUEST_ID_MAX).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    let given = headers.get(X_REQUEST_ID).and_then(|v| v.to_str().ok());
    match given.filter(fit) {
        Some(text) => text.to_owned(),
        None => {
            let mut entropy = [0; 16];
            let _zero_will_do = getrandom::fill(&mut entropy);
            Id::new(desk::now().0, u128::from_le_bytes(entropy)).to_string()
        }
    }
}
