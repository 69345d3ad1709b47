//! TLS before one is a member: a new node has no certificate, and knows of the cluster only the pin in its join token. The server
//! shows its chain up to the root; the pin says that this is the root meant, before anything is sent.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::{CertificateError, ClientConfig, OtherError, RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::holder::{Holder, Role};
use crate::peers::shown;
use crate::signatures::signatures;
use crate::trust::{holder, reason};
use crate::{IdentityError, Key, NotTrusted, Pin};

/// The root that is meant among the certificates that were shown.
fn root_of<'a>(pin: Pin, shown: &'a [CertificateDer<'a>]) -> Option<&'a CertificateDer<'a>> {
    shown.iter().find(|certificate| {
        X509Certificate::from_der(certificate)
            .is_ok_and(|(_, parsed)| Pin::of(parsed.public_key().raw) == pin)
    })
}

/// Who shows this chain, if the pinned root stands behind it and it is a server.
///
/// # Errors
/// Why it is not to be talked to.
fn judge(
    pin: Pin,
    (leaf, rest): (&CertificateDer<'_>, &[CertificateDer<'_>]),
    at: UnixTime,
    provider: &CryptoProvider,
) -> Result<Holder, NotTrusted> {
    let root = root_of(pin, rest).ok_or(NotTrusted::Stranger)?;
    let mut roots = RootCertStore::empty();
    roots
        .add(root.clone().into_owned())
        .map_err(|why| reason(&why))?;
    let parsed = ParsedCertificate::try_from(leaf).map_err(|why| reason(&why))?;
    let algorithms = provider.signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&parsed, &roots, rest, at, algorithms)
        .map_err(|why| reason(&why))?;
    let named = holder(leaf)?;
    if named.role == Role::Server {
        Ok(named)
    } else {
        Err(NotTrusted::WrongRole {
            found: named.role,
            wanted: "servers".to_owned(),
        })
    }
}

#[derive(Debug)]
struct Pinned {
    pin: Pin,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let judged = judge(self.pin, (leaf, rest), now, &self.provider);
        judged
            .map(|_| ServerCertVerified::assertion())
            .map_err(|why| {
                let why = OtherError(Arc::new(why));
                rustls::Error::InvalidCertificate(CertificateError::Other(why))
            })
    }

    signatures!();
}

/// For a new node: talks to servers behind which the root of this pin stands, and shows nothing.
///
/// # Errors
/// When the library does not know TLS 1.3, which it does.
pub fn connect_pinned(pin: Pin) -> Result<ClientConfig, IdentityError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let pinned = Arc::new(Pinned {
        pin,
        provider: provider.clone(),
    });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|why| IdentityError::read("the protocol's version", why))?
        .dangerous()
        .with_custom_certificate_verifier(pinned)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// For a server that lets new nodes in: shows `chain`, which ends with the root, and asks for no certificate.
///
/// # Errors
/// When the chain is not of this key.
pub fn accept_strangers((key, chain): (&Key, &[Vec<u8>])) -> Result<ServerConfig, IdentityError> {
    let wrong = |why: rustls::Error| IdentityError::read("this node's certificate", why);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(wrong)?
        .with_no_client_auth()
        .with_single_cert(shown(chain), key.for_tls())
        .map_err(wrong)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
