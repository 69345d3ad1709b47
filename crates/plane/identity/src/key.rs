//! A private key: made on its node, kept in its directory, never sent. ECDSA on P-256, which every TLS library knows.

use std::fmt;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::{IdentityError, Pin};

/// A key. Its `Debug` shows the public half only.
pub struct Key(pub(crate) KeyPair);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.pin()).finish()
    }
}

impl Key {
    /// Makes a new one.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn generate() -> Result<Self, IdentityError> {
        let made = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256);
        made.map(Self).map_err(IdentityError::make("a key"))
    }

    /// Reads one from PKCS #8 in PEM.
    ///
    /// # Errors
    /// When the text is no such key.
    pub fn from_pem(text: &str) -> Result<Self, IdentityError> {
        KeyPair::from_pkcs8_pem_and_sign_algo(text, &PKCS_ECDSA_P256_SHA256)
            .map(Self)
            .map_err(|why| IdentityError::read("a private key", why))
    }

    /// As PKCS #8 in PEM: to be written where only its owner reads.
    pub fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// The digest of its public half.
    pub fn pin(&self) -> Pin {
        Pin::of(&self.0.subject_public_key_info())
    }

    /// A request (PKCS #10, DER) for a certificate of this key. It names nothing: whoever signs decides what it says.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn request(&self) -> Result<Vec<u8>, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let made = params.serialize_request(&self.0);
        let made = made.map_err(IdentityError::make("a request for a certificate"))?;
        Ok(made.der().to_vec())
    }

    /// The same as PEM.
    ///
    /// # Errors
    /// As of [`Key::request`].
    pub fn request_pem(&self) -> Result<String, IdentityError> {
        use base64::Engine;
        let body = base64::engine::general_purpose::STANDARD.encode(self.request()?);
        Ok(format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n"
        ))
    }

    /// For rustls.
    pub fn for_tls(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der()).into()
    }
}
