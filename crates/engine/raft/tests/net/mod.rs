//! Servers in one process, with pipes between them that can be cut. Also for the tests of what uses the store.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};

use prism_raft::{Dial, Pipe, RaftStore};
use prism_store::BoxFuture;
use tokio::sync::Notify;

/// All servers that run, and which pairs hear nothing of each other.
#[derive(Debug, Default)]
pub struct Net {
    pub stores: Mutex<BTreeMap<u64, Arc<RaftStore>>>,
    pub cut: Mutex<BTreeSet<u64>>,
    changed: Notify,
}

impl Net {
    fn is_cut(&self, a: u64, b: u64) -> bool {
        let cut = self.cut.lock().unwrap();
        cut.contains(&a) || cut.contains(&b)
    }

    /// How this server reaches the others.
    pub fn dial(self: &Arc<Self>, me: u64) -> Arc<dyn Dial> {
        let net = self.clone();
        Arc::new(From { net, me })
    }

    /// This server can be reached from now on, as `at-` and its number.
    pub fn begins(&self, server: u64, store: &Arc<RaftStore>) {
        let old = self.stores.lock().unwrap().insert(server, store.clone());
        assert!(old.is_none());
    }

    /// Nobody hears of this server, nor it of anybody.
    pub fn cut_off(&self, server: u64) {
        self.cut.lock().unwrap().insert(server);
        self.changed.notify_waiters();
    }

    /// All hear of each other.
    pub fn heal(&self) {
        self.cut.lock().unwrap().clear();
    }
}

#[derive(Debug)]
struct From {
    net: Arc<Net>,
    me: u64,
}

impl Dial for From {
    fn dial(&self, server: u64, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Pipe>>> {
        let (net, me, address) = (self.net.clone(), self.me, address.to_owned());
        Box::pin(async move {
            assert_eq!(address, format!("at-{server}"));
            if net.is_cut(me, server) {
                return Err(io::Error::other("cut off"));
            }
            let store = net.stores.lock().unwrap().get(&server).cloned();
            let store = store.ok_or_else(|| io::Error::other("nobody is there"))?;
            let (near, far) = tokio::io::duplex(1 << 16);
            tokio::spawn(async move {
                let served = store.serve(far);
                let cut = async {
                    loop {
                        let changed = net.changed.notified();
                        if net.is_cut(me, server) {
                            return;
                        }
                        changed.await;
                    }
                };
                tokio::select! {
                    _ = served => {}
                    () = cut => {}
                }
            });
            Ok(Box::new(near) as Box<dyn Pipe>)
        })
    }
}
