//! The cluster and its nodes.

use prism_api::{
    ClusterInfo, ClusterResources, DrainBody, MemberView, NodeHealth, NodeResources, NodeView, Page,
};

use crate::transport::Call;
use crate::url::Target;
use crate::{Client, ListQuery, Result};

const NODES: &str = "/api/v1/nodes";
const CLUSTER: &str = "/api/v1/cluster";

/// Calls about nodes.
#[derive(Clone, Copy, Debug)]
pub struct Nodes<'a>(&'a Client);

impl Client {
    /// Calls about nodes.
    pub fn nodes(&self) -> Nodes<'_> {
        Nodes(self)
    }

    /// The cluster in one answer.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn cluster(&self) -> Result<ClusterInfo> {
        self.answer(Call::get(Target::new(CLUSTER))).await
    }

    /// One page of its servers.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn members(&self) -> Result<Page<MemberView>> {
        self.answer(Call::get(Target::new(CLUSTER).push("members")))
            .await
    }

    /// What the nodes have and what is given away.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn resources(&self) -> Result<ClusterResources> {
        self.answer(Call::get(Target::new(CLUSTER).push("resources")))
            .await
    }
}

impl Nodes<'_> {
    /// One page of nodes, by name.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn list(&self, query: &ListQuery) -> Result<Page<NodeView>> {
        self.0.answer(Call::get(query.on(NODES))).await
    }

    /// Every node.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn all(&self, query: ListQuery) -> Result<Vec<NodeView>> {
        self.0.every(query, async |q| self.list(q).await).await
    }

    /// A node, by id or name.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn get(&self, id: &str) -> Result<NodeView> {
        self.0.answer(Call::get(Target::new(NODES).push(id))).await
    }

    /// What it has and what is given away.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn resources(&self, id: &str) -> Result<NodeResources> {
        let target = Target::new(NODES).push(id).push("resources");
        self.0.answer(Call::get(target)).await
    }

    /// Whether it can take work.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn health(&self, id: &str) -> Result<NodeHealth> {
        let target = Target::new(NODES).push(id).push("health");
        self.0.answer(Call::get(target)).await
    }

    /// Places nothing new on it.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn cordon(&self, id: &str) -> Result<NodeView> {
        let target = Target::new(NODES).push(id).push("cordon");
        self.0.answer(Call::post(target)).await
    }

    /// Empties it: nothing new comes, and what still runs at the deadline (see [`DrainBody`]) is run elsewhere.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn drain(&self, id: &str, how: &DrainBody) -> Result<NodeView> {
        let target = Target::new(NODES).push(id).push("drain");
        self.0.answer(Call::post(target).json(how)?).await
    }

    /// Places work on it again.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn uncordon(&self, id: &str) -> Result<NodeView> {
        let target = Target::new(NODES).push(id).push("uncordon");
        self.0.answer(Call::post(target)).await
    }
}
