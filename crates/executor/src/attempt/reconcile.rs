//! Compares what an agent says that it used with what was seen at the wire.
//!
//! Owns: which difference is worth a person's attention.
//! Reads: the two counts.
//! Never: changes either.

use dark_factory_types::{EgressSummary, Usage};

/// The least difference that is told, in tokens.
const LEAST: u64 = 1000;
/// And as a part of the larger count: one in so many.
const PART: u64 = 10;

/// Says by how much the two counts differ, if by much. An agent that says nothing is not compared.
///
/// A small difference is usual: agents leave out requests whose answer they did not use.
pub(super) fn unlike(own: &Usage, summary: &EgressSummary) -> Option<String> {
    let wire: u64 = summary
        .brokered
        .iter()
        .map(|used| used.usage.total_tokens())
        .sum();
    let own = own.total_tokens();
    if own == 0 || summary.brokered.is_empty() {
        return None;
    }
    let difference = wire.abs_diff(own);
    (difference > LEAST && difference > wire.max(own) / PART).then(|| {
        format!("the agent says that it used {own} tokens, and {wire} were seen at the broker")
    })
}

#[cfg(test)]
mod tests {
    use dark_factory_types::{BrokeredUse, Provider};

    use super::*;

    fn usage(input_tokens: u64) -> Usage {
        Usage {
            input_tokens,
            ..Usage::default()
        }
    }

    fn wire(tokens: &[u64]) -> EgressSummary {
        let used = |tokens: &u64| BrokeredUse {
            provider: Provider::Anthropic,
            model: "m".to_owned(),
            requests: 1,
            failed: 0,
            usage: usage(*tokens),
        };
        EgressSummary {
            brokered: tokens.iter().map(used).collect(),
            ..EgressSummary::default()
        }
    }

    #[test]
    fn only_a_large_difference_is_told_and_with_both_numbers() {
        let told = unlike(&usage(5_000), &wire(&[5_000, 4_000])).unwrap();

        assert!(
            told.contains("5000 tokens") && told.contains("9000 were seen"),
            "{told}"
        );
        for (own, wire) in [
            (5_000, wire(&[5_100])),
            (100, wire(&[900])),
            (100_000, wire(&[95_000])),
            (0, wire(&[50_000])),
            (50_000, wire(&[])),
        ] {
            assert_eq!(unlike(&usage(own), &wire), None, "{own}");
        }
    }
}
