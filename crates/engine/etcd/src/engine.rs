//! What the tasks of one store share, and the questions that they all ask: who leads, may this be written, is the mirror current.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prism_store::StoreError;
use prism_types::Fence;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::AbortHandle;

use crate::client::Client;
use crate::config::Config;
use crate::error::{Fault, Kind};
use crate::health::Health;
use crate::json::{self, Found};
use crate::layout::{Layout, Stamp};
use crate::mirror::Mirror;

/// Large commits that are brought to etcd piece by piece at once; their memory is what bounds them.
const UPLOADS: usize = 2;

/// Who leads, as the key `leader` says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// The server's name, for people.
    pub name: String,
    /// Where the other servers reach it; empty when it did not say.
    #[serde(default)]
    pub address: String,
    /// The process.
    pub(crate) writer: u64,
    pub(crate) fence: u64,
}

/// A leadership that this server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) fence: u64,
    /// The revision of etcd that made `leader` what it is: whoever else sits down changes it.
    pub(crate) seated: i64,
}

/// A lease that this server has.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) id: i64,
    /// The moment, on the clock that also counts sleep, before which etcd cannot have ended it.
    pub(crate) until: Duration,
    pub(crate) keeper: Option<AbortHandle>,
}

/// What this server has of the leadership.
#[derive(Debug, Default)]
pub(crate) struct Reign {
    pub(crate) held: Option<Held>,
    pub(crate) lease: Option<Lease>,
    /// Why the last one ended.
    ended: Option<String>,
}

/// What the feed watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// All that others write.
    Follow,
    /// Nobody else writes: only whether that stays so.
    Lead,
}

/// What the tasks share.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) client: Client,
    pub(crate) layout: Layout,
    pub(crate) mirror: Mirror,
    pub(crate) config: Config,
    /// This process, among all that ever wrote.
    pub(crate) writer: u64,
    numbers: AtomicU64,
    pub(crate) reign: Mutex<Reign>,
    pub(crate) mode: watch::Sender<Mode>,
    pub(crate) seat: watch::Sender<Option<Seat>>,
    /// Proposals sent, and of these answered: between the two others may know more than this server.
    pub(crate) sent: AtomicU64,
    pub(crate) settled: watch::Sender<u64>,
    /// To make the feed begin anew.
    pub(crate) poke: Notify,
    pub(crate) uploads: Semaphore,
    pub(crate) health: Mutex<Health>,
}

/// The time since the machine started, sleep included: a lease goes on while a machine sleeps.
pub(crate) fn boottime() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// An error of etcd for whoever asked for something that was not done.
pub(crate) fn unavailable(fault: &Fault) -> StoreError {
    let what = match fault.kind() {
        Some(Kind::NoSpace) => {
            return StoreError::Full {
                why: format!(
                    "etcd's space quota is used up, which raises its alarm NOSPACE: {fault}"
                ),
                advice: fault.advice().to_owned(),
            };
        }
        Some(Kind::TooLarge) => "etcd allows smaller requests than Prism sends",
        Some(Kind::Denied | Kind::Token) => "etcd does not allow it",
        _ => "etcd did not do it",
    };
    StoreError::Unavailable {
        why: format!("{what}: {fault}"),
        advice: fault.advice().to_owned(),
    }
}

impl Engine {
    pub(crate) fn new(client: Client, config: Config, mirror: Mirror, seat: Option<Seat>) -> Self {
        let mut writer = [0; 8];
        // Without randomness the process would have no name of its own; there is none that starts without it.
        getrandom::fill(&mut writer).expect("the kernel gives random bytes");
        Self {
            layout: Layout::new(&config.prefix),
            client,
            mirror,
            config,
            writer: u64::from_le_bytes(writer),
            numbers: AtomicU64::new(1),
            reign: Mutex::default(),
            mode: watch::Sender::new(Mode::Follow),
            seat: watch::Sender::new(seat),
            sent: AtomicU64::new(0),
            settled: watch::Sender::new(0),
            poke: Notify::new(),
            uploads: Semaphore::new(UPLOADS),
            health: Mutex::default(),
        }
    }

    /// A name for the next thing that this process writes.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp {
            writer: self.writer,
            number: self.numbers.fetch_add(1, Ordering::Relaxed),
        }
    }

    pub(crate) fn reign(&self) -> MutexGuard<'_, Reign> {
        self.reign.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The leadership, while its lease cannot have ended.
    pub(crate) fn held(&self) -> Option<Held> {
        let reign = self.reign();
        let lease = reign.lease.as_ref()?;
        (boottime() < lease.until).then_some(reign.held).flatten()
    }

    /// Ends a leadership here, unless another began since.
    pub(crate) fn depose(&self, fence: u64, why: &str) {
        let mut reign = self.reign();
        if reign.held.is_none_or(|held| held.fence != fence) {
            return;
        }
        reign.held = None;
        reign.ended = Some(why.to_owned());
        drop(reign);
        tracing::warn!(fence, why, "this server does not lead the store any more");
        self.mirror.outdate(fence + 1);
        self.mode.send_replace(Mode::Follow);
    }

    /// Whether a write may be sent, and under what.
    pub(crate) fn may_write(&self, given: Fence) -> Result<Held, StoreError> {
        self.mirror.table.running()?;
        let held = self.held();
        match held {
            Some(held) if held.fence == given.0 => Ok(held),
            _ => Err(self.not_ours(given)),
        }
    }

    /// Why a fence is not good here.
    pub(crate) fn not_ours(&self, given: Fence) -> StoreError {
        let latest = self.mirror.fence();
        if given != latest || given.0 == 0 {
            return StoreError::Fenced { given, latest };
        }
        StoreError::NotLeader {
            leader: self.who_leads(),
        }
    }

    /// Who leads instead of this server, for people.
    pub(crate) fn who_leads(&self) -> String {
        let seat = self.seat.borrow().clone();
        match (seat, &self.reign().ended) {
            (Some(seat), _) if seat.writer != self.writer => format!("{} does", seat.name),
            (_, Some(why)) => format!("its leadership ended: {why}"),
            _ => "nobody does".to_owned(),
        }
    }

    /// Asks etcd how many entries there are; also its revision then.
    pub(crate) async fn latest(&self) -> Result<(i64, i64), Fault> {
        let only = (self.layout.head.clone(), Vec::new());
        let body = json::range(&only, 0, 0, true);
        let patience = self.config.timeout;
        let found: Found = self.client.ask("/v3/kv/range", body, patience).await?;
        let version = found.kvs.first().map_or(0, |head| head.version);
        Ok((version, found.header.revision))
    }

    /// Waits until the mirror shows everything that was committed before this call.
    pub(crate) async fn current(&self) -> Result<(), StoreError> {
        self.mirror.table.running()?;
        if self.held().is_some() {
            // Nobody else can have committed; but etcd may show others what it has not answered to us yet.
            let sent = self.sent.load(Ordering::Acquire);
            let mut settled = self.settled.subscribe();
            let all = settled.wait_for(|now| *now >= sent);
            let in_time = tokio::time::timeout(self.config.lease, all).await.is_ok();
            if in_time && self.held().is_some() {
                return Ok(());
            }
        }
        let (version, _) = self.latest().await.map_err(|fault| unavailable(&fault))?;
        let reached = self.mirror.reached(version);
        if tokio::time::timeout(self.config.timeout, reached)
            .await
            .is_ok()
        {
            return self.mirror.table.running();
        }
        self.mirror.table.running()?;
        Err(StoreError::Unavailable {
            why: "etcd has commits that this server has not been sent yet".to_owned(),
            advice: "try again, or read at a revision that this server has".to_owned(),
        })
    }
}
