//! The members' port: strangers, members of another cluster, workers of this one, and a server of it that talks nonsense.

use std::net::SocketAddr;
use std::sync::Arc;

use prism_fuzz::{Dice, mutated};
use prism_identity::{ClusterId, JoinSecret, Key, Role, connect, connect_pinned, connect_unjudged};
use prism_link::ToControl;
use prism_link::resume::{Difference, Holdings, Told};
use prism_members::Membership;
use prism_types::{Id, NodeId, TokenId};
use rustls::ClientConfig;

use crate::net::{Tally, client_hello, exchange, long, play, sent, shaken};
use crate::site::Site;

/// Streams of each kind and round.
const STREAMS: usize = 120;
/// All that is spoken there.
const PROTOCOLS: [&[u8]; 9] = [
    b"prism/join/1",
    b"prism/join-etcd/1",
    b"prism/renew/1",
    b"prism/session/1",
    b"prism/where/1",
    b"prism/raft/1",
    b"prism/api/1",
    b"prism/root/1",
    b"prism/cohort/1",
];

fn now() -> i64 {
    prism_members::unix_now()
}

/// How a member shows itself.
fn shows(me: &Membership) -> ClientConfig {
    let trust = me.trust().expect("its own roots");
    let told = Arc::new(|_: &prism_identity::NotTrusted| {});
    let config = connect(trust, &[Role::Server], (&me.key, &me.chain), told);
    config.expect("its own certificate")
}

/// One that believes whoever answers, and shows what another cluster gave it.
fn foreign_member() -> Membership {
    let cluster = ClusterId(Id::new(9, 9));
    let founded = Membership::found(cluster, NodeId::new(9, 9), now());
    founded.expect("random numbers")
}

/// What a new node asks, with a token that nobody made.
fn asks(server: bool) -> Vec<u8> {
    let key = Key::generate().expect("random numbers");
    let request = key.request().expect("its own key");
    let secret = JoinSecret::generate().expect("random numbers").expose();
    let server = server.then(|| (request.clone(), "127.0.0.1:1".to_owned()));
    let ask = (
        TokenId::new(1, 1),
        secret,
        NodeId::new(5, 5),
        "x1",
        request,
        server,
    );
    postcard::to_stdvec(&ask).expect("plain data")
}

/// Streams with changed messages, some with a true length before them and some as they are.
fn changed(dice: &mut Dice, seeds: &[Vec<u8>], count: usize) -> Vec<Vec<u8>> {
    let one = |_| {
        let bytes = mutated(dice, seeds);
        match dice.roll(4) {
            0 => bytes,
            1 => [&0xffff_ffff_u32.to_le_bytes()[..], &bytes].concat(),
            _ => long(&bytes),
        }
    };
    (0..count).map(one).collect()
}

/// Nobody is given anything: an answer is a no, or the way to another.
fn no_gift(answer: &[u8]) -> Result<(), String> {
    match answer.get(4) {
        Some(0) => Err(format!("something was given: {} bytes", answer.len())),
        _ => Ok(()),
    }
}

/// Those who have shown nothing.
pub async fn strangers(site: &Site, round: u64) -> Tally {
    let mut dice = Dice::new(400 + round);
    let to = site.members;
    let anyone = connect_unjudged().expect("it knows TLS 1.3");
    let hellos: Vec<Vec<u8>> = PROTOCOLS.iter().map(|p| client_hello(&anyone, p)).collect();
    let mut raw: Vec<Vec<u8>> = (0..STREAMS * 2)
        .map(|_| mutated(&mut dice, &hellos))
        .collect();
    raw.extend(
        (0..hellos[0].len())
            .step_by(16)
            .map(|at| hellos[0][..at].to_vec()),
    );
    raw.push(b"GET / HTTP/1.1\r\n\r\n".to_vec());
    raw.push(client_hello(&anyone, b"h2"));
    raw.push(client_hello(&anyone, b"prism/session/7"));
    let mut all = play(
        raw,
        move |bytes| async move { sent(to, bytes).await.map(drop) },
    )
    .await;
    // Without a certificate only joining is talked about, and without a token nothing comes of it.
    let pinned = connect_pinned(site.join_token("worker").pin).expect("it knows TLS 1.3");
    let seeds = [asks(false), asks(true)];
    let questions = changed(&mut dice, &seeds, STREAMS);
    all += play(questions, |bytes| {
        told(to, pinned.clone(), PROTOCOLS[0], bytes)
    })
    .await;
    let whole = vec![long(&seeds[0]), long(&seeds[1])];
    all += play(whole, |bytes| told(to, pinned.clone(), PROTOCOLS[0], bytes)).await;
    let closed: Vec<&'static [u8]> = PROTOCOLS[2..].to_vec();
    all += play(closed, |protocol| kept_out(to, anyone.clone(), protocol)).await;
    all
}

/// What is answered to whoever may come for this.
async fn answer(
    to: SocketAddr,
    config: ClientConfig,
    protocol: &'static [u8],
    bytes: Vec<u8>,
) -> Result<Vec<u8>, String> {
    let stream = shaken(to, &config, protocol).await;
    let stream = stream.map_err(|why| format!("no hands are shaken: {why}"))?;
    exchange(stream, &bytes).await
}

/// Nobody is given anything for what it asks.
async fn told(
    to: SocketAddr,
    config: ClientConfig,
    protocol: &'static [u8],
    bytes: Vec<u8>,
) -> Result<(), String> {
    no_gift(&answer(to, config, protocol, bytes).await?)
}

/// Nothing is said to whoever may not speak this protocol, by its certificate or for want of one.
async fn kept_out(
    to: SocketAddr,
    config: ClientConfig,
    protocol: &'static [u8],
) -> Result<(), String> {
    // With TLS 1.3 who dials may take its hands for shaken before it is judged.
    let Ok(stream) = shaken(to, &config, protocol).await else {
        return Ok(());
    };
    let answer = exchange(stream, &long(&[0; 64])).await?;
    match answer.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "{} has answered with {} bytes",
            String::from_utf8_lossy(protocol),
            answer.len()
        )),
    }
}

/// Those of another cluster, who believe anybody and show a server's certificate of theirs.
pub async fn foreign(site: &Site) -> Tally {
    let other = foreign_member();
    // Their own trust would end it before they are judged.
    let mut config = connect_unjudged().expect("it knows TLS 1.3");
    config.client_auth_cert_resolver = shows(&other).client_auth_cert_resolver;
    let protocols: Vec<&'static [u8]> = PROTOCOLS[2..8].to_vec();
    let to = site.members;
    play(protocols, |protocol| kept_out(to, config.clone(), protocol)).await
}

/// A frame of a session.
fn frame(kind: u8, number: u64, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len())
        .expect("it is short")
        .to_le_bytes();
    [&length[..], &[kind, 1, 0, 0], &number.to_le_bytes(), body].concat()
}

/// What a worker may say in a session, with its greeting.
fn sessions(me: &Membership) -> Vec<Vec<u8>> {
    let greeting = b"PRSM\x01\0\x03\0";
    let hello = prism_link::Hello {
        node: me.node,
        name: "fz1".parse().expect("a name"),
        labels: Default::default(),
        capacity: Default::default(),
        facts: Default::default(),
        tasks: Vec::new(),
        sandboxes: Vec::new(),
    };
    // It holds something that no leader knows of, and is asked what.
    let tasks = (0..40_u32).map(|index| {
        let job = prism_types::JobId::new(1, 2);
        let task = prism_types::TaskRef {
            job,
            index,
            attempt: 1,
        };
        (task, prism_link::Holding::Waiting)
    });
    let holdings = Holdings {
        tasks: tasks.collect(),
        ..Holdings::default()
    };
    let summary = Told::new([7; 16], holdings.clone()).summary();
    let said = [
        ToControl::Hello(Box::new(hello.clone())),
        ToControl::Resume(Box::new(prism_link::Resume { hello, summary })),
        ToControl::Held(Box::new(Difference {
            buckets: vec![0],
            holdings,
        })),
    ];
    let [hello, resume, held] =
        said.map(|said| frame(1, 0, &postcard::to_stdvec(&said).expect("plain data")));
    let bodies = [
        hello,
        [resume, held].concat(),
        frame(5, 3, b""),
        frame(3, 1, b"\x01\x00"),
        frame(2, 1, b"\x10"),
    ];
    let mut all: Vec<Vec<u8>> = bodies.iter().map(|b| [&greeting[..], b].concat()).collect();
    all.push([&greeting[..], &bodies.concat()].concat());
    all
}

/// A worker of this cluster.
pub async fn of_the_cluster(site: &Site, round: u64) -> Tally {
    let mut dice = Dice::new(500 + round);
    let me = site.member(u128::from(round) + 1, "worker").await;
    let (to, config) = (site.members, shows(&me));
    // What is for servers is not for it.
    let servers: Vec<&'static [u8]> = PROTOCOLS[5..8].to_vec();
    let mut all = play(servers, |protocol| kept_out(to, config.clone(), protocol)).await;
    // Its own request is a good one; every change of it is refused.
    let request = me.key.request().expect("its own key");
    let request = postcard::to_stdvec(&request).expect("plain data");
    let questions = changed(&mut dice, std::slice::from_ref(&request), STREAMS);
    let bad: Vec<Vec<u8>> = questions
        .into_iter()
        .filter(|q| *q != long(&request))
        .collect();
    all += play(bad, |bytes| told(to, config.clone(), PROTOCOLS[2], bytes)).await;
    let mine = prism_members::renew(to, &mut copy(&me), me.trust().expect("roots")).await;
    if let Err(why) = mine {
        all.wrong.push(format!("its own request is refused: {why}"));
    }
    let leads = postcard::to_stdvec(&(None::<String>, None::<u8>)).expect("plain data");
    let questions = changed(&mut dice, &[leads], STREAMS);
    all += play(questions, |bytes| {
        heard(to, config.clone(), PROTOCOLS[4], bytes)
    })
    .await;
    let seeds = sessions(&me);
    let mut streams: Vec<Vec<u8>> = (0..STREAMS).map(|_| mutated(&mut dice, &seeds)).collect();
    streams.push(b"PRSM\x07\0\x09\0".to_vec());
    // As it would be said in truth: it is taken.
    streams.push(seeds[1].clone());
    streams.push(b"PRSM\x01\0\x01\0\xff\xff\xff\x7f\x01\x01\0\0\0\0\0\0\0\0\0\0".to_vec());
    streams.push(seeds[0][..12].to_vec());
    all += play(streams, |bytes| {
        heard(to, config.clone(), PROTOCOLS[3], bytes)
    })
    .await;
    all
}

/// The same member once more; its key is not cloned by any other way.
fn copy(me: &Membership) -> Membership {
    let key = Key::from_pem(&me.key.to_pem()).expect("its own key");
    Membership {
        cluster: me.cluster,
        node: me.node,
        role: me.role,
        key,
        chain: me.chain.clone(),
        life: me.life,
        roots: me.roots.clone(),
        authority: None,
        vault: None,
    }
}

/// Whatever is answered to a member, the connection ends.
async fn heard(
    to: SocketAddr,
    config: ClientConfig,
    protocol: &'static [u8],
    bytes: Vec<u8>,
) -> Result<(), String> {
    answer(to, config, protocol, bytes).await.map(drop)
}

/// A server of this cluster whose messages of consensus are none. Such as can be read are believed, for servers are.
pub async fn servers(site: &Site) -> Tally {
    let me = site.member(77, "server").await;
    let (to, config) = (site.members, shows(&me));
    let hello = |version: u32, to: u64| {
        let hello = postcard::to_stdvec(&(version, 2_u64, to)).expect("plain data");
        long(&hello)
    };
    let mut streams = vec![
        Vec::new(),
        hello(1, 9),
        [hello(1, 9), long(b"\x00")].concat(),
        [hello(7, 1), long(b"\x00")].concat(),
        hello(1, 1)[..3].to_vec(),
        vec![0xff; 64],
        [hello(1, 1), 0xffff_ffff_u32.to_le_bytes().to_vec()].concat(),
        // More than a gigabyte is announced, and none comes.
        [hello(1, 1), vec![0, 0, 0, 4], vec![0; 1 << 16]].concat(),
    ];
    let mut dice = Dice::new(600);
    for _ in 0..60 {
        // No question has such a number.
        let body: Vec<u8> = std::iter::once(200)
            .chain((0..dice.roll(400)).map(|_| dice.draw().to_le_bytes()[0]))
            .collect();
        streams.push([hello(1, 1), long(&body)].concat());
    }
    play(streams, |bytes| {
        heard(to, config.clone(), PROTOCOLS[5], bytes)
    })
    .await
}
