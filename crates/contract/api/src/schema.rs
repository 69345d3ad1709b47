//! How a wire type describes itself: its JSON Schema and a sample, both made from the same definition as its fields.
//!
//! Never reads a value at run time; the OpenAPI document and the tests call it.

use std::collections::BTreeMap;

use prism_types::{
    Bytes, JobId, JobState, Labels, MilliCpu, Name, NodeId, NodeState, Noun, Outcome, Reason,
    Resources, SandboxId, SandboxState, TaskState, TimeMs, TokenId, Verb,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Named schemas, as `components.schemas` of the document.
pub type Definitions = BTreeMap<String, Value>;

/// A type that can describe its JSON.
pub trait Described: Sized {
    /// Whether a field of this type may be absent.
    const OPTIONAL: bool = false;

    /// Its schema; named parts are put into `defs` and referred to.
    fn schema(defs: &mut Definitions) -> Value;

    /// A value of it, for examples and tests.
    fn sample() -> Self;
}

/// One answer of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The items, in a stable order.
    pub items: Vec<T>,
    /// Pass it as `cursor` to go on; `null` at the end.
    pub next: Option<String>,
}

impl<T: Described> Described for Page<T> {
    fn schema(defs: &mut Definitions) -> Value {
        json!({
            "type": "object",
            "required": ["items", "next"],
            "properties": {
                "items": {"type": "array", "items": T::schema(defs)},
                "next": {"type": ["string", "null"], "description": "pass it as cursor to go on; null at the end"},
            },
        })
    }

    fn sample() -> Self {
        Self {
            items: vec![T::sample()],
            next: None,
        }
    }
}

impl<T: Described> Described for Option<T> {
    const OPTIONAL: bool = true;

    fn schema(defs: &mut Definitions) -> Value {
        json!({"anyOf": [T::schema(defs), {"type": "null"}]})
    }

    fn sample() -> Self {
        Some(T::sample())
    }
}

impl<T: Described> Described for Vec<T> {
    fn schema(defs: &mut Definitions) -> Value {
        json!({"type": "array", "items": T::schema(defs)})
    }

    fn sample() -> Self {
        vec![T::sample()]
    }
}

macro_rules! plain {
    ($($ty:ty => $schema:tt, $sample:expr;)+) => { $(
        impl Described for $ty {
            fn schema(_: &mut Definitions) -> Value {
                json!($schema)
            }

            fn sample() -> Self {
                $sample
            }
        }
    )+ };
}

plain! {
    String => {"type": "string"}, "text".to_owned();
    bool => {"type": "boolean"}, true;
    u16 => {"type": "integer", "minimum": 0, "maximum": 65535}, 24;
    u32 => {"type": "integer", "minimum": 0}, 3;
    u64 => {"type": "integer", "minimum": 0}, 4096;
    i32 => {"type": "integer"}, 9;
    f64 => {"type": "number"}, 0.5;
    Value => {"description": "any JSON value"}, json!({"accuracy": 0.97});
    TimeMs => {"type": "integer", "minimum": 0, "description": "Unix time in milliseconds"}, TimeMs(1_700_000_000_000);
    MilliCpu => {"type": ["string", "number"], "description": "cores (2, 0.5) or thousandths of a core (500m)"}, MilliCpu(500);
    Bytes => {"type": ["string", "number"], "description": "bytes (4096) or with a unit (256Mi)"}, Bytes::mib(256);
    Name => {"type": "string", "pattern": "^[a-z0-9-]{1,63}$"}, "sample".parse().expect("a name");
    Labels => {"type": "object", "additionalProperties": {"type": "string"}}, Labels::from([("team".to_owned(), "blue".to_owned())]);
    [f64; 3] => {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3}, [0.5, 0.4, 0.3];
}

impl Described for serde_json::Map<String, Value> {
    fn schema(_: &mut Definitions) -> Value {
        json!({"type": "object", "additionalProperties": true})
    }

    fn sample() -> Self {
        Self::from_iter([("lr".to_owned(), json!(0.1))])
    }
}

impl Described for Resources {
    fn schema(defs: &mut Definitions) -> Value {
        let schema = json!({
            "type": "object",
            "properties": {
                "cpu": MilliCpu::schema(defs),
                "memory": Bytes::schema(defs),
                "disk": Bytes::schema(defs),
            },
            "additionalProperties": false,
        });
        defs.insert("Resources".to_owned(), schema);
        json!({"$ref": "#/components/schemas/Resources"})
    }

    fn sample() -> Self {
        Self {
            cpu: MilliCpu(500),
            memory: Bytes::mib(256),
            disk: Bytes(0),
        }
    }
}

macro_rules! ids {
    ($($ty:ty),+) => { $(
        impl Described for $ty {
            fn schema(_: &mut Definitions) -> Value {
                json!({"type": "string", "pattern": "^[0-7][0-9a-hjkmnp-tv-z]{25}$"})
            }

            fn sample() -> Self {
                Self::new(1_700_000_000_000, 7)
            }
        }
    )+ };
}

ids!(JobId, NodeId, SandboxId, TokenId);

macro_rules! listed {
    ($($ty:ty: $words:expr, $sample:expr;)+) => { $(
        impl Described for $ty {
            fn schema(defs: &mut Definitions) -> Value {
                let name = stringify!($ty);
                let words: Vec<&str> = $words;
                defs.insert(name.to_owned(), json!({"type": "string", "enum": words}));
                json!({"$ref": format!("#/components/schemas/{name}")})
            }

            fn sample() -> Self {
                $sample
            }
        }
    )+ };
}

listed! {
    JobState: Self::ALL.iter().map(|s| s.as_str()).collect(), Self::Running;
    TaskState: Self::ALL.iter().map(|s| s.as_str()).collect(), Self::Completed;
    NodeState: Self::ALL.iter().map(|s| s.as_str()).collect(), Self::Healthy;
    SandboxState: Self::ALL.iter().map(|s| s.as_str()).collect(), Self::Running;
    Noun: Self::ALL.iter().map(|s| s.as_str()).collect(), Self::Jobs;
    Verb: Self::ALL.iter().map(|s| s.as_str()).collect(), Self::Read;
    Reason: Self::ALL.iter().map(|(r, _)| r.as_str()).collect(), Self::Timeout;
    Outcome: vec!["applied", "not_applied", "unknown"], Self::NotApplied;
}
