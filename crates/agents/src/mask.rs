//! Hides the secrets of a run in what people and programs read of it.
//!
//! Owns: which forms of a secret are looked for, and what stands in their place.
//! Reads: the secrets' values, once; texts of events.
//! Never: changes the agent's bytes, or what a decoder reads: only what came of them; shows a secret by `Debug`.

mod forms;

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use dark_factory_types::{CompletionReport, Event, EventKind, ReportStatus, Verdict};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::transcript::Conclusion;

/// What stands in the place of a secret.
pub const MASK: &str = "***";

/// The shortest value that is a secret: a shorter one is in too many words.
const TELLING: usize = 6;
/// How long all forms together are for which the fast way of looking is made, in bytes.
const LONG_FORMS: usize = 4 << 10;
/// What stands where the middle of a text was left out.
const CUT: &str = " bytes left out …";
/// Cuts of one text that are looked at; it has no more unless an agent made them.
const CUTS: usize = 256;
/// Where the mark of a cut begins at the latest, in bytes before [`CUT`]: a number stands between.
const MARK: usize = 32;
/// The shortest text whose end may be a cut that is not marked.
const CUT_LENGTH: usize = 200;

/// Hides secrets, and the usual encodings of them.
///
/// Looked for are a value as it is, its escaped forms in JSON, its percent-encoded forms, and its base64 forms, also in
/// the middle of other encoded bytes. Not masked are values shorter than 6 bytes and such as `true` or `100000`, a
/// secret that is printed in pieces, and other encodings.
#[derive(Clone, Default)]
pub struct Mask(Option<Arc<Secrets>>);

struct Secrets {
    /// `None` if there are too many forms to look for: everything is hidden then.
    search: Option<AhoCorasick>,
    forms: Vec<String>,
    /// What any piece of a form begins with, and ends with: to see quickly that a text is cut within none.
    grams: HashSet<[u8; TELLING]>,
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mask")
    }
}

impl Mask {
    /// Makes a mask for secrets; those that tell nothing are left out.
    pub fn new<S: AsRef<str>>(secrets: impl IntoIterator<Item = S>) -> Self {
        let mut forms = Vec::new();
        for secret in secrets {
            forms::of(secret.as_ref(), &mut forms);
        }
        forms.sort_unstable();
        forms.dedup();
        if forms.is_empty() {
            return Self::default();
        }
        let mut search = AhoCorasick::builder();
        // The fast way of looking takes 7 KiB for each byte of a secret, and as much time to make.
        if forms.iter().map(String::len).sum::<usize>() > LONG_FORMS {
            search.kind(Some(AhoCorasickKind::ContiguousNFA));
        }
        let search = search.build(&forms).ok();
        let grams = forms
            .iter()
            .flat_map(|form| form.as_bytes().windows(TELLING));
        let grams = grams.filter_map(|gram| gram.try_into().ok()).collect();
        Self(Some(Arc::new(Secrets {
            search,
            forms,
            grams,
        })))
    }

    /// Returns whether there is nothing to hide.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Returns the text without secrets.
    ///
    /// Where the middle of a text was left out, a piece of a secret at the cut is hidden too.
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let Some(secrets) = &self.0 else {
            return text.into();
        };
        let Some(search) = &secrets.search else {
            return MASK.into();
        };
        let mut found: Vec<Range<usize>> = Vec::new();
        if search.is_match(text) {
            found.extend(search.find_overlapping_iter(text).map(|one| one.range()));
        }
        secrets.pieces(text, &mut found);
        if found.is_empty() {
            return text.into();
        }
        found.sort_unstable_by_key(|one| one.start);
        let mut masked = String::with_capacity(text.len());
        let mut at = 0;
        for one in found {
            if one.start >= at {
                masked.push_str(&text[at..one.start]);
                // Next to each other, they are one.
                if one.start > at || at == 0 {
                    masked.push_str(MASK);
                }
            }
            at = at.max(one.end);
        }
        masked.push_str(&text[at..]);
        masked.into()
    }

    /// Hides secrets in every text of an event.
    pub fn event(&self, event: &mut Event) {
        if self.is_empty() {
            return;
        }
        self.maybe(&mut event.parent);
        match &mut event.kind {
            EventKind::Started {
                session_id,
                model,
                cwd,
                tools: _,
            } => {
                for text in [session_id, model, cwd] {
                    self.maybe(text);
                }
            }
            EventKind::Text { text } | EventKind::Thinking { text } | EventKind::Line { text } => {
                self.string(text);
            }
            EventKind::ToolStart {
                id, name, input, ..
            } => {
                self.string(id);
                self.string(name);
                self.json(input);
            }
            EventKind::ToolEnd {
                id, name, output, ..
            } => {
                for text in [id, name, output] {
                    self.string(text);
                }
            }
            EventKind::Notice { level: _, text } => self.string(text),
            EventKind::TurnEnd { reason, text, .. } => {
                self.string(reason);
                self.string(text);
            }
            EventKind::Resumed => {}
            // The rest is rare, and what a later version adds must not be forgotten here.
            other => self.kind(other),
        }
    }

    /// Hides secrets in what follows from a run.
    pub fn conclusion(&self, conclusion: &mut Conclusion) {
        if self.is_empty() {
            return;
        }
        self.verdict(&mut conclusion.verdict);
        for text in [
            &mut conclusion.model,
            &mut conclusion.session_id,
            &mut conclusion.last_tool,
        ] {
            self.maybe(text);
        }
    }

    fn verdict(&self, verdict: &mut Verdict) {
        match verdict {
            Verdict::Silent | Verdict::Success => {}
            Verdict::Error { class: _, message } => self.string(message),
            Verdict::Report { report } => self.report(report),
        }
    }

    fn report(&self, report: &mut CompletionReport) {
        if let ReportStatus::Other(word) = &mut report.status {
            self.string(word);
        }
        self.string(&mut report.summary);
        for blocker in &mut report.blockers {
            self.string(blocker);
        }
        if let Some(verification) = &mut report.verification {
            self.string(&mut verification.command);
        }
        report.unknown = std::mem::take(&mut report.unknown)
            .into_iter()
            .map(|(mut name, mut value)| {
                self.string(&mut name);
                self.json(&mut value);
                (name, value)
            })
            .collect();
    }

    /// Hides secrets in a text.
    pub fn string(&self, text: &mut String) {
        if let Cow::Owned(masked) = self.text(text) {
            *text = masked;
        }
    }

    fn maybe(&self, text: &mut Option<String>) {
        if let Some(text) = text {
            self.string(text);
        }
    }

    /// Hides secrets in JSON text, which stays JSON.
    fn json(&self, json: &mut String) {
        if let Cow::Owned(masked) = self.text(json) {
            // A number that was one is none any more.
            *json = match serde_json::from_str::<&RawValue>(&masked) {
                Ok(_) => masked,
                Err(_) => Value::from(masked).to_string(),
            };
        }
    }

    fn kind(&self, kind: &mut EventKind) {
        let masked = serde_json::to_value(&*kind).and_then(|mut value| {
            if let Value::Object(fields) = &mut value {
                for (_, value) in fields.iter_mut().filter(|(name, _)| *name != "type") {
                    self.value(value);
                }
            }
            serde_json::from_value(value)
        });
        if let Ok(masked) = masked {
            *kind = masked;
        }
    }

    fn value(&self, value: &mut Value) {
        match value {
            Value::String(text) => self.string(text),
            Value::Array(values) => values.iter_mut().for_each(|value| self.value(value)),
            Value::Object(fields) => fields.values_mut().for_each(|value| self.value(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

impl Secrets {
    /// Finds the pieces of secrets at the places where a text was cut.
    fn pieces(&self, text: &str, found: &mut Vec<Range<usize>>) {
        for (mark, _) in text.match_indices(CUT).take(CUTS) {
            let number = text.ceil_char_boundary(mark.saturating_sub(MARK));
            let Some(head) = text[number..mark].rfind(" … ") else {
                continue;
            };
            found.extend(self.end_of(&text[..number + head]));
            let tail = &text[mark + CUT.len()..];
            let tail = tail.strip_prefix(' ').unwrap_or_default();
            found.extend(self.beginning_of(tail, text.len()));
        }
        if text.len() >= CUT_LENGTH {
            found.extend(self.end_of(text));
        }
    }

    /// Returns where a text ends with the beginning of a secret.
    fn end_of(&self, text: &str) -> Option<Range<usize>> {
        if !self.grams.contains(text.as_bytes().last_chunk()?) {
            return None;
        }
        let longest = self.forms.iter().filter_map(|form| {
            (TELLING..form.len())
                .rev()
                .find(|len| text.as_bytes().ends_with(&form.as_bytes()[..*len]))
        });
        let len = longest.max()?;
        let start = text.floor_char_boundary(text.len() - len);
        Some(start..text.len())
    }

    /// Returns where a text, the end of one of `len` bytes, begins with the end of a secret.
    fn beginning_of(&self, text: &str, len: usize) -> Option<Range<usize>> {
        if !self.grams.contains(text.as_bytes().first_chunk()?) {
            return None;
        }
        let longest = self.forms.iter().filter_map(|form| {
            let bytes = form.as_bytes();
            (TELLING..form.len())
                .rev()
                .find(|part| text.as_bytes().starts_with(&bytes[bytes.len() - part..]))
        });
        let part = text.ceil_char_boundary(longest.max()?);
        let start = len - text.len();
        Some(start..start + part)
    }
}

#[cfg(test)]
mod tests;
