//! Tables: fitted to the terminal when there is one, whole when piped. Never prints; [`super::Out`] does.

use super::text;

/// How a column behaves when the table is too wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Kept whole: ids, states, numbers.
    Whole,
    /// Kept whole and aligned to the right: counts and sizes.
    Right,
    /// Cut with `…` when the table is too wide: names, messages, commands.
    Cut,
    /// Left out when the table is too wide, the last one first: what is told elsewhere as well. Whole otherwise.
    Extra,
    /// As [`Column::Extra`], aligned to the right.
    ExtraRight,
}

/// Gap between columns.
const GAP: usize = 2;
/// A cut column keeps at least so many columns, if it has as many.
const KEEP: usize = 8;

/// Rows under headers. Cells are escaped here, so callers pass what the server said.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
    headers: bool,
}

impl Table {
    /// A table with these headers.
    pub fn new<const N: usize>(columns: [(&str, Column); N]) -> Self {
        Self::with(columns.iter().map(|(name, c)| ((*name).to_owned(), *c)))
    }

    /// A table whose headers are known only when it runs.
    pub fn with(columns: impl IntoIterator<Item = (String, Column)>) -> Self {
        let (names, columns): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        let head = names
            .iter()
            .map(|n| text::escape(n).to_uppercase())
            .collect();
        Self {
            columns,
            rows: vec![head],
            headers: true,
        }
    }

    /// Two columns, name and value, without headers: one thing with its fields.
    pub fn fields() -> Self {
        Self {
            columns: vec![Column::Whole, Column::Cut],
            rows: Vec::new(),
            headers: false,
        }
    }

    /// Adds a row; missing cells are empty, further ones are dropped. An empty cell shows as `-` under headers.
    pub fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let mut row: Vec<String> = cells
            .into_iter()
            .map(|c| text::escape(c.as_ref()))
            .take(self.columns.len())
            .collect();
        row.resize(self.columns.len(), String::new());
        if self.headers {
            for cell in row.iter_mut().filter(|c| c.is_empty()) {
                cell.push('-');
            }
        }
        self.rows.push(row);
    }

    /// The same for a part of a list whose headers are shown already.
    #[must_use]
    pub fn without_headers(mut self) -> Self {
        if self.headers {
            self.rows.remove(0);
            self.headers = false;
        }
        self
    }

    /// Whether it has no rows besides its headers.
    pub fn is_empty(&self) -> bool {
        self.rows.len() <= usize::from(self.headers)
    }

    /// The text, each line ended; at most `width` columns when there is a width. `paint` may colour a cell (row and column
    /// counted from 0, headers left out) without changing its width.
    pub fn render(
        &self,
        width: Option<usize>,
        paint: impl Fn(&str) -> Option<&'static str>,
    ) -> String {
        let widths = self.widths(width);
        let mut out = String::new();
        for (n, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            let mut gap = 0;
            let cells = row.iter().zip(&self.columns).zip(&widths);
            for ((cell, column), w) in cells.filter(|(_, w)| **w > 0) {
                let cell = text::fit(cell, *w);
                let pad = w - text::width(&cell);
                let (before, after) = match column {
                    Column::Right | Column::ExtraRight => (pad, 0),
                    Column::Whole | Column::Cut | Column::Extra => (0, pad),
                };
                line.extend(std::iter::repeat_n(' ', gap + before));
                match paint(&cell).filter(|_| n > 0 || !self.headers) {
                    Some(colour) => line.push_str(&format!("{colour}{cell}\x1b[0m")),
                    None => line.push_str(&cell),
                }
                gap = GAP + after;
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    /// The width of each column: natural, and less for the widest cut columns while the whole is too wide.
    fn widths(&self, limit: Option<usize>) -> Vec<usize> {
        let mut widths = vec![0; self.columns.len()];
        for row in &self.rows {
            for (w, cell) in widths.iter_mut().zip(row) {
                *w = (*w).max(text::width(cell));
            }
        }
        let Some(limit) = limit else {
            return widths;
        };
        let room = |widths: &[usize]| {
            let shown = widths.iter().filter(|w| **w > 0).count();
            limit.saturating_sub(GAP * shown.saturating_sub(1))
        };
        // What may be left out goes before anything whole is touched.
        let extra = |c: Column| matches!(c, Column::Extra | Column::ExtraRight);
        let mut extras: Vec<usize> = (0..widths.len())
            .filter(|i| extra(self.columns[*i]))
            .collect();
        loop {
            let mut tight = widths.clone();
            self.shrink(&mut tight, room(&widths), KEEP, |c| c == Column::Cut);
            if tight.iter().sum::<usize>() <= room(&widths) {
                return tight;
            }
            match extras.pop() {
                Some(i) => widths[i] = 0,
                None => break,
            }
        }
        let limit = room(&widths);
        self.shrink(&mut widths, limit, KEEP, |c| c == Column::Cut);
        // Nothing may wrap: when that was not enough, every column gives.
        self.shrink(&mut widths, limit, 1, |_| true);
        widths
    }

    fn shrink(&self, widths: &mut [usize], room: usize, keep: usize, may: impl Fn(Column) -> bool) {
        while widths.iter().sum::<usize>() > room {
            let widest = (0..widths.len())
                .filter(|i| may(self.columns[*i]) && widths[*i] > keep)
                .max_by_key(|i| widths[*i]);
            match widest {
                Some(i) => widths[i] -= 1,
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut t = Table::new([
            ("id", Column::Whole),
            ("name", Column::Cut),
            ("state", Column::Whole),
            ("tasks", Column::Right),
            ("message", Column::Cut),
        ]);
        t.row([
            "01k8z3v6m0000000000000000a",
            "digits-learning-rate-and-width",
            "PARTIALLY_COMPLETED",
            "24",
            "2 of 24 beams failed: exit status 1: ValueError: math domain error",
        ]);
        t.row(["01k8z3v6m0000000000000000b", "x", "QUEUED", "1000000", ""]);
        t
    }

    #[test]
    fn at_80_columns_only_what_may_be_cut_is_cut() {
        let shown = sample().render(Some(80), |_| None);
        assert_eq!(
            shown,
            "ID                          NAME        STATE                  TASKS  MESSAGE\n\
             01k8z3v6m0000000000000000a  digits-le…  PARTIALLY_COMPLETED       24  2 of 24 b…\n\
             01k8z3v6m0000000000000000b  x           QUEUED               1000000  -\n"
        );
        assert!(shown.lines().all(|l| text::width(l) <= 80));
    }

    #[test]
    fn what_is_told_elsewhere_goes_first() {
        let mut t = Table::new([
            ("id", Column::Whole),
            ("kind", Column::Extra),
            ("name", Column::Cut),
            ("tasks", Column::ExtraRight),
        ]);
        t.row([
            "01k8z3v6m0000000000000000a",
            "array",
            "digits-learning",
            "24",
        ]);
        let at = |w| {
            let shown = t.render(Some(w), |_| None);
            shown.lines().next().unwrap_or_default().to_owned()
        };
        let id = "ID                          ";
        assert_eq!(at(80), format!("{id}KIND   NAME             TASKS"));
        assert_eq!(at(50), format!("{id}KIND   NAME      TASKS"));
        assert_eq!(at(45), format!("{id}KIND   NAME"));
        assert_eq!(at(37), format!("{id}NAME"));
    }

    #[test]
    fn piped_it_is_whole() {
        let shown = sample().render(None, |_| None);
        assert!(shown.contains("ValueError: math domain error"));
        assert!(!shown.contains('…') && !shown.contains('\x1b'));
    }

    #[test]
    fn no_width_is_too_small_to_survive() {
        for w in 0..90 {
            let shown = sample().render(Some(w), |_| None);
            assert!(
                w < 13 || shown.lines().all(|l| text::width(l) <= w),
                "{w}:\n{shown}"
            );
        }
    }

    #[test]
    fn hostile_cells_do_not_reach_the_terminal() {
        let mut t = Table::new([("name", Column::Cut)]);
        t.row(["\x1b]0;owned\x07\u{202e}evil\nROW"]);
        let shown = t.render(Some(80), |_| None);
        assert_eq!(shown, "NAME\n\\x1b]0;owned\\x07\\u{202e}evil\\nROW\n");
    }

    #[test]
    fn colour_changes_no_width() {
        let mut t = Table::new([("a", Column::Whole), ("b", Column::Whole)]);
        t.row(["FAILED", "x"]);
        let plain = t.render(None, |_| None);
        let painted = t.render(None, |c| (c == "FAILED").then_some("\x1b[31m"));
        assert_eq!(
            painted.replace("\x1b[31m", "").replace("\x1b[0m", ""),
            plain
        );
    }
}
