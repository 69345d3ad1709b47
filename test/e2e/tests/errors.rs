//! Promise: every error says what failed and why, the state of the work, what to run next and where its page is, in at most
//! four lines without a secret; every code has a page, and some test meets it.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use prism_e2e::{LIMIT, Output, Place, Server, Shared};
use serde_json::json;

static SERVER: Shared = Shared::new();

/// What differs from run to run, by its name.
fn steady(text: &str, place: &Place) -> String {
    let text = text.replace(&*place.path().to_string_lossy(), "DIR");
    let text = replaced(&text, "request ", 26, "ID");
    let text = replaced(&text, "--key ", 32, "KEY");
    let text = replaced(&text, "sandbox ", 26, "ID");
    let text = replaced(&text, "job ", 26, "ID");
    let text = replaced(&text, "127.0.0.1:", 0, "PORT");
    replaced(&text, "process ", 0, "PID")
}

/// The letters and digits after a word, when there are so many (digits, when any number will do).
fn replaced(text: &str, word: &str, len: usize, with: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(word) {
        let is = |c: &char| match len {
            0 => c.is_ascii_digit(),
            _ => c.is_ascii_alphanumeric(),
        };
        let found = after.chars().take_while(is).count();
        out.push_str(before);
        out.push_str(word);
        rest = after;
        if found > 0 && (len == 0 || found == len) {
            out.push_str(with);
            rest = &after[found..];
        }
    }
    out + rest
}

/// Fails unless the program ended so and printed exactly this error, which has the form that all have.
#[track_caller]
fn golden(place: &Place, output: Output, exit: i32, text: &str) {
    let output = output.expect(exit);
    let shown = steady(&output.stderr, place);
    let last: Vec<&str> = shown.trim_end().lines().rev().take(4).collect();
    let at = last.iter().position(|l| l.starts_with("error: "));
    let error: Vec<&str> = last
        [..=at.unwrap_or_else(|| panic!("no error of at most 4 lines: {shown}"))]
        .iter()
        .rev()
        .copied()
        .collect();
    assert_eq!(error.join("\n"), text, "{}", output.name);
    assert!(
        !shown.contains("os error") && !shown.contains("pt_0"),
        "{shown}"
    );
    let code = error
        .last()
        .and_then(|l| l.strip_prefix("  more: prismctl explain "));
    let code = code
        .and_then(|c| c.split(' ').next())
        .expect("the last line names its page");
    let page = place.ctl(&["explain", code]).expect(0).stdout;
    assert!(page.starts_with(&format!("# {code} ")), "{page}");
}

#[test]
fn a_command_line_that_is_wrong() {
    let place = Place::new();
    golden(
        &place,
        place.ctl(&["job", "sumbit", "x"]),
        2,
        "error: unrecognized subcommand 'sumbit'; a similar subcommand exists: 'submit'; nothing was done\n  \
         next: prismctl job [OPTIONS] <COMMAND>; more with prismctl job --help\n  \
         more: prismctl explain PRISM-C001",
    );
    golden(
        &place,
        place.ctl(&["run", "nofile.yaml"]),
        2,
        "error: cannot read nofile.yaml: No such file or directory\n  \
         more: prismctl explain PRISM-C006",
    );
    golden(
        &place,
        place.ctl(&["--context", "lab", "info"]),
        2,
        "error: there is no context lab\n  \
         next: prismctl context ls, or prismctl context add NAME --api URL\n  \
         more: prismctl explain PRISM-C008",
    );
    let bad = place.write("bad.yaml", "job: x\ncommnd: [true]\n");
    golden(
        &place,
        place.ctl(&["run", &bad]),
        2,
        "error: DIR/work/bad.yaml:2:1: unknown field \"commnd\"; did you mean \"command\"?\n  \
         more: prismctl explain PRISM-R001",
    );
    let full = OpenOptions::new().write(true).open("/dev/full");
    let mut command = place.command("prismctl");
    let ended = command
        .args(["explain", "PRISM-C007"])
        .stdout(full.expect("Linux has it"))
        .output()
        .expect("prismctl starts");
    let output = Output {
        name: "prismctl explain > /dev/full".to_owned(),
        code: ended.status.code(),
        stdout: String::new(),
        stderr: String::from_utf8_lossy(&ended.stderr).into_owned(),
    };
    golden(
        &place,
        output,
        1,
        "error: cannot write the output: No space left on device\n  \
         more: prismctl explain PRISM-C007",
    );
}

#[test]
fn a_server_that_is_not_there_or_is_none() {
    let place = Place::new();
    golden(
        &place,
        place.ctl(&["info"]),
        4,
        "error: no server is known to this command line\n  \
         next: start one here with `prismd dev`, or name one with --api or `prismctl context add`\n  \
         more: prismctl explain PRISM-C002",
    );
    golden(
        &place,
        place.ctl(&["info", "--api", "http://127.0.0.1:9"]),
        4,
        "error: cannot reach the server at http://127.0.0.1:PORT: Connection refused; nothing was sent\n  \
         next: start it with `prismd dev`, or name another with --api or --context\n  \
         more: prismctl explain PRISM-C003",
    );
    let lost = peer(b"");
    golden(
        &place,
        place.ctl(&["node", "cordon", "n1", "--timeout", "1s", "--api", &lost]),
        4,
        "error: the connection to http://127.0.0.1:PORT was lost before the answer came (connection closed before \
         message completed); whether it was carried out is not known\n  \
         next: look first: prismctl events; a submission may be repeated with --key KEY: it cannot run twice\n  \
         more: prismctl explain PRISM-C004",
    );
    let other = peer(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");
    golden(
        &place,
        place.ctl(&["info", "--api", &other]),
        2,
        "error: http://127.0.0.1:PORT answered something that is not the prism API (its answer cannot be read: \
         expected value at line 1 column 1); check the address of the context\n  \
         next: see which address is used: prismctl context ls\n  \
         more: prismctl explain PRISM-C005",
    );
}

/// Something that listens, reads a request, and answers this to whoever asks; it ends with the test.
fn peer(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it has an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            // Whoever does not read or write to the end is none of this test's concern.
            let _ = stream.read(&mut [0; 8192]);
            let _ = stream.write_all(answer);
        }
    });
    format!("http://{address}")
}

#[test]
fn what_a_server_refuses() {
    let server = SERVER.get();
    let place = &server.place;
    golden(
        place,
        server.ctl(&["job", "get", "nosuch"]),
        1,
        "error: there is no job \"nosuch\"\n  next: prismctl job ls\n  \
         more: prismctl explain PRISM-R002 (request ID)",
    );
    server
        .ctl(&["sandbox", "create", "--name", "taken"])
        .expect(0);
    golden(
        place,
        server.ctl(&["sandbox", "create", "--name", "taken"]),
        1,
        "error: the name is taken by the living sandbox ID; delete it or use another; nothing was changed\n  \
         next: prismctl sandbox ls\n  more: prismctl explain PRISM-R003 (request ID)",
    );
    golden(
        place,
        server.ctl(&["sandbox", "exec", "taken", "--", "nosuch"]),
        127,
        "error: the command did not start: program not found: nosuch\n  \
         next: see what is there: prismctl sandbox exec taken -- ls /usr/bin\n  \
         more: prismctl explain PRISM-T005",
    );
    server.ctl(&["sandbox", "rm", "taken"]).expect(0);
    let submit = |word: &str| {
        let args = [
            "job", "submit", "--key", "k", "--name", "once", "--wait", "--", "echo", word,
        ];
        server.ctl(&args)
    };
    submit("a").expect(0);
    golden(
        place,
        submit("b"),
        1,
        "error: this idempotency key came with another request before; use a new key for a new request; nothing was changed\n  \
         more: prismctl explain PRISM-R005 (request ID)",
    );
    golden(
        place,
        server.ctl(&["job", "cancel", "once"]),
        1,
        "error: job ID is over (COMPLETED); it cannot be cancelled; nothing was changed\n  \
         next: prismctl job get once\n  more: prismctl explain PRISM-R004 (request ID)",
    );
}

#[test]
fn who_may_not() {
    let server = SERVER.get();
    let place = &server.place;
    let with = |token: &str, args: &[&str]| {
        let mut command = place.command("prismctl");
        command.args(args).env("PRISM_TOKEN", token);
        place.launch(command).wait(LIMIT)
    };
    golden(
        place,
        with("wrong", &["job", "ls"]),
        1,
        "error: the authorization header is not one `Bearer pt_<id>_<secret>`; get a token with `prismctl token create`\n  \
         next: start the node of the context dev again with `prismd dev`: it makes a new token\n  \
         more: prismctl explain PRISM-A001 (request ID)",
    );
    let args = ["token", "create", "eye", "--role", "viewer"];
    let token = server.ctl(&args).expect(0).stdout;
    golden(
        place,
        with(token.trim(), &["node", "cordon", "n1"]),
        1,
        "error: the token \"eye\" is a viewer's; this needs operator; nothing was changed\n  \
         next: have an administrator make a token that may: prismctl token create NAME --role ROLE\n  \
         more: prismctl explain PRISM-A002 (request ID)",
    );
}

/// `prismd dev` in this place with more arguments, until it ends.
fn dev(place: &Place, args: &[&str]) -> Output {
    let mut command = place.command("prismd");
    command.arg("dev").args(args);
    place.launch(command).wait(LIMIT)
}

#[test]
fn a_server_that_does_not_start() {
    let server = SERVER.get();
    let place = &server.place;
    let data = place.data();
    let data = data.to_string_lossy();
    golden(
        place,
        dev(place, &["--data-dir", &data]),
        1,
        "error: DIR/data/store is in use by process PID; stop that process, or use another directory\n  \
         next: prismctl info, or another directory: --data-dir DIR\n  \
         more: prismctl explain PRISM-D001",
    );
    golden(
        place,
        dev(place, &["--data-dir", "/proc/none"]),
        1,
        "error: cannot use the data directory /proc/none: No such file or directory; nothing was started; choose \
         another with --data-dir\n  next: name a directory that this user may write: --data-dir DIR\n  \
         more: prismctl explain PRISM-D002",
    );
    golden(
        place,
        dev(
            place,
            &["--data-dir", "other", "--api", &server.api().address],
        ),
        1,
        "error: cannot listen on 127.0.0.1:PORT: Address already in use; nothing was started; choose another \
         address with --api\n  next: take a free port: --api 127.0.0.1:PORT\n  more: prismctl explain PRISM-D006",
    );
}

#[test]
fn data_that_is_damaged_or_newer() {
    let mut server = Server::start();
    server.stop().expect(0);
    let place = &server.place;
    let data = place.data();
    let format = data.join("store/format");
    let right = fs::read(&format).expect("the store says its format");
    fs::write(&format, b"garbage").expect("our own file");
    let output = dev(
        place,
        &["--api=127.0.0.1:0", "--data-dir", &data.to_string_lossy()],
    );
    let said = steady(&output.stderr, place);
    assert!(
        said.contains("DIR/data/store/format is damaged at offset"),
        "{said}"
    );
    assert!(said.contains("more: prismctl explain PRISM-D003"), "{said}");
    output.expect(1);
    fs::write(&format, "prism-store 9 1 0\n").expect("our own file");
    golden(
        place,
        dev(
            place,
            &["--api=127.0.0.1:0", "--data-dir", &data.to_string_lossy()],
        ),
        1,
        "error: DIR/data/store/format says format 9, but this version reads up to 1; use the version that wrote it\n  \
         next: start the version of prismd that wrote it, or a newer one\n  more: prismctl explain PRISM-D005",
    );
    fs::write(&format, right).expect("our own file");
    server.restart();
}

#[test]
fn a_disk_that_takes_no_more() {
    let place = Place::new();
    let prismd = place.command("prismd").get_program().to_owned();
    let mut command = place.command("prismd");
    // A limit on the size of files is a full disk that needs no mount.
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" dev --api 127.0.0.1:0 --data-dir \"$1\"";
    let mut limited = Command::new("sh");
    limited.args(["-c", script]).arg(prismd).arg(place.data());
    for (name, value) in command.get_envs() {
        limited.env(name, value.unwrap_or_default());
    }
    command = limited;
    command.current_dir(place.work());
    let output = place.launch(command).wait(LIMIT);
    let said = steady(&output.stderr, &place);
    assert_eq!(output.code, Some(70), "{said}");
    assert!(
        said.contains("error: cannot write DIR/data/store/"),
        "{said}"
    );
    assert!(said.contains(": File too large; the store stops"), "{said}");
    assert!(
        said.ends_with("more: prismctl explain PRISM-D004\n"),
        "{said}"
    );
}

#[test]
fn a_supervisor_that_does_not_start() {
    let place = Place::new();
    let data = place.data();
    // Where its lock belongs there is a directory.
    fs::create_dir_all(data.join("supervisor/supervisor.lock")).expect("our own directory");
    let output = dev(
        &place,
        &["--api=127.0.0.1:0", "--data-dir", &data.to_string_lossy()],
    );
    let said = steady(&output.stderr, &place);
    assert_eq!(output.code, Some(1), "{said}");
    assert!(
        said.contains("the supervisor of DIR/data/supervisor did not start"),
        "{said}"
    );
    assert!(
        said.ends_with("  next: prismctl doctor\n  more: prismctl explain PRISM-N001\n"),
        "{said}"
    );
}

#[test]
fn why_something_waits_or_ended_has_a_page() {
    let server = Server::start_with(&["--pressure-threshold", "0"]);
    let id = server.submit(&json!({"job": "pressed", "command": ["true"]}));
    let why = prism_e2e::until("the guard to be on", || {
        let why = server.ctl(&["explain", &id]).expect(0).stdout;
        why.contains("pressure").then_some(why)
    });
    assert!(why.contains("prismctl explain PRISM-P003"), "{why}");
    let server = SERVER.get();
    let large = json!({"job": "large", "command": ["true"], "resources": {"cpu": "4000"}});
    let id = server.submit(&large);
    let why = server.ctl(&["explain", &id]).expect(0).stdout;
    assert!(why.contains("prismctl explain PRISM-P001"), "{why}");
    server.ctl(&["job", "cancel", &id]).expect(0);
    for (command, code) in [("exit 3", "PRISM-T001"), ("kill -TERM $$", "PRISM-T002")] {
        let small = json!({"cpu": "50m"});
        let spec = json!({"job": "ended", "command": ["sh", "-c", command], "resources": small});
        let id = server.submit(&spec);
        server.finished(&id);
        let why = server
            .ctl(&["explain", &format!("{id}.0")])
            .expect(0)
            .stdout;
        assert!(why.contains(&format!("prismctl explain {code}")), "{why}");
    }
}

/// Every code by its name, as `prismctl explain` knows them.
fn codes(place: &Place) -> Vec<(String, String)> {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
    let mut all = Vec::new();
    let Ok(entries) = fs::read_dir(pages) else {
        // Away from the checkout, the pages are those that the program has.
        return all;
    };
    for entry in entries {
        let path = entry.expect("the directory can be read").path();
        let code = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let page = place.ctl(&["explain", &code]).expect(0).stdout;
        assert_eq!(page, fs::read_to_string(&path).expect("a page"), "{code}");
        let title = page.lines().next().unwrap_or_default();
        let name = title
            .split([' ', ':'])
            .nth(2)
            .unwrap_or_default()
            .to_owned();
        all.push((code, name));
    }
    all
}

#[test]
fn every_code_is_met_by_a_test() {
    let place = Place::new();
    let all = codes(&place);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let listed = Command::new("find")
        .args(["crates", "test", "-name", "*.rs", "-path", "*/tests/*"])
        .current_dir(&root)
        .output();
    let Ok(listed) = listed else { return };
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut tests: Vec<String> = listed
        .lines()
        .filter_map(|path| fs::read_to_string(root.join(path)).ok())
        .collect();
    // Unit tests of the crate that turns errors into answers.
    tests.extend(fs::read_to_string(
        root.join("crates/plane/gateway/src/refuse.rs"),
    ));
    let met = |code: &str, name: &str| {
        let camel: String = name
            .split('_')
            .map(|w| w[..1].to_uppercase() + &w[1..])
            .collect();
        let forms = [
            code.to_owned(),
            format!("\"{name}\""),
            format!("Reason::{camel}"),
            format!("StopCause::{camel}"),
        ];
        tests.iter().any(|t| forms.iter().any(|f| t.contains(f)))
    };
    let missing: BTreeSet<&String> = all
        .iter()
        .filter(|(code, name)| !met(code, name))
        .map(|(code, _)| code)
        .collect();
    assert!(missing.is_empty(), "no test meets {missing:?}");
}
