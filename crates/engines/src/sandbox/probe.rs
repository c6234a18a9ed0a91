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
    Capabilities, Engine, EngineError, Feature, LimitKind, OnRestart, Recognized,
};
use dark_factory_types::{OwnerId, RunId};
use jiff::Timestamp;
use rustix::process::{getegid, geteuid, getgid, getuid};
use uuid::Uuid;

use super::config::{Network, Root, SandboxConfig, SandboxLimits};
use super::engine::SandboxEngine;
use super::lower::CONFIG_VERSION;
use super::{limits, shim, tries};

/// File: the boot in which a sandbox was made.
const NOTE: &str = "sandbox-engine";
/// A program of every system that only waits.
const PROGRAM: [&str; 2] = ["/bin/sleep", "1000"];

/// Makes a sandbox, and removes it.
pub(super) async fn try_one(engine: &SandboxEngine, now: Timestamp) -> Result<(), EngineError> {
    tries::clear(engine).await?;
    let id = Uuid::new_v4();
    let name = format!("probe-{}", id.simple());
    let (bits, _) = id.as_u64_pair();
    let config = SandboxConfig {
        version: CONFIG_VERSION,
        attempt: RunId::from_random_bits(bits).attempt(1),
        owner: OwnerId(tries::OWNER.to_owned()),
        created_at: now,
        labels: tries::labels(),
        root: Root::Host,
        binds: Vec::new(),
        tmpfs: Vec::new(),
        argv: PROGRAM.map(str::to_owned).to_vec(),
        env: BTreeMap::new(),
        workdir: "/".to_owned(),
        hostname: tries::OWNER.to_owned(),
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
            reason: format!("this machine makes no sandbox: {reason}"),
            advice: Some(advice()),
        }),
        Err(error) => Err(error),
    }
}

/// The settings of the system that forbid user namespaces: each one's file, what it says then, and what allows them.
const FORBIDDING: [(&str, &str, &str); 3] = [
    ("kernel/unprivileged_userns_clone", "0", "1"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ("user/max_user_namespaces", "0", "10000"),
];

/// Returns what may let this machine make sandboxes.
fn advice() -> String {
    let elsewhere = "or name a container engine with --engine or --host";
    let says = |file: &str, value: &str| {
        let said = fs::read_to_string(Path::new("/proc/sys").join(file));
        said.is_ok_and(|said| said.trim() == value)
    };
    let forbids = FORBIDDING
        .iter()
        .filter(|(file, forbidden, _)| says(file, forbidden));
    let lifted: Vec<String> = forbids
        .map(|(file, _, allowed)| format!("`sysctl -w {}={allowed}`", file.replace('/', ".")))
        .collect();
    match lifted.is_empty() {
        false => format!(
            "user namespaces are forbidden here: {} as root allows them; {elsewhere}",
            lifted.join(" and ")
        ),
        true => format!(
            "in a container or under a security module, namespaces and mounts must be allowed from outside; {elsewhere}"
        ),
    }
}

/// Returns what sandboxes can do on this machine.
pub(super) fn capabilities() -> Capabilities {
    let only_user = only_user();
    let lacks = Feature::ALL.into_iter();
    let lacks = lacks.filter(|feature| *feature != Feature::OtherUsers || only_user.is_some());
    Capabilities {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api_version: CONFIG_VERSION.to_string(),
        limits: limits::kept(),
        // There is no engine that could go down.
        on_restart: OnRestart::Survive,
        lacks: lacks.collect(),
        only_user,
    }
}

/// Returns who everybody in a sandbox is, where nobody else can be.
pub(super) fn only_user() -> Option<(u32, u32)> {
    let own = || (geteuid().as_raw(), getegid().as_raw());
    (!shim::has_other_users()).then(own)
}

/// Returns how sandboxes work on this machine, where these limits are kept.
pub(super) fn facts(kept: &[LimitKind]) -> Vec<(&'static str, String)> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let (user, namespaces) = match only_user() {
        None => (
            "root",
            "mounts, processes, network, IPC, host name, control groups",
        ),
        Some(_) => (
            "an ordinary user",
            "users, mounts, processes, network, IPC, host name, control groups",
        ),
    };
    let landlock = match shim::has_landlock() {
        true => "seccomp, Landlock",
        false => "seccomp; the kernel has no Landlock",
    };
    let facts = [
        ("kernel", kernel.trim().to_owned()),
        ("run by", user.to_owned()),
        ("namespaces of", namespaces.to_owned()),
        ("system calls and files by", landlock.to_owned()),
    ];
    let limits = limits::means(kept).map(|(limit, means)| {
        let name = match limit {
            LimitKind::Memory => "memory limit",
            LimitKind::Cpus => "cpus limit",
            LimitKind::Pids => "pids limit",
        };
        (name, means)
    });
    facts.into_iter().chain(limits).collect()
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
