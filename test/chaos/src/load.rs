//! Clients of the registers: threads that write and read a few namespaces through all servers, and write down what they asked for, when,
//! and what they were answered.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use prism_api::Op;
use prism_client::{Ask as Request, ClientError};
use prism_e2e::chaos::Random;
use prism_types::{Outcome, Reason};
use serde_json::{Value, json};

use crate::counts::{Counts, Ended};
use crate::desk::{Access, Desk};
use crate::linear::Span;
use crate::register::{Answer, Ask, Call};

/// Registers that are in use at once.
const OPEN: usize = 3;
/// Calls after which a register is left for a new one: the search gets longer with them.
const CALLS: usize = 240;
/// The same for calls of which nobody knows what became of them.
const UNKNOWN: usize = 6;
/// Most registers; the cluster has room for a thousand namespaces.
const REGISTERS: usize = 900;
/// How long a client waits for an answer, all its repetitions included.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest pause between two calls of a client, ms.
const PAUSE_MS: u64 = 60;

/// What one register was asked for.
#[derive(Debug, Default)]
pub struct Register {
    /// Its name.
    pub name: String,
    /// Calls, in the order of their ends.
    pub calls: Vec<Span<Call>>,
    begun: usize,
    unknown: usize,
}

#[derive(Debug, Default)]
struct Registers {
    all: Vec<Register>,
    open: Vec<usize>,
}

impl Registers {
    fn fresh(&mut self, seed: u64) -> usize {
        let at = self.all.len();
        self.all.push(Register {
            name: format!("r{at}-{:x}", seed & 0xffff),
            ..Register::default()
        });
        at
    }
}

/// All registers, and the clock of their histories.
#[derive(Debug)]
pub struct Histories {
    began: Instant,
    seed: u64,
    registers: Mutex<Registers>,
}

impl Histories {
    /// Of registers of which none was asked for anything yet.
    pub fn new(seed: u64) -> Self {
        let mut registers = Registers::default();
        for _ in 0..OPEN {
            let at = registers.fresh(seed);
            registers.open.push(at);
        }
        Self {
            began: Instant::now(),
            seed,
            registers: Mutex::new(registers),
        }
    }

    fn registers(&self) -> MutexGuard<'_, Registers> {
        self.registers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Nanoseconds since the begin.
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// What to do next, and to which register.
    fn draw(&self, random: &mut Random) -> (usize, String, Ask) {
        let mut registers = self.registers();
        let slot = random.below(OPEN as u64) as usize;
        let mut at = registers.open[slot];
        let of = &registers.all[at];
        if (of.begun >= CALLS || of.unknown >= UNKNOWN) && registers.all.len() < REGISTERS {
            at = registers.fresh(self.seed);
            registers.open[slot] = at;
        }
        let register = &mut registers.all[at];
        register.begun += 1;
        // Each value is written once.
        let v = u32::try_from(register.begun).unwrap_or(u32::MAX);
        let ask = match random.below(20) {
            0..6 => Ask::Put(v),
            6..8 => Ask::Create(v),
            8..10 => Ask::Set(v),
            10 => Ask::Remove,
            _ => Ask::Get,
        };
        (at, register.name.clone(), ask)
    }

    fn note(&self, at: usize, span: Span<Call>) {
        let mut registers = self.registers();
        let register = &mut registers.all[at];
        register.unknown += usize::from(span.to.is_none());
        register.calls.push(span);
    }

    /// Reads every register once more, at one server after the other: what was acknowledged is in the end still there.
    ///
    /// # Errors
    /// When one cannot be read although all is well.
    pub fn read_all(&self, access: &Access, counts: &Mutex<Counts>) -> Result<()> {
        let desk = Desk::patient(access, Duration::from_secs(20))?;
        let names: Vec<String> = self
            .registers()
            .all
            .iter()
            .map(|r| r.name.clone())
            .collect();
        for (at, name) in names.iter().enumerate() {
            let ended = self.call(&desk, at % desk.servers(), (at, name, Ask::Get), counts);
            anyhow::ensure!(ended == Ended::Known, "{name} cannot be read in the end");
        }
        Ok(())
    }

    /// One call, written down.
    fn call(
        &self,
        desk: &Desk,
        server: usize,
        (at, name, ask): (usize, &str, Ask),
        counts: &Mutex<Counts>,
    ) -> Ended {
        let from = self.now();
        let answered = desk.ask(server, request(name, ask));
        let to = self.now();
        let (answer, ended) = known(ask, &answered);
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.call(ask.kind(), ended, answered.err().map(|e| e.to_string()));
        drop(counts);
        let span = |to| Span {
            call: Call { ask, answer },
            from,
            to,
        };
        match ended {
            Ended::Known => self.note(at, span(Some(to))),
            // A read that has no answer says nothing.
            Ended::Unknown if ask != Ask::Get => self.note(at, span(None)),
            Ended::Unknown | Ended::Undone => {}
        }
        ended
    }

    /// All that was written down.
    pub fn all(self) -> Vec<Register> {
        let registers = self.registers.into_inner();
        registers.unwrap_or_else(PoisonError::into_inner).all
    }
}

/// How a client asks for it.
fn request(name: &str, ask: Ask) -> Request {
    let put = |v: u32| {
        let quota = json!({"instances": v});
        Request::new(Op::NamespacePut).at(name).json(&quota)
    };
    match ask {
        Ask::Put(v) => put(v),
        Ask::Create(v) => put(v).query("new", true),
        Ask::Set(v) => put(v).query("new", false),
        Ask::Remove => Request::new(Op::NamespaceRemove).at(name),
        Ask::Get => Request::new(Op::NamespaceGet).at(name),
    }
}

/// What is known of what became of a call.
fn known(ask: Ask, answered: &Result<Value, ClientError>) -> (Answer, Ended) {
    let error = match answered {
        Ok(view) if ask == Ask::Get => {
            let held = view["quota"]["instances"].as_u64();
            let held = held.and_then(|v| u32::try_from(v).ok());
            // Every register holds a number: an answer without one is none of it, and no history has it.
            return (Answer::Holds(held.unwrap_or(u32::MAX)), Ended::Known);
        }
        Ok(_) => return (Answer::Done, Ended::Known),
        Err(error) => error,
    };
    match (error.reason(), error.outcome()) {
        (Some(Reason::Conflict | Reason::NotFound), Outcome::NotApplied) => {
            (Answer::Refused, Ended::Known)
        }
        (_, Outcome::NotApplied) => (Answer::Unknown, Ended::Undone),
        (_, Outcome::Applied) if ask != Ask::Get => (Answer::Done, Ended::Known),
        (_, Outcome::Applied | Outcome::Unknown) => (Answer::Unknown, Ended::Unknown),
    }
}

/// A client: asks until it is told to stop.
///
/// # Errors
/// When it cannot be one.
pub fn client(
    access: &Access,
    histories: &Histories,
    counts: &Mutex<Counts>,
    mut random: Random,
    stop: &AtomicBool,
) -> Result<()> {
    let desk = Desk::patient(access, PATIENCE)?;
    while !stop.load(Ordering::Relaxed) {
        let (at, name, ask) = histories.draw(&mut random);
        let server = random.below(desk.servers() as u64) as usize;
        histories.call(&desk, server, (at, &name, ask), counts);
        std::thread::sleep(random.moment(PAUSE_MS));
    }
    Ok(())
}
