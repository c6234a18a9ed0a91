//! What a run of Claude Code used.
//!
//! Owns: the sum over results and models without counting anything twice.
//! Reads: the usage fields of `result` lines.
//! Never: sums the usage of messages; each is repeated for every block and is not final.
//!
//! `model_usage_since_last_result` holds what is new in a result: it is summed. Builds that lack it
//! give `modelUsage` and `total_cost_usd`, which grow over the process: the last ones count.

use dark_factory_types::Usage;
use serde::{Deserialize, Serialize};

use crate::json::{JsonKind, KeyMatch, Raw, each_entry, fields, float, kind, unsigned};
use crate::prices::priced;
use crate::sink::optional_word;

/// The most tokens or turns that are believed: beyond it a sum could overflow.
const MOST: u64 = 1 << 53;

/// The usage fields of one result.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResultUsage<'a> {
    pub(super) index: Option<u64>,
    pub(super) turns: Option<u64>,
    pub(super) usage: Option<Raw<'a>>,
    pub(super) model_usage: Option<Raw<'a>>,
    pub(super) since_last: Option<Raw<'a>>,
    pub(super) total_cost: Option<f64>,
}

/// The usage of a run so far.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UsageBook {
    last_index: Option<u64>,
    booked: Option<Usage>,
    cumulative: Option<Usage>,
    per_result: Usage,
    total_cost: Option<f64>,
    turns: u64,
}

impl UsageBook {
    /// Books a result and returns what its turn used.
    pub(super) fn book(&mut self, result: ResultUsage<'_>) -> Usage {
        let turns = result.turns.unwrap_or(0).min(MOST);
        let since_last = result.since_last.and_then(sum_models);
        let cumulative = result.model_usage.and_then(sum_models);
        let of_result = result.usage.and_then(plain_usage).unwrap_or_default();
        let mut turn = since_last.or(cumulative).unwrap_or(Usage {
            cost_usd: result.total_cost,
            ..of_result
        });
        turn.turns = turns;
        if since_last.is_none() {
            turn.cost_usd = result.total_cost.or(turn.cost_usd);
        }

        let is_repeated =
            matches!((result.index, self.last_index), (Some(new), Some(old)) if new <= old);
        if is_repeated {
            return turn;
        }
        self.last_index = result.index.or(self.last_index);
        self.turns = (self.turns + turns).min(MOST);
        if let Some(new) = since_last {
            add(self.booked.get_or_insert_default(), &new);
        }
        self.cumulative = cumulative.or(self.cumulative);
        add(&mut self.per_result, &of_result);
        self.total_cost = result.total_cost.or(self.total_cost);
        turn
    }

    /// Returns the usage of all results so far.
    pub(super) fn total(&self) -> Usage {
        let mut total = self.booked.or(self.cumulative).unwrap_or(self.per_result);
        if self.booked.is_none() {
            total.cost_usd = self.total_cost.or(total.cost_usd);
        }
        total.turns = self.turns;
        total
    }
}

/// Sums the usage of several models; `None` if `value` is no object, zero with a cost if it is empty.
fn sum_models(value: Raw<'_>) -> Option<Usage> {
    let mut total = Usage {
        cost_usd: Some(0.0),
        priced_usd: Some(0.0),
        ..Usage::default()
    };
    let is_object = each_entry(value.get(), |name, model| {
        let names = [
            "inputTokens",
            "outputTokens",
            "cacheReadInputTokens",
            "cacheCreationInputTokens",
            "thinkingTokens",
            "cacheCreationEphemeral1hInputTokens",
            "costUSD",
            "canonicalModel",
            "provider",
        ];
        let Some(values) = fields(model.get(), names, KeyMatch::Exact) else {
            return;
        };
        let [
            input,
            output,
            read,
            written,
            thought,
            hourly,
            cost,
            canonical,
            provider,
        ] = values;
        let mut of_model = Usage {
            input_tokens: tokens(input),
            output_tokens: tokens(output),
            cache_read_tokens: tokens(read),
            cache_write_tokens: tokens(written),
            reasoning_tokens: tokens(thought),
            cost_usd: float(cost),
            ..Usage::default()
        };
        // Clouds have prices of their own.
        if optional_word(provider).is_none_or(|provider| provider == "firstParty") {
            let name = optional_word(canonical).unwrap_or_else(|| name.to_owned());
            of_model.priced_usd = priced(&name, &of_model, tokens(hourly));
        }
        add(&mut total, &of_model);
    });
    is_object.then_some(total)
}

fn plain_usage(value: Raw<'_>) -> Option<Usage> {
    if kind(value) != JsonKind::Object {
        return None;
    }
    let names = [
        "input_tokens",
        "output_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
    ];
    let [input, output, read, written] = fields(value.get(), names, KeyMatch::Exact)?;
    Some(Usage {
        input_tokens: tokens(input),
        output_tokens: tokens(output),
        cache_read_tokens: tokens(read),
        cache_write_tokens: tokens(written),
        ..Usage::default()
    })
}

fn tokens(value: Option<Raw<'_>>) -> u64 {
    unsigned(value).unwrap_or(0).min(MOST)
}

/// Adds without overflow, whatever the stream says.
fn add(total: &mut Usage, new: &Usage) {
    total.add(new);
    for tokens in [
        &mut total.input_tokens,
        &mut total.output_tokens,
        &mut total.cache_read_tokens,
        &mut total.cache_write_tokens,
        &mut total.reasoning_tokens,
    ] {
        *tokens = (*tokens).min(MOST);
    }
    total.cost_usd = total.cost_usd.filter(|cost| cost.is_finite());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Raw<'_> {
        Raw::of(json).unwrap()
    }

    fn models(tokens: u64, cost: f64) -> String {
        format!(
            r#"{{"a":{{"inputTokens":{tokens},"costUSD":{cost}}},"b":{{"outputTokens":1,"costUSD":0.5}}}}"#
        )
    }

    fn result(index: Option<u64>) -> ResultUsage<'static> {
        ResultUsage {
            index,
            turns: Some(2),
            usage: None,
            model_usage: None,
            since_last: None,
            total_cost: None,
        }
    }

    #[test]
    fn what_is_new_in_each_result_is_summed() {
        let (first, second, all) = (models(10, 1.0), models(5, 0.25), models(99, 9.0));
        let mut book = UsageBook::default();

        for (index, new) in [(0, &first), (1, &second), (1, &second)] {
            book.book(ResultUsage {
                since_last: Raw::of(new),
                model_usage: Raw::of(&all),
                total_cost: Some(9.0),
                ..result(Some(index))
            });
        }

        let total = book.total();
        assert_eq!((total.input_tokens, total.output_tokens), (15, 2));
        assert_eq!((total.turns, total.cost_usd), (4, Some(2.25)));
    }

    #[test]
    fn what_grows_over_the_process_is_not_summed() {
        let (first, second) = (models(10, 1.0), models(15, 1.5));
        let mut book = UsageBook::default();

        for (models, cost) in [(&first, 1.5), (&second, 2.0)] {
            book.book(ResultUsage {
                model_usage: Raw::of(models),
                total_cost: Some(cost),
                ..result(None)
            });
        }

        let total = book.total();
        assert_eq!((total.input_tokens, total.turns), (15, 4));
        assert_eq!(total.cost_usd, Some(2.0));
    }

    #[test]
    fn without_models_the_plain_usage_is_summed() {
        let usage = raw(r#"{"input_tokens":3,"output_tokens":4,"cache_read_input_tokens":5}"#);
        let mut book = UsageBook::default();

        for _ in 0..2 {
            book.book(ResultUsage {
                usage: Some(usage),
                ..result(None)
            });
        }

        assert_eq!(book.total().total_tokens(), 24);
        assert_eq!(book.total().cost_usd, None);
    }

    #[test]
    fn absurd_numbers_do_not_overflow() {
        let absurd = raw(
            r#"{"a":{"inputTokens":18446744073709551615,"outputTokens":1e300,"costUSD":1e308}}"#,
        );
        let mut book = UsageBook::default();

        for _ in 0..5000 {
            book.book(ResultUsage {
                since_last: Some(absurd),
                turns: Some(u64::MAX),
                ..result(None)
            });
        }

        assert_eq!(book.total().input_tokens, MOST);
        assert!(book.total().total_tokens() > 0);
    }
}
