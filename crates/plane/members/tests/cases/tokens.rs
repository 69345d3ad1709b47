//! Join tokens and requests for certificates.

use std::sync::Arc;

use prism_identity::{JoinSecret, JoinToken, Key, Pin, Role, requested};
use prism_members::{MemberError, join};
use prism_types::{Millis, Reason, TokenId};
use rcgen::SanType;
use sha2::{Digest, Sha256};

use crate::forge::{elsewhere, issuer, request, spiffe, uri};
use crate::kit::{cluster, cluster_with, joining, node};

fn check(body: &str) -> String {
    let digest = Sha256::digest(body.as_bytes());
    digest.iter().take(4).map(|b| format!("{b:02x}")).collect()
}

/// The texts of a token that was changed, each with a check that is right.
fn texts(good: &JoinToken) -> Vec<(&'static str, String)> {
    let text = good.expose();
    let parts: Vec<&str> = text.split('.').collect();
    let (id, secret, pin) = (parts[1], parts[2], parts[3]);
    let whole = |body: String| format!("{body}.{}", check(&body));
    let checked = [
        ("another prefix", format!("pj2.{id}.{secret}.{pin}")),
        ("an upper prefix", format!("PJ1.{id}.{secret}.{pin}")),
        ("no prefix", format!("{id}.{secret}.{pin}")),
        ("an API token's prefix", format!("pt_.{id}.{secret}.{pin}")),
        ("no id", format!("pj1..{secret}.{pin}")),
        (
            "an upper id",
            format!("pj1.{}.{secret}.{pin}", id.to_uppercase()),
        ),
        ("a short id", format!("pj1.{}.{secret}.{pin}", &id[1..])),
        ("a long id", format!("pj1.{id}0.{secret}.{pin}")),
        (
            "an id of other letters",
            format!("pj1.{}.{secret}.{pin}", "u".repeat(26)),
        ),
        ("no secret", format!("pj1.{id}..{pin}")),
        ("a short secret", format!("pj1.{id}.{}.{pin}", &secret[1..])),
        ("a long secret", format!("pj1.{id}.{secret}A.{pin}")),
        ("padding in the secret", format!("pj1.{id}.{secret}=.{pin}")),
        (
            "a secret of another alphabet",
            format!("pj1.{id}.{}+.{pin}", &secret[1..]),
        ),
        (
            "a secret in hex",
            format!("pj1.{id}.{}.{pin}", "0a".repeat(32)),
        ),
        ("no pin", format!("pj1.{id}.{secret}.")),
        ("no pin and no dot", format!("pj1.{id}.{secret}")),
        ("a short pin", format!("pj1.{id}.{secret}.{}", &pin[1..])),
        ("a long pin", format!("pj1.{id}.{secret}.{pin}A")),
        ("one part more", format!("pj1.{id}.{secret}.{pin}.{pin}")),
        (
            "letters beyond ASCII",
            format!("pj1.{id}.{}é.{pin}", &secret[2..]),
        ),
        (
            "letters that look alike",
            format!("рj1.{id}.{secret}.{pin}"),
        ),
        ("a NUL", format!("pj1.{id}.{secret}\0.{pin}")),
        ("a line in it", format!("pj1.{id}.{secret}\n.{pin}")),
    ];
    let mut all: Vec<_> = checked
        .into_iter()
        .map(|(what, body)| (what, whole(body)))
        .collect();
    let flipped = |at: usize| {
        let mut bytes = text.clone().into_bytes();
        bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
        String::from_utf8(bytes).unwrap()
    };
    all.extend([
        ("nothing", String::new()),
        ("dots", "....".to_owned()),
        ("a cut copy", text[..text.len() - 1].to_owned()),
        ("a begin that was cut off", text[1..].to_owned()),
        ("half of it", text[..text.len() / 2].to_owned()),
        ("twice in a line", format!("{text}{text}")),
        ("a changed id", flipped(10)),
        ("a changed secret", flipped(40)),
        ("a changed pin", flipped(90)),
        ("a changed check", flipped(text.len() - 1)),
        ("quotes", format!("\"{text}\"")),
        ("a megabyte", "p".repeat(1 << 20)),
        ("ten thousand dots", ".".repeat(10_000)),
    ]);
    all
}

#[tokio::test]
async fn no_changed_token_lets_in_and_none_tells_its_secret() {
    let c = cluster().await;
    let good = c.token(|_| {}).await;
    let secret = good.expose();
    let secret = secret.split('.').nth(2).unwrap();
    let mut cases = 0;
    for (what, text) in texts(&good) {
        let why = text.parse::<JoinToken>().expect_err(what);
        assert!(!why.contains(&secret[4..20]), "{what}: {why}");
        cases += 1;
    }
    // What reads well and is wrong all the same.
    let other = JoinSecret::generate().unwrap();
    let next = c.token(|_| {}).await;
    let table = [
        (
            "another secret",
            JoinToken {
                secret: other,
                ..good
            },
            Reason::Unauthenticated,
        ),
        (
            "another's secret",
            JoinToken {
                secret: next.secret,
                ..good
            },
            Reason::Unauthenticated,
        ),
        (
            "an id that is unknown",
            JoinToken {
                id: TokenId::new(1, 1),
                ..good
            },
            Reason::Unauthenticated,
        ),
        (
            "the id of another",
            JoinToken {
                id: next.id,
                ..good
            },
            Reason::Unauthenticated,
        ),
        (
            "the lowest id",
            JoinToken {
                id: TokenId::new(0, 0),
                ..good
            },
            Reason::Unauthenticated,
        ),
        (
            "the highest id",
            JoinToken {
                id: TokenId::new(u64::MAX, u128::MAX),
                ..good
            },
            Reason::Unauthenticated,
        ),
    ];
    for (what, token, reason) in table {
        match c.join(&token, 7).await {
            Err(MemberError::Refused(why)) => assert_eq!(why.reason, reason, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
        cases += 1;
    }
    // A server that the pin does not mean is not told the secret: it is never asked.
    let pins = [
        ("zeros", Pin([0; 32])),
        ("the server's own key", c.server().key.pin()),
        ("its issuer's key", {
            let me = c.server();
            me.authority.unwrap().issuer.key().pin()
        }),
        ("another cluster's root", {
            let root = elsewhere(79).authority.unwrap().root_key.unwrap();
            root.pin()
        }),
    ];
    for (what, pin) in pins {
        let done = c.join(&JoinToken { pin, ..good }, 7).await;
        let outside = matches!(done, Err(MemberError::NotTrusted { .. }));
        // A pin of the issuer is one of an authority above the server: it is the cluster that is meant.
        if what == "its issuer's key" {
            assert!(done.is_ok() || outside, "{what}: {done:?}");
        } else {
            assert!(outside, "{what}: {done:?}");
        }
        cases += 1;
    }
    println!("{cases} join tokens");
    assert!(cases >= 45, "{cases}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_who_redeem_one_token_at_once_are_one() {
    let c = cluster_with(prism_members::UNKNOWN).await;
    // As many handshakes as this machine ends within their time.
    let turns = Arc::new(tokio::sync::Semaphore::new(200));
    let token = c.token(|_| {}).await;
    let mut all = tokio::task::JoinSet::new();
    for n in 0..1_000 {
        let (address, turns) = (c.address, turns.clone());
        all.spawn(async move {
            let _turn = turns.acquire().await.unwrap();
            let key = Key::generate().unwrap();
            // Whoever took too long tries again.
            for _ in 0..20 {
                let key = Key::from_pem(&key.to_pem()).unwrap();
                match join(address, &token, &joining(100 + n), key).await {
                    Ok(_) => return true,
                    Err(MemberError::Refused(why)) => {
                        assert_eq!(why.reason, Reason::Unauthenticated, "{why}");
                        return false;
                    }
                    Err(_) => tokio::task::yield_now().await,
                }
            }
            panic!("it is never heard");
        });
    }
    let done = all.join_all().await;
    assert_eq!(done.iter().filter(|joined| **joined).count(), 1);
    assert_eq!(done.len(), 1_000);
    let members = c.control.read(|s| s.members().count()).await;
    assert_eq!(members, 2, "it and the server");
}

#[tokio::test]
async fn a_stolen_single_use_token_is_good_for_its_thief_or_for_its_owner_and_never_for_both() {
    let c = cluster().await;
    let token = c.token(|_| {}).await;
    c.join(&token, 7).await.unwrap();
    let mut cases = 0;
    let later = c
        .token(|t| t.expires = c.control.now().after(Millis(3_600_000)))
        .await;
    for (n, what) in [
        (8, "another machine"),
        (7, "the same machine with another key"),
    ] {
        let done = c.join(&token, n).await;
        assert!(
            matches!(done, Err(MemberError::Refused(_))),
            "{what}: {done:?}"
        );
        // And nothing of that has used up another.
        cases += 1;
    }
    c.join(&later, 8).await.unwrap();
    println!("{cases} stolen tokens");
}

/// What a request asks for is not what is signed.
#[test]
fn requests_get_nothing_but_a_certificate_for_their_key() {
    let me = elsewhere(80);
    let authority = me.authority.as_ref().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let own = me.cluster;
    let wishes: Vec<(&str, Vec<SanType>)> = vec![
        ("nothing", vec![]),
        ("to be a server", vec![spiffe(own, "server", node(1))]),
        ("to be another", vec![spiffe(own, "worker", node(99))]),
        (
            "two names",
            vec![
                spiffe(own, "server", node(1)),
                spiffe(own, "client", node(2)),
            ],
        ),
        (
            "a host",
            vec![SanType::DnsName("example.org".try_into().unwrap())],
        ),
        (
            "an address",
            vec![SanType::IpAddress("10.0.0.1".parse().unwrap())],
        ),
        (
            "a name of letters without sense",
            vec![uri("a".repeat(900))],
        ),
    ];
    let mut cases = 0;
    for (what, names) in wishes {
        let request = request(names, &key);
        let issued = authority
            .sign(&request, Role::Worker, node(5), 1_000_000)
            .unwrap();
        let leaf = issued.chain[0].clone().into();
        let peer = prism_identity::Peer::of(&leaf, &[]).unwrap();
        assert_eq!(
            (peer.holder.role, peer.holder.id),
            (Role::Worker, node(5)),
            "{what}"
        );
        cases += 1;
        // Each byte of it counts: none can be changed, and it cannot be cut.
        for at in (0..request.len()).step_by(request.len() / 9) {
            let mut bad = request.clone();
            bad[at] ^= 0x41;
            let same = requested(&bad).is_ok_and(|pin| pin == requested(&request).unwrap());
            assert!(!same, "{what}: byte {at} does not count");
            assert!(requested(&request[..at]).is_err(), "{what}: cut at {at}");
            cases += 2;
        }
    }
    // Of another kind.
    for bad in [
        Vec::new(),
        vec![0x30],
        vec![0xff; 200],
        issuer(&me).certificate,
        vec![0x30; 1 << 20],
    ] {
        assert!(requested(&bad).is_err());
        assert!(
            authority
                .sign(&bad, Role::Worker, node(5), 1_000_000)
                .is_err()
        );
        cases += 1;
    }
    println!("{cases} requests for certificates");
}
