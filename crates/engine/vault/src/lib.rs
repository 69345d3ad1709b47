//! A PKI secrets engine of Vault (or of OpenBao, which speaks the same) that signs certificates: its HTTP interface, as far as that needs
//! it. What comes back is not believed here: it is certificates, and whoever asked looks at what they say.
//!
//! One request is one connection: a member asks twice a day. TLS 1.3 with the authorities of one file; without TLS only on this machine.
//! Redirects are not followed, answers are bounded, and the token is read again for each request and told to nobody.

#![forbid(unsafe_code)]

mod answer;
mod config;
mod error;
mod http;

use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use prism_store::BoxFuture;
use serde_json::json;
use tokio::sync::Semaphore;

pub use answer::Signed;
pub use config::Config;
pub use error::VaultError;

use crate::http::Wire;

/// How long a request may take in all. Whoever asks for a certificate waits ten seconds for it.
const PATIENCE: Duration = Duration::from_secs(6);
/// Requests at once; more wait, within that time.
const AT_ONCE: usize = 16;

/// A role of a PKI mount of Vault.
#[derive(Debug)]
pub struct Vault {
    config: Config,
    wire: Wire,
    room: Arc<Semaphore>,
}

impl Vault {
    /// Looks at the settings; nothing is sent.
    ///
    /// # Errors
    /// [`VaultError::Config`] when they cannot be used, [`VaultError::File`] when the authorities cannot be read.
    pub fn new(config: Config) -> Result<Self, VaultError> {
        config.check()?;
        let wire = Wire::new(&config)?;
        Ok(Self {
            config,
            wire,
            room: Arc::new(Semaphore::new(AT_ONCE)),
        })
    }

    /// What signs, for people: `https://HOST:PORT/v1/MOUNT/sign/ROLE`, with the namespace if there is one.
    pub fn place(&self) -> String {
        let base = self.config.address.trim_end_matches('/');
        let place = format!("{base}{}", self.config.sign_path());
        match &self.config.namespace {
            Some(namespace) => format!("{place} (namespace {namespace})"),
            None => place,
        }
    }

    /// The mount, for commands that people are told.
    pub fn mount(&self) -> &str {
        &self.config.mount
    }

    /// The role, for the same.
    pub fn role(&self) -> &str {
        &self.config.role
    }

    /// Has a certificate signed for the key of a request (PKCS #10, PEM), with this URI as its only name, for so long at most.
    ///
    /// # Errors
    /// When Vault is away, refuses, or answers something else.
    pub fn sign<'a>(
        &'a self,
        request: &'a str,
        uri: &'a str,
        life: Duration,
    ) -> BoxFuture<'a, Result<Signed, VaultError>> {
        let body = json!({
            "csr": request,
            "uri_sans": uri,
            "ttl": format!("{}s", life.as_secs()),
            "format": "pem",
            "exclude_cn_from_sans": true,
        });
        Box::pin(async move {
            let path = self.config.sign_path();
            let answer = self.asked(Method::POST, &path, Some(body)).await?;
            answer::signed(&answer).map_err(|why| self.strange(why))
        })
    }

    /// The certificate (DER) of an issuer of the mount by its name; `default` is the one that signs unless the role says another.
    ///
    /// # Errors
    /// As of [`Vault::sign`]; [`VaultError::Refused`] when there is none of this name.
    pub fn issuer<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<u8>, VaultError>> {
        Box::pin(async move {
            let path = format!("/v1/{}/issuer/{name}/json", self.config.mount);
            let answer = self.asked(Method::GET, &path, None).await?;
            answer::issuer(&answer).map_err(|why| self.strange(why))
        })
    }

    async fn asked(
        &self,
        method: Method,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> Result<Vec<u8>, VaultError> {
        let token = self.config.token()?;
        let asked = async {
            // It is never closed.
            let _room = self.room.acquire().await;
            self.wire.ask(method, path, &token, body).await
        };
        let answered = match tokio::time::timeout(PATIENCE, asked).await {
            Ok(answered) => answered,
            Err(_) => Err(error::Failed::Away(format!(
                "no answer within {} seconds",
                PATIENCE.as_secs()
            ))),
        };
        // Whoever answers may say again what it was sent.
        answered.map_err(|why| why.without(&token).told(self))
    }

    fn strange(&self, why: String) -> VaultError {
        error::Failed::Strange(why).told(self)
    }
}
