//! Counters of the gateway itself, and the text that Prometheus reads.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prism_api::Route;

/// Upper ends of the latency histogram's buckets, seconds.
const BUCKETS: &[f64] = &[
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// What the gateway counts. Its labels are routes of the table and statuses, so their number is bounded.
#[derive(Debug, Default)]
pub(crate) struct Metrics(
    Mutex<BTreeMap<(&'static str, u16), Series>>,
    Mutex<Denied>,
    Mutex<BTreeMap<&'static str, u64>>,
);

/// Requests that were denied, by route and reason.
type Denied = BTreeMap<(&'static str, &'static str), u64>;

#[derive(Debug, Default, Clone)]
struct Series {
    count: u64,
    seconds: f64,
    buckets: [u64; BUCKETS.len()],
}

impl Metrics {
    /// Counts an answer, by the time to its head.
    pub(crate) fn observe(&self, route: Option<&'static Route>, status: u16, took: Duration) {
        let name = route.map_or("unknown", |r| r.op.name());
        let seconds = took.as_secs_f64();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let series = all.entry((name, status)).or_default();
        series.count += 1;
        series.seconds += seconds;
        for (bucket, end) in series.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= *end);
        }
    }

    /// Counts a request that was denied.
    pub(crate) fn denied(&self, route: Option<&'static Route>, reason: &'static str) {
        let name = route.map_or("unknown", |r| r.op.name());
        let mut all = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry((name, reason)).or_default() += 1;
    }

    /// Counts a connection that was refused before it asked anything.
    pub(crate) fn refused(&self, reason: &'static str) {
        let mut all = self.2.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(reason).or_default() += 1;
    }

    /// Counts a connection that ended by what came over it, which was no HTTP or did not come in time. One that has `asked` before and is
    /// silent was kept for a next request.
    pub(crate) fn cut(&self, from: SocketAddr, why: &hyper::Error, asked: bool) {
        let reason = if why.is_parse_too_large() {
            "too_large"
        } else if why.is_parse() {
            "malformed"
        } else if why.is_timeout() && !asked {
            "slow"
        } else if why.is_incomplete_message() {
            "broken_off"
        } else {
            // Clients go away when they like.
            return tracing::debug!(%from, error = %why, "connection ended");
        };
        self.refused(reason);
        tracing::info!(%from, reason, %why, "a connection to the API is refused");
    }

    /// Connections that were refused: to the API, and to the listener for members as that has counted them.
    pub(crate) fn write_refused(&self, members: &BTreeMap<&'static str, u64>, text: &mut Text) {
        let api = self
            .2
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let name = "prism_refused_total";
        text.head(
            name,
            "counter",
            "Connections, joins and renewals that were refused, by listener and reason.",
        );
        for (listener, all) in [("api", &api), ("members", members)] {
            for (reason, count) in all {
                let labels = format!("listener=\"{listener}\",reason=\"{reason}\"");
                text.sample(name, &labels, count);
            }
        }
    }

    fn write_denied(&self, text: &mut Text) {
        let all = self
            .1
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let name = "prism_denied_total";
        text.head(
            name,
            "counter",
            "Requests that were denied, by route and reason.",
        );
        for ((route, reason), count) in all {
            text.sample(
                name,
                &format!("route=\"{route}\",reason=\"{reason}\""),
                count,
            );
        }
    }

    pub(crate) fn write(&self, text: &mut Text) {
        self.write_denied(text);
        let all = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        text.head(
            "prism_http_requests_total",
            "counter",
            "Requests by route and status.",
        );
        let mut by_route: BTreeMap<&str, Series> = BTreeMap::new();
        for ((route, status), series) in &all {
            let labels = format!("route=\"{route}\",status=\"{status}\"");
            text.sample("prism_http_requests_total", &labels, series.count);
            let sum = by_route.entry(route).or_default();
            sum.count += series.count;
            sum.seconds += series.seconds;
            for (a, b) in sum.buckets.iter_mut().zip(series.buckets) {
                *a += b;
            }
        }
        let name = "prism_http_request_duration_seconds";
        text.head(name, "histogram", "Time to the head of the answer.");
        for (route, series) in by_route {
            for (count, end) in series.buckets.iter().zip(BUCKETS) {
                let labels = format!("route=\"{route}\",le=\"{end}\"");
                text.sample(&format!("{name}_bucket"), &labels, count);
            }
            let labels = format!("route=\"{route}\",le=\"+Inf\"");
            text.sample(&format!("{name}_bucket"), &labels, series.count);
            let labels = format!("route=\"{route}\"");
            text.sample(&format!("{name}_sum"), &labels, series.seconds);
            text.sample(&format!("{name}_count"), &labels, series.count);
        }
    }
}

/// Prometheus text being written.
#[derive(Debug, Default)]
pub(crate) struct Text(String);

impl Text {
    pub(crate) fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _written = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub(crate) fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _written = if labels.is_empty() {
            writeln!(self.0, "{name} {value}")
        } else {
            writeln!(self.0, "{name}{{{labels}}} {value}")
        };
    }

    /// A metric with one sample.
    pub(crate) fn single(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        value: impl std::fmt::Display,
    ) {
        self.head(name, kind, help);
        self.sample(name, "", value);
    }

    pub(crate) fn into_string(self) -> String {
        self.0
    }
}

/// Escapes a label's value.
pub(crate) fn label(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
