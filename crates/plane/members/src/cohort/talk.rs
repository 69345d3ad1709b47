//! Asking and being asked, over connections that only those make who have the common token.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prism_identity::{ClusterId, CommonToken, Holder, Peer, connect_unjudged};
use prism_store::BoxFuture;
use prism_types::NodeId;
use rustls::{ClientConfig, ServerConfig};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::{Kept, Promise, Round, Said, Waits};
use crate::{MemberError, alpn, dial, exchange};

/// How long one connection may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Most connections that are answered at once; more are closed.
const GUESTS: usize = 64;
/// Most addresses that are asked.
pub(super) const ADDRESSES: usize = 64;
/// For how long somebody who has asked is asked back.
const CALLED: Duration = Duration::from_secs(15);
/// Longest address that is believed, in bytes.
const ADDRESS_MAX: usize = 300;

/// What is asked: who is there? Whoever asks says where it is, so that it is asked back.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    address: String,
}

/// What was heard at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A server that has the common token.
    Said(Said),
    /// A server of a cluster that does not, as it seems.
    Stranger(ClusterId),
}

/// Who has called, and when last.
type Callers = BTreeMap<String, Instant>;

/// A server that waits for others.
pub struct Cohort {
    me: Mutex<Waits>,
    callers: Mutex<Callers>,
    /// Where those were that it is promised with.
    peers: Mutex<Vec<String>>,
    accept: TlsAcceptor,
    connect: ClientConfig,
    room: Arc<Semaphore>,
}

impl std::fmt::Debug for Cohort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cohort").finish_non_exhaustive()
    }
}

/// How a server of a cluster takes in those who have the common token.
pub(crate) fn face(token: &CommonToken) -> Result<Arc<ServerConfig>, MemberError> {
    let (mut server, _) = token.tls()?;
    server.alpn_protocols = vec![alpn::COHORT.to_vec()];
    Ok(Arc::new(server))
}

/// Answers one who asks.
pub(crate) async fn answer<S>(stream: &mut S, said: &Said) -> io::Result<String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let hello: Hello = exchange::receive(stream).await?;
    exchange::send(stream, said).await?;
    tokio::io::AsyncWriteExt::shutdown(stream).await?;
    Ok(hello.address)
}

impl Cohort {
    /// One that says this of itself.
    ///
    /// # Errors
    /// When the library makes no certificate of the token, which it does.
    pub fn new(token: &CommonToken, me: Waits) -> Result<Arc<Self>, MemberError> {
        let (_, mut connect) = token.tls()?;
        connect.alpn_protocols = vec![alpn::COHORT.to_vec()];
        Ok(Arc::new(Self {
            me: Mutex::new(me),
            callers: Mutex::default(),
            peers: Mutex::default(),
            accept: face(token)?.into(),
            connect,
            room: Arc::new(Semaphore::new(GUESTS)),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Waits> {
        self.me.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn callers(&self) -> MutexGuard<'_, Callers> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who has called lately.
    fn called(&self) -> Vec<String> {
        let mut callers = self.callers();
        callers.retain(|_, at| at.elapsed() < CALLED);
        callers.keys().cloned().collect()
    }

    /// What it says of itself now.
    pub fn me(&self) -> Waits {
        self.lock().clone()
    }

    /// Says from now on what was kept.
    pub fn tell(&self, kept: &Kept) {
        let mut me = self.lock();
        me.epoch = kept.epoch;
        me.promise.clone_from(&kept.promise);
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.clone_from(&kept.peers);
    }

    /// Answers whoever comes, for as long as it is polled.
    pub fn serve<'a>(self: &'a Arc<Self>, listener: &'a TcpListener) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, from)) => {
                        let Ok(place) = self.room.clone().try_acquire_owned() else {
                            continue;
                        };
                        let cohort = self.clone();
                        tokio::spawn(async move {
                            let _place = place;
                            let answered = tokio::time::timeout(PATIENCE, cohort.welcome(stream));
                            if let Ok(Err(error)) = answered.await {
                                tracing::debug!(%from, %error, "who asked whether a cluster is to be founded is not answered");
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection of another server is not accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        })
    }

    async fn welcome(&self, stream: TcpStream) -> io::Result<()> {
        let mut stream = self.accept.accept(stream).await?;
        let mut me = self.me();
        // Those who were told of this server only find each other by it.
        me.told.extend(self.called());
        let said = Said::Waits(Box::new(me));
        let address = answer(&mut stream, &said).await?;
        if address.len() <= ADDRESS_MAX {
            let mut callers = self.callers();
            if callers.len() < ADDRESSES || callers.contains_key(&address) {
                callers.insert(address, Instant::now());
            }
        }
        Ok(())
    }

    /// Asks everybody: whom it was told of, whom those were told of, and who has asked.
    pub fn ask_all(&self) -> BoxFuture<'_, Round> {
        Box::pin(async move {
            let mut round = Round::default();
            let me = self.me();
            let mut boots: BTreeMap<NodeId, u64> = BTreeMap::from([(me.id, me.boot)]);
            let mut asked: BTreeSet<String> = BTreeSet::from([me.address.clone()]);
            let mut next: BTreeSet<String> = me.told.iter().cloned().collect();
            next.extend(self.called());
            // Those are asked too, but need not answer: they may be elsewhere by now.
            let peers = self
                .peers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            while asked.len() <= ADDRESSES {
                let room = ADDRESSES + 1 - asked.len();
                let known = next
                    .iter()
                    .chain(&peers)
                    .filter(|name| !asked.contains(*name));
                let fresh: BTreeSet<String> = known.take(room).cloned().collect();
                if fresh.is_empty() {
                    break;
                }
                let mut asking = tokio::task::JoinSet::new();
                for name in fresh {
                    asked.insert(name.clone());
                    let (connect, from) = (self.connect.clone(), me.address.clone());
                    asking.spawn(async move {
                        let heard = ask_name(&name, &connect, &from).await;
                        (name, heard)
                    });
                }
                while let Some(done) = asking.join_next().await {
                    let Ok((name, heard)) = done else { continue };
                    take(&mut round, &mut boots, &mut next, name, heard);
                }
            }
            let over: Vec<&String> = next.difference(&asked).collect();
            if let Some(name) = over.first() {
                let why = format!("more than {ADDRESSES} addresses were named");
                round.silent.push(((*name).clone(), why));
            }
            round.waits.remove(&me.id);
            round.silent.retain(|(name, _)| next.contains(name));
            round.silent.sort();
            let mut shown = self.lock();
            shown.view = round.waits.keys().copied().chain([me.id]).collect();
            shown.whole = round.silent.is_empty() && round.strangers.is_empty();
            round
        })
    }
}

/// Takes what was heard under a name into the round.
fn take(
    round: &mut Round,
    boots: &mut BTreeMap<NodeId, u64>,
    next: &mut BTreeSet<String>,
    name: String,
    heard: Result<Vec<Heard>, String>,
) {
    let all = match heard {
        Ok(all) => all,
        Err(why) => return round.silent.push((name, why)),
    };
    for heard in all {
        match heard {
            Heard::Stranger(cluster) => round.strangers.push((name.clone(), cluster)),
            Heard::Said(Said::Belongs(belongs)) => round.belongs.push(belongs),
            Heard::Said(Said::Waits(waits)) => {
                if *boots.entry(waits.id).or_insert(waits.boot) != waits.boot {
                    round.twice = Some(waits.id);
                }
                let fits = |name: &&String| name.len() <= ADDRESS_MAX;
                next.extend(waits.told.iter().filter(fits).take(ADDRESSES).cloned());
                round.waits.insert(waits.id, *waits);
            }
        }
    }
}

/// Asks at every address of a name: one has to answer.
async fn ask_name(name: &str, connect: &ClientConfig, from: &str) -> Result<Vec<Heard>, String> {
    let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host(name)).await;
    let found = found.map_err(|_| "its name is not found in time".to_owned())?;
    let found: Vec<SocketAddr> = found.map_err(|e| e.to_string())?.take(8).collect();
    let (mut all, mut last) = (Vec::new(), "its name has no address".to_owned());
    for address in found {
        match ask(address, connect, from).await {
            Ok(heard) => all.push(heard),
            Err(why) => last = why,
        }
    }
    if all.is_empty() { Err(last) } else { Ok(all) }
}

async fn ask(address: SocketAddr, connect: &ClientConfig, from: &str) -> Result<Heard, String> {
    let why = match said(address, connect, from).await {
        Ok(said) => return Ok(Heard::Said(said)),
        Err(why) => why,
    };
    // A server of a cluster that has no common token says nothing; its certificate tells whose it is.
    let Ok(Some(cluster)) = tokio::time::timeout(PATIENCE, whose(address)).await else {
        return Err(why);
    };
    // It may have founded in between, and then it answers now.
    Ok(match said(address, connect, from).await {
        Ok(said) => Heard::Said(said),
        Err(_) => Heard::Stranger(cluster),
    })
}

async fn said(address: SocketAddr, connect: &ClientConfig, from: &str) -> Result<Said, String> {
    let asked = tokio::time::timeout(PATIENCE, async {
        let mut stream = dial::reach(address, connect.clone(), alpn::COHORT).await?;
        let hello = Hello {
            address: from.to_owned(),
        };
        dial::ask::<_, Said>(address, &mut stream, &hello).await
    });
    match asked.await {
        Ok(Ok(said)) => Ok(said),
        Ok(Err(MemberError::NotTrusted { .. })) => Err("it has another common token".to_owned()),
        Ok(Err(MemberError::Unreachable { why, .. })) => Err(why.to_string()),
        Ok(Err(why)) => Err(why.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// Whose server listens at an address, as its certificate says: a hint, which makes hold back and nothing else.
async fn whose(address: SocketAddr) -> Option<ClusterId> {
    let stream = dial::reach(address, connect_unjudged().ok()?, alpn::JOIN).await;
    let stream = TlsStream::from(stream.ok()?);
    let (_, session) = stream.get_ref();
    let (leaf, rest) = session.peer_certificates()?.split_first()?;
    let Peer {
        holder: Holder { cluster, .. },
        ..
    } = Peer::of(leaf, rest).ok()?;
    Some(cluster)
}

impl Waits {
    /// What a server says of itself at its start.
    pub fn new(id: NodeId, name: prism_types::Name, address: String) -> Self {
        let mut boot = [0; 8];
        // Two processes that both get none look like one; the directory's lock keeps them apart on one machine.
        let _zero_will_do = getrandom::fill(&mut boot);
        Self {
            id,
            boot: u64::from_le_bytes(boot),
            name,
            address,
            expect: 1,
            epoch: 0,
            promise: None::<Promise>,
            view: BTreeSet::from([id]),
            whole: false,
            told: Vec::new(),
        }
    }
}
