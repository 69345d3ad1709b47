//! How etcd is: whether it answers, its alarms, and versions with faults that Prism cannot work around. Looked at from time to time.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::client::Client;
use crate::engine::{Engine, Mode};
use crate::error::{Fault, Kind, OpenError};
use crate::feed;
use crate::json::{Alarms, Header, Version};

/// How often the mirror is compared with etcd.
const COMPARE: Duration = Duration::from_secs(2);
/// How often alarms and versions are looked at.
const LOOK: Duration = Duration::from_secs(30);

/// How etcd is, as far as is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Whether it answered when it was asked last.
    pub reachable: bool,
    /// The version of the member that answered last.
    pub version: String,
    /// What people should know: alarms, faults of its version, why it does not answer.
    pub warnings: Vec<String>,
}

/// `3.4.23` as numbers.
fn parse(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split(['.', '-']).map(str::parse);
    let mut next = || parts.next()?.ok();
    Some((next()?, next()?, next()?))
}

/// What is wrong with a version.
fn faults(version: &str) -> Vec<String> {
    let mut found = Vec::new();
    let Some(is) = parse(version) else {
        return vec![format!(
            "etcd says that its version is {version:?}, which Prism cannot judge"
        )];
    };
    if ((3, 5, 0)..=(3, 5, 2)).contains(&is) {
        found.push(format!(
            "etcd {version} can lose writes and let members differ after a crash under load (etcd issue 13766); \
             upgrade to the latest 3.5 or newer"
        ));
    }
    let stale = [
        (3, 4, 20)..(3, 4, 42),
        (3, 5, 0)..(3, 5, 28),
        (3, 6, 0)..(3, 6, 9),
    ];
    if stale.iter().any(|bad| bad.contains(&is)) {
        found.push(format!(
            "etcd {version} can answer reads with old data after a member was paused (etcd issue 20418): a server that \
             does not lead may show old state then, commits are not concerned; upgrade to 3.4.42, 3.5.28, 3.6.9 or newer"
        ));
    }
    found
}

/// The version of the member that answers.
pub(crate) async fn version(client: &Client) -> Result<String, Fault> {
    let found: Version = client
        .ask("/version", Bytes::new(), client.timeout * 2)
        .await?;
    Ok(found.etcdserver)
}

/// Whether a version is one to begin with.
pub(crate) fn usable(found: &str) -> Result<(), OpenError> {
    match parse(found) {
        Some(version) if version < (3, 4, 0) => Err(OpenError::TooOld {
            found: found.to_owned(),
        }),
        _ => Ok(()),
    }
}

async fn alarms(client: &Client) -> Vec<String> {
    let asked = client
        .call::<Alarms>("/v3/maintenance/alarm", Bytes::from_static(b"{}"))
        .await;
    // Who may not ask hears of an alarm from what it refuses.
    let found = asked.unwrap_or_default().alarms;
    let advice = |name: &str| {
        match name {
        "NOSPACE" => format!(
            "etcd's alarm NOSPACE is raised: it takes no writes; {}",
            Fault::Not(Kind::NoSpace, String::new()).advice()
        ),
        "CORRUPT" => "etcd's alarm CORRUPT is raised: its members differ; stop writing, and restore the wrong member".to_owned(),
        other => format!("etcd's alarm {other} is raised"),
    }
    };
    let mut said: Vec<String> = found.iter().map(|a| advice(&a.alarm)).collect();
    said.dedup();
    said
}

/// Looks until the store is closed.
pub(crate) async fn run(engine: Arc<Engine>) {
    let mut looked: Option<Instant> = None;
    let mut compacted = (Instant::now(), 0);
    loop {
        let unreachable = compare(&engine).await.err();
        let due = looked.is_none_or(|at| at.elapsed() >= LOOK);
        if due || unreachable.is_some() == engine.health().reachable {
            look(&engine, unreachable).await;
            looked = Some(Instant::now());
        }
        forget(&engine, &mut compacted).await;
        tokio::time::sleep(COMPARE).await;
    }
}

/// Whether the mirror is where etcd is; a watch that is silently dead shows here.
async fn compare(engine: &Engine) -> Result<(), Fault> {
    let before = engine.mirror.version();
    let version = feed::look(engine).await?;
    let reached = engine.mirror.reached(version);
    let in_time = tokio::time::timeout(engine.config.timeout, reached)
        .await
        .is_ok();
    let stands = engine.mirror.version() == before;
    if !in_time && stands && *engine.mode.borrow() == Mode::Follow {
        engine.poke.notify_one();
    }
    Ok(())
}

async fn look(engine: &Engine, unreachable: Option<Fault>) {
    let mut health = Health {
        reachable: unreachable.is_none(),
        ..Health::default()
    };
    match unreachable {
        Some(fault) => {
            health.version = engine.health().version;
            health
                .warnings
                .push(format!("etcd does not answer: {fault}; {}", fault.advice()));
        }
        None => {
            health.version = version(&engine.client).await.unwrap_or_default();
            health.warnings = faults(&health.version);
            health.warnings.extend(alarms(&engine.client).await);
        }
    }
    let before = engine.health();
    for warning in &health.warnings {
        if !before.warnings.contains(warning) {
            tracing::warn!("{warning}");
        }
    }
    *engine.health.lock().unwrap_or_else(PoisonError::into_inner) = health;
}

/// Drops etcd's history of before the last time.
async fn forget(engine: &Engine, (at, revision): &mut (Instant, i64)) {
    let Some(every) = engine.config.compact_every else {
        return;
    };
    if at.elapsed() < every {
        return;
    }
    let before = std::mem::replace(revision, engine.mirror.etcd());
    *at = Instant::now();
    if before == 0 || engine.held().is_none() {
        return;
    }
    #[derive(Debug, Default, serde::Deserialize)]
    struct Dropped {
        #[serde(default, rename = "header")]
        _header: Header,
    }
    let body = Bytes::from(format!("{{\"revision\":\"{before}\"}}"));
    match engine
        .client
        .call::<Dropped>("/v3/kv/compaction", body)
        .await
    {
        Ok(_) => tracing::debug!(before, "etcd drops its older history"),
        // Somebody else did.
        Err(fault) if fault.kind() == Some(Kind::Compacted) => {}
        Err(fault) => {
            tracing::warn!(%fault, "etcd's history was not dropped, it grows until it is")
        }
    }
}

impl Engine {
    pub(crate) fn health(&self) -> Health {
        self.health
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_versions_are_named_and_good_ones_are_not() {
        let count = |version| faults(version).len();
        assert_eq!(count("3.4.19"), 0);
        assert_eq!(count("3.4.23"), 1);
        assert_eq!(count("3.4.42"), 0);
        assert_eq!(count("3.5.1"), 2);
        assert_eq!(count("3.5.28"), 0);
        assert_eq!(count("3.6.8"), 1);
        assert_eq!(count("3.6.9"), 0);
        assert_eq!(count("3.7.0-alpha.0"), 0);
        assert!(faults("odd")[0].contains("cannot judge"));
        assert!(usable("3.3.25").is_err() && usable("3.4.0").is_ok());
    }
}
