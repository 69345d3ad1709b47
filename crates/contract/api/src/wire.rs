//! Two macros that define a wire type once: its serde form, its schema and its sample cannot drift apart.
//!
//! A field of type `Option` may be absent in a request and is `null` in an answer; every other field is required.

/// Defines structs. `#[request]` refuses unknown fields.
macro_rules! wire {
    () => {};
    (
        $(#[doc = $doc:literal])*
        #[request]
        pub struct $name:ident { $($fields:tt)* }
        $($rest:tt)*
    ) => {
        wire!(@one [#[serde(deny_unknown_fields)]] [false] [$($doc)*] $name { $($fields)* });
        wire!($($rest)*);
    };
    (
        $(#[doc = $doc:literal])*
        pub struct $name:ident { $($fields:tt)* }
        $($rest:tt)*
    ) => {
        wire!(@one [] [true] [$($doc)*] $name { $($fields)* });
        wire!($($rest)*);
    };
    (@one [$($attr:tt)*] [$open:literal] [$($doc:literal)*] $name:ident {
        $($(#[doc = $fdoc:literal])* $(#[serde($($fattr:tt)*)])? pub $field:ident: $ty:ty),* $(,)?
    }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
        $($attr)*
        pub struct $name {
            $($(#[doc = $fdoc])* $(#[serde($($fattr)*)])? pub $field: $ty,)*
        }

        impl $crate::Described for $name {
            fn schema(defs: &mut $crate::Definitions) -> ::serde_json::Value {
                let name = stringify!($name);
                if !defs.contains_key(name) {
                    defs.insert(name.to_owned(), ::serde_json::Value::Null);
                    let mut properties = ::serde_json::Map::new();
                    let mut required: Vec<&str> = Vec::new();
                    $(
                        let schema = <$ty as $crate::Described>::schema(defs);
                        let doc: &[&str] = &[$($fdoc),*];
                        properties.insert(stringify!($field).to_owned(), $crate::wire::described(schema, doc));
                        if !<$ty as $crate::Described>::OPTIONAL {
                            required.push(stringify!($field));
                        }
                    )*
                    let doc: &[&str] = &[$($doc),*];
                    defs.insert(name.to_owned(), $crate::wire::object(doc, properties, &required, $open));
                }
                ::serde_json::json!({"$ref": format!("#/components/schemas/{name}")})
            }

            fn sample() -> Self {
                Self { $($field: <$ty as $crate::Described>::sample(),)* }
            }
        }
    };
}

/// Defines enums that are plain words on the wire.
macro_rules! words {
    ($($(#[doc = $doc:literal])* pub enum $name:ident {
        $($(#[doc = $vdoc:literal])* $variant:ident = $text:literal),+ $(,)?
    })+) => { $(
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ::serde::Serialize, ::serde::Deserialize)]
        pub enum $name { $($(#[doc = $vdoc])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// Every value, in order.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl $crate::Described for $name {
            fn schema(defs: &mut $crate::Definitions) -> ::serde_json::Value {
                let words: &[&str] = &[$($text),+];
                let doc: &[&str] = &[$($doc),*];
                let schema = $crate::wire::described(::serde_json::json!({"type": "string", "enum": words}), doc);
                defs.insert(stringify!($name).to_owned(), schema);
                ::serde_json::json!({"$ref": concat!("#/components/schemas/", stringify!($name))})
            }

            fn sample() -> Self {
                Self::ALL[0]
            }
        }
    )+ };
}

use serde_json::{Map, Value, json};

/// A schema with its description (a `$ref` may have one beside it in OpenAPI 3.1).
pub(crate) fn described(mut schema: Value, doc: &[&str]) -> Value {
    if let Value::Object(map) = &mut schema
        && !doc.is_empty()
        && !map.contains_key("description")
    {
        map.insert("description".to_owned(), json!(sentence(doc)));
    }
    schema
}

/// The schema of a struct.
pub(crate) fn object(
    doc: &[&str],
    properties: Map<String, Value>,
    required: &[&str],
    open: bool,
) -> Value {
    let mut schema = json!({
        "type": "object",
        "description": sentence(doc),
        "properties": properties,
        "required": required,
    });
    if !open {
        schema["additionalProperties"] = json!(false);
    }
    schema
}

fn sentence(doc: &[&str]) -> String {
    doc.iter()
        .map(|line| line.trim())
        .collect::<Vec<_>>()
        .join(" ")
}
