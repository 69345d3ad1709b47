//! How the harness itself asks the servers: each call waits for its answer, and says at which server.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result};
use prism_api::{NodeCounts, Op, PeerView};
use prism_client::{Ask, Client, ClientError, Security};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

/// How the servers are reached.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Their addresses.
    pub urls: Vec<String>,
    /// The pin of the cluster's root.
    pub pin: String,
    /// An administrator's token.
    pub token: String,
}

/// A client of every server, for one thread.
#[derive(Debug)]
pub struct Desk {
    runtime: Runtime,
    clients: Vec<Client>,
}

/// How long the harness waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// A name in which only the harness writes.
const PROBE: &str = "probe";

impl Desk {
    /// One with the harness's patience.
    ///
    /// # Errors
    /// When the system gives no thread of I/O, or an address is none.
    pub fn new(access: &Access) -> Result<Self> {
        Self::patient(access, PATIENCE)
    }

    /// One that waits so long for each answer.
    ///
    /// # Errors
    /// As [`Desk::new`].
    pub fn patient(access: &Access, patience: Duration) -> Result<Self> {
        let security = Security {
            pin: Some(access.pin.clone()),
            ..Security::default()
        };
        let client = |url: &String| Client::secured(url, Some(&access.token), patience, &security);
        let clients = access.urls.iter().map(client).collect::<Result<_, _>>()?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        Ok(Self { runtime, clients })
    }

    /// How many servers there are.
    pub fn servers(&self) -> usize {
        self.clients.len()
    }

    /// A call to one server.
    ///
    /// # Errors
    /// What came of it.
    pub fn ask(&self, server: usize, ask: Ask) -> Result<Value, ClientError> {
        self.runtime.block_on(self.clients[server].ask(ask))
    }

    /// Every recorded result of a job.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn lines(&self, server: usize, job: &str) -> Result<Vec<Value>> {
        self.runtime.block_on(async {
            let mut lines = self.clients[server]
                .jobs()
                .results(job, None, false)
                .await?;
            let mut all = Vec::new();
            while let Some(task) = lines.next().await? {
                all.push(serde_json::to_value(task)?);
            }
            Ok(all)
        })
    }

    /// The first good answer of any server.
    fn any<T, F>(&self, call: impl Fn(Client) -> F) -> Result<T>
    where
        F: Future<Output = prism_client::Result<T>>,
    {
        let mut last = None;
        for client in &self.clients {
            match self.runtime.block_on(call(client.clone())) {
                Ok(answer) => return Ok(answer),
                Err(e) => last = Some(e),
            }
        }
        Err(last.context("there is a server")?.into())
    }

    /// The servers, as the leader knows them.
    ///
    /// # Errors
    /// When nobody says.
    pub fn peers(&self) -> Result<Vec<PeerView>> {
        let page = self.any(|c| async move { c.ask(Ask::new(Op::PeerList)).await })?;
        Ok(serde_json::from_value(page["items"].clone())?)
    }

    /// How many nodes are in which state.
    ///
    /// # Errors
    /// When nobody says.
    pub fn nodes(&self) -> Result<NodeCounts> {
        let info = self.any(|c| async move { c.cluster().await })?;
        Ok(info.nodes)
    }

    /// Places nothing on a node.
    ///
    /// # Errors
    /// When it is refused.
    pub fn cordon(&self, node: &str) -> Result<()> {
        self.any(|c| async move { c.nodes().cordon(node).await })?;
        Ok(())
    }

    /// Writes something new through one server.
    ///
    /// # Errors
    /// What came of it.
    pub fn probe(&self, server: usize) -> Result<()> {
        let now = std::time::UNIX_EPOCH.elapsed()?;
        let quota = json!({"instances": now.as_millis() as u64 % 1_000_000_000});
        self.ask(server, Ask::new(Op::NamespacePut).at(PROBE).json(&quota))?;
        Ok(())
    }

    /// What each server says of itself, for a message.
    pub fn health(&self) -> Vec<String> {
        let all = self.clients.iter().map(|client| {
            let said = self.runtime.block_on(client.ask(Ask::new(Op::Health)));
            match said {
                Ok(view) => format!("{}: {view}", client.address()),
                Err(e) => format!("{}: {e}", client.address()),
            }
        });
        all.collect()
    }
}
