//! What must hold, one file each, named as sentences. Each keeps its own account of what really happened, apart from what
//! Prism keeps, and says in a sentence what does not hold.

pub mod a_comparison_adds_up;
pub mod a_deposed_leader_writes_nothing;
pub mod a_key_is_answered_once;
pub mod a_lease_is_its_sessions_own;
pub mod a_retry_waits_no_longer_than_it_may;
pub mod a_task_has_one_result;
pub mod a_term_has_one_leader;
pub mod an_attempt_has_one_outcome;
pub mod committed_entries_never_change;
pub mod everything_converges;
pub mod no_node_is_overcommitted;
pub mod nothing_runs_unwanted;
pub mod reads_and_watches_never_go_back;
pub mod replicas_agree;
pub mod single_runs_never_overlap;
pub mod the_state_is_what_the_store_holds;
pub mod what_is_recorded_never_runs_again;
pub mod what_was_acknowledged_is_durable;

/// Whether it holds; if not, in what way.
pub type Held = Result<(), String>;

/// Every account.
#[derive(Debug, Default)]
pub struct Truth {
    /// Who led which term.
    pub leaders: a_term_has_one_leader::Leaders,
    /// What was committed.
    pub entries: committed_entries_never_change::Entries,
    /// What came of it.
    pub replicas: replicas_agree::Replicas,
    /// The fences that were granted.
    pub fences: a_deposed_leader_writes_nothing::Fences,
    /// What clients were told.
    pub acknowledged: what_was_acknowledged_is_durable::Acknowledged,
    /// Which answers keys had.
    pub keys: a_key_is_answered_once::Keys,
    /// What ran.
    pub runs: a_task_has_one_result::Runs,
    /// What workers may forget.
    pub recorded: what_is_recorded_never_runs_again::Recorded,
    /// What workers told.
    pub outcomes: an_attempt_has_one_outcome::Outcomes,
    /// What runs and should not.
    pub ghosts: nothing_runs_unwanted::Ghosts,
    /// What may run once only, and runs.
    pub singles: single_runs_never_overlap::Singles,
    /// What readers have seen.
    pub reads: reads_and_watches_never_go_back::Reads,
}
