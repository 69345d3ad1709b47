//! Who holds a certificate, as its one name says: `spiffe://CLUSTER/ROLE/ID` (the form of SPIFFE's X.509-SVID, section 2).

use std::fmt;
use std::str::FromStr;

use prism_types::{Id, IdError, NodeId};
use serde::{Deserialize, Serialize};

/// A cluster, named when it was founded and never again.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ClusterId(pub Id);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ClusterId {
    type Err = IdError;

    fn from_str(s: &str) -> Result<Self, IdError> {
        s.parse().map(Self)
    }
}

/// What a holder may be at most. What it may do is decided where it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A member of the control plane.
    Server,
    /// A node that runs work and nothing else.
    Worker,
    /// A person or a program that calls the API.
    Client,
}

impl Role {
    const ALL: [(Self, &str); 3] = [
        (Self::Server, "server"),
        (Self::Worker, "worker"),
        (Self::Client, "client"),
    ];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(role, _)| role == self);
        f.write_str(name.map_or("", |(_, name)| *name))
    }
}

/// The holder of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder {
    /// Whose member it is.
    pub cluster: ClusterId,
    /// As what.
    pub role: Role,
    /// Which.
    pub id: NodeId,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}/{}", self.cluster, self.role, self.id)
    }
}

impl FromStr for Holder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |what: &str| {
            let shown: String = text.chars().take(120).collect();
            format!("{:?} is no name of a member: {what}", shown)
        };
        let rest = text
            .strip_prefix("spiffe://")
            .ok_or_else(|| bad("it does not begin with spiffe://"))?;
        let mut parts = rest.split('/');
        let (Some(cluster), Some(role), Some(id), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad("expected spiffe://CLUSTER/ROLE/ID"));
        };
        let role = Role::ALL.iter().find(|(_, name)| *name == role);
        Ok(Self {
            cluster: cluster.parse().map_err(|_| bad("its cluster is no id"))?,
            role: role
                .map(|(role, _)| *role)
                .ok_or_else(|| bad("its role is unknown"))?,
            id: id.parse().map_err(|_| bad("its last part is no id"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_nothing_else_is_one() {
        // With letters, whose case counts.
        let id = NodeId::new(7, u128::MAX);
        let cluster = ClusterId(Id::new(1, u128::MAX - 1));
        for (role, _) in Role::ALL {
            let holder = Holder { cluster, role, id };
            assert_eq!(holder.to_string().parse(), Ok(holder));
        }
        let (c, n) = (cluster.to_string(), id.to_string());
        for bad in [
            String::new(),
            "spiffe://".into(),
            format!("spiffe://{c}"),
            format!("spiffe://{c}/server"),
            format!("spiffe://{c}/server/"),
            format!("spiffe://{c}/server/{n}/"),
            format!("spiffe://{c}/server/{n}/more"),
            format!("spiffe://{c}//server/{n}"),
            format!("spiffe://{c}/Server/{n}"),
            format!("spiffe://{c}/admin/{n}"),
            format!("SPIFFE://{c}/server/{n}"),
            format!("spiffe:/{c}/server/{n}"),
            format!("https://{c}/server/{n}"),
            format!(" spiffe://{c}/server/{n}"),
            format!("spiffe://{c}/server/{n} "),
            format!("spiffe://{c}/server/{n}\0"),
            format!("spiffe://{c}/server/{n}?x"),
            format!("spiffe://{c}/server/{n}#x"),
            format!("spiffe://{}/server/{n}", c.to_uppercase()),
            format!("spiffe://{c}/server/{}", n.to_uppercase()),
            format!("spiffe://{c}/server/{}", &n[1..]),
            format!("spiffe://{}/server/{n}", "z".repeat(26)),
            format!("spiffe://{c}@other/server/{n}"),
            format!("spiffe://{c}:443/server/{n}"),
            format!("spiffe://{c}/server/../{n}"),
        ] {
            assert!(bad.parse::<Holder>().is_err(), "{bad:?}");
        }
    }
}
