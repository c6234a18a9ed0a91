//! What must be true where secrets are hidden.
//!
//! Owns: the checks that a secret is nowhere, and that nothing else changes.
//! Reads: a secret, and a stream that may have it.
//! Never: knows how secrets are found.

use dark_factory_agents::{Mask, Transcript};
use dark_factory_types::{Event, EventStream};
use serde_json::Value;

use super::events::{agent_of, play, play_to};

/// Fields whose values are the format's own words, or times.
const WORDS: [&str; 6] = ["type", "class", "level", "op", "state", "resets_at"];

/// Plays a stream, and a line with the secret in it, with the secret hidden.
pub(crate) fn check(agent: &str, secret: &str, stream: &[u8]) {
    let mask = Mask::new([secret]);
    // What stands in its place may itself look like a part of it.
    if mask.is_empty() || secret.contains('*') {
        return;
    }
    let text = format!("a{secret}b");
    assert!(!mask.text(&text).contains(secret), "{secret:?} in {text:?}");

    let chunks = [
        (EventStream::Stdout, stream),
        (EventStream::Stderr, text.as_bytes()),
        (EventStream::Stderr, stream),
    ];
    let (events, _) = play(agent, &chunks);
    let masked = Transcript::new(agent_of(agent)).with_mask(mask);
    let (masked, conclusion) = play_to(masked, &chunks);
    let place = |event: &Event| (event.seq, event.stream, event.offset, event.len);
    assert!(events.iter().map(place).eq(masked.iter().map(place)));
    for event in &masked {
        let kind = serde_json::to_value(&event.kind).unwrap_or_default();
        each_text(&kind, &mut |text| {
            assert!(!text.contains(secret), "{secret:?} is in {event:?}");
        });
    }
    let conclusion = serde_json::to_value(&conclusion).unwrap_or_default();
    each_text(&conclusion, &mut |text| {
        assert!(!text.contains(secret), "{secret:?} is in {conclusion}");
    });
}

/// Hands over each text that an agent may have written; keys and the words of the format are not.
fn each_text(value: &Value, sink: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => sink(text),
        Value::Array(values) => values.iter().for_each(|value| each_text(value, sink)),
        Value::Object(entries) => {
            for (key, value) in entries {
                if !WORDS.contains(&key.as_str()) {
                    each_text(value, sink);
                }
            }
        }
        _ => {}
    }
}
