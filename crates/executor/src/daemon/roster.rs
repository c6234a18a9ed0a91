//! Which attempts the daemon has to do with, and what it does about each.
//!
//! Owns: the rule of who begins, who goes on, who is only watched, and who is tried again later.
//! Reads: what the daemon knows of an open attempt.
//! Never: does anything.

use std::collections::BTreeMap;
use std::time::Duration;

use dark_factory_types::AttemptId;
use tokio::time::Instant;

use super::protocol::Mode;
use crate::store::AttemptState;

/// How long an attempt that could not be gone on with is left alone: this long at first, twice as long each time.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// What the daemon does with an attempt now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// It begins, or has begun, a queued one; these count against the jobs.
    Begun,
    /// It goes on with what a dead process left.
    GoneOn,
    /// It waits for the death, or the end, of the process that supervises it.
    Watched,
}

/// An attempt that could not be gone on with.
#[derive(Debug, Clone)]
pub(super) struct Retry {
    pub(super) at: Instant,
    pub(super) why: String,
    tries: u32,
}

/// The attempts that the daemon has to do with.
#[derive(Debug)]
pub(super) struct Roster {
    jobs: usize,
    /// How many orphans are gone on with at the same time.
    orphans: usize,
    /// How many orphans wait for others to end.
    held_back: usize,
    pub(super) mode: Mode,
    doing: BTreeMap<AttemptId, Doing>,
    retries: BTreeMap<AttemptId, Retry>,
    waiting: Vec<AttemptId>,
}

impl Roster {
    pub(super) fn new(jobs: usize, orphans: usize) -> Self {
        Self {
            jobs,
            orphans,
            held_back: 0,
            mode: Mode::Serving,
            doing: BTreeMap::new(),
            retries: BTreeMap::new(),
            waiting: Vec::new(),
        }
    }

    /// Takes in which attempts are open, oldest first; whatever else was known is forgotten.
    pub(super) fn set_open(&mut self, open: &[(AttemptId, AttemptState)]) {
        self.retries
            .retain(|id, _| open.iter().any(|(open, _)| open == id));
        self.waiting = open
            .iter()
            .filter(|(_, state)| *state == AttemptState::Queued)
            .map(|(id, _)| *id)
            .filter(|id| !self.doing.contains_key(id))
            .collect();
    }

    /// Returns whether anything may be done about an attempt now.
    pub(super) fn is_free(&self, id: AttemptId, now: Instant) -> bool {
        !self.doing.contains_key(&id) && self.retries.get(&id).is_none_or(|retry| retry.at <= now)
    }

    /// Returns what to do about an attempt that is free and that no living process supervises.
    pub(super) fn choose(&self, state: AttemptState) -> Option<Doing> {
        match (self.mode, state) {
            (Mode::Draining, _) => None,
            (Mode::Serving, AttemptState::Queued) => {
                (self.count(Doing::Begun) < self.jobs).then_some(Doing::Begun)
            }
            (Mode::Serving, _) => {
                (self.count(Doing::GoneOn) < self.orphans).then_some(Doing::GoneOn)
            }
        }
    }

    /// Notes that something is being done.
    pub(super) fn begin(&mut self, id: AttemptId, doing: Doing) {
        self.waiting.retain(|waiting| *waiting != id);
        self.doing.insert(id, doing);
    }

    /// Notes that it is done.
    pub(super) fn end(&mut self, id: AttemptId) {
        self.doing.remove(&id);
    }

    /// Notes that it is done, and that an attempt that is open all the same is to be left alone for a while.
    pub(super) fn end_for_now(&mut self, id: AttemptId, why: &str, now: Instant) {
        self.end(id);
        let tries = self.retries.get(&id).map_or(0, |retry| retry.tries);
        let pause = FIRST_RETRY
            .saturating_mul(1 << tries.min(16))
            .min(LAST_RETRY);
        let retry = Retry {
            at: now + pause,
            why: why.to_owned(),
            tries: tries + 1,
        };
        self.retries.insert(id, retry);
    }

    /// Returns when an attempt that was left alone is due.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        let due = self
            .retries
            .iter()
            .filter(|(id, _)| !self.doing.contains_key(id));
        due.map(|(_, retry)| retry.at).min()
    }

    /// Returns the attempts that one thing is done about.
    pub(super) fn all(&self, wanted: Doing) -> impl Iterator<Item = AttemptId> + '_ {
        self.doing
            .iter()
            .filter(move |(_, doing)| **doing == wanted)
            .map(|(id, _)| *id)
    }

    /// Returns the attempts that the daemon supervises.
    pub(super) fn supervised(&self) -> impl Iterator<Item = AttemptId> + '_ {
        self.all(Doing::Begun).chain(self.all(Doing::GoneOn))
    }

    /// Returns the attempts that wait for their turn.
    pub(super) fn waiting(&self) -> &[AttemptId] {
        &self.waiting
    }

    /// Returns the attempts that are left alone for a while, and why; what is being done is not failing.
    pub(super) fn failing(&self) -> impl Iterator<Item = (AttemptId, &str)> {
        self.retries
            .iter()
            .filter(|(id, _)| !self.doing.contains_key(id))
            .map(|(id, retry)| (*id, retry.why.as_str()))
    }

    /// Takes in how many orphans wait for others to end; returns that number if it is to be told.
    pub(super) fn hold_back(&mut self, orphans: usize) -> Option<usize> {
        let told = std::mem::replace(&mut self.held_back, orphans);
        (orphans > told).then_some(orphans)
    }

    fn count(&self, wanted: Doing) -> usize {
        self.all(wanted).count()
    }
}

#[cfg(test)]
mod tests {
    use dark_factory_types::RunId;

    use super::*;

    fn id(n: u64) -> AttemptId {
        RunId::from_random_bits(n).attempt(1)
    }

    #[test]
    fn queued_runs_are_begun_up_to_the_jobs_and_orphans_do_not_count() {
        let mut roster = Roster::new(1, 9);
        assert_eq!(roster.choose(AttemptState::Running), Some(Doing::GoneOn));
        roster.begin(id(1), Doing::GoneOn);

        assert_eq!(roster.choose(AttemptState::Queued), Some(Doing::Begun));
        roster.begin(id(2), Doing::Begun);

        assert_eq!(roster.choose(AttemptState::Queued), None);
        assert_eq!(roster.choose(AttemptState::Running), Some(Doing::GoneOn));
        roster.end(id(2));
        assert_eq!(roster.choose(AttemptState::Queued), Some(Doing::Begun));
    }

    #[test]
    fn orphans_beyond_those_at_once_wait_and_are_told_of_when_there_are_more() {
        let mut roster = Roster::new(1, 2);
        roster.begin(id(1), Doing::GoneOn);
        roster.begin(id(2), Doing::GoneOn);

        assert_eq!(roster.choose(AttemptState::Running), None);
        assert_eq!(roster.choose(AttemptState::Queued), Some(Doing::Begun));
        assert_eq!(roster.hold_back(3), Some(3));
        assert_eq!(roster.hold_back(3), None);
        assert_eq!(roster.hold_back(1), None);
        assert_eq!(roster.hold_back(2), Some(2));
    }

    #[test]
    fn a_draining_daemon_takes_nothing_more() {
        let mut roster = Roster::new(4, 9);

        roster.mode = Mode::Draining;

        for state in [AttemptState::Queued, AttemptState::Running] {
            assert_eq!(roster.choose(state), None);
        }
    }

    #[test]
    fn what_is_tried_again_is_not_failing_meanwhile_and_waits_longer_after_that() {
        let mut roster = Roster::new(1, 9);
        let now = Instant::now();
        roster.begin(id(1), Doing::GoneOn);
        assert_eq!(roster.failing().count(), 0);
        roster.end_for_now(id(1), "the engine is away", now);
        assert_eq!(roster.failing().count(), 1);

        roster.begin(id(1), Doing::GoneOn);

        assert_eq!(roster.failing().count(), 0);
        roster.end_for_now(id(1), "the engine is away", now);
        assert_eq!(roster.next_retry(), Some(now + FIRST_RETRY * 2));
    }

    #[test]
    fn what_fails_is_left_alone_for_longer_each_time_and_forgotten_once_it_is_no_longer_open() {
        let mut roster = Roster::new(1, 9);
        let now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..20 {
            roster.begin(id(1), Doing::GoneOn);
            roster.end_for_now(id(1), "the engine is away", now);
            pauses.push(roster.next_retry().unwrap() - now);
        }

        assert!(!roster.is_free(id(1), now));
        assert!(roster.is_free(id(1), now + LAST_RETRY));
        assert_eq!(pauses[..3], [FIRST_RETRY, FIRST_RETRY * 2, FIRST_RETRY * 4]);
        assert_eq!(pauses[19], LAST_RETRY);
        roster.set_open(&[]);
        assert_eq!(roster.next_retry(), None);
        assert!(roster.is_free(id(1), now));
    }
}
