//! One connection to one member: TCP, TLS when asked for, HTTP/1.1. Opened by `client`, which keeps it for more calls.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::Tls;
use crate::error::OpenError;

pub(crate) type Connection = SendRequest<Full<Bytes>>;

/// A member's client URL, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    /// As it was given.
    pub(crate) url: String,
    secure: bool,
    host: String,
    port: u16,
}

impl Address {
    pub(crate) fn parse(url: &str) -> Result<Self, OpenError> {
        let wrong = |why: &str| OpenError::Config {
            what: "an etcd endpoint",
            why: format!("{url:?} {why}"),
        };
        let parsed: hyper::Uri = url.parse().map_err(|_| wrong("is not a URL"))?;
        let secure = match parsed.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong("begins with neither http:// nor https://")),
        };
        if !matches!(parsed.path(), "" | "/") {
            return Err(wrong("has a path, which etcd's interface has not"));
        }
        let host = parsed.host().ok_or_else(|| wrong("names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            secure,
            host: host.to_owned(),
            port: parsed.port_u16().unwrap_or(2379),
        })
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.secure
    }

    /// As the `Host` of requests.
    pub(crate) fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    }
}

/// What TLS needs, from its files.
pub(crate) fn tls(tls: &Tls) -> Result<Arc<ClientConfig>, OpenError> {
    let failed = |path: &std::path::Path, why: String| OpenError::Tls {
        path: path.to_owned(),
        why,
    };
    let certificates = |path: &std::path::Path| {
        let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
        let found: Vec<CertificateDer<'static>> = read.map_err(|e| failed(path, e.to_string()))?;
        if found.is_empty() {
            return Err(failed(path, "it holds no certificate".to_owned()));
        }
        Ok(found)
    };
    let mut roots = RootCertStore::empty();
    for root in certificates(&tls.ca)? {
        roots
            .add(root)
            .map_err(|e| failed(&tls.ca, e.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(&tls.ca, e.to_string()))?
        .with_root_certificates(roots);
    let config = match &tls.client {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let secret =
                PrivateKeyDer::from_pem_file(key).map_err(|e| failed(key, e.to_string()))?;
            config
                .with_client_auth_cert(chain, secret)
                .map_err(|e| failed(certificate, e.to_string()))?
        }
    };
    Ok(Arc::new(config))
}

/// Opens a connection. An error means that no request was sent.
pub(crate) async fn connect(
    to: &Address,
    tls: Option<&Arc<ClientConfig>>,
    limit: Duration,
) -> Result<Connection, String> {
    let opening = async {
        let stream = TcpStream::connect((to.host.as_str(), to.port)).await;
        let stream = stream.map_err(|e| e.to_string())?;
        // Requests are whole: to hold them back saves nothing.
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let Some(tls) = tls.filter(|_| to.secure) else {
            return over(TokioIo::new(stream)).await;
        };
        let name = ServerName::try_from(to.host.clone()).map_err(|e| e.to_string())?;
        let connector = TlsConnector::from(Arc::clone(tls));
        let stream = connector.connect(name, stream).await;
        over(TokioIo::new(stream.map_err(|e| e.to_string())?)).await
    };
    match tokio::time::timeout(limit, opening).await {
        Ok(opened) => opened,
        Err(_) => Err(format!("no connection within {} ms", limit.as_millis())),
    }
}

async fn over<I>(io: I) -> Result<Connection, String>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(io).await.map_err(|e| e.to_string())?;
    tokio::spawn(async move {
        // It ends with its sender; how it fails, the request that it carries says.
        let _ended = connection.await;
    });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_urls() {
        let authority = |url: &str| Address::parse(url).map(|a| a.authority()).ok();
        assert_eq!(authority("http://a:1").as_deref(), Some("a:1"));
        assert_eq!(authority("https://[::1]/").as_deref(), Some("[::1]:2379"));
        assert_eq!(authority("a:1"), None);
        assert_eq!(authority("ftp://a:1"), None);
        assert_eq!(authority("http://a:1/v3"), None);
    }
}
