//! Our terminal handed through to a command: every key goes there, and it is as before when we leave.

use prism_api::TtySize;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::exit::Failure;

/// The terminal in raw mode until this is dropped.
#[derive(Debug)]
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Enters raw mode.
    ///
    /// # Errors
    /// When standard input is no terminal.
    pub fn enter() -> Result<Self, Failure> {
        let fail = |e| {
            Failure::failed(
                prism_types::Fault::Output,
                format!("cannot set the terminal up: {e}"),
            )
        };
        let before = tcgetattr(std::io::stdin()).map_err(fail)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &raw).map_err(fail)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing is left to try when the terminal itself is gone.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Drain, &self.before);
    }
}

/// The size of our terminal.
pub fn size() -> TtySize {
    match tcgetwinsize(std::io::stdout()) {
        Ok(w) if w.ws_row > 0 && w.ws_col > 0 => TtySize {
            rows: w.ws_row,
            columns: w.ws_col,
        },
        Ok(_) | Err(_) => TtySize {
            rows: 24,
            columns: 80,
        },
    }
}
