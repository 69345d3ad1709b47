//! The OpenAPI 3.1 document, made from the table of routes and the wire types' own schemas. Pure; the gateway serves it.

use serde_json::{Map, Value, json};

use crate::{
    Access, Definitions, Described, ErrorBody, KEY_MAX, Method, Op, Param, ParamKind, Payload,
    ROUTES, Reach, Route, submission,
};

/// The document.
pub fn openapi(version: &str) -> Value {
    let mut defs = Definitions::new();
    let error = ErrorBody::schema(&mut defs);
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let operation = operation(route, &error, &mut defs);
        let entry = paths
            .entry(route.path)
            .or_insert_with(|| Value::Object(Map::new()));
        entry[route.method.as_str().to_ascii_lowercase()] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Prism",
            "version": version,
            "description": "Jobs, sweeps and sandboxes on machines you own.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": defs,
            "securitySchemes": {"token": {
                "type": "http",
                "scheme": "bearer",
                "description": "pt_<id>_<secret><check>, from `POST /api/v1/tokens`",
            }},
        },
    })
}

fn operation(route: &Route, error: &Value, defs: &mut Definitions) -> Value {
    let mut parameters: Vec<Value> = route
        .path_params()
        .map(|name| {
            json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
        })
        .collect();
    parameters.extend(route.query.iter().map(query_parameter));
    if route.changes() {
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "required": false,
            "description": "any text of visible ASCII; the same key with the same request is carried out once",
            "schema": {"type": "string", "minLength": 1, "maxLength": KEY_MAX},
        }));
    }
    if route.op == Op::EventList {
        parameters.push(json!({
            "name": "Last-Event-ID", "in": "header", "required": false,
            "description": "the last number that was seen; as `since`",
            "schema": {"type": "integer"},
        }));
    }
    let mut operation = json!({
        "operationId": route.op.name(),
        "summary": route.summary,
        "tags": [route.noun.as_str()],
        "parameters": parameters,
        "responses": responses(route, error, defs),
    });
    match route.access {
        Access::Open => operation["security"] = json!([]),
        Access::Token(role) => {
            operation["security"] = json!([{"token": []}]);
            operation["x-role"] = json!(role.as_str());
            operation["x-verb"] = json!(route.verb.as_str());
            operation["x-reach"] = json!(match route.reach {
                Reach::Shared => "shared",
                Reach::Namespaced => "namespaced",
                Reach::Cluster => "cluster",
            });
        }
    }
    if let Some(content) = content(&route.request, defs) {
        operation["requestBody"] = json!({"required": !route.request_optional, "content": content});
    }
    operation
}

fn responses(route: &Route, error: &Value, defs: &mut Definitions) -> Value {
    let mut success = json!({"description": route.summary});
    let mut media = Map::new();
    for payload in [Some(&route.answer), route.or_answer.as_ref()]
        .into_iter()
        .flatten()
    {
        if let Some(Value::Object(content)) = content(payload, defs) {
            media.extend(content);
        }
    }
    if !media.is_empty() {
        success["content"] = Value::Object(media);
    }
    let mut all = Map::new();
    if route.op == Op::Health {
        let not_ready = json!({"description": "not ready", "content": success["content"]});
        all.insert("503".to_owned(), not_ready);
    }
    all.insert(route.success.to_string(), success);
    all.insert(
        "default".to_owned(),
        json!({"description": "an error", "content": {"application/json": {"schema": error}}}),
    );
    Value::Object(all)
}

fn query_parameter(param: &Param) -> Value {
    let schema = match param.kind {
        ParamKind::Integer(max) => json!({"type": "integer", "minimum": 0, "maximum": max}),
        ParamKind::Flag => json!({"type": "boolean"}),
        ParamKind::Text => json!({"type": "string"}),
        ParamKind::Choice(words) => json!({"type": "string", "enum": words}),
    };
    json!({
        "name": param.name, "in": "query", "required": param.name == "path",
        "description": param.doc, "schema": schema,
    })
}

fn content(payload: &Payload, defs: &mut Definitions) -> Option<Value> {
    Some(match payload {
        Payload::Empty => return None,
        Payload::Json { schema, sample } => {
            json!({"application/json": {"schema": schema(defs), "example": sample()}})
        }
        Payload::Spec(kind) => {
            let reference = format!("#/components/schemas/{}", submission::define(kind, defs));
            json!({"application/json": {"schema": {"$ref": reference}}})
        }
        Payload::Lines { schema, sample } => {
            json!({"application/x-ndjson": {"schema": schema(defs), "example": sample()}})
        }
        Payload::Events { schema, sample } => {
            json!({"text/event-stream": {"schema": schema(defs), "example": sample()}})
        }
        Payload::Raw => {
            json!({"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}})
        }
        Payload::Text(kind) => json!({*kind: {"schema": {"type": "string"}}}),
        Payload::AnyJson => json!({"application/json": {"schema": {"type": "object"}}}),
    })
}

impl Route {
    /// The row of an operation.
    pub fn of(op: Op) -> &'static Self {
        ROUTES.iter().find(|r| r.op == op).unwrap_or(&ROUTES[0])
    }
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
