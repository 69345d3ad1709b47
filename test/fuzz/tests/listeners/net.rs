//! Streams to listeners: what is sent, and what comes back within bounds.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Longest wait for an answer or an end: longer than any patience of the server but that for who says nothing.
const PATIENCE: Duration = Duration::from_secs(20);
/// Most bytes of an answer that are looked at.
const ANSWER_MAX: u64 = 1 << 20;
/// Streams at once.
const AT_ONCE: usize = 24;
/// Silent ones at each listener.
const SILENT: usize = 20;

/// How many cases there were, and what was not as it should be.
#[derive(Debug, Default)]
pub struct Tally {
    pub cases: usize,
    pub wrong: Vec<String>,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.cases += other.cases;
        self.wrong.extend(other.wrong);
    }
}

pub fn runtime() -> Runtime {
    let made = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    made.expect("threads can be had")
}

/// Some that connect and say nothing.
pub async fn silent(to: &[SocketAddr]) -> Vec<TcpStream> {
    let mut all = Vec::new();
    for address in to {
        for _ in 0..SILENT {
            all.push(TcpStream::connect(address).await.expect("it listens"));
        }
    }
    all
}

/// Plays cases, some at a time: each says what was wrong, if anything was.
pub async fn play<C, F>(cases: Vec<C>, one: impl Fn(C) -> F) -> Tally
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let mut tally = Tally::default();
    let mut under_way = JoinSet::new();
    for case in cases {
        if under_way.len() >= AT_ONCE {
            note(&mut tally, under_way.join_next().await);
        }
        under_way.spawn(one(case));
    }
    while let Some(done) = under_way.join_next().await {
        note(&mut tally, Some(done));
    }
    tally
}

fn note(tally: &mut Tally, done: Option<Result<Result<(), String>, tokio::task::JoinError>>) {
    tally.cases += 1;
    match done {
        Some(Ok(Ok(()))) | None => {}
        Some(Ok(Err(why))) => tally.wrong.push(why),
        Some(Err(why)) => tally.wrong.push(format!("a case panicked: {why}")),
    }
}

/// Sends all, says that there is no more, and reads until the end. A broken connection is an end too; silence is not.
pub async fn exchange<S>(mut stream: S, bytes: &[u8]) -> Result<Vec<u8>, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut answer = Vec::new();
    let played = async {
        // Whoever has heard enough hangs up.
        let sent = stream.write_all(bytes).await;
        if sent.is_ok() {
            let _hung_up = stream.flush().await;
            let _hung_up = stream.shutdown().await;
        }
        let _broken = (&mut stream)
            .take(ANSWER_MAX)
            .read_to_end(&mut answer)
            .await;
    };
    match timeout(PATIENCE, played).await {
        Ok(()) => Ok(answer),
        Err(_) => Err(format!(
            "no end within {PATIENCE:?}, {} bytes sent",
            bytes.len()
        )),
    }
}

/// The same over a connection of its own.
pub async fn sent(to: SocketAddr, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    let stream = TcpStream::connect(to).await;
    let stream = stream.map_err(|why| format!("it does not listen any more: {why}"))?;
    exchange(stream, &bytes).await
}

/// A connection with TLS for one protocol.
pub async fn shaken(
    to: SocketAddr,
    config: &ClientConfig,
    protocol: &[u8],
) -> io::Result<TlsStream<TcpStream>> {
    let mut config = config.clone();
    config.alpn_protocols = match protocol {
        b"" => Vec::new(),
        protocol => vec![protocol.to_vec()],
    };
    let stream = TcpStream::connect(to).await?;
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(ServerName::from(to.ip()), stream).await
}

/// The first bytes of a client that shakes hands.
pub fn client_hello(config: &ClientConfig, protocol: &[u8]) -> Vec<u8> {
    let mut config = config.clone();
    config.alpn_protocols = vec![protocol.to_vec()];
    let name = ServerName::from(std::net::IpAddr::from([127, 0, 0, 1]));
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("memory takes it");
    bytes
}

/// A message with its length before it.
pub fn long(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("it is short");
    [&length.to_le_bytes()[..], message].concat()
}
