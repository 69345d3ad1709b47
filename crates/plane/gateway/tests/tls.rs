//! The API over TLS: who is let in with a certificate and who is not, and what becomes of those who speak something else.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]
#![allow(clippy::too_many_lines, reason = "tables of cases")]

mod harness;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use harness::{Answer, Request, config, http};
use prism_control::{Control, open};
use prism_gateway::{Face, Gateway, GatewayConfig, Ground, new_token, serve_tls};
use prism_identity::{
    Anchor, ClusterId, Fingerprint, Issuer, Key, Lifetime, NotTrusted, Pin, Role, Root, Trust,
    accept_api, connect_api,
};
use prism_state::{Command, Whom};
use prism_store_kit::FakeStore;
use prism_types::{Id, Millis, NodeId, Scope, TimeMs, TokenId};
use rustls::ServerConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

const SERVER: u128 = 1;

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_secs()).unwrap()
}

fn node(n: u128) -> NodeId {
    NodeId::new(1, n)
}

/// A root and the issuer of its server.
struct Authority {
    root: Root,
    issuer: Issuer,
}

impl Authority {
    fn new(n: u128) -> Self {
        let cluster = ClusterId(Id::new(1, n));
        let root = Root::found(cluster, Lifetime::decade(now())).unwrap();
        let key = Key::generate().unwrap();
        let request = key.request().unwrap();
        let certificate = root.sign_issuer(&request, node(SERVER), Lifetime::year(now()));
        let issuer = Issuer::new(cluster, key, certificate.unwrap()).unwrap();
        Self { root, issuer }
    }

    fn signed(&self, role: Role, id: NodeId, life: Lifetime) -> (Key, Vec<Vec<u8>>) {
        let key = Key::generate().unwrap();
        let issued = self.issuer.sign(&key.request().unwrap(), (role, id), life);
        (key, issued.unwrap().chain)
    }
}

struct Site {
    address: SocketAddr,
    control: Control,
    authority: Authority,
    trust: Arc<Trust>,
    stop: CancellationToken,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn site(config: GatewayConfig) -> Site {
    let stop = CancellationToken::new();
    let (control, leader) = open(Arc::new(FakeStore::default())).await.unwrap();
    tokio::spawn(leader.run(stop.clone()));
    let authority = Authority::new(9);
    let cluster = authority.root.cluster();
    let roots = [authority.root.certificate().to_vec()];
    let trust = Arc::new(Trust::new(cluster, &roots).unwrap());
    let key = Key::generate().unwrap();
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let (request, life) = (key.request().unwrap(), Lifetime::day(now()));
    let issued = authority
        .issuer
        .sign_api(&request, node(SERVER), &names, life);
    let mut chain = issued.unwrap().chain;
    chain.extend(roots);
    let noted = Arc::new(|_: &NotTrusted| {});
    let face: Arc<ServerConfig> =
        Arc::new(accept_api(trust.clone(), (&key, &chain), noted).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ground = Ground::alone(control.clone());
    let config = GatewayConfig {
        tls: true,
        ..config
    };
    let gateway = Gateway::new(address, ground, config, stop.clone());
    let face: Face = Arc::new(move || face.clone());
    tokio::spawn(serve_tls(listener, gateway, face));
    Site {
        address,
        control,
        authority,
        trust,
        stop,
    }
}

type Shown<'a> = Option<(&'a Key, &'a [Vec<u8>])>;

impl Site {
    async fn token(&self, id: TokenId, role: prism_state::Role, hash: [u8; 32]) {
        self.token_until(id, (role, hash), None).await;
    }

    async fn token_until(
        &self,
        id: TokenId,
        (role, hash): (prism_state::Role, [u8; 32]),
        expires: Option<TimeMs>,
    ) {
        let command = Command::CreateToken {
            id,
            name: format!("t{id}"),
            role,
            scope: Box::new(Scope::default()),
            by: None,
            hash,
            expires,
        };
        self.control.propose(command, None).await.unwrap();
    }

    async fn connect(
        &self,
        shown: Shown<'_>,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let client = shown.map(|(key, chain)| (chain.to_vec(), key.for_tls()));
        let config = connect_api(Anchor::Pin(self.authority.root.pin()), client).unwrap();
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("prism.invalid").unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }

    /// The answer to a request, or why there is none.
    async fn ask(&self, shown: Shown<'_>, request: Request) -> std::io::Result<Answer> {
        let mut stream = self.connect(shown).await?;
        let request = request.header("connection", "close");
        stream.write_all(&request.bytes()).await?;
        let mut all = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut all));
        read.await.unwrap()?;
        Ok(http::parse(&all))
    }

    async fn refused(&self, reason: &str) -> u64 {
        let text = self
            .ask(None, Request::get("/metrics"))
            .await
            .unwrap()
            .text();
        let wanted = format!("prism_refused_total{{listener=\"api\",reason=\"{reason}\"}} ");
        let found = text.lines().find_map(|l| l.strip_prefix(&wanted));
        found.map_or(0, |n| n.parse().unwrap())
    }
}

fn list() -> Request {
    Request::get("/api/v1/nodes")
}

#[tokio::test]
async fn certificates_are_judged_by_who_signed_them_and_by_the_token_that_they_stand_for() {
    use prism_state::Role::{Admin, Viewer};
    let s = site(config()).await;
    let id = |n: u128| TokenId::new(1, n);
    let life = Lifetime::day(now());
    let of = |n: u128| s.authority.signed(Role::Client, NodeId(id(n).0), life);
    // The library refuses to make one that is over.
    let (viewer, admin, unbound, other, expired) = (of(10), of(11), of(12), of(13), of(14));
    s.token(id(10), Viewer, viewer.0.pin().0).await;
    s.token(id(11), Admin, admin.0.pin().0).await;
    // A token of that id, and another key.
    s.token(id(13), Admin, [7; 32]).await;
    let soon = s.control.now().after(Millis(1));
    s.token_until(id(14), (Admin, expired.0.pin().0), Some(soon))
        .await;
    let bearer = new_token(id(20), [3; 32]);
    s.token(id(20), Viewer, bearer.hash).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let status = async |shown: Shown<'_>, request: Request| -> Option<u16> {
        s.ask(shown, request).await.ok().map(|answer| answer.status)
    };
    fn with((key, chain): &(Key, Vec<Vec<u8>>)) -> Shown<'_> {
        Some((key, chain))
    }
    let mut cases = 0;
    // Let in: by certificate, by token, by both.
    for (what, shown, request, wanted) in [
        ("a viewer", with(&viewer), list(), 200),
        (
            "an administrator",
            with(&admin),
            Request::get("/api/v1/tokens"),
            200,
        ),
        (
            "a viewer where it may not",
            with(&viewer),
            Request::get("/api/v1/tokens"),
            403,
        ),
        ("a token", None, list().token(&bearer.text), 200),
        (
            "a token above a certificate",
            with(&admin),
            Request::get("/api/v1/tokens").token(&bearer.text),
            403,
        ),
        (
            "a bad token above a good certificate",
            with(&admin),
            list().token("pt_x"),
            401,
        ),
        ("a certificate of no token", with(&unbound), list(), 401),
        ("a certificate of another's id", with(&other), list(), 401),
        (
            "a certificate whose token is over",
            with(&expired),
            list(),
            401,
        ),
        ("nothing", None, list(), 401),
        (
            "nothing, where nothing is needed",
            None,
            Request::get("/health"),
            200,
        ),
        (
            "an open route with a certificate of no token",
            with(&unbound),
            Request::get("/health"),
            200,
        ),
        (
            "a header that only servers may send",
            None,
            list().header("x-prism-client", "x"),
            401,
        ),
    ] {
        assert_eq!(status(shown, request).await, Some(wanted), "{what}");
        cases += 1;
    }
    // Forged: as one server tells another whom it has seen.
    let told = format!(
        "{} {} {} {}",
        id(11),
        hex(admin.0.pin()),
        "00".repeat(32),
        node(1)
    );
    assert_eq!(
        status(None, list().header("x-prism-client", &told)).await,
        Some(401)
    );
    cases += 1;
    // Not let in at all: the handshake fails, and says why in the metrics.
    let far = Authority::new(10);
    let member = |role| s.authority.signed(role, NodeId(id(10).0), life);
    let over = Lifetime {
        from: now() - 900,
        until: now() - 5,
    };
    let later = Lifetime {
        from: now() + 900,
        until: now() + 9_000,
    };
    let shown = [
        ("a worker's", "wrong_role", member(Role::Worker)),
        ("a server's", "wrong_role", member(Role::Server)),
        (
            "another cluster's",
            "stranger",
            far.signed(Role::Client, NodeId(id(10).0), life),
        ),
        (
            "one that is over",
            "expired",
            s.authority.signed(Role::Client, NodeId(id(10).0), over),
        ),
        (
            "one of tomorrow",
            "not_yet",
            s.authority.signed(Role::Client, NodeId(id(10).0), later),
        ),
        ("one without its issuer", "stranger", {
            let (key, chain) = member(Role::Client);
            (key, chain[..1].to_vec())
        }),
        ("an issuer's own", "unfit", {
            let key = Key::from_pem(&s.authority.issuer.key().to_pem()).unwrap();
            (key, vec![s.authority.issuer.certificate().to_vec()])
        }),
    ];
    for (what, reason, shown) in &shown {
        let before = s.refused(reason).await;
        assert_eq!(
            status(with(shown), Request::get("/health")).await,
            None,
            "{what}"
        );
        assert_eq!(s.refused(reason).await, before + 1, "{what}");
        cases += 1;
    }
    // Revoked, denied by its fingerprint, and by its issuer: on the connection that is open already.
    let print = |n: usize| Whom::Certificate(Fingerprint::of(&viewer.1[n]).0);
    for whom in [
        print(0),
        print(1),
        Whom::Node(node(SERVER)),
        Whom::Node(NodeId(id(10).0)),
    ] {
        let why = "stolen".to_owned();
        assert_eq!(status(with(&viewer), list()).await, Some(200), "{whom}");
        s.control
            .propose(Command::Deny { whom, why }, None)
            .await
            .unwrap();
        assert_eq!(status(with(&viewer), list()).await, Some(401), "{whom}");
        s.control
            .propose(Command::Allow { whom }, None)
            .await
            .unwrap();
        cases += 1;
    }
    s.control
        .propose(Command::RevokeToken { id: id(10) }, None)
        .await
        .unwrap();
    assert_eq!(status(with(&viewer), list()).await, Some(401));
    cases += 1;
    // The trust of the listener is that of its cluster now.
    s.trust
        .set_roots(&[far.root.certificate().to_vec()])
        .unwrap();
    assert_eq!(status(with(&admin), list()).await, None);
    cases += 1;
    println!("{cases} certificates at the API");
}

fn hex(pin: Pin) -> String {
    pin.0.iter().map(|b| format!("{b:02x}")).collect()
}

#[tokio::test]
async fn a_stream_ends_when_its_certificate_is_denied() {
    let s = site(GatewayConfig {
        token_check: Duration::from_millis(50),
        ..config()
    })
    .await;
    let id = TokenId::new(1, 10);
    let (key, chain) = s
        .authority
        .signed(Role::Client, NodeId(id.0), Lifetime::day(now()));
    s.token(id, prism_state::Role::Viewer, key.pin().0).await;
    let mut stream = s.connect(Some((&key, &chain))).await.unwrap();
    let request = Request::get("/api/v1/events?follow=true").header("accept", "text/event-stream");
    stream.write_all(&request.bytes()).await.unwrap();
    let mut some = [0; 12];
    stream.read_exact(&mut some).await.unwrap();
    assert_eq!(&some, b"HTTP/1.1 200");
    let whom = Whom::Certificate(Fingerprint::of(&chain[0]).0);
    let why = "stolen".to_owned();
    s.control
        .propose(Command::Deny { whom, why }, None)
        .await
        .unwrap();
    let end = async {
        let mut rest = Vec::new();
        let _cut_off = stream.read_to_end(&mut rest).await;
    };
    tokio::time::timeout(Duration::from_secs(5), end)
        .await
        .expect("it ends");
}

#[tokio::test]
async fn whoever_pins_another_key_sends_nothing() {
    let s = site(config()).await;
    let far = Authority::new(10);
    let leafless = Anchor::Authorities(vec![far.root.certificate().to_vec()]);
    let mut cases = 0;
    for anchor in [
        Anchor::Pin(Pin([0; 32])),
        Anchor::Pin(far.root.pin()),
        Anchor::Pin(far.issuer.key().pin()),
        leafless,
        Anchor::Authorities(Vec::new()),
    ] {
        let config = connect_api(anchor.clone(), None).unwrap();
        let stream = TcpStream::connect(s.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let shaken = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await;
        let why = shaken.expect_err("it is not the one").to_string();
        assert!(
            why.contains("invalid peer certificate"),
            "{anchor:?}: {why}"
        );
        cases += 1;
    }
    for anchor in [
        Anchor::Pin(s.authority.root.pin()),
        Anchor::Pin(s.authority.issuer.key().pin()),
        Anchor::Authorities(vec![s.authority.root.certificate().to_vec()]),
        Anchor::Authorities(vec![
            far.root.certificate().to_vec(),
            s.authority.root.certificate().to_vec(),
        ]),
    ] {
        let config = connect_api(anchor.clone(), None).unwrap();
        let stream = TcpStream::connect(s.address).await.unwrap();
        // An intermediate authority is known by its names as any other: by the address.
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let shaken = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await;
        assert!(shaken.is_ok(), "{anchor:?}: {:?}", shaken.err());
        cases += 1;
    }
    println!("{cases} anchors");
}

/// What a hello of TLS 1.2 looks like: one without the extension that names versions.
fn old_hello() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    // No session id; two suites; no compression; no extensions.
    body.extend([0, 0, 4, 0xc0, 0x2f, 0xc0, 0x30, 1, 0, 0, 0]);
    let mut hello = vec![1, 0, 0, u8::try_from(body.len()).unwrap()];
    hello.extend(body);
    let mut record = vec![22, 3, 1, 0, u8::try_from(hello.len()).unwrap()];
    record.extend(hello);
    record
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn whatever_else_is_sent_first_gets_nothing_and_is_counted() {
    let s = site(config()).await;
    let huge = |length: u32, body: usize| {
        let [_, a, b, c] = length.to_be_bytes();
        let mut bytes = vec![22, 3, 1, 0x3f, 0xff, 1, a, b, c];
        bytes.resize(body, 0x41);
        bytes
    };
    let mut noise: Vec<(Vec<u8>, &str)> = vec![
        (
            b"GET /api/v1/nodes HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
            "plaintext",
        ),
        (b"GET /metrics HTTP/1.0\r\n\r\n".to_vec(), "plaintext"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), "plaintext"),
        (
            b"POST / HTTP/1.1\r\ncontent-length: 9999999\r\n\r\n".to_vec(),
            "plaintext",
        ),
        (
            [b"GET /".to_vec(), vec![b'x'; 100_000]].concat(),
            "plaintext",
        ),
        (b"SSH-2.0-x\r\n".to_vec(), "plaintext"),
        (b"get / http/1.1\r\n\r\n".to_vec(), "malformed"),
        (vec![0; 5], "malformed"),
        (vec![0x80, 0x2e, 1, 0, 2], "malformed"),
        (vec![0xff; 70_000], "malformed"),
        (old_hello(), "incompatible"),
        (
            b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03".to_vec(),
            "malformed",
        ),
        (huge(0xff_ffff, 16_000), "broken_off"),
        (huge(0x00_ffff, 3_000_000), "malformed"),
        (old_hello()[..20].to_vec(), "broken_off"),
        (vec![22], "broken_off"),
        (vec![22, 3, 1], "broken_off"),
    ];
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for length in 1..150 {
        let bytes = (0..length * 5).map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 56) as u8
        });
        let mut bytes: Vec<u8> = bytes.collect();
        if length % 2 == 0 {
            // As a handshake begins.
            bytes.splice(0..0, *b"\x16\x03\x01\x00\x80\x01");
        }
        noise.push((bytes, ""));
    }
    let cases = noise.len();
    let before = resident();
    for (bytes, reason) in noise {
        let counted = s.refused(reason).await;
        let mut stream = TcpStream::connect(s.address).await.unwrap();
        let _cut_off = stream.write_all(&bytes).await;
        let _cut_off = stream.shutdown().await;
        let mut rest = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest));
        let _closed_or_reset = read.await.unwrap();
        let text = String::from_utf8_lossy(&rest);
        let hint = text.starts_with("HTTP/1.1 400 ") && text.contains("TLS only");
        assert!(
            hint || rest.len() < 100,
            "{:?}: {text:?}",
            &bytes[..bytes.len().min(20)]
        );
        assert!(!text.contains(" 200 "), "{text}");
        if !reason.is_empty() {
            let all = async || s.refused(reason).await;
            let mut known = all().await;
            for _ in 0..100 {
                if known > counted {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
                known = all().await;
            }
            assert_eq!(
                known,
                counted + 1,
                "{:?}: {reason}",
                &bytes[..bytes.len().min(20)]
            );
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB");
    println!("{cases} kinds of noise");
}

#[tokio::test]
async fn those_who_shake_no_hands_have_no_place_for_long_and_keep_nobody_out() {
    let s = site(GatewayConfig {
        connections_max: 8,
        ..config()
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(s.address).await.unwrap());
    }
    // Half a hello, and then nothing.
    for stream in &mut silent {
        stream
            .write_all(&old_hello()[..9])
            .await
            .unwrap_or_default();
    }
    let answer = s.ask(None, Request::get("/health")).await.unwrap();
    assert!(matches!(answer.status, 200 | 503), "{}", answer.status);
    // The first of them had to go.
    let mut byte = [0];
    let end = tokio::time::timeout(Duration::from_secs(5), silent[0].read(&mut byte)).await;
    assert!(matches!(end, Ok(Ok(0) | Err(_))));
    assert!(s.refused("too_many").await >= 30);
}

#[tokio::test]
async fn a_reader_that_stops_reading_is_cut_off_over_tls_too() {
    let s = site(GatewayConfig {
        write_timeout: Duration::from_millis(300),
        ..config()
    })
    .await;
    let mut stream = s.connect(None).await.unwrap();
    // Many answers that are not taken.
    let request = Request::get("/openapi.json").bytes();
    let flood = async {
        loop {
            stream.write_all(&request).await?;
            stream.flush().await?;
        }
    };
    let flood: Result<std::io::Result<()>, _> =
        tokio::time::timeout(Duration::from_secs(20), flood).await;
    assert!(matches!(flood, Ok(Err(_))), "it is never cut off");
}
