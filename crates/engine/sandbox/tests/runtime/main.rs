//! The runtime on the real kernel: what runs, what it tells, what it leaves behind. As root, and as a normal user.

#![expect(
    clippy::unwrap_used,
    reason = "tests with a main of their own; a panic is how they fail"
)]

mod bounds;
mod lives;
mod neighbours;
mod runs;
#[path = "../support/mod.rs"]
mod support;

fn main() {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("daemon") {
        lives::daemon(&args.next().unwrap());
    }
    support::run(
        "runtime",
        &[
            ("exits_are_told", runs::exits_are_told),
            (
                "what_cannot_start_says_why",
                runs::what_cannot_start_says_why,
            ),
            (
                "every_byte_of_output_is_kept",
                bounds::every_byte_of_output_is_kept,
            ),
            (
                "output_is_bounded_on_disk",
                bounds::output_is_bounded_on_disk,
            ),
            (
                "limits_end_runs_for_their_own_reasons",
                bounds::limits_end_runs_for_their_own_reasons,
            ),
            ("limits_hold", bounds::limits_hold),
            ("figures_are_plausible", bounds::figures_are_plausible),
            ("standard_input_is_fed", runs::standard_input_is_fed),
            ("terminals_work", runs::terminals_work),
            (
                "tasks_of_many_are_heard_of",
                runs::tasks_of_many_are_heard_of,
            ),
            ("sandboxes_run_programs", runs::sandboxes_run_programs),
            ("stopping_has_grace", lives::stopping_has_grace),
            ("many_run_at_once", runs::many_run_at_once),
            ("files_layers_and_scratch", runs::files_layers_and_scratch),
            (
                "scratch_directories_are_used_again",
                runs::scratch_directories_are_used_again,
            ),
            ("the_inside_is_usable", runs::the_inside_is_usable),
            (
                "killed_daemons_lose_nothing",
                lives::killed_daemons_lose_nothing,
            ),
            (
                "a_lease_ends_a_run_that_is_not_renewed",
                lives::a_lease_ends_a_run_that_is_not_renewed,
            ),
            (
                "groups_of_the_dead_are_removed",
                lives::groups_of_the_dead_are_removed,
            ),
            (
                "a_killed_supervisor_takes_all_with_it",
                lives::a_killed_supervisor_takes_all_with_it,
            ),
            ("forgotten_runs_are_gone", lives::forgotten_runs_are_gone),
            ("who_crowds_is_held", neighbours::who_crowds_is_held),
            (
                "nobody_keeps_off_for_the_dead",
                neighbours::nobody_keeps_off_for_the_dead,
            ),
            ("nothing_leaks", lives::nothing_leaks),
            ("the_host_is_described", runs::the_host_is_described),
        ],
        // A normal user may not write the kernel's sets of processors on most hosts.
        &["who_crowds_is_held", "nobody_keeps_off_for_the_dead"],
    );
}
