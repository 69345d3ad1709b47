//! Opening and closing a store on etcd, and its face to the rest of Prism.

use std::sync::Arc;

use prism_store::{
    Batch, BoxFuture, Item, Key, KeyRange, Leadership, Page, Revision, SnapshotPin, Status, Store,
    StoreError, Watch,
};
use prism_types::Fence;
use tokio::sync::{mpsc, oneshot, watch};

use crate::client::Client;
use crate::engine::{Engine, Seat};
use crate::error::OpenError;
use crate::health::{self, Health};
use crate::large::{Form, prepared};
use crate::layout::Layout;
use crate::lead::Tied;
use crate::mirror::Mirror;
use crate::queue::{self, Job};
use crate::{Config, feed, group, load};

/// A store on an etcd cluster. Dropping it without [`EtcdStore::close`] is safe for the data; its leadership then ends
/// with its lease.
pub struct EtcdStore {
    engine: Arc<Engine>,
    jobs: mpsc::Sender<Job>,
    _tasks: [Tied; 3],
}

impl std::fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdStore")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

/// Opens a store, making it when there is nothing beneath the prefix; returns when everything that was ever acknowledged can be
/// read. Must be called on a Tokio runtime.
///
/// # Errors
/// When the configuration cannot be right, etcd does not answer, refuses or is too old, or what is stored is not
/// what this version of Prism writes. Nothing was changed then.
pub fn open(config: Config) -> BoxFuture<'static, Result<Arc<EtcdStore>, OpenError>> {
    Box::pin(async move {
        check(&config)?;
        let client = Client::new(&config)?;
        health::usable(&health::version(&client).await?)?;
        let layout = Layout::new(&config.prefix);
        let (table, position) = load::state(&client, &layout, config.window).await?;
        let (_, leader) = load::one(&client, &layout.leader).await?;
        let seat = leader.and_then(|pair| serde_json::from_slice::<Seat>(&pair.value).ok());
        let mirror = Mirror::new(config.window, table, position);
        let engine = Arc::new(Engine::new(client, config, mirror, seat));
        let (jobs, inbox) = mpsc::channel(queue::WAITING);
        let tasks = [
            tokio::spawn(feed::run(Arc::clone(&engine))),
            tokio::spawn(health::run(Arc::clone(&engine))),
            tokio::spawn(serve(Arc::clone(&engine), inbox)),
        ];
        Ok(Arc::new(EtcdStore {
            engine,
            jobs,
            _tasks: tasks.map(Tied),
        }))
    })
}

fn check(config: &Config) -> Result<(), OpenError> {
    let wrong = |what, why: &str| {
        Err(OpenError::Config {
            what,
            why: why.to_owned(),
        })
    };
    if config.prefix.is_empty() || !config.prefix.ends_with('/') {
        return wrong(
            "the prefix in etcd",
            "it has to end with a slash, and to be more than nothing",
        );
    }
    if config.lease.as_secs() < 2 {
        return wrong("the lease", "etcd has none shorter than two seconds");
    }
    if config.request_bytes < 64 * 1024 {
        return wrong("the bytes of a request", "64 KiB is the least");
    }
    Ok(())
}

/// Runs the queue, and stops the store for everyone when it ends.
async fn serve(engine: Arc<Engine>, jobs: mpsc::Receiver<Job>) {
    queue::run(Arc::clone(&engine), jobs).await;
    engine.mirror.table.stop("the store was closed");
    engine.mirror.outdate(u64::MAX);
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.engine.mirror.table.stop("the store was dropped");
        self.engine.mirror.outdate(u64::MAX);
        // Whoever waits for the seat must not wait for a process that only forgot the store.
        if let Some(keeper) = self
            .engine
            .reign()
            .lease
            .take()
            .and_then(|lease| lease.keeper)
        {
            keeper.abort();
        }
    }
}

impl EtcdStore {
    async fn ask<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job,
    ) -> Result<T, StoreError> {
        self.engine.mirror.table.running()?;
        let (done, answer) = oneshot::channel();
        if self.jobs.send(job(done)).await.is_err() {
            return Err(StoreError::Stopped("its queue has ended".to_owned()));
        }
        match answer.await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Unanswered("it was stopped".to_owned())),
        }
    }

    /// How etcd is.
    pub fn health(&self) -> Health {
        self.engine.health()
    }

    /// Who leads, as far as this server has heard; changes when that does. While etcd cannot be reached it stays as it was.
    pub fn seat(&self) -> watch::Receiver<Option<Seat>> {
        self.engine.seat.subscribe()
    }

    /// Whether it goes on.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] with the reason, once it was closed or found in etcd what cannot be: it is to be opened anew then.
    pub fn running(&self) -> Result<(), StoreError> {
        self.engine.mirror.table.running()
    }

    /// Whether it is this process that a seat speaks of.
    pub fn is_mine(&self, seat: &Seat) -> bool {
        seat.writer == self.engine.writer
    }

    /// Waits until nobody leads, or this server does: the moment to try [`Store::lead`] again. The caller sets the deadline.
    pub fn vacant(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let mut seats = self.engine.seat.subscribe();
            let ours = self.engine.writer;
            let vacant = |seat: &Option<Seat>| seat.as_ref().is_none_or(|seat| seat.writer == ours);
            // The sender is here, so it cannot be gone.
            let _vacant = seats.wait_for(vacant).await;
        })
    }

    /// Gives the leadership up, if this server has it, so that another can lead at once. The store stays open.
    pub fn resign(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.engine.resign())
    }

    /// Stops the store and gives its leadership up, so that another server can lead at once. What was acknowledged is in
    /// etcd, what was not is answered with an error.
    pub fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let running = self.engine.mirror.table.running().is_ok();
            self.engine.mirror.table.stop("the store was closed");
            self.engine.mirror.outdate(u64::MAX);
            if running {
                // An error means that the queue has ended already.
                let _ended = self.jobs.send(Job::Stop).await;
                self.jobs.closed().await;
            }
            self.engine.resign().await;
        })
    }
}

impl Store for EtcdStore {
    fn lead(&self) -> BoxFuture<'_, Result<Leadership, StoreError>> {
        Box::pin(self.ask(Job::Lead))
    }

    fn commit(&self, fence: Fence, batch: Batch) -> BoxFuture<'_, Result<Revision, StoreError>> {
        Box::pin(async move {
            batch.check()?;
            self.engine.may_write(fence)?;
            if group::fits(&batch, self.engine.config.request_bytes) {
                return self
                    .ask(|done| Job::Commit(fence, batch, Form::Whole, done))
                    .await;
            }
            let engine = Arc::clone(&self.engine);
            let jobs = self.jobs.clone();
            let (done, answer) = oneshot::channel();
            // A task of its own, so that a caller who goes away does not take the batch back.
            tokio::spawn(async move {
                match prepared(engine, fence, batch).await {
                    Err(error) => drop(done.send(Err(error))),
                    // Without its queue the caller hears that the store has stopped.
                    Ok((batch, form)) => {
                        drop(jobs.send(Job::Commit(fence, batch, form, done)).await);
                    }
                }
            });
            match answer.await {
                Ok(result) => result,
                Err(_) => Err(StoreError::Unanswered("it was stopped".to_owned())),
            }
        })
    }

    fn get<'a>(
        &'a self,
        key: &'a [u8],
        at: Option<Revision>,
    ) -> BoxFuture<'a, Result<Option<Item>, StoreError>> {
        Box::pin(async move {
            self.fresh(at).await?;
            self.engine.mirror.table.get(key, at)
        })
    }

    fn range(
        &self,
        range: KeyRange,
        at: Option<Revision>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(async move {
            self.fresh(at).await?;
            self.engine.mirror.table.range(&range, at, limit)
        })
    }

    fn snapshot(&self) -> Result<SnapshotPin, StoreError> {
        let table = &self.engine.mirror.table;
        table.running()?;
        Ok(table.pin())
    }

    fn watch(&self, prefix: Key, after: Revision) -> BoxFuture<'_, Result<Watch, StoreError>> {
        Box::pin(async move {
            self.fresh(Some(after)).await?;
            self.engine.mirror.table.watch(prefix, after)
        })
    }

    fn compact(&self, to: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.ask(move |done| Job::Compact(to, done)))
    }

    fn status(&self) -> Status {
        let running = self.engine.mirror.table.running().is_ok();
        let leader = running && self.engine.held().is_some();
        self.engine.mirror.table.status(leader)
    }
}

impl EtcdStore {
    /// Makes sure that a revision, or the latest, is here.
    async fn fresh(&self, at: Option<Revision>) -> Result<(), StoreError> {
        let here = self.status().revision;
        match at {
            Some(at) if at <= here => Ok(()),
            _ => self.engine.current().await,
        }
    }
}
