//! The clocks, passed in.
//!
//! Owns: the one trait that says what time it is and waits for a time to come.
//! Reads: the system's clocks and its boot id, in [`SystemClock`].
//! Never: is bypassed.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::OnceLock;
use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use serde::{Deserialize, Serialize};

use crate::readable::Readable;

/// Where the kernel tells which boot this is: another text after each.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A future that ends at a time.
pub type Alarm<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Says what time it is; the seed's `CurrentDateTimeGetter`.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Returns the wall time, which may be set forward and back.
    fn now(&self) -> Timestamp;

    /// Returns this moment on every clock.
    fn moment(&self) -> Moment;

    /// Returns a future that ends once this much time has passed since now, time in which the machine was suspended
    /// included.
    fn alarm(&self, after: Duration) -> Alarm<'_>;
}

/// A moment on the wall clock, and on the boot-time clock that nobody can set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// The wall time.
    pub wall: Timestamp,
    /// Which boot of the machine this is.
    pub boot: String,
    /// Milliseconds since that boot, suspended time included.
    pub uptime_ms: u64,
    /// Milliseconds since that boot, suspended time left out.
    pub awake_ms: u64,
}

impl Moment {
    /// Returns how much time has passed from this moment to a later one.
    ///
    /// Within one boot the boot-time clock says so, whatever was done to the wall clock; across a reboot there is only
    /// the wall clock. Never negative.
    pub fn until(&self, later: &Self) -> Duration {
        if self.boot == later.boot {
            return Duration::from_millis(later.uptime_ms.saturating_sub(self.uptime_ms));
        }
        Duration::try_from(later.wall.duration_since(self.wall)).unwrap_or_default()
    }

    /// Returns how much of the time to a later moment the machine was awake; across a reboot that is not known, and
    /// all of it counts.
    pub fn awake_until(&self, later: &Self) -> Duration {
        if self.boot == later.boot {
            return Duration::from_millis(later.awake_ms.saturating_sub(self.awake_ms));
        }
        self.until(later)
    }

    /// Returns the moment of this boot at which the machine had been awake for this long; now at the latest.
    pub fn at_awake(&self, awake_ms: u64) -> Self {
        let ago = self.awake_ms.saturating_sub(awake_ms);
        let wall = Duration::from_millis(ago);
        Self {
            wall: self.wall.checked_sub(wall).unwrap_or(self.wall),
            boot: self.boot.clone(),
            uptime_ms: self.uptime_ms.saturating_sub(ago),
            awake_ms: self.awake_ms - ago,
        }
    }

    /// Returns the moment of this boot at which the machine had been awake for this long, earlier or later, as if it was
    /// not suspended between the two.
    pub fn near_awake(&self, awake_ms: u64) -> Self {
        let Some(later) = awake_ms.checked_sub(self.awake_ms) else {
            return self.at_awake(awake_ms);
        };
        let wall = self.wall.checked_add(Duration::from_millis(later));
        Self {
            wall: wall.unwrap_or(self.wall),
            boot: self.boot.clone(),
            uptime_ms: self.uptime_ms.saturating_add(later),
            awake_ms,
        }
    }

    /// Returns the moment of this boot at which the wall clock, as it goes now, showed `wall`.
    pub fn at_wall(&self, wall: Timestamp) -> Self {
        let ago = Duration::try_from(self.wall.duration_since(wall)).unwrap_or_default();
        let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        match self.uptime_ms.checked_sub(ago) {
            Some(uptime_ms) => Self {
                wall,
                boot: self.boot.clone(),
                uptime_ms,
                awake_ms: self.awake_ms.saturating_sub(ago),
            },
            // Before this boot: which one it was is not known, only that it was another.
            None => Self {
                wall,
                boot: String::new(),
                uptime_ms: 0,
                awake_ms: 0,
            },
        }
    }
}

/// The system's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the clock"
    )]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn moment(&self) -> Moment {
        Moment {
            wall: self.now(),
            boot: boot_id().to_owned(),
            uptime_ms: millis(clock_gettime(ClockId::Boottime)),
            awake_ms: millis(clock_gettime(ClockId::Monotonic)),
        }
    }

    fn alarm(&self, after: Duration) -> Alarm<'_> {
        Box::pin(async move {
            if let Err(error) = boot_alarm(after).await {
                tracing::debug!(%error, "no boot-time alarm, so time in suspend does not count");
                tokio::time::sleep(after).await;
            }
        })
    }
}

fn millis(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let millis = u64::try_from(time.tv_nsec / 1_000_000).unwrap_or(0);
    seconds.saturating_mul(1000) + millis
}

/// Returns the boot's id; where there is none, every process has the same empty one.
fn boot_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        let id = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
        id.trim().to_owned()
    })
}

/// Waits on the boot-time clock, which goes on while the machine is suspended; tokio's does not.
async fn boot_alarm(after: Duration) -> io::Result<()> {
    if after.is_zero() {
        return Ok(());
    }
    let timer = timerfd_create(
        TimerfdClockId::Boottime,
        TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
    )?;
    let once = Itimerspec {
        it_interval: Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
        it_value: Timespec {
            tv_sec: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(after.subsec_nanos()),
        },
    };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &once)?;
    Readable::new(timer)?.read(&mut [0; 8]).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(wall: i64, boot: &str, uptime_s: u64) -> Moment {
        Moment {
            wall: Timestamp::from_second(wall).unwrap(),
            boot: boot.to_owned(),
            uptime_ms: uptime_s * 1000,
            awake_ms: uptime_s * 1000,
        }
    }

    #[test]
    fn within_one_boot_a_clock_that_jumps_changes_nothing() {
        let start = moment(1_000_000, "a", 50);

        assert_eq!(
            start.until(&moment(5_000_000, "a", 60)),
            Duration::from_secs(10)
        );
        assert_eq!(start.until(&moment(3, "a", 60)), Duration::from_secs(10));
    }

    #[test]
    fn across_a_reboot_the_wall_clock_counts_and_never_backwards() {
        let start = moment(1_000_000, "a", 50);

        assert_eq!(
            start.until(&moment(1_000_030, "b", 2)),
            Duration::from_secs(30)
        );
        assert_eq!(start.until(&moment(900_000, "b", 2)), Duration::ZERO);
    }

    #[test]
    fn a_wall_time_is_placed_in_this_boot_or_before_it() {
        let now = moment(1_000_000, "a", 50);

        assert_eq!(
            now.at_wall(Timestamp::from_second(999_990).unwrap()),
            moment(999_990, "a", 40)
        );
        let before = now.at_wall(Timestamp::from_second(999_000).unwrap());
        assert_eq!(before.until(&now), Duration::from_secs(1000));
    }

    #[test]
    fn a_stamp_of_this_boot_needs_no_wall_clock() {
        let now = moment(1_000_000, "a", 50);

        assert_eq!(now.at_awake(40_000), moment(999_990, "a", 40));
        assert_eq!(now.at_awake(60_000), now);
        assert_eq!(now.near_awake(40_000), now.at_awake(40_000));
        assert_eq!(now.near_awake(60_000), moment(1_000_010, "a", 60));
    }

    #[tokio::test]
    async fn an_alarm_rings_after_its_time() {
        let clock = SystemClock;
        let before = clock.moment();

        clock.alarm(Duration::from_millis(20)).await;

        assert!(before.until(&clock.moment()) >= Duration::from_millis(19));
    }
}
