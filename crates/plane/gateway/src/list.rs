//! What every list has in common: limit, cursor, labels, namespace.

use std::str::FromStr;

use prism_api::{LIMIT_DEFAULT, LIMIT_MAX, Page};
use prism_state::Sight;
use prism_types::{Labels, Name};

use crate::ask::Ask;
use crate::refuse::{Answered, Refusal};

/// Longest cursor that is read, bytes.
const CURSOR_MAX: usize = 100;

/// Items wanted in one answer.
pub(crate) fn limit(ask: &Ask) -> Answered<usize> {
    match ask.query.number("limit") {
        None => Ok(LIMIT_DEFAULT as usize),
        Some(0) => Err(Refusal::invalid(format!(
            "query parameter limit is 0; expected 1 to {LIMIT_MAX}"
        ))
        .detail("field", "limit")),
        Some(n) => Ok(usize::try_from(n).unwrap_or(LIMIT_MAX as usize)),
    }
}

/// Where the page before ended. `tag` keeps the cursor of one list from being used on another.
pub(crate) fn cursor<T: FromStr>(ask: &Ask, tag: &str) -> Answered<Option<T>> {
    let Some(text) = ask.query.text("cursor") else {
        return Ok(None);
    };
    let value = (text.len() <= CURSOR_MAX)
        .then(|| text.strip_prefix(tag)?.strip_prefix('.')?.parse().ok())
        .flatten();
    match value {
        Some(value) => Ok(Some(value)),
        None => Err(Refusal::invalid(
            "the cursor is not one that this list gave out; start again without it",
        )
        .detail("field", "cursor")),
    }
}

/// A page of `items`, of which one more than `limit` was taken if there are more; `at` names where an item stands.
pub(crate) fn page<T>(
    mut items: Vec<T>,
    limit: usize,
    tag: &str,
    at: impl Fn(&T) -> String,
) -> Page<T> {
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items
        .last()
        .filter(|_| more)
        .map(|last| format!("{tag}.{}", at(last)));
    Page { items, next }
}

/// A page of a short list that is at hand whole, ordered by name.
pub(crate) fn slice<T>(
    ask: &Ask,
    items: Vec<T>,
    tag: &str,
    at: impl Fn(&T) -> String,
) -> Answered<Page<T>> {
    let limit = limit(ask)?;
    let after: Option<String> = cursor(ask, tag)?;
    let rest = items
        .into_iter()
        .filter(|item| after.as_ref().is_none_or(|after| at(item) > *after));
    Ok(page(rest.take(limit + 1).collect(), limit, tag, at))
}

/// Which items are wanted.
#[derive(Debug)]
pub(crate) struct Filter {
    labels: Vec<(String, String)>,
    namespace: Option<String>,
    sight: Sight,
}

impl Filter {
    pub(crate) fn of(ask: &Ask) -> Answered<Self> {
        let labels = ask
            .query
            .every("label")
            .map(|text| match text.split_once('=') {
                Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
                _ => Err(Refusal::invalid(format!(
                    "query parameter label is {:?}; expected key=value",
                    text.chars().take(40).collect::<String>()
                ))
                .detail("field", "label")),
            })
            .collect::<Answered<_>>()?;
        let namespace = ask.query.text("namespace").map(str::to_owned);
        let sight = ask.sight();
        Ok(Self {
            labels,
            namespace,
            sight,
        })
    }

    /// Whether a thing without a namespace is wanted.
    pub(crate) fn takes_labels(&self, labels: &Labels) -> bool {
        self.labels.iter().all(|(k, v)| labels.get(k) == Some(v))
    }

    /// Whether a thing of a namespace is wanted, and there for whoever asks.
    pub(crate) fn takes(&self, labels: &Labels, namespace: &Name) -> bool {
        let named = self.namespace.as_ref();
        self.takes_labels(labels)
            && self.sight.sees(namespace)
            && named.is_none_or(|n| n == namespace.as_str())
    }
}
