//! A stand-in for a Vault with a PKI mount, over HTTPS on loopback, as far as Prism asks: `POST /v1/MOUNT/sign/ROLE` and
//! `GET /v1/MOUNT/issuer/NAME/json`, with a role as the guide has it. It can be away, hold another issuer, and answer as no Vault should.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    reason = "a stand-in of a test that cannot go on stops there"
)]

mod http;
mod pki;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::{ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::http::Asked;
use crate::pki::Ca;

/// The mount.
pub const MOUNT: &str = "prism";
/// Its role.
pub const ROLE: &str = "prism-member";

/// How it answers to be asked for a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// As Vault does.
    #[default]
    Well,
    /// For a key of its own.
    WrongKey,
    /// With another name.
    Named(Vec<String>),
    /// With a DNS name beside.
    NamedBeside(String),
    /// One that could sign others.
    Authority,
    /// For so many seconds more than it was asked.
    Longer(i64),
    /// One that is over.
    Over,
    /// One that is not good yet.
    NotYet,
    /// For servers of the web only.
    NoClient,
    /// Signed by an authority that is none of the mount's, which it names as the issuer.
    WrongChain,
    /// Signed by another, and the right one is named as the issuer.
    WrongSigner,
    /// This status and these errors.
    Refuse(u16, Vec<String>),
    /// A body of so many bytes.
    Giant(usize),
    /// Sends on to another path of its own.
    SendOn,
    /// After so long.
    Slow(Duration),
    /// This text with status 200.
    Says(String),
    /// No HTTP at all.
    Raw(String),
}

/// What was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// The name.
    pub uri: String,
    /// The issuer's number: 0 is the first.
    pub by: usize,
}

struct State {
    manner: Manner,
    token: String,
    namespace: Option<String>,
    /// Longest life in seconds, as of the role.
    most: i64,
    /// How much earlier a certificate begins, in seconds.
    earlier: i64,
    issuers: Vec<Ca>,
    /// Which signs.
    default: usize,
    signed: Vec<Noted>,
    asked: Vec<String>,
}

/// The stand-in.
pub struct StandIn {
    state: Arc<Mutex<State>>,
    tls: Arc<rustls::ServerConfig>,
    web: String,
    address: SocketAddr,
    running: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

impl std::fmt::Debug for StandIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StandIn")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StandIn {
    /// Starts one that takes this token.
    ///
    /// # Panics
    /// When loopback cannot be listened on.
    pub fn start(token: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tls, web) = pki::web();
        let state = State {
            manner: Manner::Well,
            token: token.to_owned(),
            namespace: None,
            most: 24 * 3600,
            earlier: 30,
            issuers: vec![Ca::new("prism", true)],
            default: 0,
            signed: Vec::new(),
            asked: Vec::new(),
        };
        let mut made = Self {
            state: Arc::new(Mutex::new(state)),
            tls,
            web,
            address,
            running: None,
        };
        made.listen(listener);
        made
    }

    fn listen(&mut self, listener: TcpListener) {
        let stop = Arc::new(AtomicBool::new(false));
        let (state, tls, ends) = (self.state.clone(), self.tls.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (state, tls) = (state.clone(), tls.clone());
                std::thread::spawn(move || serve(stream, &tls, &state));
            }
        });
        self.running = Some((stop, thread));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The authority behind its own certificate, PEM.
    pub fn web(&self) -> &str {
        &self.web
    }

    /// How it answers from now on.
    pub fn behave(&self, manner: Manner) {
        self.state().manner = manner;
    }

    /// Which token it takes from now on.
    pub fn take(&self, token: &str) {
        token.clone_into(&mut self.state().token);
    }

    /// In which namespace the mount is from now on.
    pub fn within(&self, namespace: &str) {
        self.state().namespace = Some(namespace.to_owned());
    }

    /// The role's longest life, and how much earlier a certificate begins, in seconds.
    pub fn lives(&self, most: i64, earlier: i64) {
        let mut state = self.state();
        (state.most, state.earlier) = (most, earlier);
    }

    /// What was signed so far.
    pub fn signed(&self) -> Vec<Noted> {
        self.state().signed.clone()
    }

    /// Every path that was asked for, with its method.
    pub fn asked(&self) -> Vec<String> {
        self.state().asked.clone()
    }

    /// SHA-256 of the public key of an issuer, in hex.
    pub fn pin(&self, issuer: usize) -> String {
        self.state().issuers[issuer].pin()
    }

    /// Makes another root, as `root/rotate` does: it signs nothing yet.
    pub fn rotate(&self) {
        let made = Ca::new("prism next", false);
        self.state().issuers.push(made);
    }

    /// Signs with the last from now on, as after `root/replace`.
    pub fn replace(&self) {
        let mut state = self.state();
        state.default = state.issuers.len() - 1;
    }

    /// Nobody listens any more.
    ///
    /// # Panics
    /// When the thread has.
    pub fn away(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            stop.store(true, Ordering::Relaxed);
            // So that it looks.
            let _woken = TcpStream::connect(self.address);
            thread.join().unwrap();
        }
    }

    /// It listens again where it did.
    ///
    /// # Panics
    /// When somebody else does.
    pub fn back(&mut self) {
        let listener = TcpListener::bind(self.address).unwrap();
        self.listen(listener);
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.away();
    }
}

fn serve(stream: TcpStream, tls: &Arc<rustls::ServerConfig>, state: &Mutex<State>) {
    let limit = Some(Duration::from_secs(20));
    let _best_effort = (
        stream.set_read_timeout(limit),
        stream.set_write_timeout(limit),
    );
    let Ok(connection) = ServerConnection::new(tls.clone()) else {
        return;
    };
    let mut stream = StreamOwned::new(connection, stream);
    let Some(asked) = http::receive(&mut stream) else {
        return;
    };
    let answer = answer(&asked, state);
    // Whoever asked may have gone.
    let _sent = http::send(&mut stream, &answer);
}

/// What is sent back.
enum Answer {
    Json(u16, Value),
    To(String),
    Raw(String),
}

fn no(status: u16, why: &str) -> Answer {
    Answer::Json(status, json!({"errors": [why]}))
}

fn answer(asked: &Asked, state: &Mutex<State>) -> Answer {
    let manner = {
        let mut state = locked(state);
        state.asked.push(format!("{} {}", asked.method, asked.path));
        if asked.header("x-vault-namespace") != state.namespace.as_deref() {
            return no(404, "no handler for route");
        }
        let open = asked.path.contains("/issuer/");
        if !open && asked.header("x-vault-token") != Some(&state.token) {
            return no(403, "permission denied");
        }
        state.manner.clone()
    };
    let issuer = format!("/v1/{MOUNT}/issuer/");
    if let Some(name) = asked.path.strip_prefix(&issuer) {
        let state = locked(state);
        let at = match name.strip_suffix("/json") {
            Some("default") => Some(state.default),
            Some("next") => (state.issuers.len() > 1).then(|| state.issuers.len() - 1),
            _ => None,
        };
        return match at {
            Some(at) => Answer::Json(
                200,
                json!({"data": {"certificate": state.issuers[at].pem()}}),
            ),
            None => no(500, "unable to find PKI issuer for reference: next"),
        };
    }
    if asked.method != "POST" || asked.path != format!("/v1/{MOUNT}/sign/{ROLE}") {
        return no(404, "no handler for route");
    }
    match manner {
        Manner::Refuse(status, errors) => Answer::Json(status, json!({"errors": errors})),
        Manner::Giant(bytes) => Answer::Json(200, json!({"data": "x".repeat(bytes)})),
        Manner::SendOn => Answer::To("/v1/elsewhere".to_owned()),
        Manner::Says(text) => Answer::Raw(format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        )),
        Manner::Raw(text) => Answer::Raw(text),
        Manner::Slow(time) => {
            std::thread::sleep(time);
            sign(asked, state, &Manner::Well)
        }
        manner => sign(asked, state, &manner),
    }
}

fn sign(asked: &Asked, state: &Mutex<State>, manner: &Manner) -> Answer {
    let mut state = locked(state);
    let text = |key: &str| asked.body[key].as_str().unwrap_or_default().to_owned();
    let uri = text("uri_sans");
    if !uri.starts_with("spiffe://") || uri.contains(',') {
        return no(400, &format!("URI {uri} isn't allowed by this role"));
    }
    if !text("common_name").is_empty() || !text("alt_names").is_empty() {
        return no(400, "common name not allowed by this role");
    }
    let ttl = text("ttl");
    let Some(ttl) = ttl.strip_suffix('s').and_then(|t| t.parse::<i64>().ok()) else {
        return no(400, "the ttl is none");
    };
    let asked_for = pki::Leaf {
        uri: uri.clone(),
        seconds: ttl.min(state.most),
        earlier: state.earlier,
    };
    let by = state.default;
    let made = match pki::leaf(&text("csr"), &asked_for, &state.issuers[by], manner) {
        Ok(made) => made,
        Err(why) => return no(400, &why),
    };
    state.signed.push(Noted { uri, by });
    Answer::Json(
        200,
        json!({
            "lease_id": "",
            "renewable": false,
            "data": {
                "certificate": made.certificate,
                "issuing_ca": made.issuer,
                "ca_chain": [made.issuer],
                "serial_number": "01:02",
            },
            "warnings": null,
            "auth": null,
        }),
    )
}
