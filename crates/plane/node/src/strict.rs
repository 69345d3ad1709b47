//! Looks whether every server that a node was told of is there and of its cluster: before it starts when it is to be strict, and for the
//! log otherwise.

use std::net::SocketAddr;

use prism_identity::Pin;
use prism_members::{MemberError, Membership, probe};

use crate::NodeConfig;
use crate::node::NodeError;
use crate::worker_node::resolve;

/// The roots of the cluster that is meant: of the one that it belongs to, or of the one that its token names.
fn pins(config: &NodeConfig, me: Option<&Membership>) -> Vec<Pin> {
    match me {
        Some(me) => {
            let all = me.roots.iter().map(|root| Pin::of_certificate(root));
            all.filter_map(Result::ok).collect()
        }
        None => {
            let token = config.join.as_ref().and_then(|join| join.token);
            token.map(|token| token.pin).into_iter().collect()
        }
    }
}

/// Why a server is not what it should be; an address of this node itself is.
async fn wrong(server: &str, pins: &[Pin], own: &[SocketAddr]) -> Option<String> {
    let addresses = match resolve(server).await {
        Ok(addresses) => addresses,
        Err(why) => return Some(why.to_string()),
    };
    let mut last = "its name has no address".to_owned();
    for address in addresses {
        if own.contains(&address) {
            return None;
        }
        for pin in pins {
            match probe(address, *pin).await {
                Ok(()) => return None,
                Err(MemberError::NotTrusted { .. }) => {
                    last = "it is of another cluster".to_owned();
                }
                Err(why) => last = why.to_string(),
            }
        }
    }
    Some(last)
}

/// Looks at all of them: what is wrong with one ends the start if this node is strict, and is said in the log otherwise.
///
/// # Errors
/// See above; nothing was started.
pub(crate) async fn check(
    config: &NodeConfig,
    me: Option<&Membership>,
    own: Option<&str>,
) -> Result<(), NodeError> {
    let servers = match &config.join {
        Some(join) => join.servers.clone(),
        None => return Ok(()),
    };
    let pins = pins(config, me);
    if pins.is_empty() {
        return Ok(());
    }
    let own = match own {
        Some(own) => resolve(own).await.unwrap_or_default(),
        None => Vec::new(),
    };
    let mut looking = tokio::task::JoinSet::new();
    for server in servers {
        let (pins, own) = (pins.clone(), own.clone());
        looking.spawn(async move {
            let why = wrong(&server, &pins, &own).await;
            (server, why)
        });
    }
    if !config.strict_join {
        tokio::spawn(async move {
            while let Some(looked) = looking.join_next().await {
                if let Ok((server, Some(why))) = looked {
                    tracing::warn!(%server, %why, "a server that was named to join is not there; going on without it");
                }
            }
        });
        return Ok(());
    }
    while let Some(looked) = looking.join_next().await {
        if let Ok((server, Some(why))) = looked {
            return Err(NodeError::Strict(server, why));
        }
    }
    Ok(())
}
