//! The other side: a node that joins, comes for its session, and renews its certificate.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use prism_identity::{
    IdentityError, Issued, Issuer, JoinToken, Key, NotTrusted, Peer, Pin, Role, Root, Trust,
    connect, connect_pinned, life_of,
};
use prism_store::BoxFuture;
use prism_types::{Name, NodeId, Reason, Rejection};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::exchange::{
    self, Answer, AsServer, Ask, AskByVault, Directions, Given, GivenByVault, PATIENCE, WhoLeads,
};
use crate::{Authority, MemberError, Membership, Vaulted, alpn};

/// How often one is sent on to another server.
const HOPS: usize = 4;

/// Who wants to join.
#[derive(Clone, Debug)]
pub struct Joining {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: Name,
    /// Where the others reach it, `HOST:PORT`, if it wants to be a server.
    pub server: Option<String>,
    /// Whether it takes the cluster's state to be in an etcd; told by servers only, and refused when it is not so.
    pub on_etcd: bool,
    /// Whether it takes Vault to sign for the cluster; told by servers only, and refused when it is not so.
    pub by_vault: bool,
}

/// A connection for a session.
#[derive(Debug)]
pub struct Dialled {
    /// It.
    pub stream: TlsStream<TcpStream>,
    /// Which server is at the other end.
    pub peer: Peer,
    /// Where.
    pub address: SocketAddr,
    /// Whether the roots behind what it shows are others than those that are trusted here: the root is being changed, and it is time to
    /// renew.
    pub differs: bool,
}

/// Whether an error is a verdict on the other end's certificate.
fn verdict(error: &io::Error) -> bool {
    let tls = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
}

/// Whether the other end refused in these words of TLS.
fn is_alert(error: &io::Error, which: AlertDescription) -> bool {
    let tls = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::AlertReceived(said)) if *said == which)
}

pub(crate) async fn reach(
    address: SocketAddr,
    mut config: ClientConfig,
    protocol: &[u8],
) -> Result<TlsStream<TcpStream>, MemberError> {
    config.alpn_protocols = vec![protocol.to_vec()];
    let reached = async {
        let stream = TcpStream::connect(address).await?;
        let _best_effort = stream.set_nodelay(true);
        let name = ServerName::from(address.ip());
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    };
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    let reached = tokio::time::timeout(PATIENCE, reached).await.map_err(late);
    reached.and_then(|done| done).map_err(|why| {
        if verdict(&why) {
            let told = prism_identity::verdict(&why).map(ToString::to_string);
            let why = told.unwrap_or_else(|| why.to_string());
            MemberError::NotTrusted { address, why }
        } else if is_alert(&why, AlertDescription::NoApplicationProtocol) {
            let what = "that it speaks no version of the protocol that this node speaks";
            MemberError::Protocol { address, what }
        } else {
            MemberError::Unreachable { address, why }
        }
    })
}

pub(crate) async fn ask<Q: serde::Serialize, A: serde::de::DeserializeOwned>(
    address: SocketAddr,
    stream: &mut TlsStream<TcpStream>,
    question: &Q,
) -> Result<A, MemberError> {
    let asked = async {
        let sent = exchange::send(stream, question).await;
        // Whoever refuses says why before it closes, also when it did not read the question.
        match (sent, exchange::receive::<_, A>(stream).await) {
            (Err(sent), Err(why)) if !is_alert(&why, AlertDescription::CertificateRevoked) => {
                Err(sent)
            }
            (_, received) => received,
        }
    };
    match asked.await {
        Ok(answer) => Ok(answer),
        // Said by whoever has shown its own certificate before.
        Err(why) if is_alert(&why, AlertDescription::CertificateRevoked) => {
            Err(MemberError::KeptOut { address })
        }
        Err(why) if why.kind() == io::ErrorKind::InvalidData => Err(MemberError::Protocol {
            address,
            what: "its answer",
        }),
        Err(why) => Err(MemberError::Unreachable { address, why }),
    }
}

/// Looks whether a server of the cluster with this root is there. Nothing is asked of it.
///
/// # Errors
/// When none is, or it is of another cluster.
pub fn probe(address: SocketAddr, pin: Pin) -> BoxFuture<'static, Result<(), MemberError>> {
    Box::pin(async move {
        let mut stream = reach(address, connect_pinned(pin)?, alpn::JOIN).await?;
        // It is there; how the connection ends says nothing more.
        let _ended = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
        Ok(())
    })
}

/// The leader's address, as another server says it.
async fn led(from: SocketAddr, to: &str) -> Result<SocketAddr, MemberError> {
    let found = tokio::net::lookup_host(to).await;
    let found = found.ok().and_then(|mut all| all.next());
    found.ok_or(MemberError::Protocol {
        address: from,
        what: "an address of the leader that leads nowhere",
    })
}

/// What was given, if it is of this key.
fn issued(address: SocketAddr, key: &Key, given: &Given) -> Result<Issued, MemberError> {
    let leaf = given.chain.first().ok_or(MemberError::Protocol {
        address,
        what: "no certificate",
    })?;
    Ok(Issued {
        life: life_of(key, leaf)?,
        chain: given.chain.clone(),
    })
}

/// Becomes a member: the server proves by the token's pin that it is of the cluster that is meant, before it is sent anything. To be
/// kept at once ([`Membership::save`]); whoever has lost the answer joins again with the same key and token.
///
/// # Errors
/// When no server is there, it is not of that cluster, or it says no.
pub fn join<'a>(
    address: SocketAddr,
    token: &'a JoinToken,
    who: &'a Joining,
    key: Key,
) -> BoxFuture<'a, Result<Membership, MemberError>> {
    Box::pin(async move {
        let issuer = Key::generate()?;
        let mut address = address;
        for _ in 0..HOPS {
            let by_vault = who.by_vault && who.server.is_some();
            let protocol = match who.on_etcd && who.server.is_some() {
                _ if by_vault => alpn::JOIN_VAULT,
                true => alpn::JOIN_ETCD,
                false => alpn::JOIN,
            };
            let mut stream = reach(address, connect_pinned(token.pin)?, protocol).await?;
            let server = who.server.as_ref().map(|address| {
                Ok::<_, IdentityError>(AsServer {
                    request: issuer.request()?,
                    address: address.clone(),
                })
            });
            let question = Ask {
                token: token.id,
                secret: token.secret.expose(),
                node: who.node,
                name: who.name.clone(),
                request: key.request()?,
                server: server.transpose()?,
            };
            let answer = match by_vault {
                true => {
                    let question = AskByVault {
                        ask: question,
                        on_etcd: who.on_etcd,
                    };
                    ask(address, &mut stream, &question).await?
                }
                false => ask(address, &mut stream, &question).await?,
            };
            match answer {
                Answer::ByVault(given) if by_vault => return vaulted(address, who, key, *given),
                Answer::Given(given) if !by_vault => {
                    return member(address, who, key, issuer, *given);
                }
                Answer::Given(_) | Answer::ByVault(_) => return Err(other_role(address)),
                Answer::No(why) => return Err(why.into()),
                Answer::Elsewhere(leader) => address = led(address, &leader).await?,
            }
        }
        Err(undecided())
    })
}

fn undecided() -> MemberError {
    let why = "the servers send each other's callers back and forth: no leader is settled";
    MemberError::Refused(Rejection::retryable(Reason::NotLeader, why))
}

/// The member that one has become.
fn member(
    address: SocketAddr,
    who: &Joining,
    key: Key,
    issuer: Key,
    given: Given,
) -> Result<Membership, MemberError> {
    let issued = issued(address, &key, &given)?;
    let authority = match (given.server, &who.server) {
        (None, None) => None,
        (Some(server), Some(_)) => {
            let root_key = Key::from_pem(&server.root_key)?;
            Some(Authority {
                issuer: Issuer::new(given.cluster, issuer, server.issuer)?,
                root_key: Some(Root::load(given.cluster, root_key, server.root.clone())?),
                root: server.root,
                number: server.number,
                others: Vec::new(),
                also: None,
            })
        }
        _ => return Err(other_role(address)),
    };
    let role = match authority {
        Some(_) => Role::Server,
        None => Role::Worker,
    };
    Ok(Membership {
        cluster: given.cluster,
        node: who.node,
        role,
        key,
        chain: issued.chain,
        life: issued.life,
        roots: given.roots,
        authority,
        vault: None,
    })
}

fn other_role(address: SocketAddr) -> MemberError {
    let what = "a certificate for another role";
    MemberError::Protocol { address, what }
}

/// The server that one has become in a cluster whose certificates Vault signs.
fn vaulted(
    address: SocketAddr,
    who: &Joining,
    key: Key,
    answer: GivenByVault,
) -> Result<Membership, MemberError> {
    let GivenByVault {
        given,
        number,
        secret,
    } = answer;
    let issued = issued(address, &key, &given)?;
    let mut me = Membership {
        cluster: given.cluster,
        node: who.node,
        role: Role::Server,
        key,
        chain: Vec::new(),
        life: issued.life,
        roots: given.roots,
        authority: None,
        vault: Some(Vaulted { number, secret }),
    };
    me.take_signed(issued);
    Ok(me)
}

fn mutual(me: &Membership, trust: Arc<Trust>) -> Result<ClientConfig, IdentityError> {
    let noted = Arc::new(|why: &NotTrusted| tracing::warn!(%why, "a server is not to be trusted"));
    connect(trust, &[Role::Server], (&me.key, &me.chain), noted)
}

/// Comes for a session.
///
/// # Errors
/// When no server is there, or either does not trust the other.
pub fn dial_session(
    address: SocketAddr,
    me: &Membership,
    trust: Arc<Trust>,
) -> BoxFuture<'_, Result<Dialled, MemberError>> {
    dial(address, me, trust, alpn::SESSION)
}

/// A connection between members, for what the protocol says.
pub(crate) fn dial<'a>(
    address: SocketAddr,
    me: &'a Membership,
    trust: Arc<Trust>,
    protocol: &'static [u8],
) -> BoxFuture<'a, Result<Dialled, MemberError>> {
    Box::pin(async move {
        let stream = reach(address, mutual(me, trust.clone())?, protocol).await?;
        let shown = stream.get_ref().1.peer_certificates();
        let differs = shown.is_some_and(|chain| trust.differs(chain, crate::unix_now()));
        let peer = match shown.and_then(<[_]>::split_first) {
            Some((leaf, rest)) => Peer::of(leaf, rest).map_err(|why| why.to_string()),
            None => Err("it shows no certificate".to_owned()),
        };
        let peer = peer.map_err(|why| MemberError::NotTrusted { address, why })?;
        Ok(Dialled {
            stream,
            peer,
            address,
            differs,
        })
    })
}

/// Asks a server who leads.
///
/// # Errors
/// When no server is there, or either does not trust the other.
pub fn who_leads(
    address: SocketAddr,
    me: &Membership,
    trust: Arc<Trust>,
) -> BoxFuture<'_, Result<Directions, MemberError>> {
    Box::pin(async move {
        let mut dialled = dial(address, me, trust, alpn::WHERE).await?;
        let question = WhoLeads {
            address: None,
            token: None,
        };
        ask_directions(&mut dialled, question).await
    })
}

pub(crate) async fn ask_directions(
    dialled: &mut Dialled,
    question: WhoLeads,
) -> Result<Directions, MemberError> {
    ask(dialled.address, &mut dialled.stream, &question).await
}

/// Gets a new certificate for the key that this member has, and the roots that it is to trust from now on. To be kept at once.
///
/// # Errors
/// As of [`join`]; nothing changes then.
pub fn renew(
    address: SocketAddr,
    me: &mut Membership,
    trust: Arc<Trust>,
) -> BoxFuture<'_, Result<(), MemberError>> {
    Box::pin(async move {
        let mut address = address;
        for _ in 0..HOPS {
            let mut stream = reach(address, mutual(me, trust.clone())?, alpn::RENEW).await?;
            match ask(address, &mut stream, &me.key.request()?).await? {
                Answer::Given(given) => {
                    let issued = issued(address, &me.key, &given)?;
                    trust.set_roots(&given.roots)?;
                    me.renewed(issued);
                    me.roots = given.roots;
                    return Ok(());
                }
                Answer::ByVault(_) => return Err(other_role(address)),
                Answer::No(why) => return Err(why.into()),
                Answer::Elsewhere(leader) => address = led(address, &leader).await?,
            }
        }
        Err(undecided())
    })
}
