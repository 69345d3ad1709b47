//! The handle.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::config::{Advertised, Config};
use crate::error::GossipError;
use crate::keyring::Keyring;
use crate::protocol::{Boot, Counts, Engine, KeyRing, Member, NodeAnswer, Outcome, Setup, Tags};
use crate::socket::listen;
use crate::task::{AskError, Command, Log, Task};

/// Commands that may wait for the task.
const QUEUE: usize = 64;
/// How much longer than a deadline that the task keeps the handle waits for it.
const GRACE: Duration = Duration::from_secs(2);

/// This node's gossip. It ends when this is dropped; the others will then find it down. See [`Gossip::leave`].
#[derive(Debug)]
pub struct Gossip {
    commands: mpsc::Sender<Command>,
    members: watch::Receiver<Arc<Vec<Member>>>,
    ring: watch::Receiver<KeyRing>,
    counts: Arc<Mutex<Counts>>,
    bound: SocketAddr,
    advertised: Advertised,
    task: JoinHandle<()>,
}

/// Who heard that a node leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// Members that said so.
    pub heard: usize,
    /// Members that did not within the deadline: they will find this node down, or hear from others that it left.
    pub silent: Vec<NodeAnswer>,
}

impl Gossip {
    /// Binds, looks for members, and goes on in a task of its own. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the configuration is not sound or the socket cannot be had. Nothing runs then.
    pub async fn start(config: Config) -> Result<Self, GossipError> {
        if !config.timing.is_sound() {
            return Err(GossipError::Timing);
        }
        config.who.check()?;
        let bind = config.bind;
        let fail = |why| GossipError::Bind { address: bind, why };
        let socket = listen(bind).map_err(fail)?;
        let bound = socket.local_addr().map_err(fail)?;
        let advertised = Advertised::choose(config.advertise, bound, &config.join);
        let (mut boot, mut seed) = ([0; 16], [0; 8]);
        getrandom::fill(&mut boot).map_err(|_| GossipError::Random)?;
        getrandom::fill(&mut seed).map_err(|_| GossipError::Random)?;
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        let unix = unix.unwrap_or(Duration::ZERO).as_millis();
        let setup = Setup {
            cluster: config.cluster,
            who: config.who,
            incarnation: u64::try_from(unix).unwrap_or(0),
            address: advertised.address,
            tags: config.tags,
            ring: config.ring.clone(),
            boot: Boot(boot),
            seed: u64::from_le_bytes(seed),
            max_members: config.max_members,
            timing: config.timing,
        };
        let start = Instant::now();
        let mut engine = Engine::new(setup, Duration::ZERO)?;
        engine.join(Duration::ZERO, &config.join);
        let (address, why) = (advertised.address, &advertised.why);
        tracing::info!(%bound, advertised = %address, "gossip listens; others are told to send to {address}: {why}");
        let (commands, receiver) = mpsc::channel(QUEUE);
        let (members_out, members) = watch::channel(Arc::new(engine.members()));
        let (ring_out, ring) = watch::channel(config.ring);
        let counts = Arc::new(Mutex::new(Counts::default()));
        let task = Task {
            engine,
            v6: bound.is_ipv6(),
            socket,
            commands: receiver,
            members: members_out,
            ring: ring_out,
            counts: Arc::clone(&counts),
            start,
            waiting: std::collections::BTreeMap::new(),
            log: Log::default(),
            own: Counts::default(),
        };
        Ok(Self {
            commands,
            members,
            ring,
            counts,
            bound,
            advertised,
            task: tokio::spawn(task.run()),
        })
    }

    /// Where it listens.
    pub fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// The address that others are told, and why this one.
    pub fn advertised(&self) -> &Advertised {
        &self.advertised
    }

    /// All that are known, this node first. A hint.
    pub fn members(&self) -> Arc<Vec<Member>> {
        Arc::clone(&self.members.borrow())
    }

    /// The members as they change. Only the newest state is kept for who is slow.
    pub fn changed(&self) -> watch::Receiver<Arc<Vec<Member>>> {
        self.members.clone()
    }

    /// What went in and out, and what was refused and why.
    pub fn counts(&self) -> Counts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks for members at these addresses, until one answers there. At most 64 are kept, the newest. That it found any is shown by
    /// [`Self::changed`].
    ///
    /// # Errors
    /// When gossip has stopped.
    pub async fn join(&self, addresses: &[SocketAddr]) -> Result<(), GossipError> {
        self.command(Command::Join(addresses.to_vec())).await
    }

    /// Replaces this node's tags and tells the others.
    ///
    /// # Errors
    /// When gossip has stopped.
    pub async fn set_tags(&self, tags: Tags) -> Result<(), GossipError> {
        self.command(Command::SetTags(tags)).await
    }

    /// All that are known, this node first, with their round-trip times as they are now.
    ///
    /// # Errors
    /// When gossip has stopped or is busy.
    pub async fn look(&self) -> Result<Vec<Member>, GossipError> {
        let (answer, answered) = oneshot::channel();
        self.command(Command::Look(answer)).await?;
        match timeout(GRACE, answered).await {
            Ok(Ok(members)) => Ok(members),
            Ok(Err(_)) => Err(GossipError::Stopped),
            Err(_) => Err(GossipError::Busy),
        }
    }

    /// Replaces this node's ring by one that was agreed upon elsewhere.
    ///
    /// # Errors
    /// When gossip has stopped.
    pub async fn set_ring(&self, ring: KeyRing) -> Result<(), GossipError> {
        self.command(Command::SetRing(ring)).await
    }

    /// The keys, here and everywhere.
    pub fn keyring(&self) -> Keyring {
        Keyring::new(self.commands.clone(), self.ring.clone())
    }

    /// Leaves, so that the others see this node as left and not as down; at the latest at the deadline gossip has stopped here.
    ///
    /// # Errors
    /// When gossip has stopped already.
    pub async fn leave(self, within: Duration) -> Result<Goodbye, GossipError> {
        let (answer, answered) = oneshot::channel();
        self.command(Command::Leave(within, answer)).await?;
        let answers = wait(answered, within).await?;
        self.stop().await;
        let done = |a: &&NodeAnswer| a.outcome == Outcome::Done;
        // This node's own answer is the first.
        let heard = answers.iter().skip(1).filter(done).count();
        let silent = answers.into_iter().skip(1).filter(|a| !done(&a));
        let silent = silent.filter(|a| a.outcome != Outcome::Away).collect();
        Ok(Goodbye { heard, silent })
    }

    /// Stops at once, without a word: the others will find this node down.
    pub async fn stop(mut self) {
        self.task.abort();
        // It ends at its next pause.
        let _ = timeout(GRACE, &mut self.task).await;
    }

    async fn command(&self, command: Command) -> Result<(), GossipError> {
        send(&self.commands, command).await
    }
}

impl Drop for Gossip {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Hands a command to the task.
pub(crate) async fn send(to: &mpsc::Sender<Command>, command: Command) -> Result<(), GossipError> {
    match timeout(GRACE, to.send(command)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(GossipError::Stopped),
        Err(_) => Err(GossipError::Busy),
    }
}

/// Waits for the answers of all; the task ends the question itself.
pub(crate) async fn wait(
    answered: oneshot::Receiver<crate::task::Answered>,
    within: Duration,
) -> Result<Vec<NodeAnswer>, GossipError> {
    match timeout(within + GRACE, answered).await {
        Ok(Ok(Ok(answers))) => Ok(answers),
        Ok(Ok(Err(AskError::Ring(why)))) => Err(why.into()),
        Ok(Ok(Err(AskError::Busy))) | Err(_) => Err(GossipError::Busy),
        Ok(Err(_)) => Err(GossipError::Stopped),
    }
}
