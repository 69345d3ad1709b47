//! The API's way out of this machine: with a certificate of the cluster's own authority, or with files, which are read again when they
//! change. And what the gateway asks of the authority.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use prism_control::Seats;
use prism_gateway::{Authority, Face};
use prism_identity::{NotTrusted, Pin, Trust, accept_api_files, certificates_in, pins_in};
use prism_members::{House, Links};
use prism_store::BoxFuture;
use prism_types::{Reason, Rejection, TokenId};
use rustls::ServerConfig;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::NodeConfig;
use crate::keeper::Keeper;
use crate::members::Opening;
use crate::node::NodeError;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// Most addresses of this machine that are in its certificate.
const LOCAL_MAX: usize = 64;
/// A larger file is none of these.
const FILE_MAX: u64 = 1 << 20;

/// A certificate for the API that somebody else has signed (PEM).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// It, and those above it that clients do not know.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Authorities above it, shown along, so that clients may pin one of them.
    pub authorities: Option<PathBuf>,
}

/// The gateway's way to the authority. It is given out before there is one: what needs it is made first.
#[derive(Debug)]
pub(crate) struct Desk {
    house: OnceLock<Arc<House>>,
    data: PathBuf,
}

impl Desk {
    pub(crate) fn new(data: &Path) -> Arc<Self> {
        Arc::new(Self {
            house: OnceLock::new(),
            data: data.to_owned(),
        })
    }

    pub(crate) fn open(&self, house: Arc<House>) {
        // Opened once, at the start.
        let _twice = self.house.set(house);
    }

    /// What is sealed among servers is sealed with the first, and may be with any of the others while the root is changed.
    pub(crate) fn sealing_secrets(&self) -> Option<Vec<[u8; 32]>> {
        self.house.get().map(|house| house.sealing_secrets())
    }

    fn house(&self) -> Result<&Arc<House>, Rejection> {
        self.house.get().ok_or_else(|| {
            let why =
                "this server has no authority: start it with --serf, or with an API off loopback";
            Rejection::new(Reason::Unsupported, why)
        })
    }
}

impl Authority for Desk {
    fn roots(&self) -> Vec<Vec<u8>> {
        self.house().map_or_else(|_| Vec::new(), |h| h.roots())
    }

    fn root(&self) -> Result<Vec<u8>, Rejection> {
        self.house()?.root()
    }

    fn sign_client(
        &self,
        request: &[u8],
        id: TokenId,
        until: i64,
    ) -> Result<Vec<Vec<u8>>, Rejection> {
        self.house()?.sign_client(request, id, until)
    }

    fn next_root(&self) -> BoxFuture<'_, Result<Vec<u8>, Rejection>> {
        Box::pin(async move {
            let house = self.house()?;
            if house.issuer().is_some() {
                return house.next_vault_root().await;
            }
            let made = house.next_root(&self.data);
            made.map_err(|why| Rejection::new(Reason::Internal, why.to_string()))
        })
    }

    fn issuer(&self) -> Option<String> {
        self.house().ok()?.issuer()
    }

    fn api_pin(&self) -> Option<Pin> {
        let house = self.house().ok()?;
        house.issuer()?;
        house.api_pin().ok()
    }

    fn may_finish(&self) -> Result<(), Rejection> {
        self.house().map_or(Ok(()), |house| house.may_finish())
    }

    fn refused(&self) -> BTreeMap<&'static str, u64> {
        let counts = self.house().map(|house| house.counts());
        counts.map_or_else(|_| BTreeMap::new(), |counts| counts.refused)
    }
}

/// How the API is served.
pub(crate) struct Served {
    pub(crate) face: Option<Face>,
    /// What those who use it from here pin.
    pub(crate) pin: Option<Pin>,
}

/// The addresses of this machine, as the kernel says. Those that come later are not in its certificate; pins do not ask for them.
fn local() -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let trie = read("/proc/net/fib_trie");
    let lines: Vec<&str> = trie.lines().collect();
    let four = lines
        .windows(2)
        .filter(|two| two[1].contains("/32 host LOCAL"));
    let four = four.filter_map(|two| two[0].split_once("|-- ").map(|(_, a)| a.trim().to_owned()));
    let all = read("/proc/net/if_inet6");
    let six = all.lines().filter_map(|line| {
        let bits = u128::from_str_radix(line.split_whitespace().next()?, 16).ok()?;
        let address = std::net::Ipv6Addr::from(bits);
        // One of a single link is no use without its name.
        (!address.is_unicast_link_local()).then(|| address.to_string())
    });
    let mut all: Vec<String> = four.chain(six).collect();
    all.truncate(LOCAL_MAX);
    all
}

/// The names and addresses at which a server is reached.
fn names(config: &NodeConfig, api: SocketAddr, advertised: Option<&str>) -> Vec<String> {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy().into_owned();
    let told = |text: &str| {
        let text = text.rsplit_once(':').map_or(text, |(host, _)| host);
        text.trim_matches(['[', ']']).to_owned()
    };
    let mut all = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
        host,
    ];
    all.extend(config.name.as_ref().map(ToString::to_string));
    all.extend(advertised.map(told));
    if api.ip().is_unspecified() {
        all.extend(local());
    } else {
        all.push(api.ip().to_string());
    }
    let mut known = std::collections::BTreeSet::new();
    let fits = |name: &String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':');
        !name.is_empty() && name.len() < 254 && name.chars().all(plain)
    };
    all.retain(|name| fits(name) && known.insert(name.clone()));
    all
}

/// Makes ready what the API shows, as far as it is to be served with TLS. `house`: of a server to which members come.
pub(crate) async fn serve(
    config: &NodeConfig,
    (api, seats, store): (SocketAddr, &Seats, &Keeper),
    (opening, house, desk): (&mut Opening, Option<Arc<House>>, &Desk),
    (tasks, stop): (&mut Vec<JoinHandle<()>>, &CancellationToken),
) -> Result<Served, NodeError> {
    let house = match (house, opening.me.take()) {
        (Some(house), _) => Some(house),
        // Nobody comes to it, but it signs for itself and for those who use it.
        (None, Some(me)) if config.api_tls => {
            let links = Links {
                seats: seats.clone(),
                store: store.store(),
                address: String::new(),
                on_etcd: matches!(store, Keeper::Etcd(_)),
                raft: None,
                api: None,
            };
            let house = House::new(links, me).map_err(NodeError::Member)?;
            if let Some(vault) = &opening.vault {
                house.issue_by(vault.clone());
            }
            let tend = house.clone().tend(config.data_dir.clone(), stop.clone());
            tasks.push(tokio::spawn(tend));
            Some(house)
        }
        (None, _) => None,
    };
    if let Some(house) = &house {
        desk.open(house.clone());
    }
    if !config.api_tls {
        return Ok(Served {
            face: None,
            pin: None,
        });
    }
    if let Some(files) = &config.tls {
        let trust = house.as_ref().map(|house| house.client_trust());
        let (shown, pin) = Shown::open(files.clone(), trust).map_err(NodeError::TlsFiles)?;
        tasks.push(tokio::spawn(shown.clone().tend(stop.clone())));
        let face: Face = Arc::new(move || shown.now());
        return Ok(Served {
            face: Some(face),
            pin: Some(pin),
        });
    }
    let house = house.ok_or_else(|| {
        let why = "this server has no authority yet, for no server leads; start it again";
        NodeError::Refused(Rejection::retryable(Reason::NotLeader, why))
    })?;
    let names = names(config, api, opening.advertised.as_deref());
    house.open_api(names).map_err(NodeError::Member)?;
    let pin = house.api_pin().map_err(NodeError::Refused)?;
    let first = house.api_face().ok_or_else(|| {
        let why = "the API has no certificate";
        NodeError::Refused(Rejection::new(Reason::Internal, why))
    })?;
    let face: Face = Arc::new(move || house.api_face().unwrap_or_else(|| first.clone()));
    Ok(Served {
        face: Some(face),
        pin: Some(pin),
    })
}

/// Files that are shown, as they were when they were last good.
struct Shown {
    files: TlsFiles,
    trust: Option<Arc<Trust>>,
    now: RwLock<(Arc<ServerConfig>, Vec<Stamp>)>,
}

/// What tells a file from itself before it was changed.
type Stamp = (Option<SystemTime>, u64);

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let meta = std::fs::metadata(path).map_err(named)?;
    if meta.len() > FILE_MAX {
        return Err(named(io::Error::other("it is larger than 1 MiB")));
    }
    std::fs::read(path).map_err(named)
}

impl TlsFiles {
    fn stamps(&self) -> Vec<Stamp> {
        let all = [
            Some(&self.certificate),
            Some(&self.key),
            self.authorities.as_ref(),
        ];
        let stamp = |path: &PathBuf| {
            let meta = std::fs::metadata(path).ok();
            let changed = meta.as_ref().and_then(|m| m.modified().ok());
            (changed, meta.map_or(0, |m| m.len()))
        };
        all.into_iter().flatten().map(stamp).collect()
    }

    /// What they make, and the pin of their certificate.
    fn load(&self, trust: Option<Arc<Trust>>) -> io::Result<(Arc<ServerConfig>, Pin)> {
        let mut certificate = read(&self.certificate)?;
        let key = read(&self.key)?;
        if let Some(above) = &self.authorities {
            certificate.push(b'\n');
            certificate.extend(read(above)?);
        }
        let wrong = |why: prism_identity::IdentityError| {
            let path = self.certificate.display();
            io::Error::new(io::ErrorKind::InvalidData, format!("{path}: {why}"))
        };
        let chain = certificates_in(&certificate).map_err(wrong)?;
        let pin = pins_in(&chain).map_err(wrong)?.into_iter().next();
        let pin = pin.ok_or_else(|| io::Error::other("no certificate"))?;
        // Whoever listens counts them, and says in its log why.
        let refused: prism_identity::Refused = Arc::new(|_: &NotTrusted| {});
        let trust = trust.map(|trust| (trust, refused));
        let config = accept_api_files(trust, &certificate, &key).map_err(wrong)?;
        Ok((Arc::new(config), pin))
    }
}

impl Shown {
    fn open(files: TlsFiles, trust: Option<Arc<Trust>>) -> io::Result<(Arc<Self>, Pin)> {
        let stamps = files.stamps();
        let (config, pin) = files.load(trust.clone())?;
        let now = RwLock::new((config, stamps));
        Ok((Arc::new(Self { files, trust, now }), pin))
    }

    fn now(&self) -> Arc<ServerConfig> {
        self.now
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .clone()
    }

    /// Reads the files again when they have changed, until it is told to stop. Those that are not good change nothing.
    async fn tend(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let stamps = self.files.stamps();
            let same = self.now.read().unwrap_or_else(PoisonError::into_inner).1 == stamps;
            if same {
                continue;
            }
            match self.files.load(self.trust.clone()) {
                Ok((config, pin)) => {
                    tracing::info!(%pin, "the certificate of the API was changed, and is shown from now on");
                    *self.now.write().unwrap_or_else(PoisonError::into_inner) = (config, stamps);
                }
                Err(why) => {
                    tracing::error!(%why, "the changed certificate of the API is not good; the one before is shown");
                    self.now.write().unwrap_or_else(PoisonError::into_inner).1 = stamps;
                }
            }
        }
    }
}
