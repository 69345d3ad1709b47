//! `/cluster/keys`: the keys that the servers' gossip is sealed with, replaced one step at a time; and what gossip says of the servers.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Response;
use prism_api::{GossipHolderView, GossipKeyInstall, GossipKeyView, GossipKeysView, Op};
use prism_state::{Command, GossipRecord, State};
use prism_store::BoxFuture;
use prism_types::{Name, NodeId, Reason, Rejection};

use crate::answer;
use crate::app::App;
use crate::ask::Ask;
use crate::refuse::{Answered, Refusal};

/// How long a change waits for all servers to say that they have followed it.
const FOLLOW: Duration = Duration::from_secs(8);
/// How often they are asked.
const AGAIN: Duration = Duration::from_millis(200);

/// The name of a key.
pub type KeyName = [u8; 4];

/// What gossip says of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HintState {
    /// It answers.
    Alive,
    /// It did not answer, and may yet.
    Suspect,
    /// It is not heard of any more.
    Failed,
    /// It said that it goes.
    Left,
}

/// A server as gossip has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The node.
    pub id: NodeId,
    /// What is said of it.
    pub state: HintState,
    /// How long it takes to answer, if that is known.
    pub round_trip: Option<Duration>,
    /// Why it is not taken out by rule, if it is gone.
    pub stays: Option<String>,
}

/// What has gone through gossip since this server started, and what it is sealed with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Its keys; the first seals.
    pub keys: Vec<KeyName>,
    /// Datagrams that the network took, and their bytes.
    pub sent: (u64, u64),
    /// Datagrams that came, the refused ones too, and their bytes.
    pub received: (u64, u64),
    /// Datagrams that the network did not take.
    pub unsent: u64,
    /// Refused ones, by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// Times that this server was held up, and so accused nobody.
    pub held_up: u64,
    /// Times that it was said to be down, and said that it is not.
    pub refuted: u64,
}

/// A change of the keys.
#[derive(Clone, Debug)]
pub enum KeyChange {
    /// Another key, which seals nothing yet; a new one if none is given.
    Install(Option<String>),
    /// This one seals.
    Use(KeyName),
    /// This one is forgotten.
    Remove(KeyName),
}

/// Gossip, as far as the API has to do with it.
pub trait Gossip: Send + Sync + fmt::Debug {
    /// What is said of the servers now, the own one included.
    fn hints(&self) -> BoxFuture<'_, Vec<Hint>>;

    /// What has gone through it; `None` while it does not run.
    fn traffic(&self) -> BoxFuture<'_, Option<Traffic>>;

    /// Which keys each server has, by its own word now; those that do not answer are left out.
    fn report(&self) -> BoxFuture<'_, Vec<(NodeId, Vec<KeyName>)>>;

    /// The record after a change.
    ///
    /// # Errors
    /// When the change makes no sense.
    fn changed(&self, now: &GossipRecord, change: KeyChange) -> Result<GossipRecord, Rejection>;
}

/// A key's name as people see it.
pub(crate) fn key_text(name: &KeyName) -> String {
    name.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse(given: &str) -> Option<KeyName> {
    let fits = given.len() == 8 && given.bytes().all(|b| b.is_ascii_hexdigit());
    let number = u32::from_str_radix(given, 16).ok().filter(|_| fits)?;
    Some(number.to_be_bytes())
}

/// Gossip and its record, where there are any.
async fn there(app: &App) -> Answered<(Arc<dyn Gossip>, GossipRecord)> {
    let gossip = app.config.gossip.clone();
    let record = app.control.read(|s| s.gossip().cloned()).await;
    match (gossip, record) {
        (Some(gossip), Some(record)) => Ok((gossip, record)),
        _ => Err(Refusal::new(
            Reason::Unsupported,
            "there is no gossip here: this server was started without --serf, or has just begun to lead",
        )),
    }
}

/// Every server with the keys that it says it has.
type Holders = Vec<(NodeId, Option<Name>, Option<Vec<KeyName>>)>;

async fn holders(app: &App, gossip: &dyn Gossip) -> Holders {
    let report = gossip.report().await;
    let with = |s: &State| -> Holders {
        let named = s.servers().map(|r| {
            let keys = report.iter().find(|(id, _)| *id == r.id);
            let name = s.member(r.id).map(|m| m.name.clone());
            (r.id, name, keys.map(|(_, keys)| keys.clone()))
        });
        named.collect()
    };
    app.control.read(with).await
}

fn view(record: &GossipRecord, holders: Holders) -> GossipKeysView {
    let key = |(at, id): (usize, &KeyName)| {
        let has = |keys: &Option<Vec<KeyName>>| keys.as_ref().is_some_and(|k| k.contains(id));
        let have = holders.iter().filter(|(_, _, keys)| has(keys)).count();
        GossipKeyView {
            id: key_text(id),
            primary: at == 0,
            have: u32::try_from(have).unwrap_or(u32::MAX),
        }
    };
    GossipKeysView {
        revision: record.revision,
        keys: record.keys.iter().enumerate().map(key).collect(),
        servers: holders
            .into_iter()
            .map(|(id, name, keys)| GossipHolderView {
                id,
                name,
                keys: keys.map(|keys| keys.iter().map(key_text).collect()),
            })
            .collect(),
    }
}

/// The servers of which something is not so, by their names.
fn lacking(holders: &Holders, fine: impl Fn(&[KeyName]) -> bool) -> Vec<String> {
    let bad = holders
        .iter()
        .filter(|(_, _, keys)| !keys.as_ref().is_some_and(|keys| fine(keys)));
    let name = |(id, name, keys): &(NodeId, Option<Name>, Option<Vec<KeyName>>)| {
        let name = name
            .as_ref()
            .map_or_else(|| id.to_string(), ToString::to_string);
        match keys {
            Some(_) => name,
            None => format!("{name} (no answer)"),
        }
    };
    bad.map(name).collect()
}

/// Refuses a step while a server has not followed the one before.
fn ready(holders: &Holders, what: &str, fine: impl Fn(&[KeyName]) -> bool) -> Answered<()> {
    let bad = lacking(holders, fine);
    if bad.is_empty() {
        return Ok(());
    }
    Err(Refusal::new(
        Reason::WrongState,
        format!(
            "{what}: {}; nothing was changed: try again when all servers are there, or take one out that is gone with prismctl peer rm",
            bad.join(", ")
        ),
    ))
}

/// Waits until all servers say that they have followed, for a moment at most: who is away follows when it comes back.
async fn followed(app: &App, gossip: &dyn Gossip) -> Answered<GossipKeysView> {
    let end = Instant::now() + FOLLOW;
    loop {
        let (_, record) = there(app).await?;
        let holders = holders(app, gossip).await;
        let same = |keys: &[KeyName]| {
            let (mut a, mut b) = (keys.to_vec(), record.keys.clone());
            a.sort_unstable();
            b.sort_unstable();
            keys.first() == record.keys.first() && a == b
        };
        if lacking(&holders, same).is_empty() || Instant::now() > end {
            return Ok(view(&record, holders));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

pub(crate) async fn list(app: &Arc<App>) -> Answered<Response<Body>> {
    match there(app).await {
        Ok((gossip, record)) => {
            let holders = holders(app, &*gossip).await;
            answer::json(&view(&record, holders))
        }
        // A server that is alone has none, and that is the answer.
        Err(_) => answer::json(&GossipKeysView {
            revision: 0,
            keys: Vec::new(),
            servers: Vec::new(),
        }),
    }
}

async fn change(app: &App, ask: &Ask, change: KeyChange) -> Answered<Arc<dyn Gossip>> {
    let (gossip, record) = there(app).await?;
    let next = gossip.changed(&record, change)?;
    app.propose(ask, Command::SetGossipKeys(next)).await?;
    Ok(gossip)
}

/// Changes the keys.
pub(crate) async fn act(app: &Arc<App>, op: Op, ask: Ask) -> Answered<Response<Body>> {
    match op {
        Op::KeyUse => make_primary(app, ask).await,
        Op::KeyRemove => remove(app, ask).await,
        _ => install(app, ask).await,
    }
}

async fn install(app: &Arc<App>, ask: Ask) -> Answered<Response<Body>> {
    let body: GossipKeyInstall = ask.json()?;
    let gossip = change(app, &ask, KeyChange::Install(body.key)).await?;
    answer::json(&followed(app, &*gossip).await?)
}

fn named(ask: &Ask, record: &GossipRecord) -> Answered<KeyName> {
    let given = ask.param("id")?;
    let known = parse(given).filter(|id| record.keys.contains(id));
    known.ok_or_else(|| {
        let names: Vec<String> = record.keys.iter().map(key_text).collect();
        Refusal::not_found(format!(
            "there is no gossip key {given:?}; there are: {}",
            names.join(", ")
        ))
    })
}

async fn make_primary(app: &Arc<App>, ask: Ask) -> Answered<Response<Body>> {
    let (gossip, record) = there(app).await?;
    let id = named(&ask, &record)?;
    if record.keys.first() != Some(&id) {
        let holders = holders(app, &*gossip).await;
        let what = format!("not every server has key {}", key_text(&id));
        ready(&holders, &what, |keys| keys.contains(&id))?;
        change(app, &ask, KeyChange::Use(id)).await?;
    }
    answer::json(&followed(app, &*gossip).await?)
}

async fn remove(app: &Arc<App>, ask: Ask) -> Answered<Response<Body>> {
    let (gossip, record) = there(app).await?;
    let id = named(&ask, &record)?;
    let Some(primary) = record
        .keys
        .first()
        .copied()
        .filter(|primary| *primary != id)
    else {
        return Err(Refusal::new(
            Reason::WrongState,
            format!(
                "key {} is the one that seals; let another seal first with prismctl peer key use",
                key_text(&id)
            ),
        ));
    };
    let holders = holders(app, &*gossip).await;
    let what = format!("not every server seals with key {} yet", key_text(&primary));
    ready(&holders, &what, |keys| keys.first() == Some(&primary))?;
    change(app, &ask, KeyChange::Remove(id)).await?;
    followed(app, &*gossip).await?;
    Ok(answer::nothing())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_waits_for_every_server_and_names_those_that_lack_it() {
        let (old, new) = ([1; 4], [2; 4]);
        let holder = |n: u128, name: &str, keys: Option<Vec<KeyName>>| {
            (NodeId::new(1, n), Some(name.parse().unwrap()), keys)
        };
        let all = vec![
            holder(1, "s1", Some(vec![old, new])),
            holder(2, "s2", Some(vec![old])),
            holder(3, "s3", None),
        ];
        let has = |keys: &[KeyName]| keys.contains(&new);
        assert_eq!(lacking(&all, has), ["s2", "s3 (no answer)"]);
        assert!(ready(&all, "no", has).is_err());
        assert!(ready(&all[..1].to_vec(), "no", has).is_ok());
        let record = GossipRecord {
            revision: 4,
            keys: vec![old, new],
            sealed: vec![1],
        };
        let shown = view(&record, all);
        assert_eq!((shown.keys[0].have, shown.keys[1].have), (2, 1));
        assert!(shown.keys[0].primary && !shown.keys[1].primary);
        assert_eq!(shown.keys[1].id, "02020202");
    }

    #[test]
    fn names_of_keys_are_eight_digits() {
        assert_eq!(parse("0a0B0c0d"), Some([10, 11, 12, 13]));
        for bad in [
            "",
            "0a0b0c0",
            "0a0b0c0d0",
            "+a0b0c0d",
            "0x0b0c0d",
            "zzzzzzzz",
            "ａ0a0b0c",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
