//! What a recording's agent is expected to claim, for the tables of the agents' tests.

use dark_factory_types::{ErrorClass, ReportStatus, Verdict};

/// What a row of a table expects.
pub(crate) enum Claim {
    Report,
    Success,
    Silent,
    Error(ErrorClass),
}

impl Claim {
    /// Returns whether a verdict is this claim; an error must say something.
    pub(crate) fn is(&self, verdict: &Verdict) -> bool {
        match (self, verdict) {
            (Self::Report, Verdict::Report { report }) => report.status == ReportStatus::Success,
            (Self::Success, Verdict::Success) | (Self::Silent, Verdict::Silent) => true,
            (
                Self::Error(class),
                Verdict::Error {
                    class: found,
                    message,
                },
            ) => class == found && !message.is_empty(),
            _ => false,
        }
    }
}
