//! One request over one connection: TCP, TLS unless it stays on this machine, HTTP/1.1.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::answer;
use crate::config::{Config, Token};
use crate::error::{Failed, VaultError, tame};

/// Most bytes of an answer's body, and of its head.
const BODY_MAX: usize = 128 << 10;
const HEAD_MAX: usize = 32 << 10;

/// How Vault is reached.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    config: Config,
    secure: bool,
    host: String,
    port: u16,
}

fn wrong(what: &'static str, why: impl Into<String>) -> VaultError {
    VaultError::Config {
        what,
        why: why.into(),
    }
}

impl Wire {
    pub(crate) fn new(config: &Config) -> Result<Self, VaultError> {
        let what = "the address of Vault";
        let given = &config.address;
        let form = || wrong(what, format!("{given:?} is not https://HOST[:PORT]"));
        let uri: Uri = given.parse().map_err(|_| form())?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(form()),
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || given.contains(['@', '#']) {
            return Err(form());
        }
        let host = uri
            .host()
            .filter(|host| !host.is_empty())
            .ok_or_else(form)?;
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        if secure != config.ca.is_some() {
            let why = match secure {
                true => "https needs the certificates of the authorities behind Vault's own",
                false => "without https there are no authorities",
            };
            return Err(wrong("the authorities of Vault", why));
        }
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        if uri.authority().is_some_and(|a| a.as_str().ends_with(':')) || port == 0 {
            return Err(form());
        }
        let wire = Self {
            config: config.clone(),
            secure,
            host,
            port,
        };
        if !secure && !wire.is_here() {
            let why = format!("{given:?} is not on this machine, and elsewhere it is https only");
            return Err(wrong(what, why));
        }
        wire.tls()?;
        Ok(wire)
    }

    /// Whether the host is named as this machine.
    fn is_here(&self) -> bool {
        let address: Option<std::net::IpAddr> = self.host.parse().ok();
        self.host == "localhost" || address.is_some_and(|a| a.is_loopback())
    }

    fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        }
    }

    /// Read again for each connection: authorities are replaced too.
    fn tls(&self) -> Result<Option<Arc<ClientConfig>>, VaultError> {
        let Some(pem) = self.config.authorities()? else {
            return Ok(None);
        };
        let failed = |why: String| VaultError::File {
            path: self.config.ca.clone().unwrap_or_default(),
            why,
        };
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(&pem) {
            let root = root.map_err(|e| failed(format!("it is not PEM: {e}")))?;
            roots.add(root).map_err(|e| failed(e.to_string()))?;
        }
        if roots.is_empty() {
            return Err(failed("it holds no certificate".to_owned()));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| failed(e.to_string()))?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        Ok(Some(Arc::new(config)))
    }

    async fn connected(&self) -> io::Result<TcpStream> {
        let all = tokio::net::lookup_host((self.host.as_str(), self.port)).await?;
        let mut last = io::Error::other("the name has no address");
        for address in all {
            match self.to(address).await {
                Ok(stream) => return Ok(stream),
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    async fn to(&self, address: SocketAddr) -> io::Result<TcpStream> {
        if !self.secure && !address.ip().is_loopback() {
            let why = format!("{address} is not on this machine, and only there it is without TLS");
            return Err(io::Error::other(why));
        }
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        token: &Token,
        body: Option<Value>,
    ) -> Result<Request<Full<Bytes>>, Failed> {
        let header = |text: &str| {
            let made = HeaderValue::from_str(text);
            made.map_err(|_| Failed::Strange("a header cannot be made".to_owned()))
        };
        let mut secret = header(&token.0)?;
        secret.set_sensitive(true);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.authority())
            .header(ACCEPT, "application/json")
            .header(CONNECTION, "close")
            .header(HeaderName::from_static("x-vault-request"), "true")
            .header(HeaderName::from_static("x-vault-token"), secret);
        if let Some(namespace) = &self.config.namespace {
            let name = HeaderName::from_static("x-vault-namespace");
            request = request.header(name, header(namespace)?);
        }
        let body = match body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        let made = request.body(Full::new(body));
        made.map_err(|_| Failed::Strange("the request cannot be made".to_owned()))
    }

    /// Asks, and answers the body of what was answered, if that is a yes.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        token: &Token,
        body: Option<Value>,
    ) -> Result<Vec<u8>, Failed> {
        let away = |e: io::Error| Failed::Away(e.to_string());
        let request = self.request(method, path, token, body)?;
        let tls = self.tls().map_err(Failed::File)?;
        let stream = self.connected().await.map_err(away)?;
        match tls.filter(|_| self.secure) {
            Some(tls) => {
                let name = ServerName::try_from(self.host.clone());
                let name = name.map_err(|e| Failed::Away(e.to_string()))?;
                let connector = TlsConnector::from(tls);
                let stream = connector.connect(name, stream).await.map_err(away)?;
                exchange(TokioIo::new(stream), request).await
            }
            None => exchange(TokioIo::new(stream), request).await,
        }
    }
}

async fn exchange<I>(io: I, request: Request<Full<Bytes>>) -> Result<Vec<u8>, Failed>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let broken = |e: hyper::Error| match e.is_parse() {
        true => Failed::Strange(e.to_string()),
        false => Failed::Away(e.to_string()),
    };
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_MAX);
    let (mut sender, connection) = builder.handshake(io).await.map_err(broken)?;
    // Whoever stops waiting ends the connection with it.
    let mut connection = std::pin::pin!(connection);
    let asked = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, BODY_MAX).collect().await;
        let body = body.map_err(|e| match e.downcast::<hyper::Error>() {
            Ok(e) => broken(*e),
            Err(_) => Failed::Strange(format!("its answer has more than {BODY_MAX} bytes")),
        })?;
        Ok((head, body.to_bytes()))
    };
    let mut asked = std::pin::pin!(asked);
    let (head, body) = tokio::select! {
        answered = &mut asked => answered?,
        // What it has read is still there.
        _ended = &mut connection => asked.await?,
    };
    match head.status.as_u16() {
        200 => Ok(body.to_vec()),
        300..=308 => {
            let to = head.headers.get(hyper::header::LOCATION);
            let to = to.and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
            Err(Failed::Strange(format!(
                "it sends on to {}, which is not followed; name the server that answers itself, or what stands before all of them",
                tame(to)
            )))
        }
        // 429, 472, 473: one that stands by.
        status @ (408 | 412 | 429 | 472 | 473 | 500..) => {
            Err(Failed::Away(format!("{status}: {}", answer::errors(&body))))
        }
        status @ ..300 => Err(Failed::Strange(format!("its status is {status}"))),
        status => Err(Failed::Refused(status, answer::errors(&body))),
    }
}
