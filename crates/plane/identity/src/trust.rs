//! Whom this node trusts now: the roots of its cluster, and who is denied. Both change while connections live.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, RwLock};

use prism_types::NodeId;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, RootCertStore};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::holder::{ClusterId, Holder, Role};
use crate::{IdentityError, Peer};

/// SHA-256 of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Of a certificate (DER).
    pub fn of(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Who is not let in although their certificates are good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Denied {
    /// Nodes, with all that their issuers signed.
    pub nodes: BTreeSet<NodeId>,
    /// Nodes themselves, but not what their issuers signed: servers that have left in order.
    pub holders: BTreeSet<NodeId>,
    /// Certificates, with all that is beneath them.
    pub certificates: BTreeSet<Fingerprint>,
    /// If set, nodes that are not in it are denied.
    pub all_but: Option<BTreeSet<NodeId>>,
}

/// Why somebody is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTrusted {
    /// Its certificate is over.
    #[error(
        "its certificate has expired; it is to join again, and its clock and ours are to be right"
    )]
    Expired,
    /// Its certificate begins later.
    #[error("its certificate is not good yet; its clock and ours are to be right")]
    NotYet,
    /// Nobody we trust signed it.
    #[error("no root of this cluster stands behind its certificate")]
    Stranger,
    /// The certificate is not made for this, or what is beneath a root is wrong.
    #[error("its certificate is not good: {0}")]
    Unfit(String),
    /// The certificate does not say who holds it, or says it in several ways.
    #[error("its certificate names no member: {0}")]
    Nameless(String),
    /// It is of another cluster.
    #[error("it is a member of cluster {0}, which is another one")]
    Foreign(ClusterId),
    /// Its role may not come here.
    #[error("it is a {found}; here only {wanted} may come")]
    WrongRole {
        /// Its role.
        found: Role,
        /// Who may come.
        wanted: String,
    },
    /// It is on the list.
    #[error("{0} is denied")]
    Denied(String),
}

impl NotTrusted {
    /// One word, for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Stranger => "stranger",
            Self::Unfit(_) => "unfit",
            Self::Nameless(_) => "nameless",
            Self::Foreign(_) => "foreign",
            Self::WrongRole { .. } => "wrong_role",
            Self::Denied(_) => "denied",
        }
    }
}

/// At which end of a connection the one who is judged is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Dialled,
    Dialling,
}

struct Now {
    /// As they were given.
    shown: Vec<Vec<u8>>,
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
    denied: Denied,
}

/// What is trusted; shared by all connections of a node.
pub struct Trust {
    cluster: ClusterId,
    provider: Arc<CryptoProvider>,
    now: RwLock<Arc<Now>>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = self.now();
        f.debug_struct("Trust")
            .field("cluster", &self.cluster)
            .field("roots", &now.roots.len())
            .field("denied", &now.denied)
            .finish_non_exhaustive()
    }
}

fn made(
    shown: &[Vec<u8>],
    provider: &Arc<CryptoProvider>,
    denied: Denied,
) -> Result<Arc<Now>, IdentityError> {
    let mut store = RootCertStore::empty();
    for root in shown {
        let added = store.add(CertificateDer::from(root.clone()));
        added.map_err(|why| IdentityError::read("a root's certificate", why))?;
    }
    let roots = Arc::new(store);
    let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
    let clients = clients
        .build()
        .map_err(|why| IdentityError::read("the roots", why))?;
    Ok(Arc::new(Now {
        shown: shown.to_vec(),
        roots,
        clients,
        denied,
    }))
}

impl Trust {
    /// Trusts these roots (DER), of which there is at least one.
    ///
    /// # Errors
    /// When one is no certificate, or there is none.
    pub fn new(cluster: ClusterId, roots: &[Vec<u8>]) -> Result<Self, IdentityError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let now = RwLock::new(made(roots, &provider, Denied::default())?);
        Ok(Self {
            cluster,
            provider,
            now,
        })
    }

    fn now(&self) -> Arc<Now> {
        self.now
            .read()
            .expect("no holder of this lock panics")
            .clone()
    }

    pub(crate) fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    /// Trusts other roots from now on.
    ///
    /// # Errors
    /// As of [`Trust::new`]; nothing changes then.
    pub fn set_roots(&self, roots: &[Vec<u8>]) -> Result<(), IdentityError> {
        let mut now = self.now.write().expect("no holder of this lock panics");
        *now = made(roots, &self.provider, now.denied.clone())?;
        Ok(())
    }

    /// Denies these from now on. Those who are connected are to be judged again: [`Trust::still`].
    pub fn set_denied(&self, denied: Denied) {
        let mut now = self.now.write().expect("no holder of this lock panics");
        *now = Arc::new(Now {
            shown: now.shown.clone(),
            roots: now.roots.clone(),
            clients: now.clients.clone(),
            denied,
        });
    }

    /// Judges who shows this chain at one end of a connection where `roles` may be.
    pub(crate) fn judge(
        &self,
        end: End,
        (leaf, rest): (&CertificateDer<'_>, &[CertificateDer<'_>]),
        roles: &[Role],
        at: UnixTime,
    ) -> Result<Peer, NotTrusted> {
        let now = self.now();
        match end {
            End::Dialling => now.clients.verify_client_cert(leaf, rest, at).map(drop),
            End::Dialled => ParsedCertificate::try_from(leaf).and_then(|leaf| {
                let algorithms = self.provider.signature_verification_algorithms.all;
                verify_server_cert_signed_by_trust_anchor(&leaf, &now.roots, rest, at, algorithms)
            }),
        }
        .map_err(|why| reason(&why))?;
        let peer = Peer::of(leaf, rest)?;
        if peer.holder.cluster != self.cluster {
            return Err(NotTrusted::Foreign(peer.holder.cluster));
        }
        if !roles.contains(&peer.holder.role) {
            let wanted: Vec<String> = roles.iter().map(|r| format!("{r}s")).collect();
            return Err(NotTrusted::WrongRole {
                found: peer.holder.role,
                wanted: wanted.join(" and "),
            });
        }
        now.denied.check(&peer)?;
        Ok(peer)
    }

    /// Whether this root (DER) stands behind a chain at this time (Unix seconds), whatever is trusted otherwise.
    pub fn is_beneath(&self, root: &[u8], chain: &[CertificateDer<'_>], at: i64) -> bool {
        let Some((leaf, rest)) = chain.split_first() else {
            return false;
        };
        let Ok(only) = made(&[root.to_vec()], &self.provider, Denied::default()) else {
            return false;
        };
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(
            u64::try_from(at).unwrap_or_default(),
        ));
        only.clients.verify_client_cert(leaf, rest, at).is_ok()
    }

    /// Whether the issuers that a member shows and the roots that are trusted here do not belong together: an issuer of an unknown root, or
    /// a root without an issuer. Then the root is being changed, and whoever sees it is to renew what it has.
    pub fn differs(&self, chain: &[CertificateDer<'_>], at: i64) -> bool {
        let Some((leaf, issuers)) = chain.split_first() else {
            return false;
        };
        let known = self.now().shown.clone();
        // Issuers are servers and say so. Where somebody else issues, the roots themselves are shown, all that are trusted.
        if !issuers.is_empty() && issuers.iter().all(|issuer| holder(issuer).is_err()) {
            let shown: BTreeSet<&[u8]> = issuers.iter().map(AsRef::as_ref).collect();
            return shown != known.iter().map(Vec::as_slice).collect();
        }
        let beneath = |root: &Vec<u8>, issuer: &CertificateDer<'_>| {
            self.is_beneath(root, &[leaf.clone(), issuer.clone()], at)
        };
        let strange = |issuer: &&CertificateDer<'_>| !known.iter().any(|r| beneath(r, issuer));
        let unused = |root: &&Vec<u8>| !issuers.iter().any(|issuer| beneath(root, issuer));
        issuers.iter().any(|issuer| strange(&issuer)) || known.iter().any(|root| unused(&root))
    }

    /// Whether somebody who is connected is still let in.
    ///
    /// # Errors
    /// Why not.
    pub fn still(&self, peer: &Peer) -> Result<(), NotTrusted> {
        self.now().denied.check(peer)
    }
}

impl Denied {
    fn check(&self, peer: &Peer) -> Result<(), NotTrusted> {
        for id in &peer.nodes {
            if self.nodes.contains(id) {
                return Err(NotTrusted::Denied(format!("node {id}")));
            }
        }
        if self.holders.contains(&peer.holder.id) {
            let what = format!("node {}, which was removed,", peer.holder.id);
            return Err(NotTrusted::Denied(what));
        }
        for print in &peer.certificates {
            if self.certificates.contains(print) {
                return Err(NotTrusted::Denied(format!("certificate {print}")));
            }
        }
        let id = peer.holder.id;
        match &self.all_but {
            Some(list) if !list.contains(&id) => {
                let what = format!("node {id}, which is not on the list of those allowed,");
                Err(NotTrusted::Denied(what))
            }
            _ => Ok(()),
        }
    }
}

pub(crate) fn reason(error: &rustls::Error) -> NotTrusted {
    match error {
        rustls::Error::InvalidCertificate(why) => match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                NotTrusted::Expired
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                NotTrusted::NotYet
            }
            // Somebody's who has the name of one that is trusted, and not its key: all roots of a cluster have one name.
            CertificateError::UnknownIssuer
            | CertificateError::BadSignature
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                NotTrusted::Stranger
            }
            other => NotTrusted::Unfit(format!("{other:?}")),
        },
        other => NotTrusted::Unfit(other.to_string()),
    }
}

/// The one name in a certificate.
pub(crate) fn holder(certificate: &[u8]) -> Result<Holder, NotTrusted> {
    let nameless = |why: &str| NotTrusted::Nameless(why.to_owned());
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|e| NotTrusted::Nameless(e.to_string()))?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|e| NotTrusted::Nameless(e.to_string()))?
        .ok_or_else(|| nameless("it has no name at all"))?;
    match names.value.general_names[..] {
        [GeneralName::URI(uri)] => uri.parse().map_err(NotTrusted::Nameless),
        [_] => Err(nameless("its name is no URI")),
        ref all => Err(NotTrusted::Nameless(format!("it has {} names", all.len()))),
    }
}
