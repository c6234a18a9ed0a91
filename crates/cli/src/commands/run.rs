//! `run`: prompt files to outcomes.
//!
//! Owns: the order of the files, what is printed about each, and the exit code of all.
//! Reads: prompt files, flags.
//! Never: starts anything before every file was read and resolved.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dark_factory_agents::neutralise;
use dark_factory_executor::attempt::Control;
use dark_factory_executor::daemon::Ask;
use dark_factory_executor::engine::{Capabilities, EngineError};
use dark_factory_executor::error::ExecutorError;
use dark_factory_executor::prompt::Prompt;
use dark_factory_executor::resolve::{RUN_JOBS, ResolveContext, Resolved, resolve_layers};
use dark_factory_executor::settings::{Layer, OnInterrupt, Settings};
use dark_factory_executor::sink::Sink;
use dark_factory_executor::spec::{Disposal, LaunchSpec, OUR_IMAGES};
use dark_factory_executor::supervisor::{Retry, Submitted, Supervisor};
use dark_factory_types::{AttemptId, NetworkMode, Report, RunId, exit_code};
use serde_json::json;
use tokio::sync::{RwLock, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::show::{self, Detail};
use super::{Format, left_open, prompt_file};
use crate::args::{RunArgs, View};
use crate::config;
use crate::context::Context;
use crate::detach::{self, Starting};
use crate::error::CommandError;
use crate::flags::{settings, tool};
use crate::interrupt::{Interrupts, Reaction};
use crate::live::Live;
use crate::tell::{self, Subject};
use crate::terminal::{self, Lines, TerminalSink};

/// How long a run that is let go of may take to be recorded: longer than the store waits for its turn.
const RECORDING: Duration = Duration::from_secs(20);

/// A prompt that is ready to run.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) name: String,
    pub(crate) launch: Launch,
}

/// What a job launches.
#[derive(Debug)]
pub(crate) enum Launch {
    New(Resolved),
    Again(Retry),
}

impl Launch {
    pub(crate) fn resolved(&self) -> &Resolved {
        match self {
            Self::New(resolved) => resolved,
            Self::Again(retry) => &retry.resolved,
        }
    }

    fn resolved_mut(&mut self) -> &mut Resolved {
        match self {
            Self::New(resolved) => resolved,
            Self::Again(retry) => &mut retry.resolved,
        }
    }

    fn spec(&self) -> &LaunchSpec {
        &self.resolved().spec
    }

    async fn submit(&self, supervisor: &Supervisor) -> Result<Submitted, ExecutorError> {
        match self {
            Self::New(resolved) => supervisor.submit(resolved).await,
            Self::Again(retry) => supervisor.submit_retry(retry).await,
        }
    }

    async fn queue(&self, supervisor: &Supervisor) -> Result<AttemptId, ExecutorError> {
        match self {
            Self::New(resolved) => supervisor.queue(resolved).await,
            Self::Again(retry) => supervisor.queue_retry(retry).await,
        }
    }
}

/// How jobs are carried out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) at_once: u16,
    pub(crate) events: Events,
    pub(crate) on_interrupt: OnInterrupt,
    pub(crate) format: Format,
    pub(crate) lines: Lines,
}

/// What is printed about a run.
#[derive(Debug, Clone)]
pub(crate) struct Show {
    pub(crate) format: Format,
    pub(crate) events: Events,
    pub(crate) lines: Lines,
    /// The status lines, if there is a terminal for them.
    pub(crate) live: Option<Live>,
}

/// Whether the agent's words are shown, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Events {
    Hidden,
    Shown,
    ShownWithName,
}

/// How one run ended, for the caller of [`run_jobs`].
#[derive(Debug)]
pub(crate) enum Ended {
    Report(Box<Report>),
    Failed(u8),
    /// Never begun, because an earlier one was cancelled or the engine is gone.
    Skipped,
}

/// The runs of one command, as they are begun and end.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    tasks: JoinSet<(usize, Ended)>,
    begun: Begun,
}

/// Which of the files have a run: those that fail to begin have none, and several may be begun at the same time.
#[derive(Debug, Clone, Default)]
struct Begun {
    runs: Arc<Mutex<Vec<(usize, RunId)>>>,
    /// Read by whoever records a run: what is let go of meanwhile would be recorded all the same.
    recording: Arc<RwLock<()>>,
}

impl Begun {
    /// Records the run of a file.
    async fn record(
        &self,
        index: usize,
        submit: impl Future<Output = Result<Submitted, ExecutorError>>,
    ) -> Result<Submitted, ExecutorError> {
        let _recording = self.recording.read().await;
        let submitted = submit.await?;
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.push((index, submitted.id().run()));
        Ok(submitted)
    }
}

impl Batch {
    /// Lets go of all runs, and begins no more; returns those that were begun, each with the place of its file.
    async fn let_go(mut self) -> Vec<(usize, RunId)> {
        let _recording = timeout(RECORDING, self.begun.recording.write()).await;
        self.tasks.shutdown().await;
        let mut runs = self
            .begun
            .runs
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *runs)
    }
}

pub(crate) async fn run(
    context: &Context,
    args: &RunArgs,
    format: Format,
) -> Result<u8, CommandError> {
    let flags = tool(args)?;
    let jobs = prepare(context, args)?;
    let roots = jobs.iter().map(|job| &job.launch.spec().workspace.source);
    let tool = flags.over(config::tool(context, roots)?);
    let at_once = tool.jobs.map_or(RUN_JOBS, |jobs| jobs.value);
    let supervisor = Arc::new(context.supervisor()?);
    if args.detach {
        return queue(context, &supervisor, jobs, format).await;
    }
    let events = match (args.quiet, at_once) {
        (true, _) => Events::Hidden,
        (false, 1) => Events::Shown,
        (false, _) => Events::ShownWithName,
    };
    let manner = Manner {
        at_once,
        events,
        on_interrupt: tool
            .on_interrupt
            .map_or_else(OnInterrupt::default, |what| what.value),
        format,
        lines: match args.format {
            Some(View::Seed) => Lines::OfSeed,
            Some(View::Text | View::Json) | None => Lines::Ours,
        },
    };
    carry_out(context, &supervisor, jobs, manner).await
}

/// Runs jobs in the foreground, and returns the exit code of all.
pub(crate) async fn carry_out(
    context: &Context,
    supervisor: &Arc<Supervisor>,
    mut jobs: Vec<Job>,
    manner: Manner,
) -> Result<u8, CommandError> {
    let Manner {
        at_once,
        events,
        on_interrupt,
        format,
        lines,
    } = manner;
    fit(context, &mut jobs, &supervisor.check().await?)?;
    check_images(context, &jobs).await?;
    let control = supervisor.control("Ctrl-C");
    let interrupts = Interrupts::listen(match on_interrupt {
        OnInterrupt::Stop => Reaction::Stop(control.clone()),
        OnInterrupt::Detach => Reaction::Detach,
    })?;
    let names: Vec<String> = jobs.iter().map(|job| job.name.clone()).collect();
    let mut batch = Batch::default();
    let live = match events {
        Events::Hidden => None,
        Events::Shown | Events::ShownWithName => Live::start(),
    };
    let show = Show {
        format,
        events,
        lines,
        live,
    };
    let ended = tokio::select! {
        ended = run_jobs(supervisor, jobs, at_once, &control, show, &mut batch) => ended?,
        () = interrupts.detached() => return let_go(context, supervisor, batch, &names).await,
    };
    Ok(exit_code::combine(ended.iter().map(|ended| match ended {
        Ended::Report(report) => report.outcome.exit_code(),
        Ended::Failed(code) => *code,
        // If the engine is gone instead, the run that found it so says more, and its code counts.
        Ended::Skipped => exit_code::CANCELLED,
    })))
}

/// Refuses runs that ask for what the engine cannot do, all of them, and leaves out defaults that it does not keep.
pub(crate) fn fit(
    context: &Context,
    jobs: &mut [Job],
    capabilities: &Capabilities,
) -> Result<(), CommandError> {
    let mut errors: Vec<CommandError> = Vec::new();
    for job in jobs {
        match job.launch.resolved_mut().fit(capabilities) {
            Ok(warnings) => warnings
                .iter()
                .filter(|warning| context.is_news(warning))
                .for_each(|warning| tell::warning(warning)),
            Err(error) => errors.push(error.into()),
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(CommandError::all(errors))
}

/// Refuses runs whose image nobody can pull and nobody has made, before the first is begun.
async fn check_images(context: &Context, jobs: &[Job]) -> Result<(), CommandError> {
    #[cfg(target_os = "linux")]
    if let Some(images) = context.sandbox_images()? {
        if !context.names_engine() {
            tell::progress(
                "no container engine is where Docker and Podman usually are: the embedded sandbox is used; \
                 --engine or --host names another",
            );
        }
        for job in jobs {
            let image = &job.launch.spec().image;
            if let Some(name) = image.strip_prefix(OUR_IMAGES)
                && !images.has_image(image)?
            {
                let agent = name.split([':', '@']).next().unwrap_or_default();
                let engine = if context.names_engine() {
                    " --engine sandbox"
                } else {
                    ""
                };
                let message = format!("{}: the sandbox has no image {image}", job.name);
                let hint = format!(
                    "`dark-factory image build {agent}{engine}` makes it; --image IMAGE names another"
                );
                return Err(CommandError::new(exit_code::ENGINE, message).hint(hint));
            }
        }
        return Ok(());
    }
    let images = context.images()?;
    for job in jobs {
        let image = &job.launch.spec().image;
        if image.starts_with(OUR_IMAGES) && !images.has_image(image).await? {
            let missing = EngineError::ImageMissing {
                image: image.clone(),
            };
            let message = format!("{}: image {image} is not on the engine", job.name);
            let error = CommandError::new(exit_code::ENGINE, message);
            return Err(match missing.advice() {
                Some(advice) => error.hint(advice),
                None => error,
            });
        }
    }
    Ok(())
}

/// Records runs durably for a daemon, and makes sure that there is one.
pub(crate) async fn queue(
    context: &Context,
    supervisor: &Supervisor,
    mut jobs: Vec<Job>,
    format: Format,
) -> Result<u8, CommandError> {
    // One that cannot be asked is said below, once the runs are safe.
    if let Ok(Some(daemon)) = detach::ask_daemon(&context.state_dir, Ask::Status).await {
        detach::check_engine(context, &daemon).await?;
    }
    match supervisor.probe().await {
        // The daemon waits for it.
        Err(ExecutorError::Engine(error @ EngineError::Unreachable { .. })) => {
            tell::warning(&error.sentence());
        }
        probed => {
            let capabilities = probed?;
            fit(context, &mut jobs, &capabilities)?;
            detach::tell_of_restarts(capabilities.on_restart);
            check_images(context, &jobs).await?;
        }
    }
    let mut codes = Vec::new();
    let mut runs = Vec::new();
    for job in &jobs {
        let attempt = match job.launch.queue(supervisor).await {
            Ok(attempt) => attempt,
            Err(error) => {
                let error = CommandError::from(error);
                error.print();
                codes.push(error.code());
                continue;
            }
        };
        let run = attempt.run();
        match format {
            Format::Json => terminal::print_json(&json!({
                "run_id": run,
                "file": job.launch.spec().file,
                "state": "queued",
                "dir": supervisor.state_dir().attempt(attempt).path(),
            })),
            Format::Text => terminal::print(&format!("{run}\n")),
        }
        runs.push(run);
    }
    if !runs.is_empty()
        && let Err(error) = detach::ensure_daemon(context).await
    {
        error.print();
        for run in &runs {
            tell::progress(&format!(
                "run {run} stays queued: `dark-factory daemon start`, or `dark-factory wait {run}`, goes on with it"
            ));
        }
        codes.push(error.code());
    }
    Ok(exit_code::combine(codes))
}

/// Lets go of the runs that were begun, which go on in a daemon; the other files are not begun.
async fn let_go(
    context: &Context,
    supervisor: &Supervisor,
    batch: Batch,
    names: &[String],
) -> Result<u8, CommandError> {
    let (files, runs): (Vec<usize>, Vec<RunId>) = batch.let_go().await.into_iter().unzip();
    let code = detach::leave(context, supervisor, &runs, Starting::IfNone).await?;
    let rest: Vec<&str> = names
        .iter()
        .enumerate()
        .filter(|(index, _)| !files.contains(index))
        .map(|(_, name)| name.as_str())
        .collect();
    if !rest.is_empty() {
        tell::progress(&format!("not begun: {}", rest.join(", ")));
    }
    Ok(code)
}

/// Reads and resolves every file; all that is wrong is printed, not only the first.
pub(crate) fn prepare(context: &Context, args: &RunArgs) -> Result<Vec<Job>, CommandError> {
    let flags = settings(args)?;
    let resolve_context = context.launch_context(context.state_dir.clone());
    let disposal = if args.keep {
        Disposal::Keep
    } else {
        Disposal::Remove
    };
    let from_stdin = args.files.iter().filter(|file| prompt_file::is_stdin(file));
    if from_stdin.count() > 1 {
        return Err(CommandError::usage("- is given twice")
            .hint("standard input is one prompt; write the others into files"));
    }
    let mut jobs = Vec::new();
    let mut errors = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    for file in &args.files {
        match prepare_one(context, file, &flags, &resolve_context, disposal) {
            Ok(job) if seen.contains(&job.launch.spec().file) => {
                errors.push(
                    CommandError::usage(format!("{} is given twice", file.display()))
                        .hint("one run of a file at a time; copy it to run it twice"),
                );
            }
            Ok(job) => {
                seen.push(job.launch.spec().file.clone());
                jobs.push(job);
            }
            Err(several) => errors.extend(several),
        }
    }
    // What is wrong with configuration is wrong for every file.
    errors.retain(|error| context.is_news(&error.text()));
    let Some(last) = errors.pop() else {
        return Ok(jobs);
    };
    for error in &errors {
        error.print();
    }
    Err(last)
}

/// Reads and resolves one file.
pub(crate) fn prepare_one(
    context: &Context,
    file: &Path,
    flags: &Settings,
    resolve_context: &ResolveContext,
    disposal: Disposal,
) -> Result<Job, Vec<CommandError>> {
    let (name, bytes) = prompt_file::read(context, file).map_err(|error| vec![error])?;
    let prompt = Prompt::parse(&name, &bytes).map_err(CommandError::of_prompt)?;
    let flags = Layer {
        run: flags.clone(),
        ..Layer::default()
    };
    let stack = config::stack(context, Some(&prompt), &flags).map_err(|error| vec![error])?;
    let layers = stack.layers();
    let layers: Vec<&Settings> = layers.iter().collect();
    let mut resolved = resolve_layers(&prompt, &layers, &context.host, resolve_context)
        .map_err(|error| vec![error.into()])?;
    resolved.spec.disposal = disposal;
    for warning in &resolved.warnings {
        // Those about a place of the file are shown with it.
        let placed = prompt.warnings.iter();
        match placed.clone().find(|placed| placed.to_string() == *warning) {
            Some(placed) => tell::warning_in_file(placed),
            // What is so for every file is said once.
            None if context.is_news(warning) => tell::warning(warning),
            None => {}
        }
    }
    for notice in &resolved.notices {
        tell::note(notice);
    }
    Ok(Job {
        name,
        launch: Launch::New(resolved),
    })
}

/// Runs jobs, at most `at_once` at the same time, and prints each one's end as it comes.
pub(crate) async fn run_jobs(
    supervisor: &Arc<Supervisor>,
    jobs: Vec<Job>,
    at_once: u16,
    control: &Control,
    show: Show,
    batch: &mut Batch,
) -> Result<Vec<Ended>, CommandError> {
    let slots = Arc::new(Semaphore::new(usize::from(at_once)));
    let Batch { tasks, begun } = batch;
    let mut ended: Vec<Ended> = jobs.iter().map(|_| Ended::Skipped).collect();
    for (index, job) in jobs.into_iter().enumerate() {
        // Fair: permits are given in the order of the files.
        let slot = Arc::clone(&slots).acquire_owned().await;
        while let Some(done) = tasks.try_join_next() {
            take(&mut ended, done)?;
        }
        let gave_up = ended
            .iter()
            .any(|ended| matches!(ended, Ended::Failed(exit_code::ENGINE)));
        if control.is_cancelled() || gave_up {
            break;
        }
        let (supervisor, control) = (Arc::clone(supervisor), control.clone());
        let (begun, show) = (begun.clone(), show.clone());
        tasks.spawn(async move {
            let begin = begun.record(index, job.launch.submit(&supervisor));
            let ended = match Box::pin(begin).await {
                Ok(submitted) => run_one(&supervisor, &job, submitted, &control, show).await,
                Err(error) => failed(error),
            };
            drop(slot);
            (index, ended)
        });
        if at_once == 1
            && let Some(done) = tasks.join_next().await
        {
            take(&mut ended, done)?;
        }
    }
    while let Some(done) = tasks.join_next().await {
        take(&mut ended, done)?;
    }
    Ok(ended)
}

fn take(
    ended: &mut [Ended],
    done: Result<(usize, Ended), tokio::task::JoinError>,
) -> Result<(), CommandError> {
    let (index, end) = done.map_err(|error| CommandError::internal("run a prompt", error))?;
    ended[index] = end;
    Ok(())
}

async fn run_one(
    supervisor: &Supervisor,
    job: &Job,
    submitted: Submitted,
    control: &Control,
    show: Show,
) -> Ended {
    let dir: PathBuf = submitted.dir().path().to_owned();
    let run = submitted.id().run();
    let attempt = match submitted.id().number() {
        1 => String::new(),
        number => format!(", attempt {number}"),
    };
    let prefix = match show.events {
        Events::ShownWithName => format!("[{}] ", neutralise(&job.name)),
        Events::Hidden | Events::Shown => String::new(),
    };
    let subject = Subject {
        prefix: prefix.clone(),
        run: Some(run),
    };
    let spec = job.launch.spec();
    let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
    let mut detail = Detail::Needed;
    if show.events != Events::Hidden {
        let line = show.live.as_ref();
        let line = line.map(|live| Arc::new(live.line(&job.name, &spec.image)));
        let network = match &spec.network {
            NetworkMode::None => "no network".to_owned(),
            NetworkMode::Open => "open network".to_owned(),
            NetworkMode::Allow(rules) => match rules.len() {
                0 if spec.providers.is_empty() => "no network".to_owned(),
                0 => "only its API".to_owned(),
                1 => format!("only {}", rules[0]),
                hosts => format!("only {hosts} hosts"),
            },
        };
        let text = format!(
            "run {run}{attempt}: {} with {} in {} ({network}, {})",
            job.name,
            spec.agent,
            spec.image,
            supervisor.engine().name(),
        );
        tell::about(&subject, &text);
        let sink = TerminalSink::start(show.format, show.lines, subject.clone(), line.clone());
        sinks.push(Box::new(sink));
        detail = Detail::All {
            image: spec.image.clone(),
            line,
        };
    }
    let progress = show::progress(subject, detail);
    let report = supervisor.run(submitted, sinks, control, &progress).await;
    // The status line goes before the last words come.
    drop(progress);
    let report = match report {
        Ok(report) => report,
        Err(error) => return Ended::Failed(left_open(run, &error)),
    };
    show::ended(&job.name, &prefix, &report, &dir, show.format).await;
    Ended::Report(Box::new(report))
}

fn failed(error: ExecutorError) -> Ended {
    let error = CommandError::from(error);
    error.print();
    Ended::Failed(error.code())
}
