//! Plays a stream, and what must be true of its events.
//!
//! Owns: the checks of numbers, places, sizes and of the conclusion.
//! Reads: events, and the stream that they came from.
//! Never: knows what a line means.

use dark_factory_agents::{Agent, Conclusion, Transcript, agent};
use dark_factory_types::{Event, EventKind, EventStream, Verdict};
use jiff::Timestamp;

/// The most events that one line becomes: the blocks of one message, and what is said of those left out.
const EVENTS: usize = 1025;
/// The longest that the events of one line are on disk, in bytes: the line's budget in escapes, and what is said beside.
const TEXT: usize = 8 << 20;

/// Plays chunks to an agent's transcript.
pub(crate) fn play(name: &str, chunks: &[(EventStream, &[u8])]) -> (Vec<Event>, Conclusion) {
    play_to(Transcript::new(agent_of(name)), chunks)
}

/// Returns the agent of that name.
pub(crate) fn agent_of(name: &str) -> &'static dyn Agent {
    match agent(name) {
        Some(agent) => agent,
        None => panic!("there is no agent {name}"),
    }
}

/// Plays chunks to a transcript.
pub(crate) fn play_to(
    mut transcript: Transcript,
    chunks: &[(EventStream, &[u8])],
) -> (Vec<Event>, Conclusion) {
    let mut events = Vec::new();
    for (stream, chunk) in chunks {
        transcript.feed(*stream, chunk, Timestamp::UNIX_EPOCH, &mut events);
    }
    transcript.finish(Timestamp::UNIX_EPOCH, &mut events);
    (events, transcript.conclusion())
}

/// Plays chunks to a transcript that is saved after `stop` of them, and to one that goes on from there.
pub(crate) fn play_saved(
    name: &str,
    chunks: &[(EventStream, &[u8])],
    stop: usize,
) -> (Vec<Event>, Conclusion) {
    let agent = agent_of(name);
    let (before, after) = chunks.split_at(stop);
    let mut transcript = Transcript::new(agent);
    let mut events = Vec::new();
    for (stream, chunk) in before {
        transcript.feed(*stream, chunk, Timestamp::UNIX_EPOCH, &mut events);
    }
    // A transcript with a long unfinished line cannot be saved yet.
    let second = match transcript.save() {
        Some(saved) => match Transcript::restore(agent, &saved) {
            Ok(second) => second,
            Err(error) => panic!("{error}: {}", String::from_utf8_lossy(&saved)),
        },
        None => transcript,
    };
    let (more, conclusion) = play_to(second, after);
    events.extend(more);
    (events, conclusion)
}

/// Returns the events of one stream, without the numbers that depend on the other.
pub(crate) fn of_stream(events: &[Event], stream: EventStream) -> Vec<Event> {
    let of_it = events.iter().filter(|event| event.stream == stream);
    of_it
        .map(|event| Event {
            seq: 0,
            ..event.clone()
        })
        .collect()
}

/// Checks that events are numbered without gaps.
pub(crate) fn check_numbers(events: &[Event]) {
    for (number, event) in events.iter().enumerate() {
        assert_eq!(Ok(event.seq), u64::try_from(number));
    }
}

/// Checks the events of a whole standard output.
pub(crate) fn check(events: &[Event], data: &[u8]) {
    check_numbers(events);
    for line in events.chunk_by(|one, other| one.offset == other.offset) {
        let [first, ..] = line else { continue };
        assert!(line.len() <= EVENTS, "{} events", line.len());
        let begin = usize::try_from(first.offset).unwrap_or(usize::MAX);
        let end = usize::try_from(first.offset + first.len).unwrap_or(usize::MAX);
        let bytes = data.get(begin..end);
        assert!(
            bytes.is_some_and(|bytes| !bytes.contains(&b'\n')),
            "{first:?}"
        );
        // What only the end of the stream ended is of no line.
        let is_end = first.len == 0 && begin == data.len();
        assert!(
            begin == 0 || is_end || data[begin - 1] == b'\n',
            "{first:?}"
        );
        let ends = &data[end..];
        assert!(
            [&b""[..], b"\r"].contains(&ends)
                || ends.starts_with(b"\n")
                || ends.starts_with(b"\r\n"),
            "{first:?}"
        );
        let text: usize = line.iter().map(text_of).sum();
        assert!(text <= TEXT, "{text} bytes of text");
        assert!(line.iter().all(|event| event.len == first.len));
    }
    for pair in events.windows(2) {
        assert!(pair[0].offset <= pair[1].offset, "{pair:?}");
    }
}

/// Checks one event by what becomes of it on disk, and returns how long it is there.
fn text_of(event: &Event) -> usize {
    if let EventKind::ToolStart { input, .. } = &event.kind {
        let object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(input);
        assert!(object.is_ok(), "{input}");
    }
    let Ok(json) = serde_json::to_string(event) else {
        panic!("{event:?}");
    };
    let back = serde_json::from_str::<Event>(&json);
    assert_eq!(back.ok().as_ref(), Some(event), "{json}");
    json.len()
}

/// Checks what follows from a stream.
pub(crate) fn check_conclusion(conclusion: &Conclusion) {
    if let Verdict::Error { message, .. } = &conclusion.verdict {
        assert!(!message.trim().is_empty(), "{conclusion:?}");
        assert!(message.lines().count() <= 1, "{message:?}");
        assert!(message.len() <= 64 << 10, "{} bytes", message.len());
    }
    let usage = &conclusion.usage;
    assert!(usage.total_tokens() <= 4 << 53, "{usage:?}");
    for cost in [usage.cost_usd, usage.priced_usd].into_iter().flatten() {
        assert!(cost.is_finite(), "{cost}");
    }
    for word in [
        &conclusion.model,
        &conclusion.session_id,
        &conclusion.last_tool,
    ]
    .into_iter()
    .flatten()
    {
        assert!(word.len() <= 4 << 10, "{} bytes", word.len());
    }
}
