//! Real sockets on loopback: members meet on IPv4, IPv6 and both, leave, die and come back, replace their keys, and are left alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prism_membership::{
    Config, Gossip, GossipError, GossipKey, KeyRing, Member, MemberState, Outcome, Tags, Timing,
    Who,
};
use prism_types::{Id, NodeId};
use tokio::net::UdpSocket;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(20);

fn key(n: u8) -> GossipKey {
    GossipKey::from_bytes([n; 32])
}

fn id(n: u64) -> NodeId {
    NodeId::new(1_700_000_000_000 + n, 4711)
}

fn config(n: u64, bind: &str) -> Config {
    let who = Who {
        id: id(n),
        name: format!("srv-{n}").parse().unwrap(),
        addresses: Vec::new(),
        raft: n,
        roles: vec!["server".parse().unwrap()],
    };
    let mut config = Config::new(Id(99), who, KeyRing::new(key(1)));
    config.bind = bind.parse().unwrap();
    config.timing = Timing {
        probe_period: Duration::from_millis(250),
        probe_rtt: Duration::from_millis(100),
        suspicion: Duration::from_millis(1500),
        ..Timing::default()
    };
    config
}

async fn start(n: u64, bind: &str, join: &[&Gossip]) -> Gossip {
    let mut config = config(n, bind);
    config.join = join.iter().map(|g| g.advertised().address).collect();
    Gossip::start(config).await.unwrap()
}

/// One that gives a suspect more time than the test takes.
async fn start_patient(n: u64, join: &[&Gossip]) -> Gossip {
    let mut config = config(n, "127.0.0.1:0");
    config.timing.suspicion = PATIENCE * 10;
    config.join = join.iter().map(|g| g.advertised().address).collect();
    Gossip::start(config).await.unwrap()
}

/// Waits until a node sees what is wanted.
async fn until(what: &str, gossip: &Gossip, holds: impl Fn(&[Member]) -> bool) {
    let mut changed = gossip.changed();
    let seen = timeout(PATIENCE, changed.wait_for(|m| holds(m))).await;
    let fail = || panic!("not in time: {what}: {:#?}", gossip.members());
    seen.unwrap_or_else(|_| fail()).unwrap();
}

fn state(members: &[Member], n: u64) -> Option<MemberState> {
    members.iter().find(|m| m.id == id(n)).map(|m| m.state)
}

fn all_alive(members: &[Member], count: usize) -> bool {
    let alive = |m: &&Member| m.state == MemberState::Alive && m.name.is_some();
    members.iter().filter(alive).count() == count
}

async fn meet(nodes: &[&Gossip]) {
    for node in nodes {
        until("all see all", node, |m| all_alive(m, nodes.len())).await;
    }
}

/// Whether this machine has IPv6 on loopback.
async fn has_ipv6() -> bool {
    let there = UdpSocket::bind("[::1]:0").await.is_ok();
    if !there {
        println!("skipped: this machine has no IPv6 on loopback");
    }
    there
}

#[tokio::test]
async fn three_members_meet_on_ipv4_and_carry_their_tags() {
    let one = start(1, "127.0.0.1:0", &[]).await;
    let two = start(2, "127.0.0.1:0", &[&one]).await;
    let three = start(3, "127.0.0.1:0", &[&one]).await;
    meet(&[&one, &two, &three]).await;
    let tags = Tags::new([("rack".to_owned(), "r7".to_owned())].into()).unwrap();
    three.set_tags(tags.clone()).await.unwrap();
    until("the tags are there", &two, |m| {
        m.iter().any(|m| m.tags == tags)
    })
    .await;
    let members = two.members();
    let seen = members.iter().find(|m| m.id == id(3)).unwrap();
    assert_eq!(seen.address, three.advertised().address);
    assert_eq!(seen.raft, 3);
    assert!(seen.since > Duration::from_secs(1_600_000_000), "Unix time");
    assert!(members[0].me && members[0].id == id(2));
    let counts = two.counts();
    assert!(counts.sent > 0 && counts.received > 0 && counts.sent_bytes > counts.sent);
}

#[tokio::test]
async fn members_meet_on_ipv6_and_on_both() {
    if !has_ipv6().await {
        return;
    }
    let one = start(1, "[::1]:0", &[]).await;
    let two = start(2, "[::1]:0", &[&one]).await;
    meet(&[&one, &two]).await;
    // One with both speaks to one of each kind.
    let mut both = config(3, "[::]:0");
    both.cluster = Id(100);
    both.advertise = Some("127.0.0.1:0".parse().unwrap());
    let both = Gossip::start(both).await.unwrap();
    assert_eq!(both.bound().port(), both.advertised().address.port());
    let mut four = config(4, "127.0.0.1:0");
    four.cluster = Id(100);
    four.join = vec![both.advertised().address];
    let four = Gossip::start(four).await.unwrap();
    meet(&[&both, &four]).await;
    let mut six = config(6, "[::]:0");
    six.cluster = Id(100);
    six.join = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, both.bound().port()))];
    let six = Gossip::start(six).await.unwrap();
    assert_eq!(six.advertised().address.ip(), Ipv4Addr::LOCALHOST);
    assert!(
        six.advertised().why.contains("route"),
        "{:?}",
        six.advertised()
    );
    meet(&[&both, &four, &six]).await;
}

#[tokio::test]
async fn who_leaves_has_left_who_dies_is_down_and_who_returns_is_alive() {
    let one = start(1, "127.0.0.1:0", &[]).await;
    let two = start(2, "127.0.0.1:0", &[&one]).await;
    let three = start(3, "127.0.0.1:0", &[&one]).await;
    meet(&[&one, &two, &three]).await;
    let goodbye = three.leave(PATIENCE).await.unwrap();
    assert_eq!((goodbye.heard, goodbye.silent), (2, Vec::new()));
    for node in [&one, &two] {
        until("left", node, |m| state(m, 3) == Some(MemberState::Left)).await;
    }
    two.stop().await;
    until("down", &one, |m| state(m, 2) == Some(MemberState::Down)).await;
    assert_eq!(state(&one.members(), 3), Some(MemberState::Left));
    let two = start(2, "127.0.0.1:0", &[&one]).await;
    let three = start(3, "127.0.0.1:0", &[&one]).await;
    meet(&[&one, &two, &three]).await;
    // A handle that is dropped is a death.
    drop(three);
    until("down", &one, |m| state(m, 3) == Some(MemberState::Down)).await;
    let alone = one.leave(Duration::from_secs(20)).await.unwrap();
    assert_eq!(alone.heard, 1);
}

#[tokio::test]
async fn a_key_is_replaced_under_traffic_and_not_while_one_is_away() {
    let one = start_patient(1, &[]).await;
    let two = start_patient(2, &[&one]).await;
    let three = start_patient(3, &[&one]).await;
    meet(&[&one, &two, &three]).await;
    let (old, new) = (key(1), key(2));
    let keys = one.keyring();
    let unknown = keys.use_key(new.id(), SOON).await;
    assert!(
        matches!(unknown, Err(GossipError::NotReady(_))),
        "{unknown:?}"
    );
    // Traffic: tags change all the time.
    let two = Arc::new(two);
    let busy = Arc::clone(&two);
    let traffic = tokio::spawn(async move {
        for n in 0u32.. {
            let tags = Tags::new([("n".to_owned(), n.to_string())].into()).unwrap();
            if busy.set_tags(tags).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    // Node 3 goes away without a word; to the others it counts as alive.
    three.stop().await;
    let answers = keys
        .install(new.clone(), Duration::from_millis(300))
        .await
        .unwrap();
    assert_eq!(answers[0].outcome, Outcome::Done);
    let refused = keys.use_key(new.id(), Duration::from_millis(300)).await;
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("srv-3: no answer"), "{text}");
    assert_eq!(one.keyring().ring().primary(), &old);
    assert_eq!(two.keyring().ring().primary(), &old);
    // It comes back, with the ring that it had.
    let three = start_patient(3, &[&one]).await;
    meet(&[&one, &two, &three]).await;
    let refused = keys.use_key(new.id(), SOON).await.unwrap_err().to_string();
    assert!(
        refused.contains("srv-3: it does not have the key"),
        "{refused}"
    );
    let mut kept = three.keyring().changed();
    let all_done = |answers: &[prism_membership::NodeAnswer]| {
        assert_eq!(answers.len(), 3);
        assert!(
            answers.iter().all(|a| a.outcome == Outcome::Done),
            "{answers:?}"
        );
    };
    all_done(&keys.install(new.clone(), SOON).await.unwrap());
    timeout(PATIENCE, kept.changed()).await.unwrap().unwrap();
    assert_eq!(kept.borrow_and_update().ids(), [old.id(), new.id()]);
    let primary = keys.remove(old.id(), SOON).await.unwrap_err().to_string();
    assert!(primary.contains("seals with that key"), "{primary}");
    all_done(&keys.use_key(new.id(), SOON).await.unwrap());
    all_done(&keys.remove(old.id(), SOON).await.unwrap());
    for node in [&one, &*two, &three] {
        assert_eq!(node.keyring().ring().ids(), [new.id()]);
    }
    traffic.abort();
    let tags = Tags::new([("n".to_owned(), "last".to_owned())].into()).unwrap();
    two.set_tags(tags.clone()).await.unwrap();
    for node in [&one, &three] {
        until("tags under the new key", node, |m| {
            m.iter().any(|m| m.tags == tags)
        })
        .await;
    }
    is_told_nothing(&start(4, "127.0.0.1:0", &[&one]).await, &one).await;
}

/// Who still has the old key only is a stranger.
async fn is_told_nothing(four: &Gossip, one: &Gossip) {
    let before = one.counts();
    until("nobody", four, |m| m.len() == 1).await;
    let knocked = async {
        while one.counts().refused[4] == before.refused[4] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, knocked).await.unwrap();
    assert_eq!(four.members().len(), 1);
    assert_eq!(four.counts().received, 0);
    assert_eq!(state(&one.members(), 4), None);
}

/// Passes datagrams on between a node and the rest, and keeps them.
async fn relay(
    kept: Arc<Mutex<Vec<Vec<u8>>>>,
) -> (SocketAddr, tokio::sync::watch::Sender<SocketAddr>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let (to, target) = tokio::sync::watch::channel(address);
    tokio::spawn(async move {
        let mut buffer = vec![0; 2000];
        while let Ok((length, _)) = socket.recv_from(&mut buffer).await {
            kept.lock().unwrap().push(buffer[..length].to_vec());
            let target = *target.borrow();
            let _ = socket.send_to(&buffer[..length], target).await;
        }
    });
    (address, to)
}

#[tokio::test]
async fn what_is_on_the_wire_holds_no_name_tag_or_id() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let mut nodes: Vec<Gossip> = Vec::new();
    for n in 1..=3 {
        let (address, to) = relay(Arc::clone(&kept)).await;
        let mut config = config(n, "127.0.0.1:0");
        config.advertise = Some(address);
        config.tags = Tags::new([("purpose".to_owned(), "canary-tag".to_owned())].into()).unwrap();
        config.join = nodes
            .iter()
            .take(1)
            .map(|g| g.advertised().address)
            .collect();
        let node = Gossip::start(config).await.unwrap();
        to.send_replace(node.bound());
        nodes.push(node);
    }
    let all: Vec<&Gossip> = nodes.iter().collect();
    meet(&all).await;
    nodes[0].keyring().install(key(8), SOON).await.unwrap();
    let last = nodes.pop().unwrap();
    assert_eq!(last.leave(PATIENCE).await.unwrap().heard, 2);
    let kept = kept.lock().unwrap();
    assert!(kept.len() > 20);
    let number = postcard::to_stdvec(&id(2)).unwrap();
    let needles: [&[u8]; 6] = [
        b"srv-",
        b"server",
        b"purpose",
        b"canary",
        &number[2..10],
        &[8; 8],
    ];
    for datagram in kept.iter() {
        assert!(datagram.len() <= prism_membership::protocol::MAX_DATAGRAM);
        for needle in needles {
            assert!(
                !datagram.windows(needle.len()).any(|w| w == needle),
                "{needle:?}"
            );
        }
    }
}

#[tokio::test]
async fn garbage_is_counted_and_never_answered_and_members_stay() {
    let one = start(1, "127.0.0.1:0", &[]).await;
    let two = start(2, "127.0.0.1:0", &[&one]).await;
    meet(&[&one, &two]).await;
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut garbage = [1u8; 1400];
    for n in 0u32..20_000 {
        garbage[40..44].copy_from_slice(&n.to_be_bytes());
        garbage[0] = (n % 3).to_be_bytes()[3];
        let length = usize::try_from(n % 1400).unwrap();
        let _ = stranger.send_to(&garbage[..length], one.bound()).await;
        if n.is_multiple_of(256) {
            tokio::task::yield_now().await;
        }
    }
    // The last of it is in when a probe of ours came through after it.
    let received = one.counts().received;
    let quiet = async {
        while one.counts().received < received + 5 || one.counts().refused_all() < 1000 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, quiet).await.unwrap();
    let mut buffer = [0; 100];
    let answer = stranger.try_recv_from(&mut buffer);
    assert_eq!(answer.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    meet(&[&one, &two]).await;
    let counts = one.counts();
    assert!(
        counts.refused[1] > 0 && counts.refused[2] > 0 && counts.refused[3] > 0,
        "{counts:?}"
    );
}

#[tokio::test]
async fn addresses_that_nobody_can_send_to_are_refused_with_words() {
    for bad in [
        "0.0.0.0:0",
        "0.0.0.0:7",
        "[::]:7",
        "224.0.0.1:7",
        "255.255.255.255:7",
        "[ff02::1]:7",
        "[fe80::1]:7",
    ] {
        let mut config = config(1, "127.0.0.1:0");
        config.advertise = Some(bad.parse().unwrap());
        let why = Gossip::start(config).await.unwrap_err();
        assert!(matches!(why, GossipError::Advertise(_)), "{bad}");
        assert!(why.to_string().contains("nothing was started"), "{why}");
    }
    let there = start(1, "127.0.0.1:0", &[]).await;
    let taken = config(2, &there.bound().to_string());
    let why = Gossip::start(taken).await.unwrap_err().to_string();
    assert!(why.contains(&there.bound().to_string()), "{why}");
    let mut config = config(2, "127.0.0.1:0");
    config.timing.probe_rtt = config.timing.probe_period;
    assert!(matches!(
        Gossip::start(config).await,
        Err(GossipError::Timing)
    ));
}

#[tokio::test]
async fn bind_and_advertise_are_chosen_apart() {
    for bind in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
        for advertise in [
            None,
            Some("127.0.0.1:0"),
            Some("127.0.0.1:7946"),
            Some("10.1.2.3:0"),
        ] {
            let mut config = config(1, bind);
            config.advertise = advertise.map(|a| a.parse().unwrap());
            config.join = vec!["127.0.0.1:9".parse().unwrap()];
            let Ok(gossip) = Gossip::start(config).await else {
                assert!(bind.starts_with('['), "{bind}");
                println!("skipped: this machine has no IPv6");
                continue;
            };
            let told = gossip.advertised();
            let given: Option<SocketAddr> = advertise.map(|a| a.parse().unwrap());
            let ip = given.map_or(Ipv4Addr::LOCALHOST.into(), |g| g.ip());
            let port = given.map_or(0, |g| g.port());
            let port = if port == 0 {
                gossip.bound().port()
            } else {
                port
            };
            assert_eq!(
                told.address,
                SocketAddr::new(ip, port),
                "{bind} {advertise:?}"
            );
            assert!(!told.why.is_empty());
        }
    }
}

#[tokio::test]
async fn after_its_end_everything_says_so() {
    let one = start(1, "127.0.0.1:0", &[]).await;
    let keys = one.keyring();
    one.stop().await;
    let why = keys.report(SOON).await.unwrap_err();
    assert!(matches!(why, GossipError::Stopped), "{why}");
}
