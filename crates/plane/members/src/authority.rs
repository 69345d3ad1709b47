//! What a server signs with.

use prism_identity::{
    ClusterId, IdentityError, Issued, Issuer, Key, Lifetime, Role, Root, renew_at,
};
use prism_types::NodeId;

/// The authority of a server: its own issuer, and the certificate of the root above it. The server that founded the cluster has the
/// root's key too.
#[derive(Debug)]
pub struct Authority {
    /// Its issuer.
    pub issuer: Issuer,
    /// The root's certificate, DER.
    pub root: Vec<u8>,
    /// The root itself, where it is kept.
    pub root_key: Option<Root>,
    /// The server's number in the configuration of the store.
    pub number: u64,
    /// Other roots whose keys are kept while the root is changed.
    pub others: Vec<Root>,
    /// The certificate that the old root gave its issuer, while the root is changed.
    pub also: Option<Vec<u8>>,
}

impl Authority {
    /// A new root and the founder's issuer beneath it.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn found(cluster: ClusterId, founder: NodeId, now: i64) -> Result<Self, IdentityError> {
        let root = Root::found(cluster, Lifetime::decade(now))?;
        let key = Key::generate()?;
        let certificate = root.sign_issuer(&key.request()?, founder, Lifetime::year(now))?;
        Ok(Self {
            issuer: Issuer::new(cluster, key, certificate)?,
            root: root.certificate().to_vec(),
            root_key: Some(root),
            number: 1,
            others: Vec::new(),
            also: None,
        })
    }

    /// The certificate of another server's issuer, for the key of its request: a year from now.
    ///
    /// # Errors
    /// When the request is damaged, or the root's key is not kept here.
    pub fn sign_issuer(
        &self,
        request: &[u8],
        server: NodeId,
        now: i64,
    ) -> Result<Vec<u8>, IdentityError> {
        let root = self.root_key.as_ref().ok_or_else(|| IdentityError::Make {
            what: "an issuer",
            why: "the root's key is not kept on this server".to_owned(),
        })?;
        root.sign_issuer(request, server, Lifetime::year(now))
    }

    /// Signs for the key of a request: a day from now.
    ///
    /// # Errors
    /// When the request is damaged, or the issuer's own certificate ends too soon.
    pub fn sign(
        &self,
        request: &[u8],
        role: Role,
        id: NodeId,
        now: i64,
    ) -> Result<Issued, IdentityError> {
        let issued = self.issuer.sign(request, (role, id), Lifetime::day(now))?;
        Ok(self.whole(issued))
    }

    /// Signs for the key of a client's request.
    ///
    /// # Errors
    /// As of [`Authority::sign`].
    pub fn sign_client(
        &self,
        request: &[u8],
        id: NodeId,
        life: Lifetime,
    ) -> Result<Issued, IdentityError> {
        let issued = self.issuer.sign(request, (Role::Client, id), life)?;
        Ok(self.whole(issued))
    }

    /// With the way to the old root, while there is one.
    fn whole(&self, mut issued: Issued) -> Issued {
        issued.chain.extend(self.also.clone());
        issued
    }

    /// A new issuer from the root, when half of the life of the one there is has gone by and the root's key is here. Says whether.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn renew_issuer(&mut self, server: NodeId, now: i64) -> Result<bool, IdentityError> {
        let Some(root) = self.root_key.as_ref().filter(|_| self.also.is_none()) else {
            return Ok(false);
        };
        if now < renew_at(self.issuer.life(), u32::MAX / 2) {
            return Ok(false);
        }
        let key = Key::generate()?;
        let certificate = root.sign_issuer(&key.request()?, server, Lifetime::year(now))?;
        self.issuer = Issuer::new(root.cluster(), key, certificate)?;
        Ok(true)
    }
}
