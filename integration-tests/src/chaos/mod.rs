//! Runs that are killed, failed and hung wherever that can be done, and what must be true of them afterwards.
//!
//! Owns: [`Schedule`]: what is run and what goes wrong; [`play`]: doing so with real processes; the one list of checks.
//! Reads: the fail points' traces on standard error; what a user can read of the result.
//! Never: looks into the store, or waits for a time where there is an event to wait for.

mod play;
mod point;
mod process;
mod random;
mod schedule;
mod script;
mod tally;
mod verify;

pub use play::{Played, play};
pub use point::{Met, every_point};
pub use process::{Ended, How, Process};
pub use random::Random;
pub use schedule::{Effect, Fault, Role, Scenario, Schedule, Trigger, Trouble};
pub use script::{Piece, Script};
pub use tally::{Failure, Tally, play_all};
