//! Who ended a container, and whether memory ran out: the engine's state together with what it remembers.
//!
//! Owns: the questions about an end, and what their answers mean.
//! Reads: an ended container's state; the engine's last events and its settings.
//! Never: holds up or fails a wait for long: an engine that does not say leaves the cause unknown.
//!
//! An engine remembers its last 256 events, and nothing across its own restart. So an event proves something, and a
//! missing one proves nothing by itself. There is no standing subscription: an engine that shuts down sends the same
//! `kill` events as somebody's `docker stop` to whoever listens, but takes no new connection while it does. What one
//! question after the end is answered with is therefore never that.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::models::{ContainerState, EventMessage};
use bollard::query_parameters::EventsOptionsBuilder;
use dark_factory_executor::engine::{EndedBy, EngineError, EngineExit, OomSeen};
use dark_factory_spool::KILL_EVERYTHING_SIGNAL;
use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use tokio::time::timeout;

use super::client::{Client, EVENTS, INFO};
use super::dialect::Memory;

/// How long the engine may be silent before it has told all that it remembers of a container whose end it forgot.
const SILENCE: Duration = Duration::from_millis(500);
/// Since when an engine is asked for what it remembers: a container is started once, so all of it is about one run.
const EVER: &str = "1";
/// Events that an engine may remember at most before some may have been forgotten: it keeps 256, and more may come
/// while we ask.
const MEMORY: usize = 200;
/// How long before the end a signal may have been asked for that the process handled by leaving.
const LEAVING: Duration = Duration::from_secs(60);
/// Signals that ask a process to leave, and the helper's own.
const LEAVE: [i32; 6] = [
    SIGHUP,
    SIGINT,
    SIGQUIT,
    SIGKILL,
    SIGTERM,
    KILL_EVERYTHING_SIGNAL,
];

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGQUIT: i32 = 3;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
/// The code that an engine gives to what it left running and does not find again.
const LOST: i64 = 255;
/// Whether whoever asks has seen the container run, and has waited for its end ever since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Witness {
    /// It has: the end, whenever the engine says that it was, came while it was waiting.
    Present,
    /// It has not: the container may have ended long ago.
    Absent,
}

/// Something that happened to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Started,
    OutOfMemory,
    /// The engine was asked to send a signal, at this time of its clock, in nanoseconds.
    Signalled {
        signal: i32,
        at: i64,
    },
    /// It ended, at this time of the engine's clock, in nanoseconds.
    Died {
        at: i64,
    },
}

/// What an engine remembers of a container that has ended, since its start, in order; `None` if that is no evidence.
#[derive(Debug)]
pub(super) struct Remembered(Result<Option<Vec<Event>>, EngineError>);

/// Returns how a container with this state ended, and why, as far as the engine tells.
pub(super) async fn exit(
    client: &Client,
    id: &str,
    state: &ContainerState,
    remembered: Remembered,
    witness: Witness,
) -> EngineExit {
    let code = state.exit_code.unwrap_or_default();
    let (events, ended_by) = match why(client, id, code, remembered, witness).await {
        Ok(known) => known,
        Err(error) => {
            tracing::debug!(container = id, %error, "the engine does not say why the container ended");
            (Vec::new(), EndedBy::Unknown)
        }
    };
    // The engine's flag misses some kills, as its event does; whichever has it is right.
    let oom = state.oom_killed == Some(true) || events.contains(&Event::OutOfMemory);
    EngineExit {
        code,
        oom_killed: if oom { OomSeen::Yes } else { OomSeen::No },
        error: state.error.clone().filter(|error| !error.is_empty()),
        ended_by,
    }
}

async fn why(
    client: &Client,
    id: &str,
    code: i64,
    Remembered(events): Remembered,
    witness: Witness,
) -> Result<(Vec<Event>, EndedBy), EngineError> {
    let Some(events) = events? else {
        return Ok((Vec::new(), EndedBy::Unknown));
    };
    let is_same_engine = events.contains(&Event::Started);
    if !is_same_engine
        && engine_down(code, &events, witness) == EndedBy::EngineDown
        && let Some(events) = since_restart(client, id).await?
    {
        let ended_by = engine_down(code, &events, witness);
        return Ok((events, ended_by));
    }
    let ended_by = request(code, &events);
    Ok((events, ended_by))
}

/// Asks an engine what it remembers of a container that has ended.
///
/// The container's end is the last of it: an engine that answered that a container has ended has noted that, and
/// notes a signal before the end that it led to. So there is no waiting for events that may be on their way.
pub(super) async fn remembered(client: &Client, id: &str) -> Remembered {
    Remembered(match client.dialect().memory() {
        Memory::OfNothing => Ok(None),
        Memory::OfCauses => events(client, id).await.map(Some),
    })
}

async fn events(client: &Client, id: &str) -> Result<Vec<Event>, EngineError> {
    let docker = client.docker().await?;
    let filters = HashMap::from([
        ("type".to_owned(), vec!["container".to_owned()]),
        ("container".to_owned(), vec![id.to_owned()]),
    ]);
    let options = EventsOptionsBuilder::default()
        .since(EVER)
        .filters(&filters)
        .build();
    let mut stream = docker.events(Some(options));
    let mut events = Vec::new();
    let reading = async {
        // Without an end in its memory, the engine goes on with what is yet to happen: nothing.
        while let Ok(Some(next)) = timeout(SILENCE, stream.next()).await {
            let event = event(&next?);
            events.extend(event);
            if matches!(event, Some(Event::Died { .. })) {
                break;
            }
        }
        Ok(())
    };
    client
        .call(EVENTS, reading)
        .await
        .map_err(EngineError::from)?;
    Ok(events)
}

fn event(message: &EventMessage) -> Option<Event> {
    let at = message.time_nano.unwrap_or_default();
    match message.action.as_deref()? {
        "start" => Some(Event::Started),
        "oom" => Some(Event::OutOfMemory),
        "die" => Some(Event::Died { at }),
        "kill" => {
            let attributes = message.actor.as_ref()?.attributes.as_ref()?;
            let signal = attributes.get("signal")?.parse().ok()?;
            Some(Event::Signalled { signal, at })
        }
        _ => None,
    }
}

/// Returns what an engine remembers of a container that it did not start, but found when it came up.
///
/// `None` if it may be the one that started it, or if its containers outlive it.
async fn since_restart(client: &Client, id: &str) -> Result<Option<Vec<Event>>, EngineError> {
    let docker = client.docker().await?;
    let info = client.call(INFO, docker.info()).await?;
    let now = info.system_time.as_deref().and_then(|at| at.parse().ok());
    let (Some(false), Some(now)) = (info.live_restore_enabled, now) else {
        return Ok(None);
    };
    let memory = client.call(EVENTS, memory(docker, now)).await?;
    // One that remembers little has forgotten nothing: it was not there when the container started.
    if memory.len() >= MEMORY {
        return Ok(None);
    }
    let is_of = |message: &&EventMessage| {
        let actor = message.actor.as_ref();
        actor.and_then(|actor| actor.id.as_deref()) == Some(id)
    };
    let events: Vec<Event> = memory.iter().filter(is_of).filter_map(event).collect();
    Ok((!events.contains(&Event::Started)).then_some(events))
}

/// Returns all that the engine remembers.
async fn memory(
    docker: &Docker,
    now: Timestamp,
) -> Result<Vec<EventMessage>, bollard::errors::Error> {
    let options = EventsOptionsBuilder::default()
        .since(EVER)
        .until(&seconds(now))
        .build();
    docker.events(Some(options)).try_collect().await
}

/// Returns a time as the engine's queries take it.
fn seconds(at: Timestamp) -> String {
    format!("{}.{:09}", at.as_second(), at.subsec_nanosecond())
}

/// Returns which request ended a container, if one did.
fn request(code: i64, events: &[Event]) -> EndedBy {
    let died = events.iter().find_map(|event| match event {
        Event::Died { at } => Some(*at),
        _ => None,
    });
    let requests = events.iter().rev().filter_map(|event| match event {
        Event::Signalled { signal, at } => Some((*signal, *at)),
        _ => None,
    });
    // What it died of was asked for; or it was asked to leave, and left. Other signals, and those that it outlived
    // for long, are no cause.
    let deadly = requests
        .clone()
        .find(|(signal, _)| code == 128 + i64::from(*signal));
    let polite = || {
        let mut requests = requests.clone();
        requests.find(|(signal, at)| LEAVE.contains(signal) && is_shortly_before(*at, died))
    };
    match deadly.or_else(polite) {
        Some((signal, _)) => EndedBy::Request { signal },
        None => EndedBy::Unknown,
    }
}

fn is_shortly_before(at: i64, died: Option<i64>) -> bool {
    died.is_some_and(|died| {
        u64::try_from(died.saturating_sub(at))
            .is_ok_and(|nanos| Duration::from_nanos(nanos) <= LEAVING)
    })
}

/// Returns whether the engine's own going down ended a container, asked of the engine that came after it.
///
/// An engine that comes back after a crash signals the containers that it finds running, and remembers that and their
/// ends; of one that ended meanwhile it remembers nothing. One that shuts down ends them first, and then no end is remembered
/// either: only whoever was waiting knows that nothing else ended it before, and only the code tells that from a
/// process that ended just then by itself.
fn engine_down(code: i64, events: &[Event], witness: Witness) -> EndedBy {
    let died = events
        .iter()
        .any(|event| matches!(event, Event::Died { .. }));
    let signalled = events
        .iter()
        .any(|event| matches!(event, Event::Signalled { .. }));
    let is_killed = [SIGTERM, SIGKILL]
        .map(|signal| 128 + i64::from(signal))
        .contains(&code);
    if (died && signalled) || ((is_killed || code == LOST) && witness == Witness::Present) {
        EndedBy::EngineDown
    } else {
        EndedBy::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn signalled(signal: i32, second: i64) -> Event {
        Event::Signalled {
            signal,
            at: second * SECOND,
        }
    }

    fn died(second: i64) -> Event {
        Event::Died {
            at: second * SECOND,
        }
    }

    #[test]
    fn a_request_is_the_cause_if_the_container_died_of_it_or_left_soon_after() {
        let request_of = |signal| EndedBy::Request { signal };
        let stop = [signalled(15, 100), signalled(9, 110), died(111)];
        for (what, code, events, expected) in [
            (
                "killed",
                137,
                &[signalled(9, 5), died(5)][..],
                request_of(9),
            ),
            (
                "terminated",
                143,
                &[signalled(15, 5), died(5)],
                request_of(15),
            ),
            ("stopped, and killed for it", 137, &stop, request_of(9)),
            (
                "left when it was told to",
                7,
                &[signalled(15, 5), died(9)],
                request_of(15),
            ),
            (
                "the helper's word",
                137,
                &[signalled(15, 5), signalled(35, 9), died(9)],
                request_of(35),
            ),
            (
                "a signal that kills whoever does not know it",
                138,
                &[signalled(10, 5), died(5)],
                request_of(10),
            ),
            (
                "killed by nobody that the engine knows",
                137,
                &[died(5)],
                EndedBy::Unknown,
            ),
            ("woken", 1, &[signalled(10, 5), died(6)], EndedBy::Unknown),
            (
                "ignored for an hour",
                1,
                &[signalled(15, 5), died(3605)],
                EndedBy::Unknown,
            ),
            ("by itself", 0, &[Event::Started, died(5)], EndedBy::Unknown),
            ("nothing is known", 143, &[], EndedBy::Unknown),
        ] {
            assert_eq!(request(code, events), expected, "{what}");
        }
    }

    #[test]
    fn an_engine_that_came_back_ended_what_it_saw_die_or_what_died_of_a_signal_while_we_waited() {
        use Witness::{Absent, Present};
        let restored = [signalled(15, 5), signalled(9, 15), died(15)];
        for (what, code, events, witness, expected) in [
            (
                "crash, we came later",
                137,
                &restored[..],
                Absent,
                EndedBy::EngineDown,
            ),
            (
                "crash, left when told to",
                7,
                &[signalled(15, 5), died(5)],
                Absent,
                EndedBy::EngineDown,
            ),
            (
                "crash, ended by itself meanwhile",
                5,
                &[],
                Present,
                EndedBy::Unknown,
            ),
            (
                "ended by itself, and the start is forgotten",
                1,
                &[died(5)],
                Present,
                EndedBy::Unknown,
            ),
            ("shutdown", 143, &[], Present, EndedBy::EngineDown),
            ("shutdown, killed", 137, &[], Present, EndedBy::EngineDown),
            (
                "shutdown, left when told to",
                7,
                &[],
                Present,
                EndedBy::Unknown,
            ),
            (
                "shutdown, or a stop long before it",
                143,
                &[],
                Absent,
                EndedBy::Unknown,
            ),
        ] {
            assert_eq!(engine_down(code, events, witness), expected, "{what}");
        }
    }

    #[test]
    fn times_keep_their_nanoseconds() {
        let at: Timestamp = "2026-11-24T21:08:18.000095545Z".parse().unwrap();

        assert_eq!(seconds(at), "1795554498.000095545");
    }

    #[test]
    fn an_event_that_does_not_concern_an_end_is_passed_over() {
        let message = |action: &str, signal: Option<&str>| EventMessage {
            action: Some(action.to_owned()),
            time_nano: Some(7),
            actor: signal.map(|signal| bollard::models::EventActor {
                attributes: Some(HashMap::from([("signal".to_owned(), signal.to_owned())])),
                ..Default::default()
            }),
            ..EventMessage::default()
        };

        assert_eq!(
            event(&message("kill", Some("15"))),
            Some(Event::Signalled { signal: 15, at: 7 })
        );
        assert_eq!(event(&message("die", None)), Some(Event::Died { at: 7 }));
        for (action, signal) in [
            ("kill", None),
            ("kill", Some("TERM")),
            ("exec_start: sh", None),
            ("pause", None),
        ] {
            assert_eq!(event(&message(action, signal)), None, "{action}");
        }
    }
}
