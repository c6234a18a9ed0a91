//! The agent that is any program.
//!
//! Owns: nothing.
//! Reads: the command that the user wrote.
//! Never: claims anything about the work; the exit code is the proof.

use std::collections::BTreeMap;

use dark_factory_types::{EventKind, Proof};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::agent::{Agent, AgentLaunch, AgentRequest, AuthError, AuthView};
use crate::transcript::{Conclusion, DecodedEvent, Decoder, DecoderLine, line_event};

/// Any program: its lines are shown as they are, and it succeeds on exit code 0.
#[derive(Debug, Clone, Copy)]
pub struct Command;

impl Agent for Command {
    fn name(&self) -> &'static str {
        "command"
    }

    fn proof(&self) -> Proof {
        Proof::ExitCode
    }

    fn launch(&self, request: &AgentRequest) -> AgentLaunch {
        AgentLaunch {
            argv: request.command.clone(),
            env: BTreeMap::new(),
        }
    }

    fn check_auth(&self, _: &AuthView<'_>) -> Result<(), AuthError> {
        Ok(())
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(CommandDecoder)
    }

    fn reads_prose(&self) -> bool {
        false
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct CommandDecoder;

impl Decoder for CommandDecoder {
    fn line(&mut self, line: DecoderLine<'_>, sink: &mut dyn FnMut(DecodedEvent)) {
        let kind: EventKind = line_event(line.bytes);
        sink(DecodedEvent::of_agent(kind));
    }

    fn conclusion(&self) -> Conclusion {
        Conclusion::default()
    }

    fn is_plain(&self) -> bool {
        true
    }

    fn save(&self) -> serde_json::Result<Box<RawValue>> {
        to_raw_value(self)
    }

    fn restore(&mut self, saved: &RawValue) -> serde_json::Result<()> {
        *self = serde_json::from_str(saved.get())?;
        Ok(())
    }
}
