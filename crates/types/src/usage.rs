//! What an agent used.
//!
//! Owns: token, turn and cost counts and how they add up.
//! Reads: nothing.
//! Never: prices anything.

use std::iter::Sum;

use serde::{Deserialize, Serialize};

/// Tokens, turns and cost of one attempt, or of several added up.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Input tokens that were neither read from nor written to a cache.
    pub input_tokens: u64,
    /// Output tokens, reasoning included.
    pub output_tokens: u64,
    /// Input tokens read from the provider's cache.
    pub cache_read_tokens: u64,
    /// Input tokens written to the provider's cache.
    pub cache_write_tokens: u64,
    /// Output tokens that were reasoning; they are in `output_tokens` too.
    #[serde(default)]
    pub reasoning_tokens: u64,
    /// Turns of the conversation.
    pub turns: u64,
    /// Cost in US dollars as the agent says it, an estimate from its list prices; `None` if it says nothing.
    pub cost_usd: Option<f64>,
    /// Cost in US dollars by our own dated table of list prices; `None` if it does not know the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priced_usd: Option<f64>,
}

impl Usage {
    /// Returns all tokens together.
    pub fn total_tokens(&self) -> u64 {
        self.input_tokens + self.output_tokens + self.cache_read_tokens + self.cache_write_tokens
    }

    /// Adds another attempt's usage.
    ///
    /// What the agents say it cost is added as far as they say it. Our own price is that of all tokens or none: it is
    /// not known if one side has tokens without a price.
    pub fn add(&mut self, other: &Self) {
        let is_unpriced = |usage: &Self| usage.total_tokens() > 0 && usage.priced_usd.is_none();
        let is_unpriced = is_unpriced(self) || is_unpriced(other);
        let sum = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        self.priced_usd = sum(self.priced_usd, other.priced_usd).filter(|_| !is_unpriced);
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.cache_read_tokens += other.cache_read_tokens;
        self.cache_write_tokens += other.cache_write_tokens;
        self.reasoning_tokens += other.reasoning_tokens;
        self.turns += other.turns;
        self.cost_usd = sum(self.cost_usd, other.cost_usd);
    }
}

impl Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        let mut total = Self::default();
        all.for_each(|usage| total.add(&usage));
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn priced(tokens: u64, priced_usd: Option<f64>) -> Usage {
        Usage {
            input_tokens: tokens,
            priced_usd,
            ..Usage::default()
        }
    }

    #[test]
    fn a_sum_has_a_price_only_if_all_of_it_has() {
        for (one, other, sum) in [
            (priced(1, Some(1.0)), priced(1, Some(0.5)), Some(1.5)),
            (priced(1, Some(1.0)), priced(0, None), Some(1.0)),
            (priced(0, None), priced(1, Some(1.0)), Some(1.0)),
            (priced(1, Some(1.0)), priced(1, None), None),
            (priced(1, None), priced(1, Some(1.0)), None),
            (priced(0, None), priced(0, None), None),
        ] {
            let mut total = one;

            total.add(&other);

            assert_eq!(total.priced_usd, sum, "{one:?} {other:?}");
        }
    }

    #[test]
    fn what_one_of_the_agents_says_it_cost_is_part_of_the_sum() {
        let mut total = priced(1, None);

        total.add(&Usage {
            cost_usd: Some(0.25),
            ..Usage::default()
        });

        assert_eq!(total.cost_usd, Some(0.25));
    }
}
