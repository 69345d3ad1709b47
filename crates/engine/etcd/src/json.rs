//! The JSON forms of etcd's gateway that are used here: requests are put together as text, since they are mostly
//! base64; answers are read by serde. Numbers of 64 bits are strings there, and what is zero or empty is left out.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, de};

/// Operations of one level of a transaction. etcd allows 128 by default, and takes what a level uses off what the level
/// below it may use: 62 transactions of 62 operations each fit beneath one with room to spare.
const LEVEL: usize = 62;
/// Operations of a transaction at most.
pub(crate) const OPERATIONS: usize = LEVEL * LEVEL;

fn base64(text: &mut String, bytes: &[u8]) {
    STANDARD.encode_string(bytes, text);
}

/// A request to read a range.
pub(crate) fn range(
    span: &(Vec<u8>, Vec<u8>),
    revision: i64,
    limit: usize,
    keys_only: bool,
) -> String {
    let mut text = String::from("{");
    keyed(&mut text, &span.0);
    if !span.1.is_empty() {
        text.push_str(",\"range_end\":\"");
        base64(&mut text, &span.1);
        text.push('"');
    }
    if revision > 0 {
        text.push_str(&format!(",\"revision\":\"{revision}\""));
    }
    if limit > 0 {
        text.push_str(&format!(",\"limit\":\"{limit}\""));
    }
    if keys_only {
        text.push_str(",\"keys_only\":true");
    }
    text.push('}');
    text
}

fn keyed(text: &mut String, key: &[u8]) {
    text.push_str("\"key\":\"");
    base64(text, key);
    text.push('"');
}

/// A request to watch a range from a revision on.
pub(crate) fn watch(span: &(Vec<u8>, Vec<u8>), from: i64) -> String {
    let mut text = String::from("{\"create_request\":{");
    keyed(&mut text, &span.0);
    if !span.1.is_empty() {
        text.push_str(",\"range_end\":\"");
        base64(&mut text, &span.1);
        text.push('"');
    }
    // Without fragments one answer could be many requests large.
    text.push_str(&format!(
        ",\"start_revision\":\"{from}\",\"fragment\":true}}}}"
    ));
    text
}

/// What a transaction does, in its order.
#[derive(Debug, Default)]
pub(crate) struct Operations(Vec<String>);

impl Operations {
    pub(crate) fn put(&mut self, key: &[u8], value: &[&[u8]], lease: i64) {
        let size: usize = value.iter().map(|part| part.len()).sum();
        let mut text = String::with_capacity(64 + (key.len() + size) * 4 / 3);
        text.push_str("{\"request_put\":{");
        keyed(&mut text, key);
        text.push_str(",\"value\":\"");
        match value {
            [one] => base64(&mut text, one),
            several => base64(&mut text, &several.concat()),
        }
        text.push('"');
        if lease != 0 {
            text.push_str(&format!(",\"lease\":\"{lease}\""));
        }
        text.push_str("}}");
        self.0.push(text);
    }

    /// Removes one key, or a range.
    pub(crate) fn delete(&mut self, (key, end): &(Vec<u8>, Vec<u8>)) {
        let mut text = String::from("{\"request_delete_range\":{");
        keyed(&mut text, key);
        if !end.is_empty() {
            text.push_str(",\"range_end\":\"");
            base64(&mut text, end);
            text.push('"');
        }
        text.push_str("}}");
        self.0.push(text);
    }

    fn write(self, text: &mut String) {
        if self.0.len() <= LEVEL {
            text.push_str(&self.0.join(","));
            return;
        }
        for (n, some) in self.0.chunks(LEVEL).enumerate() {
            text.push_str(if n == 0 { "" } else { "," });
            text.push_str("{\"request_txn\":{\"success\":[");
            text.push_str(&some.join(","));
            text.push_str("]}}");
        }
    }
}

/// What must hold for a transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Holds<'a> {
    /// A key was put so many times since it was made; 0: it is not there.
    Version(&'a [u8], i64),
    /// A key was last changed at this revision; 0: it is not there.
    Changed(&'a [u8], i64),
}

/// A transaction: when all of it holds, the operations and then one put more; or else the keys that are named are read.
pub(crate) fn transaction(
    holds: &[Holds<'_>],
    operations: Operations,
    last: Option<(&[u8], &[u8])>,
    or_read: &[&[u8]],
) -> Bytes {
    let mut text = String::from("{\"compare\":[");
    for (n, hold) in holds.iter().enumerate() {
        text.push_str(if n == 0 { "{" } else { ",{" });
        let (key, target, field, number) = match hold {
            Holds::Version(key, number) => (key, "VERSION", "version", number),
            Holds::Changed(key, number) => (key, "MOD", "mod_revision", number),
        };
        keyed(&mut text, key);
        let rest =
            format!(",\"target\":\"{target}\",\"result\":\"EQUAL\",\"{field}\":\"{number}\"}}");
        text.push_str(&rest);
    }
    text.push_str("],\"success\":[");
    let some = !operations.0.is_empty();
    operations.write(&mut text);
    if let Some((key, value)) = last {
        let mut put = Operations::default();
        put.put(key, &[value], 0);
        text.push_str(if some { "," } else { "" });
        put.write(&mut text);
    }
    text.push_str("],\"failure\":[");
    for (n, key) in or_read.iter().enumerate() {
        text.push_str(if n == 0 { "" } else { "," });
        text.push_str("{\"request_range\":");
        text.push_str(&range(&(key.to_vec(), Vec::new()), 0, 0, false));
        text.push('}');
    }
    text.push_str("]}");
    text.into()
}

/// Numbers, as strings or as numbers.
fn number<'de, D: Deserializer<'de>, N: std::str::FromStr + Default>(d: D) -> Result<N, D::Error> {
    let text = match serde_json::Value::deserialize(d)? {
        serde_json::Value::String(text) => text,
        serde_json::Value::Number(number) => number.to_string(),
        serde_json::Value::Null => return Ok(N::default()),
        other => return Err(de::Error::custom(format!("{other} is no number"))),
    };
    text.parse()
        .map_err(|_| de::Error::custom(format!("{text:?} is no number")))
}

fn unbase64<'de, D: Deserializer<'de>>(d: D) -> Result<Bytes, D::Error> {
    struct Text;
    impl de::Visitor<'_> for Text {
        type Value = Bytes;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("base64")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
            STANDARD.decode(text).map(Bytes::from).map_err(E::custom)
        }
    }
    d.deserialize_str(Text)
}

/// What every answer begins with.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Header {
    #[serde(deserialize_with = "number")]
    pub(crate) revision: i64,
}

/// A key of etcd as it is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Pair {
    #[serde(deserialize_with = "unbase64")]
    pub(crate) key: Bytes,
    #[serde(deserialize_with = "unbase64")]
    pub(crate) value: Bytes,
    #[serde(deserialize_with = "number", alias = "modRevision")]
    pub(crate) mod_revision: i64,
    #[serde(deserialize_with = "number")]
    pub(crate) version: i64,
}

/// The answer to a range.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Found {
    pub(crate) header: Header,
    pub(crate) kvs: Vec<Pair>,
    pub(crate) more: bool,
}

/// The answer to a transaction.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Done {
    pub(crate) header: Header,
    pub(crate) succeeded: bool,
    pub(crate) responses: Vec<Response>,
}

impl Done {
    /// What the nth read of the transaction found, of one key.
    pub(crate) fn found(&mut self, nth: usize) -> Option<Pair> {
        let range = self.responses.get_mut(nth)?.range.take()?;
        range.kvs.into_iter().next()
    }
}

/// One part of such an answer; only reads are looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Response {
    #[serde(rename = "response_range", alias = "responseRange")]
    pub(crate) range: Option<Found>,
}

/// The answers about leases.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Leased {
    #[serde(rename = "TTL", deserialize_with = "number")]
    pub(crate) ttl: u64,
}

/// The answer to a login.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Token {
    pub(crate) token: String,
}

/// What a member says of itself.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Version {
    pub(crate) etcdserver: String,
}

/// The alarms of the cluster.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Alarms {
    pub(crate) alarms: Vec<Alarm>,
}

/// One of them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Alarm {
    pub(crate) alarm: String,
}

/// One line of a stream.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Line<T> {
    pub(crate) result: Option<T>,
    pub(crate) error: Option<Problem>,
}

/// One message of a watch.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Seen {
    pub(crate) canceled: bool,
    #[serde(deserialize_with = "number", alias = "compactRevision")]
    pub(crate) compact_revision: i64,
    #[serde(alias = "cancelReason")]
    pub(crate) cancel_reason: String,
    pub(crate) events: Vec<Event>,
}

/// One change of a key. A put has no type.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Event {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) kv: Pair,
}

impl Event {
    pub(crate) fn removes(&self) -> bool {
        self.kind == "DELETE"
    }
}

/// The body of an error, in the forms of old and new gateways.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Problem {
    pub(crate) message: String,
    error: String,
}

/// What an error's body says.
pub(crate) fn problem(body: &[u8]) -> String {
    match serde_json::from_slice::<Problem>(body) {
        Ok(found) if !found.message.is_empty() => found.message,
        Ok(found) => found.error,
        Err(_) => String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_operations_are_nested_as_deep_as_they_must() {
        let with = |count: usize| {
            let mut operations = Operations::default();
            for n in 0..count {
                operations.put(format!("k{n}").as_bytes(), &[b"a", b"b"], 0);
            }
            let holds = [Holds::Version(b"h", 3), Holds::Changed(b"l", 4)];
            let body = transaction(&holds, operations, Some((b"h", b"v")), &[b"h", b"l"]);
            let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(value["compare"][1]["mod_revision"], "4");
            assert_eq!(value["failure"].as_array().unwrap().len(), 2);
            value["success"].as_array().unwrap().clone()
        };
        assert_eq!(with(0).len(), 1);
        assert_eq!(with(LEVEL).len(), LEVEL + 1);
        let nested = with(OPERATIONS);
        assert_eq!(nested.len(), LEVEL + 1);
        let inner = nested[0]["request_txn"]["success"].as_array().unwrap();
        assert_eq!(inner.len(), LEVEL);
        assert_eq!(inner[0]["request_put"]["value"], "YWI=");
    }
}
