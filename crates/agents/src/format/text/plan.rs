//! How far a plan is.
//!
//! Owns: the lines of a plan, and what of it was shown before.
//! Reads: the whole plan each time, as agents tell it.
//! Never: shows what has not changed.

use dark_factory_types::{PlanItem, PlanState};
use serde::{Deserialize, Serialize};

use super::page::Page;
use super::{BOLD, DIM, GREEN, fingerprint};

/// Steps that are remembered; agents' plans are shorter.
const REMEMBERED: usize = 256;
/// Steps of one plan that are shown at once.
const LINES: usize = 8;

/// What was shown of the plan: a fingerprint of each step, and how far it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shown(Vec<(u64, PlanState)>);

impl Shown {
    /// Writes what is new in the plan.
    pub(super) fn write(&mut self, page: &mut Page<'_>, items: &[PlanItem]) {
        let steps: Vec<_> = items
            .iter()
            .take(REMEMBERED)
            .map(|item| (fingerprint(&item.text), item.state))
            .collect();
        if steps == self.0 {
            return;
        }
        let before = std::mem::replace(&mut self.0, steps);
        let changed = items
            .iter()
            .zip(&self.0)
            .filter(|(_, step)| !before.contains(step))
            .map(|(item, _)| item);
        let count = |state| items.iter().filter(|item| item.state == state).count();
        let (done, given_up) = (count(PlanState::Completed), count(PlanState::Cancelled));
        let given_up = match given_up {
            0 => String::new(),
            count => format!(", {count} given up"),
        };
        page.line(
            BOLD,
            &format!("· plan: {done} of {} done{given_up}", items.len()),
        );
        let mut changed = changed.peekable();
        for item in changed.by_ref().take(LINES) {
            let (style, mark) = match item.state {
                PlanState::Pending => (DIM, '○'),
                PlanState::InProgress => (BOLD, '▸'),
                PlanState::Completed => (GREEN, '✓'),
                _ => (DIM, '✗'),
            };
            page.line(style, &format!("    {mark} {}", item.text));
        }
        match changed.count() {
            0 => {}
            more => page.line(DIM, &format!("    … {more} more")),
        }
    }

    /// Forgets what cannot have been shown by this build.
    pub(super) fn bound(&mut self) {
        self.0.truncate(REMEMBERED);
    }
}
