//! Sandboxes that are only tried, and what is left of them when whoever tried was killed.
//!
//! Owns: who tries one.
//! Reads: whether that process lives.
//! Never: touches a try of a living process.

use std::collections::BTreeMap;

use dark_factory_executor::clock::{Clock as _, SystemClock};
use dark_factory_executor::engine::EngineError;

use super::engine::SandboxEngine;
use super::process::{Process, Stat};

/// The owner of what is tried, which nobody else is.
pub(super) const OWNER: &str = "probe";
/// Label: the process that tries, by boot, id and start.
const TRIED_BY: &str = "dark-factory.tried-by";

/// Returns the labels of a sandbox that this process tries.
pub(super) fn labels() -> BTreeMap<String, String> {
    let own = std::process::id();
    let stat = i32::try_from(own).ok().and_then(Stat::read);
    let started = stat.map_or(0, |stat| stat.started);
    let by = format!("{} {own} {started}", SystemClock.moment().boot);
    BTreeMap::from([(TRIED_BY.to_owned(), by)])
}

/// Removes what was tried by processes that did not live to remove it.
pub(super) async fn clear(engine: &SandboxEngine) -> Result<(), EngineError> {
    for sandbox in engine.owned_by(OWNER)? {
        // One that goes while it is looked at needs nothing more.
        let Ok(config) = sandbox.config() else {
            continue;
        };
        let by = config.labels.get(TRIED_BY);
        if !by.is_some_and(|process| lives(process)) {
            sandbox.kill_to_the_end().await?;
            sandbox.remove().await?;
        }
    }
    Ok(())
}

fn lives(process: &str) -> bool {
    let mut words = process.split(' ');
    let boot = words.next();
    let pid = words.next().and_then(|word| word.parse().ok());
    let started = words.next().and_then(|word| word.parse().ok());
    let (Some(pid), Some(started)) = (pid, started) else {
        return false;
    };
    // What cannot be asked is left alone.
    boot == Some(SystemClock.moment().boot.as_str())
        && Process::find(pid, started).map_or(true, |found| found.is_some())
}
