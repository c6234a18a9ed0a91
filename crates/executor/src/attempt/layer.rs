//! Measures what a workload writes into its container's own file system.
//!
//! Owns: when it is measured, and when there is too much.
//! Reads: the engine's measure.
//! Never: stops anything; see `watch`.

use std::future::pending;
use std::time::Duration;

use dark_factory_types::{ByteSize, StopReason};

use super::drive::Drive;
use crate::engine::Workload;

/// How long before the first measurement, and the least between two.
const LEAST_PAUSE: Duration = Duration::from_secs(5);

/// The most between two.
const MOST_PAUSE: Duration = Duration::from_secs(600);

/// How much longer a pause is than what it follows: engines look at each file that was written, and with some storage
/// drivers at each of the image as well. So it takes a twentieth of a CPU.
const PAUSE_PER_COST: u32 = 20;

impl Drive<'_> {
    /// Waits until a workload has written more than it may; for ever without a limit, or where the engine cannot say.
    pub(super) async fn wrote_too_much(
        &self,
        workload: &dyn Workload,
        limit: Option<ByteSize>,
    ) -> StopReason {
        let Some(limit) = limit else {
            return pending().await;
        };
        let mut pause = LEAST_PAUSE;
        loop {
            self.clock.alarm(pause).await;
            let before = self.clock.moment();
            match workload.disk_usage().await {
                Ok(Some(used)) if used > limit => return StopReason::DiskLimit { limit, used },
                Ok(Some(used)) => tracing::debug!(%used, "measured the container's file system"),
                Ok(None) => {
                    tracing::warn!(
                        "the engine does not say what is written into the container, so disk-limit is not kept"
                    );
                    return pending().await;
                }
                // One that does not answer is told of by whoever waits for the end.
                Err(error) => {
                    tracing::debug!(error = %error.sentence(), "the container's file system is measured later");
                }
            }
            pause = pause_after(before.awake_until(&self.clock.moment()));
        }
    }
}

/// Returns how long to wait after a measurement that took `cost`.
fn pause_after(cost: Duration) -> Duration {
    (cost * PAUSE_PER_COST).clamp(LEAST_PAUSE, MOST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_to_measure_is_measured_less_often() {
        for (cost, pause) in [
            (Duration::from_millis(2), LEAST_PAUSE),
            (Duration::from_millis(800), Duration::from_secs(16)),
            (Duration::from_secs(25), Duration::from_secs(500)),
            (Duration::from_secs(120), MOST_PAUSE),
        ] {
            assert_eq!(pause_after(cost), pause);
        }
    }
}
