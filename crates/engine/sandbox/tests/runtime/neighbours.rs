//! A run that uses its processor limit up is held, Prism's own processes keep off, and programs are none the wiser.

use std::time::{Duration, Instant};

use prism_runtime::Isolation::Plain;
use prism_runtime::{RunEvent, Runtime};
use prism_types::{MilliCpu, Millis};

use super::support::{Node, id};

const BUSY: [&str; 3] = [
    "/bin/sh",
    "-c",
    "for i in 1 2 3; do while :; do :; done & done; wait",
];
const PLACE: [&str; 3] = ["/bin/grep", "Cpus_allowed_list", "/proc/self/status"];

/// The processors that a process may use, as the kernel lists them.
fn allowed(pid: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/status"))
        .unwrap_or_default()
        .lines()
        .find_map(|l| l.strip_prefix("Cpus_allowed_list:"))
        .map(|l| l.trim().to_owned())
        .unwrap_or_default()
}

fn count(list: &str) -> usize {
    let number = |text: &str| text.parse::<usize>().unwrap();
    list.split(',')
        .map(|part| match part.split_once('-') {
            Some((first, last)) => number(last) - number(first) + 1,
            None => 1,
        })
        .sum()
}

fn wait_for(what: &str, is: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !is() {
        assert!(Instant::now() < until, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A sandbox with a limit of one processor, in which a program uses that up; the program's number.
fn crowd(node: &Node) -> String {
    let mut hog = node.sandbox("hog");
    hog.limits.cpu = MilliCpu(1_000);
    node.rt().launch(vec![hog]).unwrap();
    node.wait_start(&id("hog"));
    node.rt().exec(node.exec("busy", "hog", &BUSY)).unwrap();
    node.wait_start(&id("busy")).to_string()
}

/// What programs see that begin meanwhile, in either way.
fn places(node: &Node, n: usize) -> Vec<String> {
    let (inside, task, plain) = (format!("in-{n}"), format!("t-{n}"), format!("p-{n}"));
    node.rt().exec(node.exec(&inside, "good", &PLACE)).unwrap();
    node.wait_exit(&id(&inside));
    let script = PLACE.join(" ");
    node.run(node.task(&task, prism_runtime::Isolation::Sandboxed, &script));
    node.run(node.task(&plain, Plain, &script));
    let seen = [inside, task, plain].map(|name| node.stdout(&name));
    let list = |text: &String| {
        text.split_whitespace()
            .last()
            .unwrap_or_default()
            .to_owned()
    };
    seen.iter().map(list).collect()
}

pub fn who_crowds_is_held() {
    let all = allowed("self");
    assert!(count(&all) > 1, "nobody can be held on a single processor");
    let node = Node::new();
    node.rt().launch(vec![node.sandbox("good")]).unwrap();
    node.wait_start(&id("good"));
    assert_eq!(places(&node, 0), vec![all.clone(); 3]);
    let supervisor = node.supervisor().to_string();
    let busy = crowd(&node);
    wait_for("the busy one to be held", || count(&allowed(&busy)) == 1);
    wait_for("the others to keep off", || allowed("self") != all);
    let held = allowed(&busy);
    for pid in ["self", &supervisor] {
        let rest = allowed(pid);
        assert_eq!(count(&rest) + 1, count(&all), "{pid} keeps to {rest}");
        assert_ne!(rest, held);
    }
    assert_eq!(places(&node, 1), vec![all.clone(); 3], "they may use all");
    // Its sandbox lives on, with nothing in it that computes.
    node.rt().stop(&[id("busy")], Millis(0)).unwrap();
    node.wait_exit(&id("busy"));
    wait_for("all to be free again", || allowed("self") == all);
    assert_eq!(allowed(&supervisor), all);
    node.rt().exec(node.exec("again", "hog", &PLACE)).unwrap();
    node.wait_exit(&id("again"));
    assert!(node.stdout("again").trim_end().ends_with(&all));
    assert_eq!(places(&node, 2), vec![all.clone(); 3]);
}

pub fn nobody_keeps_off_for_the_dead() {
    let all = allowed("self");
    let node = Node::new();
    let busy = crowd(&node);
    wait_for("the busy one to be held", || count(&allowed(&busy)) == 1);
    wait_for("the others to keep off", || allowed("self") != all);
    let supervisor = rustix::process::Pid::from_raw(node.supervisor().cast_signed()).unwrap();
    rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).unwrap();
    node.wait("the next supervisor", |events| {
        events.contains(&RunEvent::Restarted).then_some(())
    });
    assert_eq!(allowed("self"), all);
    assert_eq!(allowed(&node.supervisor().to_string()), all);
    node.rt().launch(vec![node.sandbox("good")]).unwrap();
    assert_eq!(places(&node, 0), vec![all.clone(); 3]);
}
