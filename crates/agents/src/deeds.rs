//! Whether anything that an agent tried has worked.
//!
//! Owns: the count of its commands and changes.
//! Reads: how each of them ended.
//! Never: blames an agent whose tools could work: that a command fails is the model's business.

use dark_factory_types::{ReportStatus, Verdict};
use serde::{Deserialize, Serialize};

/// What came of one command or change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    Worked,
    Failed,
}

impl Deed {
    /// Returns what came of one that was done, or not.
    pub(crate) fn of<T, E>(answer: &Result<T, E>) -> Self {
        match answer {
            Ok(_) => Self::Worked,
            Err(_) => Self::Failed,
        }
    }
}

/// What came of the commands and changes of a run.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Deeds {
    worked: u64,
    failed: u64,
    /// Why nothing can have worked, as the agent or what surrounds it says.
    obstacle: Option<String>,
}

impl Deeds {
    /// Counts a command or a change.
    pub(crate) fn count(&mut self, deed: Deed) {
        let count = match deed {
            Deed::Worked => &mut self.worked,
            Deed::Failed => &mut self.failed,
        };
        *count = count.saturating_add(1);
    }

    /// Remembers why nothing can have worked.
    pub(crate) fn set_obstacle(&mut self, why: String) {
        self.obstacle = Some(why);
    }

    /// As [`Deeds::set_obstacle`], unless a reason is known.
    pub(crate) fn add_obstacle(&mut self, why: impl FnOnce() -> String) {
        self.obstacle.get_or_insert_with(why);
    }

    /// Returns why an agent that claims to be done cannot have done anything; `None` if it can, or claims no success.
    ///
    /// Agents end such a run as any other, with exit code 0.
    pub(crate) fn belie(&self, claim: &Verdict, agent: &str) -> Option<String> {
        let is_success = match claim {
            Verdict::Success | Verdict::Silent => true,
            Verdict::Report { report } => report.status == ReportStatus::Success,
            Verdict::Error { .. } => false,
        };
        let obstacle = self
            .obstacle
            .as_ref()
            .filter(|_| is_success && self.worked == 0)?;
        Some(match self.failed {
            0 => format!("no tool of {agent} can work: {obstacle}"),
            1 => format!("the only command or change that {agent} tried failed: {obstacle}"),
            tried => {
                format!("all {tried} commands and changes that {agent} tried failed: {obstacle}")
            }
        })
    }
}
