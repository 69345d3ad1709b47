//! Whoever is not to come in does not, for the reason that is told, and the listener goes on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

mod kit;

use std::sync::Arc;
use std::time::Duration;

use kit::{Cluster, cluster, hello, joining, until};
use prism_identity::{JoinSecret, JoinToken, Key, Pin};
use prism_members::{MemberError, join};
use prism_state::Command;
use prism_types::{Millis, Reason, TokenId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn refused(done: Result<prism_members::Membership, MemberError>) -> (Reason, String) {
    match done {
        Err(MemberError::Refused(why)) => (why.reason, why.message),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn tokens_let_in_whom_they_are_for_and_say_why_not() {
    let c = cluster().await;
    let (good, named, placed) = (
        c.token(|_| {}).await,
        c.token(|t| t.name = Some("w5".parse().unwrap())).await,
        c.token(|t| t.from = vec!["10.0.0.0/8".parse().unwrap()])
            .await,
    );
    let server = c.token(|t| t.role = prism_state::MemberRole::Server).await;
    let short = c
        .token(|t| t.expires = c.control.now().after(Millis(1)))
        .await;
    let revoked = c.token(|_| {}).await;
    c.propose(Command::RevokeJoinToken { id: revoked.id }).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let guessed = JoinToken {
        secret: JoinSecret::generate().unwrap(),
        ..good
    };
    let unknown = JoinToken {
        id: TokenId::new(1, 1),
        ..good
    };
    use Reason::{Forbidden, Unauthenticated};
    for (what, token, reason, says) in [
        (
            "a wrong secret",
            guessed,
            Unauthenticated,
            "no such join token",
        ),
        (
            "an unknown token",
            unknown,
            Unauthenticated,
            "no such join token",
        ),
        (
            "a revoked token",
            revoked,
            Unauthenticated,
            "no such join token",
        ),
        ("an expired token", short, Unauthenticated, "expired"),
        ("a server's token", server, Forbidden, "for a server"),
        ("another's token", named, Forbidden, "for node w5"),
        (
            "a token for elsewhere",
            placed,
            Forbidden,
            "not for address",
        ),
    ] {
        let (found, message) = refused(c.join(&token, 4).await);
        assert_eq!(found, reason, "{what}: {message}");
        assert!(message.contains(says), "{what}: {message}");
    }
    assert_eq!(c.house.counts().refused.get("join"), Some(&7));
    c.join(&named, 5).await.unwrap();
    c.join(&good, 6).await.unwrap();
    let (reason, message) = refused(c.join(&good, 7).await);
    assert_eq!(reason, Unauthenticated, "{message}");
    assert!(message.contains("used up"), "{message}");
}

#[tokio::test]
async fn a_server_that_takes_the_state_to_be_in_an_etcd_is_told_that_it_is_not() {
    let c = cluster().await;
    let token = c.token(|t| t.role = prism_state::MemberRole::Server).await;
    let mut who = joining(4);
    who.server = Some("127.0.0.1:9".to_owned());
    who.on_etcd = true;
    let key = || Key::generate().unwrap();
    let (reason, message) = refused(join(c.address, &token, &who, key()).await);
    assert_eq!(reason, Reason::Conflict, "{message}");
    assert!(message.contains("without --store=etcd"), "{message}");
    who.on_etcd = false;
    let me = join(c.address, &token, &who, key()).await;
    assert_eq!(
        me.unwrap().authority.map(|a| a.number),
        Some(2),
        "not used up"
    );
    // To a worker it is the same.
    let token = c.token(|_| {}).await;
    let mut worker = joining(5);
    worker.on_etcd = true;
    join(c.address, &token, &worker, key()).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_was_lost_is_given_again_to_the_same_key_only() {
    let c = cluster().await;
    let token = c.token(|_| {}).await;
    let key = Key::generate().unwrap();
    let again = Key::from_pem(&key.to_pem()).unwrap();
    let first = join(c.address, &token, &joining(7), key).await.unwrap();
    let second = join(c.address, &token, &joining(7), again).await.unwrap();
    assert_eq!(first.key.pin(), second.key.pin());
    let (reason, _) = refused(c.join(&token, 7).await);
    assert_eq!(reason, Reason::Conflict, "a copy, with a key of its own");
    let _stays = c.session(&second, hello(7)).await;
    assert!(c.is_there(7).await);
}

#[tokio::test]
async fn a_token_for_one_lets_one_in_however_many_ask_at_once() {
    let c = Arc::new(cluster().await);
    let token = c.token(|t| t.uses = 3).await;
    let all: Vec<_> = (10..30)
        .map(|n| {
            let c = c.clone();
            tokio::spawn(async move { c.join(&token, n).await.is_ok() })
        })
        .collect();
    let mut let_in = 0;
    for one in all {
        let_in += usize::from(one.await.unwrap());
    }
    assert_eq!(let_in, 3);
    assert_eq!(c.control.read(|s| s.members().count()).await, 4);
}

#[tokio::test]
async fn nothing_is_said_to_a_server_of_another_cluster() {
    let (c, other) = (cluster().await, cluster().await);
    let token = c.token(|_| {}).await;
    let key = || Key::generate().unwrap();
    let why = join(other.address, &token, &joining(7), key()).await;
    assert!(
        matches!(why, Err(MemberError::NotTrusted { .. })),
        "{why:?}"
    );
    let wrong = JoinToken {
        pin: Pin([3; 32]),
        ..token
    };
    let why = join(c.address, &wrong, &joining(7), key()).await;
    assert!(
        matches!(why, Err(MemberError::NotTrusted { .. })),
        "{why:?}"
    );
    // The secret is still good: nobody has seen it.
    join(c.address, &token, &joining(7), key()).await.unwrap();
    // Members of one are strangers to the other, at both ends.
    let me = c.member(8).await;
    let why = prism_members::dial_session(other.address, &me, me.trust().unwrap()).await;
    assert!(matches!(why, Err(MemberError::NotTrusted { .. })));
    let theirs = prism_identity::Trust::new(me.cluster, &[other_root(&other).await]).unwrap();
    let dialled = prism_members::dial_session(other.address, &me, Arc::new(theirs)).await;
    if let Ok(dialled) = dialled {
        let (far, _worker) = prism_link::pair();
        prism_wire::carry_worker(dialled.stream, far, kit::nobody().await).await;
    }
    assert!(until(|| async { !other.house.counts().refused.is_empty() }).await);
    assert_eq!(other.house.counts().connected, 0);
}

async fn other_root(other: &Cluster) -> Vec<u8> {
    other.member(99).await.roots.remove(0)
}

#[tokio::test]
async fn noise_is_refused_and_counted_and_members_come_meanwhile() {
    let c = cluster().await;
    let hello_of_a_browser = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03".to_vec();
    let mut noise: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"PRSM\x01\0\x01\0".to_vec(),
        b"SSH-2.0-x\r\n".to_vec(),
        vec![0; 5],
        vec![0xff; 70_000],
        b"\x16\x03\x01\xff\xff".to_vec(),
        hello_of_a_browser,
    ];
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for length in 1..40 {
        let bytes = (0..length * 7).map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 56) as u8
        });
        let mut bytes: Vec<u8> = bytes.collect();
        if length % 2 == 0 {
            // As a handshake begins.
            bytes.splice(0..0, *b"\x16\x03\x01\x00\x80\x01");
        }
        noise.push(bytes);
    }
    let count = noise.len();
    for bytes in noise {
        let mut stream = TcpStream::connect(c.address).await.unwrap();
        let _cut_off = stream.write_all(&bytes).await;
        let _cut_off = stream.shutdown().await;
        let mut rest = Vec::new();
        let read = stream.read_to_end(&mut rest);
        let read = tokio::time::timeout(Duration::from_secs(20), read).await;
        let _closed_or_reset = read.unwrap();
        // At most an alert.
        assert!(rest.len() < 100, "{} bytes", rest.len());
    }
    let all = u64::try_from(count).unwrap();
    let refused = || c.house.counts().refused.values().sum::<u64>();
    assert!(
        until(|| async { refused() == all }).await,
        "{:?}",
        c.house.counts()
    );
    let me = c.member(7).await;
    let _stays = c.session(&me, hello(7)).await;
    assert!(c.is_there(7).await);
}

#[tokio::test]
async fn those_who_say_nothing_keep_nobody_out() {
    let c = cluster().await;
    let mut silent = Vec::new();
    for _ in 0..3 * kit::UNKNOWN_HERE {
        silent.push(TcpStream::connect(c.address).await.unwrap());
    }
    let me = c.member(7).await;
    let _stays = c.session(&me, hello(7)).await;
    assert!(c.is_there(7).await);
    let gone = c.house.counts().refused.get("too_many").copied();
    assert!(
        gone >= Some(2 * u64::try_from(kit::UNKNOWN_HERE).unwrap()),
        "{gone:?}"
    );
    // The first of them was sent away.
    let mut byte = [0];
    let end = tokio::time::timeout(Duration::from_secs(20), silent[0].read(&mut byte)).await;
    assert!(matches!(end, Ok(Ok(0) | Err(_))));
}
