//! Leadership: the key `leader` under a lease, and a fence that grows with every one who takes it. Whoever leads considers itself
//! deposed before etcd can have ended the lease, reckoned from when the last renewal was sent.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prism_store::{Leadership, StoreError};
use prism_types::Fence;
use tokio::task::JoinHandle;

use crate::client::Pause;
use crate::engine::{Engine, Held, Lease, Mode, Seat, boottime, unavailable};
use crate::error::Fault;
use crate::json::{self, Done, Found, Holds, Leased, Line, Operations, Pair};
use crate::layout::What;
use crate::load::{PATIENCE, one};
use crate::mirror::Entry;

/// How often a leadership is tried for while others come between.
const TRIES: usize = 10;

/// How long a lease lasts here: a tenth less than there, for clocks that run at different speeds.
fn shown(ttl: u64) -> Duration {
    let ttl = Duration::from_secs(ttl);
    ttl - ttl / 10
}

fn seat_of(pair: &Pair) -> Option<Seat> {
    serde_json::from_slice(&pair.value).ok()
}

impl Engine {
    /// Takes the leadership, unless another process has it.
    pub(crate) async fn take(self: &Arc<Self>) -> Result<Leadership, StoreError> {
        self.mirror.table.running()?;
        for _ in 0..TRIES {
            let seated = self.vacancy().await?;
            self.current().await?;
            let lease = self.lease().await?;
            if let Some(held) = self.sit(seated, lease).await? {
                let leadership = Leadership::new(Fence(held.fence), self.mirror.fences());
                self.tidy(held).await?;
                return Ok(leadership);
            }
        }
        Err(StoreError::NotLeader {
            leader: "others keep taking it".to_owned(),
        })
    }

    /// Whether the seat is free or ours, and the revision that says so.
    async fn vacancy(&self) -> Result<i64, StoreError> {
        let read = one(&self.client, &self.layout.leader).await;
        let (_, pair) = read.map_err(|fault| unavailable(&fault))?;
        let seat = pair.as_ref().and_then(seat_of);
        self.seat.send_replace(seat.clone());
        match seat {
            Some(seat) if seat.writer != self.writer => Err(StoreError::NotLeader {
                leader: format!("{} does", seat.name),
            }),
            _ => Ok(pair.map_or(0, |pair| pair.mod_revision)),
        }
    }

    /// The lease, made anew when there is none that lasts.
    async fn lease(self: &Arc<Self>) -> Result<i64, StoreError> {
        if let Some(lease) = &self.reign().lease
            && boottime() < lease.until
        {
            return Ok(lease.id);
        }
        let ttl = self.config.lease.as_secs().max(2);
        // A name of its own, so that asking twice does not leave a second one behind.
        let id = i64::try_from(self.stamp().number ^ (self.writer >> 1))
            .unwrap_or(1)
            .max(1);
        let sent = boottime();
        let body = format!("{{\"TTL\":\"{ttl}\",\"ID\":\"{id}\"}}");
        let patience = self.config.timeout;
        let answer = self
            .client
            .ask::<Leased>("/v3/lease/grant", body, patience)
            .await;
        let granted = match answer {
            Ok(leased) => leased.ttl,
            Err(Fault::Not(_, why)) if why.contains("already exists") => ttl,
            Err(fault) => return Err(unavailable(&fault)),
        };
        let lease = Lease {
            id,
            until: sent + shown(granted),
            keeper: None,
        };
        // The keeper ends when it does not find its lease, so that is there first.
        let mut reign = self.reign();
        let before = reign.lease.replace(lease);
        let keeper = tokio::spawn(keep(Arc::clone(self), id, granted));
        if let Some(lease) = &mut reign.lease {
            lease.keeper = Some(keeper.abort_handle());
        }
        drop(reign);
        if let Some(keeper) = before.and_then(|lease| lease.keeper) {
            keeper.abort();
        }
        Ok(id)
    }

    /// One try to take the seat; `None` when something came between.
    async fn sit(&self, seated: i64, lease: i64) -> Result<Option<Held>, StoreError> {
        let (version, mut head) = self.next_head();
        head.fence += 1;
        head.what = What::Granted;
        let seat = Seat {
            name: self.config.name.clone(),
            address: self.config.address.clone(),
            writer: self.writer,
            fence: head.fence,
        };
        let shown = serde_json::to_vec(&seat).expect("a seat is plain data");
        let written = head.encode();
        let Self { layout, .. } = self;
        let mut operations = Operations::default();
        operations.put(&layout.leader, &[&shown], lease);
        let holds = [
            Holds::Version(&layout.head, version - 1),
            Holds::Changed(&layout.leader, seated),
        ];
        let last = Some((layout.head.as_slice(), written.as_slice()));
        let body = json::transaction(&holds, operations, last, &[&layout.head, &layout.leader]);
        // A transaction that holds once only, so it may be sent again.
        let answer = self
            .client
            .ask::<Done>("/v3/kv/txn", body, self.config.timeout)
            .await;
        let mut done = match answer {
            Ok(done) => done,
            Err(Fault::Lost(why)) => {
                self.unsure();
                return Err(StoreError::Unanswered(format!("etcd: {why}")));
            }
            Err(fault) => return Err(unavailable(&fault)),
        };
        let seated = if done.succeeded {
            done.header.revision
        } else {
            let ours = done.found(0).filter(|pair| pair.value == written);
            let Some(earlier) = ours else {
                self.unsure();
                return Ok(None);
            };
            earlier.mod_revision
        };
        let held = Held {
            fence: head.fence,
            seated,
        };
        let entry = Entry {
            version,
            head,
            batches: Vec::new(),
            parted: Vec::new(),
        };
        self.reign().held = Some(held);
        self.seat.send_replace(Some(seat));
        self.mirror.apply(seated, &entry);
        self.mode.send_replace(Mode::Lead);
        Ok(Some(held))
    }

    /// What etcd holds is not what is known here: the feed has to read it.
    fn unsure(&self) {
        let held = self.reign().held;
        if let Some(held) = held {
            self.depose(held.fence, "another leadership may have been granted");
        }
    }

    /// Finishes what the leader before left half done, and removes what nothing refers to.
    async fn tidy(&self, held: Held) -> Result<(), StoreError> {
        self.unfold(held, None, Vec::new()).await?;
        let (mut from, end) = self.layout.all_parts();
        let mut left = std::collections::BTreeSet::new();
        loop {
            let body = json::range(&(from, end.clone()), 0, 1000, true);
            let read = self
                .client
                .ask::<Found>("/v3/kv/range", body, PATIENCE)
                .await;
            let page = read.map_err(|fault| unavailable(&fault))?;
            let Some(last) = page.kvs.last() else { break };
            from = [&last.key[..], &[0]].concat();
            left.extend(
                page.kvs
                    .iter()
                    .filter_map(|p| self.layout.id_of(&p.key).map(str::to_owned)),
            );
            if !page.more {
                break;
            }
        }
        // Only older leaders': under this one nothing else has been written yet, but callers may begin at once.
        let this = format!("{:016x}", held.fence);
        left.retain(|id| id.get(..16).is_some_and(|fence| fence < this.as_str()));
        self.mirror.parted(|parted| {
            for parts in parted.values() {
                left.remove(&parts.id());
            }
        });
        for id in left {
            tracing::info!(%id, "removing pieces that an earlier leader left");
            if let Err(fault) = self.remove_parts(&id).await {
                tracing::warn!(%id, %fault, "pieces of an earlier leader stay in etcd until the next one");
            }
        }
        Ok(())
    }

    /// Gives the leadership up, so that others need not wait for its lease to end.
    pub(crate) async fn resign(&self) {
        let lease = {
            let mut reign = self.reign();
            let held = reign.held;
            let lease = reign.lease.take();
            drop(reign);
            if let Some(held) = held {
                self.depose(held.fence, "it was given up");
            }
            lease
        };
        let Some(lease) = lease else { return };
        if let Some(keeper) = lease.keeper {
            keeper.abort();
        }
        let body = Bytes::from(format!("{{\"ID\":\"{}\"}}", lease.id));
        let asked = self.client.call::<Leased>("/v3/lease/revoke", body).await;
        if let Err(fault) = asked {
            tracing::info!(%fault, "the lease was not given back, it ends by itself");
        }
    }
}

/// Renews a lease until it is lost; ends with it.
async fn keep(engine: Arc<Engine>, id: i64, ttl: u64) {
    let every = Duration::from_secs(ttl) / 3;
    let mut pause = Pause::default();
    let mut next = every;
    let why = loop {
        let Some(left) = engine.lease_left(id) else {
            return;
        };
        tokio::time::sleep(next.min(left)).await;
        let Some(left) = engine.lease_left(id) else {
            return;
        };
        if left.is_zero() {
            break "etcd was not reached for the time of its lease".to_owned();
        }
        let sent = boottime();
        let body = Bytes::from(format!("{{\"ID\":\"{id}\"}}"));
        let asked = engine
            .client
            .call_within("/v3/lease/keepalive", body, left.min(every));
        let answer: Result<Line<Leased>, Fault> = asked.await;
        match answer.map(|line| line.result.unwrap_or_default().ttl) {
            Ok(0) => break "etcd ended its lease".to_owned(),
            Ok(ttl) => {
                let until = sent + shown(ttl);
                if let Some(lease) = engine.reign().lease.as_mut().filter(|lease| lease.id == id) {
                    lease.until = lease.until.max(until);
                }
                pause = Pause::default();
                next = every;
            }
            Err(fault) => {
                tracing::warn!(%fault, "the lease of the leadership was not renewed, trying again");
                pause.wait().await;
                next = Duration::ZERO;
            }
        }
    };
    let held = {
        let mut reign = engine.reign();
        if reign.lease.as_ref().is_some_and(|lease| lease.id == id) {
            reign.lease = None;
        }
        reign.held
    };
    if let Some(held) = held {
        engine.depose(held.fence, &why);
    }
}

impl Engine {
    /// How long a lease lasts yet; `None` when it is not this server's any more.
    fn lease_left(&self, id: i64) -> Option<Duration> {
        let reign = self.reign();
        let lease = reign.lease.as_ref().filter(|lease| lease.id == id)?;
        Some(lease.until.saturating_sub(boottime()))
    }
}

/// A task that ends with its store.
#[derive(Debug)]
pub(crate) struct Tied(pub(crate) JoinHandle<()>);

impl Drop for Tied {
    fn drop(&mut self) {
        self.0.abort();
    }
}
