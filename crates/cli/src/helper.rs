//! The static helper executable, as this binary carries it.
//!
//! Owns: the embedded bytes.
//! Reads: nothing.
//! Never: changes at run time.

use dark_factory_executor::state_dir::HelperExe;

/// The helper that every container of ours runs as PID 1; also the scripted stand-in agent of the demo.
pub const HELPER: HelperExe = HelperExe(include_bytes!(env!("DARK_FACTORY_INIT_PATH")));
