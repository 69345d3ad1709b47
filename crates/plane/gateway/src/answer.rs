//! Answers of success, as HTTP responses.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{Response, StatusCode};
use bytes::Bytes;
use serde::Serialize;

use crate::refuse::{Answered, Refusal};

/// Offset of the first byte of an answer that is a piece of output.
pub(crate) const X_OFFSET: HeaderName = HeaderName::from_static("x-offset");

/// JSON with the status that the table says for success (the pipeline sets it).
pub(crate) fn json(value: &impl Serialize) -> Answered<Response<Body>> {
    let bytes = serde_json::to_vec(value).map_err(|e| {
        Refusal::new(
            prism_types::Reason::Internal,
            format!("the answer cannot be written as JSON: {e}"),
        )
    })?;
    Ok(of("application/json", bytes))
}

/// A body of a type.
pub(crate) fn of(kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Nothing: 204.
pub(crate) fn nothing() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// One line of JSON.
pub(crate) fn line(value: &impl Serialize) -> Bytes {
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes.into()
}
