//! One case: a point, an action, a workload that passes it, and what must hold afterwards.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use prism_e2e::{Acknowledged, LIMIT, Leftovers, Oracle, Output, Place, Sandboxes, Server, until};
use prism_faults::{Point, Process};

use crate::plan::{Action, Scenario, plan};
use crate::{grown, image, work};

/// The text of a failing disk, wherever it is told.
const DISK: &str = "Input/output error";

/// A point and what happens there.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub point: &'static Point,
    pub action: Action,
}

/// What a case has seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What became of the process that the fault was in.
    pub ending: &'static str,
    /// Names of the points that were passed.
    pub passed: BTreeSet<String>,
    pub acknowledged: Acknowledged,
    /// Starts after the fault.
    pub restarts: u64,
}

/// A server with its memory, while a case runs.
struct Scene {
    server: Server,
    oracle: Option<Oracle>,
    leftovers: Leftovers,
    archive: String,
    seen: PathBuf,
    fault: String,
}

impl Case {
    pub fn scenario(&self) -> Scenario {
        plan(self.point, self.action).0
    }

    /// As `PRISM_FAULTS` wants it.
    pub fn fault(&self) -> String {
        let (_, at) = plan(self.point, self.action);
        format!("{}={}@{at}", self.point.name, self.action.word())
    }

    /// Runs it.
    pub fn run(&self) -> Result<Seen> {
        let place = Place::new();
        let mut scene = Scene {
            archive: image::write(&place),
            seen: place.path().join("seen"),
            fault: self.fault(),
            server: Server::not_started(place),
            oracle: None,
            leftovers: Leftovers::default(),
        };
        let outcome = match self.scenario() {
            Scenario::Run => self.run_command(&scene),
            _ => self.run_server(&mut scene),
        };
        outcome.with_context(|| format!("\n{}", tail_of(&scene.server.place.logs())))
    }

    fn run_server(&self, scene: &mut Scene) -> Result<Seen> {
        self.prepare(scene)?;
        let seen = scene.seen.to_string_lossy().into_owned();
        let env = [
            ("PRISM_FAULTS", scene.fault.as_str()),
            ("PRISM_FAULTS_SEEN", &seen),
        ];
        let started = scene.server.try_start(&[], &env);
        let mut said = String::new();
        let ending = match started {
            Err(ended) => {
                self.check_end(&ended)?;
                said.push_str(&ended.stderr);
                "ended at its start"
            }
            Ok(()) => self.work(scene, &mut said)?,
        };
        self.check_fired(scene)?;
        if self.action == Action::Eio {
            self.check_told(scene, &said)?;
        }
        let lost = self.point.process == Process::Supervisor || self.scenario() != Scenario::Work;
        let expected = if lost {
            Sandboxes::MayBeLost
        } else {
            Sandboxes::Live
        };
        self.check_after(scene, expected)?;
        Ok(Seen {
            ending,
            passed: passed(&scene.seen),
            acknowledged: scene
                .oracle
                .as_ref()
                .map(Oracle::acknowledged)
                .unwrap_or_default(),
            restarts: 1,
        })
    }

    /// What must be there before the start that fails.
    fn prepare(&self, scene: &mut Scene) -> Result<()> {
        match self.scenario() {
            Scenario::Grown => {
                scene.oracle = Some(grown::copy_into(&scene.server.place));
                return Ok(());
            }
            Scenario::Again | Scenario::Torn => {}
            _ => return Ok(()),
        }
        scene.server.restart();
        let api = scene.server.api().clone();
        let mut oracle = Oracle::new(&api, "before")?;
        let refused = work::everything(&mut oracle, &api, &scene.archive);
        ensure!(refused.is_empty(), "before the fault: {refused:?}");
        scene.leftovers.note(&scene.server.place);
        oracle.check(&api, Sandboxes::Live)?;
        scene.oracle = Some(oracle);
        scene.server.kill();
        scene.server.place.kill_all();
        let data = scene.server.place.data();
        if self.scenario() == Scenario::Torn {
            let (segment, end) = grown::tail(&scene.server.place);
            let path = data.join(format!("store/log/{segment:020}.seg"));
            let file = fs::OpenOptions::new().write(true).open(path)?;
            file.write_all_at(&[0xa5; 100], end)?;
        }
        fs::write(data.join("store/vote.tmp"), "half of it")?;
        fs::create_dir_all(data.join("worker/scratch/nobody"))?;
        Ok(())
    }

    /// Works until the fault happens, and says what became of the process that it was in.
    fn work(&self, scene: &mut Scene, said: &mut String) -> Result<&'static str> {
        let api = scene.server.api().clone();
        scene.leftovers.note(&scene.server.place);
        if scene.oracle.is_none() {
            // The fault may be in the way of the first request already.
            scene.oracle = Oracle::new(&api, "case")
                .map_err(|e| said.push_str(&format!("{e:#}")))
                .ok();
        }
        if let Some(oracle) = &mut scene.oracle {
            let refused = match self.scenario() {
                Scenario::Grown => work::large_jobs(oracle, &api, 5),
                Scenario::Rewrite => work::long_programs(oracle, &api, 8),
                Scenario::Output => work::much_output(oracle, &api),
                _ => work::everything(oracle, &api, &scene.archive),
            };
            said.push_str(&refused.join("\n"));
        }
        if self.scenario() == Scenario::Leave {
            let ended = scene.server.stop();
            ensure!(ended.code == Some(0), "{}", ended.stderr);
            return Ok("ended as told");
        }
        until(&format!("{} to happen", scene.fault), || {
            self.fired(scene).then_some(())
        });
        if self.must_end() {
            let ended = scene.server.ended();
            said.push_str(&ended.stderr);
            self.check_end(&ended)?;
            return Ok("ended");
        }
        self.live_on(scene, said)
    }

    /// Whether `prismd` cannot live on after this.
    fn must_end(&self) -> bool {
        let daemon = self.point.process == Process::Daemon;
        daemon && (self.action.is_deadly() || self.point.name.starts_with("raft."))
    }

    /// The fault was in a part of the server, or in its supervisor: either it ends with a word, or it works as before.
    fn live_on(&self, scene: &mut Scene, said: &mut String) -> Result<&'static str> {
        let api = scene.server.api().clone();
        let Some(oracle) = &mut scene.oracle else {
            bail!("it lives, and gave no token: {said}");
        };
        let works = oracle
            .submit(&api, 3)
            .and_then(|_| oracle.check(&api, Sandboxes::MayBeLost));
        match works {
            Ok(()) => {
                let lives = self.point.process == Process::Supervisor;
                scene.server.kill();
                Ok(if lives {
                    "its supervisor was replaced"
                } else {
                    "refused one request and went on"
                })
            }
            Err(_) if ends(&mut scene.server) => {
                let ended = scene.server.ended();
                said.push_str(&ended.stderr);
                self.check_end(&ended)?;
                Ok("ended")
            }
            Err(e) => Err(e).context("it lives on and does not work"),
        }
    }

    fn fired(&self, scene: &Scene) -> bool {
        let text = fs::read_to_string(&scene.seen).unwrap_or_default();
        text.contains(&format!("failed {}\n", scene.fault))
    }

    fn check_fired(&self, scene: &Scene) -> Result<()> {
        ensure!(self.fired(scene), "the point was not passed");
        Ok(())
    }

    /// A process that ended by itself did so as it should.
    fn check_end(&self, ended: &Output) -> Result<()> {
        let Output { code, stderr, .. } = ended;
        let daemon = self.point.process == Process::Daemon;
        match self.action {
            Action::Abort | Action::Kill if daemon => ensure!(code.is_none(), "{code:?}: {stderr}"),
            Action::Eio => {
                ensure!(code.is_some_and(|c| c != 0), "{code:?}: {stderr}");
                ensure!(!stderr.contains("panicked at"), "{stderr}");
            }
            _ => ensure!(*code != Some(0), "{stderr}"),
        }
        Ok(())
    }

    /// A failing disk is told: in an answer, on standard error, or in the supervisor's log.
    fn check_told(&self, scene: &Scene, said: &str) -> Result<()> {
        // What the point itself prints does not name the error; at these two nothing is lost, so nothing is told.
        let quiet = ["sup.leave.before_remove", "sup.output.before_remove"];
        let told = said.contains(DISK) || scene.server.place.logs().contains(DISK);
        ensure!(
            told || quiet.contains(&self.point.name),
            "nobody tells of the disk: {said}"
        );
        Ok(())
    }

    /// A clean start: everything is there, new work is done, and in the end nothing is left.
    fn check_after(&self, scene: &mut Scene, sandboxes: Sandboxes) -> Result<()> {
        scene.leftovers.note(&scene.server.place);
        if let Err(refused) = scene.server.try_start(&[], &[]) {
            bail!("it does not start again: {}", refused.stderr);
        }
        let api = scene.server.api().clone();
        let oracle = match &mut scene.oracle {
            Some(oracle) => oracle,
            None => scene.oracle.insert(Oracle::new(&api, "after")?),
        };
        oracle.submit(&api, 3).context("new work")?;
        oracle.check(&api, sandboxes)?;
        let sandbox = oracle.sandbox(&api).context("a new sandbox")?;
        oracle.file(&api, sandbox, b"new").context("a new file")?;
        scene.leftovers.note(&scene.server.place);
        let ended = scene.server.stop();
        ensure!(ended.code == Some(0), "its end: {}", ended.stderr);
        scene.leftovers.assert_none(&scene.server.place);
        strays(&scene.server.place.data())
    }

    /// `prismctl run`, and the same command again.
    fn run_command(&self, scene: &Scene) -> Result<Seen> {
        let place = &scene.server.place;
        let file = place.write(
            "job.yaml",
            "job: case\ncommand: [echo, ok]\narray: 12\nresources: {cpu: 50m, memory: 32Mi}\n",
        );
        let run = || {
            let mut command = place.command("prismctl");
            command.args(["run", &file, "-o", "json"]);
            command
        };
        let mut armed = run();
        armed
            .env("PRISM_FAULTS", &scene.fault)
            .env("PRISM_FAULTS_SEEN", &scene.seen);
        let ended = place.launch(armed).wait(LIMIT);
        self.check_fired(scene)?;
        match self.action {
            Action::Eio => {
                ensure!(ended.code == Some(1), "{:?}: {}", ended.code, ended.stderr);
                ensure!(ended.stderr.contains(DISK), "{}", ended.stderr);
            }
            Action::Panic => ensure!(ended.code != Some(0), "{}", ended.stderr),
            _ => ensure!(ended.code.is_none(), "{:?}: {}", ended.code, ended.stderr),
        }
        let again = place.launch(run()).wait(LIMIT);
        ensure!(
            again.code == Some(0),
            "again: {:?}: {}",
            again.code,
            again.stderr
        );
        let job = again.json();
        ensure!(
            job["counts"]["completed"] == 12 && job["counts"]["total"] == 12,
            "{job}"
        );
        Leftovers::default().assert_none(place);
        Ok(Seen {
            ending: "ended",
            passed: passed(&scene.seen),
            acknowledged: Acknowledged {
                jobs: 1,
                tasks: 12,
                ..Acknowledged::default()
            },
            restarts: 1,
        })
    }
}

/// Whether a server that does not answer as it should is on its way out.
fn ends(server: &mut Server) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !server.is_over() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    server.is_over()
}

/// Names of the points in a file of what was seen.
fn passed(seen: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(seen).unwrap_or_default();
    let names = text.lines().filter_map(|l| l.strip_prefix("passed "));
    names.map(str::to_owned).collect()
}

/// Nothing half-written may be there once a server has started.
fn strays(data: &Path) -> Result<()> {
    let mut left = Vec::new();
    for dir in [
        "",
        "store",
        "store/log",
        "worker/jobs",
        "worker/sandboxes",
        "worker/snapshots",
        "images/tmp",
        "images/images",
        "supervisor",
    ] {
        for entry in fs::read_dir(data.join(dir)).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let half = name.starts_with('.') || name.ends_with(".tmp") || name.ends_with(".new");
            if half || dir == "images/tmp" {
                left.push(format!("{dir}/{name}"));
            }
        }
    }
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

/// The end of a text, for messages.
fn tail_of(text: &str) -> &str {
    let mut start = text.len().saturating_sub(3_000);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}
