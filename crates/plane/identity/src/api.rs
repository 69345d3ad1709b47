//! TLS of the API. A server shows a certificate of its own issuer with the names and addresses it is reached at, and the name of the
//! server beside them; or files that somebody else has signed. Clients show a certificate of this cluster, or none and a token.

use std::net::IpAddr;
use std::sync::Arc;

use prism_types::NodeId;
use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType};
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, ServerName, UnixTime,
};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::{CertificateError, ClientConfig, OtherError, RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::authority::{params, public_key, sign};
use crate::holder::{ClusterId, Holder, Role};
use crate::peers::{Gate, shown};
use crate::signatures::signatures;
use crate::trust::reason;
use crate::{
    Fingerprint, IdentityError, Issued, Issuer, Key, Lifetime, NotTrusted, Peer, Pin, Refused,
    Trust,
};

/// What the subject of a cluster's root begins with; its id follows.
const ROOT: &str = "prism root ";

/// What the API speaks.
const HTTP: &[u8] = b"http/1.1";

impl Issuer {
    /// Signs what a server shows to those who use its API: good for these names and addresses. It is of no use among members.
    ///
    /// # Errors
    /// When the request is damaged or not signed by its own key, or a name is none.
    pub fn sign_api(
        &self,
        request: &[u8],
        server: NodeId,
        names: &[String],
        life: Lifetime,
    ) -> Result<Issued, IdentityError> {
        let key = public_key(request)?;
        let until = life.until.min(self.life.until);
        if until <= life.from {
            return Err(IdentityError::IssuerEnds {
                ends: self.life.until,
            });
        }
        let life = Lifetime { until, ..life };
        let mut params = params(format!("prism api {server}"), life)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let own = Holder {
            cluster: self.cluster,
            role: Role::Server,
            id: server,
        };
        let uri = own.to_string().try_into();
        params.subject_alt_names = vec![SanType::URI(uri.map_err(IdentityError::make("a name"))?)];
        for name in names {
            let name = match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => {
                    let name = name.as_str().try_into();
                    SanType::DnsName(name.map_err(IdentityError::make("a name"))?)
                }
            };
            params.subject_alt_names.push(name);
        }
        let leaf = sign(&params, &key, &self.certificate, &self.key)?;
        Ok(Issued {
            chain: vec![leaf, self.certificate.clone()],
            life,
        })
    }
}

/// A client that has shown a certificate, which was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Whom it names. Its id is that of the token that it stands for.
    pub holder: Holder,
    /// Its key.
    pub key: Pin,
    /// It and those above it.
    pub certificates: Vec<Fingerprint>,
    /// It and whose issuers signed for it.
    pub nodes: Vec<NodeId>,
}

impl Shown {
    /// Who shows this chain, which was judged before.
    ///
    /// # Errors
    /// When its certificates name nobody.
    pub fn of(chain: &[CertificateDer<'_>]) -> Result<Self, NotTrusted> {
        let nameless = |why: &str| NotTrusted::Nameless(why.to_owned());
        let (leaf, rest) = chain
            .split_first()
            .ok_or_else(|| nameless("it shows no certificate"))?;
        let peer = Peer::of(leaf, rest)?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|e| nameless(&e.to_string()))?;
        Ok(Self {
            holder: peer.holder,
            key: Pin::of(parsed.public_key().raw),
            certificates: peer.certificates,
            nodes: peer.nodes,
        })
    }
}

fn finished(mut config: ServerConfig) -> ServerConfig {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![HTTP.to_vec()];
    config
}

/// For the API: shows `chain`, and takes those in who show no certificate, or one of a client of this cluster.
///
/// # Errors
/// When the chain is not of this key.
pub fn accept_api(
    trust: Arc<Trust>,
    (key, chain): (&Key, &[Vec<u8>]),
    refused: Refused,
) -> Result<ServerConfig, IdentityError> {
    accept_as(Some((trust, refused)), shown(chain), key.for_tls())
}

/// The same with files (PEM) that somebody else has signed. Without `trust` no client certificate is asked for.
///
/// # Errors
/// When they are damaged, or do not belong together.
pub fn accept_api_files(
    trust: Option<(Arc<Trust>, Refused)>,
    certificate: &[u8],
    key: &[u8],
) -> Result<ServerConfig, IdentityError> {
    let chain = certificates_in(certificate)?;
    accept_as(trust, shown(&chain), key_in(key)?)
}

fn accept_as(
    trust: Option<(Arc<Trust>, Refused)>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, IdentityError> {
    let wrong = |why: rustls::Error| IdentityError::read("the certificate of the API", why);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(wrong)?;
    let builder = match trust {
        Some((trust, refused)) => builder.with_client_cert_verifier(Arc::new(Gate {
            trust,
            roles: &[Role::Client],
            refused,
            mandatory: false,
        })),
        None => builder.with_no_client_auth(),
    };
    builder
        .with_single_cert(chain, key)
        .map(finished)
        .map_err(wrong)
}

/// All certificates of a PEM text, DER.
///
/// # Errors
/// When there is none, or one is damaged.
pub fn certificates_in(pem: &[u8]) -> Result<Vec<Vec<u8>>, IdentityError> {
    let what = "a file of certificates (PEM)";
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|why| IdentityError::read(what, why))?;
    if all.is_empty() {
        return Err(IdentityError::read(what, "it has no certificate"));
    }
    Ok(all.into_iter().map(|c| c.to_vec()).collect())
}

/// The first private key of a PEM text.
///
/// # Errors
/// When there is none.
pub fn key_in(pem: &[u8]) -> Result<PrivateKeyDer<'static>, IdentityError> {
    // What is wrong with a key is not told: it is a secret.
    let none = |_| {
        IdentityError::read(
            "a file with a private key (PEM)",
            "it has none that is known",
        )
    };
    PrivateKeyDer::from_pem_slice(pem).map_err(none)
}

/// The request for a certificate (PKCS #10) in a PEM text, DER.
///
/// # Errors
/// When there is none.
pub fn request_in(pem: &[u8]) -> Result<Vec<u8>, IdentityError> {
    let read = CertificateSigningRequestDer::from_pem_slice(pem);
    let read = read.map_err(|why| IdentityError::read("a request for a certificate (PEM)", why))?;
    Ok(read.to_vec())
}

/// Certificates (DER) as PEM.
pub fn pem_of(chain: &[Vec<u8>]) -> String {
    use base64::Engine;
    let mut text = String::new();
    for certificate in chain {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let body = base64::engine::general_purpose::STANDARD.encode(certificate);
        for line in body.as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

/// Digests of the keys of certificates (DER), in their order.
///
/// # Errors
/// When one is no certificate.
pub fn pins_in(certificates: &[Vec<u8>]) -> Result<Vec<Pin>, IdentityError> {
    let pin = |der: &Vec<u8>| {
        let parsed = X509Certificate::from_der(der);
        let (_, parsed) = parsed.map_err(|why| IdentityError::read("a certificate", why))?;
        Ok(Pin::of(parsed.public_key().raw))
    };
    certificates.iter().map(pin).collect()
}

/// How a client knows the server that it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// A key stands behind it: the server's own, or that of an authority above it.
    Pin(Pin),
    /// One of these authorities does (DER).
    Authorities(Vec<Vec<u8>>),
}

/// The key of a server is not the one that is pinned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("server key does not match the pin (got {got}, want {want})")]
pub struct WrongKey {
    /// The last of the keys that it shows, which stands behind the others.
    pub got: Pin,
    /// The pin.
    pub want: Pin,
}

/// What a client shows: its chain and key.
pub type Client = (Vec<Vec<u8>>, PrivateKeyDer<'static>);

#[derive(Debug)]
struct Known {
    anchor: Anchor,
    provider: Arc<CryptoProvider>,
}

/// The cluster whose root this is, if it is one.
fn cluster_of(root: &[u8]) -> Option<ClusterId> {
    let (_, parsed) = X509Certificate::from_der(root).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    name.strip_prefix(ROOT)?.parse().ok()
}

/// The server that a certificate of the API names beside the addresses.
fn server_of(leaf: &[u8]) -> Option<Holder> {
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    let mut uris = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(uri),
            _ => None,
        });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => uri.parse().ok(),
        _ => None,
    }
}

impl Known {
    /// Judges a chain by one authority above it. A cluster's root knows its servers by their ids, others by their addresses.
    fn beneath(
        &self,
        root: &CertificateDer<'_>,
        (leaf, rest): (&CertificateDer<'_>, &[CertificateDer<'_>]),
        name: &ServerName<'_>,
        at: UnixTime,
    ) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, rest, at, algorithms)?;
        match cluster_of(root) {
            Some(cluster) => match server_of(leaf) {
                Some(named) if named.cluster == cluster && named.role == Role::Server => Ok(()),
                Some(named) if named.cluster != cluster => {
                    Err(other(NotTrusted::Foreign(named.cluster)))
                }
                _ => Err(other(NotTrusted::Nameless(
                    "it is of no server of the cluster".to_owned(),
                ))),
            },
            None => verify_server_name(&parsed, name),
        }
    }

    fn judge(
        &self,
        chain: (&CertificateDer<'_>, &[CertificateDer<'_>]),
        name: &ServerName<'_>,
        at: UnixTime,
    ) -> Result<(), rustls::Error> {
        match &self.anchor {
            Anchor::Pin(pin) => self.pinned(*pin, chain, name, at),
            Anchor::Authorities(all) => {
                let mut last = other(NotTrusted::Stranger);
                for root in all {
                    let root = CertificateDer::from(root.as_slice());
                    match self.beneath(&root, chain, name, at) {
                        Ok(()) => return Ok(()),
                        Err(why) => last = why,
                    }
                }
                Err(last)
            }
        }
    }

    fn pinned(
        &self,
        want: Pin,
        (leaf, rest): (&CertificateDer<'_>, &[CertificateDer<'_>]),
        name: &ServerName<'_>,
        at: UnixTime,
    ) -> Result<(), rustls::Error> {
        let mut got = want;
        for certificate in std::iter::once(leaf).chain(rest) {
            let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
                continue;
            };
            got = Pin::of(parsed.public_key().raw);
            if got != want {
                continue;
            }
            if certificate != leaf {
                return self.beneath(certificate, (leaf, rest), name, at);
            }
            // The very key is known, whoever signed for it; only its time counts.
            let now = i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
            let life = parsed.validity();
            return match now {
                _ if now > life.not_after.timestamp() => Err(other(NotTrusted::Expired)),
                _ if now < life.not_before.timestamp() => Err(other(NotTrusted::NotYet)),
                _ => Ok(()),
            };
        }
        Err(other(WrongKey { got, want }))
    }
}

fn other(why: impl std::error::Error + Send + Sync + 'static) -> rustls::Error {
    let why = OtherError(Arc::new(why));
    rustls::Error::InvalidCertificate(CertificateError::Other(why))
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let judged = self.judge((leaf, rest), name, now);
        let told = |why: rustls::Error| match &why {
            rustls::Error::InvalidCertificate(
                CertificateError::Other(_) | CertificateError::NotValidForNameContext { .. },
            ) => why,
            _ => other(reason(&why)),
        };
        judged
            .map(|()| ServerCertVerified::assertion())
            .map_err(told)
    }

    signatures!();
}

/// For a client of the API: talks to servers behind which `anchor` stands, and shows `client`, if it has something to show.
///
/// # Errors
/// When what is to be shown does not belong together.
pub fn connect_api(anchor: Anchor, client: Option<Client>) -> Result<ClientConfig, IdentityError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let known = Arc::new(Known {
        anchor,
        provider: provider.clone(),
    });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|why| IdentityError::read("the protocol's version", why))?
        .dangerous()
        .with_custom_certificate_verifier(known);
    let mut config = match client {
        Some((chain, key)) => builder
            .with_client_auth_cert(shown(&chain), key)
            .map_err(|why| IdentityError::read("the certificate to be shown", why))?,
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![HTTP.to_vec()];
    Ok(config)
}
