//! Progress of something that runs: a bar that is redrawn on a terminal, one plain line per change when piped.

use std::io::Write;
use std::time::{Duration, Instant};

use prism_types::Millis;

use super::{columns, human, text, utf8};

/// How far something is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What there is to do.
    pub total: u64,
    /// What is over, well or not.
    pub done: u64,
    /// What runs now.
    pub running: u64,
    /// What is over and did not go well.
    pub failed: u64,
    /// The best so far, such as `best accuracy=0.9667 at lr=0.03`.
    pub best: Option<String>,
    /// State or reason, when nothing moves.
    pub note: Option<String>,
}

/// Least time between two plain lines, so that a log of a long run stays readable.
const PLAIN_EVERY: Duration = Duration::from_secs(2);

/// Draws progress on standard error.
#[derive(Debug)]
pub struct Live {
    terminal: bool,
    started: Instant,
    first_done: Option<u64>,
    last: Option<(Instant, Progress)>,
    lines: usize,
}

impl Live {
    /// Nothing is drawn before the first [`Live::show`].
    pub fn new(terminal: bool) -> Self {
        Self {
            terminal,
            started: Instant::now(),
            first_done: None,
            last: None,
            lines: 0,
        }
    }

    /// Shows where it stands.
    pub fn show(&mut self, p: &Progress) {
        let first = *self.first_done.get_or_insert(p.done);
        let elapsed = self.started.elapsed();
        if self.terminal {
            let mut lines = bar(p, first, elapsed, columns());
            if !utf8() {
                lines.iter_mut().for_each(|l| *l = ascii(l));
            }
            self.redraw(&lines);
            return;
        }
        let due = match &self.last {
            None => true,
            Some((_, before)) if before == p => false,
            Some((at, before)) => {
                at.elapsed() >= PLAIN_EVERY || (p.done == p.total && before.done != p.done)
            }
        };
        if due {
            self.last = Some((Instant::now(), p.clone()));
            let _ = writeln!(std::io::stderr(), "{}", plain(p, first, elapsed));
        }
    }

    /// Removes what is drawn, so that other text can follow.
    pub fn clear(&mut self) {
        if self.lines > 0 {
            let _ = write!(std::io::stderr(), "\x1b[{}F\x1b[J", self.lines);
            self.lines = 0;
        }
    }

    fn redraw(&mut self, lines: &[String]) {
        let mut out = String::new();
        if self.lines > 0 {
            out.push_str(&format!("\x1b[{}F", self.lines));
        }
        for line in lines {
            out.push_str("\x1b[2K");
            out.push_str(line);
            out.push('\n');
        }
        out.push_str("\x1b[J");
        self.lines = lines.len();
        let _ = std::io::stderr().write_all(out.as_bytes());
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A bar for terminals that show nothing else.
fn ascii(line: &str) -> String {
    let plain = |c| match c {
        '█' => '#',
        '▒' => '=',
        '·' => '.',
        '…' => '~',
        other => other,
    };
    line.chars().map(plain).collect()
}

/// Time left if it goes on as since the start; what was done before we looked says nothing of the pace.
fn left(p: &Progress, first: u64, elapsed: Duration) -> Option<Duration> {
    let done = p.done.checked_sub(first).filter(|n| *n > 0)?;
    let rest = p.total.saturating_sub(p.done);
    let each = elapsed.as_secs_f64() / done as f64;
    Duration::try_from_secs_f64(each * rest as f64).ok()
}

fn rounded(d: Duration) -> String {
    match d.as_secs() {
        0 => "1s".to_owned(),
        s => human::duration(Millis(s.saturating_mul(1000))),
    }
}

fn counts(p: &Progress) -> String {
    let mut out = format!("{}/{}", human::count(p.done), human::count(p.total));
    if p.running > 0 {
        out.push_str(&format!(", {} running", human::count(p.running)));
    }
    if p.failed > 0 {
        out.push_str(&format!(", {} failed", human::count(p.failed)));
    }
    out
}

fn plain(p: &Progress, first: u64, elapsed: Duration) -> String {
    let mut parts = vec![counts(p)];
    parts.extend(p.best.as_deref().map(text::escape));
    parts.extend(p.note.as_deref().map(text::escape));
    if elapsed.as_secs() > 0 {
        parts.push(format!("{} elapsed", rounded(elapsed)));
        if let Some(eta) = left(p, first, elapsed).filter(|_| p.done < p.total) {
            parts.push(format!("about {} left", rounded(eta)));
        }
    }
    parts.join("; ")
}

fn bar(p: &Progress, first: u64, elapsed: Duration, columns: usize) -> Vec<String> {
    let mut tail = format!(" {}", counts(p));
    // In the first moments there is no pace to tell.
    if elapsed.as_secs() > 0 {
        tail.push_str(&format!("  {}", rounded(elapsed)));
        if let Some(eta) = left(p, first, elapsed).filter(|_| p.done < p.total) {
            tail.push_str(&format!(", about {} left", rounded(eta)));
        }
    }
    // The last column stays free: some terminals wrap when it is written.
    let room = columns.saturating_sub(text::width(&tail) + 3).min(40);
    let share = |n: u64| {
        let filled = u128::from(n) * room as u128 / u128::from(p.total.max(1));
        usize::try_from(filled).unwrap_or(room).min(room)
    };
    let done = share(p.done);
    let running = share(p.done.saturating_add(p.running)).saturating_sub(done);
    let mut first_line = String::new();
    if room >= 4 {
        first_line = format!(
            "[{}{}{}]",
            "█".repeat(done),
            "▒".repeat(running),
            "·".repeat(room - done - running)
        );
    }
    first_line.push_str(&tail);
    let fit = |s: &str| text::fit(s, columns.saturating_sub(1));
    let mut lines = vec![fit(&first_line)];
    let more = [p.best.as_deref(), p.note.as_deref()];
    lines.extend(
        more.into_iter()
            .flatten()
            .map(|s| fit(&format!("  {}", text::escape(s)))),
    );
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half() -> Progress {
        Progress {
            total: 24,
            done: 12,
            running: 4,
            failed: 1,
            best: Some("best accuracy=0.9667 at lr=0.03 hidden=32\x1b[2J".into()),
            note: None,
        }
    }

    #[test]
    fn a_plain_line_says_all() {
        assert_eq!(
            plain(&half(), 0, Duration::from_secs(12)),
            "12/24, 4 running, 1 failed; best accuracy=0.9667 at lr=0.03 hidden=32\\x1b[2J; \
             12s elapsed; about 12s left"
        );
        let done = Progress {
            total: 3,
            done: 3,
            ..Progress::default()
        };
        assert_eq!(
            plain(&done, 0, Duration::from_secs(65)),
            "3/3; 1m05s elapsed"
        );
    }

    #[test]
    fn the_pace_counts_only_what_was_done_since_we_look() {
        assert_eq!(left(&half(), 12, Duration::from_secs(9)), None);
        assert_eq!(
            left(&half(), 6, Duration::from_secs(6)),
            Some(Duration::from_secs(12))
        );
    }

    #[test]
    fn a_bar_fits_any_terminal() {
        for columns in 1..200 {
            for line in bar(&half(), 0, Duration::from_secs(3), columns) {
                assert!(text::width(&line) < columns.max(2), "{columns}: {line}");
                assert!(!line.contains('\x1b'));
            }
        }
        let lines = bar(&half(), 0, Duration::from_secs(3), 80);
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("[████"), "{}", lines[0]);
        assert!(
            lines[0].ends_with(" 12/24, 4 running, 1 failed  3s, about 3s left"),
            "{}",
            lines[0]
        );
        assert!(ascii(&lines[0]).is_ascii());
        let huge = Progress {
            total: 0,
            done: u64::MAX,
            running: u64::MAX,
            ..half()
        };
        assert!(!bar(&huge, 0, Duration::from_secs(3), 80).is_empty());
    }
}
