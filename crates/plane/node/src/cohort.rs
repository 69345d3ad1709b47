//! Founds a cluster together with other servers, or joins the one that another founds: the loop around [`prism_members::cohort`], and
//! what of it is kept in the data directory.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use prism_control::Seats;
use prism_identity::{CommonToken, Pin};
use prism_members::cohort::{Belongs, Cohort, Kept, Step, Waits, decide};
use prism_members::{MemberError, Membership};
use prism_runtime::sealed;
use prism_state::{Command, JoinTokenRecord, MemberRole};
use prism_types::{Labels, Millis, Reason, TimeMs};
use tokio::net::TcpListener;

use crate::identity::Identity;
use crate::node::NodeError;
use crate::worker_node::{Serves, enter, joining_key};
use crate::{JoinConfig, NodeConfig};

/// What is kept until this server is a member, or has founded.
const FILE: &str = "cohort.json";
/// Between two rounds of asking.
const PAUSE: Duration = Duration::from_millis(300);
/// A promise that has not come about for so long is given up by its founder.
const STALLED: Duration = Duration::from_secs(20);
/// So many rounds in turn have to say that this server can't go on: one that founds is not all there for a moment.
const SURE: u32 = 5;
/// How often it is said again what is waited for.
const SAY: Duration = Duration::from_secs(60);
/// For how long the others of a cluster that was founded may join by the common token.
const GOOD: Millis = Millis(24 * 3_600_000);

/// Servers that are to found a cluster together.
#[derive(Clone, Copy, Debug)]
pub struct ExpectConfig {
    /// How many, this one among them; 1 to 7.
    pub servers: u16,
    /// What they have in common; `None` when its file is gone, as it may be once this server is a member.
    pub token: Option<CommonToken>,
}

/// What came of it.
pub(crate) enum Outcome {
    /// This server founds.
    Founds,
    /// It has joined.
    Joined(Box<Membership>),
}

fn broken(data: &Path, e: io::Error) -> NodeError {
    NodeError::Directory(data.join(FILE).display().to_string(), e)
}

/// What a directory says of an attempt to found a cluster.
fn load(data: &Path) -> Result<Option<Kept>, NodeError> {
    let path = data.join(FILE);
    let read = || match fs::read(&path) {
        Ok(bytes) => {
            let json = sealed::unseal(&path, &bytes)?;
            let invalid = |e| io::Error::new(io::ErrorKind::InvalidData, e);
            serde_json::from_slice(json).map(Some).map_err(invalid)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    };
    read().map_err(|e| broken(data, e))
}

/// Whether this directory is of a server that has decided to found a cluster.
pub(crate) fn founds(data: &Path) -> Result<bool, NodeError> {
    Ok(load(data)?.is_some_and(|kept| kept.founds))
}

/// Keeps it: on disk before anybody is told.
fn save(data: &Path, kept: &Kept) -> Result<(), NodeError> {
    let path = data.join(FILE);
    let temporary = path.with_extension("tmp");
    let write = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&sealed::seal(serde_json::to_vec_pretty(kept)?))?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        fs::File::open(data)?.sync_all()
    };
    write().map_err(|e| broken(data, e))
}

fn forget(data: &Path) -> Result<(), NodeError> {
    match fs::remove_file(data.join(FILE)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(broken(data, e)),
        _ => Ok(()),
    }
}

/// Waits until this server founds a cluster or has joined one. Whoever comes to `listener` meanwhile is told how far it is.
pub(crate) async fn gather(
    config: &NodeConfig,
    expect: ExpectConfig,
    listener: &TcpListener,
    (own, address): (&Identity, &str),
) -> Result<Outcome, NodeError> {
    let data = &config.data_dir;
    let kept = load(data)?.unwrap_or_default();
    if kept.founds {
        return Ok(Outcome::Founds);
    }
    let token = expect.token.ok_or(NodeError::NoToken)?;
    let mut me = Waits::new(own.id, own.name.clone(), address.to_owned());
    me.expect = expect.servers;
    me.told = config
        .join
        .as_ref()
        .map_or_else(Vec::new, |j| j.servers.clone());
    let cohort = Cohort::new(&token, me).map_err(NodeError::Member)?;
    cohort.tell(&kept);
    tracing::info!(
        servers = expect.servers,
        token = token.label(),
        "waiting for the other servers"
    );
    tokio::select! {
        () = cohort.serve(listener) => Err(NodeError::NoServer),
        outcome = drive(config, &token, kept, &cohort, own) => outcome,
    }
}

async fn drive(
    config: &NodeConfig,
    token: &CommonToken,
    mut kept: Kept,
    cohort: &Cohort,
    own: &Identity,
) -> Result<Outcome, NodeError> {
    let data = &config.data_dir;
    let (mut since, mut said) = (Instant::now(), (String::new(), Instant::now()));
    let mut say = |why: String| {
        if said.0 != why || said.1.elapsed() > SAY {
            tracing::info!("no cluster yet: {why}");
            said = (why, Instant::now());
        }
    };
    let mut stops = 0;
    loop {
        let round = cohort.ask_all().await;
        let me = cohort.me();
        let step = decide(&me, &kept, &round, since.elapsed() > STALLED);
        let next = kept.after(own.id, &step, &round);
        if next != kept {
            save(data, &next)?;
            cohort.tell(&next);
            kept = next;
            since = Instant::now();
        }
        stops = match step {
            Step::Stop(_) => stops + 1,
            _ => 0,
        };
        match step {
            Step::Found => return Ok(Outcome::Founds),
            Step::Wait(why) => say(why.to_string()),
            Step::Stop(why) if stops < SURE => say(why.to_string()),
            Step::Stop(why) => {
                return Err(NodeError::Foreign(why.to_string()));
            }
            Step::Join(belongs) => match joined(config, token, &belongs, own, &me.address).await {
                Ok(me) => return Ok(Outcome::Joined(Box::new(me))),
                Err(NodeError::Member(MemberError::Refused(why))) if !why.retryable => {
                    return Err(NodeError::Member(MemberError::Refused(why)));
                }
                Err(why @ NodeError::Directory(..)) => return Err(why),
                Err(why) => say(format!(
                    "there is cluster {}, and this server does not get in: {why}",
                    belongs.cluster
                )),
            },
            Step::Promise(_) | Step::Release => continue,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Joins the cluster that another has founded.
async fn joined(
    config: &NodeConfig,
    token: &CommonToken,
    belongs: &Belongs,
    own: &Identity,
    address: &str,
) -> Result<Membership, NodeError> {
    let data = &config.data_dir;
    let joining = JoinConfig {
        servers: vec![belongs.address.clone()],
        token: Some(token.join(Pin(belongs.pin))),
    };
    let key = joining_key(data)?;
    let serves = Serves {
        address: address.to_owned(),
        on_etcd: false,
        by_vault: config.vault.is_some(),
    };
    let me = enter(data, &joining, own, &key, Some(serves)).await?;
    let _only_a_copy = fs::remove_file(data.join("joining.key"));
    forget(data)?;
    Ok(me)
}

/// Lets the others join by the common token, once this server has founded. It is done again at each start until it is known to be done.
pub(crate) async fn admit(
    data: &Path,
    expect: Option<ExpectConfig>,
    seats: &Seats,
) -> Result<(), NodeError> {
    if !founds(data)? {
        return Ok(());
    }
    let Some(control) = seats.here() else {
        return Ok(());
    };
    let Some((token, uses)) = expect.and_then(|e| Some((e.token?, e.servers.saturating_sub(1))))
    else {
        return Ok(());
    };
    if uses > 0 {
        let (id, secret) = token.joins();
        let record = JoinTokenRecord {
            id,
            hash: secret.hash(),
            role: MemberRole::Server,
            name: None,
            labels: Labels::new(),
            from: Vec::new(),
            uses: u32::from(uses),
            created: TimeMs(0),
            expires: control.now().after(GOOD),
        };
        match control
            .propose(Command::CreateJoinToken(record), None)
            .await
        {
            Err(why) if why.reason != Reason::Conflict => return Err(NodeError::Refused(why)),
            _ => {}
        }
    }
    forget(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prism_members::cohort::Promise;
    use prism_types::NodeId;

    #[test]
    fn what_was_promised_comes_back_and_damage_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        assert_eq!(load(data).unwrap(), None);
        let set = [NodeId::new(1, 1), NodeId::new(1, 2)].into();
        let mut kept = Kept {
            epoch: 3,
            promise: Some(Promise { set, epoch: 2 }),
            peers: vec!["h:1".to_owned()],
            founds: false,
        };
        save(data, &kept).unwrap();
        assert_eq!(load(data).unwrap(), Some(kept.clone()));
        assert!(!founds(data).unwrap());
        kept.founds = true;
        save(data, &kept).unwrap();
        assert!(founds(data).unwrap());
        let good = fs::read(data.join(FILE)).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(data.join(FILE), &bad).unwrap();
            let why = load(data).unwrap_err().to_string();
            assert!(why.contains(FILE), "{why}");
        }
        forget(data).unwrap();
        forget(data).unwrap();
        assert_eq!(load(data).unwrap(), None);
    }
}
