//! Reads what a provider's answer says was used.
//!
//! Owns: where each dialect says it, as JSON and as server-sent events.
//! Reads: an answer's bytes as they go by.
//! Never: delays or changes them, or takes a count that is not there for zero.

use dark_factory_agents::{priced, priced_usd};
use dark_factory_types::{Provider, Usage};
use memchr::memchr;

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
    /// At which byte of a line of events we are; `None` in one that is passed over.
    Events(Option<usize>),
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
            Form::Events(Some(0))
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
            Form::Events(at) => {
                while !bytes.is_empty() {
                    let end = memchr(b'\n', bytes);
                    let mut line = &bytes[..end.unwrap_or(bytes.len())];
                    while let (Some(matched), Some((first, rest))) = (*at, line.split_first()) {
                        match DATA.get(matched) {
                            Some(expected) => {
                                *at = (expected == first).then_some(matched + 1);
                                line = rest;
                            }
                            None => {
                                self.scan.take(line, &mut found);
                                break;
                            }
                        }
                    }
                    let Some(end) = end else { return };
                    *at = Some(0);
                    self.scan.restart();
                    bytes = &bytes[end + 1..];
                }
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
