//! The guard: this very program, as a process of its own.
//!
//! Owns: nothing; see `dark_factory_egress`.
//! Reads: where keys are, by flags and configuration.
//! Never: has logic that a library user would need.

use std::path::Path;

use dark_factory_egress::{GuardProcess, GuardProgram, serve};
use dark_factory_types::exit_code;

use crate::context::Context;
use crate::error::CommandError;

/// Is the guard of the state folder, until there is nothing to guard.
pub(crate) async fn guard(context: &Context) -> Result<u8, CommandError> {
    let served = serve(context.state_dir.clone()).await;
    served.map_err(|error| CommandError::internal("guard runs", error))?;
    Ok(exit_code::SUCCEEDED)
}

impl Context {
    /// Returns the guard of a state folder, for runs with the keys of this machine.
    pub(crate) fn guard_of(&self, state_dir: &Path) -> GuardProcess {
        // Also if the program's file was replaced meanwhile.
        let program = GuardProgram::DarkFactory("/proc/self/exe".into());
        GuardProcess::new(state_dir, program, self.keys(), self.host.clone())
    }
}
