//! The one string that a node joins with: `pj1.ID.SECRET.PIN.CHECK`. The pin of the cluster's root is a part of it, so that it cannot be
//! left out; with it the new node knows whom it talks to before it says anything.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use prism_types::TokenId;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::IdentityError;

/// What every one begins with; scanners for leaked secrets know it by that.
const PREFIX: &str = "pj1";

/// Hex digits of the check.
const CHECK: usize = 8;

/// SHA-256 of a public key (its `SubjectPublicKeyInfo`, DER), as in RFC 7469.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pin(pub [u8; 32]);

impl Pin {
    /// Of a public key.
    pub fn of(info: &[u8]) -> Self {
        Self(Sha256::digest(info).into())
    }

    /// Of the key of a certificate, DER.
    ///
    /// # Errors
    /// When it is none.
    pub fn of_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        X509Certificate::from_der(der)
            .map(|(_, parsed)| Self::of(parsed.public_key().raw))
            .map_err(|why| IdentityError::read("a certificate", why))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

/// The secret half of a token. Never shown but as part of the string.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct JoinSecret([u8; 32]);

impl JoinSecret {
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

    /// One that was received.
    pub fn received(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// To be sent, over a connection that is pinned to the cluster's root.
    pub fn expose(&self) -> [u8; 32] {
        self.0
    }

    /// What a cluster keeps of it.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }
}

impl fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinSecret(..)")
    }
}

/// What the string says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinToken {
    /// Its name in the cluster: what may be done with it is kept there.
    pub id: TokenId,
    /// Its secret.
    pub secret: JoinSecret,
    /// The cluster's root.
    pub pin: Pin,
}

impl JoinToken {
    /// The string. Whoever has it can join; it is shown once.
    pub fn expose(&self) -> String {
        let body = format!(
            "{PREFIX}.{}.{}.{}",
            self.id,
            BASE64.encode(self.secret.0),
            self.pin
        );
        format!("{body}.{}", check(&body))
    }
}

/// Tells a string that was cut or mistyped from one that is not good.
pub(crate) fn check(body: &str) -> String {
    let digest = Sha256::digest(body.as_bytes());
    digest
        .iter()
        .take(CHECK / 2)
        .map(|b| format!("{b:02x}"))
        .collect()
}

fn bytes(text: &str) -> Option<[u8; 32]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

impl FromStr for JoinToken {
    type Err = String;

    /// What is wrong is said without the string, which is a secret.
    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "a join token is one string, pj1.ID.SECRET.PIN.CHECK, as `prismctl server join-token` prints it";
        let bad = |what: &str| format!("this is no join token: {what}; {FORM}");
        let text = text.trim();
        let parts: Vec<&str> = text.split('.').collect();
        let [prefix, id, secret, pin, sum] = parts[..] else {
            return Err(bad(&format!("it has {} parts and not 5", parts.len())));
        };
        if prefix != PREFIX {
            return Err(bad("it does not begin with pj1"));
        }
        let body = text.rsplit_once('.').map_or("", |(body, _)| body);
        if check(body) != sum {
            return Err(bad(
                "its check is wrong, so it was cut or changed on the way",
            ));
        }
        Ok(Self {
            id: id.parse().map_err(|_| bad("its second part is no id"))?,
            secret: bytes(secret)
                .map(JoinSecret)
                .ok_or_else(|| bad("its secret is malformed"))?,
            pin: bytes(pin)
                .map(Pin)
                .ok_or_else(|| bad("its pin is malformed"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token() -> JoinToken {
        JoinToken {
            id: TokenId::new(1, 2),
            secret: JoinSecret([7; 32]),
            pin: Pin([9; 32]),
        }
    }

    proptest! {
        #[test]
        fn tokens_come_back(ms in 0_u64..1 << 48, entropy: u128, secret: [u8; 32], pin: [u8; 32]) {
            let id = TokenId::new(ms, entropy);
            let token = JoinToken { id, secret: JoinSecret(secret), pin: Pin(pin) };
            prop_assert_eq!(token.expose().parse(), Ok(token));
            prop_assert_eq!(format!(" {}\n", token.expose()).parse(), Ok(token));
        }

        #[test]
        fn no_text_breaks_the_reader(text: String) {
            prop_assert!(text.parse::<JoinToken>().is_err());
        }
    }

    #[test]
    fn every_change_of_a_character_shows_and_no_refusal_tells_the_secret() {
        let good = token().expose();
        let secret = BASE64.encode([7; 32]);
        for at in 0..good.len() {
            for other in ['A', '.', '0', 'z', '\0', '-'] {
                let mut bad = good.clone().into_bytes();
                if bad[at] == other as u8 {
                    continue;
                }
                bad[at] = other as u8;
                let bad = String::from_utf8(bad).unwrap();
                let why = bad.parse::<JoinToken>().unwrap_err();
                assert!(!why.contains(&secret[..8]), "{why}");
            }
            assert!(good[..at].parse::<JoinToken>().is_err(), "cut at {at}");
            assert!(
                good[at + 1..].parse::<JoinToken>().is_err(),
                "begun at {at}"
            );
        }
        assert!(!format!("{:?}", token()).contains(&secret[..8]));
    }

    #[test]
    fn a_check_that_is_right_does_not_make_the_rest_right() {
        let (id, s, p) = (
            TokenId::new(1, u128::MAX),
            BASE64.encode([7; 32]),
            BASE64.encode([9; 32]),
        );
        for body in [
            format!("pj2.{id}.{s}.{p}"),
            format!("pj1.{id}.{s}="),
            format!("pj1.{id}.{s}.{p}="),
            format!("pj1.{id}..{p}"),
            format!("pj1.{id}.{s}."),
            format!("pj1..{s}.{p}"),
            format!("pj1.{}.{s}.{p}", id.to_string().to_uppercase()),
            format!("pj1.{id}.{}.{p}", &s[1..]),
            format!("pj1.{id}.{s}.{}", &p[1..]),
            format!("pj1.{id}.{s}A.{p}"),
            format!("pj1.{id}.{}.{p}", BASE64.encode([7; 33])),
            format!("pj1.{id}.{s}.{p}.{p}"),
            format!("pj1.{id}.{}.{p}", s.replace('B', "+")),
        ] {
            let text = format!("{body}.{}", check(&body));
            assert!(text.parse::<JoinToken>().is_err(), "{text}");
        }
    }
}
