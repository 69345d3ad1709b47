//! Each wrong certificate at each door.

use std::collections::BTreeMap;

use prism_identity::Lifetime;
use prism_state::{Command, Whom};
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use sha2::{Digest, Sha256};

use crate::forge::{
    Above, Came, DAY, Says, Shown, cluster_id, elsewhere, issuer, issuer_by, root, show, spiffe,
    uri,
};
use crate::kit::{Cluster, SERVER, cluster, node, now, until};

const MEMBERS: [&[u8]; 3] = [b"prism/renew/1", b"prism/session/1", b"prism/where/1"];
const SERVERS: [&[u8]; 3] = [b"prism/raft/1", b"prism/api/1", b"prism/root/1"];

/// What is refused, and by which word.
type Case = (String, Shown, &'static str);

fn shown(says: &Says, by: &Above, rest: &[&Above]) -> Shown {
    let key = says.key();
    let mut chain = vec![says.by(by, "a member", &key)];
    chain.extend(rest.iter().map(|above| above.certificate.clone()));
    Shown { chain, key }
}

/// One whose certificate says something else than a good one.
fn changed(c: &Cluster, change: impl FnOnce(&mut Says)) -> Shown {
    let above = issuer(&c.server());
    let mut says = Says::of(cluster_id(c), "server", 7);
    change(&mut says);
    shown(&says, &above, &[&above])
}

fn wrong_words(c: &Cluster) -> Vec<Case> {
    let own = cluster_id(c);
    // With letters, whose case counts.
    let id = node(0xab_cdef_abcd_ef01);
    let named = |names: Vec<SanType>| changed(c, |says| says.names = names);
    let one = |text: String| named(vec![uri(text)]);
    let other = elsewhere(77).cluster;
    let mut all = Vec::new();
    let mut add =
        |what: &str, shown: Shown, why: &'static str| all.push((what.to_owned(), shown, why));
    add("expired", changed(c, |s| s.until = now() - 10), "expired");
    add(
        "expired a year ago",
        changed(c, |s| {
            (s.from, s.until) = (now() - 700 * DAY, now() - 365 * DAY)
        }),
        "expired",
    );
    add(
        "not yet valid",
        changed(c, |s| s.from = now() + 600),
        "not_yet",
    );
    add(
        "valid next year",
        changed(c, |s| {
            (s.from, s.until) = (now() + 365 * DAY, now() + 366 * DAY)
        }),
        "not_yet",
    );
    add(
        "no use at all but one that is none",
        changed(c, |s| s.uses = vec![ExtendedKeyUsagePurpose::CodeSigning]),
        "unfit",
    );
    add(
        "for servers of the web only",
        changed(c, |s| s.uses = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        "unfit",
    );
    add(
        "for mail",
        changed(c, |s| {
            s.uses = vec![ExtendedKeyUsagePurpose::EmailProtection]
        }),
        "unfit",
    );
    add(
        "that of an authority",
        changed(c, |s| {
            s.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            s.key_uses = vec![KeyUsagePurpose::KeyCertSign];
        }),
        "unfit",
    );
    add("no name", named(Vec::new()), "nameless");
    add(
        "two names",
        named(vec![spiffe(own, "server", id), spiffe(own, "worker", id)]),
        "nameless",
    );
    add(
        "the same name twice",
        named(vec![spiffe(own, "server", id), spiffe(own, "server", id)]),
        "nameless",
    );
    add(
        "a name and a host",
        named(vec![
            spiffe(own, "server", id),
            SanType::DnsName("localhost".try_into().unwrap()),
        ]),
        "nameless",
    );
    add(
        "a host",
        named(vec![SanType::DnsName("localhost".try_into().unwrap())]),
        "nameless",
    );
    add(
        "an address",
        named(vec![SanType::IpAddress("127.0.0.1".parse().unwrap())]),
        "nameless",
    );
    add(
        "a mail address",
        named(vec![SanType::Rfc822Name("a@b".try_into().unwrap())]),
        "nameless",
    );
    for (what, text) in [
        ("https", format!("https://{own}/server/{id}")),
        ("an upper scheme", format!("SPIFFE://{own}/server/{id}")),
        ("no scheme", format!("{own}/server/{id}")),
        ("an unknown role", format!("spiffe://{own}/admin/{id}")),
        ("an upper role", format!("spiffe://{own}/Server/{id}")),
        ("no role", format!("spiffe://{own}/{id}")),
        ("no id", format!("spiffe://{own}/server/")),
        (
            "a short id",
            format!("spiffe://{own}/server/{}", &id.to_string()[1..]),
        ),
        (
            "an upper id",
            format!("spiffe://{own}/server/{}", id.to_string().to_uppercase()),
        ),
        ("more after it", format!("spiffe://{own}/server/{id}/x")),
        ("a slash after it", format!("spiffe://{own}/server/{id}/")),
        ("a query", format!("spiffe://{own}/server/{id}?x=1")),
        ("a fragment", format!("spiffe://{own}/server/{id}#x")),
        ("a port", format!("spiffe://{own}:443/server/{id}")),
        ("a user", format!("spiffe://a@{own}/server/{id}")),
        (
            "a way back",
            format!("spiffe://{own}/worker/../server/{id}"),
        ),
        ("an escape", format!("spiffe://{own}/%73erver/{id}")),
        ("a space", format!("spiffe://{own}/server/{id} ")),
        ("a NUL", format!("spiffe://{own}/server/{id}\0")),
        ("nothing", String::new()),
        ("ten thousand letters", "a".repeat(10_000)),
    ] {
        add(&format!("the name with {what}"), one(text), "nameless");
    }
    add(
        "the name of another cluster",
        named(vec![spiffe(other, "server", id)]),
        "foreign",
    );
    all
}

fn wrong_chains(c: &Cluster) -> Vec<Case> {
    let me = c.server();
    let (own, other) = (me.cluster, elsewhere(77));
    let (above, top) = (issuer(&me), root(&me));
    let (far, far_top) = (issuer(&other), root(&other));
    let good = Says::of(own, "server", 7);
    let mut all = Vec::new();
    let mut add =
        |what: &str, shown: Shown, why: &'static str| all.push((what.to_owned(), shown, why));
    let key = good.key();
    add(
        "self-signed",
        Shown {
            chain: vec![good.alone("x", &key)],
            key,
        },
        "stranger",
    );
    let key = good.key();
    let chain = vec![
        good.alone("x", &key),
        above.certificate.clone(),
        top.certificate.clone(),
    ];
    add(
        "self-signed, beside the real issuers",
        Shown { chain, key },
        "stranger",
    );
    add("another authority", shown(&good, &far, &[&far]), "stranger");
    add(
        "another authority and its root",
        shown(&good, &far, &[&far, &far_top]),
        "stranger",
    );
    add(
        "another authority beside the real issuer",
        shown(&good, &far, &[&above]),
        "stranger",
    );
    add(
        "another cluster's member",
        shown(&Says::of(other.cluster, "server", 7), &far, &[&far]),
        "stranger",
    );
    add("no issuer", shown(&good, &above, &[]), "stranger");
    add(
        "the root instead of the issuer",
        shown(&good, &above, &[&top]),
        "stranger",
    );
    let twice = issuer_by(&far_top, own, Lifetime::year(now()), 0);
    add(
        "an issuer of our name beneath another root",
        shown(&good, &twice, &[&twice]),
        "stranger",
    );
    let old = issuer_by(
        &top,
        own,
        Lifetime {
            from: now() - 9 * DAY,
            until: now() - DAY,
        },
        0,
    );
    add(
        "an issuer that has expired",
        shown(&good, &old, &[&old]),
        "expired",
    );
    let soon = issuer_by(
        &top,
        own,
        Lifetime {
            from: now() + DAY,
            until: now() + 9 * DAY,
        },
        0,
    );
    add(
        "an issuer of tomorrow",
        shown(&good, &soon, &[&soon]),
        "not_yet",
    );
    let second = issuer_by(&above, own, Lifetime::year(now()), 0);
    add(
        "an issuer's issuer: too long",
        shown(&good, &second, &[&second, &above]),
        "unfit",
    );
    let third = issuer_by(&second, own, Lifetime::year(now()), 0);
    add(
        "one more",
        shown(&good, &third, &[&third, &second, &above]),
        "unfit",
    );
    let worker = Says::of(own, "worker", 8);
    let its = worker.key();
    let leaf = Above {
        certificate: worker.by(&above, "w", &its),
        key: its,
    };
    add(
        "signed by a member",
        shown(&good, &leaf, &[&leaf, &above]),
        "unfit",
    );
    all
}

/// Shows it, and waits until the refusal is counted, once. What was not as it should be.
async fn refusal(c: &Cluster, door: &[u8], (what, shown, why): &Case) -> Option<String> {
    let before = c.house.counts().refused;
    let came = show(c, Some(door), Some(shown)).await;
    let door = String::from_utf8_lossy(door).into_owned();
    if came == Came::In {
        return Some(format!("{what} at {door} is let in"));
    }
    let sum = |all: &BTreeMap<&'static str, u64>| all.values().sum::<u64>();
    let once = || async { sum(&c.house.counts().refused) > sum(&before) };
    if !until(once).await {
        return Some(format!("{what} at {door} is not counted"));
    }
    let counts = c.house.counts();
    let grown = |word: &&'static str| counts.refused.get(word) != before.get(word);
    let words: Vec<&str> = counts
        .refused
        .keys()
        .copied()
        .filter(|w| grown(w))
        .collect();
    let right = words == [*why] && sum(&counts.refused) == sum(&before) + 1;
    (!right || counts.connected > 0)
        .then(|| format!("{what} at {door} is counted as {words:?}, not {why}"))
}

async fn is_refused(c: &Cluster, door: &[u8], case: &Case) {
    assert_eq!(refusal(c, door, case).await, None);
}

#[tokio::test]
async fn no_wrong_certificate_opens_any_door() {
    let c = cluster().await;
    let own = cluster_id(&c);
    let above = issuer(&c.server());
    let role = |role: &str| shown(&Says::of(own, role, 9), &above, &[&above]);
    let (mut cases, mut problems) = (0, Vec::new());
    let wrong: Vec<Case> = wrong_words(&c)
        .into_iter()
        .chain(wrong_chains(&c))
        .collect();
    for door in MEMBERS.into_iter().chain(SERVERS) {
        for case in &wrong {
            problems.extend(refusal(&c, door, case).await);
            cases += 1;
        }
        is_refused(
            &c,
            door,
            &("a client's".to_owned(), role("client"), "wrong_role"),
        )
        .await;
        cases += 1;
    }
    for door in SERVERS {
        is_refused(
            &c,
            door,
            &("a worker's".to_owned(), role("worker"), "wrong_role"),
        )
        .await;
        cases += 1;
    }
    // The same doors are open to those who may come.
    for door in MEMBERS {
        for who in ["worker", "server"] {
            assert_eq!(
                show(&c, Some(door), Some(&role(who))).await,
                Came::In,
                "{who}"
            );
            cases += 1;
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    println!("{cases} certificates at the doors of members");
    assert!(cases > 240, "{cases}");
}

#[tokio::test]
async fn kinds_of_keys_and_longer_chains_that_are_good_are_let_in() {
    let c = cluster().await;
    let me = c.server();
    let (above, top) = (issuer(&me), root(&me));
    let stranger = issuer(&elsewhere(78));
    let own = me.cluster;
    let mut cases = 0;
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let mut says = Says::of(own, "worker", 9);
        says.algorithm = algorithm;
        for rest in [vec![&above], vec![&above, &top], vec![&stranger, &above]] {
            let shown = shown(&says, &above, &rest);
            assert_eq!(show(&c, Some(MEMBERS[2]), Some(&shown)).await, Came::In);
            cases += 1;
        }
    }
    println!("{cases} certificates that are good in other forms");
}

#[tokio::test]
async fn without_a_certificate_or_with_another_protocol_nobody_comes_in() {
    let c = cluster().await;
    let above = issuer(&c.server());
    let good = || shown(&Says::of(cluster_id(&c), "server", 9), &above, &[&above]);
    let mut cases: u64 = 0;
    for door in MEMBERS.into_iter().chain(SERVERS) {
        assert_eq!(show(&c, Some(door), None).await, Came::Out);
        cases += 1;
    }
    let nobody = cases;
    let counted = || c.house.counts().refused.get("certificate").copied();
    assert!(
        until(|| async { counted() == Some(nobody) }).await,
        "{:?}",
        c.house.counts()
    );
    for protocol in [
        None,
        Some(&b"h2"[..]),
        Some(b"http/1.1"),
        Some(b"prism/session/2"),
        Some(b"prism/session/1 "),
        Some(b"PRISM/SESSION/1"),
        Some(b"prism/session"),
        Some(b"\0"),
        Some(&[b'x'; 255]),
    ] {
        assert_eq!(
            show(&c, protocol, Some(&good())).await,
            Came::Out,
            "{protocol:?}"
        );
        cases += 1;
    }
    let others = cases - nobody;
    let counted = || c.house.counts().refused.get("protocol").copied();
    assert!(
        until(|| async { counted() == Some(others) }).await,
        "{:?}",
        c.house.counts()
    );
    println!("{cases} without a certificate or for nothing");
}

#[tokio::test]
async fn who_is_denied_by_any_of_their_names_is_out_and_sent_away_in_the_middle() {
    let c = cluster().await;
    let me = c.server();
    let above = issuer(&me);
    let print = |der: &[u8]| -> [u8; 32] { Sha256::digest(der).into() };
    let mut cases = 0;
    let whom = |shown: &Shown| {
        [
            Whom::Certificate(print(&shown.chain[0])),
            Whom::Certificate(print(&shown.chain[1])),
            Whom::Node(node(9)),
            Whom::Node(node(SERVER)),
        ]
    };
    for which in 0..4 {
        let good = shown(&Says::of(me.cluster, "worker", 9), &above, &[&above]);
        let whom = whom(&good)[which];
        assert_eq!(
            show(&c, Some(MEMBERS[1]), Some(&good)).await,
            Came::In,
            "{whom}"
        );
        let why = "stolen".to_owned();
        c.propose(Command::Deny { whom, why }).await;
        // It takes a moment until the list is followed.
        let out = || async { show(&c, Some(MEMBERS[1]), Some(&good)).await == Came::Out };
        assert!(until(out).await, "{whom}");
        for door in MEMBERS {
            is_refused(&c, door, &(whom.to_string(), renamed(&good), "denied")).await;
            cases += 1;
        }
        c.propose(Command::Allow { whom }).await;
        let back = || async { show(&c, Some(MEMBERS[1]), Some(&good)).await == Came::In };
        assert!(until(back).await, "{whom}");
    }
    println!("{cases} that are denied");
}

/// The same once more.
fn renamed(shown: &Shown) -> Shown {
    Shown {
        chain: shown.chain.clone(),
        key: rcgen::KeyPair::from_pem(&shown.key.serialize_pem()).unwrap(),
    }
}
