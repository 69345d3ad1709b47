//! A validator for the part of JSON Schema that the document uses. Strict: a keyword it does not know fails the test.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

use serde_json::Value;

const KNOWN: &[&str] = &[
    "$ref",
    "type",
    "enum",
    "anyOf",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "pattern",
    "description",
    "format",
];

/// Why `value` is not of `schema`; every property must be described.
pub fn check(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let Some(keywords) = schema.as_object() else {
        return Err(format!("{at}: a schema that is no object: {schema}"));
    };
    if let Some(unknown) = keywords.keys().find(|k| !KNOWN.contains(&k.as_str())) {
        return Err(format!("{at}: keyword {unknown} is not known to this test"));
    }
    if let Some(reference) = keywords.get("$ref") {
        let name = reference.as_str().unwrap().rsplit('/').next().unwrap();
        let target = &document["components"]["schemas"][name];
        if target.is_null() {
            return Err(format!("{at}: {reference} leads nowhere"));
        }
        return check(document, target, value, at);
    }
    if let Some(any) = keywords.get("anyOf") {
        let tried: Vec<_> = any
            .as_array()
            .unwrap()
            .iter()
            .map(|s| check(document, s, value, at))
            .collect();
        if !tried.iter().any(Result::is_ok) {
            return Err(format!("{at}: {value} is none of {tried:?}"));
        }
    }
    if let Some(words) = keywords.get("enum")
        && !words.as_array().unwrap().contains(value)
    {
        return Err(format!("{at}: {value} is not one of {words}"));
    }
    if let Some(kind) = keywords.get("type") {
        let kinds: Vec<&str> = match kind {
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            other => vec![other.as_str().unwrap()],
        };
        if !kinds.iter().any(|k| is_kind(k, value)) {
            return Err(format!("{at}: {value} is not {kinds:?}"));
        }
    }
    if let (Some(least), Some(n)) = (keywords.get("minimum"), value.as_f64())
        && n < least.as_f64().unwrap()
    {
        return Err(format!("{at}: {n} is below {least}"));
    }
    inside(document, schema, value, at)
}

fn is_kind(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => false,
    }
}

fn inside(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let (Some(items), Some(list)) = (schema.get("items"), value.as_array()) {
        for (i, item) in list.iter().enumerate() {
            check(document, items, item, &format!("{at}[{i}]"))?;
        }
    }
    let Some(map) = value.as_object() else {
        return Ok(());
    };
    for name in schema["required"].as_array().into_iter().flatten() {
        if !map.contains_key(name.as_str().unwrap()) {
            return Err(format!("{at}: {name} is missing"));
        }
    }
    let more = schema.get("additionalProperties");
    for (name, value) in map {
        let at = format!("{at}.{name}");
        match (schema.get("properties").and_then(|p| p.get(name)), more) {
            (Some(schema), _) => check(document, schema, value, &at)?,
            (None, Some(Value::Bool(true))) => {}
            (None, Some(schema @ Value::Object(_))) => check(document, schema, value, &at)?,
            (None, _) if schema.get("properties").is_none() => {}
            (None, _) => return Err(format!("{at} is not described")),
        }
    }
    Ok(())
}
