//! Errors at the edge: what a person is told, and the process's exit code.
//!
//! Owns: how an error looks.
//! Reads: the errors of the library.
//! Never: decides what went wrong.

use std::error::Error;

use dark_factory_engines::docker::agent_image::AgentImageError;
use dark_factory_executor::config::ConfigError;
use dark_factory_executor::doctor::Finding;
use dark_factory_executor::engine::EngineError;
use dark_factory_executor::error::{ExecutorError, sentence};
use dark_factory_types::exit_code;

/// An error that ends a command.
#[derive(Debug)]
pub(crate) struct CommandError {
    code: u8,
    message: String,
    hint: Option<String>,
}

impl CommandError {
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(exit_code::USAGE, message)
    }

    pub(crate) fn internal(operation: &str, error: impl Error) -> Self {
        Self::new(
            exit_code::INTERNAL,
            format!("{operation}: {}", sentence(&error)),
        )
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts the hint behind the message, so that the error is one line.
    pub(crate) fn in_one_line(mut self) -> Self {
        if let Some(hint) = self.hint.take() {
            self.message = format!("{}; {hint}", self.message);
        }
        self
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    /// Returns what is wrong and what to do about it.
    pub(crate) fn text(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{}; {hint}", self.message),
            None => self.message.clone(),
        }
    }

    /// Prints the error to standard error; a closed one is not worth another error.
    pub(crate) fn print(&self) {
        let mut text = format!("error: {}\n", self.message);
        if let Some(hint) = &self.hint {
            text = format!("{text}  help: {hint}\n");
        }
        crate::terminal::eprint(&text);
    }
}

impl From<ExecutorError> for CommandError {
    fn from(error: ExecutorError) -> Self {
        Self {
            code: error.exit_code(),
            message: sentence(&error),
            hint: error.advice(),
        }
    }
}

impl From<&ConfigError> for CommandError {
    fn from(error: &ConfigError) -> Self {
        Self::new(error.exit_code(), error.to_string())
    }
}

impl From<AgentImageError> for CommandError {
    fn from(error: AgentImageError) -> Self {
        Self {
            code: error.exit_code(),
            message: sentence(&error),
            hint: error.advice(),
        }
    }
}

impl From<EngineError> for CommandError {
    fn from(error: EngineError) -> Self {
        ExecutorError::from(error).into()
    }
}

impl From<CommandError> for Finding {
    fn from(error: CommandError) -> Self {
        Self::failed(error.code, error.message, error.hint)
    }
}
