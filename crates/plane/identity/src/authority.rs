//! What signs: the root of a cluster, and the issuer of each server beneath it. What a certificate says is made here; of a request
//! only the public key is taken, and that whoever asks has its private half.

use prism_types::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::holder::{ClusterId, Holder, Role};
use crate::{IdentityError, Key, Lifetime, Pin};

/// Most bytes of a request: ours have some 250.
const REQUEST_MAX: usize = 4096;

/// The root of a cluster. Its key signs issuers only, and can be kept where no server is.
#[derive(Debug)]
pub struct Root {
    cluster: ClusterId,
    key: Key,
    certificate: Vec<u8>,
}

/// The issuer of one server.
#[derive(Debug)]
pub struct Issuer {
    pub(crate) cluster: ClusterId,
    pub(crate) key: Key,
    pub(crate) certificate: Vec<u8>,
    pub(crate) life: Lifetime,
}

/// A certificate that was signed.
#[derive(Clone, Debug)]
pub struct Issued {
    /// It and its issuer's, DER: what its holder shows.
    pub chain: Vec<Vec<u8>>,
    /// From when until when it is good.
    pub life: Lifetime,
}

pub(crate) fn params(name: String, life: Lifetime) -> Result<CertificateParams, IdentityError> {
    let at = |seconds: i64| {
        OffsetDateTime::from_unix_timestamp(seconds)
            .map_err(|why| IdentityError::read("a time", why))
    };
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).map_err(|why| IdentityError::Make {
        what: "a serial number",
        why: why.to_string(),
    })?;
    // Positive, and of full length (RFC 5280, section 4.1.2.2).
    serial[0] = serial[0] & 0x7f | 0x40;
    let mut params = CertificateParams::default();
    params.not_before = at(life.from)?;
    params.not_after = at(life.until)?;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn named(params: &mut CertificateParams, holder: Holder) -> Result<(), IdentityError> {
    let uri = holder.to_string().try_into();
    let uri = uri.map_err(IdentityError::make("a name"))?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    Ok(())
}

fn signing(params: &mut CertificateParams, beneath: u8) {
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(beneath));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
}

/// The public key of a request, if whoever asks has the private one.
pub(crate) fn public_key(request: &[u8]) -> Result<rcgen::PublicKey, IdentityError> {
    let what = "a request for a certificate";
    if request.len() > REQUEST_MAX {
        let why = format!("it has {} bytes; at most {REQUEST_MAX}", request.len());
        return Err(IdentityError::read(what, why));
    }
    let read =
        CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request));
    Ok(read
        .map_err(|why| IdentityError::read(what, why))?
        .public_key)
}

/// The digest of the key that a request is for. Whoever made the request has its private half.
///
/// # Errors
/// When the request is damaged or not signed by its own key.
pub fn requested(request: &[u8]) -> Result<Pin, IdentityError> {
    Ok(Pin::of(&public_key(request)?.subject_public_key_info()))
}

/// From when until when a certificate is good.
///
/// # Errors
/// When it is none, or another key's.
pub fn life_of(key: &Key, certificate: &[u8]) -> Result<Lifetime, IdentityError> {
    belongs(key, certificate)
}

impl Root {
    /// A secret that follows from the root's key, for what is kept where others read too: every server has it, and nobody else.
    pub fn sealing_secret(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(b"prism sealing secret 1");
        digest.update(self.key.0.serialize_der());
        digest.finalize().into()
    }

    /// Founds a cluster: a new key and its certificate.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn found(cluster: ClusterId, life: Lifetime) -> Result<Self, IdentityError> {
        let key = Key::generate()?;
        let mut params = params(format!("prism root {cluster}"), life)?;
        signing(&mut params, 1);
        let made = params.self_signed(&key.0);
        let certificate = made.map_err(IdentityError::make("a root"))?;
        Ok(Self {
            cluster,
            key,
            certificate: certificate.der().to_vec(),
        })
    }

    /// One that was founded before.
    ///
    /// # Errors
    /// When the certificate is none, or another key's.
    pub fn load(cluster: ClusterId, key: Key, certificate: Vec<u8>) -> Result<Self, IdentityError> {
        belongs(&key, &certificate)?;
        Ok(Self {
            cluster,
            key,
            certificate,
        })
    }

    /// Its certificate, DER: what every node of the cluster trusts.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Its key, to be kept.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Its cluster.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// What a join token pins.
    pub fn pin(&self) -> Pin {
        self.key.pin()
    }

    /// Signs the issuer of a server, for the key that it asks for.
    ///
    /// # Errors
    /// When the request is damaged or not signed by its own key.
    pub fn sign_issuer(
        &self,
        request: &[u8],
        server: NodeId,
        life: Lifetime,
    ) -> Result<Vec<u8>, IdentityError> {
        let key = public_key(request)?;
        let mut params = params(format!("prism issuer {server}"), life)?;
        signing(&mut params, 0);
        let holder = Holder {
            cluster: self.cluster,
            role: Role::Server,
            id: server,
        };
        named(&mut params, holder)?;
        sign(&params, &key, &self.certificate, &self.key)
    }
}

/// The life of a certificate, if it is of this key.
fn belongs(key: &Key, certificate: &[u8]) -> Result<Lifetime, IdentityError> {
    let unread = |why: &dyn ToString| IdentityError::read("a certificate", why.to_string());
    let (rest, parsed) = X509Certificate::from_der(certificate).map_err(|why| unread(&why))?;
    if !rest.is_empty() {
        return Err(unread(&"something follows it"));
    }
    if Pin::of(parsed.public_key().raw) != key.pin() {
        return Err(unread(&"it is another key's"));
    }
    Ok(Lifetime {
        from: parsed.validity().not_before.timestamp(),
        until: parsed.validity().not_after.timestamp(),
    })
}

pub(crate) fn sign(
    params: &CertificateParams,
    key: &impl PublicKeyData,
    issuer: &[u8],
    by: &Key,
) -> Result<Vec<u8>, IdentityError> {
    let issuer = rcgen::Issuer::from_ca_cert_der(&CertificateDer::from(issuer), &by.0)
        .map_err(|why| IdentityError::read("the issuer's certificate", why))?;
    let made = params.signed_by(key, &issuer);
    let made = made.map_err(IdentityError::make("a certificate"))?;
    Ok(made.der().to_vec())
}

impl Issuer {
    /// The issuer of a key and the certificate that the root gave it.
    ///
    /// # Errors
    /// When the certificate is none, or another key's.
    pub fn new(cluster: ClusterId, key: Key, certificate: Vec<u8>) -> Result<Self, IdentityError> {
        let life = belongs(&key, &certificate)?;
        Ok(Self {
            cluster,
            key,
            certificate,
            life,
        })
    }

    /// Its key, to be kept.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Its certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// From when until when it signs.
    pub fn life(&self) -> Lifetime {
        self.life
    }

    /// Signs a certificate for the key of a request. It ends no later than the issuer's own.
    ///
    /// # Errors
    /// When the request is damaged or not signed by its own key, or the issuer's own certificate ends too soon.
    pub fn sign(
        &self,
        request: &[u8],
        (role, id): (Role, NodeId),
        life: Lifetime,
    ) -> Result<Issued, IdentityError> {
        let key = public_key(request)?;
        let asked = life.until.saturating_sub(life.from);
        let until = life.until.min(self.life.until);
        if until.saturating_sub(life.from) < asked / 2 {
            return Err(IdentityError::IssuerEnds {
                ends: self.life.until,
            });
        }
        let life = Lifetime { until, ..life };
        let mut params = params(format!("prism {role} {id}"), life)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if role == Role::Server {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let cluster = self.cluster;
        named(&mut params, Holder { cluster, role, id })?;
        let leaf = sign(&params, &key, &self.certificate, &self.key)?;
        Ok(Issued {
            chain: vec![leaf, self.certificate.clone()],
            life,
        })
    }
}
