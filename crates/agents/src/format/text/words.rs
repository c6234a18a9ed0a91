//! Numbers, times and failures in words.
//!
//! Owns: how they are written for people.
//! Reads: nothing else.
//! Never: depends on a locale.

use dark_factory_types::ErrorClass;

/// Returns a duration for people: `0.4 s`, `3m 05s`.
pub(super) fn seconds(ms: u64) -> String {
    match ms / 1000 {
        whole @ 0..60 => format!("{whole}.{} s", ms % 1000 / 100),
        whole @ 60..3600 => format!("{}m {:02}s", whole / 60, whole % 60),
        whole => format!("{}h {:02}m", whole / 3600, whole % 3600 / 60),
    }
}

/// Returns a count for people: `7200`, `12.3k`, `1.23M`.
pub(super) fn count(count: u64) -> String {
    match count {
        0..10_000 => count.to_string(),
        10_000..1_000_000 => format!("{}.{}k", count / 1000, count % 1000 / 100),
        _ => format!("{}.{:02}M", count / 1_000_000, count % 1_000_000 / 10_000),
    }
}

/// Returns a class of failure in words.
pub(super) fn failure(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Auth => "credentials refused",
        ErrorClass::RateLimit => "rate limited",
        ErrorClass::UsageLimit => "usage or credit used up",
        ErrorClass::Overloaded => "provider failed",
        ErrorClass::InvalidRequest => "request refused",
        ErrorClass::MaxTurns => "turn limit reached",
        ErrorClass::Budget => "budget reached",
        ErrorClass::Refused => "model declined",
        ErrorClass::Context => "conversation too long for the model",
        ErrorClass::Interrupted => "interrupted",
        ErrorClass::BadReport => "completion report not readable",
        ErrorClass::Internal => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (number, words) in [
            (0, "0"),
            (9999, "9999"),
            (12_345, "12.3k"),
            (999_999, "999.9k"),
            (1_234_567, "1.23M"),
        ] {
            assert_eq!(count(number), words);
        }
        for (ms, words) in [
            (90, "0.0 s"),
            (59_999, "59.9 s"),
            (185_000, "3m 05s"),
            (7_260_000, "2h 01m"),
        ] {
            assert_eq!(seconds(ms), words);
        }
    }
}
