//! Join tokens and members on the wire.

use prism_types::{Labels, Name, NodeId, TimeMs, TokenId};

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
        /// SHA-256 of the root's public key, in hex; `null` when no member can come to this server.
        pub root: Option<String>,
        /// Where members come to this server, as it listens; `null` as above.
        pub address: Option<String>,
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
