//! TLS before HTTP: within a bound of time, whoever speaks something else is told so in a line, and every refusal is counted.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prism_identity::{Shown, handshake_kind};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::metrics::Metrics;
use crate::patient::Patient;

/// How the API shows itself; asked for each connection, for certificates are renewed.
pub type Face = Arc<dyn Fn() -> Arc<ServerConfig> + Send + Sync>;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The type of a record that begins a handshake.
const RECORD: u8 = 22;
/// What is sent to whoever speaks HTTP without TLS.
const HINT: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: 71\r\n\r\nthis port speaks TLS only; nothing was read: use https:// and its pin.\n";

/// A connection whose other end is known as far as it has shown itself.
pub(crate) struct Shaken {
    pub(crate) stream: TlsStream<Patient>,
    /// The certificate of the client, if it has shown one.
    pub(crate) client: Option<Arc<Shown>>,
}

/// Shakes hands. Whoever is refused is counted and told of in the log; nothing is left to do then.
pub(crate) async fn shake(
    stream: TcpStream,
    from: SocketAddr,
    face: &Face,
    (metrics, patience): (&Metrics, Duration),
) -> Option<Shaken> {
    let shaken = tokio::time::timeout(HANDSHAKE, shaken(stream, face, patience));
    let why = match shaken.await {
        Ok(Ok(shaken)) => return Some(shaken),
        Ok(Err(why)) => why,
        Err(_) => Turned::Tls(io::Error::new(
            io::ErrorKind::TimedOut,
            "the handshake did not come in time",
        )),
    };
    let (kind, why) = match why {
        Turned::Plain => (
            "plaintext",
            "it speaks HTTP without TLS, which is spoken on loopback only".to_owned(),
        ),
        Turned::Strange => ("malformed", "it begins no TLS handshake".to_owned()),
        Turned::Tls(why) => (handshake_kind(&why), why.to_string()),
    };
    metrics.refused(kind);
    tracing::info!(%from, reason = kind, %why, "a connection to the API is refused");
    None
}

/// Why somebody is turned away.
enum Turned {
    /// It speaks HTTP as it is.
    Plain,
    /// It speaks something else.
    Strange,
    /// The handshake failed.
    Tls(io::Error),
}

impl From<io::Error> for Turned {
    fn from(why: io::Error) -> Self {
        Self::Tls(why)
    }
}

async fn shaken(mut stream: TcpStream, face: &Face, patience: Duration) -> Result<Shaken, Turned> {
    let mut first = [0];
    match stream.peek(&mut first).await? {
        0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        _ if first[0] == RECORD => {}
        _ if first[0].is_ascii_uppercase() => {
            hint(&mut stream).await?;
            return Err(Turned::Plain);
        }
        _ => return Err(Turned::Strange),
    }
    let stream = Patient::new(stream, patience);
    let stream = TlsAcceptor::from(face()).accept(stream).await?;
    let shown = stream.get_ref().1.peer_certificates();
    let client = shown.map(Shown::of).transpose().map_err(io::Error::other)?;
    Ok(Shaken {
        stream,
        client: client.map(Arc::new),
    })
}

/// Tells whoever speaks plain HTTP what to do. What it has sent is taken from the socket, or it would hear of a broken connection only.
async fn hint(stream: &mut TcpStream) -> io::Result<()> {
    let mut sent = [0; 4096];
    let _bytes = stream.read(&mut sent).await?;
    stream.write_all(HINT).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_is_as_long_as_it_says() {
        let text = String::from_utf8(HINT.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("content-length: {}", body.len())),
            "{}",
            body.len()
        );
    }
}
