//! `cargo xtask plots`: runs the benches that have a curve, keeps what they printed in `docs/performance/`, and draws it.

mod chart;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::repo::Repo;
use chart::{Chart, Series};

/// Where results and plots are kept.
const DIR: &str = "docs/performance";

/// A number of a point of a curve, if it has it.
type Figure = fn(&Value) -> Option<f64>;

/// A plot: of which bench, and how it is drawn from the bench's curve.
struct Plot {
    bench: &'static str,
    file: &'static str,
    title: &'static str,
    across: &'static str,
    up: &'static str,
    /// Which points of the curve count.
    only: fn(&Value) -> bool,
    x: Figure,
    series: &'static [(&'static str, Figure)],
}

fn per_sandbox(point: &Value, seconds: &str) -> Option<f64> {
    Some(point[seconds].as_f64()? * 1000.0 / point["count"].as_f64()?)
}

const PLOTS: &[Plot] = &[
    Plot {
        bench: "task-overhead",
        file: "task-overhead",
        title: "What Prism itself costs per task",
        across: "tasks in the job",
        up: "microseconds per task",
        only: |_| true,
        x: |p| p["tasks"].as_f64(),
        series: &[("no-op tasks", |p| p["us_per_task"].as_f64())],
    },
    Plot {
        bench: "burst",
        file: "burst",
        title: "Many sandboxes at once: cost of each",
        across: "sandboxes alive at once",
        up: "milliseconds per sandbox",
        only: |_| true,
        x: |p| p["count"].as_f64(),
        series: &[
            ("up", |p| per_sandbox(p, "up_s")),
            ("down", |p| per_sandbox(p, "down_s")),
        ],
    },
    Plot {
        bench: "sandbox-start",
        file: "sandbox-start-alive",
        title: "Start of one sandbox beside others",
        across: "sandboxes alive already",
        up: "milliseconds to the first byte",
        only: |p| p["at_once"] == 1,
        x: |p| Some(p["alive"].as_f64()?.max(1.0)),
        series: &[
            ("p50", |p| p["p50_ms"].as_f64()),
            ("p99", |p| p["p99_ms"].as_f64()),
        ],
    },
    Plot {
        bench: "sandbox-start",
        file: "sandbox-start-at-once",
        title: "Start of sandboxes asked for at once",
        across: "asked for at once",
        up: "milliseconds to the first byte",
        only: |p| p["alive"] == 0,
        x: |p| p["at_once"].as_f64(),
        series: &[
            ("p50", |p| p["p50_ms"].as_f64()),
            ("p99", |p| p["p99_ms"].as_f64()),
        ],
    },
    Plot {
        bench: "worker-scale",
        file: "worker-scale",
        title: "What workers cost a server that only keeps them",
        across: "workers with a session",
        up: "percent of a processor",
        only: |_| true,
        x: |p| p["workers"].as_f64(),
        series: &[("all", |p| p["heartbeat_cpu_percent"].as_f64())],
    },
    Plot {
        bench: "worker-scale",
        file: "worker-scale-list",
        title: "How long a list of nodes takes",
        across: "workers with a session",
        up: "milliseconds",
        only: |_| true,
        x: |p| p["workers"].as_f64(),
        series: &[
            ("first 100", |p| p["node_ls_ms"].as_f64()),
            ("all", |p| p["node_ls_all_ms"].as_f64()),
        ],
    },
];

/// Measures and draws; with `--kept`, draws what was measured before.
pub fn main(repo: &Repo, args: &[String]) -> Result<ExitCode> {
    let kept = match args {
        [] => false,
        [only] if only == "--kept" => true,
        _ => bail!("usage: cargo xtask plots [--kept]"),
    };
    let dir = repo.root.join(DIR);
    std::fs::create_dir_all(&dir)?;
    let mut measured = Vec::new();
    for plot in PLOTS {
        let path = dir.join(format!("{}.json", plot.bench));
        if !kept && !measured.contains(&plot.bench) {
            std::fs::write(&path, run(repo, plot.bench)?)?;
            measured.push(plot.bench);
        }
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("{} is not there: run `cargo xtask plots`", path.display()))?;
        let result: Value = serde_json::from_str(&text)?;
        let svg = draw(plot, &result)?;
        let file = format!("{}.svg", plot.file);
        std::fs::write(dir.join(&file), svg)?;
        println!("{DIR}/{file}");
    }
    Ok(ExitCode::SUCCESS)
}

/// One bench's result, as it is kept.
fn run(repo: &Repo, bench: &str) -> Result<String> {
    let out = repo
        .cargo()
        .args([
            "run",
            "--release",
            "--quiet",
            "-p",
            "prism-bench",
            "--",
            bench,
        ])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cargo could not be started")?;
    if !out.status.success() {
        bail!("{bench} did not finish; nothing was drawn of it");
    }
    let result: Value = serde_json::from_slice(&out.stdout)?;
    Ok(serde_json::to_string_pretty(&result)? + "\n")
}

fn draw(plot: &Plot, result: &Value) -> Result<String> {
    let curve = result["metrics"]["curve"]
        .as_array()
        .with_context(|| format!("{} has no curve", plot.bench))?;
    let points: Vec<&Value> = curve.iter().filter(|p| (plot.only)(p)).collect();
    let series = plot.series.iter().map(|(name, y)| Series {
        name,
        points: points
            .iter()
            .filter_map(|p| Some(((plot.x)(p)?, y(p)?)))
            .collect(),
    });
    let host = &result["host"];
    let cpus = host["cpus"].as_u64().unwrap_or_default();
    let kernel = host["kernel"].as_str().unwrap_or("?");
    Ok(Chart {
        title: plot.title,
        note: format!(
            "{cpus} processors, Linux {}",
            kernel.split('-').next().unwrap_or(kernel)
        ),
        across: plot.across,
        up: plot.up,
        series: series.collect(),
    }
    .svg())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_plot_is_drawn_from_a_curve_like_its_benchs() {
        let result = json!({"metrics": {"curve": [
            {"tasks": 10, "us_per_task": 3.0, "count": 10, "up_s": 1.0, "down_s": 0.5, "alive": 0, "at_once": 1, "p50_ms": 1.0, "p99_ms": 2.0,
             "workers": 100, "heartbeat_cpu_percent": 1.0, "node_ls_ms": 1.0, "node_ls_all_ms": 1.0},
            {"tasks": 100, "us_per_task": 4.0, "count": 100, "up_s": 2.0, "down_s": 0.5, "alive": 0, "at_once": 1, "p50_ms": 1.5, "p99_ms": 9.0,
             "workers": 5000, "heartbeat_cpu_percent": 9.0, "node_ls_ms": 5.0, "node_ls_all_ms": 90.0},
        ]}, "host": {"cpus": 2, "kernel": "6.1.0-x"}});
        for plot in PLOTS {
            let svg = draw(plot, &result).unwrap();
            assert_eq!(
                svg.matches("<polyline").count(),
                plot.series.len(),
                "{}",
                plot.file
            );
            assert!(svg.contains(plot.title) && svg.contains("Linux 6.1.0"));
        }
        assert!(draw(&PLOTS[0], &json!({})).is_err(), "no curve, no plot");
    }
}
