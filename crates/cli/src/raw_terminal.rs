//! A terminal whose keys all go to a program in a container.
//!
//! Owns: the terminal's mode, from its change until it is as before.
//! Reads: the terminal's size.
//! Never: leaves the terminal in another mode than it was found in: dropping the value restores it, also in a panic.

use std::io::{self, IsTerminal};

use dark_factory_executor::engine::TerminalSize;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// The terminal of this process, raw as long as the value lives.
#[derive(Debug)]
pub(crate) struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Returns whether this process has a terminal for input and output.
    pub(crate) fn is_there() -> bool {
        io::stdin().is_terminal() && io::stdout().is_terminal()
    }

    /// Lets no key and no output be changed any more: Ctrl-C is a byte, and lines end as they are written.
    pub(crate) fn enter() -> io::Result<Self> {
        let before = tcgetattr(rustix::stdio::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }

    /// Returns the terminal's size now.
    pub(crate) fn size() -> io::Result<TerminalSize> {
        let size = tcgetwinsize(rustix::stdio::stdout())?;
        Ok(TerminalSize {
            columns: size.ws_col,
            rows: size.ws_row,
        })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let stdin = rustix::stdio::stdin();
        if let Err(error) = tcsetattr(stdin, OptionalActions::Now, &self.before) {
            tracing::warn!(%error, "the terminal stays raw; `reset` restores it");
        }
    }
}
