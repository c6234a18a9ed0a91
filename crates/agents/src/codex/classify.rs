//! What kind of failure a message of Codex is.
//!
//! Owns: the words by which failures are told apart, as data: Codex gives no status field.
//! Reads: the message.
//! Never: decides whether it is a failure.

use dark_factory_types::ErrorClass::{self, *};

use crate::messages::class_of_message;

/// Parts of messages in lower case. The first that fits decides, so special cases go first.
const MESSAGES: &[(&str, ErrorClass)] = &[
    ("context window", Context),
    ("quota exceeded", UsageLimit),
    ("usage limit", UsageLimit),
    ("out of credits", UsageLimit),
    ("status 402", UsageLimit),
    ("insufficient_quota", UsageLimit),
    ("429 too many requests", RateLimit),
    ("rate limit", RateLimit),
    ("status: 429", RateLimit),
    ("status 429", RateLimit),
    ("status 401", Auth),
    ("status 403", Auth),
    ("api key", Auth),
    ("missing environment variable", Auth),
    ("status: 401", Auth),
    ("status: 403", Auth),
    ("not logged in", Auth),
    ("refresh token", Auth),
    ("content_filter", Refused),
    ("at capacity", Overloaded),
    ("high demand", Overloaded),
    ("overloaded", Overloaded),
    ("status 5", Overloaded),
    ("status: 5", Overloaded),
    ("stream disconnected", Overloaded),
    ("error sending request", Overloaded),
    ("max_output_tokens", Internal),
    ("status 4", InvalidRequest),
    ("status: 4", InvalidRequest),
    ("invalid_request_error", InvalidRequest),
];

/// Beginnings of lines by which the inner sandbox says that it could not be set up.
const SANDBOX: &[&str] = &[
    "bwrap: ",
    "error applying legacy linux sandbox",
    "sandbox denied",
];

/// What says that no tool can work, whatever the model tries.
const CRIPPLED: &str = "code mode is unavailable";

/// Returns what kind of failure it is.
pub(super) fn classify(message: &str) -> ErrorClass {
    class_of_message(MESSAGES, message).unwrap_or(Internal)
}

/// Returns whether a command's output is the inner sandbox's, not the command's.
pub(super) fn is_of_sandbox(output: &str) -> bool {
    let output = output.trim_start().to_lowercase();
    SANDBOX.iter().any(|begin| output.starts_with(begin))
}

/// Returns whether a warning means that no tool can work.
pub(super) fn is_crippling(warning: &str) -> bool {
    warning.to_lowercase().contains(CRIPPLED)
}

/// Takes `Reconnecting... 2/5 (why)` apart: the try, how many there are, and why.
pub(super) fn retry(message: &str) -> Option<(u64, u64, &str)> {
    let (counts, why) = message.strip_prefix("Reconnecting... ")?.split_once(' ')?;
    let (attempt, most) = counts.split_once('/')?;
    let why = why.strip_prefix('(').unwrap_or(why);
    let why = why.strip_suffix(')').unwrap_or(why);
    Some((attempt.parse().ok()?, most.parse().ok()?, why))
}

/// Returns the HTTP status that a message names, and what it says after it.
pub(super) fn http_status(message: &str) -> Option<(u16, &str)> {
    let at = ["unexpected status ", "last status: "]
        .iter()
        .find_map(|words| Some(message.find(words)? + words.len()))?;
    let status = message.get(at..at + 3)?.parse().ok()?;
    Some((status, message[at + 3..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_of_the_table_has_its_class_and_hides_no_other() {
        for (part, class) in MESSAGES {
            assert_eq!(classify(&part.to_uppercase()), *class, "{part}");
            assert_eq!(part.to_lowercase(), *part);
        }
        for begin in SANDBOX {
            assert!(is_of_sandbox(&format!("\n{begin}x")), "{begin}");
        }
    }

    #[test]
    fn each_message_has_its_class() {
        let table = [
            (
                "unexpected status 401 Unauthorized: Incorrect API key provided",
                Auth,
            ),
            ("Missing environment variable: `MY_KEY`", Auth),
            (
                "exceeded retry limit, last status: 429 Too Many Requests",
                RateLimit,
            ),
            (
                "Quota exceeded. Check your plan and billing details.",
                UsageLimit,
            ),
            (
                "You've hit your usage limit. Try again at 3:05 PM.",
                UsageLimit,
            ),
            (
                "Selected model is at capacity. Please try a different model.",
                Overloaded,
            ),
            (
                "exceeded retry limit, last status: 502 Bad Gateway",
                Overloaded,
            ),
            (
                "unexpected status 404 Not Found: no such model",
                InvalidRequest,
            ),
            (
                "Codex ran out of room in the model's context window.",
                Context,
            ),
            ("something new", Internal),
        ];

        for (message, class) in table {
            assert_eq!(classify(message), class, "{message}");
        }
    }

    #[test]
    fn a_notice_of_a_retry_is_taken_apart() {
        let message = "Reconnecting... 2/5 (unexpected status 401 Unauthorized: no)";

        let (attempt, most, why) = retry(message).unwrap();

        assert_eq!(
            (attempt, most, why),
            (2, 5, "unexpected status 401 Unauthorized: no")
        );
        assert_eq!(http_status(why), Some((401, "Unauthorized: no")));
        assert_eq!(retry("Reconnecting"), None);
        assert_eq!(http_status("last status: 4é"), None);
    }
}
