//! What keeps the promises, beside the plan; each rule can be replaced by something worse.
//!
//! Owns: the choices.
//! Reads: nothing.
//! Never: decides which one is explored: the tests do.

/// The rules of one exploration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) guard: Guard,
    pub(super) lease: LeaseRule,
    pub(super) denials: Denials,
    pub(super) killing: Killing,
    pub(super) trust: Trust,
    pub(super) giving_up: GivingUp,
    pub(super) memory: Memory,
    pub(super) cleaning: Cleaning,
}

impl Rules {
    /// The rules of the real machine.
    pub(super) const REAL: Self = Self {
        guard: Guard::Kept,
        lease: LeaseRule::Kept,
        denials: Denials::WhereLookedAgain,
        killing: Killing::TakesOver,
        trust: Trust::Twice,
        giving_up: GivingUp::IfItNeverRan,
        memory: Memory::Row,
        cleaning: Cleaning::WhatIsListed,
    };
}

/// Whether an engine looks into the spool before it starts a container or hands the spool over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    Kept,
    Dropped,
}

/// Whether a process begins only if it gets the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeaseRule {
    Kept,
    Ignored,
}

/// Where an engine may say once that it does not know a container that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denials {
    /// Where it is asked again, or in another way, before it is believed.
    WhereLookedAgain,
    /// Also where what it does not know counts as stopped, or as removed.
    Anywhere,
}

/// Whether a killed process takes a new generation before it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Killing {
    TakesOver,
    KeepsGeneration,
}

/// How often an engine has to say that a container is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    Twice,
    /// Whoever asks what became of it believes the first word.
    OnceByLook,
    /// Whoever starts it believes the first word.
    OnceByStart,
    /// Whoever asks what became of one that did not take its spool believes the first word.
    OnceByUntaken,
    /// Whoever removes it at the end believes the first word.
    OnceByCleaning,
}

/// Whether what is removed at the end is also looked for without a handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cleaning {
    WhatIsListed,
    ByHandle,
}

/// When an engine that fails again and again is believed never to have started a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GivingUp {
    IfItNeverRan,
    Always,
}

/// From what a process goes on that was killed before its container was followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    Row,
    Nothing,
}
