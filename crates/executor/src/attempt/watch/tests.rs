//! The deadlines on a simulated clock: wall time that is set, suspend, a reboot, and pauses.
//!
//! Owns: a clock that goes only when it is told to.
//! Reads: what is due.
//! Never: waits.

use std::future::pending;
use std::sync::Mutex;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::clock::{Alarm, Clock};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// A clock that is simulated on all its faces.
#[derive(Debug)]
struct TestClock(Mutex<Moment>);

impl TestClock {
    fn new() -> Self {
        Self(Mutex::new(Moment {
            wall: "2026-11-24T12:00:00Z".parse().unwrap(),
            boot: "first".to_owned(),
            uptime_ms: 1_000_000,
            awake_ms: 900_000,
        }))
    }

    fn change(&self, change: impl FnOnce(&mut Moment)) {
        change(&mut self.0.lock().unwrap());
    }

    /// Lets time pass, awake.
    fn pass(&self, time: Duration) {
        self.suspend(time);
        self.change(|now| now.awake_ms += millis(time));
    }

    /// Lets time pass, asleep.
    fn suspend(&self, time: Duration) {
        self.change(|now| {
            now.wall += SignedDuration::try_from(time).unwrap();
            now.uptime_ms += millis(time);
        });
    }

    /// Sets the wall clock, as an operator or NTP would.
    fn set_wall(&self, by: SignedDuration) {
        self.change(|now| now.wall += by);
    }

    /// Boots the machine anew, which takes this long.
    fn reboot(&self, time: Duration) {
        self.suspend(time);
        self.change(|now| {
            now.boot = "second".to_owned();
            now.uptime_ms = 10_000;
            now.awake_ms = 10_000;
        });
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        self.moment().wall
    }

    fn moment(&self) -> Moment {
        self.0.lock().unwrap().clone()
    }

    fn alarm(&self, _after: Duration) -> Alarm<'_> {
        Box::pin(pending())
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap()
}

/// A workload that was started on a simulated clock.
struct Watched {
    clock: TestClock,
    deadlines: Deadlines,
    signs: Signs,
    motion: Motion,
    acts: Acts<'static>,
}

impl Watched {
    /// Starts one without any limit but the patience with a full disk.
    fn started() -> Self {
        let clock = TestClock::new();
        let started = clock.moment();
        Self {
            clock,
            deadlines: Deadlines {
                going_since: started.clone(),
                started,
                paused: Duration::ZERO,
                wall: None,
                idle: None,
                linger: None,
                disk: 10 * MINUTE,
            },
            signs: Signs {
                reading: Reading::AtEnd,
                ..Signs::default()
            },
            motion: Motion::Going,
            acts: Acts {
                again: None,
                stopping: None,
                grace: None,
            },
        }
    }

    fn with_wall(limit: Duration) -> Self {
        let mut watched = Self::started();
        watched.deadlines.wall = Some(limit);
        watched
    }

    fn with_idle(limit: Duration) -> Self {
        let mut watched = Self::started();
        watched.deadlines.idle = Some(limit);
        watched
    }

    /// Lets time pass while it is frozen.
    fn pause_for(&mut self, time: Duration) {
        let since = self.clock.moment();
        self.motion = Motion::Frozen;
        self.clock.pass(time);
        assert_eq!(
            self.due(),
            Due::Not(SAFETY_LOOK),
            "nothing is due in a pause"
        );
        let now = self.clock.moment();
        let paused = self.deadlines.paused + since.until(&now);
        self.deadlines.go_on(paused, now);
        self.motion = Motion::Going;
    }

    fn prints(&mut self) {
        self.signs.output = Some(self.clock.moment());
    }

    fn gives_its_result(&mut self) {
        self.prints();
        self.signs.result = Some(self.clock.moment());
    }

    fn due(&self) -> Due {
        self.deadlines
            .due(&self.clock.moment(), &self.signs, self.motion, &self.acts)
    }

    fn is_due(&self) -> bool {
        !matches!(self.due(), Due::Not(_))
    }
}

fn deadline(limit: Duration) -> Due {
    Due::Stop(StopReason::Deadline { limit })
}

fn idle(limit: Duration) -> Due {
    Due::Stop(StopReason::Idle { limit })
}

#[test]
fn a_time_limit_is_due_when_it_has_passed_and_not_before() {
    let watched = Watched::with_wall(10 * MINUTE);

    watched.clock.pass(10 * MINUTE - Duration::from_secs(5));
    assert_eq!(watched.due(), Due::Not(Duration::from_secs(5)));
    watched.clock.pass(Duration::from_secs(5));

    assert_eq!(watched.due(), deadline(10 * MINUTE));
}

#[test]
fn a_wall_clock_that_is_set_an_hour_forward_ends_nothing_early() {
    let mut watched = Watched::with_wall(10 * MINUTE);
    watched.deadlines.idle = Some(10 * MINUTE);

    watched.clock.pass(MINUTE);
    watched.clock.set_wall(HOUR);

    assert!(!watched.is_due());
    watched.clock.pass(9 * MINUTE);
    assert_eq!(watched.due(), deadline(10 * MINUTE));
}

#[test]
fn a_wall_clock_that_is_set_an_hour_back_ends_nothing_late() {
    let watched = Watched::with_wall(10 * MINUTE);

    watched.clock.pass(MINUTE);
    watched.clock.set_wall(-HOUR);
    watched.clock.pass(9 * MINUTE);

    assert_eq!(watched.due(), deadline(10 * MINUTE));
}

#[test]
fn time_in_suspend_counts_for_the_time_limit() {
    let watched = Watched::with_wall(10 * MINUTE);

    watched.clock.suspend(10 * MINUTE);

    assert_eq!(watched.due(), deadline(10 * MINUTE));
}

#[test]
fn time_in_suspend_is_no_silence() {
    let mut watched = Watched::with_idle(10 * MINUTE);
    watched.prints();

    watched.clock.suspend(60 * MINUTE);
    watched.clock.pass(9 * MINUTE);

    assert!(!watched.is_due());
    watched.clock.pass(MINUTE);
    assert_eq!(watched.due(), idle(10 * MINUTE));
}

#[test]
fn across_a_reboot_the_wall_clock_counts_for_the_time_limit() {
    let watched = Watched::with_wall(10 * MINUTE);

    watched.clock.pass(MINUTE);
    watched.clock.reboot(8 * MINUTE);

    assert_eq!(watched.due(), Due::Not(SAFETY_LOOK));
    watched.clock.pass(MINUTE);
    assert_eq!(watched.due(), deadline(10 * MINUTE));
}

#[test]
fn time_in_a_pause_counts_for_no_deadline() {
    let mut watched = Watched::with_wall(10 * MINUTE);
    watched.deadlines.idle = Some(5 * MINUTE);
    watched.deadlines.linger = Some(2 * MINUTE);
    watched.gives_its_result();

    watched.clock.pass(MINUTE);
    watched.pause_for(60 * MINUTE);

    assert!(!watched.is_due());
}

#[test]
fn a_time_limit_goes_on_after_a_pause_where_it_was() {
    let mut watched = Watched::with_wall(10 * MINUTE);

    watched.clock.pass(4 * MINUTE);
    watched.pause_for(60 * MINUTE);
    watched.clock.pass(3 * MINUTE);
    watched.pause_for(60 * MINUTE);
    watched.clock.pass(3 * MINUTE - Duration::from_secs(1));

    assert!(!watched.is_due());
    watched.clock.pass(Duration::from_secs(1));
    assert_eq!(watched.due(), deadline(10 * MINUTE));
}

#[test]
fn silence_begins_anew_after_a_pause() {
    let mut watched = Watched::with_idle(5 * MINUTE);

    watched.clock.pass(4 * MINUTE);
    watched.pause_for(60 * MINUTE);
    watched.clock.pass(4 * MINUTE);

    assert!(!watched.is_due());
    watched.clock.pass(MINUTE);
    assert_eq!(watched.due(), idle(5 * MINUTE));
}

#[test]
fn silence_counts_from_the_last_output() {
    let mut watched = Watched::with_idle(5 * MINUTE);

    watched.clock.pass(4 * MINUTE);
    watched.prints();
    watched.clock.pass(4 * MINUTE);

    assert!(!watched.is_due());
    watched.clock.pass(MINUTE);
    assert_eq!(watched.due(), idle(5 * MINUTE));
}

#[test]
fn a_full_disk_is_no_silence_and_has_a_patience_of_its_own() {
    let mut watched = Watched::with_idle(MINUTE);
    watched.signs.full = Some(watched.clock.moment());

    watched.clock.pass(10 * MINUTE - Duration::from_secs(1));

    assert_eq!(watched.due(), Due::Not(Duration::from_secs(1)));
    watched.clock.pass(Duration::from_secs(1));
    assert_eq!(watched.due(), Due::LeaveOpen);
}

#[test]
fn silence_begins_anew_when_a_full_disk_has_room_again() {
    let mut watched = Watched::with_idle(5 * MINUTE);
    watched.prints();
    watched.signs.full = Some(watched.clock.moment());
    watched.clock.pass(9 * MINUTE);
    watched.signs.full = None;
    watched.signs.room = Some(watched.clock.moment());

    watched.clock.pass(4 * MINUTE);

    assert!(!watched.is_due());
    watched.clock.pass(MINUTE);
    assert_eq!(watched.due(), idle(5 * MINUTE));
}

#[test]
fn what_nobody_has_read_yet_is_no_silence() {
    let mut watched = Watched::with_idle(5 * MINUTE);
    watched.clock.pass(60 * MINUTE);

    // As a recovery finds it before it has read what was printed meanwhile, and a pump that is kept busy.
    for reading in [Reading::Backlog, Reading::Busy] {
        watched.signs.reading = reading;
        assert!(!watched.is_due());
    }
    watched.prints();
    watched.signs.reading = Reading::AtEnd;

    assert!(!watched.is_due());
}

#[test]
fn an_agent_that_gave_its_result_has_its_grace_to_leave() {
    let mut watched = Watched::started();
    watched.deadlines.linger = Some(2 * MINUTE);

    watched.clock.pass(60 * MINUTE);
    watched.gives_its_result();
    watched.clock.pass(2 * MINUTE - Duration::from_secs(1));

    assert!(!watched.is_due());
    watched.clock.pass(Duration::from_secs(1));
    assert_eq!(
        watched.due(),
        Due::Stop(StopReason::Lingered { grace: 2 * MINUTE })
    );
}

#[test]
fn an_agent_that_works_on_after_its_result_has_no_grace_to_keep() {
    let mut watched = Watched::started();
    watched.deadlines.linger = Some(2 * MINUTE);
    watched.gives_its_result();

    watched.clock.pass(MINUTE);
    // What the pump makes of it once more work is seen.
    watched.signs.result = None;
    watched.clock.pass(60 * MINUTE);

    assert!(!watched.is_due());
}

#[test]
fn a_result_that_is_there_counts_before_the_time_that_is_up() {
    let mut watched = Watched::with_wall(2 * MINUTE);
    watched.deadlines.linger = Some(MINUTE);
    watched.deadlines.idle = Some(MINUTE);
    watched.clock.pass(MINUTE);
    watched.gives_its_result();

    watched.clock.pass(MINUTE);

    assert_eq!(
        watched.due(),
        Due::Stop(StopReason::Lingered { grace: MINUTE })
    );
}

#[test]
fn a_workload_that_is_being_stopped_is_not_stopped_for_another_reason() {
    let mut watched = Watched::with_wall(MINUTE);
    watched.acts.grace = Some(Duration::from_secs(10));

    watched.clock.pass(60 * MINUTE);

    assert_eq!(watched.due(), Due::Not(SAFETY_LOOK));
}
