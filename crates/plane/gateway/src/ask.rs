//! A request as handlers see it: authenticated, its query checked, its body read within bounds.

use bytes::Bytes;
use prism_api::Route;
use prism_state::{Actor, IdempotencyKey, Origin, Sight};
use prism_types::{Name, Reason, nearest};
use serde::de::DeserializeOwned;

use crate::auth::Caller;
use crate::query::Query;
use crate::refuse::{Answered, Refusal};
use crate::room::Taken;

/// A checked request.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) route: &'static Route,
    pub(crate) params: Vec<(String, String)>,
    pub(crate) query: Query,
    pub(crate) body: Bytes,
    /// The room that the body takes.
    pub(crate) room: Taken,
    pub(crate) key: Option<IdempotencyKey>,
    /// Who asks; nobody in particular on an open route.
    pub(crate) caller: Option<Caller>,
    /// Where the connection comes from.
    pub(crate) from: String,
    pub(crate) request_id: String,
    /// What the client says it takes.
    pub(crate) accept: String,
    pub(crate) last_event_id: Option<u64>,
}

impl Ask {
    /// Which namespaces there are for whoever asks, and where they look names up.
    pub(crate) fn sight(&self) -> Sight {
        let scope = self.caller.as_ref().map(|caller| &caller.scope);
        Sight {
            only: scope.and_then(|scope| scope.namespaces.clone()),
            within: self.query.text("namespace").and_then(|n| n.parse().ok()),
        }
    }

    /// Whether what is in a namespace is there for whoever asks.
    pub(crate) fn sees(&self, namespace: &Name) -> bool {
        let caller = self.caller.as_ref();
        caller.is_none_or(|caller| caller.scope.sees(namespace))
    }

    /// Who asks, for the audit event of what changes.
    pub(crate) fn origin(&self) -> Option<Origin> {
        let caller = self.caller.as_ref()?;
        Some(Origin {
            actor: Actor::Token {
                id: caller.token,
                name: caller.name.as_str().into(),
            },
            op: snake(self.route.op.name()).into(),
            from: self.from.as_str().into(),
            request_id: self.request_id.as_str().into(),
        })
    }

    /// A name in the path, such as `id`.
    pub(crate) fn param(&self, name: &str) -> Answered<&str> {
        let found = self.params.iter().find(|(n, _)| n == name);
        let text = found.map(|(_, v)| v.as_str()).unwrap_or_default();
        if text.is_empty() || text.len() > 200 || text.chars().any(char::is_control) {
            return Err(Refusal::not_found(format!(
                "{:?} is not an id or name",
                text.chars().take(80).collect::<String>()
            )));
        }
        Ok(text)
    }

    /// The body as JSON of a type.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Answered<T> {
        if self.body.is_empty() {
            return Err(Refusal::invalid(format!(
                "{} {} needs a JSON body",
                self.route.method, self.route.path
            )));
        }
        serde_json::from_slice(&self.body).map_err(|e| {
            let text = e.to_string();
            let near = near_miss(&text);
            let hint = near.map_or_else(String::new, |n| format!("; did you mean {n}"));
            let refusal = Refusal::invalid(format!("the request body: {text}{hint}"))
                .detail("line", e.line())
                .detail("column", e.column());
            match near {
                Some(near) => refusal.detail("nearest", near),
                None => refusal,
            }
        })
    }

    /// Refuses a body where there is to be none.
    pub(crate) fn no_body(&self) -> Answered<()> {
        let blank = self.body.iter().all(u8::is_ascii_whitespace);
        if blank || matches!(&*self.body, b"{}" | b"null") {
            Ok(())
        } else {
            Err(Refusal::new(
                Reason::Invalid,
                format!("{} {} takes no body", self.route.method, self.route.path),
            ))
        }
    }

    /// Whether the client asks for this type.
    pub(crate) fn accepts(&self, kind: &str) -> bool {
        self.accept.contains(kind)
    }
}

/// `JobSubmit` as `job_submit`.
fn snake(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 4);
    for (i, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && i > 0 {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

/// The nearest of the words that serde says it expected instead of an unknown one.
fn near_miss(error: &str) -> Option<&str> {
    if !error.starts_with("unknown ") {
        return None;
    }
    let mut words = error.split('`').skip(1).step_by(2);
    let unknown = words.next()?;
    nearest(unknown, words)
}
