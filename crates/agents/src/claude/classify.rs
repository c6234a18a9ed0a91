//! What kind of failure a result of Claude Code is.
//!
//! Owns: the words by which failures are told apart, as data.
//! Reads: the fields of a result and of the error message before it.
//! Never: decides whether it is a failure.

use dark_factory_types::ErrorClass::{self, *};
use serde::{Deserialize, Serialize};

use crate::messages::{class_of_message, class_of_status};

/// Everything that says what kind of failure it is; a field that is missing is empty.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Evidence {
    pub(super) terminal_reason: String,
    pub(super) subtype: String,
    pub(super) stop_reason: String,
    /// `api_error` of the result, else of the last error message.
    pub(super) api_error: String,
    /// `error` of the last error message.
    pub(super) error: String,
    pub(super) api_error_type: String,
    pub(super) http_status: Option<u64>,
    pub(super) message: String,
}

/// One word in one field. The first rule that fits decides, so special cases go first.
type Rule = (fn(&Evidence) -> &str, &'static str, ErrorClass);

const RULES: &[Rule] = &[
    (|e| &e.terminal_reason, "prompt_too_long", Context),
    (|e| &e.terminal_reason, "max_turns", MaxTurns),
    (|e| &e.terminal_reason, "budget_exhausted", Budget),
    (|e| &e.terminal_reason, "aborted_tools", Interrupted),
    (|e| &e.terminal_reason, "aborted_streaming", Interrupted),
    (|e| &e.subtype, "error_max_turns", MaxTurns),
    (|e| &e.subtype, "error_max_budget_usd", Budget),
    (|e| &e.stop_reason, "refusal", Refused),
    (|e| &e.api_error, "usage_limit_reached", UsageLimit),
    (|e| &e.error, "billing_error", UsageLimit),
    (|e| &e.error, "authentication_failed", Auth),
    (|e| &e.error, "oauth_org_not_allowed", Auth),
    (|e| &e.error, "rate_limit", RateLimit),
    (|e| &e.error, "overloaded", Overloaded),
    (|e| &e.error, "server_error", Overloaded),
    (|e| &e.error, "model_not_found", InvalidRequest),
    (|e| &e.error, "invalid_request", InvalidRequest),
    (|e| &e.api_error_type, "billing_error", UsageLimit),
    (|e| &e.api_error_type, "authentication_error", Auth),
    (|e| &e.api_error_type, "permission_error", Auth),
    (|e| &e.api_error_type, "rate_limit_error", RateLimit),
    (|e| &e.api_error_type, "overloaded_error", Overloaded),
    (|e| &e.api_error_type, "api_error", Overloaded),
    (|e| &e.api_error_type, "not_found_error", InvalidRequest),
    (
        |e| &e.api_error_type,
        "invalid_request_error",
        InvalidRequest,
    ),
];

/// Parts of messages, in lower case, for builds of Claude Code that give no better sign.
const MESSAGES: &[(&str, ErrorClass)] = &[
    ("credit balance is too low", UsageLimit),
    ("usage limit", UsageLimit),
    ("not logged in", Auth),
    ("please run /login", Auth),
    ("invalid api key", Auth),
    ("prompt is too long", Context),
    ("overloaded", Overloaded),
    ("api error: 401", Auth),
    ("api error: 403", Auth),
    ("api error: 402", UsageLimit),
    ("api error: 429", RateLimit),
    ("api error: 4", InvalidRequest),
    ("api error: 5", Overloaded),
    ("connection error", Overloaded),
];

/// How a result that is a failure begins, whatever the rest of it says: programs that speak Claude Code's language
/// give `is_error: false` and exit code 0 all the same.
const FAILED_RESULT: &str = "[API Error:";

/// Beginnings of a change's answer by which it is clear that no change can be made, in lower case.
const OBSTACLES: &[&str] = &["eacces:", "eperm:", "erofs:", "enospc:", "edquot:"];

/// Returns whether a result's text is a failure's.
pub(super) fn is_failed_result(text: &str) -> bool {
    text.starts_with(FAILED_RESULT)
}

/// Returns why a change was not made, if no other can be made either.
pub(super) fn obstacle(answer: &str) -> Option<String> {
    let line = answer.lines().next().unwrap_or_default();
    let words = line
        .trim()
        .strip_prefix("<tool_use_error>")
        .unwrap_or(line.trim())
        .trim_end_matches("</tool_use_error>");
    let lower = words.to_lowercase();
    let is_one = OBSTACLES.iter().any(|begin| lower.starts_with(begin));
    is_one.then(|| words.to_owned())
}

/// Returns what kind of failure it is.
pub(super) fn classify(evidence: &Evidence) -> ErrorClass {
    let by_word = RULES
        .iter()
        .find(|(field, word, _)| field(evidence) == *word)
        .map(|(_, _, class)| *class);
    by_word
        .or_else(|| class_of_status(evidence.http_status?))
        .or_else(|| class_of_message(MESSAGES, &evidence.message))
        .unwrap_or(Internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [fn(&mut Evidence) -> &mut String; 6] = [
        |e| &mut e.terminal_reason,
        |e| &mut e.subtype,
        |e| &mut e.stop_reason,
        |e| &mut e.api_error,
        |e| &mut e.error,
        |e| &mut e.api_error_type,
    ];

    #[test]
    fn each_word_of_the_tables_has_its_class_and_hides_no_other() {
        for (read, word, class) in RULES {
            let evidence = FIELDS.iter().find_map(|write| {
                let mut evidence = Evidence::default();
                (*word).clone_into(write(&mut evidence));
                (read(&evidence) == *word).then_some(evidence)
            });
            assert_eq!(classify(&evidence.unwrap()), *class, "{word}");
        }
        for (part, class) in MESSAGES {
            let evidence = Evidence {
                message: part.to_uppercase(),
                ..Evidence::default()
            };
            assert_eq!(classify(&evidence), *class, "{part}");
            assert_eq!(part.to_lowercase(), *part);
        }
        for begin in OBSTACLES {
            let answer = format!(
                "<tool_use_error>{}: no</tool_use_error>",
                begin.to_uppercase()
            );
            assert!(obstacle(&answer).unwrap().ends_with(": no"), "{begin}");
        }
        assert_eq!(obstacle("grep: EACCES: x"), None);
    }

    #[test]
    fn a_special_word_beats_a_general_one() {
        let credit = Evidence {
            error: "billing_error".to_owned(),
            api_error_type: "invalid_request_error".to_owned(),
            http_status: Some(400),
            ..Evidence::default()
        };
        let subscription = Evidence {
            api_error: "usage_limit_reached".to_owned(),
            error: "rate_limit".to_owned(),
            http_status: Some(429),
            ..Evidence::default()
        };

        assert_eq!(classify(&credit), UsageLimit);
        assert_eq!(classify(&subscription), UsageLimit);
    }

    #[test]
    fn a_status_alone_is_enough() {
        for (status, class) in [
            (400, InvalidRequest),
            (401, Auth),
            (402, UsageLimit),
            (403, Auth),
            (404, InvalidRequest),
            (413, Context),
            (429, RateLimit),
            (500, Overloaded),
            (529, Overloaded),
            (302, Internal),
        ] {
            let evidence = Evidence {
                http_status: Some(status),
                ..Evidence::default()
            };

            assert_eq!(classify(&evidence), class, "{status}");
        }
    }

    #[test]
    fn a_message_decides_only_if_nothing_else_does() {
        let message = "Not logged in · Please run /login".to_owned();
        let alone = Evidence {
            message: message.clone(),
            ..Evidence::default()
        };
        let with_status = Evidence {
            message,
            http_status: Some(500),
            ..Evidence::default()
        };

        assert_eq!(classify(&alone), Auth);
        assert_eq!(classify(&with_status), Overloaded);
        assert_eq!(classify(&Evidence::default()), Internal);
    }
}
