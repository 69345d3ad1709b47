//! A cluster whose certificates Vault signs: each server asks it, for itself and for those who come to it while it leads, and looks at
//! what it is given before anybody else is. No key of an authority is here; what servers seal for each other is sealed with a secret of
//! their own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prism_control::Control;
use prism_identity::{
    ClusterId, Holder, IdentityError, Issued, Key, NotAsAsked, NotTrusted, Pin, Role, Wanted,
    again_in, check_authority, renew_at, requested,
};
use prism_state::{Command, Join};
use prism_store::BoxFuture;
use prism_types::{NodeId, Reason, Rejection};
use prism_vault::{Vault, VaultError};
use tokio_util::sync::CancellationToken;

use crate::exchange::{Given, GivenByVault};
use crate::house::{House, refusal, unix_now};
use crate::{MemberError, Membership};

/// For how long a certificate is asked: a day.
const LIFE: Duration = Duration::from_secs(24 * 3600);

/// What a server keeps whose cluster has its certificates from Vault.
#[derive(Clone, PartialEq, Eq)]
pub struct Vaulted {
    /// The server's number in the configuration of the store.
    pub number: u64,
    /// What servers seal for each other is sealed with what follows from it; every server has it.
    pub secret: [u8; 32],
}

impl std::fmt::Debug for Vaulted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vaulted")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// What a node that asks to join takes the cluster to stand on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beneath {
    /// An etcd keeps its state.
    pub(crate) on_etcd: bool,
    /// Vault signs for it.
    pub(crate) by_vault: bool,
}

/// A server that has its certificates elsewhere would never get one.
pub(crate) fn other_issuer(by_vault: bool) -> Rejection {
    let why = match by_vault {
        true => {
            "Vault signs for this cluster, and a server that joins it has to ask the same: start it with --issuer=vault, and the mount \
             and the role of the other servers; the token is not used up"
        }
        false => {
            "this cluster has an authority of its own: start this server without --issuer=vault; the token is not used up"
        }
    };
    Rejection::new(Reason::Conflict, why)
}

/// A request (PKCS #10) as Vault reads it.
fn pem(request: &[u8]) -> String {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(request);
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n")
}

fn issuer(why: String) -> Rejection {
    Rejection::retryable(Reason::Issuer, why)
}

pub(crate) fn not_signed(why: &VaultError) -> Rejection {
    issuer(format!("no certificate: {why}; nothing was changed"))
}

/// What is wrong with what Vault gave.
pub(crate) fn not_as_asked(vault: &Vault, why: &NotAsAsked) -> Rejection {
    let next = match why {
        NotAsAsked::NotTrusted(NotTrusted::Stranger) => {
            "it signs with an issuer that this cluster does not trust: let it sign with the one before, or let the cluster trust this \
             one too: prismctl ca rotate"
                .to_owned()
        }
        NotAsAsked::NotTrusted(NotTrusted::NotYet | NotTrusted::Expired) => {
            "its clock and this server's are to be right".to_owned()
        }
        _ => {
            let (mount, role) = (vault.mount(), vault.role());
            format!("see what the role says: vault read {mount}/roles/{role}")
        }
    };
    issuer(format!(
        "no certificate: what Vault has signed is not what was asked for, and is given to nobody: {why}; {next}; nothing was changed"
    ))
}

fn no_vault() -> Rejection {
    issuer("no certificate: this server is not told where Vault is; start it with --issuer=vault and its neighbours; nothing was changed".to_owned())
}

/// Has Vault sign for a member. Without roots what has signed is taken for the root, if it is an authority.
async fn signed(
    vault: &Vault,
    holder: Holder,
    request: &[u8],
    roots: &[Vec<u8>],
) -> Result<Issued, Rejection> {
    let key = requested(request).map_err(|why| refusal(&why))?;
    let given = vault.sign(&pem(request), &holder.to_string(), LIFE).await;
    let given = given.map_err(|why| not_signed(&why))?;
    let now = unix_now();
    let wrong = |why: NotAsAsked| not_as_asked(vault, &why);
    let first = [given.issuer];
    let roots = match roots.is_empty() {
        true => {
            check_authority(&first[0], now).map_err(wrong)?;
            &first
        }
        false => roots,
    };
    let wanted = Wanted {
        holder,
        key,
        roots,
        now,
        seconds: i64::try_from(LIFE.as_secs()).unwrap_or(i64::MAX),
    };
    wanted.check(&given.certificate).map_err(wrong)
}

impl Membership {
    /// Founds a cluster of which this node is the first server, and whose certificates Vault signs. The issuer that signs the first is the
    /// cluster's root.
    ///
    /// # Errors
    /// When Vault is away or refuses, or what it has signed is not what was asked for.
    pub fn found_by(
        vault: &Vault,
        cluster: ClusterId,
        node: NodeId,
    ) -> BoxFuture<'_, Result<Self, MemberError>> {
        Box::pin(async move {
            let key = Key::generate()?;
            let role = Role::Server;
            let holder = Holder {
                cluster,
                role,
                id: node,
            };
            let issued = signed(vault, holder, &key.request()?, &[]).await?;
            let mut secret = [0; 32];
            getrandom::fill(&mut secret).map_err(|why| IdentityError::Make {
                what: "a secret",
                why: why.to_string(),
            })?;
            let mut me = Self {
                cluster,
                node,
                role,
                key,
                chain: Vec::new(),
                life: issued.life,
                roots: issued.chain.get(1..).unwrap_or_default().to_vec(),
                authority: None,
                vault: Some(Vaulted { number: 1, secret }),
            };
            me.take_signed(issued);
            Ok(me)
        })
    }

    /// A new certificate from Vault, if half of the life of the one there is has gone by; says whether. One that is good still is kept
    /// when there is no other: what failed is told.
    ///
    /// # Errors
    /// When there was to be one, and is none.
    pub fn renew_by<'a>(
        &'a mut self,
        vault: &'a Vault,
    ) -> BoxFuture<'a, Result<bool, MemberError>> {
        Box::pin(async move {
            if unix_now() < renew_at(self.life, u32::MAX / 2) {
                return Ok(false);
            }
            let request = self.key.request()?;
            let issued = signed(vault, self.holder(), &request, &self.roots).await?;
            self.take_signed(issued);
            Ok(true)
        })
    }

    fn holder(&self) -> Holder {
        Holder {
            cluster: self.cluster,
            role: self.role,
            id: self.node,
        }
    }

    /// Takes a certificate that Vault has signed. The root above it is the first from now on: it is what join tokens pin.
    pub(crate) fn take_signed(&mut self, issued: Issued) {
        self.life = issued.life;
        let mut chain = issued.chain;
        if let Some(root) = chain.get(1).cloned() {
            self.roots.retain(|known| *known != root);
            self.roots.insert(0, root);
        }
        chain.truncate(1);
        self.chain = chain;
        self.show_roots();
    }

    /// Beside its certificate it shows every root that it trusts, so that workers see when there are others.
    pub(crate) fn show_roots(&mut self) {
        self.chain.truncate(1);
        self.chain.extend(self.roots.iter().cloned());
    }

    /// The server's number in the configuration of the store.
    pub fn number(&self) -> u64 {
        let own = self.authority.as_ref().map(|authority| authority.number);
        own.or(self.vault.as_ref().map(|v| v.number)).unwrap_or(1)
    }

    /// What join tokens pin: the root above this server's certificate, if it lets others in beneath that.
    pub fn root_pin(&self) -> Option<Pin> {
        match (&self.authority, &self.vault) {
            (Some(authority), _) => Some(authority.root_key.as_ref()?.pin()),
            (None, Some(_)) => Pin::of_certificate(self.roots.first()?).ok(),
            (None, None) => None,
        }
    }
}

impl House {
    /// From whom this server has certificates, and those who come to it, when the cluster has no authority of its own. Set once, before
    /// anybody comes.
    pub fn issue_by(&self, vault: Arc<Vault>) {
        let _twice = self.vault.set(vault);
    }

    /// Whether Vault signs for this cluster.
    pub(crate) fn is_vaulted(&self) -> bool {
        self.me().vault.is_some()
    }

    /// What signs for members, for people; `None`: the cluster's own authority.
    pub fn issuer(&self) -> Option<String> {
        let known = self.vault.get().map(|vault| vault.place());
        self.is_vaulted()
            .then(|| known.unwrap_or_else(|| "Vault, which this server is not told of".to_owned()))
    }

    pub(crate) fn vault(&self) -> Result<&Vault, Rejection> {
        let vault = self.vault.get().ok_or_else(no_vault)?;
        Ok(vault)
    }

    /// Has Vault sign for a member; `None`: the cluster's own authority does.
    pub(crate) async fn sign_by_vault(
        &self,
        request: &[u8],
        role: Role,
        id: NodeId,
    ) -> Result<Option<Given>, Rejection> {
        if !self.is_vaulted() {
            return Ok(None);
        }
        let roots = self.me().roots.clone();
        let cluster = self.cluster;
        let holder = Holder { cluster, role, id };
        let issued = signed(self.vault()?, holder, request, &roots).await?;
        self.note_given(id, &issued);
        Ok(Some(Given {
            cluster,
            chain: issued.chain,
            roots,
            server: None,
        }))
    }

    /// The certificate of a node that asks to join, before its token is used: a token that is good for nothing is refused first, and one
    /// that is good is not used up for nothing.
    pub(crate) async fn sign_first(
        &self,
        control: &Control,
        join: &Join,
        (request, role): (&[u8], Role),
    ) -> Result<Option<Given>, Rejection> {
        if !self.is_vaulted() {
            return Ok(None);
        }
        let (now, asked) = (control.now(), Command::Join(join.clone()));
        let would = control.read(|s| prism_state::decide(s, &asked, now).map(drop));
        would.await?;
        let given = self.sign_by_vault(request, role, join.node).await;
        given.map_err(|why| Rejection {
            message: format!("{}; the token is not used up", why.message),
            ..why
        })
    }

    /// What a new server is given beside its certificate.
    pub(crate) fn as_vaulted(&self, given: Given, number: u64) -> Result<GivenByVault, Rejection> {
        let me = self.me();
        let own = me.vault.as_ref().ok_or_else(no_vault)?;
        Ok(GivenByVault {
            given,
            number,
            secret: own.secret,
        })
    }

    /// Renews this server's own certificate in time, until it is told to stop. Apart from all else that it does: Vault may be slow.
    pub(crate) async fn renew_by_vault(
        self: Arc<Self>,
        dir: PathBuf,
        jitter: u32,
        stop: CancellationToken,
    ) {
        let mut failed = false;
        loop {
            let (life, now) = (self.me().life, unix_now());
            let left = renew_at(life, jitter).saturating_sub(now);
            let wait = match u64::try_from(left) {
                // Clocks may be set: it is looked at often.
                Ok(left @ 1..) => left.min(60),
                // One that lives for minutes only may be due again at once.
                _ if failed => again_in(life, now),
                _ => 0,
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(wait)) => {}
            }
            if unix_now() < renew_at(self.me().life, jitter) {
                continue;
            }
            let renewed = self.renew_own_by_vault(&dir).await;
            failed = renewed.is_err() || unix_now() >= renew_at(self.me().life, jitter);
            if let Err(why) = renewed {
                tracing::error!(%why, "this server's certificate is not renewed; it is tried again");
            }
        }
    }

    /// A new certificate of this server's own, kept before it is shown.
    pub(crate) async fn renew_own_by_vault(&self, dir: &Path) -> Result<(), MemberError> {
        let (holder, request, roots) = {
            let me = self.me();
            (me.holder(), me.key.request()?, me.roots.clone())
        };
        let issued = signed(self.vault()?, holder, &request, &roots).await?;
        let mut me = self.me();
        if !issued
            .chain
            .get(1)
            .is_some_and(|root| me.roots.contains(root))
        {
            let why = "no certificate: the root was changed meanwhile; nothing was changed";
            return Err(issuer(why.to_owned()).into());
        }
        me.take_signed(issued);
        me.save(dir)?;
        self.show(&me)
    }
}
