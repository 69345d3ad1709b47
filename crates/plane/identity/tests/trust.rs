//! Handshakes in memory: members are let in, and nobody else, for the reason that is told.

#![expect(clippy::unwrap_used, reason = "a test's own certificates")]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use prism_identity::{
    ClusterId, Denied, Fingerprint, Holder, Issuer, Key, Lifetime, NotTrusted, Peer, Role, Root,
    Trust, accept, connect,
};
use prism_types::{Id, NodeId};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConnection, ServerConnection};

const DAY: i64 = 24 * 3600;
const ANY: &[Role] = &[Role::Server, Role::Worker, Role::Client];

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_secs()).unwrap()
}

fn node(n: u128) -> NodeId {
    NodeId::new(1, n)
}

/// What a node shows.
struct Shown {
    key: Key,
    chain: Vec<Vec<u8>>,
}

/// A cluster with one server, number 1.
struct Cluster {
    id: ClusterId,
    root: Root,
    issuer: Issuer,
}

impl Cluster {
    fn new(n: u128) -> Self {
        let id = ClusterId(Id::new(1, n));
        let root = Root::found(id, Lifetime::decade(now())).unwrap();
        let issuer = Self::issuer(&root, id, node(1), Lifetime::year(now()));
        Self { id, root, issuer }
    }

    fn issuer(root: &Root, id: ClusterId, server: NodeId, life: Lifetime) -> Issuer {
        let key = Key::generate().unwrap();
        let request = key.request().unwrap();
        let certificate = root.sign_issuer(&request, server, life).unwrap();
        Issuer::new(id, key, certificate).unwrap()
    }

    fn member(&self, role: Role, n: u128) -> Shown {
        self.member_of(&self.issuer, role, n, Lifetime::day(now()))
    }

    fn member_of(&self, issuer: &Issuer, role: Role, n: u128, life: Lifetime) -> Shown {
        let key = Key::generate().unwrap();
        let request = key.request().unwrap();
        let issued = issuer.sign(&request, (role, node(n)), life).unwrap();
        Shown {
            key,
            chain: issued.chain,
        }
    }

    fn trust(&self) -> Arc<Trust> {
        Arc::new(Trust::new(self.id, &[self.root.certificate().to_vec()]).unwrap())
    }
}

/// What was refused at either end, in order.
type Refusals = Arc<Mutex<Vec<NotTrusted>>>;

fn noting(refusals: &Refusals) -> Arc<dyn Fn(&NotTrusted) + Send + Sync> {
    let refusals = refusals.clone();
    Arc::new(move |why| refusals.lock().unwrap().push(why.clone()))
}

/// Shakes hands; answers who is at the dialling end, or why one of the two was not let in.
fn shake(
    (listener, its): (&Shown, &Arc<Trust>),
    (dialler, theirs): (&Shown, &Arc<Trust>),
    (may_come, may_answer): (&'static [Role], &'static [Role]),
) -> Result<Peer, NotTrusted> {
    let refusals = Refusals::default();
    let (key, chain) = (&listener.key, listener.chain.as_slice());
    let server = accept(its.clone(), may_come, (key, chain), noting(&refusals)).unwrap();
    let (key, chain) = (&dialler.key, dialler.chain.as_slice());
    let client = connect(theirs.clone(), may_answer, (key, chain), noting(&refusals)).unwrap();
    let name = ServerName::try_from("prism.invalid").unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut there = bytes.as_slice();
        while !there.is_empty() && server.read_tls(&mut there).is_ok() {
            // An error is an alert for the other end, and a refusal that was noted.
            let _alert = server.process_new_packets();
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut back = bytes.as_slice();
        while !back.is_empty() && client.read_tls(&mut back).is_ok() {
            let _alert = client.process_new_packets();
        }
    }
    if let Some(why) = refusals.lock().unwrap().first() {
        assert!(server.is_handshaking() || client.writer().write(b"x").is_ok());
        let told = server.reader().read(&mut [0; 8]);
        assert!(
            told.is_err() || told.is_ok_and(|n| n == 0),
            "nothing goes through"
        );
        return Err(why.clone());
    }
    assert!(!server.is_handshaking() && !client.is_handshaking());
    assert_eq!(
        server.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
    let chain = server.peer_certificates().unwrap();
    Ok(Peer::of(&chain[0], &chain[1..]).unwrap())
}

/// Shakes hands with the cluster's server; both ends trust the cluster.
fn come(cluster: &Cluster, dialler: &Shown, may_come: &'static [Role]) -> Result<Peer, NotTrusted> {
    let (server, trust) = (cluster.member(Role::Server, 1), cluster.trust());
    shake(
        (&server, &trust),
        (dialler, &trust),
        (may_come, &[Role::Server]),
    )
}

#[test]
fn members_are_let_in_as_what_they_are() {
    let cluster = Cluster::new(1);
    for (n, role) in [(1, Role::Server), (2, Role::Worker), (3, Role::Client)] {
        let peer = come(&cluster, &cluster.member(role, n), ANY).unwrap();
        let holder = Holder {
            cluster: cluster.id,
            role,
            id: node(n),
        };
        assert_eq!(peer.holder, holder);
    }
}

#[test]
fn roles_are_checked_and_not_only_signatures() {
    let cluster = Cluster::new(1);
    let worker = cluster.member(Role::Worker, 2);
    let raft: &[Role] = &[Role::Server];
    let why = come(&cluster, &worker, raft).unwrap_err();
    assert_eq!(why.kind(), "wrong_role");
    assert_eq!(
        why.to_string(),
        "it is a worker; here only servers may come"
    );
    // Nor is a worker or a client answered to that listens where a server should.
    let trust = cluster.trust();
    for role in [Role::Worker, Role::Client] {
        let false_server = cluster.member(role, 9);
        let why = shake((&false_server, &trust), (&worker, &trust), (ANY, raft)).unwrap_err();
        assert_eq!(
            why.kind(),
            "unfit",
            "its certificate is not for that: {why}"
        );
    }
}

#[test]
fn times_are_kept() {
    let cluster = Cluster::new(1);
    let life = |from: i64, until: i64| Lifetime {
        from: now() + from,
        until: now() + until,
    };
    for (life, kind) in [
        (life(-2 * DAY, -DAY), "expired"),
        (life(-DAY, -1), "expired"),
        (life(60, DAY), "not_yet"),
        (life(DAY, 2 * DAY), "not_yet"),
    ] {
        let member = cluster.member_of(&cluster.issuer, Role::Worker, 2, life);
        assert_eq!(
            come(&cluster, &member, ANY).unwrap_err().kind(),
            kind,
            "{life:?}"
        );
    }
    let soon = cluster.member_of(&cluster.issuer, Role::Worker, 2, life(-60, 60));
    assert!(come(&cluster, &soon, ANY).is_ok());
    // An issuer that is over signs nothing that is good, whatever it writes into it.
    let over = Cluster::issuer(&cluster.root, cluster.id, node(1), life(-2 * DAY, -DAY));
    let request = Key::generate().unwrap().request().unwrap();
    let refused = over.sign(&request, (Role::Worker, node(2)), life(-60, DAY));
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("renew it from the root")
    );
    let ending = Cluster::issuer(&cluster.root, cluster.id, node(1), life(-DAY, DAY * 2 / 3));
    let issued = ending
        .sign(&request, (Role::Worker, node(2)), Lifetime::day(now()))
        .unwrap();
    assert_eq!(
        issued.life.until,
        ending.life().until,
        "no longer than its issuer"
    );
}

#[test]
fn strangers_and_other_clusters_stay_outside() {
    let (cluster, other) = (Cluster::new(1), Cluster::new(2));
    let foreign = other.member(Role::Worker, 2);
    assert_eq!(
        come(&cluster, &foreign, ANY).unwrap_err(),
        NotTrusted::Stranger
    );
    // A node does not talk to another cluster's server either.
    let (server, member) = (
        other.member(Role::Server, 1),
        cluster.member(Role::Worker, 2),
    );
    let ends = ((&server, &other.trust()), (&member, &cluster.trust()));
    assert_eq!(
        shake(ends.0, ends.1, (ANY, ANY)).unwrap_err(),
        NotTrusted::Stranger
    );
    // A root that two clusters share does not make one of them.
    let id = ClusterId(Id::new(1, 3));
    let key = Key::from_pem(&cluster.root.key().to_pem()).unwrap();
    let same_root = Root::load(id, key, cluster.root.certificate().to_vec()).unwrap();
    let issuer = Cluster::issuer(&same_root, id, node(1), Lifetime::year(now()));
    let sister = Cluster {
        id,
        root: same_root,
        issuer,
    };
    let member = sister.member(Role::Worker, 2);
    assert_eq!(
        come(&cluster, &member, ANY).unwrap_err(),
        NotTrusted::Foreign(id)
    );
}

#[test]
fn chains_that_are_put_together_lead_nowhere() {
    let (cluster, other) = (Cluster::new(1), Cluster::new(2));
    let (ours, theirs) = (
        cluster.member(Role::Worker, 2),
        other.member(Role::Worker, 2),
    );
    let root = cluster.root.certificate().to_vec();
    let put = |key: &Shown, chain: Vec<Vec<u8>>| Shown {
        key: Key::from_pem(&key.key.to_pem()).unwrap(),
        chain,
    };
    let (leaf, issuer) = (ours.chain[0].clone(), ours.chain[1].clone());
    let foreign = theirs.chain[0].clone();
    for (what, chain) in [
        ("no issuer", vec![foreign.clone()]),
        (
            "our issuer above their leaf",
            vec![foreign.clone(), issuer.clone()],
        ),
        (
            "our root above their leaf",
            vec![foreign.clone(), root.clone()],
        ),
        (
            "our leaf above their leaf",
            vec![foreign.clone(), leaf.clone(), issuer.clone()],
        ),
        (
            "all of ours above",
            vec![
                foreign,
                theirs.chain[1].clone(),
                issuer.clone(),
                root.clone(),
            ],
        ),
    ] {
        let why = come(&cluster, &put(&theirs, chain), ANY).unwrap_err();
        assert!(["stranger", "unfit"].contains(&why.kind()), "{what}: {why}");
    }
    assert_eq!(
        come(&cluster, &put(&ours, vec![leaf.clone()]), ANY).unwrap_err(),
        NotTrusted::Stranger
    );
    // More than is needed, in any order, harms nobody.
    let more = put(&ours, vec![leaf, root, issuer]);
    assert!(come(&cluster, &more, ANY).is_ok());
}

/// Certificates that our issuer could have been made to sign by somebody who holds its key.
#[expect(
    clippy::too_many_lines,
    reason = "a table of cases reads best in one piece"
)]
#[test]
fn what_no_issuer_of_ours_would_sign_is_refused_as_well() {
    let cluster = Cluster::new(1);
    let key = Key::generate().unwrap();
    let request = key.request().unwrap();
    let certificate = cluster
        .root
        .sign_issuer(&request, node(1), Lifetime::year(now()))
        .unwrap();
    let pair = KeyPair::from_pem(&key.to_pem()).unwrap();
    let issuer =
        rcgen::Issuer::from_ca_cert_der(&CertificateDer::from(certificate.clone()), &pair).unwrap();
    let uri = |text: &str| SanType::URI(text.to_owned().try_into().unwrap());
    let good = Holder {
        cluster: cluster.id,
        role: Role::Worker,
        id: node(2),
    }
    .to_string();
    let base = |names: Vec<SanType>| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params
    };
    let dns = SanType::DnsName("localhost".try_into().unwrap());
    let mut cases = vec![
        ("the same as ours", base(vec![uri(&good)]), ""),
        ("no name", base(vec![]), "nameless"),
        ("a host's name", base(vec![dns.clone()]), "nameless"),
        ("a second name", base(vec![uri(&good), dns]), "nameless"),
        ("two names", base(vec![uri(&good), uri(&good)]), "nameless"),
        (
            "an address",
            base(vec![SanType::IpAddress([127, 0, 0, 1].into())]),
            "nameless",
        ),
        (
            "a name that is none",
            base(vec![uri("spiffe://x/server/y")]),
            "nameless",
        ),
        (
            "a role that is none",
            base(vec![uri(&good.replace("worker", "root"))]),
            "nameless",
        ),
        ("a path", base(vec![uri(&format!("{good}/x"))]), "nameless"),
        (
            "another cluster's",
            base(vec![uri(&good.replace(
                &cluster.id.to_string(),
                &ClusterId(Id::new(9, 9)).to_string(),
            ))]),
            "foreign",
        ),
    ];
    let mut servers_only = base(vec![uri(&good)]);
    servers_only.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    cases.push(("for servers only", servers_only, "unfit"));
    let mut mail = base(vec![uri(&good)]);
    mail.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection];
    cases.push(("for mail", mail, "unfit"));
    let mut signs = base(vec![uri(&good)]);
    signs.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    cases.push(("one that signs", signs, "unfit"));
    for (what, params, kind) in cases {
        let own = Key::generate().unwrap();
        let pair = KeyPair::from_pem(&own.to_pem()).unwrap();
        let leaf = params.signed_by(&pair, &issuer).unwrap().der().to_vec();
        let shown = Shown {
            key: own,
            chain: vec![leaf, certificate.clone()],
        };
        match come(&cluster, &shown, ANY) {
            Ok(_) => assert_eq!(kind, "", "{what}"),
            Err(why) => assert_eq!(why.kind(), kind, "{what}: {why}"),
        }
    }
}

/// Signs with the key of `upper`, whose certificate has this common name, whatever that certificate allows.
fn by(upper: &Key, name: &str, params: &CertificateParams, key: &Key) -> Vec<u8> {
    let mut of = CertificateParams::default();
    of.distinguished_name = DistinguishedName::new();
    of.distinguished_name.push(DnType::CommonName, name);
    let pair = |key: &Key| KeyPair::from_pem(&key.to_pem()).unwrap();
    let upper = rcgen::Issuer::new(of, pair(upper));
    params.signed_by(&pair(key), &upper).unwrap().der().to_vec()
}

#[test]
fn an_issuer_makes_no_issuers_and_a_member_signs_nothing() {
    let cluster = Cluster::new(1);
    let holder = Holder {
        cluster: cluster.id,
        role: Role::Worker,
        id: node(2),
    };
    let name = SanType::URI(holder.to_string().try_into().unwrap());
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names = vec![name];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let mut middle = CertificateParams::default();
    middle.distinguished_name = DistinguishedName::new();
    middle.distinguished_name.push(DnType::CommonName, "middle");
    middle.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    middle.key_usages = vec![KeyUsagePurpose::KeyCertSign];

    let issuer_key = Key::generate().unwrap();
    let request = issuer_key.request().unwrap();
    let year = Lifetime::year(now());
    let issuer = cluster.root.sign_issuer(&request, node(1), year).unwrap();
    let member = cluster.member(Role::Server, 5);
    let (own, between) = (Key::generate().unwrap(), Key::generate().unwrap());
    let come = |chain: Vec<Vec<u8>>| {
        let key = Key::from_pem(&own.to_pem()).unwrap();
        come(&cluster, &Shown { key, chain }, ANY)
    };
    let (issuer_name, member_name) = (
        format!("prism issuer {}", node(1)),
        format!("prism server {}", node(5)),
    );
    let direct = by(&issuer_key, &issuer_name, &leaf, &own);
    assert!(
        come(vec![direct, issuer.clone()]).is_ok(),
        "as it should be"
    );
    let below = by(&between, "middle", &leaf, &own);
    let made = by(&issuer_key, &issuer_name, &middle, &between);
    assert!(
        come(vec![below.clone(), made, issuer]).is_err(),
        "an issuer beneath an issuer"
    );
    let made = by(&member.key, &member_name, &middle, &between);
    let [shown, above] = [0, 1].map(|n| member.chain[n].clone());
    let chain = vec![below, made, shown.clone(), above.clone()];
    assert!(come(chain).is_err(), "an issuer beneath a member");
    let direct = by(&member.key, &member_name, &leaf, &own);
    assert!(
        come(vec![direct, shown, above]).is_err(),
        "a member beneath a member"
    );
}

#[test]
fn a_request_gives_nothing_but_its_key() {
    let cluster = Cluster::new(1);
    let key = Key::generate().unwrap();
    let pair = KeyPair::from_pem(&key.to_pem()).unwrap();
    let mut asks = CertificateParams::new(vec!["root.example".to_owned()]).unwrap();
    asks.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    asks.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    asks.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let request = asks.serialize_request(&pair).unwrap().der().to_vec();
    let issued = cluster
        .issuer
        .sign(&request, (Role::Worker, node(2)), Lifetime::day(now()))
        .unwrap();
    let shown = Shown {
        key,
        chain: issued.chain,
    };
    let peer = come(&cluster, &shown, ANY).unwrap();
    assert_eq!((peer.holder.role, peer.holder.id), (Role::Worker, node(2)));
    let trust = cluster.trust();
    let member = cluster.member(Role::Worker, 3);
    assert!(
        shake((&shown, &trust), (&member, &trust), (ANY, ANY)).is_err(),
        "it is no server"
    );
    // Damaged ones: each byte in turn.
    let mut seen = BTreeSet::new();
    for at in 0..request.len() {
        let mut bad = request.clone();
        bad[at] ^= 0x41;
        match cluster
            .issuer
            .sign(&bad, (Role::Worker, node(2)), Lifetime::day(now()))
        {
            Err(why) => {
                seen.insert(why.to_string());
            }
            // A bit that says nothing: it is the same key's all the same.
            Ok(issued) => {
                let same = Key::from_pem(&shown.key.to_pem()).unwrap();
                let leaf = issued.chain[0].clone();
                assert!(Issuer::new(cluster.id, same, leaf).is_ok(), "byte {at}");
            }
        }
        assert!(
            cluster
                .issuer
                .sign(
                    &request[..at],
                    (Role::Worker, node(2)),
                    Lifetime::day(now())
                )
                .is_err()
        );
    }
    assert!(!seen.is_empty());
    let long = vec![0x30; 1 << 20];
    let why = cluster
        .issuer
        .sign(&long, (Role::Worker, node(2)), Lifetime::day(now()));
    assert!(why.unwrap_err().to_string().contains("at most 4096"));
}

#[test]
fn the_denied_are_denied_at_once_with_all_beneath_them() {
    let cluster = Cluster::new(1);
    let second = Cluster::issuer(&cluster.root, cluster.id, node(7), Lifetime::year(now()));
    let by_second = cluster.member_of(&second, Role::Worker, 4, Lifetime::day(now()));
    let (worker, server) = (
        cluster.member(Role::Worker, 2),
        cluster.member(Role::Server, 1),
    );
    let trust = cluster.trust();
    let come = |who: &Shown| shake((&server, &trust), (who, &cluster.trust()), (ANY, ANY));
    let (peer, other) = (come(&worker).unwrap(), come(&by_second).unwrap());
    assert!(trust.still(&peer).is_ok());
    let deny = |nodes: &[NodeId], certificates: &[&[u8]]| {
        trust.set_denied(Denied {
            nodes: nodes.iter().copied().collect(),
            certificates: certificates.iter().map(|c| Fingerprint::of(c)).collect(),
            ..Denied::default()
        });
    };
    deny(&[node(2)], &[]);
    assert_eq!(come(&worker).unwrap_err().kind(), "denied");
    assert_eq!(
        trust.still(&peer).unwrap_err().kind(),
        "denied",
        "while it is connected"
    );
    assert!(trust.still(&other).is_ok() && come(&by_second).is_ok());
    deny(&[], &[&worker.chain[0]]);
    assert!(come(&worker).is_err() && trust.still(&peer).is_err());
    assert!(
        come(&cluster.member(Role::Worker, 2)).is_ok(),
        "another certificate of the same node"
    );
    deny(&[], &[&by_second.chain[1]]);
    assert!(
        come(&by_second).is_err() && trust.still(&other).is_err(),
        "an issuer, with what it signed"
    );
    assert!(come(&worker).is_ok());
    deny(&[node(7)], &[]);
    assert!(
        come(&by_second).is_err(),
        "a server, with what its issuer signed"
    );
    trust.set_denied(Denied {
        all_but: Some([node(2)].into()),
        ..Denied::default()
    });
    assert!(come(&worker).is_ok() && trust.still(&peer).is_ok());
    assert!(come(&by_second).is_err());
    deny(&[], &[]);
    assert!(come(&by_second).is_ok());
}

#[test]
fn a_root_is_changed_without_a_moment_in_which_members_do_not_know_each_other() {
    let cluster = Cluster::new(1);
    let next = Root::found(cluster.id, Lifetime::decade(now())).unwrap();
    let issuer = Cluster::issuer(&next, cluster.id, node(1), Lifetime::year(now()));
    let (old, new) = (
        cluster.root.certificate().to_vec(),
        next.certificate().to_vec(),
    );
    let server = cluster.member(Role::Server, 1);
    let (before, after) = (
        cluster.member(Role::Worker, 2),
        cluster.member_of(&issuer, Role::Worker, 2, Lifetime::day(now())),
    );
    let trust = cluster.trust();
    let come = |who: &Shown| shake((&server, &trust), (who, &cluster.trust()), (ANY, ANY));
    assert!(come(&before).is_ok() && come(&after).is_err());
    trust.set_roots(&[old.clone(), new.clone()]).unwrap();
    assert!(come(&before).is_ok() && come(&after).is_ok());
    trust.set_roots(&[new]).unwrap();
    assert!(come(&before).is_err() && come(&after).is_ok());
    assert!(
        trust.set_roots(&[]).is_err(),
        "nobody would be let in for ever"
    );
    assert!(trust.set_roots(&[b"nothing".to_vec()]).is_err());
    assert!(come(&after).is_ok(), "and nothing changed");
}

#[test]
fn keys_and_roots_are_read_back_and_others_are_refused() {
    let cluster = Cluster::new(1);
    let pem = cluster.root.key().to_pem();
    let key = Key::from_pem(&pem).unwrap();
    assert_eq!(key.pin(), cluster.root.pin());
    assert!(!format!("{key:?}").contains("PRIVATE"));
    let certificate = cluster.root.certificate().to_vec();
    assert!(Root::load(cluster.id, key, certificate.clone()).is_ok());
    let other = Key::generate().unwrap();
    assert!(
        Root::load(cluster.id, other, certificate.clone()).is_err(),
        "another key's"
    );
    for bad in [
        "",
        "x",
        "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
        &pem[..pem.len() / 2],
    ] {
        assert!(Key::from_pem(bad).is_err(), "{bad:?}");
    }
    let key = || Key::from_pem(&pem).unwrap();
    for cut in 0..certificate.len() {
        assert!(Root::load(cluster.id, key(), certificate[..cut].to_vec()).is_err());
    }
    let mut longer = certificate;
    longer.push(0);
    assert!(Root::load(cluster.id, key(), longer).is_err());
}
