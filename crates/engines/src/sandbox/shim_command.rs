//! How a shim is started.
//!
//! Owns: the shim's command line and environment.
//! Reads: nothing.
//! Never: waits for it.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::{Child, Command};

use super::config::{EXEC_ARG, ExecRequest, SHIM_ARG};
use super::folder::Folder;

/// The program that is a shim when it is called with [`SHIM_ARG`]: usually our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShimCommand {
    program: PathBuf,
    args: Vec<OsString>,
}

impl ShimCommand {
    /// Names the program, and the arguments that go before [`SHIM_ARG`].
    pub fn new(program: PathBuf, args: Vec<OsString>) -> Self {
        Self { program, args }
    }

    /// Starts the shim of a sandbox. It outlives us; whoever holds the value sees its end.
    ///
    /// It gets nothing of our environment, which may hold secrets.
    pub(super) fn spawn(&self, folder: &Folder) -> io::Result<Child> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(folder.log())?;
        self.command()
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
    }

    /// Returns the command that executes a program in a running sandbox.
    pub(super) fn exec(&self, folder: &Folder, request: &ExecRequest) -> io::Result<Command> {
        let mut command = self.command();
        command
            .arg(EXEC_ARG)
            .arg(folder.path())
            .arg(serde_json::to_string(request)?);
        Ok(command)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).arg(SHIM_ARG).env_clear();
        command
    }
}
