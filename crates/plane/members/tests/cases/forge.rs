//! Makes certificates, right ones and wrong ones, and shows them.

use std::sync::Arc;
use std::time::Duration;

use prism_identity::{ClusterId, Lifetime, Root};
use prism_members::Membership;
use prism_types::{Id, NodeId};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequest,
    CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use time::OffsetDateTime;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::kit::{Cluster, SERVER, node, now};

pub const DAY: i64 = 24 * 3600;

/// What stands above: a certificate and its key.
pub struct Above {
    pub certificate: Vec<u8>,
    pub key: KeyPair,
}

/// What is shown.
pub struct Shown {
    pub chain: Vec<Vec<u8>>,
    pub key: KeyPair,
}

/// What a certificate says; good unless it is changed.
pub struct Says {
    pub names: Vec<SanType>,
    pub uses: Vec<ExtendedKeyUsagePurpose>,
    pub key_uses: Vec<KeyUsagePurpose>,
    pub from: i64,
    pub until: i64,
    pub is_ca: IsCa,
    pub algorithm: &'static rcgen::SignatureAlgorithm,
}

pub fn uri(text: impl Into<String>) -> SanType {
    SanType::URI(text.into().try_into().unwrap())
}

/// The cluster's own name, as in certificates.
pub fn cluster_id(c: &Cluster) -> ClusterId {
    c.server().cluster
}

pub fn spiffe(cluster: ClusterId, role: &str, id: NodeId) -> SanType {
    uri(format!("spiffe://{cluster}/{role}/{id}"))
}

impl Says {
    pub fn of(cluster: ClusterId, role: &str, n: u128) -> Self {
        let mut uses = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if role == "server" {
            uses.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        Self {
            names: vec![spiffe(cluster, role, node(n))],
            uses,
            key_uses: vec![KeyUsagePurpose::DigitalSignature],
            from: now() - 300,
            until: now() + DAY,
            is_ca: IsCa::NoCa,
            algorithm: &rcgen::PKCS_ECDSA_P256_SHA256,
        }
    }

    pub fn key(&self) -> KeyPair {
        KeyPair::generate_for(self.algorithm).unwrap()
    }

    fn params(&self, name: &str) -> CertificateParams {
        let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        let mut params = CertificateParams::default();
        params.not_before = at(self.from);
        params.not_after = at(self.until);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = self.names.clone();
        params.extended_key_usages = self.uses.clone();
        params.key_usages = self.key_uses.clone();
        params.is_ca = self.is_ca;
        params
    }

    pub fn by(&self, above: &Above, name: &str, key: &KeyPair) -> Vec<u8> {
        let from = CertificateDer::from(above.certificate.as_slice());
        let issuer = Issuer::from_ca_cert_der(&from, &above.key).unwrap();
        let made = self.params(name).signed_by(key, &issuer).unwrap();
        made.der().to_vec()
    }

    pub fn alone(&self, name: &str, key: &KeyPair) -> Vec<u8> {
        self.params(name).self_signed(key).unwrap().der().to_vec()
    }
}

/// A request (PKCS #10) as others may make it.
pub fn request(names: Vec<SanType>, key: &KeyPair) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names;
    let made: CertificateSigningRequest = params.serialize_request(key).unwrap();
    let _readable = CertificateSigningRequestParams::from_der(made.der()).unwrap();
    made.der().to_vec()
}

fn pair(pem: &str) -> KeyPair {
    KeyPair::from_pem(pem).unwrap()
}

/// The issuer of a server.
pub fn issuer(me: &Membership) -> Above {
    let issuer = &me.authority.as_ref().unwrap().issuer;
    Above {
        certificate: issuer.certificate().to_vec(),
        key: pair(&issuer.key().to_pem()),
    }
}

/// The root above it.
pub fn root(me: &Membership) -> Above {
    let root: &Root = me.authority.as_ref().unwrap().root_key.as_ref().unwrap();
    Above {
        certificate: root.certificate().to_vec(),
        key: pair(&root.key().to_pem()),
    }
}

/// Another cluster's server, of the same numbers.
pub fn elsewhere(n: u128) -> Membership {
    Membership::found(ClusterId(Id::new(1, n)), node(SERVER), now()).unwrap()
}

/// An issuer that this root has signed, of these days.
pub fn issuer_by(above: &Above, cluster: ClusterId, life: Lifetime, depth: u8) -> Above {
    let mut says = Says::of(cluster, "server", SERVER);
    says.uses = Vec::new();
    says.key_uses = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    says.is_ca = IsCa::Ca(BasicConstraints::Constrained(depth));
    (says.from, says.until) = (life.from, life.until);
    let key = says.key();
    Above {
        certificate: says.by(above, "an issuer", &key),
        key,
    }
}

/// Believes every server, as an attacker does who only wants in.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// What came of showing something at a door.
#[derive(Debug, PartialEq, Eq)]
pub enum Came {
    /// The connection stays open.
    In,
    /// It was closed, or never was.
    Out,
}

/// Shows it at a door. Whoever is let in says nothing for a moment, and is still there.
pub async fn show(c: &Cluster, door: Option<&[u8]>, shown: Option<&Shown>) -> Came {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible));
    let mut config = match shown {
        Some(shown) => {
            let chain = shown.chain.iter().cloned().map(CertificateDer::from);
            let key = PrivatePkcs8KeyDer::from(shown.key.serialize_der());
            // The library itself refuses to show a certificate of another key; an attacker's does not.
            let config = builder.with_client_auth_cert(chain.collect(), key.into());
            config.unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = door.map(<[u8]>::to_vec).into_iter().collect();
    let stream = TcpStream::connect(c.address).await.unwrap();
    let name = ServerName::try_from("prism.invalid").unwrap();
    let shaken = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let Ok(mut stream) = shaken.await else {
        return Came::Out;
    };
    let mut byte = [0];
    match tokio::time::timeout(Duration::from_millis(150), stream.read(&mut byte)).await {
        Err(_) => Came::In,
        // Whoever sees the end of a connection without a word was sent away; a session greets.
        Ok(Ok(0) | Err(_)) => Came::Out,
        Ok(Ok(_)) => Came::In,
    }
}
