//! What a run of Gemini CLI used.
//!
//! Owns: which of its counts include which others.
//! Reads: the `stats` of a result, which count the whole process.
//! Never: sums anything twice: the last result's stats are the run's.

use dark_factory_types::Usage;

use crate::json::{KeyMatch, Raw, each_entry, fields, unsigned};
use crate::prices::priced_usd;

/// The most tokens that are believed: beyond it a sum could overflow.
const MOST: u64 = 1 << 53;

/// Reads the stats of a result.
pub(super) fn of_stats(stats: Raw<'_>) -> Option<Usage> {
    let mut usage = counts(stats)?;
    let [models] = fields(stats.get(), ["models"], KeyMatch::Exact)?;
    let mut by_model = Usage::default();
    if let Some(models) = models {
        each_entry(models.get(), |model, stats| {
            if let Some(mut of_model) = counts(stats) {
                of_model.priced_usd = priced_usd(model, &of_model);
                by_model.add(&of_model);
            }
        });
    }
    // A price of a part is no price.
    let is_all = by_model.total_tokens() == usage.total_tokens();
    usage.priced_usd = by_model.priced_usd.filter(|_| is_all);
    Some(usage)
}

/// Reads one set of counts. Its input includes what was read from the cache; what is in the total and in neither input
/// nor output is thought, which is output.
fn counts(stats: Raw<'_>) -> Option<Usage> {
    let names = ["input_tokens", "cached", "output_tokens", "total_tokens"];
    let counts = fields(stats.get(), names, KeyMatch::Exact)?;
    let [input, cached, output, total] = counts.map(|count| unsigned(count).unwrap_or(0).min(MOST));
    let thought = total.saturating_sub(input).saturating_sub(output);
    Some(Usage {
        input_tokens: input.saturating_sub(cached),
        output_tokens: output + thought,
        cache_read_tokens: cached,
        reasoning_tokens: thought,
        ..Usage::default()
    })
}
