//! The query of a request, checked against the route's row: unknown names, wrong values and repeats are refused.

use prism_api::{Param, ParamKind, Route};
use prism_types::nearest;

use crate::refuse::{Answered, Refusal};

/// Longest query that is read, bytes.
const QUERY_MAX: usize = 16 << 10;
/// Most parameters.
const PARAMS_MAX: usize = 64;

/// Checked parameters.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(&'static str, String)>);

impl Query {
    pub(crate) fn parse(route: &Route, text: Option<&str>) -> Answered<Self> {
        let text = text.unwrap_or_default();
        if text.len() > QUERY_MAX {
            return Err(Refusal::invalid(format!(
                "the query has {} bytes; at most {QUERY_MAX} are read",
                text.len()
            )));
        }
        let mut found: Vec<(&'static str, String)> = Vec::new();
        for pair in text.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name)?;
            let param = known(route, &name)?;
            let value = checked(param, pair.contains('='), decode(value)?)?;
            if param.name != "label" && found.iter().any(|(n, _)| *n == param.name) {
                return Err(wrong(param.name, "is given twice"));
            }
            if found.len() == PARAMS_MAX {
                return Err(Refusal::invalid(format!(
                    "more than {PARAMS_MAX} query parameters"
                )));
            }
            found.push((param.name, value));
        }
        Ok(Self(found))
    }

    /// A parameter's text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, v)| &**v)
    }

    /// Every value of a parameter that may be repeated.
    pub(crate) fn every<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(n, _)| *n == name)
            .map(|(_, v)| &**v)
    }

    /// A number (checked when it was parsed).
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// A flag; `None` when it is not given.
    pub(crate) fn given(&self, name: &str) -> Option<bool> {
        self.text(name).map(|v| v == "true")
    }

    /// A flag that is off unless given.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.given(name).unwrap_or(false)
    }
}

/// Reads the query of a request to a route, for tools and tests: what a request with it would be refused with.
///
/// # Errors
/// The sentence of the refusal.
pub fn check_query(route: &Route, text: &str) -> Result<(), String> {
    let read = Query::parse(route, Some(text));
    read.map(drop).map_err(|refusal| refusal.rejection.message)
}

fn known<'a>(route: &'a Route, name: &str) -> Answered<&'a Param> {
    if let Some(param) = route.query.iter().find(|p| p.name == name) {
        return Ok(param);
    }
    let name: String = name.chars().take(40).collect();
    let names: Vec<&str> = route.query.iter().map(|p| p.name).collect();
    let near = nearest(&name, names.iter().copied());
    let hint = match near {
        Some(near) => format!("; did you mean {near}"),
        None if names.is_empty() => "; this route takes none".to_owned(),
        None => format!("; this route takes {}", names.join(", ")),
    };
    let refusal = Refusal::invalid(format!("unknown query parameter {name:?}{hint}"));
    Err(match near {
        Some(near) => refusal.detail("nearest", near),
        None => refusal,
    }
    .detail("field", name))
}

fn checked(param: &Param, has_value: bool, value: String) -> Answered<String> {
    let shown: String = value.chars().take(40).collect();
    match param.kind {
        ParamKind::Integer(max) => match value.parse::<u64>() {
            Ok(n) if n <= max && value.bytes().all(|b| b.is_ascii_digit()) => Ok(value),
            _ => Err(wrong(
                param.name,
                &format!("is {shown:?}; expected a whole number from 0 to {max}"),
            )),
        },
        ParamKind::Flag => match value.as_str() {
            "true" | "1" => Ok("true".to_owned()),
            "" if !has_value => Ok("true".to_owned()),
            "false" | "0" => Ok("false".to_owned()),
            _ => Err(wrong(
                param.name,
                &format!("is {shown:?}; expected true or false"),
            )),
        },
        ParamKind::Choice(words) if !words.contains(&&*value) => Err(wrong(
            param.name,
            &format!("is {shown:?}; expected {}", words.join(", ")),
        )),
        ParamKind::Text if value.contains('\0') => Err(wrong(param.name, "has a NUL character")),
        ParamKind::Choice(_) | ParamKind::Text => Ok(value),
    }
}

fn wrong(name: &str, what: &str) -> Refusal {
    Refusal::invalid(format!("query parameter {name} {what}")).detail("field", name)
}

/// Undoes percent-encoding and `+`.
fn decode(text: &str) -> Answered<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(byte) = bytes.get(i) {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digits = text
                    .get(i + 1..i + 3)
                    .filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
                let value = digits.and_then(|d| u8::from_str_radix(d, 16).ok());
                out.push(value.ok_or_else(|| {
                    Refusal::invalid(
                        "the query has a % that is not followed by two hexadecimal digits",
                    )
                })?);
                i += 2;
            }
            other => out.push(*other),
        }
        i += 1;
    }
    String::from_utf8(out).map_err(|_| Refusal::invalid("the query is not UTF-8"))
}
