//! What an engine may make of a call.
//!
//! Owns: which step may get which reply.
//! Reads: the rules.
//! Never: knows what a reply leads to.

use dark_factory_types::Transport;

use super::Attempt;
use super::process::{Asker, At, Driver};
use super::rules::Denials;

/// What may come of a call but the answer.
pub(super) const TROUBLES: [Reply; 6] = [
    Reply::Lost,
    Reply::Silent,
    Reply::Refused,
    Reply::Failed,
    Reply::FailedLate,
    Reply::Denied,
];

/// What a step's call comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Reply {
    /// It is done, and answered.
    Answered,
    /// It is done, and the answer is lost.
    Lost,
    /// It is not done, and nothing is known; or it took too long.
    Silent,
    /// The engine says no.
    Refused,
    /// It is not done, and the engine failed so often that nobody asks again.
    Failed,
    /// The same, but this last time it is done.
    FailedLate,
    /// The engine does not know the container, which is there.
    Denied,
}

impl Driver {
    /// Returns whether an engine may answer the next step in this way.
    pub(super) fn may_get(&self, reply: Reply, model: &Attempt) -> bool {
        match reply {
            Reply::Answered => true,
            Reply::Lost => matches!(
                self.at,
                At::Create
                    | At::StartCall
                    | At::Kill
                    | At::UntakenKill
                    | At::Stop
                    | At::CleanKill
                    | At::RemoveFirst(_)
                    | At::Remove
            ),
            Reply::Silent => matches!(
                self.at,
                At::Image
                    | At::Find
                    | At::Create
                    | At::Look
                    | At::StartLook
                    | At::StartCall
                    | At::HandOver
                    | At::Untaken
                    | At::List(_)
                    | At::NoSuchLook
                    | At::Exit
                    | At::CleanFind
                    | At::CleanLook
                    | At::RemoveFirst(_)
                    | At::Remove
            ),
            Reply::Refused => matches!(self.at, At::Image | At::Create | At::StartCall),
            // Elsewhere, and without a helper, the attempt is left open, as by a crash.
            Reply::Failed => {
                self.at == At::Create
                    || self.known.transport == Transport::Spool
                        && matches!(
                            self.at,
                            At::StartLook
                                | At::StartCall
                                | At::Untaken
                                | At::UntakenKill
                                | At::NoSuchLook
                                | At::List(Asker::Start | Asker::Untaken)
                        )
            }
            Reply::FailedLate => {
                self.at == At::Create
                    || self.known.transport == Transport::Spool
                        && matches!(self.at, At::StartCall | At::UntakenKill)
            }
            Reply::Denied => match self.at {
                At::UntakenKill | At::RemoveFirst(_) | At::Remove => {
                    model.rules.denials == Denials::Anywhere
                }
                _ => matches!(
                    self.at,
                    At::Look
                        | At::StartLook
                        | At::StartCall
                        | At::HandOver
                        | At::NoSuchLook
                        | At::Exit
                        | At::Kill
                        | At::Untaken
                        | At::Follow
                        | At::FollowLook
                        | At::Stop
                        | At::CleanLook
                        | At::CleanKill
                ),
            },
        }
    }
}
