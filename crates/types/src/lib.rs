//! The words of dark-factory as plain data: ids, exits, verdicts, outcomes, reports, exit codes.
//!
//! Owns: every type that crosses a process or crate boundary as data.
//! Reads: nothing.
//! Never: does I/O, reads a clock, or knows an engine.
//!
//! In reading order: a [`RunId`] is one prompt on its way, an [`AttemptId`] one try at it, an [`OwnerId`] the
//! installation. What the agent does becomes [`Event`]s. Three facts end an attempt and are never merged: the workload's
//! [`Exit`], the agent's own [`Verdict`], our [`StopReason`]. [`Outcome::decide`] makes one [`Outcome`] of them, by the
//! [`Proof`] that the agent must give; it is written down in a [`Report`], and [`exit_code`] says what a process
//! returns for it. [`ByteSize`], [`CpuCount`] and [`parse_duration`] are how people write quantities.

mod broker;
mod egress;
mod event;
mod exit;
pub mod exit_code;
mod id;
mod outcome;
mod quantity;
mod report;
mod usage;
mod verdict;

pub use broker::{BrokeredUse, Budget, Provider, SpentBudget, UnknownProvider};
pub use egress::{EgressCount, EgressError, EgressHost, EgressRule, EgressSummary, HostName};
pub use event::{
    Event, EventKind, EventStream, FileOp, NoticeLevel, PlanItem, PlanState, ToolClass,
    UnparsedReason,
};
pub use exit::{Exit, ExitSource, ExitStatus, Oom};
pub use id::{AttemptId, IdError, OwnerId, RunId};
pub use outcome::{Outcome, OutcomeKind, Proof, StopReason, UnsuccessfulOutcome, signal_name};
pub use quantity::{ByteSize, CpuCount, QuantityError, Usd, parse_duration};
pub use report::{
    ChangedFile, Changes, ImageRecord, LimitsRecord, LogState, NetworkMode, REPORT_VERSION, Report,
    RunSummary, Transport,
};
pub use usage::Usage;
pub use verdict::{CompletionReport, ErrorClass, ReportStatus, Verdict, Verification};
