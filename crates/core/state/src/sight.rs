//! Finding things by what people write, for somebody who may see some namespaces only: what is in another one is not there,
//! in the answer, in its hints and in its text.

use std::collections::{BTreeMap, BTreeSet};

use prism_types::{JobId, Name, Reason, Rejection, nearest};

use crate::view::not_found;
use crate::{Job, NamespaceRecord, SandboxRecord, State, Usage};

/// Namespaces named in a sentence.
const NAMED_MAX: usize = 6;

/// Which namespaces somebody sees, and where names are looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Only these; all of them if `None`.
    pub only: Option<BTreeSet<Name>>,
    /// Names are looked up here alone. Ids say themselves what they mean.
    pub within: Option<Name>,
}

impl Sight {
    /// Of one who sees everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Whether what is in a namespace is there.
    pub fn sees(&self, namespace: &Name) -> bool {
        self.only
            .as_ref()
            .is_none_or(|only| only.contains(namespace))
    }

    /// Whether a name may mean something in this namespace.
    fn looks_in(&self, namespace: &Name) -> bool {
        self.sees(namespace)
            && self
                .within
                .as_ref()
                .is_none_or(|within| within == namespace)
    }

    fn known<'a, T>(
        &'a self,
        names: &'a BTreeMap<Name, BTreeMap<Name, T>>,
    ) -> impl Iterator<Item = &'a str> {
        let here = |by: &BTreeMap<Name, T>| by.keys().any(|namespace| self.looks_in(namespace));
        let names = names.iter().filter(move |(_, by)| here(by));
        names.map(|(name, _)| name.as_str())
    }
}

impl State {
    /// A job by id, or the latest of a name.
    ///
    /// # Errors
    /// When there is none; the message suggests the nearest name.
    pub fn find_job(&self, text: &str, sight: &Sight) -> Result<&Job, Rejection> {
        let by_id = text.parse().ok().and_then(|id| self.jobs.get(&id));
        let by_id = by_id.filter(|job| sight.sees(&job.spec.namespace));
        let by_name = || {
            let named = self.index.jobs_by_name.get(&text.parse().ok()?)?;
            let here = named.iter().filter(|(space, _)| sight.looks_in(space));
            let latest = here.filter_map(|(_, ids)| ids.last()).max()?;
            self.jobs.get(latest)
        };
        by_id
            .or_else(by_name)
            .ok_or_else(|| not_found("job", text, sight.known(&self.index.jobs_by_name)))
    }

    /// A job of a namespace by id, or the latest of a name there.
    pub(crate) fn job_in(&self, namespace: &Name, text: &str) -> Option<&Job> {
        let sight = Sight {
            only: Some(BTreeSet::from([namespace.clone()])),
            within: None,
        };
        self.find_job(text, &sight).ok()
    }

    /// The jobs of a group, oldest first.
    pub(crate) fn jobs_in_group(
        &self,
        namespace: &Name,
        group: &str,
    ) -> impl Iterator<Item = JobId> + '_ {
        let key = group.parse().ok().map(|group| (namespace.clone(), group));
        let ids = key.and_then(|key| self.index.jobs_by_group.get(&key));
        ids.into_iter().flatten().copied()
    }

    /// Names of jobs and groups of a namespace.
    pub(crate) fn job_names_in<'a>(&'a self, namespace: &'a Name) -> impl Iterator<Item = &'a str> {
        let named = self.index.jobs_by_name.iter();
        let named = named.filter(move |(_, by)| by.contains_key(namespace));
        let groups = self.index.jobs_by_group.keys();
        let groups = groups.filter(move |(space, _)| space == namespace);
        named
            .map(|(name, _)| name.as_str())
            .chain(groups.map(|(_, group)| group.as_str()))
    }

    /// A sandbox by id, or a living one by name.
    ///
    /// # Errors
    /// When there is none (the message suggests the nearest name), or when several namespaces have one of that name.
    pub fn find_sandbox(&self, text: &str, sight: &Sight) -> Result<&SandboxRecord, Rejection> {
        let by_id = text.parse().ok().and_then(|id| self.sandboxes.get(&id));
        if let Some(sandbox) = by_id.filter(|s| sight.sees(&s.spec.namespace)) {
            return Ok(sandbox);
        }
        let named = text.parse::<Name>().ok();
        let named = named.and_then(|name| self.index.sandbox_by_name.get(&name));
        let named = named.into_iter().flatten();
        let mut here = named.filter(|(space, _)| sight.looks_in(space));
        match (here.next(), here.next()) {
            (Some((_, id)), None) => self.sandboxes.get(id),
            (Some((one, _)), Some((other, _))) => {
                return Err(Rejection::new(
                    Reason::Conflict,
                    format!("there is a sandbox {text:?} in the namespaces {one} and {other}: say which with --namespace, or by its id"),
                ));
            }
            (None, _) => None,
        }
        .ok_or_else(|| not_found("sandbox", text, sight.known(&self.index.sandbox_by_name)))
    }

    /// Every namespace by name, with what is in use there; `default` is always among them.
    pub fn namespaces(&self) -> impl Iterator<Item = (&NamespaceRecord, Usage)> {
        let all = self.namespaces.0.values();
        all.map(|record| (record, self.usage(&record.name)))
    }

    /// A namespace, if there is one.
    pub fn namespace(&self, name: &Name) -> Option<&NamespaceRecord> {
        self.namespaces.0.get(name)
    }

    /// What is in use in a namespace.
    pub fn usage(&self, namespace: &Name) -> Usage {
        self.index.usage.get(namespace).copied().unwrap_or_default()
    }

    /// A namespace by name.
    ///
    /// # Errors
    /// When there is none; the message suggests the nearest name, and says which there are for one who sees some only.
    pub fn find_namespace(&self, text: &str, sight: &Sight) -> Result<&NamespaceRecord, Rejection> {
        let found = text.parse().ok().and_then(|name| self.namespace(&name));
        if let Some(record) = found.filter(|record| sight.sees(&record.name)) {
            return Ok(record);
        }
        let known = || self.namespaces.0.keys().filter(|name| sight.sees(name));
        let near = nearest(text, known().map(Name::as_str));
        let text: String = text.chars().take(80).collect();
        let mut message = format!("there is no namespace {text:?}");
        if let Some(near) = near {
            message.push_str(&format!("; did you mean {near}"));
        } else if sight.only.is_some() {
            let some: Vec<&str> = known().take(NAMED_MAX).map(Name::as_str).collect();
            message.push_str(&format!("; there is {}", some.join(", ")));
        } else {
            message.push_str("; an administrator makes one with prismctl namespace create");
        }
        Err(Rejection::new(Reason::NotFound, message))
    }
}
