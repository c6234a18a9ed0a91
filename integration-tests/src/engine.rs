//! The engines that the same tests run on.
//!
//! Owns: how the product is told which it is, and where the scripted agent is there.
//! Reads: nothing.
//! Never: contacts an engine.

use std::process::Command;

use crate::agent_image;

/// An engine of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Engine {
    /// The Docker engine that the tests are provisioned with.
    Docker,
    /// The embedded sandbox.
    Sandbox,
}

impl Engine {
    /// Every engine.
    pub const ALL: [Self; 2] = [Self::Docker, Self::Sandbox];

    /// Has a command of the product use this engine.
    pub fn choose(self, command: &mut Command) {
        if self == Self::Sandbox {
            // It has no socket, so nothing may depend on one.
            command
                .env("DARK_FACTORY_ENGINE", "sandbox")
                .env_remove("DOCKER_HOST");
        }
    }

    /// Returns an image in which the scripted agent can be run.
    ///
    /// # Panics
    ///
    /// Where the tests were not provisioned.
    pub fn agent_image(self) -> String {
        match self {
            Self::Docker => agent_image(),
            Self::Sandbox => "host".to_owned(),
        }
    }

    /// Returns the command that runs a script in that image.
    pub fn agent(self, script: &str) -> Vec<String> {
        let program: &[&str] = match self {
            Self::Docker => &["/bin/agent", "-e"],
            // It is the helper.
            Self::Sandbox => &["/.dark-factory/init", "agent", "-e"],
        };
        let words = program.iter().chain([&script]);
        words.map(|word| (*word).to_owned()).collect()
    }
}
