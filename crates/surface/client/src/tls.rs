//! Connections: plain ones as on loopback, and TLS to a server whose key is known. Nothing is sent to another.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use prism_identity::{Anchor, Pin as KeyPin, WrongKey, certificates_in, connect_api, key_in};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tower_service::Service;

/// How a server that speaks TLS proves who it is, and what is shown to it.
#[derive(Clone, Default)]
pub struct Security {
    /// SHA-256 of the key of the server or of an authority above it: 64 hexadecimal digits, or base64.
    pub pin: Option<String>,
    /// Authorities (PEM), one of which is to stand behind it.
    pub authorities: Option<Vec<u8>>,
    /// A certificate with those above it, and its key (PEM).
    pub certificate: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Security")
            .field("pin", &self.pin)
            .finish_non_exhaustive()
    }
}

/// Reads a pin.
///
/// # Errors
/// What it should look like.
pub fn pin(text: &str) -> Result<[u8; 32], String> {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    let text = text.trim();
    let text = text.strip_prefix("sha256:").unwrap_or(text);
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    let hex = || -> Option<Vec<u8>> {
        let pairs = digits.as_bytes().chunks(2);
        pairs
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect()
    };
    let bytes = match digits.len() {
        64 if digits.bytes().all(|b| b.is_ascii_hexdigit()) => hex(),
        43 => URL_SAFE_NO_PAD.decode(text).ok(),
        44 => STANDARD.decode(text).ok(),
        _ => None,
    };
    bytes.and_then(|b| b.try_into().ok()).ok_or_else(|| {
        "a pin is the SHA-256 of a key: 64 hexadecimal digits, as `prismctl ca status` shows it"
            .to_owned()
    })
}

impl Security {
    /// What rustls is told.
    pub(crate) fn config(&self) -> Result<ClientConfig, String> {
        let anchor = match (&self.pin, &self.authorities) {
            (Some(text), _) => Anchor::Pin(KeyPin(pin(text)?)),
            (None, Some(pem)) => {
                Anchor::Authorities(certificates_in(pem).map_err(|e| e.to_string())?)
            }
            (None, None) => {
                return Err(
                    "it is not known how a server there proves who it is: give its pin (--pin) or its authority (--ca)"
                        .to_owned(),
                );
            }
        };
        let client = match &self.certificate {
            Some((certificate, key)) => Some((
                certificates_in(certificate).map_err(|e| e.to_string())?,
                key_in(key).map_err(|e| e.to_string())?,
            )),
            None => None,
        };
        connect_api(anchor, client).map_err(|e| e.to_string())
    }
}

/// Makes connections.
#[derive(Clone)]
pub(crate) struct Connector {
    tcp: HttpConnector,
    tls: Option<Arc<ClientConfig>>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    pub(crate) fn new(mut tcp: HttpConnector, tls: Option<Arc<ClientConfig>>) -> Self {
        tcp.enforce_http(false);
        Self { tcp, tls }
    }
}

trait Both: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Both for T {}

/// A connection, encrypted or not.
pub(crate) struct Wire(TokioIo<Box<dyn Both>>);

type Made = Pin<Box<dyn Future<Output = io::Result<Wire>> + Send>>;

impl Service<Uri> for Connector {
    type Response = Wire;
    type Error = io::Error;
    type Future = Made;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_ready(context).map_err(io::Error::other)
    }

    fn call(&mut self, uri: Uri) -> Made {
        let host = uri
            .host()
            .unwrap_or_default()
            .trim_matches(['[', ']'])
            .to_owned();
        let (connecting, tls) = (self.tcp.call(uri), self.tls.clone());
        Box::pin(async move {
            let stream = connecting.await.map_err(io::Error::other)?.into_inner();
            let Some(config) = tls else {
                return Ok(Wire(TokioIo::new(Box::new(stream))));
            };
            let name = ServerName::try_from(host).map_err(io::Error::other)?;
            let shaken = TlsConnector::from(config).connect(name, stream);
            let shaken = tokio::time::timeout(crate::transport::CONNECT_MAX, shaken);
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long");
            let stream = shaken.await.map_err(late)??;
            Ok(Wire(TokioIo::new(Box::new(stream))))
        })
    }
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl Write for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, from)
    }
}

/// What an end of a TLS connection has said against the other.
pub(crate) enum Verdict {
    /// The server is not who is meant: what was found.
    NotTheServer(String),
    /// The server does not take what was shown to it.
    NotTheClient(String),
}

/// The verdict among the causes of an error, if there is one.
pub(crate) fn verdict(error: &(dyn std::error::Error + 'static)) -> Option<Verdict> {
    let mut cause = Some(error);
    while let Some(e) = cause {
        let inner = e.downcast_ref::<io::Error>().and_then(|e| e.get_ref());
        let found = inner.and_then(|e| e.downcast_ref::<rustls::Error>());
        match found.or_else(|| e.downcast_ref()) {
            Some(rustls::Error::InvalidCertificate(why)) => {
                return Some(Verdict::NotTheServer(certificate(why)));
            }
            Some(rustls::Error::AlertReceived(alert)) => {
                return Some(Verdict::NotTheClient(format!("{alert:?}")));
            }
            _ => {}
        }
        cause = e.source();
    }
    None
}

fn certificate(why: &rustls::CertificateError) -> String {
    match why {
        rustls::CertificateError::Other(why) => match why.0.downcast_ref::<WrongKey>() {
            Some(wrong) => {
                let hex = |pin: KeyPin| pin.0.iter().map(|b| format!("{b:02x}")).collect();
                let (got, want): (String, String) = (hex(wrong.got), hex(wrong.want));
                format!("its key does not match the pin (got {got}, want {want})")
            }
            None => why.to_string(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_read_in_each_of_their_forms() {
        let hex = "07".repeat(32);
        let colons = vec!["07"; 32].join(":");
        let url = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc";
        for good in [
            &hex,
            &colons,
            &format!("sha256:{hex}"),
            &format!(" {hex}\n"),
            url,
            &format!("{url}="),
        ] {
            assert_eq!(pin(good), Ok([7; 32]), "{good:?}");
        }
        for bad in [
            "",
            "07",
            &hex[1..],
            &hex.replace("07", "0g"),
            &url[1..],
            &format!("{hex}07"),
        ] {
            assert!(pin(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn without_a_pin_or_an_authority_no_server_is_believed() {
        assert!(Security::default().config().unwrap_err().contains("--pin"));
        let security = Security {
            authorities: Some(b"no certificate".to_vec()),
            ..Security::default()
        };
        assert!(security.config().unwrap_err().contains("no certificate"));
    }
}
