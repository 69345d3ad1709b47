//! A server's side: who is let in and with what certificate, and whom it shows itself as.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prism_control::{Control, Seat, Seats};
use prism_identity::{
    ClusterId, CommonToken, Denied, Fingerprint, IdentityError, JoinSecret, NotTrusted, Peer, Role,
    Trust, accept, accept_strangers, renew_at, requested,
};
use prism_state::{Command, Join, MemberRole, State, Whom};
use prism_store::{BoxFuture, Store};
use prism_types::{NodeId, Reason, Rejection};
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::alpn;
use crate::api::ApiFace;
use crate::cohort::Belongs;
use crate::exchange::{Answer, Ask, ForServer, Given};
use crate::guests::{Counts, Guests};
use crate::rotation::{PACE, Watch};
use crate::vault::{Beneath, other_issuer};
use crate::whereabouts::Whereabouts;
use crate::{Dialled, MemberError, Membership};

/// How soon a renewal that failed is tried again.
const AGAIN: Duration = Duration::from_secs(60);
/// Longest sleep until its own certificate is looked at.
const LOOK: Duration = Duration::from_secs(3600);
/// How often a server that does not lead looks whom the cluster keeps out.
const FOLLOW: Duration = Duration::from_secs(2);

/// A connection with another server at its end.
pub type Stream = TlsStream<TcpStream>;

/// What is done with one, until it ends; why, if what came was not taken (invalid data, or another error).
pub type Hook = Arc<dyn Fn(Stream) -> BoxFuture<'static, std::io::Result<()>> + Send + Sync>;

/// What a house is linked with.
#[derive(Clone)]
pub struct Links {
    /// Who leads.
    pub seats: Seats,
    /// What this server knows when it does not.
    pub store: Arc<dyn Store>,
    /// Where the others reach it.
    pub address: String,
    /// For connections that replicate the store, if there are other servers.
    pub raft: Option<Hook>,
    /// For connections with requests to the API.
    pub api: Option<Hook>,
    /// Whether an etcd keeps the cluster's state: servers that take it to be elsewhere are not let in.
    pub on_etcd: bool,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// What a connection may be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Join,
    JoinEtcd,
    JoinVault,
    Renew,
    Session,
    Where,
    Raft,
    Api,
    Root,
    Cohort,
}

impl Purpose {
    const ALL: [(Self, &[u8]); 10] = [
        (Self::Where, alpn::WHERE),
        (Self::Raft, alpn::RAFT),
        (Self::Api, alpn::API),
        (Self::Root, alpn::ROOT),
        (Self::Join, alpn::JOIN),
        (Self::JoinEtcd, alpn::JOIN_ETCD),
        (Self::JoinVault, alpn::JOIN_VAULT),
        (Self::Renew, alpn::RENEW),
        (Self::Session, alpn::SESSION),
        (Self::Cohort, alpn::COHORT),
    ];

    pub(crate) fn of(protocol: &[u8]) -> Option<Self> {
        let known = Self::ALL.iter().find(|(_, name)| *name == protocol);
        known.map(|(purpose, _)| *purpose)
    }
}

/// How it shows itself, for each purpose.
struct Faces {
    join: [Arc<ServerConfig>; 3],
    /// For what all members come for.
    members: [Arc<ServerConfig>; 3],
    /// For what only servers come for.
    servers: [Arc<ServerConfig>; 3],
}

/// A server of a cluster, to which others come.
pub struct House {
    pub(crate) links: Links,
    pub(crate) trust: Arc<Trust>,
    pub(crate) guests: Arc<Guests>,
    pub(crate) cluster: ClusterId,
    /// Whom the API takes for clients.
    pub(crate) client_trust: Arc<Trust>,
    pub(crate) api: Mutex<Option<ApiFace>>,
    pub(crate) rotation: Mutex<Watch>,
    /// What signs for members, if that is not the cluster's own authority.
    pub(crate) vault: OnceLock<Arc<prism_vault::Vault>>,
    me: Mutex<Membership>,
    faces: Mutex<Arc<Faces>>,
    pub(crate) whereabouts: Whereabouts,
    /// For those who have the common token, if this server was started with it.
    cohort: Mutex<Option<Arc<ServerConfig>>>,
}

impl std::fmt::Debug for House {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("House")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

/// Now, in Unix seconds.
pub fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

fn faces(me: &Membership, trust: &Arc<Trust>, guests: &Arc<Guests>) -> Result<Faces, MemberError> {
    let refused = || {
        let guests = Arc::clone(guests);
        Arc::new(move |why: &NotTrusted| {
            tracing::warn!(%why, "a connection is refused");
            guests.refuse(why.kind());
        })
    };
    let shown = (&me.key, &me.chain[..]);
    let mut with_root = me.chain.clone();
    with_root.extend(me.roots.iter().filter(|r| !me.chain.contains(r)).cloned());
    let speaks = |config: Result<ServerConfig, IdentityError>, protocol: &[u8]| {
        config.map(|mut config| {
            config.alpn_protocols = vec![protocol.to_vec()];
            Arc::new(config)
        })
    };
    let members: &'static [Role] = &[Role::Server, Role::Worker];
    let servers: &'static [Role] = &[Role::Server];
    let face =
        |roles, protocol: &[u8]| speaks(accept(trust.clone(), roles, shown, refused()), protocol);
    let stranger = |protocol: &[u8]| speaks(accept_strangers((&me.key, &with_root)), protocol);
    Ok(Faces {
        join: [
            stranger(alpn::JOIN)?,
            stranger(alpn::JOIN_ETCD)?,
            stranger(alpn::JOIN_VAULT)?,
        ],
        members: [
            face(members, alpn::RENEW)?,
            face(members, alpn::SESSION)?,
            face(members, alpn::WHERE)?,
        ],
        servers: [
            face(servers, alpn::RAFT)?,
            face(servers, alpn::API)?,
            face(servers, alpn::ROOT)?,
        ],
    })
}

pub(crate) fn no_issuer() -> Rejection {
    let why = "this server has no issuer, or not the root above it; ask another";
    Rejection::retryable(Reason::Unsupported, why)
}

/// A server that keeps the state elsewhere would never have it.
fn other_store(on_etcd: bool) -> Rejection {
    let why = match on_etcd {
        true => {
            "an etcd keeps this cluster's state, and a server that joins it has to use the same: start it with --store=etcd, \
             and the endpoints and the prefix of the other servers; the token is not used up"
        }
        false => {
            "this cluster's servers keep its state themselves: start this one without --store=etcd; the token is not used up"
        }
    };
    Rejection::new(Reason::Conflict, why)
}

/// Whom a state keeps out, and where the servers are.
fn kept_out(state: &State) -> (Denied, Vec<String>) {
    let mut denied = Denied::default();
    for record in state.denied() {
        match record.whom {
            Whom::Node(id) => denied.nodes.insert(id),
            Whom::Certificate(sha) => denied.certificates.insert(Fingerprint(sha)),
        };
    }
    denied.holders.extend(state.gone_servers().map(|s| s.id));
    let servers = state.servers().map(|s| s.address.clone()).collect();
    (denied, servers)
}

pub(crate) fn refusal(why: &IdentityError) -> Rejection {
    let reason = match why {
        IdentityError::Read { .. } => Reason::Invalid,
        IdentityError::Make { .. } | IdentityError::IssuerEnds { .. } => Reason::Internal,
    };
    Rejection::new(reason, why.to_string())
}

impl House {
    /// A server that is this member.
    ///
    /// # Errors
    /// When it is no server, or its certificate is not good.
    pub fn new(links: Links, me: Membership) -> Result<Arc<Self>, MemberError> {
        let trust = me.trust()?;
        let guests = Arc::default();
        Ok(Arc::new(Self {
            whereabouts: Whereabouts::new(&links.address),
            cohort: Mutex::default(),
            links,
            faces: Mutex::new(Arc::new(faces(&me, &trust, &guests)?)),
            client_trust: me.trust()?,
            api: Mutex::default(),
            rotation: Mutex::default(),
            vault: OnceLock::new(),
            trust,
            guests,
            cluster: me.cluster,
            me: Mutex::new(me),
        }))
    }

    /// A connection to another server (`HOST:PORT`), for what the protocol says.
    pub(crate) fn dial<'a>(
        &'a self,
        address: &'a str,
        protocol: &'static [u8],
    ) -> BoxFuture<'a, Result<Dialled, MemberError>> {
        Box::pin(async move {
            let me = self.me().copy()?;
            let mut last = None;
            let found = tokio::net::lookup_host(address).await;
            for address in found.map_err(|e| MemberError::Unknown(address.to_owned(), e))? {
                match crate::dial::dial(address, &me, self.trust.clone(), protocol).await {
                    Ok(dialled) => return Ok(dialled),
                    Err(why) => last = Some(why),
                }
            }
            let nothing = || std::io::Error::other("the name has no address");
            Err(last.unwrap_or_else(|| MemberError::Unknown(address.to_owned(), nothing())))
        })
    }

    /// A connection to another server that replicates the store.
    ///
    /// # Errors
    /// When no server is there, or either does not trust the other.
    pub fn dial_raft<'a>(
        &'a self,
        address: &'a str,
    ) -> BoxFuture<'a, Result<Dialled, MemberError>> {
        self.dial(address, alpn::RAFT)
    }

    /// A connection to another server for requests to the API.
    ///
    /// # Errors
    /// As of [`House::dial_raft`].
    pub fn dial_api<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<Dialled, MemberError>> {
        self.dial(address, alpn::API)
    }

    /// A connection to another server for the session of what runs work here.
    ///
    /// # Errors
    /// As of [`House::dial_raft`].
    pub fn dial_session<'a>(
        &'a self,
        address: &'a str,
    ) -> BoxFuture<'a, Result<Dialled, MemberError>> {
        self.dial(address, alpn::SESSION)
    }

    /// Which node this is.
    pub fn node(&self) -> NodeId {
        self.me().node
    }

    /// Of which cluster.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Learns whom the cluster keeps out before anybody comes; `dir` is where it keeps who it is.
    pub fn settle<'a>(&'a self, dir: &'a Path) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.follow(self.links.seats.here().as_ref(), dir).await;
        })
    }

    pub(crate) fn me(&self) -> MutexGuard<'_, Membership> {
        self.me.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is connected and who was refused.
    pub fn counts(&self) -> Counts {
        self.guests.counts()
    }

    /// Tells those who have the common token, from now on, which cluster there is and where they join it.
    ///
    /// # Errors
    /// When the library makes no certificate of the token, which it does.
    pub fn answer_cohort(&self, token: &CommonToken) -> Result<(), MemberError> {
        let face = crate::cohort::face(token)?;
        *self.cohort.lock().unwrap_or_else(PoisonError::into_inner) = Some(face);
        Ok(())
    }

    /// What it tells them.
    pub(crate) fn belongs(&self) -> Option<Belongs> {
        let me = self.me();
        Some(Belongs {
            cluster: self.cluster,
            pin: me.root_pin()?.0,
            address: self.links.address.clone(),
        })
    }

    /// How it shows itself to those who come for this, if it does.
    pub(crate) fn face(&self, purpose: Purpose) -> Option<Arc<ServerConfig>> {
        let faces = self.faces.lock().unwrap_or_else(PoisonError::into_inner);
        Some(match purpose {
            Purpose::Cohort => {
                let cohort = self.cohort.lock().unwrap_or_else(PoisonError::into_inner);
                return cohort.clone();
            }
            Purpose::Join => faces.join[0].clone(),
            Purpose::JoinEtcd => faces.join[1].clone(),
            Purpose::JoinVault => faces.join[2].clone(),
            Purpose::Renew => faces.members[0].clone(),
            Purpose::Session => faces.members[1].clone(),
            Purpose::Where => faces.members[2].clone(),
            Purpose::Raft => faces.servers[0].clone(),
            Purpose::Api => faces.servers[1].clone(),
            Purpose::Root => faces.servers[2].clone(),
        })
    }

    /// The leader, if it is here; otherwise what to answer.
    fn leader(&self) -> Result<Control, Answer> {
        match self.links.seats.now() {
            Seat::Here(control) => Ok(control),
            Seat::There(address) => Err(Answer::Elsewhere(address)),
            Seat::Nowhere => {
                let why = "no server leads the cluster now; nothing was changed: try again";
                Err(Answer::No(Rejection::retryable(Reason::NotLeader, why)))
            }
        }
    }

    /// Decides about a node that asks to join. The certificate is signed after the commit, but by Vault before it: that may fail.
    pub(crate) async fn admit(&self, ask: Ask, address: IpAddr, beneath: Beneath) -> Answer {
        if ask.server.is_some() && beneath.on_etcd != self.links.on_etcd {
            return Answer::No(other_store(self.links.on_etcd));
        }
        if ask.server.is_some() && beneath.by_vault != self.is_vaulted() {
            return Answer::No(other_issuer(self.is_vaulted()));
        }
        let control = match self.leader() {
            Ok(control) => control,
            Err(answer) => return answer,
        };
        self.admitted(&control, ask, address)
            .await
            .unwrap_or_else(Answer::No)
    }

    async fn admitted(
        &self,
        control: &Control,
        ask: Ask,
        address: IpAddr,
    ) -> Result<Answer, Rejection> {
        let key = requested(&ask.request).map_err(|why| refusal(&why))?;
        self.may_sign_with(control).await?;
        let (role, kind) = match ask.server {
            Some(_) => (Role::Server, MemberRole::Server),
            None => (Role::Worker, MemberRole::Worker),
        };
        let join = Join {
            token: ask.token,
            hash: JoinSecret::received(ask.secret).hash(),
            node: ask.node,
            role: kind,
            name: ask.name,
            key: key.0,
            address: address.to_canonical(),
            server: ask.server.as_ref().map(|s| s.address.clone()),
        };
        let signed = self
            .sign_first(control, &join, (&ask.request, role))
            .await?;
        control.propose(Command::Join(join), None).await?;
        let by_vault = signed.is_some();
        let mut given = match signed {
            Some(given) => given,
            None => self.sign(&ask.request, role, ask.node)?,
        };
        if let Some(server) = ask.server {
            let number = control.read(|s| s.server(ask.node).map(|s| s.number)).await;
            let number = number.ok_or_else(|| {
                Rejection::retryable(Reason::Internal, "the new server has no number yet")
            })?;
            if by_vault {
                return Ok(Answer::ByVault(Box::new(self.as_vaulted(given, number)?)));
            }
            given.server = Some(self.as_server(&server.request, ask.node, number)?);
        }
        Ok(Answer::Given(Box::new(given)))
    }

    /// What a new server is given beside its certificate.
    fn as_server(&self, request: &[u8], node: NodeId, number: u64) -> Result<ForServer, Rejection> {
        let me = self.me();
        let authority = me.authority.as_ref().ok_or_else(no_issuer)?;
        let issuer = authority.sign_issuer(request, node, unix_now());
        let root_key = authority.root_key.as_ref().ok_or_else(no_issuer)?;
        Ok(ForServer {
            number,
            issuer: issuer.map_err(|why| refusal(&why))?,
            root: authority.root.clone(),
            root_key: root_key.key().to_pem(),
        })
    }

    /// A new certificate for a member, for the key that it joined with.
    pub(crate) async fn renew(&self, peer: &Peer, request: &[u8]) -> Answer {
        let control = match self.leader() {
            Ok(control) => control,
            Err(answer) => return answer,
        };
        self.renewed(&control, peer, request)
            .await
            .map_or_else(Answer::No, |given| Answer::Given(Box::new(given)))
    }

    async fn renewed(
        &self,
        control: &Control,
        peer: &Peer,
        request: &[u8],
    ) -> Result<Given, Rejection> {
        let id = peer.holder.id;
        let key = requested(request).map_err(|why| refusal(&why))?;
        self.may_sign_with(control).await?;
        let known = control.read(|s| s.member(id).map(|m| m.key)).await;
        control.confirm().await?;
        if known != Some(key.0) {
            return Err(Rejection::new(
                Reason::Forbidden,
                format!("node {id} is no member with this key; it is to join again"),
            ));
        }
        let signed = self.sign_by_vault(request, peer.holder.role, id).await?;
        signed.map_or_else(|| self.sign(request, peer.holder.role, id), Ok)
    }

    fn sign(&self, request: &[u8], role: Role, id: NodeId) -> Result<Given, Rejection> {
        let me = self.me();
        let authority = me.authority.as_ref().ok_or_else(no_issuer)?;
        let issued = authority.sign(request, role, id, unix_now());
        let issued = issued.map_err(|why| refusal(&why))?;
        Ok(Given {
            cluster: self.cluster,
            chain: issued.chain,
            roots: me.roots.clone(),
            server: None,
        })
    }

    /// Follows whom the cluster keeps out, and renews this server's own certificate in time, until it is told to stop.
    pub fn tend(self: Arc<Self>, dir: PathBuf, stop: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut seats = self.links.seats.clone();
            let mut jitter = [0; 4];
            let _zero_will_do = getrandom::fill(&mut jitter);
            let jitter = u32::from_le_bytes(jitter);
            let mut failed = false;
            let vaulted = self.is_vaulted();
            if vaulted {
                tokio::spawn(
                    self.clone()
                        .renew_by_vault(dir.clone(), jitter, stop.clone()),
                );
            }
            loop {
                let here = match seats.look() {
                    Seat::Here(control) => Some(control),
                    _ => None,
                };
                let mut admission = here.as_ref().map(Control::admission_changed);
                let mut news = async || {
                    let told = match &mut admission {
                        Some(admission) => admission.changed().await.is_ok(),
                        None => false,
                    };
                    if !told {
                        tokio::time::sleep(FOLLOW).await;
                    }
                };
                let rotating = self.follow(here.as_ref(), &dir).await;
                let at = renew_at(self.me().life, jitter);
                let at = self.api_renewal(jitter).map_or(at, |api| api.min(at));
                let at = if vaulted { i64::MAX } else { at };
                let left = u64::try_from(at.saturating_sub(unix_now())).unwrap_or(0);
                let wait = match (left, failed) {
                    (0, true) => AGAIN,
                    (left, _) => Duration::from_secs(left).min(LOOK),
                };
                let wait = if rotating { wait.min(PACE) } else { wait };
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = seats.changed() => {}
                    () = news() => {}
                    () = tokio::time::sleep(wait) => {}
                }
                if unix_now() >= at {
                    let renewed = self.renew_own(&dir);
                    failed = renewed.is_err();
                    if let Err(why) = renewed {
                        tracing::error!(%why, "this server's certificate is not renewed; it is tried again");
                    }
                }
            }
        })
    }

    /// Takes over whom the cluster keeps out now, and sends those of them away who are connected; goes on with a change of the root, and
    /// says whether one is under way.
    async fn follow(&self, leader: Option<&Control>, dir: &Path) -> bool {
        let all = |s: &State| (kept_out(s), s.rotation().cloned());
        let ((denied, servers), rotation) = match leader {
            Some(control) => control.read(all).await,
            None => match prism_control::admission(&*self.links.store).await {
                Ok(state) => all(&state),
                Err(why) => {
                    tracing::debug!(%why, "whom the cluster keeps out is not read");
                    return false;
                }
            },
        };
        self.whereabouts.set_servers(servers);
        self.client_trust.set_denied(denied.clone());
        self.trust.set_denied(denied);
        self.guests.judge_again(&self.trust);
        self.follow_rotation(rotation, (leader, dir)).await
    }

    /// Shows itself as it is from now on.
    pub(crate) fn show(&self, me: &Membership) -> Result<(), MemberError> {
        let faces = Arc::new(faces(me, &self.trust, &self.guests)?);
        *self.faces.lock().unwrap_or_else(PoisonError::into_inner) = faces;
        self.renew_api(me)
    }

    fn renew_own(&self, dir: &Path) -> Result<(), MemberError> {
        let mut me = self.me();
        me.renew_own(unix_now())?;
        me.save(dir)?;
        self.show(&me)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prism_identity::{Key, Pin};
    use prism_state::MemberRecord;
    use prism_types::{Id, NodeId, TimeMs};

    #[tokio::test]
    async fn a_certificate_is_renewed_for_the_key_that_joined_only() {
        let stop = CancellationToken::new();
        let store = Arc::new(prism_store_kit::FakeStore::default());
        let (control, leader) = prism_control::open(store.clone()).await.unwrap();
        tokio::spawn(leader.run(stop.clone()));
        let node = NodeId::new(1, 1);
        let me = Membership::found(ClusterId(Id::new(1, 2)), node, unix_now()).unwrap();
        let (leaf, rest) = me.chain.split_first().unwrap();
        let rest: Vec<_> = rest.iter().map(|c| c.clone().into()).collect();
        let peer = Peer::of(&leaf.clone().into(), &rest).unwrap();
        let (own, other) = (me.key.request().unwrap(), Key::generate().unwrap());
        let founder = |key: Pin| MemberRecord {
            id: node,
            role: MemberRole::Server,
            name: "s".parse().unwrap(),
            key: key.0,
            labels: prism_types::Labels::default(),
            token: None,
            joined: TimeMs(0),
        };
        let key = me.key.pin();
        let (seat, seats) = Seats::new();
        let links = Links {
            seats,
            store,
            address: "10.0.0.1:4200".to_owned(),
            raft: None,
            api: None,
            on_etcd: false,
        };
        let house = House::new(links, me).unwrap();
        let renewed = async |request: &[u8]| match house.renew(&peer, request).await {
            Answer::Given(given) => Ok(given.cluster),
            Answer::No(why) => Err(why.reason),
            Answer::Elsewhere(_) => Err(Reason::NotLeader),
            Answer::ByVault(_) => Err(Reason::Internal),
        };
        assert_eq!(renewed(&own).await, Err(Reason::NotLeader), "nobody leads");
        seat.send_replace(Seat::There("10.0.0.2:4200".to_owned()));
        let sent_on = house.renew(&peer, &own).await;
        assert!(matches!(sent_on, Answer::Elsewhere(to) if to == "10.0.0.2:4200"));
        seat.send_replace(Seat::Here(control.clone()));
        assert_eq!(renewed(&own).await, Err(Reason::Forbidden), "no member");
        let found = Command::Found {
            member: founder(key),
            address: "10.0.0.1:4200".to_owned(),
        };
        control.propose(found, None).await.unwrap();
        assert_eq!(renewed(&own).await, Ok(house.cluster));
        let swapped = renewed(&other.request().unwrap()).await;
        assert_eq!(swapped, Err(Reason::Forbidden));
        let mut damaged = own.clone();
        damaged[100] ^= 1;
        assert_eq!(renewed(&damaged).await, Err(Reason::Invalid));
        stop.cancel();
    }
}
