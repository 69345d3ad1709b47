//! What comes to a server from other machines: sessions, calls, questions of members, messages of consensus, gossip, certificates.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prism_identity::{ClusterId, JoinToken, Key, Peer, certificates_in, pins_in, requested};
use prism_link::resume::{Difference, Holdings, Told};
use prism_link::{Hello, Holding, NodeService, Readings, Resume, ToControl, ToWorker, pair};
use prism_members::Membership;
use prism_membership::protocol::{Boot, Engine, Sealer, Setup, Timing, open};
use prism_membership::{GossipKey, KeyRing, Tags, Who};
use prism_types::{Id, JobId, NodeId, SandboxId, TimeMs};
use prism_wire::{carry_control, carry_worker};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::{Builder, Runtime};

use super::{Feed, Parser, said};

/// More than any input and all answers to it.
const PIPE: usize = 1 << 20;
/// What a connection of the newest version begins with.
const GREETING: &[u8] = b"PRSM\x01\0\x03\0";
/// The same of version 1.
const FIRST: &[u8] = b"PRSM\x01\0\x01\0";
/// An input that begins with this goes on the stream as it is; another is parts of which frames are made.
const RAW: u8 = 0xff;
/// One that begins with this is parts, in version 1.
const OLD: u8 = 0xfe;

fn runtime() -> Runtime {
    let made = Builder::new_current_thread().enable_time().build();
    made.expect("a runtime without input or output needs nothing")
}

/// A frame.
fn frame(kind: u8, last: bool, number: u64, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut all = length.to_vec();
    all.extend([kind, u8::from(last), 0, 0]);
    all.extend(number.to_le_bytes());
    all.extend(body);
    all
}

/// A part of an input, of which a frame is made: kind, whether it is the last, number, length.
fn part(kind: u8, last: bool, number: u8, body: &[u8]) -> Vec<u8> {
    let [low, high] = u16::try_from(body.len()).unwrap_or(u16::MAX).to_le_bytes();
    [&[kind, u8::from(last), number, low, high][..], body].concat()
}

/// The stream that an input stands for. Heads are right, so that what is behind them is reached.
fn stream(input: &[u8]) -> Vec<u8> {
    if let [RAW, rest @ ..] = input {
        return [GREETING, rest].concat();
    }
    let (mut all, mut rest) = match input {
        [OLD, rest @ ..] => (FIRST.to_vec(), rest),
        all => (GREETING.to_vec(), all),
    };
    while let [kind, last, number, low, high, more @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(more.len());
        let (body, after) = more.split_at(length);
        all.extend(frame(*kind, last & 1 == 1, u64::from(*number), body));
        rest = after;
    }
    all
}

/// Writes all to one end of a pipe, and reads what comes until there is no more.
async fn played(mut there: DuplexStream, bytes: Vec<u8>) {
    // Whoever has heard enough hangs up.
    let _hung_up = there.write_all(&bytes).await;
    let _hung_up = there.shutdown().await;
    let mut answers = Vec::new();
    let _broken = there.read_to_end(&mut answers).await;
}

fn of_worker() -> Vec<Vec<u8>> {
    let beat = ToControl::Heartbeat {
        readings: Readings::default(),
        credits: 4,
    };
    let started = ToControl::Started(vec![(super::records::task(), TimeMs(5))]);
    let told = Told::new([7; 16], Holdings::default());
    let resume = ToControl::Resume(Box::new(Resume {
        hello: Hello {
            node: NodeId::new(1, 2),
            name: "fz".parse().expect("a name"),
            labels: Default::default(),
            capacity: Default::default(),
            facts: Default::default(),
            tasks: Vec::new(),
            sandboxes: Vec::new(),
        },
        summary: told.summary(),
    }));
    let held = ToControl::Held(Box::new(Difference {
        buckets: vec![0, 3],
        holdings: Holdings {
            tasks: vec![(super::records::task(), Holding::Waiting)],
            sandboxes: vec![(SandboxId::new(1, 2), None)],
            jobs: vec![(JobId::new(1, 2), 4)],
        },
    }));
    let messages = [beat, started, resume, held];
    let messages: Vec<Vec<u8>> = messages.iter().flat_map(postcard::to_stdvec).collect();
    let mut all: Vec<Vec<u8>> = messages.iter().map(|m| part(1, true, 0, m)).collect();
    all.push(all.concat());
    all.push([&[OLD][..], &all[0], &all[1]].concat());
    // Cut into two, with a sign between them; an answer that nobody waits for; a call to an end that answers none.
    let (front, back) = messages[0].split_at(messages[0].len() / 2);
    let sign = part(5, true, 9, b"");
    all.push([part(1, false, 0, front), sign, part(1, true, 0, back)].concat());
    all.push(part(3, true, 3, b"\x01"));
    all.push(part(2, true, 3, b"\x01"));
    all.push([&[RAW][..], &frame(1, true, 0, &messages[1])].concat());
    all.push([&[RAW][..], &[0xff; 40]].concat());
    all
}

/// What the control plane reads of a worker: the session's messages arrive, or the connection ends.
fn session() -> Feed {
    let runtime = runtime();
    Box::new(move |input| {
        let bytes = stream(input);
        runtime.block_on(async {
            let (here, there) = duplex(PIPE);
            let (mut control, worker) = pair();
            let played = played(there, bytes);
            let carried = async move {
                let (_link, carried) = match carry_control(here, worker).await {
                    Ok(carried) => carried,
                    Err(why) => return why.to_string(),
                };
                let mut got = 0_usize;
                let mut carried = Box::pin(carried);
                let why = loop {
                    tokio::select! {
                        why = &mut carried => break why,
                        message = control.from_worker.recv() => got += usize::from(message.is_some()),
                    }
                };
                while control.from_worker.try_recv().is_ok() {
                    got += 1;
                }
                format!("{why}, {} messages", got.min(3))
            };
            tokio::join!(carried, played).0
        })
    })
}

fn calls() -> Vec<Vec<u8>> {
    // Calls by their place in the protocol, with a sandbox and a few fields behind.
    let id = postcard::to_stdvec(&SandboxId::new(1, 2)).unwrap_or_default();
    let call = |number: u8, fields: &[u8]| {
        let body = [&[number][..], &id, fields].concat();
        part(2, true, number, &body)
    };
    let path = postcard::to_stdvec(&("a/b", 0_u64, 64_u64)).unwrap_or_default();
    let write = postcard::to_stdvec(&("a", b"text".as_slice(), 0o644_u32)).unwrap_or_default();
    let orders = [
        ToWorker::Compare(vec![[8; 16]; 5]),
        ToWorker::Unwanted {
            tasks: vec![super::records::task()],
            sandboxes: vec![SandboxId::new(1, 2)],
        },
        ToWorker::Recall(JobId::new(1, 2)),
    ];
    let orders = orders.iter().flat_map(postcard::to_stdvec);
    let orders = orders.map(|order| part(1, true, 0, &order));
    let mut all = vec![
        call(2, &[]),
        call(7, &path),
        call(8, &write),
        call(9, b"\x01a"),
        part(2, true, 16, &[16]),
        part(2, true, 15, b"\x0f\x01/\x00"),
    ];
    all.extend(orders);
    all.push(all.concat());
    all.push([all[0].clone(), part(4, true, 2, b"")].concat());
    // The same number twice.
    all.push([all[1].clone(), all[1].clone()].concat());
    all.push([&[RAW][..], &frame(2, true, 1, &[16])].concat());
    all
}

/// A node that refuses every call, for its own connection is over.
async fn nobody() -> Option<Arc<dyn NodeService>> {
    let (here, mut there) = duplex(64);
    let (_control, worker) = pair();
    there.write_all(GREETING).await.ok()?;
    let (link, _never_carried) = carry_control(here, worker).await.ok()?;
    Some(Arc::new(link.node))
}

/// What a worker reads of the control plane: messages, and calls that are answered.
fn called() -> Feed {
    let runtime = runtime();
    let nobody = runtime.block_on(nobody()).expect("a pipe within memory");
    Box::new(move |input| {
        let bytes = stream(input);
        let service = nobody.clone();
        runtime.block_on(async {
            let (here, there) = duplex(PIPE);
            let (control, mut worker) = pair();
            let carried = async move {
                let mut carried = Box::pin(carry_worker(here, control, service));
                loop {
                    tokio::select! {
                        why = &mut carried => return why.to_string(),
                        _ = worker.from_control.recv() => {}
                    }
                }
            };
            tokio::join!(carried, played(there, bytes)).0
        })
    })
}

/// A message with its length before it.
fn long(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&length.to_le_bytes()[..], message].concat()
}

/// Feeds what is asked with a length before each message, unless the input says by its first byte that it has its own.
fn asked<'a, F: Future<Output = String> + 'a>(
    runtime: &Runtime,
    input: &'a [u8],
    read: impl FnOnce(Vec<u8>) -> F,
) -> String {
    let bytes = match input {
        [RAW, rest @ ..] => rest.to_vec(),
        _ => long(input),
    };
    runtime.block_on(read(bytes))
}

fn questions() -> Vec<Vec<u8>> {
    let Ok(key) = Key::generate() else {
        return Vec::new();
    };
    let request = key.request().unwrap_or_default();
    let node = NodeId::new(1, 2);
    // As a node that joins, and as a server that says where it is; see `exchange`.
    let join = (
        prism_types::TokenId::new(1, 1),
        [7_u8; 32],
        node,
        "w1",
        request.clone(),
        None::<(Vec<u8>, String)>,
    );
    let leads = (Some("10.0.0.1:4200"), None::<(u8, u8)>);
    let all = [
        postcard::to_stdvec(&join),
        postcard::to_stdvec(&leads),
        postcard::to_stdvec(&request),
        postcard::to_stdvec(&[9_u8; 32]),
        postcard::to_stdvec(&(0_u8, vec!["10.0.0.1:4200"])),
    ];
    let mut all: Vec<Vec<u8>> = all.into_iter().flatten().collect();
    all.push([&[RAW][..], &long(&all[1])].concat());
    all.push(vec![RAW, 0xff, 0xff, 0xff, 0xff, 1]);
    all
}

fn members() -> Feed {
    let runtime = runtime();
    Box::new(move |input| {
        asked(&runtime, input, |bytes| async move {
            prism_members::check_messages(&bytes).await
        })
    })
}

fn consensus() -> Vec<Vec<u8>> {
    let hello = postcard::to_stdvec(&(1_u32, 2_u64, 1_u64)).unwrap_or_default();
    // A vote is (term, server), committed; an entry's place is (term, server), index.
    let (vote, at) = (((3_u64, 2_u64), true), Some(((3_u64, 2_u64), 40_u64)));
    let next = ((3_u64, 2_u64), 41_u64);
    let questions = [
        // Entries: an empty one; a grant.
        postcard::to_stdvec(&(0_u8, vote, at, vec![(next, 0_u8)], at)),
        postcard::to_stdvec(&(0_u8, vote, at, vec![(next, (1_u8, 1_u8))], at)),
        postcard::to_stdvec(&(1_u8, vote, at, false)),
        postcard::to_stdvec(&(2_u8, vote, None::<u8>, true)),
        postcard::to_stdvec(&(3_u8, vote, 2_u64, at)),
    ];
    let one = |question: &Vec<u8>| [&long(&hello)[..], &long(question)].concat();
    let mut all: Vec<Vec<u8>> = questions.iter().flatten().map(one).collect();
    all.push(all.concat());
    all
}

fn raft() -> Feed {
    let runtime = runtime();
    Box::new(move |input| runtime.block_on(prism_raft::check_messages(input)))
}

const CLUSTER: Id = Id(0x0123_4567_89ab_cdef);

fn ring() -> KeyRing {
    KeyRing::new(GossipKey::from_bytes([1; 32]))
}

fn engine(n: u8) -> Option<(SocketAddr, Engine)> {
    let address = SocketAddr::from(([10, 0, 0, n], 4200));
    let setup = Setup {
        cluster: CLUSTER,
        who: Who {
            id: NodeId::new(1, u128::from(n)),
            name: format!("s{n}").parse().ok()?,
            addresses: Vec::new(),
            raft: u64::from(n),
            roles: Vec::new(),
        },
        incarnation: 1,
        address,
        tags: Tags::default(),
        ring: ring(),
        boot: Boot([n; 16]),
        seed: u64::from(n),
        max_members: 16,
        timing: Timing::default(),
    };
    Some((address, Engine::new(setup, Duration::ZERO).ok()?))
}

/// Bodies of all that two say to each other in their first 20 seconds.
fn said_by_two() -> Vec<Vec<u8>> {
    let mut two: Vec<(SocketAddr, Engine)> = (1..=2).filter_map(engine).collect();
    let mut bodies = Vec::new();
    if let [(first, _), (_, second)] = &mut two[..] {
        second.join(Duration::ZERO, &[*first]);
    }
    for step in 0..200 {
        let now = Duration::from_millis(step * 100);
        let mut under_way = Vec::new();
        for (_, engine) in &mut two {
            engine.tick(now);
            under_way.extend(engine.take_out());
        }
        for (to, datagram) in under_way {
            if let Ok((_, _, body)) = open(CLUSTER, &ring(), &mut datagram.clone()) {
                bodies.push(body.to_vec());
            }
            if let Some((_, engine)) = two.iter_mut().find(|(address, _)| *address == to) {
                // What is refused is refused.
                let _ = engine.receive(now, &mut datagram.clone());
            }
        }
    }
    bodies.sort_by_key(|body| (body.get(..2).map(<[u8]>::to_vec), body.len()));
    bodies.dedup_by_key(|body| (body.len(), body.first().copied()));
    bodies
}

/// A member that reads bodies which whoever has the key may have sealed; an input that begins with [`RAW`] is a datagram as it is.
fn gossip() -> Feed {
    let (_, mut victim) = engine(3).expect("a member as any other");
    let mut sealer = Sealer::new(CLUSTER, Boot([0xee; 16]), &ring());
    let mut now = Duration::ZERO;
    Box::new(move |input| {
        now += Duration::from_millis(1);
        let mut datagram = match input {
            [RAW, rest @ ..] => rest.to_vec(),
            body => sealer.seal(
                &ring(),
                &body[..body.len().min(prism_membership::protocol::MAX_BODY)],
            ),
        };
        let got = victim.receive(now, &mut datagram);
        victim.tick(now);
        assert!(victim.take_out().len() < 64, "one datagram, many answers");
        victim.take_events();
        // What is kept of 16 members and of those who come with another start.
        assert!(victim.kept() < 4_096, "{} kept", victim.kept());
        assert!(!victim.ring().ids().is_empty());
        said(got)
    })
}

fn certificates() -> Vec<Vec<u8>> {
    let cluster = ClusterId(Id::new(1, 9));
    let founded = Membership::found(cluster, NodeId::new(1, 1), 1_700_000_000);
    let Ok(me) = founded else {
        return Vec::new();
    };
    let request = me.key.request().unwrap_or_default();
    let mut all = me.chain.clone();
    all.extend(me.roots.iter().cloned());
    all.push(request);
    all
}

/// Reads a certificate and a request as they come in a handshake and with a question.
fn certificate() -> Feed {
    Box::new(|input| {
        let leaf = input.to_vec().into();
        let peer = Peer::of(&leaf, std::slice::from_ref(&leaf));
        let pins = pins_in(&[input.to_vec()]);
        let (peer, pins, asked) = (said(peer), said(pins), said(requested(input)));
        format!("{peer} {pins} {asked} {}", said(certificates_in(input)))
    })
}

fn join_token() -> Feed {
    Box::new(|input| {
        let text = String::from_utf8_lossy(input);
        match text.parse::<JoinToken>() {
            // What is taken is said the same way.
            Ok(token) => {
                let again = token.expose().parse::<JoinToken>();
                assert!(again.is_ok_and(|again| again.id == token.id));
                "ok".to_owned()
            }
            Err(why) => why,
        }
    })
}

fn tokens() -> Vec<Vec<u8>> {
    let Ok(secret) = prism_identity::JoinSecret::generate() else {
        return Vec::new();
    };
    let token = JoinToken {
        id: prism_types::TokenId::new(1, 1),
        secret,
        pin: prism_identity::Pin([7; 32]),
    };
    vec![token.expose().into_bytes()]
}

const fn parser(
    name: &'static str,
    seeds: fn() -> Vec<Vec<u8>>,
    make: fn() -> Feed,
    quick: u64,
) -> Parser {
    Parser {
        name,
        seeds,
        make,
        quick,
    }
}

pub(super) const SESSION: Parser = parser("worker-session", of_worker, session, 4_000);
pub(super) const CALLS: Parser = parser("node-calls", calls, called, 4_000);
pub(super) const MEMBERS: Parser = parser("member-questions", questions, members, 4_000);
pub(super) const RAFT: Parser = parser("raft-messages", consensus, raft, 10_000);
pub(super) const GOSSIP: Parser = parser("gossip-bodies", said_by_two, gossip, 10_000);
pub(super) const CERTIFICATE: Parser = parser("certificates", certificates, certificate, 3_000);
pub(super) const JOIN_TOKEN: Parser = parser("join-token", tokens, join_token, 20_000);
