//! The way of every request: id, route, role, query, body, key, handler, answer. One place, in this order, for all routes.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, HttpBody};
use axum::http::header::{
    ACCEPT, ALLOW, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HeaderName, RETRY_AFTER,
};
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, request};
use bytes::Bytes;
use futures::FutureExt;
use http_body_util::BodyExt;
use prism_api::{Access, Op, Payload, ROUTES, Route};
use prism_types::{Id, Millis, Reason, nearest};

use crate::app::{App, dispatch};
use crate::ask::Ask;
use crate::config::DiskRoom;
use crate::query::Query;
use crate::refuse::{Answered, Refusal};
use crate::room::Taken;
use crate::{answer, auth, connections, idempotency};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// When to try again on a full disk.
const DISK_AGAIN: Millis = Millis(5_000);
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
    app: Arc<App>,
    route: Option<&'static Route>,
    params: Params,
    request: Request<Body>,
) -> Response<Body> {
    let began = Instant::now();
    let request_id = request_id(&app, request.headers());
    let method = request.method().clone();
    let served = AssertUnwindSafe(serve(&app, route, params, request, &request_id)).catch_unwind();
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
        Err(refusal) => refused(&refusal, &request_id),
    };
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    let took = began.elapsed();
    let status = response.status().as_u16();
    let name = route.map_or("unknown", |r| r.op.name());
    app.metrics.observe(route, status, took);
    if status >= 500 {
        tracing::warn!(%request_id, %method, route = name, status, ?took, "request failed");
    } else {
        tracing::debug!(%request_id, %method, route = name, status, ?took, "request");
    }
    response
}

async fn serve(
    app: &Arc<App>,
    route: Option<&'static Route>,
    params: Params,
    request: Request<Body>,
    request_id: &str,
) -> Answered<Response<Body>> {
    let (parts, body) = request.into_parts();
    let Some(route) = route else {
        return Err(unknown(&parts));
    };
    refuse_when_full(app, route)?;
    let caller = match route.access {
        Access::Open => None,
        Access::Token(needed) => {
            let headers = parts.headers.get_all(AUTHORIZATION);
            let headers: Vec<&[u8]> = headers.iter().map(HeaderValue::as_bytes).collect();
            Some(auth::check(&app.control, &headers, needed, &app.config.token_hint).await?)
        }
    };
    let params = params.map_err(|why| Refusal::not_found(format!("the path: {why}")))?;
    let query = Query::parse(route, parts.uri.query())?;
    let (body, room) = read_body(app, route, &parts.headers, body).await?;
    let key = match caller {
        Some(caller) if route.changes() => idempotency::key_of(
            &parts.headers,
            caller.token,
            &parts.method,
            &parts.uri,
            &body,
        )?,
        _ => None,
    };
    if let Some(caller) = caller
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
        request_id: request_id.to_owned(),
        accept: text(ACCEPT).unwrap_or_default().to_owned(),
        last_event_id: text(HeaderName::from_static("last-event-id")).and_then(|v| v.parse().ok()),
    };
    if matches!(route.request, Payload::Empty) && route.op != Op::Health {
        ask.no_body()?;
    }
    whole(app, dispatch(app, route, ask).await?).await
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
fn request_id(app: &App, headers: &HeaderMap) -> String {
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
            let (ms, entropy) = app.control.mint();
            Id::new(ms, entropy).to_string()
        }
    }
}
