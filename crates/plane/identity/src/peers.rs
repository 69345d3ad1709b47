//! TLS 1.3 between members: both ends show certificates, and both are judged by [`Trust`]. Nothing is resumed, so that every
//! connection is judged anew.

use std::fmt;
use std::sync::Arc;

use prism_types::NodeId;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError,
    ServerConfig, SignatureScheme,
};

use crate::holder::{Holder, Role};
use crate::trust::{End, holder};
use crate::{Fingerprint, IdentityError, Key, NotTrusted, Trust};

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What its certificate says.
    pub holder: Holder,
    /// It and whose issuer signed for it.
    pub(crate) nodes: Vec<NodeId>,
    /// Its certificate and those above it.
    pub(crate) certificates: Vec<Fingerprint>,
}

impl Peer {
    /// Who shows this chain, which was judged before.
    ///
    /// # Errors
    /// When its certificates name nobody.
    pub fn of(leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) -> Result<Self, NotTrusted> {
        let named = holder(leaf)?;
        let above = rest
            .iter()
            .filter_map(|issuer| Some(holder(issuer).ok()?.id));
        let all = std::iter::once(leaf).chain(rest);
        Ok(Self {
            holder: named,
            nodes: std::iter::once(named.id).chain(above).collect(),
            certificates: all.map(|c| Fingerprint::of(c)).collect(),
        })
    }
}

/// Is told of everybody who is not let in.
pub type Refused = Arc<dyn Fn(&NotTrusted) + Send + Sync>;

pub(crate) struct Gate {
    pub(crate) trust: Arc<Trust>,
    pub(crate) roles: &'static [Role],
    pub(crate) refused: Refused,
    /// Whether nobody without a certificate is let in.
    pub(crate) mandatory: bool,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("roles", &self.roles)
            .finish_non_exhaustive()
    }
}

impl Gate {
    fn judge(
        &self,
        end: End,
        chain: (&CertificateDer<'_>, &[CertificateDer<'_>]),
        at: UnixTime,
    ) -> Result<(), rustls::Error> {
        let judged = self.trust.judge(end, chain, self.roles, at);
        judged.map(drop).map_err(|why| {
            (self.refused)(&why);
            let why = match (end, why) {
                // So that it is told at the other end, in the alert that TLS has for it.
                (End::Dialling, NotTrusted::Denied(_)) => CertificateError::Revoked,
                (_, why) => CertificateError::Other(OtherError(Arc::new(why))),
            };
            rustls::Error::InvalidCertificate(why)
        })
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.trust.provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.trust
            .provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

pub(crate) fn too_old() -> rustls::Error {
    rustls::Error::General("only TLS 1.3 is spoken here".to_owned())
}

/// What both ends check of signatures: the same, and only TLS 1.3's.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Err(too_old())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            self.signature(message, certificate, signed)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.schemes()
        }
    };
}

impl ClientCertVerifier for Gate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Members know whom to show.
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(End::Dialling, (leaf, rest), now)?;
        Ok(ClientCertVerified::assertion())
    }

    signatures!();
}

impl ServerCertVerifier for Gate {
    /// Whom one dials is told by its certificate and not by the address, which may be any.
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(End::Dialled, (leaf, rest), now)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}

pub(crate) fn shown(chain: &[Vec<u8>]) -> Vec<CertificateDer<'static>> {
    chain.iter().cloned().map(CertificateDer::from).collect()
}

/// For a listener: shows `chain`, and takes those in who have one of these roles.
///
/// # Errors
/// When the chain is not of this key.
pub fn accept(
    trust: Arc<Trust>,
    roles: &'static [Role],
    (key, chain): (&Key, &[Vec<u8>]),
    refused: Refused,
) -> Result<ServerConfig, IdentityError> {
    let wrong = |why: rustls::Error| IdentityError::read("this node's certificate", why);
    let provider = trust.provider().clone();
    let gate = Arc::new(Gate {
        trust,
        roles,
        refused,
        mandatory: true,
    });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(wrong)?
        .with_client_cert_verifier(gate)
        .with_single_cert(shown(chain), key.for_tls())
        .map_err(wrong)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// For whoever dials: shows `chain`, and talks to those who have one of these roles.
///
/// # Errors
/// When the chain is not of this key.
pub fn connect(
    trust: Arc<Trust>,
    roles: &'static [Role],
    (key, chain): (&Key, &[Vec<u8>]),
    refused: Refused,
) -> Result<ClientConfig, IdentityError> {
    let wrong = |why: rustls::Error| IdentityError::read("this node's certificate", why);
    let provider = trust.provider().clone();
    let gate = Arc::new(Gate {
        trust,
        roles,
        refused,
        mandatory: true,
    });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(wrong)?
        .dangerous()
        .with_custom_certificate_verifier(gate)
        .with_client_auth_cert(shown(chain), key.for_tls())
        .map_err(wrong)?;
    config.resumption = Resumption::disabled();
    Ok(config)
}
