//! The engine: whether it answers, whether it is new enough, how it works, what time it has.
//!
//! Owns: what of it is worth a warning.
//! Reads: what the engine says of itself.
//! Never: starts a container.

use std::time::Duration;

use dark_factory_types::exit_code;
use jiff::Timestamp;

use super::Finding;
use crate::engine::{Description, Engine, EngineError, OnRestart};

/// A difference of the clocks that is worth a warning: the engine's events are asked for by time.
const NOTABLE_SKEW: Duration = Duration::from_secs(2);
/// One with which credentials and certificates stop working.
const BROKEN_SKEW: Duration = Duration::from_secs(300);

/// What came of contacting an engine.
#[derive(Debug)]
pub struct Contact {
    /// Whether it answers.
    pub engine: Finding,
    /// Whether it is new enough.
    pub version: Finding,
    /// What it says of itself, if it can be used.
    pub description: Option<Description>,
}

/// Contacts an engine; `named_by` is who says where it is, as in "from DOCKER_HOST".
pub async fn contact(engine: &dyn Engine, named_by: &str) -> Contact {
    let answers = || Finding::ok(format!("{} ({named_by}) answers", engine.endpoint()));
    match engine.describe().await {
        Ok(description) => {
            let capabilities = &description.capabilities;
            Contact {
                engine: answers(),
                version: Finding::ok(format!(
                    "{} {}, API {}",
                    engine.name(),
                    capabilities.version,
                    capabilities.api_version
                )),
                description: Some(description),
            }
        }
        Err(error @ EngineError::Unsupported { .. }) => Contact {
            engine: answers(),
            version: Finding::from(error),
            description: None,
        },
        Err(error) => {
            let mut failure = Finding::from(error);
            failure.found = format!("{} ({named_by})", failure.found);
            Contact {
                engine: failure,
                version: Finding::skipped("the engine cannot be asked"),
                description: None,
            }
        }
    }
}

/// Says how an engine works, and warns if running agents do not outlive it.
pub fn setup(description: &Description) -> Finding {
    let facts = description.facts.iter();
    let facts: Vec<String> = facts
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    let facts = facts.join("; ");
    match description.capabilities.on_restart {
        OnRestart::Survive => Finding::ok(format!("{facts}; containers outlive a restart")),
        OnRestart::End => Finding::warning(
            format!("{facts}; containers end when the engine restarts"),
            "with \"live-restore\": true in its daemon.json they outlive that",
        ),
    }
}

/// Compares the engine's clock with ours, as it was before and after the engine was asked.
pub fn clock(before: Timestamp, theirs: Option<Timestamp>, after: Timestamp) -> Finding {
    let Some(theirs) = theirs else {
        return Finding::skipped("the engine does not tell the time");
    };
    let late = Duration::try_from(before.duration_since(theirs)).unwrap_or_default();
    let early = Duration::try_from(theirs.duration_since(after)).unwrap_or_default();
    let skew = late.max(early);
    let found = format!(
        "the engine's clock differs from ours by {:.1} s",
        skew.as_secs_f64()
    );
    let advice = "let both machines take the time from the network (NTP)";
    if skew >= BROKEN_SKEW {
        Finding::failed(exit_code::ENGINE, found, Some(advice.to_owned()))
    } else if skew >= NOTABLE_SKEW {
        Finding::warning(found, advice)
    } else {
        Finding::ok("the engine has our time")
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_clock_that_was_read_while_we_waited_is_right() {
        assert_eq!(clock(at(100), Some(at(130)), at(160)).status, Status::Ok);
    }

    #[test]
    fn a_clock_is_wrong_by_what_it_is_outside_of_our_wait() {
        for theirs in [95, 165] {
            let found = clock(at(100), Some(at(theirs)), at(160));

            assert_eq!(found.status, Status::Warning);
            assert_eq!(found.found, "the engine's clock differs from ours by 5.0 s");
        }
        assert_eq!(
            clock(at(1000), Some(at(100)), at(1000)).status,
            Status::Failed
        );
    }
}
