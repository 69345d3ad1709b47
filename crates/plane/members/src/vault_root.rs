//! The change of the root where Vault signs. Prism cannot have two roots sign for one key there: first everybody trusts both, then Vault
//! signs with the new one, and when everybody has shown a certificate of that the old one goes.

use std::path::Path;
use std::time::{Duration, Instant};

use prism_identity::{Issued, Pin, check_authority};
use prism_state::RotationRecord;
use prism_store::BoxFuture;
use prism_types::{NodeId, Reason, Rejection};
use prism_vault::VaultError;

use crate::MemberError;
use crate::house::{House, refusal, unix_now};
use crate::vault::{not_as_asked, not_signed};

/// How soon Vault is asked again for what the end of a change of the root needs.
const AGAIN: Duration = Duration::from_secs(30);

impl House {
    /// Goes on with a change of the root. While it is under way both are trusted, whichever Vault signs with; which that is and when it
    /// changes is said in Vault.
    pub(crate) async fn step_by_vault(
        &self,
        rotation: &RotationRecord,
        dir: &Path,
    ) -> Result<(), MemberError> {
        let (old, new) = (&rotation.old.certificate, &rotation.new.certificate);
        if rotation.ended.is_none() {
            let known = self.me().roots.clone();
            if known.len() == 2 && known.contains(old) && known.contains(new) {
                return Ok(());
            }
            return self.trust_roots(dir, |first| match first == Some(new) {
                true => vec![new.clone(), old.clone()],
                false => vec![old.clone(), new.clone()],
            });
        }
        let known = self.me().roots.clone();
        if known != [new.clone()] {
            self.trust_roots(dir, |_| vec![new.clone()])?;
        }
        // It was away for the whole of it.
        if !self.is_beneath_new(rotation) && self.may_ask_again() {
            self.renew_own_by_vault(dir).await?;
        }
        Ok(())
    }

    /// Whether this server's own certificate is of the new root.
    pub(crate) fn is_beneath_new(&self, rotation: &RotationRecord) -> bool {
        let (leaf, life) = {
            let me = self.me();
            (me.chain.first().cloned(), me.life)
        };
        let leaf: Vec<_> = leaf.into_iter().map(Into::into).collect();
        // Whether it is good now is another question.
        let at = unix_now().clamp(life.from, life.until.max(life.from));
        self.trust.is_beneath(&rotation.new.certificate, &leaf, at)
    }

    /// Trusts other roots; `roots` is told the first of those there are. Kept before it is used.
    fn trust_roots(
        &self,
        dir: &Path,
        roots: impl FnOnce(Option<&Vec<u8>>) -> Vec<Vec<u8>>,
    ) -> Result<(), MemberError> {
        let mut me = self.me();
        me.roots = roots(me.roots.first());
        me.show_roots();
        me.save(dir)?;
        self.trust.set_roots(&me.roots)?;
        self.show(&me)
    }

    fn may_ask_again(&self) -> bool {
        let mut watch = self.watch();
        let soon = watch.asked.is_some_and(|at: Instant| at.elapsed() < AGAIN);
        if !soon {
            watch.asked = Some(Instant::now());
        }
        !soon
    }

    /// Notes who was given a certificate of the new root: it is to come again and show it.
    pub(crate) fn note_given(&self, id: NodeId, issued: &Issued) {
        let mut watch = self.watch();
        let new = watch.record.as_ref().filter(|r| r.ended.is_none());
        if new.is_some_and(|r| issued.chain.get(1) == Some(&r.new.certificate)) {
            watch.given.insert(id);
        }
    }

    /// The root that is to take the place of the one there is: the issuer `next` of the mount, or its default issuer.
    ///
    /// # Errors
    /// When Vault is away, or has no other issuer.
    pub fn next_vault_root(&self) -> BoxFuture<'_, Result<Vec<u8>, Rejection>> {
        Box::pin(async move {
            let vault = self.vault()?;
            let known = self.me().roots.clone();
            let known = prism_identity::pins_in(&known).map_err(|why| refusal(&why))?;
            for name in ["next", "default"] {
                let found = match vault.issuer(name).await {
                    Ok(found) => found,
                    // There is none of this name; Vault says so in several ways.
                    Err(VaultError::Refused { .. }) => continue,
                    Err(VaultError::Away { why, .. }) if why.starts_with("500") => continue,
                    Err(why) => return Err(not_signed(&why)),
                };
                let good = check_authority(&found, unix_now());
                good.map_err(|why| not_as_asked(vault, &why))?;
                let pin = Pin::of_certificate(&found).map_err(|why| refusal(&why))?;
                if !known.contains(&pin) {
                    return Ok(found);
                }
            }
            let mount = vault.mount();
            Err(Rejection::new(
                Reason::WrongState,
                format!(
                    "Vault has no other root for this cluster: neither issuer `next` nor `default` of {mount} is a new one; nothing was \
                     changed: make one with `vault write {mount}/root/rotate/internal common_name=prism issuer_name=next ttl=87600h`, then \
                     prismctl ca rotate again"
                ),
            ))
        })
    }

    /// Whether the change of the root may be ended by hand: not while this server's own certificate is of the old one, for then Vault
    /// signs with that, and nobody would be left.
    ///
    /// # Errors
    /// Why not.
    pub fn may_finish(&self) -> Result<(), Rejection> {
        let record = self.watch().record.clone();
        let old = record
            .is_some_and(|r| r.ended.is_none() && self.is_vaulted() && !self.is_beneath_new(&r));
        if !old {
            return Ok(());
        }
        let mount = self.vault()?.mount();
        Err(Rejection::new(
            Reason::WrongState,
            format!(
                "this server's certificate is of the old root still; nothing was changed: let Vault sign with the new one (`vault write \
                 {mount}/root/replace default=next`), and wait until the members have renewed, which takes half a day"
            ),
        ))
    }
}
