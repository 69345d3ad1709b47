//! What a server does about a change of the root, one step at a time: each is kept before it is used, and is found again after a crash.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use prism_control::{Control, Seat};
use prism_identity::{Key, Pin, Role, Root, pins_in};
use prism_state::{Command, RotationRecord};
use prism_types::{NodeId, Reason, Rejection};
use serde::{Deserialize, Serialize};

use crate::house::{House, unix_now};
use crate::{Authority, MemberError, Membership, alpn};

/// How often it is looked at while the root is being changed.
pub(crate) const PACE: Duration = Duration::from_millis(500);
/// Most workers that are asked to come again at each look.
const RECALLED: usize = 50;
/// A worker that has not come along by then is asked to come again.
const PATIENT: Duration = Duration::from_secs(10);
/// How long clients' certificates of the old root are good after it is gone: as long as any of them lives.
const CLIENTS: u64 = 90 * 24 * 3_600_000;

/// What a server asks another for: the key of a root. Servers, and nobody else, are given it, as when they join.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AskRoot {
    pub(crate) pin: [u8; 32],
}

/// A root with its key.
#[derive(Serialize, Deserialize)]
pub(crate) struct GivenRoot {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: String,
}

impl std::fmt::Debug for GivenRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GivenRoot(..)")
    }
}

/// What is seen of the change of the root.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// As the cluster says.
    pub(crate) record: Option<RotationRecord>,
    /// Since when its last step is known here.
    since: Option<Instant>,
    /// Who has shown a certificate of the new root, and is not noted yet.
    seen: BTreeSet<NodeId>,
    /// Said once.
    left_behind: bool,
    /// Who was given a certificate of the new root that Vault signed.
    pub(crate) given: BTreeSet<NodeId>,
    /// When Vault was asked last for what the end of the change needs.
    pub(crate) asked: Option<Instant>,
}

/// How a server stands.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Standing {
    /// The root above its issuer.
    root: Pin,
    /// Roots whose keys it has.
    keys: Vec<Pin>,
    /// Whether its issuer has a certificate of the old root too.
    both: bool,
    /// Roots that it trusts.
    trusted: BTreeSet<Pin>,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Todo {
    Nothing,
    /// Another server has the key of this root.
    Fetch(Pin),
    /// A new issuer, with a certificate of either root.
    TakeOver,
    /// The old root goes.
    Forget,
    /// It was away for the whole of it.
    LeftBehind,
}

fn todo(me: &Standing, rotation: &RotationRecord) -> Todo {
    let (old, new) = (Pin(rotation.old.pin), Pin(rotation.new.pin));
    let has = |pin: &Pin| me.keys.contains(pin);
    match rotation.ended {
        None if !has(&new) => Todo::Fetch(new),
        None if !has(&old) => Todo::Fetch(old),
        None if me.root != new || !me.both || me.trusted != BTreeSet::from([old, new]) => {
            Todo::TakeOver
        }
        None => Todo::Nothing,
        Some(_) if me.root != new && has(&new) && has(&old) => Todo::TakeOver,
        Some(_) if me.root != new => Todo::LeftBehind,
        Some(_) if me.both || has(&old) || me.trusted != BTreeSet::from([new]) => Todo::Forget,
        Some(_) => Todo::Nothing,
    }
}

fn standing(me: &Membership) -> Option<Standing> {
    let authority = me.authority.as_ref()?;
    let keys = authority.root_key.iter().chain(&authority.others);
    Some(Standing {
        root: pins_in(std::slice::from_ref(&authority.root)).ok()?.pop()?,
        keys: keys.map(Root::pin).collect(),
        both: authority.also.is_some(),
        trusted: pins_in(&me.roots).ok()?.into_iter().collect(),
    })
}

impl Membership {
    /// See [`House::sealing_secrets`].
    pub fn sealing_secrets(&self) -> Vec<[u8; 32]> {
        let all = self.authority.iter();
        let all = all.flat_map(|a| a.root_key.iter().chain(&a.others));
        let common = self.vault.iter().map(|own| own.secret);
        all.map(Root::sealing_secret).chain(common).collect()
    }

    /// A new issuer with certificates of both roots, and a certificate of its own beneath it.
    fn take_over(&mut self, rotation: &RotationRecord, now: i64) -> Result<(), MemberError> {
        let (old, new) = (Pin(rotation.old.pin), Pin(rotation.new.pin));
        let node = self.node;
        if let Some(authority) = &mut self.authority {
            authority.take_over((old, new), node, now)?;
        }
        self.roots = vec![
            rotation.new.certificate.clone(),
            rotation.old.certificate.clone(),
        ];
        self.renew_own(now).map(drop)
    }

    /// Nothing of the old root is left.
    fn forget(&mut self, rotation: &RotationRecord, now: i64) -> Result<(), MemberError> {
        if let Some(authority) = &mut self.authority {
            // The key of the root that comes next may be here already.
            let old = Pin(rotation.old.pin);
            authority.others.retain(|root| root.pin() != old);
            authority.also = None;
        }
        self.roots = vec![rotation.new.certificate.clone()];
        self.renew_own(now).map(drop)
    }
}

impl House {
    /// Goes on with the change of the root, if there is one. Says whether it is under way.
    pub(crate) async fn follow_rotation(
        &self,
        record: Option<RotationRecord>,
        (leader, dir): (Option<&Control>, &Path),
    ) -> bool {
        let Some(rotation) = record else {
            return false;
        };
        self.note_step(&rotation);
        self.trust_clients(&rotation);
        if self.is_vaulted()
            && let Err(why) = self.step_by_vault(&rotation, dir).await
        {
            tracing::warn!(%why, "the change of the root does not go on; it is tried again");
        }
        // A few steps at most, then it is looked at again.
        for _ in 0..4 {
            let next = standing(&self.me()).map_or(Todo::Nothing, |me| todo(&me, &rotation));
            let done = match next {
                Todo::Nothing => break,
                Todo::LeftBehind => {
                    self.left_behind();
                    break;
                }
                Todo::Fetch(pin) => self.fetch_root(pin, dir).await,
                Todo::TakeOver => self.changed(dir, |me| me.take_over(&rotation, unix_now())),
                Todo::Forget => self.changed(dir, |me| me.forget(&rotation, unix_now())),
            };
            match done {
                Ok(()) => tracing::info!(step = ?next, "the change of the root goes on"),
                Err(why) => {
                    tracing::warn!(%why, step = ?next, "the change of the root does not go on; it is tried again");
                    return true;
                }
            }
        }
        self.recall(&rotation);
        if rotation.ended.is_none() {
            self.report(&rotation, leader).await;
        }
        rotation.ended.is_none()
    }

    /// What follows from the keys of the roots that this server has, for what is kept where others read too: that of the root that it
    /// signs beneath is the first.
    pub fn sealing_secrets(&self) -> Vec<[u8; 32]> {
        self.me().sealing_secrets()
    }

    pub(crate) fn watch(&self) -> std::sync::MutexGuard<'_, Watch> {
        self.rotation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_step(&self, rotation: &RotationRecord) {
        let mut watch = self.watch();
        let step = |r: &RotationRecord| (r.new.pin, r.ended.is_some());
        if watch.record.as_ref().map(step) != Some(step(rotation)) {
            watch.since = Some(Instant::now());
            watch.seen.clear();
            watch.given.clear();
            watch.left_behind = false;
        }
        watch.record = Some(rotation.clone());
    }

    fn left_behind(&self) {
        let first = !std::mem::replace(&mut self.watch().left_behind, true);
        if first {
            tracing::error!(
                "the root of the cluster was changed while this server was away: no other member trusts it any more. On another \
                 server: prismctl peer rm NAME; then let this one join with an empty directory"
            );
        }
    }

    /// Changes who this server is: kept first, then shown.
    fn changed(
        &self,
        dir: &Path,
        change: impl FnOnce(&mut Membership) -> Result<(), MemberError>,
    ) -> Result<(), MemberError> {
        let mut me = self.me();
        change(&mut me)?;
        me.save(dir)?;
        self.trust.set_roots(&me.roots)?;
        self.show(&me)
    }

    /// Gets the key of a root from another server.
    async fn fetch_root(&self, pin: Pin, dir: &Path) -> Result<(), MemberError> {
        let mut last = None;
        for server in self.other_servers() {
            match self.ask_root(&server, pin).await {
                Ok(Some(root)) => {
                    return self.changed(dir, |me| {
                        if let Some(authority) = &mut me.authority {
                            authority.others.push(root);
                        }
                        Ok(())
                    });
                }
                Ok(None) => {}
                Err(why) => last = Some(why),
            }
        }
        let none = || {
            let why = format!(
                "no server that answers has the key of root {pin}; start the others, or begin again with prismctl ca rotate --again"
            );
            MemberError::Refused(Rejection::retryable(Reason::Lost, why))
        };
        Err(last.unwrap_or_else(none))
    }

    async fn ask_root(&self, server: &str, pin: Pin) -> Result<Option<Root>, MemberError> {
        let mut dialled = self.dial(server, alpn::ROOT).await?;
        let (address, question) = (dialled.address, AskRoot { pin: pin.0 });
        let given: Option<GivenRoot> =
            crate::dial::ask(address, &mut dialled.stream, &question).await?;
        let Some(given) = given else {
            return Ok(None);
        };
        let root = Root::load(self.cluster, Key::from_pem(&given.key)?, given.certificate)?;
        Ok((root.pin() == pin).then_some(root))
    }

    /// For another server that asks.
    pub(crate) fn give_root(&self, asked: &AskRoot) -> Option<GivenRoot> {
        let me = self.me();
        let authority = me.authority.as_ref()?;
        let root = authority.root_of(Pin(asked.pin))?;
        Some(GivenRoot {
            certificate: root.certificate().to_vec(),
            key: root.key().to_pem(),
        })
    }

    /// Notes who shows a certificate of the new root.
    pub(crate) fn saw(&self, id: NodeId, chain: &[rustls::pki_types::CertificateDer<'_>]) {
        let new = {
            let watch = self.watch();
            let Some(r) = watch.record.as_ref().filter(|r| r.ended.is_none()) else {
                return;
            };
            if r.moved.contains(&id) || watch.seen.contains(&id) {
                return;
            }
            r.new.certificate.clone()
        };
        if self.trust.is_beneath(&new, chain, unix_now()) {
            self.watch().seen.insert(id);
        }
    }

    /// Tells the cluster who has come along, and ends the change when all have.
    async fn report(&self, rotation: &RotationRecord, leader: Option<&Control>) {
        let me = self.me().node;
        let moved = match self.is_vaulted() {
            true => self.is_beneath_new(rotation),
            false => standing(&self.me()).is_some_and(|s| todo(&s, rotation) == Todo::Nothing),
        };
        let Some(control) = leader else {
            if moved
                && !rotation.moved.contains(&me)
                && let Seat::There(leader) = self.links.seats.now()
                && let Err(why) = self.introduce(&leader, None).await
            {
                tracing::debug!(%why, "the leader does not hear that this server has a certificate of the new root");
            }
            return;
        };
        let mut members = self.watch().seen.clone();
        if moved && !rotation.moved.contains(&me) {
            members.insert(me);
        }
        if !members.is_empty() {
            let command = Command::Moved {
                pin: rotation.new.pin,
                members: members.iter().copied().collect(),
            };
            match control.propose(command, None).await {
                Ok(_) => self.watch().seen.retain(|id| !members.contains(id)),
                Err(why) => {
                    return tracing::warn!(%why, "who has a certificate of the new root is not noted; it is tried again");
                }
            }
        }
        let (now, vaulted) = (control.now(), self.is_vaulted());
        let due = |s: &prism_state::State| match vaulted {
            // Until Vault signs with the new root nobody has a certificate of it, however long that is.
            true => s.rotating().is_some() && s.names_waiting().is_empty(),
            false => s.rotation_is_due(now),
        };
        if control.read(due).await {
            let ended = control.propose(Command::EndRotation { force: false }, None);
            if let Err(why) = ended.await {
                tracing::warn!(%why, "the change of the root is not ended; it is tried again");
            }
        }
    }

    /// Has those come again who are connected with what was good before: workers a few at a time, so that not all come at once.
    fn recall(&self, rotation: &RotationRecord) {
        let (since, seen, given) = {
            let watch = self.watch();
            (watch.since, watch.seen.clone(), watch.given.clone())
        };
        let vaulted = self.is_vaulted();
        let Some(since) = since else { return };
        let over = rotation.ended.is_some();
        let recalled = self.guests.recall(RECALLED, |peer, entered| {
            let id = peer.holder.id;
            let worker = peer.holder.role == Role::Worker;
            let moved = rotation.moved.contains(&id) || seen.contains(&id);
            let before = entered < since;
            match (over, worker) {
                (true, _) => before,
                // It has a certificate of the new root when Vault signs with that, and no sooner.
                (false, true) if vaulted && !given.contains(&id) => !moved && before,
                (false, true) => !moved && (before || entered.elapsed() > PATIENT),
                (false, false) => false,
            }
        });
        if recalled > 0 {
            tracing::info!(
                recalled,
                "connections are to come again with certificates of the new root"
            );
        }
    }

    /// A certificate of a client says only who asks; what it may is bound to its key in the state. So those of the old root stay good
    /// for as long as any of them lives.
    fn trust_clients(&self, rotation: &RotationRecord) {
        let now = u64::try_from(unix_now()).unwrap_or_default() * 1000;
        let old = rotation
            .ended
            .is_none_or(|ended| now < ended.0.saturating_add(CLIENTS));
        let mut roots = self.me().roots.clone();
        if old && !roots.contains(&rotation.old.certificate) {
            roots.push(rotation.old.certificate.clone());
        }
        if let Err(why) = self.client_trust.set_roots(&roots) {
            tracing::error!(%why, "whom the API trusts stays as it was");
        }
    }

    /// Makes a root that is to take the place of the one there is, and keeps its key. Its certificate, DER.
    ///
    /// # Errors
    /// When it cannot be made or kept.
    pub fn next_root(&self, dir: &Path) -> Result<Vec<u8>, MemberError> {
        let root = Root::found(self.cluster, prism_identity::Lifetime::decade(unix_now()))?;
        let certificate = root.certificate().to_vec();
        let record = self.watch().record.clone();
        let under_way = record.is_some_and(|r| r.ended.is_none());
        let mut me = self.me();
        let authority = me.authority.as_mut().ok_or_else(crate::house::no_issuer)?;
        if !under_way {
            // Of an attempt that did not come to anything.
            authority.others.clear();
        }
        authority.others.push(root);
        me.save(dir)?;
        Ok(certificate)
    }

    /// Whether this server may sign for members, as the leader knows how far a change of the root is.
    pub(crate) async fn may_sign_with(&self, control: &Control) -> Result<(), Rejection> {
        if let Some(rotation) = control.read(|s| s.rotation().cloned()).await {
            self.note_step(&rotation);
        }
        self.may_sign()
    }

    /// Whether this server may sign for members now: not while a change of the root has begun that it has not come along with.
    pub(crate) fn may_sign(&self) -> Result<(), Rejection> {
        let record = self.watch().record.clone();
        let behind = record.is_some_and(|rotation| {
            let standing = standing(&self.me());
            let next = standing.map_or(Todo::Nothing, |me| todo(&me, &rotation));
            !matches!(next, Todo::Nothing | Todo::Forget)
        });
        if behind {
            let why = "the root of the cluster is being changed, and this server does not have the new one yet; nothing was changed: try again";
            return Err(Rejection::retryable(Reason::Lost, why));
        }
        Ok(())
    }
}

impl Authority {
    /// A root whose key is kept here.
    fn root_of(&self, pin: Pin) -> Option<&Root> {
        let all = self.root_key.iter().chain(&self.others);
        all.into_iter().find(|root| root.pin() == pin)
    }

    /// A new issuer with certificates of the new root and of the old one.
    fn take_over(
        &mut self,
        (old, new): (Pin, Pin),
        server: NodeId,
        now: i64,
    ) -> Result<(), MemberError> {
        let missing = || {
            let why = "the key of a root is not here";
            MemberError::Refused(Rejection::retryable(Reason::Lost, why))
        };
        let life = prism_identity::Lifetime::year(now);
        let key = Key::generate()?;
        let request = key.request()?;
        let sign = |pin| {
            let root = self.root_of(pin).ok_or_else(missing)?;
            Ok::<_, MemberError>(root.sign_issuer(&request, server, life)?)
        };
        let (certificate, also) = (sign(new)?, sign(old)?);
        let mut all: Vec<Root> = self.root_key.take().into_iter().collect();
        all.append(&mut self.others);
        all.retain(|root| root.pin() == new || root.pin() == old);
        let at = all.iter().position(|root| root.pin() == new);
        let root = all.remove(at.ok_or_else(missing)?);
        // Whoever has it twice forgets one.
        all.retain(|root| root.pin() == old);
        all.truncate(1);
        self.issuer = prism_identity::Issuer::new(root.cluster(), key, certificate)?;
        self.root = root.certificate().to_vec();
        self.root_key = Some(root);
        self.others = all;
        self.also = Some(also);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prism_identity::ClusterId;
    use prism_state::RootRecord;
    use prism_types::{Id, TimeMs};

    fn record(old: u8, new: u8, ended: bool) -> RotationRecord {
        let root = |n: u8| RootRecord {
            certificate: vec![n],
            pin: [n; 32],
        };
        RotationRecord {
            old: root(old),
            new: root(new),
            started: TimeMs(0),
            moved: BTreeSet::new(),
            ended: ended.then_some(TimeMs(1)),
        }
    }

    fn me(root: u8, keys: &[u8], both: bool, trusted: &[u8]) -> Standing {
        let pins = |all: &[u8]| all.iter().map(|n| Pin([*n; 32])).collect::<Vec<_>>();
        Standing {
            root: Pin([root; 32]),
            keys: pins(keys),
            both,
            trusted: pins(trusted).into_iter().collect(),
        }
    }

    #[test]
    fn each_standing_has_one_next_step_and_the_last_has_none() {
        let fetch = |n: u8| Todo::Fetch(Pin([n; 32]));
        let table = [
            // Under way: 1 to 2.
            (me(1, &[1], false, &[1]), false, fetch(2)),
            (me(1, &[1, 2], false, &[1]), false, Todo::TakeOver),
            (me(2, &[2, 1], true, &[1, 2]), false, Todo::Nothing),
            // It joined in between.
            (me(2, &[2], false, &[1, 2]), false, fetch(1)),
            (me(2, &[2, 1], false, &[1, 2]), false, Todo::TakeOver),
            // The one before was given up for this one.
            (me(3, &[3, 1], true, &[1, 3]), false, fetch(2)),
            (me(3, &[3, 1, 2], true, &[1, 3]), false, Todo::TakeOver),
            // Over.
            (me(2, &[2, 1], true, &[1, 2]), true, Todo::Forget),
            (me(2, &[2], false, &[1, 2]), true, Todo::Forget),
            (me(2, &[2], false, &[2]), true, Todo::Nothing),
            // The key of the next root is there before its change has begun: it stays.
            (me(2, &[2, 3], false, &[2]), true, Todo::Nothing),
            (me(2, &[2, 1, 3], true, &[1, 2]), true, Todo::Forget),
            (me(1, &[1, 2], false, &[1]), true, Todo::TakeOver),
            (me(1, &[1], false, &[1]), true, Todo::LeftBehind),
        ];
        for (standing, ended, wanted) in table {
            let found = todo(&standing, &record(1, 2, ended));
            assert_eq!(found, wanted, "{standing:?} {ended}");
        }
    }

    /// Killed after any step, it goes on from what it kept; and at each step its certificate is good under the old root, until that goes.
    #[test]
    fn every_step_is_found_again_and_leaves_certificates_that_both_roots_stand_behind() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterId(Id::new(1, 2));
        let now = unix_now();
        let mut me = Membership::found(cluster, NodeId::new(1, 1), now).unwrap();
        me.save(dir.path()).unwrap();
        let again = || Membership::load(dir.path()).unwrap().unwrap();
        let next = Root::found(cluster, prism_identity::Lifetime::decade(now)).unwrap();
        let as_record = |certificate: &[u8], pin: Pin| RootRecord {
            certificate: certificate.to_vec(),
            pin: pin.0,
        };
        let old = me.authority.as_ref().unwrap().root_key.as_ref().unwrap();
        let mut rotation = RotationRecord {
            old: as_record(old.certificate(), old.pin()),
            new: as_record(next.certificate(), next.pin()),
            ..record(1, 2, false)
        };
        let is_good = |me: &Membership, root: &RootRecord| {
            let trust =
                prism_identity::Trust::new(cluster, std::slice::from_ref(&root.certificate))
                    .unwrap();
            let chain: Vec<_> = me.chain.iter().map(|c| c.clone().into()).collect();
            trust.is_beneath(&root.certificate, &chain, now)
        };
        assert!(is_good(&me, &rotation.old) && !is_good(&me, &rotation.new));
        me.authority.as_mut().unwrap().others.push(next);
        me.save(dir.path()).unwrap();
        let mut me = again();
        assert_eq!(todo(&standing(&me).unwrap(), &rotation), Todo::TakeOver);
        me.take_over(&rotation, now).unwrap();
        me.save(dir.path()).unwrap();
        let mut me = again();
        assert_eq!(todo(&standing(&me).unwrap(), &rotation), Todo::Nothing);
        assert!(is_good(&me, &rotation.old) && is_good(&me, &rotation.new));
        rotation.ended = Some(TimeMs(1));
        assert_eq!(todo(&standing(&me).unwrap(), &rotation), Todo::Forget);
        me.forget(&rotation, now).unwrap();
        me.save(dir.path()).unwrap();
        let me = again();
        assert_eq!(todo(&standing(&me).unwrap(), &rotation), Todo::Nothing);
        assert!(!is_good(&me, &rotation.old) && is_good(&me, &rotation.new));
        assert!(me.authority.unwrap().others.is_empty());
    }
}
