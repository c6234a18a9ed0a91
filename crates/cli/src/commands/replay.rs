//! `replay`: shows a recorded agent stream.
//!
//! Owns: whose stream a recording is, where its showing begins and when it ends.
//! Reads: the recording, and what else the folder of a run of ours holds.
//! Never: fails because of what the stream says, or hides a secret in it: only its run knew those.

mod show;
mod times;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dark_factory_agents::{AGENT_NAMES, Agent, Command, agent, detect};
use dark_factory_executor::clock::{Clock, SystemClock};
use dark_factory_types::exit_code;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use self::show::{EventShow, Form, RecordedShow, SeedShow, Show};
use self::times::Pieces;
use super::Format;
use super::follow::SAFETY;
use super::logs::time_ago;
use super::watch::{Watch, open_plain};
use crate::args::{ReplayArgs, View};
use crate::error::CommandError;
use crate::tell;
use crate::terminal::Taken;

/// How much of a recording is read at once, and looked at to know the agent.
const CHUNK: usize = 256 * 1024;
/// Lines that are looked at to know the agent.
const HEAD_LINES: usize = 64;

pub(crate) fn replay(args: &ReplayArgs, format: Format) -> Result<u8, CommandError> {
    let mut recording = Recording::open(args)?;
    let named = args.agent.as_deref().map(named_agent).transpose()?;
    let now = SystemClock.now();
    let start = match &args.since {
        Some(since) => recording.start_of(time_ago(since, now)?, since)?,
        None => 0,
    };
    let head = recording.head()?;
    let mut show: Box<dyn Show> = match (format, args.format) {
        (Format::Text, Some(View::Seed)) => Box::new(SeedShow::new(start)),
        _ => {
            let form = match format {
                Format::Json => Form::Objects,
                Format::Text => Form::lines(),
            };
            if times::is_event(&head) {
                Box::new(RecordedShow::new(form, start, recording.folder()))
            } else {
                let agent = named.or_else(|| recording.agent(&head));
                if agent.is_none() && !head.is_empty() {
                    tell::note(
                        "it looks like no agent's stream; its lines are shown as they are, --agent names one",
                    );
                }
                Box::new(EventShow::new(agent.unwrap_or(&Command), form, start))
            }
        }
    };
    if head.is_empty() {
        tell::note("there is nothing in the recording");
    }
    let mut pieces = Pieces::new(now);
    let mut bytes = head;
    while !bytes.is_empty() {
        pieces.feed(&bytes, |piece, at| show.piece(piece, at));
        if show.flush() == Taken::No {
            return Ok(exit_code::SUCCEEDED);
        }
        bytes.resize(CHUNK, 0);
        let read = recording.read(&mut bytes)?;
        bytes.truncate(read);
    }
    pieces.finish(|piece, at| show.piece(piece, at));
    show.finish(now);
    show.flush();
    Ok(exit_code::SUCCEEDED)
}

fn named_agent(name: &str) -> Result<&'static dyn Agent, CommandError> {
    agent(name).ok_or_else(|| {
        CommandError::usage(format!(
            "there is no agent {name:?}; there are {}",
            AGENT_NAMES.join(", ")
        ))
    })
}

/// A recording that is being read.
struct Recording {
    input: Box<dyn Read>,
    name: String,
    /// The file, if it is one.
    path: Option<PathBuf>,
    /// The folder of the run that it is from, if that is known.
    run: Option<PathBuf>,
    following: Option<Following>,
}

/// Waits for more of a file.
struct Following {
    watch: Watch,
    is_interrupted: Arc<AtomicBool>,
    _listening: JoinSet<()>,
    is_last: bool,
}

impl Recording {
    fn open(args: &ReplayArgs) -> Result<Self, CommandError> {
        let name = args.file.display().to_string();
        if args.file == Path::new("-") {
            return Ok(Self {
                input: Box::new(io::stdin().lock()),
                name,
                path: None,
                run: None,
                following: None,
            });
        }
        let in_folder = args.file.join("raw.jsonl");
        let path = match in_folder.is_file() {
            true => in_folder,
            false => args.file.clone(),
        };
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        let is_ours = matches!(
            path.file_name().and_then(|name| name.to_str()),
            Some("raw.jsonl" | "events.jsonl")
        ) && folder.join("launch.json").is_file();
        let following = match args.follow {
            true => Some(Following::new(&path)?),
            false => None,
        };
        let input = open_plain(&path).map_err(|error| cannot_read(&name, &error))?;
        Ok(Self {
            input: Box::new(input),
            name,
            path: Some(path),
            run: is_ours.then_some(folder),
            following,
        })
    }

    /// Returns where the first line begins that is not older.
    fn start_of(&self, since: jiff::Timestamp, text: &str) -> Result<u64, CommandError> {
        let Some(path) = &self.path else {
            return Err(CommandError::usage(
                "--since looks for its place in a file, and standard input is none",
            )
            .hint("write the recording to a file first"));
        };
        let open = |path: &Path| File::open(path).map_err(|error| cannot_read(&self.name, &error));
        // The events of a run have the times at which their lines were printed.
        let events = self.run.as_ref().map(|run| run.join("events.jsonl"));
        let found = match events.filter(|events| events != path && events.is_file()) {
            Some(events) => times::start_by_events(open(&events)?, since),
            None => times::start_by_lines(open(path)?, since),
        };
        found
            .map_err(|error| cannot_read(&self.name, &error))?
            .ok_or_else(|| {
                CommandError::usage(format!(
                    "--since {text} goes by the times of lines, and {} has none",
                    self.name
                ))
                .hint("the streams of Claude and Gemini have them, and so have the folders of runs")
            })
    }

    /// Returns the folder of the file.
    fn folder(&self) -> Option<&Path> {
        self.path.as_deref().and_then(Path::parent)
    }

    /// Returns the agent, as the run says it or as the stream looks.
    fn agent(&self, head: &[u8]) -> Option<&'static dyn Agent> {
        let launch = self.run.as_ref().map(|run| run.join("launch.json"));
        let launch = launch.and_then(|path| std::fs::read(path).ok());
        let launch: Option<serde_json::Value> =
            launch.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let said = launch.as_ref().and_then(|launch| launch["agent"].as_str());
        said.and_then(agent).or_else(|| detect(head))
    }

    /// Reads the beginning: enough to know the agent, or all that there is.
    fn head(&mut self) -> Result<Vec<u8>, CommandError> {
        let mut head = vec![0; CHUNK];
        let mut filled = 0;
        while filled < CHUNK {
            match self.read(&mut head[filled..])? {
                0 => break,
                read => filled += read,
            }
            let lines = head[..filled].iter().filter(|byte| **byte == b'\n');
            let lines = lines.count();
            if lines > HEAD_LINES || lines > 0 && detect(&head[..filled]).is_some() {
                break;
            }
        }
        head.truncate(filled);
        Ok(head)
    }

    /// Reads what is there, or waits for it; 0 at the end.
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, CommandError> {
        loop {
            match self.input.read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0)
                    if self
                        .following
                        .as_mut()
                        .is_some_and(|more| more.wait(self.run.as_deref())) => {}
                result => return result.map_err(|error| cannot_read(&self.name, &error)),
            }
        }
    }
}

impl Following {
    fn new(path: &Path) -> Result<Self, CommandError> {
        let watch = Watch::new(path);
        let waker = watch.waker();
        let is_interrupted = Arc::<AtomicBool>::default();
        let mut interrupts = signal(SignalKind::interrupt())
            .map_err(|error| CommandError::internal("listen for signals", error))?;
        let flag = Arc::clone(&is_interrupted);
        let mut listening = JoinSet::new();
        listening.spawn(async move {
            interrupts.recv().await;
            flag.store(true, Ordering::Release);
            waker.wake();
        });
        Ok(Self {
            watch,
            _listening: listening,
            is_interrupted,
            is_last: false,
        })
    }

    /// Waits until there may be more; `false` once the run has ended or nobody wants more. Blocks.
    fn wait(&mut self, run: Option<&Path>) -> bool {
        if self.is_interrupted.load(Ordering::Acquire) || self.is_last {
            return false;
        }
        // What was written before the report was is read once more.
        self.is_last = run.is_some_and(|run| run.join("report.json").exists());
        if !self.is_last {
            self.watch.wait(SAFETY);
        }
        true
    }
}

fn cannot_read(name: &str, error: &io::Error) -> CommandError {
    CommandError::usage(format!("{name} cannot be read: {error}"))
}
