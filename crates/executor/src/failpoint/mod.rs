//! Fail points: named places at which a test can kill, hang or fail this process.
//!
//! Owns: what a point does when it is reached.
//! Reads: the variable `FAILPOINTS`, once, in [`set_up`]: `NAME=return(kill);NAME=2*off->return(error)`.
//! Never: does anything in a build without the feature `failpoints`.
//!
//! Each write to the store and each call to the engine has one point before it and one behind it. An error behind it
//! is a lost reply: the thing was done. Reached points are traced under the target `failpoint`, so that a test can find
//! out which there are.

#[cfg(feature = "failpoints")]
mod engine;

use std::future::Future;

#[cfg(feature = "failpoints")]
pub(crate) use engine::FaultyEngine;

/// An error that a test asked for.
#[derive(Debug, thiserror::Error)]
#[error("a test made this fail")]
pub struct Injected;

/// What a reached point does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "failpoints"),
    expect(dead_code, reason = "only made with the feature")
)]
enum Action {
    GoOn,
    Fail,
    Hang,
}

/// Reads what the points are to do, for as long as the returned value lives.
#[cfg(feature = "failpoints")]
#[must_use]
pub fn set_up() -> impl Sized {
    fail::FailScenario::setup()
}

/// Reaches the point of this name, whose parts are joined by dots; the future then fails, hangs, or is ready at once. A kill has happened before there is a future.
///
/// # Errors
///
/// [`Injected`] if a test asked for it.
pub fn reach(point: [&str; 3]) -> impl Future<Output = Result<(), Injected>> + use<> {
    let action = action(point);
    async move {
        match action {
            Action::GoOn => Ok(()),
            Action::Fail => Err(Injected),
            Action::Hang => std::future::pending().await,
        }
    }
}

#[cfg(not(feature = "failpoints"))]
fn action(_point: [&str; 3]) -> Action {
    Action::GoOn
}

#[cfg(feature = "failpoints")]
fn action(point: [&str; 3]) -> Action {
    let point = point.join(".");
    tracing::trace!(target: "failpoint", %point);
    fail::fail_point!(&point, |what| match what.as_deref() {
        Some("error") => Action::Fail,
        Some("hang") => Action::Hang,
        _ => kill(),
    });
    Action::GoOn
}

/// Ends this process the way a crash does: nothing of it runs any more.
#[cfg(feature = "failpoints")]
fn kill() -> Action {
    use rustix::process::{Signal, getpid, kill_process};
    let _killed = kill_process(getpid(), Signal::KILL);
    Action::Hang
}
