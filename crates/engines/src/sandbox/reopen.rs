//! A running copy of an ended sandbox.
//!
//! Owns: what of the ended one is in it.
//! Reads: the ended one's configuration.
//! Never: has its secrets. What was in its memory file systems is gone with it, and its root was never written to.

use std::path::Path;

use dark_factory_executor::spec::{
    Access, AttemptDir, CONTAINER_ATTEMPT, CONTAINER_INIT, CONTAINER_PROMPT, CONTAINER_SECRETS,
    LaunchSpec,
};
use jiff::Timestamp;

use super::config::{SandboxBind, SandboxConfig};
use super::limits;

/// What the helper executable does in a copy: nothing, for more than a year.
const IDLE: &str = "sleep 10000h";

/// Returns the configuration of a copy: the ended one's, with something idle in place of the agent.
pub(super) fn config(
    ended: SandboxConfig,
    spec: &LaunchSpec,
    dir: &AttemptDir,
    now: Timestamp,
) -> SandboxConfig {
    let mut binds = ended.binds;
    let ours = [CONTAINER_ATTEMPT, CONTAINER_SECRETS].map(Path::new);
    binds.retain(|bind| !ours.contains(&bind.target.as_path()));
    if dir.recorded_prompt().exists() {
        binds.push(SandboxBind {
            source: dir.recorded_prompt(),
            target: CONTAINER_PROMPT.into(),
            access: Access::ReadOnly,
        });
    }
    SandboxConfig {
        binds,
        argv: [CONTAINER_INIT, "agent", "-e", IDLE]
            .map(str::to_owned)
            .to_vec(),
        limits: limits::plan(&spec.limits),
        created_at: now,
        ..ended
    }
}
