//! Whether this machine can keep sandboxes, found out by making one.
//!
//! Owns: the sandbox that is tried, and the note that it worked in this boot.
//! Reads: what the kernel says of itself.
//! Never: believes a setting where trying is possible.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use dark_factory_executor::clock::{Clock, SystemClock};
use dark_factory_executor::engine::{
    Capabilities, Engine, EngineError, Feature, OnRestart, Recognized,
};
use dark_factory_types::{OwnerId, RunId};
use jiff::Timestamp;
use rustix::process::{getgid, getuid};
use uuid::Uuid;

use super::config::{Network, Root, SandboxConfig, SandboxLimits};
use super::engine::SandboxEngine;
use super::limits;
use super::lower::CONFIG_VERSION;

/// File: the boot in which a sandbox was made.
const NOTE: &str = "sandbox-engine";
/// The owner of what is tried, which nobody else is.
const OWNER: &str = "probe";
/// A program of every system that only waits.
const PROGRAM: [&str; 2] = ["/bin/sleep", "1000"];

/// Makes a sandbox, and removes it.
pub(super) async fn try_one(engine: &SandboxEngine, now: Timestamp) -> Result<(), EngineError> {
    let id = Uuid::new_v4();
    let name = format!("probe-{}", id.simple());
    let (bits, _) = id.as_u64_pair();
    let config = SandboxConfig {
        version: CONFIG_VERSION,
        attempt: RunId::from_random_bits(bits).attempt(1),
        owner: OwnerId(OWNER.to_owned()),
        created_at: now,
        labels: BTreeMap::new(),
        root: Root::Host,
        binds: Vec::new(),
        tmpfs: Vec::new(),
        argv: PROGRAM.map(str::to_owned).to_vec(),
        env: BTreeMap::new(),
        workdir: "/".to_owned(),
        hostname: OWNER.to_owned(),
        uid: getuid().as_raw(),
        gid: getgid().as_raw(),
        network: Network::Loopback,
        limits: SandboxLimits::default(),
    };
    match engine.launch_idle(&name, config).await {
        Ok(sandbox) => {
            sandbox.kill_to_the_end().await?;
            sandbox.remove().await
        }
        Err(EngineError::StartRefused { reason, .. }) => Err(EngineError::Unsupported {
            endpoint: engine.endpoint(),
            reason: format!(
                "this machine makes no sandbox: {reason}; user namespaces may be forbidden \
                 (sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns, \
                 user.max_user_namespaces)"
            ),
        }),
        Err(error) => Err(error),
    }
}

/// Returns what sandboxes can do on this machine.
pub(super) fn capabilities() -> Capabilities {
    Capabilities {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api_version: CONFIG_VERSION.to_string(),
        limits: limits::kept(),
        // There is no engine that could go down.
        on_restart: OnRestart::Survive,
        lacks: Feature::ALL.to_vec(),
    }
}

/// Returns how sandboxes work on this machine.
pub(super) fn facts() -> Vec<(&'static str, String)> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let user = match getuid().is_root() {
        true => "root",
        false => "an ordinary user",
    };
    vec![
        ("kernel", kernel.trim().to_owned()),
        ("run by", user.to_owned()),
    ]
}

/// Returns whether a sandbox was made in this boot.
pub(super) fn recognize(notes: &Path) -> Recognized {
    match fs::read_to_string(notes.join(NOTE)) {
        Ok(noted) if noted == current() => Recognized::Yes,
        _ => Recognized::No,
    }
}

/// Notes that one was.
pub(super) fn note(notes: &Path) {
    if let Err(error) = fs::write(notes.join(NOTE), current()) {
        tracing::debug!(%error, "the sandbox will be tried again");
    }
}

fn current() -> String {
    format!("{} {}", SystemClock.moment().boot, getuid().as_raw())
}
