//! How programs reach a provider's API without having its key.
//!
//! Owns: the names of the variables that say where an API is and what to show there, and the public addresses.
//! Reads: nothing.
//! Never: knows a key.

use dark_factory_types::Provider;

/// How programs are told of one provider's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiAccess {
    /// The variable that says where the API is.
    pub base_url: &'static str,
    /// What follows the provider's own address in that variable's value.
    pub base_path: &'static str,
    /// The variables that hold what is shown in place of a key.
    pub tokens: &'static [&'static str],
    /// The variables of a host in which its user keeps a key, the first over the others.
    pub keys: &'static [&'static str],
    /// Where the API is if nobody says otherwise.
    pub public: &'static str,
}

impl ApiAccess {
    /// Returns how programs are told of a provider's API.
    pub fn of(provider: Provider) -> Self {
        match provider {
            Provider::Anthropic => Self {
                base_url: "ANTHROPIC_BASE_URL",
                base_path: "",
                // Claude Code asks nothing about a key in this one when it runs unattended.
                tokens: &["ANTHROPIC_API_KEY"],
                keys: &[
                    "ANTHROPIC_API_KEY",
                    "ANTHROPIC_AUTH_TOKEN",
                    "CLAUDE_CODE_OAUTH_TOKEN",
                ],
                public: "https://api.anthropic.com",
            },
            Provider::Openai => Self {
                base_url: "OPENAI_BASE_URL",
                base_path: "/v1",
                tokens: &["OPENAI_API_KEY", "CODEX_API_KEY"],
                keys: &["OPENAI_API_KEY", "CODEX_API_KEY"],
                public: "https://api.openai.com",
            },
            Provider::Gemini => Self {
                base_url: "GOOGLE_GEMINI_BASE_URL",
                base_path: "",
                tokens: &["GEMINI_API_KEY"],
                keys: &["GEMINI_API_KEY", "GOOGLE_API_KEY"],
                public: "https://generativelanguage.googleapis.com",
            },
        }
    }
}
