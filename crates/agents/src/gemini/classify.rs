//! What kind of failure a message or an exit code of Gemini CLI is.
//!
//! Owns: the words and the codes by which failures are told apart, as data.
//! Reads: the message of a result or an error, the exit code.
//! Never: takes a verdict of the stream that says what is wrong for something else.

use std::borrow::Cow;

use dark_factory_types::ErrorClass::{self, *};
use dark_factory_types::{Exit, ExitStatus, Verdict};
use serde_json::value::RawValue;

use crate::json::{KeyMatch, clip, fields, string, unsigned};
use crate::messages::{class_of_message, class_of_status};
use crate::sink::WORD_CAP;

/// Parts of messages in lower case. The first that fits decides, so special cases go first.
pub(super) const MESSAGES: &[(&str, ErrorClass)] = &[
    ("api key not valid", Auth),
    ("api key expired", Auth),
    ("api_key_invalid", Auth),
    ("invalid auth method", Auth),
    ("please set an auth method", Auth),
    ("exceeded your current quota", UsageLimit),
    ("quota exceeded", UsageLimit),
    ("exhausted your capacity", UsageLimit),
    ("exhausted your daily quota", UsageLimit),
    ("prepayment credits", UsageLimit),
    ("maximum number of tokens allowed", Context),
    ("context window will overflow", Context),
    ("maximum session turns", MaxTurns),
    ("max session turns", MaxTurns),
    ("prohibited_content", Refused),
    ("blocked by safety", Refused),
    ("resource_exhausted", RateLimit),
    ("too many requests", RateLimit),
    ("unauthenticated", Auth),
    ("permission_denied", Auth),
    ("overloaded", Overloaded),
    ("unavailable", Overloaded),
    ("deadline_exceeded", Overloaded),
    ("fetch failed", Overloaded),
    ("econnrefused", Overloaded),
    ("econnreset", Overloaded),
    ("enotfound", Overloaded),
    ("invalid_argument", InvalidRequest),
    ("not_found", InvalidRequest),
];

/// What an exit code means that the program chose by itself.
pub(super) const CODES: &[(i32, ErrorClass, &str)] = &[
    (
        41,
        Auth,
        "no way to authenticate is set up (exit code 41): with GOOGLE_GEMINI_BASE_URL, settings.json has to name one in \
         security.auth.selectedType",
    ),
    (
        42,
        InvalidRequest,
        "it takes the prompt or its arguments for invalid (exit code 42)",
    ),
    (
        44,
        Internal,
        "its own sandbox could not be set up (exit code 44)",
    ),
    (
        52,
        Internal,
        "its settings.json is not usable (exit code 52)",
    ),
    (53, MaxTurns, "exit code 53"),
    (
        54,
        Internal,
        "a tool of it failed in a way that ends it (exit code 54)",
    ),
    (
        55,
        Internal,
        "it does not trust the folder (exit code 55): GEMINI_CLI_TRUST_WORKSPACE has to be true",
    ),
];

/// HTTP statuses of which the exit code is what is left of them in one byte.
///
/// Signals end at 128+64, so those of 400 to 448 look like one: 144 is 400, not signal 16.
pub(super) const STATUSES: &[u16] = &[400, 401, 402, 403, 404, 413, 429, 500, 502, 503, 504];

/// A failed request, as far as a message says something of it.
pub(super) struct Failure {
    pub(super) class: ErrorClass,
    /// One line.
    pub(super) message: String,
}

/// Reads the message of a failure: `[API Error: {"error":{"code":…,"message":…,"status":…}}]`, or plain words.
pub(super) fn failure(message: &str) -> Failure {
    let inner = message.trim();
    let inner = inner
        .strip_prefix("[API Error: ")
        .map_or(inner, |inner| inner.strip_suffix(']').unwrap_or(inner));
    let (status, words) = provider_error(inner).unwrap_or((None, inner.into()));
    let class = class_of_message(MESSAGES, inner)
        .or_else(|| class_of_status(status?))
        .unwrap_or(Internal);
    let words: Vec<&str> = words.split_whitespace().collect();
    let words = match clip(&words.join(" "), 2 * WORD_CAP) {
        words if words.is_empty() => "it does not say why".to_owned(),
        words => words,
    };
    let message = match status {
        Some(status) => format!("{words} (HTTP {status})"),
        None => words,
    };
    Failure { class, message }
}

/// Takes the provider's own error object apart: its HTTP status and its message.
fn provider_error(text: &str) -> Option<(Option<u64>, Cow<'_, str>)> {
    let text = text.get(text.find('{')?..)?;
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let object = values.next()?.ok()?;
    let [error] = fields(object.get(), ["error"], KeyMatch::Exact)?;
    let [code, message] = fields(error?.get(), ["code", "message"], KeyMatch::Exact)?;
    Some((unsigned(code), string(message)?.text()))
}

/// Returns what a verdict becomes by the exit code, which says more where the stream says nothing.
pub(super) fn at_exit(verdict: Verdict, exit: &Exit) -> Verdict {
    let says_little = match &verdict {
        Verdict::Silent => true,
        Verdict::Error { class, .. } => *class == Internal,
        Verdict::Success | Verdict::Report { .. } => false,
    };
    let ExitStatus::Code(code) = exit.status else {
        return verdict;
    };
    let Some((class, words)) = meaning_of(code).filter(|_| says_little) else {
        return verdict;
    };
    let message = match verdict {
        Verdict::Error { message, .. } => message,
        Verdict::Silent | Verdict::Success | Verdict::Report { .. } => words.into_owned(),
    };
    Verdict::Error { class, message }
}

/// Returns what an exit code says; `None` for 0, 1 and all that stand for nothing.
fn meaning_of(code: i32) -> Option<(ErrorClass, Cow<'static, str>)> {
    if let Some((_, class, words)) = CODES.iter().find(|(known, ..)| *known == code) {
        return Some((*class, (*words).into()));
    }
    let status = STATUSES
        .iter()
        .find(|status| i32::from(**status & 0xff) == code)?;
    let words = format!("HTTP {status} (exit code {code})");
    Some((class_of_status(u64::from(*status))?, words.into()))
}

#[cfg(test)]
mod tests {
    use dark_factory_types::{ExitSource, Oom};

    use super::*;

    fn at(verdict: Verdict, code: i32) -> Verdict {
        let exit = Exit {
            status: ExitStatus::Code(code),
            oom: Oom::No,
            source: ExitSource::Record,
        };
        at_exit(verdict, &exit)
    }

    fn class(verdict: &Verdict) -> Option<ErrorClass> {
        match verdict {
            Verdict::Error { class, .. } => Some(*class),
            _ => None,
        }
    }

    #[test]
    fn the_providers_own_words_are_taken_out_of_the_message() {
        let failed = failure(
            r#"[API Error: {"error":{"code":400,"message":"API key not valid. Pass a valid one.","status":"INVALID_ARGUMENT"}}]"#,
        );

        assert_eq!(
            failed.message,
            "API key not valid. Pass a valid one. (HTTP 400)"
        );
        assert_eq!(failed.class, Auth);
    }

    #[test]
    fn each_word_of_the_table_has_its_class_and_hides_no_other() {
        for (part, class) in MESSAGES {
            assert_eq!(failure(&part.to_uppercase()).class, *class, "{part}");
            assert_eq!(part.to_lowercase(), *part);
        }
    }

    #[test]
    fn a_status_decides_only_where_no_word_does() {
        let status = |code: u16| {
            failure(&format!(
                r#"[API Error: {{"error":{{"code":{code},"message":"x"}}}}]"#
            ))
            .class
        };

        assert_eq!(status(401), Auth);
        assert_eq!(status(429), RateLimit);
        assert_eq!(status(503), Overloaded);
        assert_eq!(status(302), Internal);
        assert_eq!(
            failure("[API Error: Incomplete JSON segment at the end]").class,
            Internal
        );
        assert_eq!(failure("").message, "it does not say why");
    }

    #[test]
    fn an_exit_code_speaks_where_the_stream_is_silent() {
        for (code, expected) in [
            (0, None),
            (1, None),
            (41, Some(Auth)),
            (53, Some(MaxTurns)),
            (55, Some(Internal)),
            (143, None),
            (144, Some(InvalidRequest)),
            (147, Some(Auth)),
            (173, Some(RateLimit)),
            (244, Some(Overloaded)),
            (247, Some(Overloaded)),
        ] {
            assert_eq!(class(&at(Verdict::Silent, code)), expected, "{code}");
        }
    }

    #[test]
    fn an_exit_code_does_not_outvote_the_stream() {
        let quota = Verdict::Error {
            class: UsageLimit,
            message: "quota".to_owned(),
        };
        let vague = Verdict::Error {
            class: Internal,
            message: "why".to_owned(),
        };

        assert_eq!(at(quota.clone(), 173), quota);
        assert_eq!(at(Verdict::Success, 144), Verdict::Success);
        assert_eq!(
            at(vague, 173),
            Verdict::Error {
                class: RateLimit,
                message: "why".to_owned()
            }
        );
    }

    #[test]
    fn no_two_codes_mean_different_things() {
        for status in STATUSES {
            let code = i32::from(status & 0xff);
            assert!(CODES.iter().all(|(known, ..)| *known != code), "{status}");
            assert!(![0, 1, 129, 130, 137, 143].contains(&code), "{status}");
            assert!(class_of_status(u64::from(*status)).is_some(), "{status}");
        }
    }
}
