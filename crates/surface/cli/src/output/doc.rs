//! A document as JSON or YAML, exactly what the server said; characters that could fool a terminal are written as escapes,
//! which both formats read back as the same characters.

use std::fmt::Write as _;

use serde_json::Value;

use super::text;

/// Indented JSON, ended by a newline.
pub fn json(value: &Value) -> String {
    let pretty = serde_json::to_string_pretty(value).expect("a JSON value has only text keys");
    let mut out = safe_json(&pretty);
    out.push('\n');
    out
}

/// JSON on one line, ended by a newline.
pub fn json_line(value: &Value) -> String {
    let mut out = safe_json(&value.to_string());
    out.push('\n');
    out
}

/// Outside ASCII, characters stand only inside strings, where an escape means the same.
fn safe_json(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    for c in s.chars() {
        if c == '\x7f' || (!c.is_ascii() && text::is_hostile(c)) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// YAML 1.2, ended by a newline.
pub fn yaml(value: &Value) -> String {
    let mut out = String::new();
    block(&mut out, value, 0, false);
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out
}

/// Writes a value as a block; `inline` says that the cursor stands after `- ` or `key:` of the line above.
fn block(out: &mut String, value: &Value, indent: usize, after_dash: bool) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (i, (key, v)) in map.iter().enumerate() {
                if i > 0 || !after_dash {
                    pad(out, indent);
                }
                scalar(out, key);
                out.push(':');
                child(out, v, indent);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (i, v) in items.iter().enumerate() {
                if i > 0 || !after_dash {
                    pad(out, indent);
                }
                out.push_str("- ");
                block(out, v, indent + 2, true);
                end_line(out);
            }
        }
        other => leaf(out, other),
    }
}

fn child(out: &mut String, v: &Value, indent: usize) {
    match v {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            block(out, v, indent + 2, false);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            block(out, v, indent + 2, false);
        }
        _ => {
            out.push(' ');
            leaf(out, v);
        }
    }
    end_line(out);
}

fn leaf(out: &mut String, v: &Value) {
    match v {
        Value::String(s) => scalar(out, s),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            let _ = write!(out, "{v}");
        }
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn end_line(out: &mut String) {
    if !out.ends_with('\n') {
        out.push('\n');
    }
}

/// A string: plain when no reader can take it for anything else, in double quotes otherwise.
fn scalar(out: &mut String, s: &str) {
    if is_plain(s) {
        out.push_str(s);
        return;
    }
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if text::is_hostile(c) && u32::from(c) < 0x100 => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c if text::is_hostile(c) => {
                let _ = write!(out, "\\U{:08x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn is_plain(s: &str) -> bool {
    const WORDS: [&str; 12] = [
        "null", "true", "false", "yes", "no", "on", "off", "y", "n", "inf", "nan", "infinity",
    ];
    s.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '/')
        && s.bytes().all(|b| {
            b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/' | b' ' | b',' | b'+')
        })
        && !s.ends_with(' ')
        && !WORDS.contains(&s.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample() -> Value {
        json!({
            "id": "01k8z3v6m0000000000000000a",
            "task": "evil \u{202e}\x1b[31m \u{9b} \u{e0041} \"quoted\" \\ \n x",
            "no": "no", "number": "12", "empty": "", "colon": "a: b", "hash": "a #b",
            "best": {"point": {"lr": 0.03, "hidden": 32}, "result": null},
            "completed": [{"a": 1, "b": [1, [2, 3], []]}, {}, "x"],
            "pending": []
        })
    }

    #[test]
    fn json_reads_back_the_same_and_is_safe_to_look_at() {
        for text in [json(&sample()), json_line(&sample())] {
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), sample());
            assert!(!text.chars().any(|c| c != '\n' && text::is_hostile(c)));
        }
    }

    #[test]
    fn yaml_reads_back_the_same_and_is_safe_to_look_at() {
        let text = yaml(&sample());
        assert!(!text.chars().any(|c| c != '\n' && text::is_hostile(c)));
        let back: Value = serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(back, sample(), "{text}");
        for v in [
            json!([]),
            json!({}),
            json!("x"),
            json!(null),
            json!([[1], {"a": {"b": []}}]),
        ] {
            let text = yaml(&v);
            assert_eq!(serde_saphyr::from_str::<Value>(&text).unwrap(), v, "{text}");
        }
    }
}
