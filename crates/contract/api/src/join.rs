//! Join tokens and members on the wire.

use prism_types::{Labels, Name, NodeId, Noun, TimeMs, TokenId, Verb};

use crate::Role;

words! {
    /// What a member is.
    pub enum MemberRole {
        /// Of the control plane.
        Server = "server",
        /// Runs work and nothing else.
        Worker = "worker",
    }
}

wire! {
    /// A join token to make.
    #[request]
    pub struct JoinTokenCreate {
        /// How many machines may join with it; one when left out.
        pub uses: Option<u32>,
        /// How long it is good, such as `1h`, at most `30d`; an hour when left out.
        pub expires_in: Option<String>,
        /// The only name that may join with it.
        pub name: Option<Name>,
        /// What joins with it; a worker when left out.
        pub role: Option<MemberRole>,
        /// Labels that whoever joins gets, above its own.
        pub labels: Option<Labels>,
        /// Where whoever joins may be, such as `10.0.0.0/8`; anywhere when left out.
        pub from: Option<Vec<String>>,
    }

    /// A join token, without its secret.
    pub struct JoinTokenView {
        /// Its id.
        pub id: TokenId,
        /// What joins with it.
        pub role: MemberRole,
        /// How many may still join.
        pub uses: u32,
        /// The only name that may join with it; `null`: any.
        pub name: Option<Name>,
        /// Labels that whoever joins gets.
        pub labels: Labels,
        /// Where whoever joins may be; empty: anywhere.
        pub from: Vec<String>,
        /// When it was made.
        pub created: TimeMs,
        /// Until when it is good.
        pub expires: TimeMs,
    }

    /// A new join token; the only time that its text is shown.
    pub struct JoinTokenCreated {
        /// Its id.
        pub id: TokenId,
        /// The text to join with; kept nowhere. `null` when this answers a repeated request.
        pub token: Option<String>,
        /// What joins with it.
        pub role: MemberRole,
        /// Where members come to this server.
        pub address: String,
        /// How many may join with it.
        pub uses: u32,
        /// Until when it is good.
        pub expires: TimeMs,
    }

    /// Who belongs to the cluster, and who is kept out.
    pub struct CaView {
        /// The cluster's id.
        pub cluster: String,
        /// SHA-256 of the root's public key, in hex: the pin of this cluster; `null` when it has no authority yet.
        pub root: Option<String>,
        /// What signs for members when the cluster has no authority of its own: where it is in Vault; `null` otherwise.
        pub issuer: Option<String>,
        /// SHA-256 of the public key of this server's API, in hex, where Vault signs: what its clients pin then; `null` otherwise.
        pub api: Option<String>,
        /// Where members come to this server, as it listens; `null` when none can.
        pub address: Option<String>,
        /// The change of the root that is under way, or the last one; `null` when there was none.
        pub rotation: Option<RotationView>,
        /// The members.
        pub members: Vec<JoinedView>,
        /// The first thousand of those who are kept out.
        pub denied: Vec<DeniedView>,
    }

    /// A member.
    pub struct JoinedView {
        /// Its id.
        pub id: NodeId,
        /// Its name.
        pub name: Name,
        /// What it is.
        pub role: MemberRole,
        /// When it joined.
        pub joined: TimeMs,
    }

    /// A change of the cluster's root.
    pub struct RotationView {
        /// SHA-256 of the new root's public key, in hex.
        pub root: String,
        /// The same of the old root.
        pub old_root: String,
        /// Since when.
        pub started: TimeMs,
        /// When it is over at the latest; where Vault signs it ends when nobody is missing, however long that is.
        pub latest: TimeMs,
        /// When it was over; `null`: it is under way.
        pub ended: Option<TimeMs>,
        /// How many members have certificates of the new root.
        pub moved: u32,
        /// The members that do not have one yet.
        pub waiting: Vec<Name>,
    }

    /// A root to be changed.
    #[request]
    pub struct CaRotate {
        /// Ends the rotation that is under way now: whoever does not have a certificate of the new root is to join again.
        pub finish: Option<bool>,
        /// Begins the one that is under way again, with another root: when the server that made the new one is lost.
        pub again: Option<bool>,
    }

    /// A certificate to be made for somebody who uses the API. It stands for a new token of which there is no text.
    #[request]
    pub struct CaIssue {
        /// What it is for.
        pub name: String,
        /// What it may do.
        pub role: Role,
        /// Only in these namespaces; in all when left out.
        pub namespaces: Option<Vec<Name>>,
        /// Only to these things; to all when left out.
        pub resources: Option<Vec<Noun>>,
        /// Only so; in every way that the role allows when left out.
        pub verbs: Option<Vec<Verb>>,
        /// How long it is good, such as `30d`, at most `90d`.
        pub expires_in: String,
        /// The request for it (PKCS #10, PEM). Of it only the public key is taken.
        pub request: String,
    }

    /// A certificate that was made.
    pub struct CaIssued {
        /// The id of the token that it stands for: to be revoked by it.
        pub id: TokenId,
        /// It and those above it (PEM).
        pub certificate: String,
        /// The roots of the cluster (PEM), by which a client knows its servers.
        pub authority: String,
        /// What it is for.
        pub name: String,
        /// What it may do.
        pub role: Role,
        /// Until when it is good.
        pub expires: TimeMs,
    }

    /// Somebody who is kept out: a node or a certificate.
    pub struct DeniedView {
        /// The node.
        pub node: Option<NodeId>,
        /// SHA-256 of the certificate, in hex.
        pub certificate: Option<String>,
        /// Why.
        pub why: String,
        /// Since when.
        pub since: TimeMs,
    }

    /// Somebody to be kept out: a node or a certificate.
    #[request]
    pub struct CaDeny {
        /// Name or id of the node.
        pub node: Option<String>,
        /// SHA-256 of the certificate, in hex.
        pub certificate: Option<String>,
        /// Why, for people.
        pub why: String,
    }

    /// Somebody who may come again: a node or a certificate.
    #[request]
    pub struct CaAllow {
        /// Name or id of the node.
        pub node: Option<String>,
        /// SHA-256 of the certificate, in hex.
        pub certificate: Option<String>,
    }
}
