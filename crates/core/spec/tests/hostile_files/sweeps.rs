//! Fields of sweeps, and of sandboxes.

use super::{Y, check};

#[test]
fn fields_of_sweeps() {
    let sweep = |line: &str| format!("sweep: a\ncommand: [x]\n{line}\n");
    for (line, expected) in SWEEP_FIELDS {
        check(&[(Y, &sweep(line), expected)]);
    }
    check(SWEEPS);
}

const SWEEP_FIELDS: &[(&str, &[&str])] = &[
    ("spaec: {}", &["s.yaml:3:1:", "did you mean \"space\"?"]),
    (
        "space: [a]",
        &["space", "a table of parameters", "found a list"],
    ),
    ("space: {1x: [1]}", &["space.1x", "cannot name a parameter"]),
    ("space: {a-b: [1]}", &["cannot name a parameter"]),
    (
        "space: {lr: [1], LR: [2]}",
        &["space.LR", "differs from lr only by case"],
    ),
    ("space: {x: []}", &["space.x", "nothing to choose from"]),
    ("space: {x: 3}", &["space.x", "a list of values, or one of"]),
    ("space: {x: {}}", &["space.x", "expected a list of values"]),
    (
        "space: {x: {chioce: [1]}}",
        &["s.yaml:3:13:", "did you mean \"choice\"?"],
    ),
    (
        "space: {x: {choice: [1], range: [1, 2]}}",
        &["space.x", "expected a list of values"],
    ),
    ("space: {x: [[1]]}", &["space.x[0]", "found a list"]),
    ("space: {x: [.nan]}", &["space.x[0]", "finite number"]),
    (
        "space: {x: [99999999999999999999]}",
        &["space.x[0]", "64 bits"],
    ),
    ("space: {x: [~]}", &["space.x[0]", "found nothing"]),
    ("space: {x: {range: [1]}}", &["space.x.range", "[from, to]"]),
    (
        "space: {x: {range: [5, 1]}}",
        &["space.x.range", "the lower one first"],
    ),
    (
        "space: {x: {range: [1, 5, 0]}}",
        &["space.x.range[2]", "from 1 to"],
    ),
    (
        "space: {x: {range: [0.5, 1.5]}}",
        &["space.x.range[0]", "a whole number"],
    ),
    (
        "space: {x: {range: [1, 2, 3, 4]}}",
        &["4 entries; at most 3"],
    ),
    (
        "space: {x: {range: [1, 2], steps: 3}}",
        &["space.x.steps", "uniform and log_uniform only"],
    ),
    (
        "space: {x: {uniform: [1, 1]}}",
        &["space.x.uniform", "the lower one first"],
    ),
    (
        "space: {x: {uniform: [0, .inf]}}",
        &["space.x.uniform[1]", "a finite number"],
    ),
    (
        "space: {x: {uniform: [a, b]}}",
        &["space.x.uniform[0]", "found the text \"a\""],
    ),
    (
        "space: {x: {log_uniform: [0, 1]}}",
        &["space.x.log_uniform[0]", "a finite number above 0"],
    ),
    (
        "space: {x: {log_uniform: [-1, 1]}}",
        &["space.x.log_uniform[0]"],
    ),
    (
        "space: {x: {uniform: [0, 1]}}",
        &["a grid over x", "steps: N", "search: {random: N"],
    ),
    (
        "space: {x: {uniform: [0, 1]}}\nsearch: grid",
        &["s.yaml:4:9:", "search", "a grid over x"],
    ),
    (
        "space: {x: {range: [1, 2000000]}}",
        &["a grid of 2000000 points; at most 1000000"],
    ),
    (
        "space: {x: {range: [0, 9007199254740992]}, y: {range: [0, 9007199254740992]}}",
        &["at most 1000000"],
    ),
    (
        "search: gird",
        &[
            "search",
            "expected grid, or {random: N, seed: S}, found \"gird\"",
        ],
    ),
    (
        "search: {random: 0}",
        &["search.random", "from 1 to 1000000"],
    ),
    ("search: {random: 1000001}", &["from 1 to 1000000"]),
    ("search: {random: 3, sed: 1}", &["did you mean \"seed\"?"]),
    ("search: {random: 3, seed: -1}", &["search.seed"]),
    (
        "search: {random: 3, grid: true}",
        &["search", "expected grid, or"],
    ),
    ("search: {seed: 3}", &["search", "expected grid, or"]),
    (
        "objective: accuracy",
        &["objective", "{maximize: field}", "found the text"],
    ),
    (
        "objective: {maximise: accuracy}",
        &["s.yaml:3:13:", "did you mean \"maximize\"?"],
    ),
    (
        "objective: {maximize: a, minimize: b}",
        &["objective", "{maximize: field} or"],
    ),
    (
        "objective: {maximize: \"\"}",
        &["objective.maximize", "name of a field"],
    ),
    (
        "early_stop: {halving: {rounds: 3}}",
        &["early_stop.halving", "\"metric\" is missing"],
    ),
    (
        "early_stop: {halving: {metric: a}}",
        &["\"rounds\" is missing"],
    ),
    (
        "early_stop: {halving: {metric: a, rounds: 0}}",
        &["early_stop.halving.rounds", "from 1 to 16"],
    ),
    (
        "early_stop: {halving: {metric: a, rounds: 2, factor: 1}}",
        &["factor", "from 2 to 16"],
    ),
    ("early_stop: {halfing: {}}", &["did you mean \"halving\"?"]),
    (
        "early_stop: {halving: {metric: a, rounds: 2, direction: up}}",
        &["direction", "found \"up\""],
    ),
    (
        "runners: {a: {command: [x]}}",
        &["runners", "together with command or script"],
    ),
    ("aggregate: []", &["aggregate", "an empty command"]),
    (
        "aggregate: {}",
        &["aggregate", "expected a command or a script"],
    ),
    (
        "aggregate: {command: [x], fles: []}",
        &["did you mean \"files\"?"],
    ),
    (
        "files: [{path: params.json, content: x}]",
        &["params.json is written by prism itself"],
    ),
    (
        "aggregate: {command: [x], files: [{path: results.json, content: x}]}",
        &["results.json is written by prism"],
    ),
    ("array: 3", &["unknown field \"array\""]),
];

const SWEEPS: &[(&str, &str, &[&str])] = &[
    (Y, "sweep: a\n", &["expected a command or a script"]),
    (
        Y,
        "sweep: a\nrunners: {}\n",
        &["runners", "0 runners; from 1"],
    ),
    (
        Y,
        "sweep: a\nrunners: [a]\n",
        &["runners", "a table of runners"],
    ),
    (
        Y,
        "sweep: a\nrunners: {\"a b\": {command: [x]}}\n",
        &["cannot name a runner"],
    ),
    (
        Y,
        "sweep: a\nrunners: {b: {}}\n",
        &[
            "s.yaml:2:14:",
            "runners.b",
            "expected a command or a script",
        ],
    ),
    (
        Y,
        "sweep: a\nrunners: {b: {comand: [x]}}\n",
        &["runners.b", "did you mean \"command\"?"],
    ),
    (
        Y,
        "sweep: a\ncommand: [x, \"{rl}\"]\nspace: {lr: [1]}\n",
        &["{rl}", "did you mean {lr}?"],
    ),
    (
        Y,
        "sweep: a\ncommand: [x]\nspace: {p: {range: [1, 1000000]}}\nrunners: {}\n",
        &["together with command"],
    ),
    (
        Y,
        "sweep: a\nspace: {p: {range: [1, 1000000]}}\nrunners: {a: {command: [x]}, b: {command: [x]}, c: {command: [x]}, d: {command: [x]}, e: {command: [x]}, f: {command: [x]}, g: {command: [x]}, h: {command: [x]}, i: {command: [x]}, j: {command: [x]}}\n",
        &["1000000 points for each of 10 runners; at most 10000000"],
    ),
];

#[test]
fn fields_of_sandboxes() {
    check(&[
        (Y, "sandbox: Box\n", &["sandbox", "is not a name"]),
        (Y, "sandbox: a\nname: b\n", &["named twice"]),
        (
            Y,
            "sandbox: a\nsnapshot: ../x\n",
            &["snapshot", "is not a snapshot"],
        ),
        (
            Y,
            "sandbox: a\ntimeout: soon\n",
            &["timeout", "is not a duration"],
        ),
        (
            Y,
            "sandbox: a\ncommand: [x]\n",
            &["s.yaml:2:1:", "unknown field \"command\""],
        ),
        (
            Y,
            "sandbox: a\nresources: {cpu: 5000}\n",
            &["resources.cpu", "up to 4096 cores"],
        ),
    ]);
}
