//! One question and one answer over a connection, each with its length before it.

use std::io;
use std::time::Duration;

use prism_identity::ClusterId;
use prism_types::{Name, NodeId, Rejection, TokenId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Most bytes of either.
const MOST: usize = 64 << 10;

/// How long either may take to come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What a new node asks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ask {
    pub(crate) token: TokenId,
    pub(crate) secret: [u8; 32],
    pub(crate) node: NodeId,
    pub(crate) name: Name,
    /// For its certificate (PKCS #10, DER).
    pub(crate) request: Vec<u8>,
    /// If it wants to be a server.
    pub(crate) server: Option<AsServer>,
}

/// What a new server asks beside.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AsServer {
    /// For the certificate of its issuer (PKCS #10, DER).
    pub(crate) request: Vec<u8>,
    /// Where the others reach it, `HOST:PORT`.
    pub(crate) address: String,
}

/// What a new server is given beside.
#[derive(Serialize, Deserialize)]
pub(crate) struct ForServer {
    /// Its number in the configuration of the store.
    pub(crate) number: u64,
    /// The certificate of its issuer, DER.
    pub(crate) issuer: Vec<u8>,
    /// The certificate of the root above it, DER.
    pub(crate) root: Vec<u8>,
    /// The root's key, PEM: every server can let servers in.
    pub(crate) root_key: String,
}

impl std::fmt::Debug for ForServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ForServer")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// What a member asks that wants to know who leads. A server says where it is itself.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WhoLeads {
    /// Where it is.
    pub(crate) address: Option<String>,
    /// An administrator's token for those who use that server, in place of its last one.
    pub(crate) token: Option<ServerToken>,
}

/// A token that a server has made for those who use it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerToken {
    /// Its public half.
    pub id: TokenId,
    /// Its name.
    pub name: String,
    /// SHA-256 of its secret half.
    pub hash: [u8; 32],
}

/// Who leads, as far as a server knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Leads {
    /// The one that was asked.
    Me,
    /// Another, to which members come at this address.
    Other(String),
    /// Nobody that is known.
    Nobody,
}

/// Where the servers of a cluster are, as one of them knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directions {
    /// Who leads.
    pub leads: Leads,
    /// All servers, `HOST:PORT`.
    pub servers: Vec<String>,
}

/// What it is given.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Given {
    pub(crate) cluster: ClusterId,
    /// Its certificate and those above it up to its issuer's, DER.
    pub(crate) chain: Vec<Vec<u8>>,
    /// The roots that it is to trust, DER.
    pub(crate) roots: Vec<Vec<u8>>,
    /// If it is a server.
    pub(crate) server: Option<ForServer>,
}

/// What a new server asks that has its certificates from Vault.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AskByVault {
    pub(crate) ask: Ask,
    /// Whether it takes the cluster's state to be in an etcd.
    pub(crate) on_etcd: bool,
}

/// What it is given.
#[derive(Serialize, Deserialize)]
pub(crate) struct GivenByVault {
    pub(crate) given: Given,
    /// Its number in the configuration of the store.
    pub(crate) number: u64,
    /// What servers seal for each other follows from it.
    pub(crate) secret: [u8; 32],
}

impl std::fmt::Debug for GivenByVault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GivenByVault")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Given(Box<Given>),
    No(Rejection),
    /// Ask the server at this address, which leads.
    Elsewhere(String),
    /// To a new server of a cluster whose certificates Vault signs.
    ByVault(Box<GivenByVault>),
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Sends a message.
pub(crate) async fn send<W, T>(to: &mut W, message: &T) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
    T: Serialize,
{
    let body = postcard::to_stdvec(message).map_err(|e| invalid(e.to_string()))?;
    let length = u32::try_from(body.len()).map_err(|_| invalid("too long"))?;
    to.write_all(&length.to_le_bytes()).await?;
    to.write_all(&body).await?;
    to.flush().await
}

/// Receives one.
pub(crate) async fn receive<R, T>(from: &mut R) -> io::Result<T>
where
    R: AsyncRead + Unpin,
    T: DeserializeOwned,
{
    let received = async {
        let length = usize::try_from(from.read_u32_le().await?).unwrap_or(usize::MAX);
        if length > MOST {
            return Err(invalid(format!(
                "a message of {length} bytes, at most {MOST}"
            )));
        }
        let mut body = vec![0; length];
        from.read_exact(&mut body).await?;
        let (message, rest) =
            postcard::take_from_bytes(&body).map_err(|e| invalid(e.to_string()))?;
        if rest.is_empty() {
            Ok(message)
        } else {
            Err(invalid("something follows the message"))
        }
    };
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "nothing came in time");
    tokio::time::timeout(PATIENCE, received)
        .await
        .map_err(late)?
}

/// Reads bytes as whoever is asked does, and as whoever has asked; says what they are, or why they are nothing. For tests that have no
/// server.
pub async fn check_messages(bytes: &[u8]) -> String {
    async fn one<T: DeserializeOwned>(mut bytes: &[u8], name: &str) -> Result<String, io::Error> {
        receive::<_, T>(&mut bytes).await.map(|_| name.to_owned())
    }
    let all = [
        one::<Ask>(bytes, "join").await,
        one::<AskByVault>(bytes, "join by Vault").await,
        one::<WhoLeads>(bytes, "where").await,
        one::<Vec<u8>>(bytes, "request").await,
        one::<crate::rotation::AskRoot>(bytes, "root").await,
        one::<Option<crate::rotation::GivenRoot>>(bytes, "given root").await,
        one::<Answer>(bytes, "answer").await,
        one::<Directions>(bytes, "directions").await,
        one::<crate::cohort::Said>(bytes, "cohort").await,
    ];
    let said = all.map(|read| read.unwrap_or_else(|why| why.to_string()));
    said.join("; ")
}
