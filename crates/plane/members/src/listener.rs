//! The listener to which members come. Until it is known who somebody is, they have a place for ten seconds at most, and when all
//! places are taken the one who has been there longest goes: who says nothing keeps nobody out who does.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prism_control::Control;
use prism_identity::{Peer, handshake_kind, is_judged};
use prism_store::BoxFuture;
use prism_types::NodeId;
use prism_wire::{WireError, versions};
use rustls::server::Acceptor;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::cohort::Said;
use crate::exchange::{self, Answer, AskByVault, PATIENCE, WhoLeads};
use crate::house::{Hook, House, Purpose};
use crate::rotation::AskRoot;
use crate::vault::Beneath;

/// Most who are not known yet, usually.
pub const UNKNOWN: usize = 1_024;

/// How long nobody is accepted after the system has refused to.
const BREATH: Duration = Duration::from_millis(50);

/// Those who are not known yet, in the order in which they came.
#[derive(Default)]
struct Hall(Mutex<BTreeMap<u64, CancellationToken>>);

/// A place there.
struct Place {
    hall: Arc<Hall>,
    number: u64,
    /// Cancelled when it is to be left.
    leave: CancellationToken,
}

impl Hall {
    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one in, and sends the first away if there are more than `most`; says whether it did.
    fn enter(self: &Arc<Self>, number: u64, most: usize) -> (Place, bool) {
        let leave = CancellationToken::new();
        let mut all = self.all();
        all.insert(number, leave.clone());
        let full = all.len() > most;
        if full && let Some((_, first)) = all.pop_first() {
            first.cancel();
        }
        let place = Place {
            hall: Arc::clone(self),
            number,
            leave,
        };
        (place, full)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.hall.all().remove(&self.number);
    }
}

/// How a connection ended, if not well.
enum Ended {
    /// Nobody was refused, or it was counted and told of where it was.
    Over(io::Error),
    /// What came was not taken; a word for why.
    Refused(&'static str, io::Error),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Refused(handshake_kind(&error), error)
    }
}

impl From<WireError> for Ended {
    fn from(why: WireError) -> Self {
        let reason = match &why {
            WireError::Stranger | WireError::Protocol(_) => "malformed",
            WireError::Version { .. } => "version",
            WireError::Silent(_) => "silent",
            WireError::Closed | WireError::Broken(_) => "broken_off",
            WireError::Over => return Self::Over(io::Error::other(why)),
        };
        Self::Refused(reason, io::Error::other(why))
    }
}

/// Of one that is not to be counted as refused, or was.
fn over(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Ended {
    Ended::Over(io::Error::other(why))
}

/// Takes in who comes until it is told to stop, which also ends all connections. At most so many may be unknown at once.
pub fn serve(
    listener: TcpListener,
    house: Arc<House>,
    unknown: usize,
    stop: CancellationToken,
) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let (hall, mut count) = (Arc::new(Hall::default()), 0);
        let stop = stop.child_token();
        let _all_leave = stop.clone().drop_guard();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, from)) => {
                    count += 1;
                    let (place, full) = hall.enter(count, unknown);
                    if full {
                        house.guests.refuse("too_many");
                    }
                    tokio::spawn(welcome(stream, from, house.clone(), place, stop.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection of a member is not accepted");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    })
}

async fn welcome(
    stream: TcpStream,
    from: SocketAddr,
    house: Arc<House>,
    place: Place,
    stop: CancellationToken,
) {
    // Small messages that are waited for.
    let _best_effort = stream.set_nodelay(true);
    // What is large and soon over is on the heap by itself here and below, so that what stays for days is small.
    let shaking = Box::pin(tokio::time::timeout(PATIENCE, shake(stream, &house)));
    let shaken = tokio::select! {
        shaken = shaking => shaken,
        () = place.leave.cancelled() => return,
    };
    let (purpose, mut stream) = match shaken {
        Ok(Ok(shaken)) => shaken,
        Ok(Err(error)) => {
            // A verdict on a certificate was counted and told of where it was given.
            if !is_judged(&error) {
                let reason = handshake_kind(&error);
                house.guests.refuse(reason);
                tracing::info!(%from, reason, %error, "a connection of a member is refused");
            }
            return;
        }
        Err(_) => return house.guests.refuse("silent"),
    };
    let leave = place.leave.clone();
    let done = match purpose {
        Purpose::Join | Purpose::JoinEtcd | Purpose::JoinVault => tokio::select! {
            done = Box::pin(join(&mut stream, from.ip(), &house, purpose)) => done,
            () = leave.cancelled() => return,
        },
        Purpose::Renew => Box::pin(renew(&mut stream, &house)).await,
        Purpose::Where => Box::pin(directions(&mut stream, &house)).await,
        Purpose::Root => Box::pin(root(&mut stream, &house)).await,
        Purpose::Cohort => Box::pin(cohort(&mut stream, &house)).await,
        Purpose::Raft | Purpose::Api => {
            drop(place);
            let hook = match purpose {
                Purpose::Raft => house.links.raft.clone(),
                _ => house.links.api.clone(),
            };
            Box::pin(linked(stream, &house, hook, &stop)).await
        }
        Purpose::Session => {
            drop(place);
            Box::pin(session(stream, &house, &stop)).await
        }
    };
    match done {
        Ok(()) => {}
        Err(Ended::Over(error)) => {
            tracing::info!(%from, ?purpose, %error, "a connection of a member ends");
        }
        Err(Ended::Refused(reason, error)) => {
            house.guests.refuse(reason);
            tracing::info!(%from, ?purpose, reason, %error, "a connection of a member is refused");
        }
    }
}

/// Learns what a connection is for, and who is at its other end as far as that asks for it.
async fn shake(stream: TcpStream, house: &House) -> io::Result<(Purpose, TlsStream<TcpStream>)> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let asked = start.client_hello().alpn();
    let asked: Vec<&[u8]> = asked.into_iter().flatten().collect();
    let strange = |why: String| io::Error::new(io::ErrorKind::Unsupported, why);
    let Some(purpose) = asked.iter().find_map(|name| Purpose::of(name)) else {
        let why = other_version(&asked);
        // Refused in TLS's own words, so that it learns why.
        if let Some(face) = house.face(Purpose::Join) {
            let _refused = start.into_stream(face).await;
        }
        return Err(strange(why));
    };
    let face = house.face(purpose);
    let face = face.ok_or_else(|| strange("this server has no common token".to_owned()))?;
    let stream = start.into_stream(face).await?;
    Ok((purpose, stream))
}

/// Why none of these protocols is spoken here.
fn other_version(asked: &[&[u8]]) -> String {
    let ours = |name: &&&[u8]| name.starts_with(b"prism/");
    let Some(name) = asked.iter().find(ours) else {
        return "it speaks no protocol of ours".to_owned();
    };
    let name: String = String::from_utf8_lossy(name).chars().take(40).collect();
    let of = name.rsplit_once('/').map_or(&*name, |(of, _)| of);
    format!(
        "it speaks {name:?}, and here {of}/1 is needed; bring the older one within one version of the other"
    )
}

/// A session that did not begin; one of another version is told by its name.
async fn not_begun(control: &Control, member: NodeId, why: WireError) -> Ended {
    let WireError::Version {
        theirs_min,
        theirs_max,
        ours_min,
        ours_max,
    } = why
    else {
        return why.into();
    };
    let name = control.read(|s| s.member(member).map(|m| m.name.to_string()));
    let name = name.await.unwrap_or_else(|| member.to_string());
    let why = format!(
        "{name} speaks {}, cluster needs {}",
        versions(theirs_min, theirs_max),
        versions(ours_min, ours_max)
    );
    tracing::warn!(%member, %why, "a node of another version is not let in");
    Ended::Refused("version", io::Error::other(why))
}

async fn join(
    stream: &mut TlsStream<TcpStream>,
    from: IpAddr,
    house: &House,
    purpose: Purpose,
) -> Result<(), Ended> {
    let by_vault = purpose == Purpose::JoinVault;
    let AskByVault { ask, on_etcd } = match by_vault {
        true => exchange::receive(stream).await?,
        false => AskByVault {
            ask: exchange::receive(stream).await?,
            on_etcd: purpose == Purpose::JoinEtcd,
        },
    };
    let (node, name) = (ask.node, ask.name.clone());
    let beneath = Beneath { on_etcd, by_vault };
    let answer = house.admit(ask, from, beneath).await;
    match &answer {
        Answer::Given(_) | Answer::ByVault(_) => {
            tracing::info!(%node, %name, %from, "a node has joined");
        }
        Answer::Elsewhere(leader) => {
            tracing::debug!(%node, %leader, "a node is sent to the leader")
        }
        Answer::No(why) => {
            house.guests.refuse("join");
            tracing::warn!(%node, %name, %from, %why, "a node is not let in");
        }
    }
    Ok(tell(stream, &answer).await?)
}

async fn renew(stream: &mut TlsStream<TcpStream>, house: &House) -> Result<(), Ended> {
    let peer = peer(stream)?;
    let request: Vec<u8> = exchange::receive(stream).await?;
    let answer = house.renew(&peer, &request).await;
    if let Answer::No(why) = &answer {
        house.guests.refuse("renew");
        tracing::warn!(member = %peer.holder, %why, "a certificate is not renewed");
    }
    Ok(tell(stream, &answer).await?)
}

async fn root(stream: &mut TlsStream<TcpStream>, house: &House) -> Result<(), Ended> {
    let peer = peer(stream)?;
    let question: AskRoot = exchange::receive(stream).await?;
    let answer = house.give_root(&question);
    tracing::info!(server = %peer.holder.id, given = answer.is_some(), "a server asks for the key of a root");
    Ok(tell(stream, &answer).await?)
}

async fn directions(stream: &mut TlsStream<TcpStream>, house: &House) -> Result<(), Ended> {
    let peer = peer(stream)?;
    note_root(stream, &peer, house);
    let question: WhoLeads = exchange::receive(stream).await?;
    Ok(tell(stream, &house.directions(&peer, question).await).await?)
}

/// Says to one that waits for others that there is a cluster.
async fn cohort(stream: &mut TlsStream<TcpStream>, house: &House) -> Result<(), Ended> {
    let belongs = house.belongs();
    let belongs = belongs.ok_or_else(|| io::Error::other("this server has no root"))?;
    let said = Said::Belongs(belongs);
    let told = crate::cohort::answer(stream, &said);
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the answer is not read");
    tokio::time::timeout(PATIENCE, told).await.map_err(late)??;
    Ok(())
}

/// A connection with another server, until either is told to end it.
async fn linked(
    stream: TlsStream<TcpStream>,
    house: &House,
    hook: Option<Hook>,
    stop: &CancellationToken,
) -> Result<(), Ended> {
    let guest = house.guests.enter(peer(&stream)?, &house.trust);
    let guest = guest.map_err(|why| Ended::Refused(why.kind(), io::Error::other(why)))?;
    let hook = hook.ok_or_else(|| over("this server is alone"))?;
    let served = tokio::select! {
        served = hook(stream) => served,
        () = guest.leave.cancelled() => Ok(()),
        () = stop.cancelled() => Ok(()),
    };
    served.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => Ended::Refused("malformed", error),
        io::ErrorKind::Other => Ended::Refused("protocol", error),
        // Servers come and go.
        _ => Ended::Over(error),
    })
}

async fn tell<T: serde::Serialize>(
    stream: &mut TlsStream<TcpStream>,
    answer: &T,
) -> io::Result<()> {
    let told = async {
        exchange::send(stream, answer).await?;
        tokio::io::AsyncWriteExt::shutdown(stream).await
    };
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the answer is not read");
    tokio::time::timeout(PATIENCE, told).await.map_err(late)?
}

/// Notes whether somebody has a certificate of the new root, while the root is changed.
fn note_root(stream: &TlsStream<TcpStream>, peer: &Peer, house: &House) {
    if let Some(chain) = stream.get_ref().1.peer_certificates() {
        house.saw(peer.holder.id, chain);
    }
}

fn peer(stream: &TlsStream<TcpStream>) -> io::Result<Peer> {
    let shown = stream.get_ref().1.peer_certificates();
    match shown.and_then(<[_]>::split_first) {
        Some((leaf, rest)) => Peer::of(leaf, rest).map_err(io::Error::other),
        None => Err(io::Error::other("it shows no certificate")),
    }
}

async fn session(
    stream: TlsStream<TcpStream>,
    house: &House,
    stop: &CancellationToken,
) -> Result<(), Ended> {
    let peer = peer(&stream)?;
    note_root(&stream, &peer, house);
    let member = peer.holder.id;
    let guest = house.guests.enter(peer, &house.trust);
    let guest = guest.map_err(|why| Ended::Refused(why.kind(), io::Error::other(why)))?;
    let control = house.links.seats.here();
    let control = control.ok_or_else(|| over("this server does not lead"))?;
    let (end, far) = prism_link::pair();
    let carried = Box::pin(prism_wire::carry_control(stream, far)).await;
    let (link, carried) = match carried {
        // In a task of its own: what a frame wakes looks at the stream and not at all that may end the session, and the other way round.
        Ok((link, carried)) => (link, AbortOnDropHandle::new(tokio::spawn(carried))),
        Err(why) => return Err(not_begun(&control, member, why).await),
    };
    let name = control.read(|s| s.member(member).map(|m| m.name.clone()));
    let node = Arc::new(match name.await {
        Some(name) => link.node.named(name.as_str()),
        None => link.node,
    });
    let mut serving = std::pin::pin!(control.serve_member(member, end, node));
    // What carries ends first, and with it the session: it is to be closed as every other.
    let gone = async {
        tokio::select! {
            why = carried => {
                let why = why.unwrap_or_else(|panic| WireError::Broken(io::Error::other(panic)));
                if let WireError::Protocol(_) = &why {
                    house.guests.refuse("malformed");
                }
                tracing::info!(node = %member, %why, "a worker's connection is over");
            }
            () = guest.leave.cancelled() => {}
            () = stop.cancelled() => {}
            () = house.links.seats.over(&control) => {}
        }
    };
    let served = tokio::select! {
        served = &mut serving => served,
        () = gone => serving.await,
    };
    served.map_err(|why| {
        house.guests.refuse("session");
        tracing::warn!(node = %member, %why, "a session is refused");
        over(why)
    })
}
