//! The providers whose keys stay outside of containers, and what a run may use of them.
//!
//! Owns: the providers' names, budgets, and what was used, as data.
//! Reads: nothing.
//! Never: holds a key; see the `dark-factory-guard` crate.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Usage, Usd};

/// Who offers models, by the dialect of their API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// Anthropic's Messages API.
    Anthropic,
    /// `OpenAI`'s Responses and Chat Completions APIs.
    Openai,
    /// Google's Gemini API.
    Gemini,
}

impl Provider {
    /// Every provider.
    pub const ALL: [Self; 3] = [Self::Anthropic, Self::Openai, Self::Gemini];

    /// Returns the name, as users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::Openai => "openai",
            Self::Gemini => "gemini",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Provider {
    type Err = UnknownProvider;

    fn from_str(text: &str) -> Result<Self, UnknownProvider> {
        let named = |provider: &Self| provider.name() == text;
        Self::ALL
            .into_iter()
            .find(named)
            .ok_or_else(|| UnknownProvider(text.chars().take(80).collect()))
    }
}

/// A text that names no provider.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no provider: write anthropic, openai or gemini")]
pub struct UnknownProvider(String);

/// What a run may use at most of its providers, all together; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Budget {
    /// Tokens of all kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Requests that are answered by a model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// Cost by our table of list prices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Usd>,
}

impl Budget {
    /// Returns whether nothing is limited.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

/// Which part of a budget is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "of")]
pub enum SpentBudget {
    /// The tokens.
    Tokens {
        /// How many there were.
        limit: u64,
    },
    /// The requests.
    Requests {
        /// How many there were.
        limit: u64,
    },
    /// The money.
    Cost {
        /// How much there was.
        limit: Usd,
    },
}

impl fmt::Display for SpentBudget {
    /// As the end of a sentence: `its budget of 200 requests is used up`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokens { limit } => write!(f, "its budget of {limit} tokens is used up"),
            Self::Requests { limit } => write!(f, "its budget of {limit} requests is used up"),
            Self::Cost { limit } => write!(f, "its budget of ${limit} is used up"),
        }
    }
}

/// What a run used of one model, as seen at the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BrokeredUse {
    /// Who offers it.
    pub provider: Provider,
    /// The model, as the provider's answers call it; empty where they name none.
    pub model: String,
    /// Requests that the provider answered.
    pub requests: u64,
    /// Requests that the provider refused or did not answer, those that the run's budget refused included.
    pub failed: u64,
    /// Tokens, and their price by our table.
    pub usage: Usage,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_read_by_its_name() {
        for provider in Provider::ALL {
            assert_eq!(provider.to_string().parse(), Ok(provider));
        }
        let error = "OpenAI".parse::<Provider>().unwrap_err();
        assert!(error.to_string().contains("anthropic, openai or gemini"));
    }
}
