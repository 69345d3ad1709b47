//! Delay and reordering of packets, in user space: not every kernel has `netem`. A machine's wire is taken off the bridge, and a program
//! (`test/shim/delay.c`) carries frames between it and another wire to the bridge, each after a time of its own.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prism_e2e::net::wire;
use prism_e2e::{Place, Running, until_within};
use rustix::process::Signal;

/// How long the program may take to begin and to end.
const WAIT: Duration = Duration::from_secs(30);

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delayed {
    /// Frames that were carried.
    pub frames: u64,
    /// Those of them that another one overtook.
    pub overtaken: u64,
}

/// A machine whose packets are delayed. Ended when it is dropped, but not put back on the bridge.
#[derive(Debug)]
pub struct Delay {
    running: Running,
    port: usize,
}

impl Delay {
    /// Delays what a place on the bridge gets and sends, by so many milliseconds.
    ///
    /// # Errors
    /// When the program does not build or begin, or a device cannot be changed.
    pub fn begin(place: &Place, port: usize, (least, most): (u64, u64)) -> Result<Self> {
        let program = place.path().join("delay");
        if !program.exists() {
            build(&program)?;
        }
        wire(
            &[],
            &format!(
                "ip link set v{port} nomaster arp off
                 ip link add d{port} type veth peer name b{port}
                 ip link set d{port} arp off up
                 ip link set b{port} master br0 up"
            ),
        )?;
        let mut command = Command::new(&program);
        command
            .args([format!("v{port}"), format!("d{port}")])
            .args([least.to_string(), most.to_string()])
            .env("PLACE", place.path());
        let mut running = place.launch(command);
        until_within(WAIT, "the delay to begin", || {
            (running.is_over() || running.stdout().contains("ready")).then_some(())
        });
        let said = running.stderr();
        ensure!(!running.is_over(), "the delay has ended by itself: {said}");
        Ok(Self { running, port })
    }

    /// Ends it; what came of it.
    ///
    /// # Errors
    /// When it had ended by itself, or the machine does not come back on the bridge.
    pub fn end(self) -> Result<Delayed> {
        let port = self.port;
        self.running.signal(Signal::TERM);
        let output = self.running.wait(WAIT);
        wire(
            &[],
            &format!("ip link set v{port} arp on master br0; ip link del d{port}"),
        )?;
        let (code, said) = (output.code, &output.stderr);
        ensure!(code == Some(0), "the delay ended with {code:?}: {said}");
        counts(&output.stdout).with_context(|| format!("the delay said {:?}", output.stdout))
    }
}

fn build(program: &std::path::Path) -> Result<()> {
    let output = Command::new("cc")
        .args(["-O1", "-o"])
        .arg(program)
        .arg(Place::repo("test/shim/delay.c"))
        .output()
        .context("starting cc")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cc: {said}");
    Ok(())
}

fn counts(said: &str) -> Option<Delayed> {
    let line = said.lines().find(|l| l.starts_with("delayed "))?;
    let words: Vec<&str> = line.split(' ').collect();
    let after = |name: &str| -> Option<u64> {
        let at = words.iter().position(|w| *w == name)?;
        words.get(at + 1)?.parse().ok()
    };
    Some(Delayed {
        frames: after("delayed")?,
        overtaken: after("overtaken")?,
    })
}
