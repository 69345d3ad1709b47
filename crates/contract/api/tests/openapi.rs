//! The document is complete and true: every row of the table is in it, and what the types print is what it says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

mod schema;

use std::collections::BTreeSet;

use prism_api::{Access, Method, Op, Payload, ROUTES, Route, openapi};
use serde_json::Value;

fn operation<'a>(document: &'a Value, route: &Route) -> &'a Value {
    &document["paths"][route.path][route.method.as_str().to_ascii_lowercase()]
}

#[test]
fn every_operation_has_exactly_one_row() {
    let ops: BTreeSet<Op> = ROUTES.iter().map(|r| r.op).collect();
    assert_eq!(ops.len(), ROUTES.len());
    assert_eq!(ops.len(), Op::ALL.len());
    let places: BTreeSet<(Method, &str)> = ROUTES.iter().map(|r| (r.method, r.path)).collect();
    assert_eq!(places.len(), ROUTES.len());
}

#[test]
fn every_route_is_in_the_document_and_nothing_else_is() {
    let document = openapi("1.2.3");
    assert_eq!(document["openapi"], "3.1.0");
    for route in ROUTES {
        let operation = operation(&document, route);
        assert_eq!(operation["operationId"], route.op.name(), "{}", route.path);
        assert!(operation["responses"][route.success.to_string()].is_object());
        assert!(operation["responses"]["default"].is_object());
        let open = matches!(route.access, Access::Open);
        assert_eq!(operation["security"].as_array().unwrap().is_empty(), open);
        let named = operation["parameters"].as_array().unwrap();
        let expected =
            route.path_params().count() + route.query.len() + usize::from(route.changes());
        assert!(named.len() >= expected, "{}", route.path);
    }
    let all: usize = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .map(|p| p.as_object().unwrap().len())
        .sum();
    assert_eq!(all, ROUTES.len());
}

#[test]
fn every_type_prints_what_its_schema_says() {
    let document = openapi("1.2.3");
    let mut checked = 0;
    for route in ROUTES {
        let payloads = [Some(route.request), Some(route.answer), route.or_answer];
        for payload in payloads.into_iter().flatten() {
            let (Payload::Json { schema, sample }
            | Payload::Lines { schema, sample }
            | Payload::Events { schema, sample }) = payload
            else {
                continue;
            };
            let schema = schema(&mut Default::default());
            let at = route.op.name();
            if let Err(why) = schema::check(&document, &schema, &sample(), at) {
                panic!("{why}");
            }
            checked += 1;
        }
    }
    assert!(checked > 45, "{checked}");
}

#[test]
fn a_missing_or_unknown_field_is_noticed_by_the_validator() {
    let document = openapi("1.2.3");
    let schema = serde_json::json!({"$ref": "#/components/schemas/TokenView"});
    let mut token =
        serde_json::to_value(<prism_api::TokenView as prism_api::Described>::sample()).unwrap();
    assert_eq!(schema::check(&document, &schema, &token, "token"), Ok(()));
    token["surprise"] = 1.into();
    assert!(schema::check(&document, &schema, &token, "token").is_err());
    token
        .as_object_mut()
        .unwrap()
        .retain(|k, _| k != "surprise" && k != "id");
    assert!(schema::check(&document, &schema, &token, "token").is_err());
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(document: &Value, value: &Value) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(reference)) = map.get("$ref") {
                    let name = reference.strip_prefix("#/components/schemas/").unwrap();
                    assert!(
                        document["components"]["schemas"][name].is_object(),
                        "{name}"
                    );
                }
                map.values().for_each(|v| walk(document, v));
            }
            Value::Array(list) => list.iter().for_each(|v| walk(document, v)),
            _ => {}
        }
    }
    let document = openapi("1.2.3");
    walk(&document, &document);
}

#[test]
fn only_health_metrics_and_the_document_are_open() {
    for route in ROUTES {
        let expected = !route.path.starts_with("/api/") || route.op == Op::OpenApiVersioned;
        assert_eq!(
            matches!(route.access, Access::Open),
            expected,
            "{}",
            route.path
        );
    }
}
