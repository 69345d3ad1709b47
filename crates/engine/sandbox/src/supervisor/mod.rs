//! The supervisor: a small process with one thread that owns every run of a node, so that the daemon may die and come back.
//!
//! One loop over epoll; each round collects what happened and tells it in one journal write and one frame. Nothing waits in it
//! but the loop itself. `requests` is what daemons ask, `launch` begins runs and `inside` programs in them, by `makers` where it
//! can; `ending` ends them, `output` carries their streams.

mod beginning;
mod bootstrap;
mod children;
mod disk;
mod ending;
mod floods;
mod heir;
mod inside;
mod journal;
mod launch;
mod leases;
mod limits;
mod makers;
mod neighbours;
mod output;
mod peers;
mod places;
mod plain;
mod requests;
mod run;
mod state;
mod waiting;

pub(crate) use disk::files;

use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::epoll;

use self::state::{Supervisor, Token};

/// Writes a line to the supervisor's log. One that cannot be written, because the disk is full, must not be what ends it, as
/// `eprintln` would.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Runs the supervisor if the command line asks for it: `<program> supervise <directory> [idle-milliseconds]`, or
/// `<program> supervise --probe`. Call it first thing in `main`, before any thread exists; it returns when this is another
/// command.
pub fn maybe_supervise() {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some(bootstrap::COMMAND) {
        supervisor_main(args);
    }
}

/// The supervisor itself, with the arguments that follow `supervise`. Returns to nobody.
pub fn supervisor_main(args: impl Iterator<Item = String>) -> ! {
    let mut args = args.peekable();
    if args.peek().is_some_and(|a| a == "--probe") {
        crate::probe::print_and_exit();
    }
    if args.next_if(|a| a == heir::WORD).is_some() {
        let supervisor = args.next().and_then(|pid| pid.parse().ok());
        match supervisor {
            Some(supervisor) => heir::inherit(supervisor),
            None => prism_sys::process::exit(1),
        }
    }
    let why = match bootstrap::Arguments::read(args) {
        Ok(args) => match bootstrap::detach(&args) {
            Ok((proof, ready)) => serve(proof, &args, ready),
            Err(why) => why,
        },
        Err(why) => why,
    };
    say(&why);
    prism_sys::process::exit(1)
}

fn serve(
    proof: prism_sys::process::SingleThread,
    args: &bootstrap::Arguments,
    ready: bootstrap::Ready,
) -> ! {
    let home = match bootstrap::settle(args) {
        Ok(Some(home)) => home,
        // Another one was quicker, which serves as well.
        Ok(None) => {
            ready.well();
            prism_sys::process::exit(0)
        }
        Err(why) => ready.fail(&why),
    };
    // Without it (before Linux 5.3) only the rare child of a supervisor that dies at once is missed.
    let _ = prism_sys::process::will_fork();
    let made = bootstrap::compose(&home.dir).and_then(|()| Supervisor::new(proof, home, args));
    match made {
        Ok(mut supervisor) => {
            ready.well();
            match supervisor.work() {
                Ok(()) => prism_sys::process::exit(0),
                Err(why) => {
                    say(&format!("the supervisor stops: {why}"));
                    prism_sys::process::exit(1)
                }
            }
        }
        Err(why) => {
            say(&format!("the supervisor does not start: {why}"));
            ready.fail(&why)
        }
    }
}

/// Events taken from epoll in one round.
const ROUND: usize = 256;

/// How soon processes that are being killed are looked at again.
const DRAIN_AGAIN: Duration = Duration::from_millis(3);

/// How long nothing must happen before a slot is prepared ahead.
const QUIET: Duration = Duration::from_millis(1);

impl Supervisor {
    /// The loop. Returns after a shutdown, or when nobody has needed it for a while.
    fn work(&mut self) -> Result<(), String> {
        let mut events = Vec::with_capacity(ROUND);
        loop {
            let more = self.launch_queued();
            let draining = self.slots.drain(self.driver.as_deref());
            let wait = self.wait_time(more, draining);
            events.clear();
            let timeout = wait.map(|d| rustix::event::Timespec {
                tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(d.subsec_nanos()),
            });
            let buffer = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(self.epoll.as_fd(), buffer, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(format!("wait for events: {e}")),
            }
            if events.is_empty() && !more && !draining && self.is_quiet() {
                self.slots.warm(self.driver.as_deref());
            }
            for event in &events {
                self.on_event(Token::unpack(event.data.u64()));
            }
            self.end_rests(Instant::now());
            self.look(Instant::now());
            self.fire_timers(Instant::now());
            self.leases.arm();
            self.reap_all(Instant::now());
            self.retire_makers(Instant::now());
            self.count_disks(Instant::now());
            self.look_at_turns(Instant::now());
            self.tell();
            if self.is_done() {
                self.leave();
                return Ok(());
            }
        }
    }

    fn wait_time(&self, more: bool, draining: bool) -> Option<Duration> {
        if more {
            return Some(Duration::ZERO);
        }
        let mut at = self.next_timer();
        let now = Instant::now();
        let mut sooner = |t: Instant| at = Some(at.map_or(t, |a| a.min(t)));
        if let Some(look) = self.next_look() {
            sooner(look);
        }
        if draining {
            sooner(now + DRAIN_AGAIN);
        }
        if self.is_quiet() && self.slots.is_cold() {
            sooner(now + QUIET);
        }
        if let Some(since) = self.unneeded_since {
            sooner(since + self.idle);
        }
        if let Some(due) = self.accounts.due() {
            sooner(due);
        }
        if let Some(due) = self.floods.due() {
            sooner(due);
        }
        if let Some(due) = self.neighbours.due() {
            sooner(due);
        }
        if let Some(held) = self.held_until() {
            sooner(held);
        }
        if let Some(again) = self.journal_again {
            sooner(again);
        }
        if let Some(at) = self.reap_all_at {
            sooner(at);
        }
        if let Some(due) = self.makers.due().filter(|_| self.starting.is_empty()) {
            sooner(due);
        }
        at.map(|t| t.saturating_duration_since(now))
    }

    fn on_event(&mut self, token: Token) {
        match token {
            Token::Listener => self.accept(),
            Token::Signals => self.reap(),
            Token::Wake | Token::News => self.hear_children(),
            Token::Peer(n) => self.serve_peer(n),
            Token::Stream(index, n) => self.pump(index, n),
            Token::Input(index) => self.push_input(index),
            Token::Terminal(index) => self.take_terminal(index),
            Token::Beginning(index) => self.hear_beginning(index),
            Token::Lease => self.end_leases(),
        }
    }
}
