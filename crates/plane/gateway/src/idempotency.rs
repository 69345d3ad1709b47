//! Idempotency keys: read from the header, made unique per caller, tied to the request by its digest. For the few changes
//! that go to a node rather than through the store, answers are remembered here for a while.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::{HeaderMap, Method, Uri};
use bytes::Bytes;
use prism_api::KEY_MAX;
use prism_state::IdempotencyKey;
use prism_types::{Reason, TokenId};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use crate::refuse::{Answered, Refusal};

/// Answers that are remembered.
const REMEMBERED: usize = 1024;
/// Largest answer that is remembered, bytes.
const ANSWER_MAX: usize = 16 << 10;

/// The key of a request, if it has one.
pub(crate) fn key_of(
    headers: &HeaderMap,
    caller: TokenId,
    method: &Method,
    uri: &Uri,
    body: &Bytes,
) -> Answered<Option<IdempotencyKey>> {
    let mut given = headers.get_all("idempotency-key").iter();
    let Some(header) = given.next() else {
        return Ok(None);
    };
    let text = header
        .to_str()
        .ok()
        .filter(|t| (1..=KEY_MAX).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_graphic()));
    let (Some(text), None) = (text, given.next()) else {
        return Err(Refusal::invalid(format!(
            "the idempotency-key header is to be one text of 1 to {KEY_MAX} visible ASCII characters"
        ))
        .detail("field", "idempotency-key"));
    };
    let mut digest = Sha256::new();
    for part in [method.as_str(), uri.path(), uri.query().unwrap_or_default()] {
        digest.update(part.as_bytes());
        digest.update([0]);
    }
    digest.update(body);
    Ok(Some(IdempotencyKey {
        key: format!("{caller}:{text}").into(),
        request_digest: digest.finalize().into(),
    }))
}

type Remembered = Arc<OnceCell<Bytes>>;

/// Answers by key.
#[derive(Debug, Default)]
pub(crate) struct Replays(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    order: VecDeque<Arc<str>>,
    by_key: HashMap<Arc<str>, ([u8; 32], Remembered)>,
}

impl Replays {
    /// Does a thing once for a key; a repeat gets the first answer. Without a key it is simply done.
    pub(crate) async fn once(
        &self,
        key: Option<&IdempotencyKey>,
        work: impl Future<Output = Answered<Bytes>>,
    ) -> Answered<Bytes> {
        let Some(key) = key else {
            return work.await;
        };
        let cell = self.cell(key)?;
        cell.get_or_try_init(|| async {
            let answer = work.await?;
            debug_assert!(
                answer.len() <= ANSWER_MAX,
                "only small answers are remembered"
            );
            Ok(answer)
        })
        .await
        .cloned()
    }

    fn cell(&self, key: &IdempotencyKey) -> Answered<Remembered> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((digest, cell)) = kept.by_key.get(&key.key) {
            if *digest != key.request_digest {
                return Err(Refusal::new(
                    Reason::KeyReused,
                    "this idempotency key came with another request before; nothing was changed, use a new key",
                ));
            }
            return Ok(cell.clone());
        }
        if kept.order.len() >= REMEMBERED
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.by_key.remove(&oldest);
        }
        let cell = Remembered::default();
        kept.order.push_back(key.key.clone());
        kept.by_key
            .insert(key.key.clone(), (key.request_digest, cell.clone()));
        Ok(cell)
    }
}
