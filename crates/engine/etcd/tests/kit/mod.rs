//! A real etcd, and stores on it.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

pub mod proxy;

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use prism_etcd::{Config, EtcdStore, open};
use prism_store::{Leadership, Store};
use prism_store_kit::conformance::WINDOW;
use prism_store_kit::etcd::{self, LIMIT};
use proxy::Proxy;

/// Whether the machine has an etcd; says so when not.
pub fn has_etcd() -> bool {
    etcd::has_etcd()
}

/// A lease that a test waits out.
pub const SHORT: Duration = Duration::from_secs(3);
/// One that outlasts a slow disk and an election, where the test is not about its end.
const LONG: Duration = Duration::from_secs(30);

/// One running member.
pub struct Etcd(pub etcd::Etcd);

impl Deref for Etcd {
    type Target = etcd::Etcd;

    fn deref(&self) -> &etcd::Etcd {
        &self.0
    }
}

impl DerefMut for Etcd {
    fn deref_mut(&mut self) -> &mut etcd::Etcd {
        &mut self.0
    }
}

impl Etcd {
    /// A cluster of one, with these arguments more.
    pub fn start(arguments: &[&str]) -> Self {
        Self(etcd::Etcd::start(arguments))
    }

    /// Three members of one cluster.
    pub fn three() -> [Self; 3] {
        etcd::Etcd::three().map(Self)
    }

    /// How a store is opened on it; nobody else uses the prefix.
    pub fn config(&self, prefix: &str) -> Config {
        Config {
            prefix: format!("/{prefix}/"),
            window: WINDOW,
            lease: LONG,
            timeout: Duration::from_secs(5),
            ..Config::new([&self.url])
        }
    }

    pub async fn open(&self, prefix: &str) -> Arc<EtcdStore> {
        open(self.config(prefix)).await.unwrap()
    }

    pub async fn open_named(&self, prefix: &str, name: &str) -> Arc<EtcdStore> {
        let mut config = self.config(prefix);
        config.name = name.to_owned();
        open(config).await.unwrap()
    }

    /// The same, with a lease that ends soon when it is not renewed.
    pub fn short(&self, prefix: &str) -> Config {
        Config {
            lease: SHORT,
            timeout: SHORT / 2,
            ..self.config(prefix)
        }
    }

    /// A store beneath `/p/` that reaches it by a way which the test can close.
    pub async fn behind(&self) -> (Proxy, Arc<EtcdStore>) {
        self.by_way(self.config("p")).await
    }

    /// The same, with a lease that ends soon.
    pub async fn shortly_behind(&self) -> (Proxy, Arc<EtcdStore>) {
        self.by_way(self.short("p")).await
    }

    async fn by_way(&self, mut config: Config) -> (Proxy, Arc<EtcdStore>) {
        let way = Proxy::to(&self.url).await;
        config.endpoints = vec![way.url.clone()];
        let store = open(config).await.unwrap();
        (way, store)
    }
}

/// Leads as soon as nobody else does.
pub async fn lead(store: &EtcdStore) -> Leadership {
    let trying = async {
        loop {
            store.vacant().await;
            match store.lead().await {
                Ok(leadership) => return leadership,
                Err(error) if error.retryable() => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    within(trying).await
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future)
        .await
        .expect("it takes too long")
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < LIMIT, "it never came that {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
