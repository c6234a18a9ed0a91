//! Reads what a provider's answer says was used.
//!
//! Owns: where each dialect says it, as JSON and as server-sent events.
//! Reads: an answer's bytes as they go by.
//! Never: delays or changes them, or takes a count that is not there for zero.

use std::sync::LazyLock;

use dark_factory_agents::{priced, priced_usd};
use dark_factory_types::{Provider, Usage};
use memchr::memmem::Finder;
use memchr::{memchr, memrchr};

use super::scan::{Leaf, Scan};

/// The longest name of a model that is kept, in bytes.
const NAME: usize = 200;

/// Counts as they are in the answers; `None` where there was none.
#[derive(Debug, Default)]
struct Counts {
    input: Option<u64>,
    output: Option<u64>,
    cache_read: u64,
    cache_write: u64,
    cache_write_1h: u64,
    reasoning: u64,
    tool_prompt: u64,
    /// Whether the counts are the last ones.
    is_final: bool,
    model: Option<String>,
}

/// How the answer is cut.
#[derive(Debug)]
enum Form {
    Json,
    Events(Line),
    /// It cannot be read.
    Opaque,
}

/// The reader of one answer.
#[derive(Debug)]
pub(crate) struct UsageReader {
    provider: Provider,
    form: Form,
    scan: Scan,
    counts: Counts,
}

const DATA: &[u8] = b"data:";

/// What a line that says anything has in it: each path that is looked for has the first or the second in a name, and
/// only the third can stand for one of their letters. To look for these is eight times as fast as to read the line.
static TELLING: LazyLock<[Finder<'static>; 3]> =
    LazyLock::new(|| ["usage", "model", r"\u00"].map(Finder::new));

/// A line of events that goes by.
#[derive(Debug)]
struct Line {
    /// How much of [`DATA`] it began with; `None` in one that is passed over.
    matched: Option<usize>,
}

impl Line {
    const BEGIN: Self = Self { matched: Some(0) };

    fn has_begun(&self) -> bool {
        self.matched != Some(0)
    }

    /// Takes bytes that have no end of a line.
    fn take(&mut self, mut bytes: &[u8], scan: &mut Scan, found: &mut dyn FnMut(&str, Leaf<'_>)) {
        while let (Some(matched), Some((first, rest))) = (self.matched, bytes.split_first()) {
            match DATA.get(matched) {
                Some(expected) => {
                    self.matched = (expected == first).then_some(matched + 1);
                    bytes = rest;
                }
                None => return scan.take(bytes, found),
            }
        }
    }

    fn end(&mut self, scan: &mut Scan) {
        *self = Self::BEGIN;
        scan.restart();
    }
}

/// Calls `take` with each of these whole lines that may say something, without its end.
fn telling<'a>(lines: &'a [u8], mut take: impl FnMut(&'a [u8])) {
    let mut begin = 0;
    let find = |finder: &Finder<'_>, begin| {
        finder
            .find(&lines[begin..])
            .map_or(lines.len(), |at| begin + at)
    };
    let mut next = TELLING.each_ref().map(|finder| (finder, find(finder, 0)));
    while let Some(at) = next.iter().map(|&(_, at)| at).min()
        && at < lines.len()
    {
        let line = memrchr(b'\n', &lines[begin..at]).map_or(begin, |end| begin + end + 1);
        let end = memchr(b'\n', &lines[at..]).map_or(lines.len(), |end| at + end);
        take(&lines[line..end]);
        begin = lines.len().min(end + 1);
        for (finder, at) in &mut next {
            if *at < begin {
                *at = find(finder, begin);
            }
        }
    }
}

impl UsageReader {
    /// Makes a reader of an answer with these headers.
    pub(crate) fn new(provider: Provider, headers: &hyper::HeaderMap) -> Self {
        let value = |name| {
            headers
                .get(name)
                .and_then(|value: &hyper::header::HeaderValue| value.to_str().ok())
        };
        let kind = value(hyper::header::CONTENT_TYPE).unwrap_or_default();
        let coding = value(hyper::header::CONTENT_ENCODING).unwrap_or("identity");
        let form = if coding != "identity" {
            Form::Opaque
        } else if kind.starts_with("text/event-stream") {
            Form::Events(Line::BEGIN)
        } else {
            Form::Json
        };
        Self {
            provider,
            form,
            scan: Scan::default(),
            counts: Counts::default(),
        }
    }

    /// Takes the next bytes of the answer.
    pub(crate) fn take(&mut self, mut bytes: &[u8]) {
        let (provider, counts) = (self.provider, &mut self.counts);
        let mut found = |path: &str, leaf: Leaf<'_>| counts.take(provider, path, leaf);
        match &mut self.form {
            Form::Opaque => {}
            Form::Json => self.scan.take(bytes, &mut found),
            Form::Events(line) => {
                let scan = &mut self.scan;
                if line.has_begun() {
                    let end = memchr(b'\n', bytes);
                    line.take(&bytes[..end.unwrap_or(bytes.len())], scan, &mut found);
                    let Some(end) = end else { return };
                    line.end(scan);
                    bytes = &bytes[end + 1..];
                }
                let (lines, begun) = bytes.split_at(memrchr(b'\n', bytes).map_or(0, |end| end + 1));
                telling(lines, |whole| {
                    line.take(whole, scan, &mut found);
                    line.end(scan);
                });
                line.take(begun, scan, &mut found);
            }
        }
    }

    /// Returns the model that answered, if the answer names it.
    pub(crate) fn model(&self) -> Option<&str> {
        self.counts.model.as_deref()
    }

    /// Returns what was used, priced by the model that answered or else by the one that was asked for.
    ///
    /// `None` if the answer has not said it, or not to its end.
    pub(crate) fn usage(&self, asked: Option<&str>) -> Option<Usage> {
        let counts = &self.counts;
        if !counts.is_final {
            return None;
        }
        self.seen(asked)
    }

    /// Returns what has been said so far of what was used.
    pub(crate) fn seen(&self, asked: Option<&str>) -> Option<Usage> {
        let counts = &self.counts;
        let (input, output) = (counts.input?, counts.output.unwrap_or(0));
        // Anthropic counts cached input by itself; the others have it in the input.
        let (input, output) = match self.provider {
            Provider::Anthropic => (input, output),
            Provider::Openai => (input.saturating_sub(counts.cache_read), output),
            Provider::Gemini => (
                input
                    .saturating_add(counts.tool_prompt)
                    .saturating_sub(counts.cache_read),
                output.saturating_add(counts.reasoning),
            ),
        };
        let mut usage = Usage {
            input_tokens: input,
            output_tokens: output,
            cache_read_tokens: counts.cache_read,
            cache_write_tokens: counts.cache_write,
            reasoning_tokens: counts.reasoning,
            ..Usage::default()
        };
        let price = |model: &str| priced(model, &usage, counts.cache_write_1h);
        usage.priced_usd = counts
            .model
            .as_deref()
            .and_then(price)
            .or_else(|| asked.and_then(price));
        Some(usage)
    }
}

impl Counts {
    fn take(&mut self, provider: Provider, path: &str, leaf: Leaf<'_>) {
        match provider {
            Provider::Anthropic => self.anthropic(path, leaf),
            Provider::Openai => self.openai(path, leaf),
            Provider::Gemini => self.gemini(path, leaf),
        }
    }

    fn named(&mut self, leaf: Leaf<'_>) {
        if let Leaf::Text(name) = leaf
            && name.len() <= NAME
        {
            self.model = Some(name.to_owned());
        }
    }

    fn anthropic(&mut self, path: &str, leaf: Leaf<'_>) {
        // The first event has a message; the last one and a whole answer have not.
        let (is_first, path) = match path.strip_prefix("message.") {
            Some(path) => (true, path),
            None => (false, path),
        };
        if path == "model" {
            return self.named(leaf);
        }
        let Some(count) = leaf.count() else { return };
        match path {
            "usage.input_tokens" => self.input = Some(count),
            "usage.output_tokens" => {
                self.output = Some(count);
                self.is_final |= !is_first;
            }
            "usage.cache_read_input_tokens" => self.cache_read = count,
            "usage.cache_creation_input_tokens" => self.cache_write = count,
            "usage.cache_creation.ephemeral_1h_input_tokens" => self.cache_write_1h = count,
            _ => {}
        }
    }

    fn openai(&mut self, path: &str, leaf: Leaf<'_>) {
        let path = path.strip_prefix("response.").unwrap_or(path);
        if path == "model" {
            return self.named(leaf);
        }
        let Some(count) = leaf.count() else { return };
        match path {
            "usage.input_tokens" | "usage.prompt_tokens" => {
                self.input = Some(count);
                // Embeddings have no output.
                self.is_final = true;
            }
            "usage.output_tokens" | "usage.completion_tokens" => self.output = Some(count),
            "usage.input_tokens_details.cached_tokens"
            | "usage.prompt_tokens_details.cached_tokens" => self.cache_read = count,
            "usage.output_tokens_details.reasoning_tokens"
            | "usage.completion_tokens_details.reasoning_tokens" => self.reasoning = count,
            _ => {}
        }
    }

    fn gemini(&mut self, path: &str, leaf: Leaf<'_>) {
        if path == "modelVersion" {
            return self.named(leaf);
        }
        let Some(count) = leaf.count() else { return };
        match path {
            "usageMetadata.promptTokenCount" => {
                self.input = Some(count);
                self.is_final = true;
            }
            "usageMetadata.candidatesTokenCount" => self.output = Some(count),
            "usageMetadata.cachedContentTokenCount" => self.cache_read = count,
            "usageMetadata.thoughtsTokenCount" => self.reasoning = count,
            "usageMetadata.toolUsePromptTokenCount" => self.tool_prompt = count,
            _ => {}
        }
    }
}

/// Returns whether a model's tokens have a price.
pub(crate) fn is_priced(model: &str) -> bool {
    priced_usd(model, &Usage::default()).is_some()
}

/// The model that a request asks for, read as its body goes by.
#[derive(Debug, Default)]
pub(crate) struct ModelReader {
    scan: Scan,
    model: Option<String>,
    is_ambiguous: bool,
}

impl ModelReader {
    /// Takes the next bytes of the body.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        let (model, is_ambiguous) = (&mut self.model, &mut self.is_ambiguous);
        self.scan.take(bytes, &mut |path, leaf| {
            if path == "model"
                && let Leaf::Text(name) = leaf
            {
                // Who reads it may take the first or the last of two.
                *is_ambiguous |= model.is_some();
                *model = Some(name.to_owned()).filter(|name| name.len() <= NAME);
            }
        });
    }

    /// Returns the model; `None` if none was named yet, or more than one.
    pub(crate) fn model(&self) -> Option<&str> {
        self.model.as_deref().filter(|_| !self.is_ambiguous)
    }
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;
    use hyper::header::{CONTENT_TYPE, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    const PROVIDERS: [Provider; 3] = [Provider::Anthropic, Provider::Openai, Provider::Gemini];

    fn read<'a>(
        provider: Provider,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> (Option<Usage>, Option<Usage>, Option<String>) {
        let events = HeaderValue::from_static("text/event-stream; charset=utf-8");
        let mut reader =
            UsageReader::new(provider, &HeaderMap::from_iter([(CONTENT_TYPE, events)]));
        for piece in pieces {
            reader.take(piece);
        }
        let (usage, seen) = (reader.usage(None), reader.seen(None));
        (usage, seen, reader.model().map(str::to_owned))
    }

    #[test]
    fn counts_are_found_in_whole_lines_and_in_lines_cut_anywhere() {
        let text = format!("data: {{\"text\":\"{}\"}}\r\n\r\n", "usag mode ".repeat(20));
        let begin = r#"data: {"message":{"model":"claude-x","usage":{"input_tokens":3,"output_tokens":1}}}"#;
        let end = r#"data:{"us\u0061ge":{"output_tokens":40}}"#;
        let stream = format!("event: model\n{begin}\n\n{text}{text}event: usage\n{end}\n\n{text}");
        let stream = stream.as_bytes();

        for size in 1..=stream.len() {
            let (usage, seen, model) = read(Provider::Anthropic, stream.chunks(size));

            let counts = usage
                .as_ref()
                .map(|usage| (usage.input_tokens, usage.output_tokens));
            assert_eq!(counts, Some((3, 40)), "{size}");
            assert_eq!(
                (seen, model.as_deref()),
                (usage, Some("claude-x")),
                "{size}"
            );
        }
    }

    #[test]
    fn a_last_line_counts_although_it_does_not_end() {
        let line = br#"data: {"usage":{"prompt_tokens":7,"completion_tokens":5}}"#;

        let (usage, _, _) = read(Provider::Openai, [&line[..]]);

        assert_eq!(usage.map(|usage| usage.total_tokens()), Some(12));
    }

    /// A line, which may be none of JSON, or say nothing.
    fn line() -> impl Strategy<Value = String> {
        let name = prop::sample::select(vec![
            "usage",
            r"\u0075sage",
            r"us\u0061ge",
            "usageMetadata",
            "usag",
            "model",
            r"mod\u0065l",
            "modelVersion",
            "message",
            "text",
            r"\n",
        ]);
        let count = prop::sample::select(vec![
            "input_tokens",
            "output_tokens",
            "prompt_tokens",
            r"prompt\u005ftokens",
            "completion_tokens",
            "promptTokenCount",
            "candidatesTokenCount",
        ]);
        let value = prop_oneof![
            (count, 0..1000_u64).prop_map(|(name, count)| format!(r#"{{"{name}":{count}}}"#)),
            prop::sample::select(vec![
                r#""claude-x""#,
                r#""it is \"usage\":{\"input_tokens\":9}""#,
                r#""\u00e4 \\""#,
                "null",
                "[{}",
            ])
            .prop_map(str::to_owned),
        ];
        let object = prop::collection::vec((name, value), 0..4).prop_map(|members| {
            let members: Vec<String> = members
                .into_iter()
                .map(|(name, value)| format!(r#""{name}":{value}"#))
                .collect();
            format!("{{{}}}", members.join(","))
        });
        let object = prop_oneof![
            4 => object.clone(),
            1 => object.prop_map(|object| format!(r#"{{"message":{object}}}"#)),
        ];
        let begin = prop::sample::select(vec!["data: ", "data:", "event: ", "dat", "data", ""]);
        let end = prop::sample::select(vec!["\n", "\n\n", "\r\n", ""]);
        (begin, object, end).prop_map(|(begin, object, end)| format!("{begin}{object}{end}"))
    }

    proptest! {
        #[test]
        fn a_stream_says_the_same_however_it_is_cut(
            lines in prop::collection::vec(line(), 0..12),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let stream = lines.concat().into_bytes();
            let mut cuts: Vec<usize> =
                cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.sort_unstable();
            let begins = std::iter::once(0).chain(cuts.iter().copied());
            let ends = cuts.iter().copied().chain([stream.len()]);
            let pieces: Vec<&[u8]> =
                begins.zip(ends).map(|(begin, end)| &stream[begin..end]).collect();

            for provider in PROVIDERS {
                // Byte by byte, no line is ever whole: all of each is read.
                let bytes = read(provider, stream.chunks(1));

                prop_assert_eq!(&read(provider, pieces.iter().copied()), &bytes);
                prop_assert_eq!(&read(provider, [&stream[..]]), &bytes);
            }
        }
    }
}
