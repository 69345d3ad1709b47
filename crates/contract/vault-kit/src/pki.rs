//! Authorities and what they sign, with the marks of Vault's: no subject, and so a name that is critical; an RSA key above, by default.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CustomExtension,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::Manner;

/// The next serial number.
static SERIAL: AtomicU64 = AtomicU64::new(1 << 62);

/// An issuer of the mount.
pub(crate) struct Ca {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

/// What is asked for.
pub(crate) struct Leaf {
    pub(crate) uri: String,
    pub(crate) seconds: i64,
    pub(crate) earlier: i64,
}

/// What is given, PEM.
pub(crate) struct Made {
    pub(crate) certificate: String,
    pub(crate) issuer: String,
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).unwrap()
}

impl Ca {
    pub(crate) fn new(name: &str, rsa: bool) -> Self {
        let algorithm = match rsa {
            true => &rcgen::PKCS_RSA_SHA256,
            false => &rcgen::PKCS_ECDSA_P256_SHA256,
        };
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (at(now() - 300), at(now() + 3_000_000));
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, key }
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub(crate) fn pin(&self) -> String {
        let digest = Sha256::digest(self.key.subject_public_key_info());
        digest.iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// Vault's own certificate and key, for TLS, and the authority behind it, PEM.
pub(crate) fn web() -> (Arc<rustls::ServerConfig>, String) {
    let ca = Ca::new("web", false);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![
        SanType::IpAddress([127, 0, 0, 1].into()),
        SanType::DnsName("localhost".try_into().unwrap()),
    ];
    (params.not_before, params.not_after) = (at(now() - 300), at(now() + 3_000_000));
    let above = Issuer::from_ca_cert_der(ca.certificate.der(), &ca.key).unwrap();
    let made = params.signed_by(&key, &above).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![made.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    (Arc::new(config), ca.pem())
}

/// Names as RFC 5280, section 4.2.1.6 has them.
fn names(uris: &[String], dns: Option<&str>) -> CustomExtension {
    let mut all = Vec::new();
    let uris = uris.iter().map(|uri| (0x86, uri.as_str()));
    for (tag, name) in uris.chain(dns.map(|name| (0x82, name))) {
        all.push(tag);
        all.push(u8::try_from(name.len()).unwrap());
        all.extend(name.bytes());
    }
    let mut content = vec![0x30];
    match u8::try_from(all.len()).unwrap() {
        short @ 0..128 => content.push(short),
        long => content.extend([0x81, long]),
    }
    content.extend(all);
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 17], content);
    extension.set_criticality(true);
    extension
}

pub(crate) fn leaf(csr: &str, asked: &Leaf, by: &Ca, manner: &Manner) -> Result<Made, String> {
    let request = CertificateSigningRequestDer::from_pem_slice(csr.as_bytes());
    let request = request.map_err(|why| format!("the CSR is no PEM: {why}"))?;
    let request = CertificateSigningRequestParams::from_der(&request);
    let request = request.map_err(|why| format!("the CSR could not be parsed: {why}"))?;
    let now = now();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    // No two certificates are the same, whenever they are signed.
    params.serial_number = Some(SERIAL.fetch_add(1, Ordering::Relaxed).into());
    let mut life = (now - asked.earlier, now + asked.seconds);
    let (mut uris, mut dns) = (vec![asked.uri.clone()], None);
    match manner {
        Manner::Named(others) => uris.clone_from(others),
        Manner::NamedBeside(name) => dns = Some(name.as_str()),
        Manner::Longer(seconds) => life.1 += seconds,
        Manner::Over => life = (now - 7200, now - 3600),
        Manner::NotYet => life = (now + 3600, now + 7200),
        Manner::NoClient => params.extended_key_usages.truncate(1),
        Manner::Authority => {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages.push(KeyUsagePurpose::KeyCertSign);
        }
        _ => {}
    }
    (params.not_before, params.not_after) = (at(life.0), at(life.1));
    if !uris.is_empty() || dns.is_some() {
        params.custom_extensions = vec![names(&uris, dns)];
    }
    let other =
        matches!(manner, Manner::WrongChain | Manner::WrongSigner).then(|| Ca::new("prism", false));
    let signer = other.as_ref().unwrap_or(by);
    let named = match manner {
        Manner::WrongChain => signer,
        _ => by,
    };
    let der: &CertificateDer<'_> = signer.certificate.der();
    let issuer = Issuer::from_ca_cert_der(der, &signer.key).unwrap();
    let made = match manner {
        Manner::WrongKey => params.signed_by(&KeyPair::generate().unwrap(), &issuer),
        _ => params.signed_by(&request.public_key, &issuer),
    };
    Ok(Made {
        certificate: made.unwrap().pem(),
        issuer: named.pem(),
    })
}
