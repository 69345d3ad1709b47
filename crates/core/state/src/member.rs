//! Who belongs to the cluster: the tokens that nodes join with, the members, and who is kept out.

use std::fmt;

use prism_types::{IpRange, Labels, Name, NodeId, TimeMs, TokenId};
use serde::{Deserialize, Serialize};

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberRole {
    /// Of the control plane.
    Server,
    /// Runs work and nothing else.
    Worker,
}

impl fmt::Display for MemberRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Server => "server",
            Self::Worker => "worker",
        })
    }
}

/// `joins/ID`: what a join token allows. It stays until it expires, also when it is used up, so that whoever has not heard the
/// answer to a join may ask again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokenRecord {
    /// Its public half.
    pub id: TokenId,
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    /// What joins with it.
    pub role: MemberRole,
    /// The name that whoever joins must have, if it is for one.
    pub name: Option<Name>,
    /// Labels that whoever joins gets, above its own.
    pub labels: Labels,
    /// Where whoever joins may be; empty: anywhere.
    pub from: Vec<IpRange>,
    /// How many may still join.
    pub uses: u32,
    /// Made.
    pub created: TimeMs,
    /// Not valid from then on.
    pub expires: TimeMs,
}

/// `members/ID`: a node that has joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// The node.
    pub id: NodeId,
    /// What it is.
    pub role: MemberRole,
    /// Its name, unique among members.
    pub name: Name,
    /// SHA-256 of its public key (`SubjectPublicKeyInfo`, DER).
    pub key: [u8; 32],
    /// Labels from its token.
    pub labels: Labels,
    /// The token that it joined with last; `None` for the founder.
    pub token: Option<TokenId>,
    /// When.
    pub joined: TimeMs,
}

/// `servers/ID`: where a server is for the others. It stays when the server has gone: its number is never given again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRecord {
    /// The node.
    pub id: NodeId,
    /// Its number in the configuration of the store.
    pub number: u64,
    /// Where the other servers and the workers reach it, `HOST:PORT`.
    pub address: String,
    /// Whether it was removed.
    pub gone: bool,
}

/// `gossip`: the keys that gossip among the servers is sealed with. They themselves are sealed with a secret that every server has and
/// that is not in the state, so whoever reads the state or a backup of it does not have them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GossipRecord {
    /// Grows by one with each change.
    pub revision: u64,
    /// The names of the keys, which tell nothing of them; the first one seals, all open.
    pub keys: Vec<[u8; 4]>,
    /// The keys, sealed.
    pub sealed: Vec<u8>,
}

/// Somebody who is kept out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Whom {
    /// A node, whatever it shows; of a server, also all that it signed.
    Node(NodeId),
    /// Whoever shows a certificate with this SHA-256.
    Certificate([u8; 32]),
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => write!(f, "node {id}"),
            Self::Certificate(sha) => {
                f.write_str("certificate ")?;
                sha.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

/// `denied/WHOM`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeniedRecord {
    /// Who.
    pub whom: Whom,
    /// Why, for people.
    pub why: String,
    /// Since when.
    pub since: TimeMs,
}
