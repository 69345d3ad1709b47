//! A line chart as SVG: the x axis logarithmic, the y axis from zero.

use std::fmt::Write;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 90.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 55.0;
const COLOURS: [&str; 4] = ["#1f6feb", "#d1242f", "#1a7f37", "#8250df"];

/// A line.
pub struct Series<'a> {
    /// What it is called, at its end.
    pub name: &'a str,
    /// Points from left to right; x above zero.
    pub points: Vec<(f64, f64)>,
}

/// A chart.
pub struct Chart<'a> {
    /// What it shows.
    pub title: &'a str,
    /// Of what machine.
    pub note: String,
    /// Name of the x axis.
    pub across: &'a str,
    /// Name of the y axis.
    pub up: &'a str,
    /// The lines.
    pub series: Vec<Series<'a>>,
}

impl Chart<'_> {
    /// The picture.
    pub fn svg(&self) -> String {
        let all = || self.series.iter().flat_map(|s| &s.points);
        let (low, high) = all().fold((f64::MAX, 1.0f64), |(low, high), (x, _)| {
            (low.min(*x), high.max(*x))
        });
        let low = low.min(high);
        let top = nice(all().map(|(_, y)| *y).fold(0.0, f64::max));
        let x = |v: f64| {
            let share = (v / low).log10() / (high / low).log10().max(1e-9);
            LEFT + share * (WIDTH - LEFT - RIGHT)
        };
        let y = |v: f64| HEIGHT - BOTTOM - v / top * (HEIGHT - TOP - BOTTOM);
        let mut out = format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#ffffff"/>"##
        );
        text(&mut out, (LEFT, 22.0), "start", 15, self.title);
        text(&mut out, (LEFT, 39.0), "start", 11, &self.note);
        let middle = (LEFT + WIDTH - RIGHT) / 2.0;
        text(&mut out, (middle, HEIGHT - 14.0), "middle", 12, self.across);
        text(&mut out, (8.0, TOP - 8.0), "start", 11, self.up);
        for step in 0..=4u8 {
            let value = top * f64::from(step) / 4.0;
            line(&mut out, (LEFT, y(value)), (WIDTH - RIGHT, y(value)));
            text(
                &mut out,
                (LEFT - 6.0, y(value) + 4.0),
                "end",
                11,
                &short(value),
            );
        }
        let mut marks: Vec<f64> = all().map(|(x, _)| *x).collect();
        marks.sort_by(f64::total_cmp);
        marks.dedup();
        for mark in marks {
            text(
                &mut out,
                (x(mark), HEIGHT - BOTTOM + 18.0),
                "middle",
                11,
                &short(mark),
            );
        }
        for (series, colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
            let points: Vec<String> = series
                .points
                .iter()
                .map(|(a, b)| format!("{:.1},{:.1}", x(*a), y(*b)))
                .collect();
            let _infallible = write!(
                out,
                r#"<polyline fill="none" stroke="{colour}" stroke-width="2" points="{}"/>"#,
                points.join(" ")
            );
            for (a, b) in &series.points {
                let _infallible = write!(
                    out,
                    r#"<circle cx="{:.1}" cy="{:.1}" r="3" fill="{colour}"/>"#,
                    x(*a),
                    y(*b)
                );
            }
            if let Some((a, b)) = series.points.last() {
                let label = format!("{} {}", series.name, short(*b));
                text(&mut out, (x(*a) + 6.0, y(*b) - 6.0), "start", 11, &label);
            }
        }
        out.push_str("</svg>\n");
        out
    }
}

fn text(out: &mut String, at: (f64, f64), anchor: &str, size: u32, what: &str) {
    let what = what.replace('&', "&amp;").replace('<', "&lt;");
    let _infallible = write!(
        out,
        r##"<text x="{:.1}" y="{:.1}" text-anchor="{anchor}" font-size="{size}" fill="#24292f">{what}</text>"##,
        at.0, at.1
    );
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64)) {
    let _infallible = write!(
        out,
        r##"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" stroke="#d0d7de"/>"##,
        from.0, from.1, to.0, to.1
    );
}

/// The next of 1, 2, 4, 5 or 8 times a power of ten.
fn nice(value: f64) -> f64 {
    let power = 10f64.powf(value.max(1e-6).log10().floor());
    [1.0, 2.0, 4.0, 5.0, 8.0, 10.0]
        .iter()
        .map(|step| step * power)
        .find(|round| *round >= value)
        .unwrap_or(10.0 * power)
}

/// A number in few characters.
fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{}M", trimmed(v / 1e6)),
        v if v >= 1e3 => format!("{}k", trimmed(v / 1e3)),
        v => trimmed(v),
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_axes_end_at_round_ones() {
        assert_eq!(short(1_000_000.0), "1M");
        assert_eq!(short(10_000.0), "10k");
        assert_eq!(short(3.25), "3.25");
        assert!((nice(3.3) - 4.0).abs() < 1e-9);
        assert!((nice(87.0) - 100.0).abs() < 1e-9);
        assert!((nice(0.0) - 1e-6).abs() < 1e-9);
    }
}
