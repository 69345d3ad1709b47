//! Tokens, events, explanations, images, health.

use hyper::Method;
use prism_api::{
    AuditCheck, EventView, ExplainView, HealthView, ImageLoad, ImageView, NamespaceView, Page,
    Quota, TokenCreate, TokenCreated, TokenView,
};

use crate::stream::{ByteStream, EventStream};
use crate::transport::Call;
use crate::url::Target;
use crate::{Client, ClientError, Result};

const TOKENS: &str = "/api/v1/tokens";
const NAMESPACES: &str = "/api/v1/namespaces";
const EVENTS: &str = "/api/v1/events";
const IMAGES: &str = "/api/v1/images";

/// Which events.
#[derive(Clone, Debug, Default)]
pub struct EventsQuery {
    /// Only after this number.
    pub since: Option<u64>,
    /// Only about this id.
    pub subject: Option<String>,
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// Only of this kind or family of kinds.
    pub kind: Option<String>,
    /// Most of them in one answer.
    pub limit: Option<u32>,
}

impl EventsQuery {
    fn target(&self) -> Target {
        Target::new(EVENTS)
            .maybe("since", self.since)
            .maybe("subject", self.subject.as_ref())
            .maybe("namespace", self.namespace.as_ref())
            .maybe("kind", self.kind.as_ref())
            .maybe("limit", self.limit)
    }
}

/// Events as they happen, taken up again after the last one seen when the connection is lost.
#[derive(Debug)]
pub struct Events {
    client: Client,
    query: EventsQuery,
    stream: EventStream,
}

impl Events {
    /// The next event. Only ends with an error.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached any more.
    pub async fn next(&mut self) -> Result<EventView> {
        loop {
            match self.stream.next().await {
                Ok(Some(event)) => {
                    self.query.since = Some(event.seq);
                    return Ok(event);
                }
                Ok(None) | Err(ClientError::Lost { .. }) => {
                    self.stream = open(&self.client, &self.query).await?;
                }
                Err(e) => return Err(e),
            }
        }
    }
}

async fn open(client: &Client, query: &EventsQuery) -> Result<EventStream> {
    let call = Call::get(query.target().flag("follow", true));
    let response = client.send(call).await?;
    Ok(EventStream::new(ByteStream::new(client.clone(), response)))
}

impl Client {
    /// Makes a token; its text is in the answer and nowhere else.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn token_create(&self, body: &TokenCreate) -> Result<TokenCreated> {
        self.answer(Call::post(Target::new(TOKENS)).json(body)?)
            .await
    }

    /// One page of tokens.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn tokens(&self, cursor: Option<&str>) -> Result<Page<TokenView>> {
        self.answer(Call::get(Target::new(TOKENS).maybe("cursor", cursor)))
            .await
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn token_revoke(&self, id: &str) -> Result<()> {
        self.done(Call::change(Method::DELETE, Target::new(TOKENS).push(id)))
            .await
    }

    /// Namespaces by name.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn namespaces(&self, cursor: Option<&str>) -> Result<Page<NamespaceView>> {
        let target = Target::new(NAMESPACES).maybe("cursor", cursor);
        self.answer(Call::get(target)).await
    }

    /// A namespace with its quota and what of it is in use.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn namespace(&self, name: &str) -> Result<NamespaceView> {
        self.answer(Call::get(Target::new(NAMESPACES).push(name)))
            .await
    }

    /// Makes a namespace, or replaces its quota.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn namespace_put(&self, name: &str, quota: &Quota) -> Result<NamespaceView> {
        let call = Call::change(Method::PUT, Target::new(NAMESPACES).push(name));
        self.answer(call.json(quota)?).await
    }

    /// Removes a namespace in which nothing lives.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn namespace_remove(&self, name: &str) -> Result<()> {
        let target = Target::new(NAMESPACES).push(name);
        self.done(Call::change(Method::DELETE, target)).await
    }

    /// Looks through the stored audit events.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn events_verify(&self) -> Result<AuditCheck> {
        self.answer(Call::get(Target::new(EVENTS).push("verify")))
            .await
    }

    /// One page of events, oldest first.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn events(&self, query: &EventsQuery) -> Result<Page<EventView>> {
        self.answer(Call::get(query.target())).await
    }

    /// Events as they happen.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn events_follow(&self, query: EventsQuery) -> Result<Events> {
        let stream = open(self, &query).await?;
        Ok(Events {
            client: self.clone(),
            query,
            stream,
        })
    }

    /// Why a job, task (`JOB.INDEX`), sandbox or node is as it is.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn explain(&self, subject: &str) -> Result<ExplainView> {
        self.answer(Call::get(Target::new("/api/v1/explain").push(subject)))
            .await
    }

    /// Loads an image from the file system of a node's host.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn image_load(&self, body: &ImageLoad) -> Result<ImageView> {
        let call = Call::post(Target::new(IMAGES))
            .json(body)?
            .patient(std::time::Duration::from_secs(600));
        self.answer(call).await
    }

    /// Images on the nodes that are connected.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn images(&self) -> Result<Page<ImageView>> {
        self.answer(Call::get(Target::new(IMAGES))).await
    }

    /// Whether the server lives and is ready; a server that is not ready is no error here.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn health(&self) -> Result<HealthView> {
        self.answer(Call::get(Target::new("/health").flag("always", true)))
            .await
    }

    /// The OpenAPI document.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn openapi(&self) -> Result<serde_json::Value> {
        self.answer(Call::get(Target::new("/openapi.json"))).await
    }
}
