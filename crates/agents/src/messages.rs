//! What failures are called, for all agents.
//!
//! Owns: what an HTTP status means, and how a table of messages is read.
//! Reads: the table of one agent.
//! Never: decides whether it is a failure.

use dark_factory_types::ErrorClass::{self, *};

/// Returns the class of the first part of a message that the table knows; its parts are in lower case.
pub(crate) fn class_of_message(table: &[(&str, ErrorClass)], message: &str) -> Option<ErrorClass> {
    let message = message.to_lowercase();
    let found = table.iter().find(|(part, _)| message.contains(part));
    found.map(|(_, class)| *class)
}

/// Returns what kind of failure an HTTP status is; `None` if it is none.
pub(crate) fn class_of_status(status: u64) -> Option<ErrorClass> {
    Some(match status {
        401 | 403 => Auth,
        402 => UsageLimit,
        413 => Context,
        429 => RateLimit,
        400..=499 => InvalidRequest,
        500..=599 => Overloaded,
        _ => return None,
    })
}
