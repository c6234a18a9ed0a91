//! Which calls are open, and whose subagent an event comes from.
//!
//! Owns: what a later line needs to know of a call.
//! Reads: ids and names.
//! Never: remembers more than a few dozen calls.

use std::collections::VecDeque;

use dark_factory_types::ToolClass;
use serde::{Deserialize, Serialize};

/// Calls that are remembered.
const REMEMBERED: usize = 64;
/// The deepest subagent that has an indent of its own.
const DEEPEST: usize = 4;

/// A call whose answer, or whose subagent, may still come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Call {
    id: String,
    /// Its line, shortened.
    label: String,
    class: ToolClass,
    /// How deep a subagent is that it starts.
    depth: usize,
}

/// A call that was answered.
pub(super) struct Answered {
    pub(super) class: ToolClass,
    /// Its line, unless it is plain that the answer is to that.
    pub(super) label: Option<String>,
}

/// What was shown of calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Calls {
    open: VecDeque<Call>,
    /// The call whose answer needs no name.
    last: Option<String>,
    /// The subagent whose name was shown last.
    subagent: Option<String>,
}

impl Calls {
    /// Returns how deep the subagent of a call is.
    pub(super) fn depth(&self, parent: Option<&str>) -> usize {
        let Some(parent) = parent else { return 0 };
        let call = self.open.iter().rfind(|call| call.id == parent);
        call.map_or(1, |call| call.depth)
    }

    /// Returns the name of a subagent that something is shown of, if it was another one before.
    pub(super) fn introduce(&mut self, parent: &str) -> Option<String> {
        if self.subagent.as_deref() == Some(parent) {
            return None;
        }
        self.subagent = Some(parent.to_owned());
        let call = self.open.iter().rfind(|call| call.id == parent);
        Some(call.map_or_else(|| "subagent".to_owned(), |call| call.label.clone()))
    }

    /// Notes a call whose line was just written.
    pub(super) fn begin(
        &mut self,
        id: &str,
        parent: Option<&str>,
        label: String,
        class: ToolClass,
    ) {
        let depth = (self.depth(parent) + 1).min(DEEPEST);
        self.last = Some(id.to_owned());
        self.open.push_back(Call {
            id: id.to_owned(),
            label,
            class,
            depth,
        });
        self.bound();
    }

    /// Returns a call that is answered; `None` if it was not seen.
    pub(super) fn end(&mut self, id: &str) -> Option<Answered> {
        let at = self.open.iter().rposition(|call| call.id == id)?;
        // What a subagent does may come after its answer.
        let call = match self.open[at].class {
            ToolClass::Agent => self.open[at].clone(),
            _ => self.open.remove(at)?,
        };
        Some(Answered {
            class: call.class,
            label: Some(call.label).filter(|_| self.last.as_deref() != Some(id)),
        })
    }

    /// Notes that something was written behind the line of a call that hides whose answer comes.
    pub(super) fn interrupt(&mut self) {
        self.last = None;
    }

    /// Forgets the oldest calls that are too many.
    pub(super) fn bound(&mut self) {
        while self.open.len() > REMEMBERED {
            self.open.pop_front();
        }
    }
}
