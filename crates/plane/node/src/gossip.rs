//! Gossip among the servers: started when the cluster's keys are known, told of new servers, and heard. What it says is a hint: events
//! and `peer ls` show it, and together with what consensus says it takes out who is long gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prism_control::{Control, Seat, Seats};
use prism_gateway::{Hint, HintState, KeyChange, KeyName, Traffic};
use prism_membership::{
    Config, Gossip, GossipKey, KeyId, KeyRing, Member, MemberState, Outcome, Refusal, Tags, Who,
    open_ring, seal_ring,
};
use prism_raft::RaftStore;
use prism_state::{Command, GossipRecord, ServerRecord, ServerSeen, State};
use prism_store::BoxFuture;
use prism_types::{Id, Labels, Name, NodeId, Reason, Rejection};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::autopilot::{self, Seen, Sight};
use crate::worker_node::resolve;

/// How often it is looked at what has changed.
const LOOK: Duration = Duration::from_secs(1);
/// How soon a start that failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_millis(500);
/// How long all may take to say which keys they have.
const REPORT: Duration = Duration::from_secs(2);

/// What gossip is started with.
pub(crate) struct Setting {
    pub(crate) cluster: Id,
    /// What the keys are sealed with in the state, asked each time, for the root may be changed: the first now, and what others may still
    /// seal with.
    pub(crate) secrets: Box<dyn Fn() -> Vec<[u8; 32]> + Send + Sync>,
    pub(crate) id: NodeId,
    pub(crate) name: Name,
    pub(crate) number: u64,
    pub(crate) labels: Labels,
    /// Where members come to, over TCP: gossip has the same number of UDP.
    pub(crate) listens: SocketAddr,
    /// Where the others reach that.
    pub(crate) address: String,
    /// After how long a server that is gone is taken out.
    pub(crate) remove_gone_after: Option<Duration>,
}

/// This server's gossip, from before it runs until it has ended.
pub(crate) struct Rumours {
    setting: Setting,
    running: tokio::sync::RwLock<Option<Gossip>>,
    /// Why those that are gone are not taken out, as the leader judged last.
    stays: Mutex<BTreeMap<NodeId, String>>,
}

impl std::fmt::Debug for Rumours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rumours").finish_non_exhaustive()
    }
}

fn refused(why: impl ToString) -> Rejection {
    Rejection::new(Reason::Invalid, why.to_string())
}

/// What a node says of itself beside its name. Labels are the cluster's to know; here is only whether they are the same.
fn tags(labels: &Labels) -> Tags {
    let mut digest = Sha256::new();
    for (key, value) in labels {
        digest.update(key.as_bytes());
        digest.update([0]);
        digest.update(value.as_bytes());
        digest.update([0]);
    }
    let sum: String = digest
        .finalize()
        .iter()
        .take(8)
        .map(|b| format!("{b:02x}"))
        .collect();
    let tags = [
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("labels", sum),
    ];
    let tags = tags.map(|(key, value)| (key.to_owned(), value));
    // These are few and short.
    Tags::new(tags.into()).unwrap_or_default()
}

impl Rumours {
    pub(crate) fn new(setting: Setting) -> Arc<Self> {
        Arc::new(Self {
            setting,
            running: tokio::sync::RwLock::default(),
            stays: Mutex::default(),
        })
    }

    fn stays(&self) -> MutexGuard<'_, BTreeMap<NodeId, String>> {
        self.stays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that are known.
    async fn members(&self) -> Vec<Member> {
        match &*self.running.read().await {
            Some(gossip) => gossip.look().await.unwrap_or_default(),
            None => Vec::new(),
        }
    }

    fn record(&self, revision: u64, ring: &KeyRing) -> Result<GossipRecord, Rejection> {
        let no_secret = || Rejection::new(Reason::Internal, "this server has no root's key");
        let secret = (self.setting.secrets)().into_iter().next();
        let sealed = seal_ring(ring, self.setting.cluster, &secret.ok_or_else(no_secret)?);
        let sealed = sealed.map_err(|why| Rejection::new(Reason::Internal, why.to_string()))?;
        Ok(GossipRecord {
            revision,
            keys: ring.ids().iter().map(|id| id.0).collect(),
            sealed,
        })
    }

    /// The ring of a record, and whether it is sealed with what is to be sealed with now.
    fn opened(&self, record: &GossipRecord) -> Option<(KeyRing, bool)> {
        let secrets = (self.setting.secrets)().into_iter().enumerate();
        let mut open = secrets.map(|(at, secret)| {
            let ring = open_ring(&record.sealed, self.setting.cluster, &secret).ok()?;
            Some((ring, at == 0))
        });
        open.find_map(|opened| opened)
    }

    /// The ring of a record.
    fn ring(&self, record: &GossipRecord) -> Option<KeyRing> {
        self.opened(record).map(|(ring, _)| ring)
    }

    /// Begins, with this ring.
    async fn start(&self, ring: KeyRing) -> Result<(), String> {
        let own = &self.setting;
        let advertise = resolve(&own.address).await.map_err(|why| why.to_string())?;
        let fits = |a: &&SocketAddr| own.listens.is_ipv6() || a.is_ipv4();
        let who = Who {
            id: own.id,
            name: own.name.clone(),
            addresses: Vec::new(),
            raft: own.number,
            roles: "server".parse().into_iter().collect(),
        };
        let mut config = Config::new(own.cluster, who, ring);
        config.tags = tags(&own.labels);
        config.bind = own.listens;
        config.advertise = advertise.iter().find(fits).copied();
        let gossip = Gossip::start(config).await.map_err(|why| why.to_string())?;
        *self.running.write().await = Some(gossip);
        Ok(())
    }

    /// Runs with the ring that the cluster has.
    async fn follow(&self, ring: KeyRing) -> Result<(), String> {
        if let Some(gossip) = &*self.running.read().await {
            if gossip.keyring().ring() == ring {
                return Ok(());
            }
            let ids = ring.ids();
            tracing::info!(keys = ?ids, "this server follows the gossip keys of the cluster");
            return gossip.set_ring(ring).await.map_err(|why| why.to_string());
        }
        self.start(ring).await
    }

    /// Looks for the servers that the cluster has and gossip does not know.
    async fn seek(&self, servers: &[ServerRecord], told: &mut BTreeSet<String>) {
        let running = self.running.read().await;
        let Some(gossip) = &*running else { return };
        let known = gossip.members();
        for server in servers {
            let there = known.iter().any(|m| m.id == server.id);
            if there || server.id == self.setting.id || !told.insert(server.address.clone()) {
                continue;
            }
            if let Ok(addresses) = resolve(&server.address).await
                && let Err(why) = gossip.join(&addresses).await
            {
                tracing::warn!(%why, "a server is not looked for by gossip");
            }
        }
    }

    /// Says goodbye, so that the others know that it was stopped.
    async fn end(&self) {
        if let Some(gossip) = self.running.write().await.take()
            && let Err(why) = gossip.leave(GOODBYE).await
        {
            tracing::debug!(%why, "gossip ended before");
        }
    }
}

fn key_name(id: KeyId) -> KeyName {
    id.0
}

impl prism_gateway::Gossip for Rumours {
    fn hints(&self) -> BoxFuture<'_, Vec<Hint>> {
        Box::pin(async {
            let members = self.members().await;
            let stays = self.stays();
            let hint = |m: Member| Hint {
                id: m.id,
                state: match m.state {
                    MemberState::Alive => HintState::Alive,
                    MemberState::Suspect => HintState::Suspect,
                    MemberState::Down => HintState::Failed,
                    MemberState::Left => HintState::Left,
                },
                round_trip: m.round_trip,
                stays: stays.get(&m.id).cloned(),
            };
            members.into_iter().map(hint).collect()
        })
    }

    fn traffic(&self) -> BoxFuture<'_, Option<Traffic>> {
        Box::pin(async {
            let running = self.running.read().await;
            let gossip = running.as_ref()?;
            let (counts, ring) = (gossip.counts(), gossip.keyring().ring());
            let refused = Refusal::NAMES.into_iter().zip(counts.refused);
            Some(Traffic {
                keys: ring.ids().into_iter().map(key_name).collect(),
                sent: (counts.sent, counts.sent_bytes),
                received: (counts.received, counts.received_bytes),
                unsent: counts.unsent,
                refused: refused.collect(),
                held_up: counts.held_up,
                refuted: counts.refuted,
            })
        })
    }

    fn report(&self) -> BoxFuture<'_, Vec<(NodeId, Vec<KeyName>)>> {
        Box::pin(async {
            let keyring = match &*self.running.read().await {
                Some(gossip) => gossip.keyring(),
                None => return Vec::new(),
            };
            let answers = keyring.report(REPORT).await.unwrap_or_default();
            let keys = answers.into_iter().filter_map(|a| match a.outcome {
                Outcome::Keys(keys) => Some((a.id, keys.into_iter().map(key_name).collect())),
                _ => None,
            });
            keys.collect()
        })
    }

    fn changed(&self, now: &GossipRecord, change: KeyChange) -> Result<GossipRecord, Rejection> {
        let ring = self.ring(now).ok_or_else(|| {
            let why = "this server cannot read the gossip keys of the cluster; it makes new ones in a moment";
            Rejection::retryable(Reason::WrongState, why)
        });
        let mut ring = ring?;
        match change {
            KeyChange::Install(given) => {
                let key: GossipKey = match given {
                    Some(text) => text.trim().parse().map_err(refused)?,
                    None => GossipKey::generate().map_err(refused)?,
                };
                let id = key.id();
                let new = ring.install(key).map_err(refused)?;
                if !new {
                    let why = format!("key {id} is there already");
                    return Err(Rejection::new(Reason::Conflict, why));
                }
            }
            KeyChange::Use(id) => {
                ring.use_key(KeyId(id)).map_err(refused)?;
            }
            KeyChange::Remove(id) => {
                ring.remove(KeyId(id)).map_err(refused)?;
            }
        }
        self.record(now.revision + 1, &ring)
    }
}

/// What of the state gossip has to do with.
fn known(state: &State) -> (Option<GossipRecord>, Vec<ServerRecord>) {
    (state.gossip().cloned(), state.servers().cloned().collect())
}

/// What the leader remembers from one look to the next.
#[derive(Default)]
struct Lead {
    since: Option<Instant>,
    told: BTreeMap<NodeId, MemberState>,
}

impl Lead {
    /// Keeps an event of each server that gossip sees otherwise than before.
    async fn tell(&mut self, control: &Control, servers: &[ServerRecord], members: &[Member]) {
        for member in members.iter().filter(|m| !m.me) {
            if servers.iter().all(|s| s.id != member.id) {
                continue;
            }
            let before = self.told.insert(member.id, member.state);
            let seen = match (before, member.state) {
                (before, now) if before == Some(now) => continue,
                // What is well when one begins to look is no news.
                (None | Some(MemberState::Suspect), MemberState::Alive) => continue,
                (Some(_), MemberState::Alive) => ServerSeen::Back,
                (_, MemberState::Suspect) => ServerSeen::Suspect,
                (_, MemberState::Down) => ServerSeen::Failed,
                (_, MemberState::Left) => ServerSeen::Left,
            };
            let id = member.id;
            tracing::warn!(server = %id, ?seen, "gossip: a server is seen otherwise");
            if let Err(why) = control
                .propose(Command::NoteServer { id, seen }, None)
                .await
            {
                tracing::warn!(%why, "what gossip says of a server was not kept");
                self.told.remove(&id);
            }
        }
    }
}

/// The servers as consensus and gossip see them, for the rule.
fn sight(
    store: &RaftStore,
    servers: &[ServerRecord],
    members: &[Member],
    leads: Duration,
    limit: Option<Duration>,
) -> Sight {
    let standing = store.standing().borrow().clone();
    let progress = store.progress();
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let settled = standing.servers.len() == servers.len()
        && servers.iter().all(|want| {
            let is = |s: &&prism_raft::Server| s.number == want.number;
            let found = standing.servers.iter().find(is);
            found.is_some_and(|s| s.address == want.address)
        });
    let seen = standing.servers.iter().filter_map(|server| {
        let record = servers.iter().find(|s| s.number == server.number)?;
        let member = members.iter().find(|m| m.id == record.id);
        let heard = progress.iter().find(|p| p.number == server.number);
        let me = server.number == store.number();
        let away = |m: &&Member| matches!(m.state, MemberState::Down | MemberState::Left);
        Some(Seen {
            id: record.id,
            me,
            voter: server.voter,
            silent: match heard.and_then(|p| p.heard) {
                _ if me => Duration::ZERO,
                Some(heard) => heard,
                None => leads,
            },
            gone: member.filter(away).map(|m| unix.saturating_sub(m.since)),
            alive: member.is_some_and(|m| m.state == MemberState::Alive),
        })
    });
    Sight {
        servers: seen.collect(),
        leads,
        settled,
        limit,
    }
}

/// Until it is told to stop: follows the keys, looks for servers, and tells what it hears while this server leads.
pub(crate) async fn keep(
    rumours: Arc<Rumours>,
    store: Arc<RaftStore>,
    mut seats: Seats,
    stop: CancellationToken,
) {
    let (mut lead, mut told) = (Lead::default(), BTreeSet::new());
    let mut quiet = false;
    loop {
        let here = match seats.look() {
            Seat::Here(control) => Some(control),
            _ => None,
        };
        let done = look(&rumours, &store, here.as_ref(), &mut lead, &mut told).await;
        if let Err(why) = &done
            && !quiet
        {
            tracing::warn!(%why, "gossip among the servers does not run here yet; it is tried again");
        }
        quiet = done.is_err();
        let wait = if quiet { AGAIN } else { LOOK };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = seats.changed() => {}
            () = stop.cancelled() => break,
        }
    }
    rumours.end().await;
}

/// Has the cluster keep these keys, sealed as they are to be now.
async fn reseal(
    rumours: &Rumours,
    control: &Control,
    revision: u64,
    ring: &KeyRing,
) -> Result<(), String> {
    let next = rumours.record(revision, ring).map_err(|why| why.message)?;
    let proposed = control.propose(Command::SetGossipKeys(next), None).await;
    proposed.map(drop).map_err(|why| why.message)
}

async fn look(
    rumours: &Rumours,
    store: &Arc<RaftStore>,
    here: Option<&Control>,
    lead: &mut Lead,
    told: &mut BTreeSet<String>,
) -> Result<(), String> {
    let (record, servers) = match here {
        Some(control) => control.read(known).await,
        None => {
            let state = prism_control::servers(&**store).await;
            known(&state.map_err(|why| why.to_string())?)
        }
    };
    let opened = record.as_ref().and_then(|record| rumours.opened(record));
    match (opened, here) {
        (Some((ring, true)), _) | (Some((ring, false)), None) => rumours.follow(ring).await?,
        // The root was changed: the same keys, for whoever has the new one.
        (Some((ring, false)), Some(control)) => {
            let revision = record.map_or(0, |r| r.revision) + 1;
            reseal(rumours, control, revision, &ring).await?;
            tracing::info!("the gossip keys are sealed for the new root");
            rumours.follow(ring).await?;
        }
        // The first leader makes them; and anew, when none of the secrets fits: what runs goes on with what it has.
        (None, Some(control)) => {
            let running = rumours.running.read().await;
            let kept = running.as_ref().map(|gossip| gossip.keyring().ring());
            drop(running);
            let ring = match kept {
                Some(ring) => ring,
                None => KeyRing::new(GossipKey::generate().map_err(|why| why.to_string())?),
            };
            let revision = record.map_or(0, |r| r.revision) + 1;
            reseal(rumours, control, revision, &ring).await?;
            rumours.follow(ring).await?;
        }
        // Nothing has come from the leader yet.
        (None, None) => return Ok(()),
    }
    rumours.seek(&servers, told).await;
    let Some(control) = here else {
        *lead = Lead::default();
        rumours.stays().clear();
        return Ok(());
    };
    let since = *lead.since.get_or_insert_with(Instant::now);
    let members = rumours.members().await;
    lead.tell(control, &servers, &members).await;
    let limit = rumours.setting.remove_gone_after;
    let verdict = autopilot::judge(&sight(store, &servers, &members, since.elapsed(), limit));
    *rumours.stays() = verdict.stays;
    if let Some(id) = verdict.retire {
        let why = format!(
            "it was gone for longer than {} s, and those that stay can decide without it",
            limit.unwrap_or_default().as_secs()
        );
        tracing::warn!(server = %id, %why, "a server is taken out of the cluster by rule");
        let retired = control
            .propose(Command::RetireServer { id, why }, None)
            .await;
        retired.map_err(|why| why.message)?;
    }
    Ok(())
}
