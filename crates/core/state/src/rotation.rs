//! The change of a cluster's root. While it is under way both roots are trusted everywhere, and whoever has a certificate of the new one
//! shows the way to both: nothing depends on the order in which members come along. It ends when none is left behind.

use std::collections::BTreeSet;

use prism_types::{Millis, Name, NodeId, TimeMs};
use serde::{Deserialize, Serialize};

use crate::{MemberRecord, State, Whom};

/// How long a rotation takes at most: the day that a member's certificate is good, and what clocks may differ by. Whoever was away for
/// longer has no certificate any more that is good.
pub const ROTATION_MAX: Millis = Millis(25 * 3_600_000);

/// A root: its certificate, and the SHA-256 of its public key (`SubjectPublicKeyInfo`, DER).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootRecord {
    /// DER.
    pub certificate: Vec<u8>,
    /// Of its key.
    pub pin: [u8; 32],
}

/// `rotation/root`: the last change of the root. It stays when it is over, for servers that come back later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationRecord {
    /// The root before.
    pub old: RootRecord,
    /// The root that takes its place.
    pub new: RootRecord,
    /// When it began.
    pub started: TimeMs,
    /// Members that have shown a certificate of the new root.
    pub moved: BTreeSet<NodeId>,
    /// When it was over; the old root is not trusted among members from then on.
    pub ended: Option<TimeMs>,
}

impl RotationRecord {
    /// When it is over at the latest.
    pub fn latest(&self) -> TimeMs {
        self.started.after(ROTATION_MAX)
    }
}

impl State {
    /// The last change of the root, if there was one.
    pub fn rotation(&self) -> Option<&RotationRecord> {
        self.rotation.as_ref()
    }

    /// The change of the root that is under way, if one is.
    pub fn rotating(&self) -> Option<&RotationRecord> {
        self.rotation.as_ref().filter(|r| r.ended.is_none())
    }

    /// Members that do not have a certificate of the new root yet, those who are kept out left out.
    pub fn waiting_for_root<'a>(
        &'a self,
        rotation: &'a RotationRecord,
    ) -> impl Iterator<Item = &'a MemberRecord> {
        self.members()
            .filter(|m| !rotation.moved.contains(&m.id) && !self.is_denied(&Whom::Node(m.id)))
    }

    /// Whether the rotation that is under way can end: nobody is waited for, or for too long.
    pub fn rotation_is_due(&self, now: TimeMs) -> bool {
        self.rotating()
            .is_some_and(|r| now >= r.latest() || self.waiting_for_root(r).next().is_none())
    }

    /// Names of those who are waited for.
    pub fn names_waiting(&self) -> Vec<Name> {
        let waiting = self.rotating().into_iter();
        waiting
            .flat_map(|r| self.waiting_for_root(r))
            .map(|m| m.name.clone())
            .collect()
    }
}
