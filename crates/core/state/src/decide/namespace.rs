//! Namespaces: made, given a quota, forgotten. And what a quota says of work that comes in.

use prism_types::{Name, Reason, Rejection, Resources};

use super::draft::Draft;
use crate::{Change, NamespaceRecord, Quota, Reply, Sight, State, Subject};

/// Most namespaces.
const NAMESPACES_MAX: usize = 1_000;

pub(super) fn put(
    d: &mut Draft<'_>,
    name: &Name,
    quota: &Quota,
    new: Option<bool>,
) -> Result<Reply, Rejection> {
    let known = d.state.namespace(name);
    match (known, new) {
        (Some(_), Some(true)) => {
            return Err(Rejection::new(
                Reason::Conflict,
                format!(
                    "there is a namespace {name} already; change it with prismctl namespace set"
                ),
            ));
        }
        (None, Some(false)) => {
            d.state
                .find_namespace(name.as_str(), &Sight::everything())?;
        }
        _ => {}
    }
    if known.is_some_and(|known| known.quota == *quota) {
        return Ok(Reply::Ok);
    }
    if known.is_none() && d.state.namespaces.0.len() >= NAMESPACES_MAX {
        return Err(Rejection::new(
            Reason::Overloaded,
            format!("there are {NAMESPACES_MAX} namespaces; remove some first"),
        ));
    }
    let (kind, what) = match known {
        None => ("namespace.created", "made"),
        Some(_) => ("namespace.changed", "has another quota"),
    };
    d.changes.push(Change::Namespace(NamespaceRecord {
        name: name.clone(),
        quota: *quota,
        created: known.map_or(d.now, |known| known.created),
    }));
    let message = format!("namespace {name} {what}");
    d.event(kind, Subject::Namespace(name.clone()), None, message);
    Ok(Reply::Ok)
}

pub(super) fn remove(d: &mut Draft<'_>, name: &Name) -> Result<Reply, Rejection> {
    d.state
        .find_namespace(name.as_str(), &Sight::everything())?;
    if *name == crate::namespace::default_name() {
        return Err(Rejection::new(
            Reason::WrongState,
            "the namespace default is always there; it cannot be removed",
        ));
    }
    let used = d.state.usage(name);
    if used.jobs > 0 || used.sandboxes > 0 {
        return Err(Rejection::retryable(
            Reason::WrongState,
            format!(
                "namespace {name} has {} jobs and {} sandboxes that are not over; end them, or wait for them",
                used.jobs, used.sandboxes
            ),
        ));
    }
    let names = |t: &&crate::TokenRecord| {
        let some = t.scope.namespaces.as_ref();
        some.is_some_and(|some| some.contains(name))
    };
    let tokens = d.state.tokens().filter(names).count();
    if tokens > 0 {
        // They would be good for whoever makes a namespace of that name next.
        return Err(Rejection::new(
            Reason::WrongState,
            format!(
                "namespace {name} is named by {tokens} tokens; revoke them first, see prismctl token ls"
            ),
        ));
    }
    let message = format!("namespace {name} removed");
    d.event(
        "namespace.removed",
        Subject::Namespace(name.clone()),
        None,
        message,
    );
    d.changes.push(Change::NamespaceRemoved(name.clone()));
    Ok(Reply::Ok)
}

/// The namespace that work goes to, if there is one and its quota could ever hold so much at once.
pub(super) fn admit<'a>(
    state: &'a State,
    name: &Name,
    need: &Resources,
    tasks: u32,
) -> Result<&'a NamespaceRecord, Rejection> {
    let namespace = state.find_namespace(name.as_str(), &Sight::everything())?;
    match namespace.quota.never(need, tasks) {
        None => Ok(namespace),
        Some(why) => Err(Rejection::new(
            Reason::Invalid,
            format!("it would never run: it needs {why} by the quota of namespace {name}"),
        )),
    }
}
