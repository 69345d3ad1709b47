//! Any route of the table by its operation, answered as the JSON that the server sent: for callers that print it as it is.

use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use prism_api::{Op, Route};
use serde::Serialize;
use serde_json::Value;

use crate::transport::Call;
use crate::url::Target;
use crate::{Client, Result};

/// A question: which operation, about what, with which body.
#[derive(Clone, Debug)]
pub struct Ask {
    op: Op,
    path: Vec<String>,
    query: Vec<(&'static str, String)>,
    body: Bytes,
    key: Option<String>,
    patience: Duration,
}

impl Ask {
    /// A question without anything.
    pub const fn new(op: Op) -> Self {
        Self {
            op,
            path: Vec::new(),
            query: Vec::new(),
            body: Bytes::new(),
            key: None,
            patience: Duration::ZERO,
        }
    }

    /// Which operation it is.
    pub const fn op(&self) -> Op {
        self.op
    }

    /// Whether it has this query parameter.
    pub fn has(&self, name: &str) -> bool {
        self.query.iter().any(|(n, _)| *n == name)
    }

    /// What stands for the next `{name}` of its path, not escaped.
    #[must_use]
    pub fn at(mut self, part: impl Into<String>) -> Self {
        self.path.push(part.into());
        self
    }

    /// With a query parameter, not escaped.
    #[must_use]
    pub fn query(mut self, name: &'static str, value: impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    /// With a query parameter, if there is a value.
    #[must_use]
    pub fn maybe(self, name: &'static str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// With a JSON body; fields that are `null` are left out.
    #[must_use]
    pub fn json(mut self, body: &impl Serialize) -> Self {
        let mut body = serde_json::to_value(body).expect("wire types have only text keys");
        if let Value::Object(fields) = &mut body {
            fields.retain(|_, value| !value.is_null());
        }
        self.body = body.to_string().into();
        self
    }

    /// Under this idempotency key; one is made for every change that has none.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The server may think so much longer than the client's timeout.
    #[must_use]
    pub const fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn call(self) -> Call {
        let route = Route::of(self.op);
        let mut parts = self.path.iter();
        let mut target = Target::new("");
        for segment in route.path.split('/').skip(1) {
            target = match segment.strip_prefix('{') {
                Some(name) => target.push(parts.next().map_or(name, String::as_str)),
                None => target.push(segment),
            };
        }
        for (name, value) in &self.query {
            target = target.query(name, value);
        }
        let mut call = match route.method {
            prism_api::Method::Get => Call::get(target),
            prism_api::Method::Post => Call::post(target),
            prism_api::Method::Put => Call::change(Method::PUT, target),
            prism_api::Method::Delete => Call::change(Method::DELETE, target),
        };
        if !self.body.is_empty() {
            call = call.raw(self.body, "application/json");
        }
        call.keyed(self.key).patient(self.patience)
    }
}

impl Client {
    /// Asks, and answers with the JSON as it came; `null` for an empty answer.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn ask(&self, ask: Ask) -> Result<Value> {
        let bytes = self.bytes(ask.call()).await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes)
            .map_err(|e| self.protocol(format!("its answer cannot be read: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_becomes_the_route_of_the_table() {
        let ask = Ask::new(Op::ExecOutput)
            .at("../x")
            .at("e 1")
            .query("follow", true);
        assert_eq!(
            ask.call().target.as_str(),
            "/api/v1/sandboxes/..%2Fx/execs/e%201/output?follow=true"
        );
        assert!(Ask::new(Op::TokenRevoke).at("t").call().key.is_some());
        let call = Ask::new(Op::JobSubmit).key("k").call();
        assert_eq!(call.key.as_deref(), Some("k"));
    }
}
