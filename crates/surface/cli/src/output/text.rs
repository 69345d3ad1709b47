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
