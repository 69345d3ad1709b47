//! The seccomp filter: which system calls a sandboxed program may make. Built once by the supervisor, loaded last in each child.
//!
//! Written as a binary search over ranges instead of a list: the kernel checks, compiles and probes the filter anew at each
//! load, and that costs by the instruction.

mod allowed;

use prism_sys::filter::Instruction;

/// What happens to one system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Allow,
    /// Fails with this errno.
    Refuse(i32),
    /// Allowed unless any of these bits is set in the argument.
    UnlessBits {
        argument: u32,
        bits: u32,
    },
    /// Allowed unless the argument is one of these.
    Unless {
        argument: u32,
        values: &'static [u32],
    },
    /// Allowed only if the argument is one of these.
    Only {
        argument: u32,
        values: &'static [u32],
    },
    /// `socket`: the internet and unix families, and netlink for routes.
    Socket,
}

const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_AT_LEAST: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

const RETURN_ALLOW: u32 = 0x7fff_0000;
const RETURN_ERRNO: u32 = 0x0005_0000;
const RETURN_KILL: u32 = 0x8000_0000;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Bit of the numbers of the x32 variant of x86-64.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

const CLONE_NEW_ANY: u32 = 0x7e02_0080;

fn instruction(code: u16, jump_true: u8, jump_false: u8, value: u32) -> Instruction {
    Instruction {
        code,
        jump_true,
        jump_false,
        value,
    }
}

fn refuse(errno: i32) -> Instruction {
    instruction(RETURN, 0, 0, RETURN_ERRNO | errno.cast_unsigned())
}

/// Loads the low half of an argument; the kernel looks at no more of the arguments that are checked here.
fn load_argument(argument: u32) -> Instruction {
    instruction(LOAD, 0, 0, 16 + 8 * argument)
}

/// The filter, ready for [`prism_sys::filter::load`].
pub fn program() -> Vec<Instruction> {
    let mut out = vec![
        instruction(LOAD, 0, 0, 4),
        instruction(JUMP_EQUAL, 1, 0, ARCHITECTURE),
        instruction(RETURN, 0, 0, RETURN_KILL),
        instruction(LOAD, 0, 0, 0),
    ];
    #[cfg(target_arch = "x86_64")]
    out.extend([
        instruction(JUMP_AT_LEAST, 0, 1, X32),
        instruction(RETURN, 0, 0, RETURN_KILL),
    ]);
    out.extend(search(&ranges()));
    out
}

/// Runs of numbers with one action: (first number, action), ascending, covering everything.
fn ranges() -> Vec<(u32, Action)> {
    let mut actions = std::collections::BTreeMap::new();
    for number in allowed::ALLOWED.iter().chain(allowed::ALLOWED_HERE) {
        actions.insert(*number, Action::Allow);
    }
    actions.extend([
        (libc::SYS_clone3, Action::Refuse(libc::ENOSYS)),
        (
            libc::SYS_clone,
            Action::UnlessBits {
                argument: 0,
                bits: CLONE_NEW_ANY & !0x80,
            },
        ),
        (
            libc::SYS_ioctl,
            Action::Unless {
                argument: 1,
                values: &[0x5412, 0x541c],
            },
        ),
        (
            libc::SYS_personality,
            Action::Only {
                argument: 0,
                values: &[0, 0xffff_ffff],
            },
        ),
        (libc::SYS_socket, Action::Socket),
    ]);
    let mut ranges: Vec<(u32, Action)> = Vec::new();
    let mut next = 0;
    let mut push = |at: u32, action: Action| {
        if ranges.last().is_none_or(|(_, last)| *last != action) {
            ranges.push((at, action));
        }
    };
    for (number, action) in actions {
        let number = u32::try_from(number).expect("system call numbers are small and positive");
        if number > next {
            push(next, Action::Refuse(libc::EPERM));
        }
        push(number, action);
        next = number + 1;
    }
    // What this list does not know yet: ENOSYS, so that programs fall back to what they used before.
    push(next, Action::Refuse(libc::EPERM));
    push(
        next.max(allowed::LAST_KNOWN + 1),
        Action::Refuse(libc::ENOSYS),
    );
    ranges
}

/// The search: comparisons that lead to each other, then one block for each action. A block that many ranges share is there
/// once, which halves what the kernel compiles.
fn search(ranges: &[(u32, Action)]) -> Vec<Instruction> {
    let mut actions: Vec<Action> = Vec::new();
    for (_, action) in ranges {
        if !actions.contains(action) {
            actions.push(*action);
        }
    }
    // One comparison less than ranges, then the blocks.
    let mut at = ranges.len() - 1;
    let mut blocks = Vec::new();
    for action in actions {
        let block = leaf(action);
        blocks.push((action, at, block.clone()));
        at += block.len();
    }
    let mut out = Vec::with_capacity(at);
    compare(ranges, &blocks, &mut out);
    out.extend(blocks.into_iter().flat_map(|(.., block)| block));
    out
}

/// Adds the comparisons for these ranges, and answers where they begin: at a block if there is nothing to compare.
fn compare(
    ranges: &[(u32, Action)],
    blocks: &[(Action, usize, Vec<Instruction>)],
    out: &mut Vec<Instruction>,
) -> usize {
    if let [(_, action)] = ranges {
        let block = blocks.iter().find(|(a, ..)| a == action);
        return block.expect("each action has its block").1;
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let here = out.len();
    out.push(instruction(JUMP_AT_LEAST, 0, 0, high[0].0));
    let [below, above] = [low, high].map(|half| {
        let skip = compare(half, blocks, out) - (here + 1);
        u8::try_from(skip).expect("the search is shorter than a jump")
    });
    (out[here].jump_true, out[here].jump_false) = (above, below);
    here
}

fn leaf(action: Action) -> Vec<Instruction> {
    let allow = instruction(RETURN, 0, 0, RETURN_ALLOW);
    match action {
        Action::Allow => vec![allow],
        Action::Refuse(errno) => vec![refuse(errno)],
        Action::UnlessBits { argument, bits } => vec![
            load_argument(argument),
            instruction(JUMP_ANY_BIT, 1, 0, bits),
            allow,
            refuse(libc::EPERM),
        ],
        Action::Unless { argument, values } => choose(argument, values, refuse(libc::EPERM), allow),
        Action::Only { argument, values } => choose(argument, values, allow, refuse(libc::EPERM)),
        Action::Socket => {
            let (unix, v4, v6, netlink) = (1, 2, 10, 16);
            vec![
                load_argument(0),
                instruction(JUMP_EQUAL, 5, 0, unix),
                instruction(JUMP_EQUAL, 4, 0, v4),
                instruction(JUMP_EQUAL, 3, 0, v6),
                instruction(JUMP_EQUAL, 0, 3, netlink),
                load_argument(2),
                instruction(JUMP_EQUAL, 0, 1, 0),
                allow,
                refuse(libc::EPERM),
            ]
        }
    }
}

fn choose(argument: u32, values: &[u32], hit: Instruction, miss: Instruction) -> Vec<Instruction> {
    let mut out = vec![load_argument(argument)];
    for (i, value) in values.iter().enumerate() {
        let skip = u8::try_from(values.len() - i).expect("a handful of values");
        out.push(instruction(JUMP_EQUAL, skip, 0, *value));
    }
    out.extend([miss, hit]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interprets the filter: what it says to a call.
    fn run(number: i64, arguments: &[u32]) -> u32 {
        let program = program();
        let (mut at, mut a) = (0, 0u32);
        for _ in 0..program.len() {
            let i = program[at];
            at += 1;
            let jump = |hit: bool| usize::from(if hit { i.jump_true } else { i.jump_false });
            match i.code {
                LOAD => {
                    a = match i.value {
                        0 => u32::try_from(number).unwrap(),
                        4 => ARCHITECTURE,
                        n => arguments[(n as usize - 16) / 8],
                    }
                }
                JUMP_EQUAL => at += jump(a == i.value),
                JUMP_AT_LEAST => at += jump(a >= i.value),
                JUMP_ANY_BIT => at += jump(a & i.value != 0),
                RETURN => return i.value,
                code => panic!("code {code:#x}"),
            }
        }
        panic!("no return");
    }

    const EPERM: u32 = RETURN_ERRNO | 1;

    #[test]
    fn the_filter_says_what_the_list_says() {
        for number in allowed::ALLOWED.iter().chain(allowed::ALLOWED_HERE) {
            assert_eq!(run(*number, &[0; 6]), RETURN_ALLOW, "{number}");
        }
        for number in [
            libc::SYS_bpf,
            libc::SYS_ptrace,
            libc::SYS_mount,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_io_uring_setup,
            libc::SYS_open_by_handle_at,
            libc::SYS_keyctl,
            libc::SYS_userfaultfd,
            libc::SYS_perf_event_open,
            libc::SYS_kexec_load,
            libc::SYS_fsopen,
            libc::SYS_pivot_root,
            libc::SYS_process_vm_readv,
        ] {
            assert_eq!(run(number, &[0; 6]), EPERM, "{number}");
        }
        let enosys = RETURN_ERRNO | libc::ENOSYS.cast_unsigned();
        assert_eq!(run(libc::SYS_clone3, &[0; 6]), enosys);
        assert_eq!(run(5000, &[0; 6]), enosys);
    }

    #[test]
    fn it_is_short() {
        // What the kernel compiles at the start of each run.
        assert!(program().len() < 160, "{} instructions", program().len());
    }

    #[test]
    fn arguments_are_looked_at() {
        assert_eq!(run(libc::SYS_clone, &[0x11]), RETURN_ALLOW);
        assert_eq!(run(libc::SYS_clone, &[0x1000_0011]), EPERM);
        assert_eq!(run(libc::SYS_ioctl, &[0, 0x5401]), RETURN_ALLOW);
        assert_eq!(run(libc::SYS_ioctl, &[0, 0x5412]), EPERM);
        for (family, protocol, verdict) in [
            (1, 0, RETURN_ALLOW),
            (2, 6, RETURN_ALLOW),
            (10, 6, RETURN_ALLOW),
            (16, 0, RETURN_ALLOW),
            (16, 9, EPERM),
            (17, 0, EPERM),
            (38, 0, EPERM),
            (40, 0, EPERM),
        ] {
            assert_eq!(
                run(libc::SYS_socket, &[family, 1, protocol]),
                verdict,
                "{family}"
            );
        }
        assert_eq!(run(libc::SYS_personality, &[0x0004_0000]), EPERM);
        #[cfg(target_arch = "x86_64")]
        assert_eq!(run(i64::from(X32) + 1, &[0; 6]), RETURN_KILL);
    }
}
