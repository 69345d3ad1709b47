//! Promise: on a terminal of 80 columns nothing is wider than it, a sandbox's own terminal works as one at home, lists that
//! are watched follow, and in a pipe there is neither colour nor a bar.

use std::process::Command;

use prism_e2e::{LIMIT, Output, Place, Shared};
use serde_json::{Value, json};

static SERVER: Shared = Shared::new();

/// Runs a program on a pseudo terminal: waits for each text and then types an answer, or changes the width (`cols=N`). Ends
/// as the program does (130 for an interrupt); it is killed when a text does not come.
const DRIVER: &str = r#"
import fcntl, json, os, pty, select, signal, struct, sys, termios, time
columns, steps, argv = int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]
def size(fd, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
pid, fd = pty.fork()
if pid == 0:
    # Before the program can ask for it.
    size(0, columns)
    # A shell has what it runs in the background ignore interrupts, and so would the tests that it runs there.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execvp(argv[0], argv)
seen, at, deadline = b"", 0, time.monotonic() + 100
while time.monotonic() < deadline:
    while steps:
        found = seen.find(steps[0][0].encode(), at)
        if found < 0:
            break
        at = found + len(steps[0][0].encode())
        send = steps.pop(0)[1]
        if send.startswith("cols="):
            size(fd, int(send[5:]))
        else:
            os.write(fd, send.encode())
    if select.select([fd], [], [], 0.1)[0]:
        try:
            data = os.read(fd, 65536)
        except OSError:
            data = b""
        if not data:
            break
        seen += data
else:
    os.kill(pid, 9)
sys.stdout.buffer.write(seen)
sys.stdout.flush()
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
os._exit(code if code >= 0 else 128 - code)
"#;

/// `prismctl` on a terminal of so many columns.
fn on_terminal(place: &Place, columns: u16, steps: &Value, args: &[&str]) -> Output {
    terminal(place, columns, steps, args, &[])
}

fn terminal(
    place: &Place,
    columns: u16,
    steps: &Value,
    args: &[&str],
    env: &[(&str, &str)],
) -> Output {
    let prismctl = place.command("prismctl");
    let mut command = Command::new("python3");
    command
        .args(["-c", DRIVER, &columns.to_string(), &steps.to_string()])
        .arg(prismctl.get_program())
        .args(args)
        .env_clear()
        .current_dir(place.work());
    for (name, value) in prismctl.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command.env_remove("NO_COLOR").env("TERM", "xterm");
    command.envs(env.iter().copied());
    place.launch(command).wait(LIMIT)
}

/// The text without what moves the cursor or colours.
fn bare(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        out.push_str(before);
        rest = after.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        rest = rest.get(1..).unwrap_or_default();
    }
    (out + rest).replace('\r', "")
}

#[track_caller]
fn fits(place: &Place, columns: u16, args: &[&str]) {
    let shown = bare(&on_terminal(place, columns, &json!([]), args).stdout);
    assert!(!shown.trim().is_empty(), "{args:?}");
    for line in shown.lines() {
        assert!(
            line.chars().count() <= usize::from(columns),
            "{args:?}: {line}"
        );
        assert_eq!(line.trim_end(), line, "{args:?}: blanks at the end");
    }
}

#[test]
fn nothing_is_wider_than_80_columns() {
    let server = SERVER.get();
    let place = &server.place;
    let half = json!({"job": "half-of-it-fails", "command": ["sh", "-c", "exit $PRISM_TASK_INDEX"], "array": 2,
                      "resources": {"cpu": "50m", "memory": "16Mi"}});
    let id = server.submit(&half);
    assert_eq!(server.finished(&id)["status"], "PARTIALLY_COMPLETED");
    server
        .ctl(&["sandbox", "create", "--name", "shown"])
        .expect(0);
    for line in [
        "info",
        "node ls",
        "node top",
        "job ls",
        "job get half-of-it-fails",
        "job results half-of-it-fails",
        "explain half-of-it-fails",
        "explain half-of-it-fails.1",
        "explain PRISM-C004",
        "explain out_of_memory",
        "sandbox ls",
        "sandbox get shown",
        "sweep ls",
        "image ls",
        "token ls",
        "events",
        "doctor",
        "job get nothing-of-that-name",
        "job cancel half-of-it-fails",
        "job sumbit",
        "sandbox exec shown -- nosuch",
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        fits(place, 80, &args);
    }
    let list = bare(&on_terminal(place, 80, &json!([]), &["job", "ls"]).stdout);
    assert!(list.contains(&id), "an id is there to be copied: {list}");
    for columns in [40, 60] {
        for noun in ["job", "node", "sandbox", "token"] {
            fits(place, columns, &[noun, "ls"]);
        }
    }
    server.ctl(&["sandbox", "rm", "shown"]).expect(0);
}

#[test]
fn a_terminal_in_a_sandbox_is_one() {
    let server = SERVER.get();
    server
        .ctl(&["sandbox", "create", "--name", "tty"])
        .expect(0);
    let steps = json!([
        ["# ", "stty size; echo term=$TERM\r"],
        ["24 80", ""],
        ["term=xterm", "cols=100"],
        // The shell is asked until it has heard of the new width.
        [
            "# ",
            "until stty size | grep -q 100; do sleep 0.05; done; echo wi''de\r"
        ],
        ["wide", "sleep 600\r"],
        ["sleep 600", "\u{3}"],
        ["# ", "exit 5\r"],
    ]);
    let args = [
        "sandbox", "exec", "-i", "-t", "tty", "--", "env", "PS1=# ", "sh",
    ];
    let output = on_terminal(&server.place, 80, &steps, &args).expect(5);
    assert!(output.stdout.contains("^C"), "{}", output.stdout);
    let refused = server
        .ctl(&["sandbox", "exec", "-t", "tty", "--", "true"])
        .expect(2);
    assert!(
        refused.stderr.contains("needs a terminal"),
        "{}",
        refused.stderr
    );
    server.ctl(&["sandbox", "rm", "tty"]).expect(0);
}

#[test]
fn a_watched_list_is_drawn_again_until_it_is_interrupted() {
    let server = SERVER.get();
    server
        .ctl(&["sandbox", "create", "--name", "watched"])
        .expect(0);
    // The age of the sandbox changes, so the list does.
    let steps = json!([
        ["\u{1b}[H\u{1b}[2J", ""],
        ["watched", ""],
        ["\u{1b}[H\u{1b}[2J", ""],
        ["watched", "\u{3}"]
    ]);
    let args = ["sandbox", "ls", "--watch"];
    on_terminal(&server.place, 80, &steps, &args).expect(130);
    server.ctl(&["sandbox", "rm", "watched"]).expect(0);
    // What waits tells on an interrupt that the work goes on, and how to come back.
    let steps = json!([["running", "\u{3}"]]);
    let args = [
        "job", "submit", "--wait", "--name", "long", "--cpu", "50m", "--", "sleep", "600",
    ];
    let output = on_terminal(&server.place, 80, &steps, &args).expect(130);
    assert!(
        bare(&output.stdout).contains("no longer waiting; the job goes on: prismctl job wait "),
        "{}",
        output.stdout
    );
    server.ctl(&["job", "cancel", "long"]).expect(0);
}

#[test]
fn colours_and_bars_are_only_where_they_can_be_shown() {
    let server = SERVER.get();
    let place = &server.place;
    let args = ["job", "submit", "--wait", "--cpu", "50m", "--", "true"];
    let drawn = terminal(place, 80, &json!([]), &args, &[]).expect(0).stdout;
    assert!(
        drawn.contains('█') && drawn.contains("\x1b[32mCOMPLETED"),
        "{drawn}"
    );
    let plain = terminal(place, 80, &json!([]), &args, &[("LC_ALL", "C")])
        .expect(0)
        .stdout;
    assert!(plain.is_ascii() && plain.contains("[####"), "{plain}");
    let grey = terminal(place, 80, &json!([]), &args, &[("NO_COLOR", "1")])
        .expect(0)
        .stdout;
    assert!(!grey.contains("\x1b[32m"), "{grey}");
    let dumb = terminal(place, 80, &json!([]), &args, &[("TERM", "dumb")])
        .expect(0)
        .stdout;
    assert!(!dumb.contains('\x1b'), "{dumb}");
    let piped = server.ctl(&args).expect(0);
    assert!(!(piped.stdout + &piped.stderr).contains('\x1b'));
    let mut command = Command::new("sh");
    let prismctl = place.command("prismctl");
    command.args([
        "-c",
        "\"$0\" events | head -1 >/dev/null; \"$0\" --help | head -1",
    ]);
    command.arg(prismctl.get_program());
    for (name, value) in prismctl.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let output = place.launch(command).wait(LIMIT).expect(0);
    assert_eq!(output.stderr, "");
}
