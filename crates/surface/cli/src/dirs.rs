//! Where a person's files are, by the XDG base directory specification. Makes nothing.

use std::path::PathBuf;

/// `$XDG_CONFIG_HOME/prism`, or `~/.config/prism`.
pub fn config() -> Option<PathBuf> {
    base("XDG_CONFIG_HOME", ".config")
}

/// `$XDG_STATE_HOME/prism`, or `~/.local/state/prism`.
pub fn state() -> Option<PathBuf> {
    base("XDG_STATE_HOME", ".local/state")
}

/// A relative path in the variable is ignored, as the specification asks.
fn base(variable: &str, fallback: &str) -> Option<PathBuf> {
    let told = std::env::var_os(variable)
        .map(PathBuf::from)
        .filter(|p| p.is_absolute());
    let home = || {
        std::env::home_dir()
            .filter(|p| p.is_absolute())
            .map(|h| h.join(fallback))
    };
    told.or_else(home).map(|p| p.join("prism"))
}
