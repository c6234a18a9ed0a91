//! What tokens cost by the providers' public list prices.
//!
//! Owns: the table of prices, which has a date, and how a model's name is found in it.
//! Reads: a model's name and what was used of it.
//! Never: guesses: what the table does not say for sure has no price.

use std::sync::LazyLock;

use dark_factory_types::Usage;
use serde::Deserialize;

/// The day on which the table of prices was last checked.
pub const PRICES_DATE: &str = "2026-11-28";

static TABLE: LazyLock<Table> =
    LazyLock::new(|| serde_json::from_str(include_str!("prices.json")).unwrap_or_default());

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "for readers of the file; a test reads them")
)]
struct Table {
    date: String,
    unit: String,
    sources: Vec<String>,
    models: Vec<Price>,
}

/// Prices of one or more models, in US dollars for a million tokens.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Price {
    names: Vec<String>,
    input: f64,
    /// Of all output, reasoning too.
    output: f64,
    cache_read: f64,
    /// Kept for five minutes, where that matters; `None` where writing is not priced by itself.
    cache_write: Option<f64>,
    /// Kept for an hour.
    cache_write_1h: Option<f64>,
    /// The length of a prompt beyond which all of its tokens cost more.
    up_to_prompt: Option<u64>,
}

/// Returns what a model's tokens cost by the table of list prices; `None` if that is not known for sure.
///
/// A name is known exactly, or with the date of a snapshot behind it. A model whose price depends on the length of the
/// prompt has one only if all prompts together are short enough, as nobody says how long each was.
pub fn priced_usd(model: &str, usage: &Usage) -> Option<f64> {
    priced(model, usage, 0)
}

/// Returns what was used cost, for people: by the agent's word, and by list prices where that is something else; `None`
/// if neither is known.
pub fn cost_text(usage: &Usage) -> Option<String> {
    let text = |cost: f64| format!("${cost:.4}");
    let (own, listed) = (usage.cost_usd.map(text), usage.priced_usd.map(text));
    match (own, listed) {
        (Some(own), Some(listed)) if own != listed => {
            Some(format!("{own} ({listed} by list prices)"))
        }
        (Some(own), _) => Some(own),
        (None, listed) => listed.map(|listed| format!("{listed} by list prices")),
    }
}

/// As [`priced_usd`], where so many of the tokens that were written to the cache are kept there for an hour.
pub fn priced(model: &str, usage: &Usage, written_for_an_hour: u64) -> Option<f64> {
    let price = find(model)?;
    let prompts = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens;
    if price.up_to_prompt.is_some_and(|most| prompts > most) {
        return None;
    }
    let for_an_hour = written_for_an_hour.min(usage.cache_write_tokens);
    let parts = [
        (usage.input_tokens, Some(price.input)),
        (usage.output_tokens, Some(price.output)),
        (usage.cache_read_tokens, Some(price.cache_read)),
        (usage.cache_write_tokens - for_an_hour, price.cache_write),
        (for_an_hour, price.cache_write_1h),
    ];
    let mut total = 0.0;
    for (tokens, price) in parts {
        if tokens > 0 {
            total += as_float(tokens) * price?;
        }
    }
    Some(total / 1e6)
}

fn find(model: &str) -> Option<&'static Price> {
    let named = |name: &str| {
        let mut models = TABLE.models.iter();
        models.find(|price| price.names.iter().any(|known| known == name))
    };
    named(model).or_else(|| named(without_date(model)?))
}

/// Returns a name without the date of a snapshot: `-20251001`, `@20251001` or `-2025-10-01`.
fn without_date(model: &str) -> Option<&str> {
    let is_date = |text: &str, lens: &[usize]| {
        let mut parts = text.split('-');
        let fits = |len: &usize| {
            parts.next().is_some_and(|part| {
                part.len() == *len && part.bytes().all(|byte| byte.is_ascii_digit())
            })
        };
        text.starts_with("20") && lens.iter().all(fits) && parts.next().is_none()
    };
    for (separators, len, parts) in [(&['-', '@'][..], 8, &[8][..]), (&['-'], 10, &[4, 2, 2])] {
        let at = model.len().checked_sub(len + 1)?;
        let (Some(name), Some(rest)) = (model.get(..at), model.get(at..)) else {
            continue;
        };
        if let Some(date) = rest.strip_prefix(separators)
            && is_date(date, parts)
        {
            return Some(name);
        }
    }
    None
}

/// Widens a count; what is beyond the precision of a price does not matter.
fn as_float(tokens: u64) -> f64 {
    let (high, low) = (tokens >> 32, tokens & u64::from(u32::MAX));
    let part = |bits: u64| f64::from(u32::try_from(bits).unwrap_or(u32::MAX));
    part(high) * 4_294_967_296.0 + part(low)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const MILLION: Usage = Usage {
        input_tokens: 1_000_000,
        output_tokens: 1_000_000,
        cache_read_tokens: 1_000_000,
        cache_write_tokens: 1_000_000,
        reasoning_tokens: 500_000,
        turns: 3,
        cost_usd: None,
        priced_usd: None,
    };

    #[test]
    fn the_table_is_readable_dated_and_says_where_it_is_from() {
        let table: Table = serde_json::from_str(include_str!("prices.json")).unwrap();

        assert_eq!(table.date, PRICES_DATE);
        assert!(!table.unit.is_empty());
        for provider in ["Anthropic", "OpenAI", "Google"] {
            let mut sources = table.sources.iter();
            assert!(sources.any(|source| source.starts_with(provider)));
        }
        assert!(table.models.len() > 20);
    }

    #[test]
    fn each_model_stands_once_and_its_prices_are_plausible() {
        let mut seen = BTreeSet::new();
        for price in &TABLE.models {
            for name in &price.names {
                assert!(seen.insert(name), "{name} stands twice");
                assert_eq!(without_date(name), None, "{name} has a date");
            }
            let names = &price.names;
            assert!(price.input > 0.0 && price.input < price.output, "{names:?}");
            assert!(price.cache_read < price.input, "{names:?}");
            let writes = [price.cache_write, price.cache_write_1h];
            let writes: Vec<f64> = writes.into_iter().flatten().collect();
            assert!(writes.iter().all(|write| *write > price.input), "{names:?}");
        }
    }

    #[test]
    fn each_kind_of_token_has_its_price_and_reasoning_is_output() {
        let all = priced_usd("claude-opus-5-5", &MILLION).unwrap();
        let for_an_hour = priced("claude-opus-5-5", &MILLION, 400_000).unwrap();

        assert!((all - 29.2).abs() < 1e-9, "{all}");
        assert!((for_an_hour - 30.4).abs() < 1e-9, "{for_an_hour}");
    }

    #[test]
    fn a_snapshot_costs_what_its_model_costs() {
        let price = |name| priced_usd(name, &MILLION);
        let prompt = Usage {
            input_tokens: 1000,
            ..Usage::default()
        };

        assert_eq!(
            price("claude-haiku-4-5-20251001"),
            price("claude-haiku-4-5")
        );
        assert_eq!(
            price("claude-haiku-4-5@20251001"),
            price("claude-haiku-4-5")
        );
        assert!(price("claude-haiku-4-5").is_some());
        assert_eq!(
            priced_usd("gpt-5-2025-08-07", &prompt),
            priced_usd("gpt-5", &prompt)
        );
    }

    #[test]
    fn a_name_that_is_not_in_the_table_has_no_price() {
        for name in [
            "",
            "gpt-5-",
            "gpt-5-ultra",
            "gpt-5-2025-8-07",
            "gpt-5-19990101",
            "claude-opus-5-5-fast",
            "claude-opus",
            "us.anthropic.claude-opus-5-5",
            "claude-sonnet-4-5[1m]",
            "<synthetic>",
            "ä-20251001",
        ] {
            assert_eq!(priced_usd(name, &Usage::default()), None, "{name}");
        }
    }

    #[test]
    fn a_price_that_depends_on_the_prompt_is_known_only_of_short_ones() {
        let prompts = |tokens: u64| Usage {
            input_tokens: tokens / 2,
            cache_read_tokens: tokens / 2,
            ..Usage::default()
        };

        assert!(priced_usd("gemini-2.5-pro", &prompts(200_000)).is_some());
        assert_eq!(priced_usd("gemini-2.5-pro", &prompts(200_002)), None);
    }

    #[test]
    fn two_costs_are_shown_only_where_they_differ() {
        let text = |cost_usd, priced_usd| {
            cost_text(&Usage {
                cost_usd,
                priced_usd,
                ..Usage::default()
            })
        };

        assert_eq!(
            text(Some(0.25), Some(0.250_000_1)).as_deref(),
            Some("$0.2500")
        );
        assert_eq!(
            text(Some(0.25), Some(0.3)).as_deref(),
            Some("$0.2500 ($0.3000 by list prices)")
        );
        assert_eq!(
            text(None, Some(0.3)).as_deref(),
            Some("$0.3000 by list prices")
        );
        assert_eq!(text(Some(0.0), None).as_deref(), Some("$0.0000"));
        assert_eq!(text(None, None), None);
    }

    #[test]
    fn a_token_without_a_price_leaves_all_without_one() {
        let written = Usage {
            cache_write_tokens: 1,
            ..Usage::default()
        };

        assert_eq!(priced_usd("gpt-5", &written), None);
        assert_eq!(priced_usd("gpt-5", &Usage::default()), Some(0.0));
    }
}
