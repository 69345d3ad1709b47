//! Text that comes from elsewhere, made safe for a terminal: nothing in it moves the cursor, colours, hides or reorders.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Whether a character could change how the text around it is shown.
pub fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// One line: hostile characters, newlines included, written as `\n`, `\x1b`, `\u{202e}`.
pub fn escape(s: &str) -> String {
    escape_but(s, |_| false)
}

/// Several lines: as [`escape`], but newlines and tabs stay.
pub fn escape_lines(s: &str) -> String {
    escape_but(s, |c| matches!(c, '\n' | '\t'))
}

fn escape_but(s: &str, keep: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(s.len());
    for c in s.chars() {
        match c {
            c if keep(c) || !is_hostile(c) => out.push(c),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x100 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
        }
    }
    out
}

/// Columns that a text takes on a terminal.
pub fn width(s: &str) -> usize {
    s.width()
}

/// The text in at most `columns`, the end replaced by `…` when it does not fit.
pub fn fit(s: &str, columns: usize) -> String {
    if width(s) <= columns {
        return s.to_owned();
    }
    let mut out = String::new();
    let mut used = 0;
    for c in s.chars() {
        let w = c.width().unwrap_or(0);
        if used + w + 1 > columns {
            break;
        }
        used += w;
        out.push(c);
    }
    if columns > 0 {
        out.push('…');
    }
    out
}

/// The text after a label, broken between words so that no line is wider than `columns`, the lines below as far in as the
/// first. A word that is wider by itself stays whole, so that it can be copied.
pub fn fill(s: &str, label: &str, columns: Option<usize>) -> String {
    let indent = " ".repeat(width(label));
    let room = columns.map_or(usize::MAX, |c| c.saturating_sub(width(label)).max(20));
    let mut lines: Vec<String> = Vec::new();
    for part in s.split('\n') {
        let mut line = String::new();
        for word in part.split(' ') {
            if !line.is_empty() && width(&line) + 1 + width(word) > room {
                lines.push(std::mem::take(&mut line));
            } else if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    format!("{label}{}", lines.join(&format!("\n{indent}")))
}

/// A page of Markdown with its paragraphs and items filled to `columns`.
pub fn page(markdown: &str, columns: usize) -> String {
    let mut parts: Vec<String> = Vec::new();
    for line in markdown.lines() {
        let starts = line.is_empty() || line.starts_with('#') || line.starts_with("- ");
        match parts.last_mut() {
            Some(part) if !starts && !part.is_empty() && !part.starts_with('#') => {
                part.push(' ');
                part.push_str(line.trim_start());
            }
            _ => parts.push(line.to_owned()),
        }
    }
    let filled = parts.iter().map(|part| match part.strip_prefix("- ") {
        Some(item) => fill(item, "- ", Some(columns)),
        None => fill(part, "", Some(columns)),
    });
    filled.map(|part| part + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_spelled_out() {
        let cases = [
            ("plain ü 漢", "plain ü 漢"),
            ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
            ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
            ("a\r\nb\tc", "a\\r\\nb\\tc"),
            ("\u{9b}31m", "\\x9b31m"),
            ("user\u{202e}gpj.exe", "user\\u{202e}gpj.exe"),
            ("a\u{200b}b\u{feff}", "a\\u{200b}b\\u{feff}"),
            ("\u{2066}x\u{2069}", "\\u{2066}x\\u{2069}"),
            ("\0\x7f", "\\x00\\x7f"),
        ];
        for (hostile, shown) in cases {
            assert_eq!(escape(hostile), shown);
            assert!(!escape(hostile).chars().any(is_hostile));
        }
        assert_eq!(escape_lines("a\nb\x1b"), "a\nb\\x1b");
    }

    #[test]
    fn a_page_is_filled_by_paragraph_and_item() {
        let page_text = "# T: t\n\n## Why\n\nOne two three four five\nsix.\n\n- an item that is rather long\n  and goes on\n- b\n";
        assert_eq!(
            page(page_text, 22),
            "# T: t\n\n## Why\n\nOne two three four\nfive six.\n\n- an item that is\n  rather long and goes\n  on\n- b\n"
        );
    }

    #[test]
    fn text_is_fitted_by_columns_not_bytes() {
        assert_eq!(fit("short", 5), "short");
        assert_eq!(fit("longer", 5), "long…");
        assert_eq!(fit("漢字漢字", 5), "漢字…");
        assert_eq!(fit("x", 0), "");
        for n in 0..9 {
            assert!(width(&fit("漢字 mixed", n)) <= n);
        }
    }
}
