//! A pseudo-terminal for a command of its own.
//!
//! Owns: both ends of it, its size, and how a command is started on it.
//! Reads: nothing.
//! Never: knows what is shown on it.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};

use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// A terminal. No other process of the test inherits it.
pub(crate) struct Pty {
    /// The end of whoever looks at it and types.
    pub(crate) keyboard: File,
    /// The end of the programs.
    pub(crate) line: File,
}

impl Pty {
    pub(crate) fn open(columns: u16, rows: u16) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let keyboard = openpt(flags).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap();
        // It does not become the terminal of the test.
        let no_controlling = i32::try_from(OFlags::NOCTTY.bits()).unwrap();
        let line = File::options()
            .read(true)
            .write(true)
            .custom_flags(no_controlling)
            .open(name.to_str().unwrap())
            .unwrap();
        let keyboard = File::from(keyboard);
        resize(&keyboard, columns, rows);
        Self { keyboard, line }
    }

    /// Starts a command in a session of its own, whose terminal this is.
    pub(crate) fn start(&self, command: &Command) -> Child {
        let mut in_session = Command::new("setsid");
        in_session
            .arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args());
        if let Some(folder) = command.get_current_dir() {
            in_session.current_dir(folder);
        }
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => in_session.env(name, value),
                None => in_session.env_remove(name),
            };
        }
        let side = || Stdio::from(self.line.try_clone().unwrap());
        in_session
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .unwrap()
    }
}

/// Changes the size of a terminal, which its programs are told of.
pub(crate) fn resize(terminal: &File, columns: u16, rows: u16) {
    let size = Winsize {
        ws_col: columns,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).unwrap();
}

/// Returns whether every key goes to the program as it is.
pub(crate) fn is_raw(terminal: &File) -> bool {
    let modes = tcgetattr(terminal).unwrap().local_modes;
    !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
}
