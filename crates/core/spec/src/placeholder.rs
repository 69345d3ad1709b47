//! `{name}` in commands. `{{name}}` stands for `{name}`, `${name}` is the shell's; all other braces stay as they are.

use prism_types::nearest;

/// Words that sweeps know besides their parameters.
pub(crate) const SWEEP_WORDS: [&str; 2] = ["index", "runner"];

/// One piece of a text.
enum Piece<'a> {
    Text(&'a str),
    Name(&'a str),
    Escaped(&'a str),
}

fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = text.get(at..).filter(|r| !r.is_empty())?;
        let mut from = 0;
        while let Some(open) = rest[from..].find('{').map(|i| i + from) {
            let shell = rest[..open].ends_with('$') || (open == 0 && text[..at].ends_with('$'));
            let (name, length, escaped) = match (name_in(&rest[open..]), &rest[open + 1..]) {
                (Some(name), _) => (name, name.len() + 2, false),
                (None, inner) => match name_in(inner) {
                    Some(name) if inner[name.len() + 2..].starts_with('}') => {
                        (name, name.len() + 4, true)
                    }
                    _ => {
                        from = open + 1;
                        continue;
                    }
                },
            };
            if shell {
                from = open + length;
                continue;
            }
            if open > 0 {
                at += open;
                return Some(Piece::Text(&rest[..open]));
            }
            at += length;
            return Some(if escaped {
                Piece::Escaped(name)
            } else {
                Piece::Name(name)
            });
        }
        at = text.len();
        Some(Piece::Text(rest))
    })
}

/// The name of a text that starts with `{name}`.
fn name_in(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('{')?;
    let end = inner.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
    let name = &inner[..end];
    let ok = inner[end..].starts_with('}')
        && !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit());
    ok.then_some(name)
}

/// Puts values in. A name without a value stays as it is; with `strict` escapes are undone for every name.
pub(crate) fn fill(text: &str, strict: bool, value: impl Fn(&str) -> Option<String>) -> String {
    if !text.contains('{') {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    for piece in pieces(text) {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Name(name) => match value(name) {
                Some(value) => out.push_str(&value),
                None => out.extend(["{", name, "}"]),
            },
            Piece::Escaped(name) if strict || value(name).is_some() => {
                out.extend(["{", name, "}"]);
            }
            Piece::Escaped(name) => out.extend(["{{", name, "}}"]),
        }
    }
    out
}

/// Bytes of a text after values of these lengths were put in.
pub(crate) fn length(text: &str, value: impl Fn(&str) -> Option<usize>) -> usize {
    let lengths = pieces(text).map(|piece| match piece {
        Piece::Text(text) => text.len(),
        Piece::Name(name) => value(name).unwrap_or(name.len() + 2),
        Piece::Escaped(name) => name.len() + 4,
    });
    lengths.sum()
}

/// Refuses a placeholder that is none of a sweep's parameters.
pub(crate) fn check(text: &str, parameters: &[&str]) -> Result<(), String> {
    for piece in pieces(text) {
        let Piece::Name(name) = piece else { continue };
        if parameters.contains(&name) || SWEEP_WORDS.contains(&name) {
            continue;
        }
        let known = || parameters.iter().copied().chain(SWEEP_WORDS);
        let hint = match nearest(name, known()) {
            Some(near) => format!("did you mean {{{near}}}?"),
            None => format!("expected one of {}", known().collect::<Vec<_>>().join(", ")),
        };
        return Err(format!(
            "the command has {{{name}}}, which is no parameter; {hint} (write {{{{{name}}}}} for the text itself)"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{check, fill};

    fn filled(text: &str) -> String {
        fill(text, false, |name| (name == "lr").then(|| "0.1".to_owned()))
    }

    #[test]
    fn only_known_names_in_braces_are_replaced() {
        for (text, expected) in [
            ("--lr={lr}", "--lr=0.1"),
            ("{lr}{lr}", "0.10.1"),
            ("{{lr}}", "{lr}"),
            ("${lr}", "${lr}"),
            ("x${lr}{lr}", "x${lr}0.1"),
            ("{other} {{other}}", "{other} {{other}}"),
            ("{\"a\": {\"b\": {lr}}}", "{\"a\": {\"b\": 0.1}}"),
            ("awk '{print $1}' {", "awk '{print $1}' {"),
            ("ä{lr}ö{", "ä0.1ö{"),
            ("{}{1}{ lr }", "{}{1}{ lr }"),
        ] {
            assert_eq!(filled(text), expected, "{text}");
        }
        assert_eq!(fill("{{other}}", true, |_| None), "{other}");
    }

    #[test]
    fn an_unknown_placeholder_names_the_nearest() {
        let message = check("--lr={rl}", &["lr", "hidden"]).unwrap_err();
        assert!(message.contains("did you mean {lr}?"), "{message}");
        assert!(check("{lr} {{HOME}} ${HOME} {index}", &["lr"]).is_ok());
    }
}
