//! The exit codes of the `dark-factory` command.
//!
//! Owns: their values, their meanings, and which one wins when several files were run.
//! Reads: nothing.
//! Never: ends a process.

/// The run succeeded.
pub const SUCCEEDED: u8 = 0;
/// The agent or its validation failed, the result is partial, or there is none.
pub const FAILED: u8 = 1;
/// Bad usage or configuration; a prompt file is missing or bad.
pub const USAGE: u8 = 2;
/// There is no such run or container.
pub const NOT_FOUND: u8 = 3;
/// The engine is unreachable or it refused: image missing, bad command, name taken.
pub const ENGINE: u8 = 4;
/// Our own failure.
pub const INTERNAL: u8 = 5;
/// Stopped by a budget, disk or log limit.
pub const LIMIT: u8 = 6;
/// The workload was lost.
pub const LOST: u8 = 7;
/// Stopped by the wall or idle timeout.
pub const TIMED_OUT: u8 = 124;
/// Cancelled.
pub const CANCELLED: u8 = 130;
/// Out of memory, or killed from outside.
pub const KILLED: u8 = 137;

/// Every code with its meaning, in the order of the numbers; `--help` and the docs print this.
pub const MEANINGS: [(u8, &str); 11] = [
    (SUCCEEDED, "succeeded"),
    (FAILED, "agent or validation failed, partial, no result"),
    (USAGE, "usage, configuration, prompt file missing or bad"),
    (NOT_FOUND, "no such run or container"),
    (
        ENGINE,
        "engine unreachable or it refused (image missing, bad command, name taken)",
    ),
    (INTERNAL, "our failure"),
    (LIMIT, "stopped by a budget, disk or log limit"),
    (LOST, "lost"),
    (TIMED_OUT, "wall or idle timeout"),
    (CANCELLED, "cancelled"),
    (KILLED, "out of memory or killed from outside"),
];

/// The order in which codes win when several files were run.
const PRECEDENCE: [u8; 10] = [
    INTERNAL, ENGINE, LOST, USAGE, NOT_FOUND, KILLED, TIMED_OUT, LIMIT, CANCELLED, FAILED,
];

/// Returns the one exit code of several runs: the first that occurs in the documented order.
pub fn combine(codes: impl IntoIterator<Item = u8>) -> u8 {
    let rank = |code: &u8| {
        PRECEDENCE
            .iter()
            .position(|p| p == code)
            .unwrap_or(PRECEDENCE.len())
    };
    codes
        .into_iter()
        .filter(|&code| code != SUCCEEDED)
        .min_by_key(rank)
        .unwrap_or(SUCCEEDED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_code_of_several_runs_wins() {
        assert_eq!(combine([]), SUCCEEDED);
        assert_eq!(combine([SUCCEEDED, FAILED, CANCELLED]), CANCELLED);
        assert_eq!(combine([FAILED, KILLED, TIMED_OUT]), KILLED);
        assert_eq!(combine([LOST, ENGINE, INTERNAL, USAGE]), INTERNAL);
    }
}
