//! The results of a sweep as a table, as CSV and as JSON, and which of them is best. Pure rendering; the gateway and the
//! CLI bring the rows.

use serde_json::{Map, Value, json};

use crate::expand::point_json;
use crate::points::Point;
use crate::sweep::{Direction, Objective};

/// One beam and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct BeamRow {
    /// Index of its task.
    pub index: u32,
    /// Name of its runner.
    pub runner: String,
    /// Its point.
    pub point: Point,
    /// Its state, as clients see it.
    pub status: String,
    /// Why it did not complete, if it did not.
    pub reason: Option<String>,
    /// Its result, if it has one: a JSON object.
    pub result: Option<Value>,
}

/// Rows of equal length under named columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// The cells; a missing value is empty.
    pub rows: Vec<Vec<String>>,
}

/// Most columns that the fields of results may add; the rest is left out of tables (never of JSON).
const RESULT_COLUMNS_MAX: usize = 100;

/// The rows as a table: `index, runner, parameters…, status, fields of the results…, reason`. The runner is left out when
/// there is only one, and the reason when no row has any.
pub fn table(rows: &[BeamRow]) -> Table {
    let runners = rows.iter().any(|r| r.runner != rows[0].runner);
    let reasons = rows.iter().any(|r| r.reason.is_some());
    let params = names(rows.iter().flat_map(|r| r.point.iter().map(|(n, _)| n)));
    let objects = rows.iter().filter_map(|r| r.result.as_ref()?.as_object());
    let fields = names(objects.flat_map(Map::keys));
    let mut columns = vec!["index".to_owned()];
    columns.extend(runners.then(|| "runner".to_owned()));
    columns.extend(params.iter().cloned());
    columns.push("status".to_owned());
    // A field with the name of another column is told apart.
    columns.extend(fields.iter().map(|f| {
        match params.contains(f) || FIXED.contains(&f.as_str()) {
            true => format!("result.{f}"),
            false => f.clone(),
        }
    }));
    columns.extend(reasons.then(|| "reason".to_owned()));
    let cells = |row: &BeamRow| {
        let mut cells = vec![row.index.to_string()];
        cells.extend(runners.then(|| row.runner.clone()));
        let param = |name: &String| row.point.iter().find(|(n, _)| n == name).map(|(_, v)| v);
        cells.extend(params.iter().map(|name| cell(param(name))));
        cells.push(row.status.clone());
        cells.extend(
            fields
                .iter()
                .map(|f| cell(row.result.as_ref().and_then(|r| r.get(f)))),
        );
        cells.extend(reasons.then(|| row.reason.clone().unwrap_or_default()));
        cells
    };
    Table {
        rows: rows.iter().map(cells).collect(),
        columns,
    }
}

const FIXED: [&str; 4] = ["index", "runner", "status", "reason"];

/// Each name once, in the order of first sight.
fn names<'a>(all: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    all.filter(|name| seen.insert(*name))
        .take(RESULT_COLUMNS_MAX)
        .cloned()
        .collect()
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

impl Table {
    /// As CSV by RFC 4180: lines end with CR LF, and cells with a comma, quote or line end are quoted.
    pub fn csv(&self) -> String {
        let mut out = String::new();
        for row in std::iter::once(&self.columns).chain(&self.rows) {
            for (i, cell) in row.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                if cell.contains([',', '"', '\r', '\n']) {
                    out.extend(["\"", &cell.replace('"', "\"\""), "\""]);
                } else {
                    out.push_str(cell);
                }
            }
            out.push_str("\r\n");
        }
        out
    }
}

/// A row as clients see it: `{index, runner, point, status, result, reason}`.
pub fn row_json(row: &BeamRow) -> Value {
    let mut out = json!({
        "index": row.index,
        "runner": row.runner,
        "point": point_json(&row.point),
        "status": row.status,
        "result": row.result,
    });
    if let (Some(reason), Value::Object(fields)) = (&row.reason, &mut out) {
        fields.insert("reason".to_owned(), json!(reason));
    }
    out
}

impl Objective {
    /// The metric of a result, if it is there and a finite number.
    pub fn score(&self, result: &Value) -> Option<f64> {
        result.get(&self.metric)?.as_f64().filter(|n| n.is_finite())
    }

    /// Whether one score is better than another.
    pub fn is_better(&self, one: f64, other: f64) -> bool {
        match self.direction {
            Direction::Maximize => one > other,
            Direction::Minimize => one < other,
        }
    }

    /// The best row with a result: the lowest index among equals.
    pub fn best<'a>(&self, rows: impl IntoIterator<Item = &'a BeamRow>) -> Option<&'a BeamRow> {
        let scored = rows
            .into_iter()
            .filter_map(|row| Some((self.score(row.result.as_ref()?)?, row)));
        scored
            .reduce(|best, next| {
                let equal = next.0 == best.0 && next.1.index < best.1.index;
                if equal || self.is_better(next.0, best.0) {
                    next
                } else {
                    best
                }
            })
            .map(|(_, row)| row)
    }
}
