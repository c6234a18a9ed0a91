//! The fail points: which there are, and a schedule for each that a scenario reaches.
//!
//! Owns: the list from which random schedules choose.
//! Reads: the traces of calm runs.
//! Never: skips a point because it is not in the list: that fails.

use std::collections::{BTreeMap, BTreeSet};

use crate::Engine;

use super::play::Played;
use super::schedule::{Effect, Fault, Role, Scenario, Schedule};

/// Every fail point that a run, its other commands and its recoveries reach.
pub(super) const KNOWN: &[&str] = &[
    "attempt.baseline.after",
    "attempt.changes.after",
    "attempt.files.before",
    "attempt.folder.after",
    "attempt.report.after",
    "attempt.report.before",
    "engine.create.after",
    "engine.create.before",
    "engine.image.after",
    "engine.image.before",
    "engine.list.after",
    "engine.list.before",
    "engine.pause.after",
    "engine.pause.before",
    "engine.recover.after",
    "engine.recover.before",
    "engine.remove.after",
    "engine.remove.before",
    "engine.start.after",
    "engine.start.before",
    "engine.stop.after",
    "engine.stop.before",
    "engine.unpause.after",
    "engine.unpause.before",
    "engine.wait.after",
    "engine.wait.before",
    "spool.handover.after",
    "spool.handover.before",
    "spool.listening.after",
    "store.add.after",
    "store.add.before",
    "store.begin_stop.after",
    "store.begin_stop.before",
    "store.collecting.after",
    "store.collecting.before",
    "store.creating.after",
    "store.creating.before",
    "store.finished.after",
    "store.finished.before",
    "store.paused.after",
    "store.paused.before",
    "store.pulling.after",
    "store.pulling.before",
    "store.removed.after",
    "store.removed.before",
    "store.request_pause.after",
    "store.request_pause.before",
    "store.request_stop.after",
    "store.request_stop.before",
    "store.running.after",
    "store.running.before",
    "store.silence.after",
    "store.silence.before",
    "store.starting.after",
    "store.starting.before",
    "store.sync.after",
    "store.sync.before",
    "store.take_over.after",
    "store.take_over.before",
];

/// The first step in which scenarios differ.
const START: &str = "engine.start.before";

/// How many hits of one point are met.
const HITS: usize = 2;

/// How thoroughly the points are gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// Every point of every scenario with every effect.
    InEveryScenario,
    /// Every point with every effect in the first scenario that has it, and with a kill in the others; the steps up to
    /// the container's start, which are the same in all, only in those that differ there. In the sandbox, a kill in the
    /// first scenario that has it.
    Once,
}

/// Returns a schedule for each point that calm runs reached, in the order of the runs.
///
/// # Errors
///
/// Names points that are not in the list.
pub fn every_point(calm: &[Played], met: Met) -> Result<Vec<Schedule>, String> {
    let mut schedules = Vec::new();
    let mut seen: BTreeSet<(Engine, &str, usize)> = BTreeSet::new();
    let mut unknown: BTreeSet<&str> = BTreeSet::new();
    for played in calm {
        let (engine, scenario) = (played.schedule.engine, played.schedule.scenario);
        for (role, ended) in &played.first {
            if matches!(scenario, Scenario::Orphaned | Scenario::OrphanStopped)
                && *role == Role::Run
            {
                continue;
            }
            let reached = ended.reached();
            let start = reached.iter().position(|point| *point == START);
            let mut hits: BTreeMap<&str, usize> = BTreeMap::new();
            for (at, point) in reached.iter().enumerate() {
                let hit = hits.entry(*point).or_default();
                *hit += 1;
                if !KNOWN.contains(point) {
                    unknown.insert(*point);
                }
                let is_same = *role == Role::Run
                    && start.is_some_and(|start| at < start)
                    && !matches!(scenario, Scenario::Plain | Scenario::Secret);
                if *hit > HITS || (met == Met::Once && is_same) {
                    continue;
                }
                let is_new = seen.insert((engine, *point, *hit));
                let effects = match (met, engine, is_new) {
                    (Met::InEveryScenario, _, _) | (Met::Once, Engine::Docker, true) => {
                        &Effect::ALL[..]
                    }
                    (Met::Once, Engine::Docker, false) | (Met::Once, Engine::Sandbox, true) => {
                        &Effect::ALL[..1]
                    }
                    (Met::Once, Engine::Sandbox, false) => continue,
                };
                schedules.extend(effects.iter().map(|&effect| {
                    let fault = Fault::Point {
                        point: (*point).to_owned(),
                        hit: *hit,
                        times: 1,
                        effect,
                    };
                    Schedule::with_fault(engine, scenario, *role, fault)
                }));
            }
        }
    }
    match unknown.is_empty() {
        true => Ok(schedules),
        false => Err(format!("points that are not in the list: {unknown:?}")),
    }
}
