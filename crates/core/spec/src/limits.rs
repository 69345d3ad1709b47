//! Every limit on what people send, with its name. The messages of errors quote them.

use prism_types::MilliCpu;

/// Largest request body in bytes.
pub const BODY_MAX: usize = 24 << 20;
/// Most text that a document comes to after aliases are followed, in bytes.
pub const TEXT_MAX: usize = 64 << 20;
/// Largest spec file (YAML or JSON) in bytes; what it names (scripts, data, map lines) is counted apart.
pub const DOCUMENT_MAX: usize = 16 << 20;
/// Largest TOML spec file in bytes (its parser holds every token at once).
pub const TOML_MAX: usize = 4 << 20;
/// Deepest nesting of lists and tables.
pub const DEPTH_MAX: usize = 64;
/// Most values in a spec file, after aliases are followed.
pub const FILE_VALUES_MAX: usize = 2_000_000;
/// Most values in a request body.
pub const BODY_VALUES_MAX: usize = 8_000_000;
/// Most values of a request or JSON file that are kept at once; long lists are read value by value and do not count.
pub const KEPT_VALUES_MAX: usize = 100_000;
/// A list of JSON values that is longer than this is read value by value. More than any list but tasks and lines may have.
pub const KEPT_LIST_MAX: usize = 12_000;
/// Largest sum of the contents of the files of one job, in bytes.
pub const CONTENTS_MAX: u64 = 16 << 20;
/// Most files of one list.
pub const FILES_MAX: usize = 1_000;
/// Longest path of a file, in bytes.
pub const PATH_MAX: usize = 1_024;
/// Most listed tasks or map lines.
pub const LISTED_MAX: usize = 1_000_000;
/// What all listed tasks together may take in memory, in bytes: about 150 for each with a short command.
pub const TASKS_BYTES_MAX: usize = 16 << 20;
/// Longest map line, in bytes.
pub const LINE_MAX: usize = 64 << 10;
/// Largest sum of the map lines, in bytes.
pub const LINES_BYTES_MAX: usize = 16 << 20;
/// Most arguments of a command, the program included.
pub const ARGS_MAX: usize = 1_024;
/// Largest sum of a command's arguments, in bytes.
pub const ARGS_BYTES_MAX: usize = 128 << 10;
/// Longest single argument or value of a variable, in bytes (the kernel's limit, less room for a name).
pub const ARG_MAX: usize = 120 << 10;
/// Most environment variables of one list.
pub const ENV_MAX: usize = 256;
/// Largest sum of names and values of one list of environment variables, in bytes.
pub const ENV_BYTES_MAX: usize = 64 << 10;
/// Most labels.
pub const LABELS_MAX: usize = 64;
/// Longest label value, in bytes.
pub const LABEL_VALUE_MAX: usize = 256;
/// Longest task text, in characters.
pub const TASK_TEXT_MAX: usize = 4_096;
/// Most `after:` entries.
pub const AFTER_MAX: usize = 256;
/// Most processor time that one task or sandbox may ask for.
pub const CPU_MAX: MilliCpu = MilliCpu(4_096_000);
/// Most points of a sweep.
pub const POINTS_MAX: u32 = 1_000_000;
/// Most parameters of a search space.
pub const PARAMETERS_MAX: usize = 64;
/// Most values of one choice.
pub const CHOICES_MAX: usize = 10_000;
/// Most runners of a sweep.
pub const RUNNERS_MAX: usize = 64;
/// Most processes and threads that a task may ask for.
pub const PIDS_MAX: u32 = 100_000;
