//! Answers that go on: each ends when the token that asked for it is revoked or expires.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::app::App;
use crate::auth::{self, Caller};

/// A body that breaks off when something is over.
struct Watched {
    body: Body,
    over: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// The same answer, broken off soon after the caller's token is no longer good. One that is whole already goes as it is.
pub(crate) fn while_good(
    app: &Arc<App>,
    caller: &Caller,
    answer: Response<Body>,
) -> Response<Body> {
    if answer.body().size_hint().exact().is_some() {
        return answer;
    }
    let over = Box::pin(over(app.clone(), caller.clone()));
    answer.map(|body| Body::new(Watched { body, over }))
}

/// Waits until the token is revoked or has expired.
async fn over(app: Arc<App>, caller: Caller) {
    loop {
        let left = caller.expires.map(|at| at.since(app.control.now()).0);
        let left = left.map_or(Duration::MAX, |ms| Duration::from_millis(ms + 1));
        tokio::time::sleep(app.config.token_check.min(left)).await;
        if !auth::is_good(&app.control, &caller).await {
            tracing::info!(token = %caller.token, "a stream ended: its token is no longer good");
            return;
        }
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.over.as_mut().poll(context).is_ready() {
            let why = std::io::Error::other("the token is no longer good");
            return Poll::Ready(Some(Err(axum::Error::new(why))));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
