//! Keys, replaced while gossip goes on: install the new one everywhere, use it everywhere, remove the old one everywhere.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::error::GossipError;
use crate::gossip::{send, wait};
use crate::protocol::{GossipKey, KeyId, KeyRefusal, KeyRing, NodeAnswer, Op, Outcome};
use crate::task::Command;

/// The rings of all members, through one of them. Each call returns what each node answered, this one's answer first. Nodes that are
/// down are named as away, and were not asked: they need the key before they can come back.
///
/// What is asked travels sealed with the present primary. So a rotation protects what comes later from who finds the old key later; from
/// who has the old key and listens now, only a new key given to each node by another way does.
#[derive(Clone, Debug)]
pub struct Keyring {
    commands: mpsc::Sender<Command>,
    ring: watch::Receiver<KeyRing>,
}

impl Keyring {
    pub(crate) fn new(commands: mpsc::Sender<Command>, ring: watch::Receiver<KeyRing>) -> Self {
        Self { commands, ring }
    }

    /// This node's ring.
    pub fn ring(&self) -> KeyRing {
        self.ring.borrow().clone()
    }

    /// This node's ring as it changes, by whomever: to be kept on disk.
    pub fn changed(&self) -> watch::Receiver<KeyRing> {
        self.ring.clone()
    }

    /// Which keys each member has.
    ///
    /// # Errors
    /// When gossip has stopped or is busy.
    pub async fn report(&self, within: Duration) -> Result<Vec<NodeAnswer>, GossipError> {
        self.ask(Op::Report, within).await
    }

    /// Gives a key to all: they open with it, and do not seal with it yet. Repeat it until all have it.
    ///
    /// # Errors
    /// When this node's ring has no room for it, or gossip has stopped or is busy.
    pub async fn install(
        &self,
        key: GossipKey,
        within: Duration,
    ) -> Result<Vec<NodeAnswer>, GossipError> {
        self.ask(Op::Install(key), within).await
    }

    /// Lets all seal with a key that all have. Takes up to twice the time: all are asked first whether they have it.
    ///
    /// # Errors
    /// [`GossipError::NotReady`] when a member that is not known to be down lacks it or does not answer; and as above. No ring was
    /// changed.
    pub async fn use_key(
        &self,
        id: KeyId,
        within: Duration,
    ) -> Result<Vec<NodeAnswer>, GossipError> {
        self.ready(within, |keys| {
            (!keys.contains(&id)).then_some(KeyRefusal::Unknown)
        })
        .await?;
        self.ask(Op::Use(id), within).await
    }

    /// Lets all forget a key that none seals with. Takes up to twice the time: all are asked first.
    ///
    /// # Errors
    /// [`GossipError::NotReady`] when a member that is not known to be down seals with it or does not answer; and as above. No ring was
    /// changed.
    pub async fn remove(
        &self,
        id: KeyId,
        within: Duration,
    ) -> Result<Vec<NodeAnswer>, GossipError> {
        self.ready(within, |keys| {
            (keys.first() == Some(&id)).then_some(KeyRefusal::Primary)
        })
        .await?;
        self.ask(Op::Remove(id), within).await
    }

    /// Whether all that are not known to be down have rings that allow it.
    async fn ready(
        &self,
        within: Duration,
        objection: impl Fn(&[KeyId]) -> Option<KeyRefusal>,
    ) -> Result<(), GossipError> {
        let mut answers = self.report(within).await?;
        for answer in &mut answers {
            if let Outcome::Keys(keys) = &answer.outcome
                && let Some(why) = objection(keys)
            {
                answer.outcome = Outcome::Refused(why);
            }
        }
        let fine = |a: &NodeAnswer| matches!(a.outcome, Outcome::Keys(_) | Outcome::Away);
        if answers.iter().all(fine) {
            Ok(())
        } else {
            Err(GossipError::NotReady(answers))
        }
    }

    async fn ask(&self, op: Op, within: Duration) -> Result<Vec<NodeAnswer>, GossipError> {
        let (answer, answered) = oneshot::channel();
        send(&self.commands, Command::Ask(op, within, answer)).await?;
        wait(answered, within).await
    }
}
