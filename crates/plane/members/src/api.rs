//! How a server shows itself to those who use its API: a certificate of its own issuer for the names that it is reached at, with a key
//! that is made at each start and never kept.

use std::sync::{Arc, PoisonError};

use prism_identity::{IdentityError, Key, Lifetime, NotTrusted, Pin, accept_api, renew_at};
use prism_types::{NodeId, Reason, Rejection, TokenId};
use rustls::ServerConfig;

use crate::house::{House, no_issuer, refusal, unix_now};
use crate::{MemberError, Membership};

/// What is shown now.
#[derive(Debug)]
pub(crate) struct ApiFace {
    key: Key,
    names: Vec<String>,
    config: Arc<ServerConfig>,
    life: Lifetime,
}

impl House {
    /// Shows itself to those who use its API, under these names and addresses, from now on.
    ///
    /// # Errors
    /// When a name is none, or this server has no issuer.
    pub fn open_api(&self, names: Vec<String>) -> Result<(), MemberError> {
        let key = Key::generate()?;
        let face = self.api_face_of(&self.me(), key, names)?;
        *self.api.lock().unwrap_or_else(PoisonError::into_inner) = Some(face);
        Ok(())
    }

    fn api_face_of(
        &self,
        me: &Membership,
        key: Key,
        names: Vec<String>,
    ) -> Result<ApiFace, MemberError> {
        // Whoever listens counts them, and says in its log why.
        let refused = Arc::new(|_: &NotTrusted| {});
        if me.vault.is_some() {
            // Vault signs for members only. The key of the server's own certificate stays the same, so that it can be pinned.
            let key = Key::from_pem(&me.key.to_pem())?;
            let config = accept_api(self.client_trust.clone(), (&key, &me.chain), refused)?;
            return Ok(ApiFace {
                key,
                names,
                config: Arc::new(config),
                life: me.life,
            });
        }
        let authority = me.authority.as_ref().ok_or_else(no_issuer)?;
        let life = Lifetime::day(unix_now());
        let request = key.request()?;
        let issued = authority.issuer.sign_api(&request, me.node, &names, life)?;
        let mut chain = issued.chain;
        chain.extend(authority.also.clone());
        // A client knows the roots by their pins.
        chain.extend(me.roots.iter().cloned());
        let config = accept_api(self.client_trust.clone(), (&key, &chain), refused)?;
        Ok(ApiFace {
            key,
            names,
            config: Arc::new(config),
            life: issued.life,
        })
    }

    /// The same with a new certificate, if it is shown at all.
    pub(crate) fn renew_api(&self, me: &Membership) -> Result<(), MemberError> {
        let mut api = self.api.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(old) = &*api else {
            return Ok(());
        };
        let key = Key::from_pem(&old.key.to_pem())?;
        *api = Some(self.api_face_of(me, key, old.names.clone())?);
        Ok(())
    }

    /// When that is to be, in Unix seconds.
    pub(crate) fn api_renewal(&self, jitter: u32) -> Option<i64> {
        let api = self.api.lock().unwrap_or_else(PoisonError::into_inner);
        api.as_ref().map(|face| renew_at(face.life, jitter))
    }

    /// How it shows itself to those who use its API, if it does.
    pub fn api_face(&self) -> Option<Arc<ServerConfig>> {
        let api = self.api.lock().unwrap_or_else(PoisonError::into_inner);
        api.as_ref().map(|face| face.config.clone())
    }

    /// Whom it takes for a client of its API.
    pub fn client_trust(&self) -> Arc<prism_identity::Trust> {
        self.client_trust.clone()
    }

    /// The roots that are trusted among members now (DER), the newest first.
    pub fn roots(&self) -> Vec<Vec<u8>> {
        self.me().roots.clone()
    }

    /// The root that this server signs beneath (DER).
    ///
    /// # Errors
    /// When it has none.
    pub fn root(&self) -> Result<Vec<u8>, Rejection> {
        let me = self.me();
        if me.vault.is_some() {
            return me.roots.first().cloned().ok_or_else(no_issuer);
        }
        let authority = me.authority.as_ref().ok_or_else(no_issuer)?;
        Ok(authority.root.clone())
    }

    /// What those who use the API pin: that root, or the server's own key where Vault signs.
    ///
    /// # Errors
    /// As of [`House::root`].
    pub fn api_pin(&self) -> Result<Pin, Rejection> {
        if self.is_vaulted() {
            return Ok(self.me().key.pin());
        }
        let pins = prism_identity::pins_in(&[self.root()?]);
        let pins = pins.map_err(|why| refusal(&why))?;
        pins.into_iter().next().ok_or_else(no_issuer)
    }

    /// A certificate for a client of the API, good until then (Unix seconds), for the key of its request. Its chain, DER.
    ///
    /// # Errors
    /// When the request is damaged, or this server signs nothing.
    pub fn sign_client(
        &self,
        request: &[u8],
        id: TokenId,
        until: i64,
    ) -> Result<Vec<Vec<u8>>, Rejection> {
        self.may_sign()?;
        if self.is_vaulted() {
            let why = "Vault signs for this cluster, and for its servers and workers only; nothing was changed: make a token instead, with prismctl token create";
            return Err(Rejection::new(Reason::Unsupported, why));
        }
        let me = self.me();
        let authority = me.authority.as_ref().ok_or_else(no_issuer)?;
        let now = unix_now();
        let life = Lifetime::of(now, until.saturating_sub(now));
        let issued = authority.sign_client(request, NodeId(id.0), life);
        let issued = issued.map_err(|why: IdentityError| refusal(&why))?;
        Ok(issued.chain)
    }
}
