//! The completion report: a block of JSON between two markers in an agent's last words.
//!
//! Owns: what counts as a report, and when one is unreadable.
//! Reads: the final text of an agent, never a log or a tool's output.
//! Never: takes a marker inside a sentence or a code fence for a report, or an unreadable one for none.

use std::collections::BTreeMap;

use dark_factory_types::{CompletionReport, ReportStatus, Verification};

use crate::json::{
    JsonKind, KeyMatch, Raw, Reader, each_element, each_entry, fields, kind, string,
};

/// Begins a report; at the start of a line, after at most three spaces.
pub const REPORT_START: &str = "<!-- DARK-FACTORY-REPORT";
/// Ends a report.
pub const REPORT_END: &str = "DARK-FACTORY-REPORT -->";

/// A report that was begun and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The end marker is missing: the text was cut, or the agent forgot it.
    #[error("completion report has no end marker")]
    NoEnd,
    /// The start marker is beyond the part of the text that was kept.
    #[error("completion report is too long")]
    TooLong,
    /// What is between the markers is not one JSON object.
    #[error("completion report is not a JSON object")]
    NotAnObject,
    /// A field is missing or has another type than it should.
    #[error("completion report has no usable `{field}`")]
    Field {
        /// The field's name.
        field: &'static str,
    },
}

/// Reads the last completion report in an agent's final text; `None` if no report was begun.
///
/// Fields that are not in the format are kept. A success whose verification failed becomes partial.
///
/// # Errors
///
/// [`ReportError`] if the last report that was begun is not readable.
pub fn parse_completion_report(text: &str) -> Option<Result<CompletionReport, ReportError>> {
    let mut last = None;
    let last_end = text.rfind(REPORT_END);
    let mut fence: Option<Fence<'_>> = None;
    let mut unclosed: Option<Fence<'_>> = None;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let line = rest.split_inclusive('\n').next().unwrap_or(rest);
        at += line.len();
        let opens_here = fence.is_none();
        match fence {
            Some(open) if open.is_closed_by(line) => fence = None,
            Some(_) => {}
            None => fence = Fence::opened_by(line),
        }
        // A fence that is never closed hides nothing: better an unwanted report than a lost one.
        if let Some(open) = fence.filter(|_| opens_here)
            && (unclosed.is_some_and(|other| other.closes_no_later_than(open))
                || !open.is_closed_in(&text[at..]))
        {
            unclosed = Some(open);
            fence = None;
        }
        if fence.is_some() {
            continue;
        }
        if let Some(body) = begun_by(line, rest) {
            let begin = text.len() - body.len();
            let (report, used) = parse_block(body, last_end.and_then(|end| end.checked_sub(begin)));
            if report.is_ok() {
                at = at.max(begin + used);
            }
            last = Some(report);
        }
    }
    last
}

/// As [`parse_completion_report`], for the end of a text whose beginning was not kept.
pub(crate) fn parse_cut_report(tail: &str) -> Option<Result<CompletionReport, ReportError>> {
    let ended = || tail.lines().any(|line| line.trim() == REPORT_END);
    parse_completion_report(tail).or_else(|| ended().then_some(Err(ReportError::TooLong)))
}

/// Returns what follows the start marker if `line`, the first of `rest`, begins a report.
fn begun_by<'a>(line: &str, rest: &'a str) -> Option<&'a str> {
    let indent = indent_of(line)?;
    let body = rest.get(indent..)?.strip_prefix(REPORT_START)?;
    let continues = |char: char| char.is_alphanumeric() || char == '-' || char == '_';
    (!body.starts_with(continues)).then_some(body)
}

/// Reads one block, given where the text's last end marker is, and returns how many bytes it took.
fn parse_block(
    body: &str,
    last_end: Option<usize>,
) -> (Result<CompletionReport, ReportError>, usize) {
    // The JSON value is read first, so that an end marker inside one of its strings is no end.
    let mut reader = Reader::new(body);
    if let Some(value) = reader.value()
        && let Some(after) = reader.rest().trim_start().strip_prefix(REPORT_END)
    {
        return (parse_fields(value), body.len() - after.len());
    }
    let error = match last_end {
        Some(_) => ReportError::NotAnObject,
        None => ReportError::NoEnd,
    };
    (Err(error), 0)
}

fn parse_fields(value: Raw<'_>) -> Result<CompletionReport, ReportError> {
    let bad = |field| ReportError::Field { field };
    let names = ["status", "summary", "blockers", "verification"];
    let [status, summary, blockers, verification] =
        fields(value.get(), names, KeyMatch::AnyCase).ok_or(ReportError::NotAnObject)?;

    let status = match string(status).ok_or(bad("status"))?.text().as_ref() {
        "success" => ReportStatus::Success,
        "partial" => ReportStatus::Partial,
        "failed" => ReportStatus::Failed,
        other => ReportStatus::Other(other.to_owned()),
    };
    let mut report = CompletionReport {
        status,
        summary: parse_text(present(summary)).ok_or(bad("summary"))?,
        blockers: parse_blockers(present(blockers)).ok_or(bad("blockers"))?,
        verification: match present(verification) {
            Some(value) => Some(parse_verification(value).ok_or(bad("verification"))?),
            None => None,
        },
        unknown: BTreeMap::new(),
    };
    each_entry(value.get(), |key, value| {
        if !names.iter().any(|name| key.eq_ignore_ascii_case(name)) {
            let value = value.get().to_owned();
            report.unknown.insert(key.to_owned(), value);
        }
    });
    let failed = report
        .verification
        .as_ref()
        .is_some_and(|v| v.exit_code != 0);
    if failed && report.status == ReportStatus::Success {
        report.status = ReportStatus::Partial;
    }
    Ok(report)
}

fn parse_verification(value: Raw<'_>) -> Option<Verification> {
    let [command, code] = fields(value.get(), ["command", "exitCode"], KeyMatch::AnyCase)?;
    Some(Verification {
        command: parse_text(present(command))?,
        exit_code: match present(code) {
            Some(code) => code.get().parse().ok()?,
            None => 0,
        },
    })
}

fn parse_blockers(value: Option<Raw<'_>>) -> Option<Vec<String>> {
    let mut blockers = Vec::new();
    let mut all_texts = true;
    let is_array = value.is_none_or(|value| {
        each_element(value.get(), |element| {
            match string(Some(element)) {
                Some(text) => blockers.push(text.text().into_owned()),
                None => all_texts = false,
            }
            all_texts
        })
    });
    (is_array && all_texts).then_some(blockers)
}

/// Returns the text of a string, or the empty text if there is no value.
fn parse_text(value: Option<Raw<'_>>) -> Option<String> {
    match value {
        Some(value) => Some(string(Some(value))?.text().into_owned()),
        None => Some(String::new()),
    }
}

/// Takes null for a value that is not there.
fn present(value: Option<Raw<'_>>) -> Option<Raw<'_>> {
    value.filter(|value| kind(*value) != JsonKind::Null)
}

/// Returns a line's indent in spaces; `None` if it makes the line a code block.
fn indent_of(line: &str) -> Option<usize> {
    let indent = line.len() - line.trim_start_matches(' ').len();
    (indent <= 3).then_some(indent)
}

/// The opening of a fenced code block.
#[derive(Clone, Copy)]
struct Fence<'a> {
    marks: &'a str,
}

impl<'a> Fence<'a> {
    fn opened_by(line: &'a str) -> Option<Self> {
        let line = line.get(indent_of(line)?..)?;
        let mark = line
            .chars()
            .next()
            .filter(|mark| matches!(mark, '`' | '~'))?;
        let rest = line.trim_start_matches(mark);
        let marks = &line[..line.len() - rest.len()];
        // Backticks after the opening ones make it inline code in a sentence.
        let is_fence = marks.len() >= 3 && !(mark == '`' && rest.contains('`'));
        is_fence.then_some(Self { marks })
    }

    fn is_closed_by(self, line: &str) -> bool {
        let line = line.trim_end();
        let marks = indent_of(line).and_then(|indent| line.get(indent..));
        marks.is_some_and(|marks| {
            marks.len() >= self.marks.len()
                && marks
                    .bytes()
                    .all(|byte| self.marks.as_bytes().starts_with(&[byte]))
        })
    }

    /// Returns whether every line that closes `other` closes this one too.
    fn closes_no_later_than(self, other: Self) -> bool {
        other.marks.starts_with(self.marks)
    }

    fn is_closed_in(self, text: &str) -> bool {
        text.lines().any(|line| self.is_closed_by(line))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn status(text: &str) -> Option<Result<ReportStatus, ReportError>> {
        parse_completion_report(text).map(|report| report.map(|report| report.status))
    }

    fn block(json: &str) -> String {
        format!("{REPORT_START}\n{json}\n{REPORT_END}\n")
    }

    #[test]
    fn a_report_is_read_with_all_its_fields() {
        let text = format!(
            "Done.\n\n{}",
            block(
                r#"{"status":"partial","summary":"Half.","blockers":["no \"net\""],
                "verification":{"command":"make","exitCode":2},"files":[1,2],"note":"x"}"#
            )
        );

        let report = parse_completion_report(&text).unwrap().unwrap();

        assert_eq!(report.status, ReportStatus::Partial);
        assert_eq!(report.summary, "Half.");
        assert_eq!(report.blockers, ["no \"net\""]);
        let verification = report.verification.unwrap();
        assert_eq!(
            (&*verification.command, verification.exit_code),
            ("make", 2)
        );
        assert_eq!(report.unknown["files"], "[1,2]");
        assert_eq!(report.unknown["note"], "\"x\"");
    }

    #[test]
    fn the_last_report_wins() {
        let good = block(r#"{"status":"success"}"#);
        let failed = block(r#"{"status":"failed"}"#);

        assert_eq!(
            status(&format!("{good}{failed}")),
            Some(Ok(ReportStatus::Failed))
        );
        assert_eq!(
            status(&format!("{failed}{good}")),
            Some(Ok(ReportStatus::Success))
        );
        assert_eq!(
            status(&format!("{good}{REPORT_START}\n{{\"status\":")),
            Some(Err(ReportError::NoEnd))
        );
    }

    #[test]
    fn a_success_whose_verification_failed_is_partial() {
        for (code, expected) in [("0", ReportStatus::Success), ("1", ReportStatus::Partial)] {
            let json = format!(
                r#"{{"status":"success","verification":{{"command":"t","exitcode":{code}}}}}"#
            );

            assert_eq!(status(&block(&json)), Some(Ok(expected)));
        }
    }

    #[test]
    fn a_report_that_was_begun_and_is_not_readable_is_an_error() {
        let field = |field| Some(Err(ReportError::Field { field }));
        for (json, expected) in [
            ("", Some(Err(ReportError::NotAnObject))),
            ("[]", Some(Err(ReportError::NotAnObject))),
            ("{} {}", Some(Err(ReportError::NotAnObject))),
            (
                "{\"status\":\"success\"",
                Some(Err(ReportError::NotAnObject)),
            ),
            ("{}", field("status")),
            (r#"{"status":null}"#, field("status")),
            (r#"{"status":"success","blockers":"x"}"#, field("blockers")),
            (r#"{"status":"success","blockers":[1]}"#, field("blockers")),
            (r#"{"status":"success","summary":{}}"#, field("summary")),
            (
                r#"{"status":"success","verification":{"exitCode":"0"}}"#,
                field("verification"),
            ),
            (
                r#"{"status":"success","verification":{"exitCode":99999999999999999999}}"#,
                field("verification"),
            ),
        ] {
            assert_eq!(status(&block(json)), expected, "{json}");
        }
        assert_eq!(status(REPORT_START), Some(Err(ReportError::NoEnd)));
    }

    #[test]
    fn a_word_that_is_not_in_the_format_is_no_success() {
        let text = block(r#"{"status":"Success","summary":null,"blockers":null}"#);

        assert_eq!(
            status(&text),
            Some(Ok(ReportStatus::Other("Success".to_owned())))
        );
    }

    #[test]
    fn a_quoted_marker_is_not_a_report() {
        let good = block(r#"{"status":"success"}"#);
        for text in [
            format!("I will end with {good}"),
            format!("> {good}"),
            format!("    {good}"),
            format!("```\n{good}```\n"),
            format!("~~~text\n```\n{good}~~~\nthe end"),
            format!("{REPORT_START}S are comments"),
            format!("Only {REPORT_END}"),
            "<!-- DARK-FACTORY".to_owned(),
            String::new(),
        ] {
            assert_eq!(status(&text), None, "{text}");
        }
    }

    #[test]
    fn code_before_a_report_does_not_hide_it() {
        let failed = block(r#"{"status":"failed"}"#);
        for text in [
            format!("```sh\nmake\n```\n{failed}"),
            format!("```\nnever closed\n{failed}"),
            format!("``` is a fence` of code\n{failed}"),
            format!("   {failed}"),
            format!("{REPORT_START} {{\"status\":\"failed\"}} {REPORT_END}"),
            format!("text\r\n{}", failed.replace('\n', "\r\n")),
        ] {
            assert_eq!(status(&text), Some(Ok(ReportStatus::Failed)), "{text}");
        }
    }

    #[test]
    fn an_end_marker_inside_the_summary_is_part_of_it() {
        let json = format!(r#"{{"status":"success","summary":"I print {REPORT_END} last"}}"#);

        assert_eq!(status(&block(&json)), Some(Ok(ReportStatus::Success)));
    }

    #[test]
    fn a_report_whose_beginning_was_not_kept_is_unreadable() {
        let tail = format!("…\"}}\n{REPORT_END}\n");

        assert_eq!(parse_cut_report(&tail), Some(Err(ReportError::TooLong)));
        assert_eq!(parse_cut_report("just words"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just(REPORT_START.to_owned()), Just(REPORT_END.to_owned()), Just("\n".to_owned()),
                    Just("```".to_owned()), Just("{\"status\":\"success\"}".to_owned()), ".{0,4}",
                ],
                0..20,
            )
        ) {
            drop(parse_completion_report(&parts.concat()));
        }
    }
}
