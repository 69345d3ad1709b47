//! The common token of servers that are to found a cluster together, `pb1.SECRET.CHECK`: with it they know each other before there is
//! any authority. Everything that they need follows from its secret: the one key that both ends of a connection show, and the join
//! token with which all but the founder then join. The secret itself is never sent.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use prism_types::{Id, TokenId};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ED25519};
use rustls::client::Resumption;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DistinguishedName as Subject, OtherError, ServerConfig,
};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::join::check;
use crate::peers::shown;
use crate::signatures::signatures;
use crate::{IdentityError, JoinSecret, JoinToken, Key, NotTrusted, Pin};

/// What every one begins with; scanners for leaked secrets know it by that.
const PREFIX: &str = "pb1";
/// An Ed25519 private key in PKCS #8 (RFC 8410, section 7), up to its 32 bytes.
const ED25519: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// What servers that are to found a cluster together have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CommonToken([u8; 32]);

impl CommonToken {
    /// A new one.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn generate() -> Result<Self, IdentityError> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|why| IdentityError::Make {
            what: "a secret",
            why: why.to_string(),
        })?;
        Ok(Self(secret))
    }

    /// The string. Whoever has it can take part in founding the cluster; it is of no use once all have joined.
    pub fn expose(&self) -> String {
        let body = format!("{PREFIX}.{}", BASE64.encode(self.0));
        format!("{body}.{}", check(&body))
    }

    /// A secret for one use: it tells neither the token nor those for other uses.
    fn derived(&self, what: &str) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(what.as_bytes());
        digest.update([0]);
        digest.update(self.0);
        digest.finalize().into()
    }

    /// A name for logs, which tells nothing else.
    pub fn label(&self) -> String {
        let digest = self.derived("prism common token label 1");
        digest.iter().take(4).map(|b| format!("{b:02x}")).collect()
    }

    /// What the others join with, once the root of the cluster is known.
    pub fn join(&self, pin: Pin) -> JoinToken {
        let (id, secret) = self.joins();
        JoinToken { id, secret, pin }
    }

    /// Public half and secret of that, for whoever founds.
    pub fn joins(&self) -> (TokenId, JoinSecret) {
        let digest = self.derived("prism common token join id 1");
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        // The text of an id has room for 128 bits, whatever they are.
        let id = TokenId(Id(u128::from_be_bytes(id)));
        let secret = self.derived("prism common token join secret 1");
        (id, JoinSecret::received(secret))
    }

    fn key(&self) -> Result<Key, IdentityError> {
        let mut der = ED25519.to_vec();
        der.extend(self.derived("prism common token tls key 1"));
        let der = PrivatePkcs8KeyDer::from(der);
        KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519)
            .map(Key)
            .map_err(IdentityError::make("a key from the common token"))
    }

    /// How a connection between two who have the token is taken and made: both ends show its key, and nobody else has that.
    ///
    /// # Errors
    /// When the library makes no certificate of the key, which it does.
    pub fn tls(&self) -> Result<(ServerConfig, ClientConfig), IdentityError> {
        let key = self.key()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let made = params.self_signed(&key.0);
        let made = made.map_err(IdentityError::make("a certificate of the common token"))?;
        let chain = [made.der().to_vec()];
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let same = Arc::new(Same {
            pin: key.pin(),
            provider: provider.clone(),
        });
        let wrong =
            |why: rustls::Error| IdentityError::read("the certificate of the common token", why);
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(wrong)?
            .with_client_cert_verifier(same.clone())
            .with_single_cert(shown(&chain), key.for_tls())
            .map_err(wrong)?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(wrong)?
            .dangerous()
            .with_custom_certificate_verifier(same)
            .with_client_auth_cert(shown(&chain), key.for_tls())
            .map_err(wrong)?;
        client.resumption = Resumption::disabled();
        Ok((server, client))
    }
}

impl fmt::Debug for CommonToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommonToken({}, ..)", self.label())
    }
}

impl FromStr for CommonToken {
    type Err = String;

    /// What is wrong is said without the string, which is a secret.
    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "a common token is one string, pb1.SECRET.CHECK, as `prismctl server bootstrap-token` prints it";
        let bad = |what: &str| format!("this is no common token: {what}; {FORM}");
        let text = text.trim();
        let parts: Vec<&str> = text.split('.').collect();
        let [prefix, secret, sum] = parts[..] else {
            return Err(bad(&format!("it has {} parts and not 3", parts.len())));
        };
        if prefix != PREFIX {
            return Err(bad("it does not begin with pb1"));
        }
        if check(&format!("{prefix}.{secret}")) != sum {
            return Err(bad(
                "its check is wrong, so it was cut or changed on the way",
            ));
        }
        let secret = BASE64
            .decode(secret)
            .ok()
            .and_then(|bytes| bytes.try_into().ok());
        secret
            .map(Self)
            .ok_or_else(|| bad("its secret is malformed"))
    }
}

/// Takes whoever has the same key.
#[derive(Debug)]
struct Same {
    pin: Pin,
    provider: Arc<CryptoProvider>,
}

impl Same {
    fn judge(&self, leaf: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let key = X509Certificate::from_der(leaf).map(|(_, c)| Pin::of(c.public_key().raw));
        if key.is_ok_and(|pin| pin == self.pin) {
            return Ok(());
        }
        let why = OtherError(Arc::new(NotTrusted::Stranger));
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(
            why,
        )))
    }
}

impl ClientCertVerifier for Same {
    fn root_hint_subjects(&self) -> &[Subject] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(leaf)?;
        Ok(ClientCertVerified::assertion())
    }

    signatures!();
}

impl ServerCertVerifier for Same {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(leaf)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_and_every_change_of_a_character_shows() {
        let token = CommonToken([7; 32]);
        let good = token.expose();
        assert_eq!(good.parse(), Ok(token));
        assert_eq!(format!(" {good}\n").parse(), Ok(token));
        let secret = BASE64.encode([7; 32]);
        for at in 0..good.len() {
            for other in ['A', '.', '0', 'z', '\0', '-'] {
                let mut bad = good.clone().into_bytes();
                if bad[at] == other as u8 {
                    continue;
                }
                bad[at] = other as u8;
                let bad = String::from_utf8(bad).unwrap();
                let why = bad.parse::<CommonToken>().unwrap_err();
                assert!(!why.contains(&secret[..8]), "{why}");
            }
            assert!(good[..at].parse::<CommonToken>().is_err(), "cut at {at}");
        }
        for body in ["pb1.", "pb1.AA", "pb1.=", "pb2.AA"] {
            let text = format!("{body}.{}", check(body));
            assert!(text.parse::<CommonToken>().is_err(), "{text}");
        }
        assert!(!format!("{token:?}").contains(&secret[..8]));
        assert!(good.parse::<JoinToken>().is_err());
    }

    #[test]
    fn everything_follows_from_the_secret_and_from_nothing_else() {
        let (a, b) = (CommonToken([1; 32]), CommonToken([2; 32]));
        assert_eq!(a.key().unwrap().pin(), a.key().unwrap().pin());
        assert_ne!(a.key().unwrap().pin(), b.key().unwrap().pin());
        assert_eq!(a.joins().0, a.join(Pin([9; 32])).id);
        assert_ne!(a.joins().0, b.joins().0);
        assert_ne!(a.joins().1, b.joins().1);
        assert_ne!(a.joins().1.expose(), a.0);
        let text = a.join(Pin([9; 32])).expose();
        assert_eq!(text.parse(), Ok(a.join(Pin([9; 32]))));
    }
}
