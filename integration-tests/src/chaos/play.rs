//! Plays one schedule with real processes on a real engine.
//!
//! Owns: the stage: an installation, a project, the engine's socket; the processes, one after the other or at once.
//! Reads: the files that the agent makes, the folder of runs.
//! Never: judges the result; see `verify`.

use std::any::Any;
use std::fmt::Write;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::engine_api::{kill_container, our_containers};
use crate::sandboxes::{Part, sandboxes};
use crate::{Engine, EngineProxy, Installation, Project};

use super::process::{Ended, How, Process};
use super::schedule::{Fault, Role, Scenario, Schedule, Trigger, Trouble};
use super::script::{BEGUN, GO};
use super::tally::Failure;
use super::verify;

const GLANCE: Duration = Duration::from_millis(10);
/// How long a run, its recovery or a request to it may take without a fault.
const PATIENCE: Duration = Duration::from_secs(60);
/// The secret of the scenario that has one.
pub(super) const SECRET: &str = "a secret that nobody may find afterwards";
/// What `recover` says if there is nothing open.
const NOTHING: &str = "nothing to recover\n";

/// What became of a schedule whose run was brought to its one right end.
#[derive(Debug)]
pub struct Played {
    /// The schedule.
    pub schedule: Schedule,
    /// The first process of each role.
    pub first: Vec<(Role, Ended)>,
    /// The faults that came to pass, by name.
    pub faults: Vec<String>,
    /// How many recoveries there were.
    pub recoveries: usize,
    /// How long the longest recovery without a fault took.
    pub longest_recovery: Duration,
}

/// Where a schedule is played.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    pub(super) schedule: &'a Schedule,
    pub(super) installation: Installation,
    pub(super) project: Project,
    proxy: Option<EngineProxy>,
    processes: AtomicUsize,
    /// Whether nothing of the run is open any more.
    over: AtomicBool,
    /// Whether the engine's socket is as it should be from now on.
    calm: AtomicBool,
    history: Mutex<Vec<(Role, Fault, Ended)>>,
}

/// Plays a schedule and checks everything that must be true afterwards.
///
/// # Errors
///
/// What is not, with all that is needed to play it again; its folders are kept.
pub fn play(schedule: &Schedule) -> Result<Played, Failure> {
    let mut stage = Stage::new(schedule);
    let played = catch_unwind(AssertUnwindSafe(|| {
        stage.play()?;
        verify::verify(&stage)
    }));
    let why = match played {
        Ok(Ok(())) => return Ok(stage.into_played()),
        Ok(Err(why)) => why,
        Err(panic) => panic_text(panic.as_ref()),
    };
    let description = stage.description(&why);
    stage.installation.keep();
    stage.project.keep();
    Err(Failure {
        name: schedule.name.clone(),
        description,
    })
}

impl<'a> Stage<'a> {
    fn new(schedule: &'a Schedule) -> Self {
        let installation = Installation::new();
        fs::create_dir(installation.folder().join("log")).expect("a folder of the test");
        let project = match schedule.scenario.is_versioned() {
            true => Project::new(),
            false => Project::unversioned(),
        };
        let front_matter = match schedule.scenario {
            Scenario::Secret => "---\nsecrets: {token: 'env:TOKEN'}\n---\n",
            _ => "",
        };
        project.write("prompt.md", format!("{front_matter}Do what is said.\n"));
        Self {
            schedule,
            installation,
            project,
            proxy: schedule.trouble.as_ref().map(|_| EngineProxy::new()),
            processes: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            calm: AtomicBool::new(schedule.trouble.is_none()),
            history: Mutex::default(),
        }
    }

    fn play(&self) -> Result<(), String> {
        thread::scope(|scope| {
            let acting = scope.spawn(|| self.act());
            let troubling = scope.spawn(|| self.make_trouble());
            let supervised = catch_unwind(AssertUnwindSafe(|| self.supervise()));
            self.over.store(true, Ordering::Release);
            let acted = acting.join();
            let troubled = troubling.join();
            let text = |panic: Box<dyn Any + Send>| Err(panic_text(panic.as_ref()));
            supervised.unwrap_or_else(text)?;
            acted.unwrap_or_else(text)?;
            troubled.unwrap_or_else(|panic| panic!("{}", panic_text(panic.as_ref())));
            Ok(())
        })
    }

    /// Runs, recovers as often as the schedule says, and then without faults until nothing is open.
    fn supervise(&self) -> Result<(), String> {
        let run = self.run();
        self.finish(
            Role::Run,
            &self.schedule.run,
            self.start(run, &self.schedule.run),
        )?;
        for round in &self.schedule.recoveries {
            let recovering: Vec<(&Fault, Process)> = round
                .iter()
                .map(|fault| (fault, self.start(self.command(&["recover"]), fault)))
                .collect();
            thread::scope(|scope| {
                let waiting: Vec<_> = recovering
                    .into_iter()
                    .map(|(fault, process)| {
                        scope.spawn(move || self.finish(Role::Recovery, fault, process))
                    })
                    .collect();
                waiting
                    .into_iter()
                    .try_for_each(|waiting| waiting.join().expect("it does not panic").map(drop))
            })?;
        }
        self.recover()
    }

    /// Recovers without a fault until nothing is open.
    fn recover(&self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        let mut forgiven = 2;
        loop {
            let was_calm = self.calm.load(Ordering::Acquire);
            let process = self.start(self.command(&["recover"]), &Fault::None);
            let ended = self.finish(Role::Recovery, &Fault::None, process)?;
            if ended.how == How::Exited(0) && ended.stdout == NOTHING {
                return Ok(());
            }
            if ended.how != How::Exited(0) {
                // What was lost on the way to the engine is no fault of the recovery.
                forgiven -= i32::from(was_calm && self.schedule.trouble.is_some());
                if self.schedule.trouble.is_none() || forgiven < 0 {
                    return Err(format!(
                        "a recovery without a fault failed: {:?}",
                        ended.how
                    ));
                }
            }
            if Instant::now() > deadline {
                return Err("the run does not come to its end".to_owned());
            }
            thread::sleep(GLANCE);
        }
    }

    /// Does what the scenario has another process, or an enemy, do.
    fn act(&self) -> Result<(), String> {
        let acts = self.schedule.scenario.acts();
        if acts.is_empty() && !self.schedule.scenario.is_murder() {
            return Ok(());
        }
        let recorded = || match self.schedule.trigger {
            Trigger::Begun => false,
            Trigger::Recorded => self.run_id().is_some(),
        };
        if !self.wait(|| self.begun().exists() || recorded()) {
            return Ok(());
        }
        if self.schedule.scenario.is_murder() {
            self.murder();
            return Ok(());
        }
        let result = acts.iter().enumerate().try_for_each(|(number, act)| {
            let done = self.act_until_done(number, act);
            // The agent of a paused run goes on once it may.
            self.project.write(GO, "");
            done
        });
        self.project.write(GO, "");
        result
    }

    /// Runs one of the scenario's other commands, the first time with its fault, until it succeeds.
    fn act_until_done(&self, number: usize, act: &[&str]) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        let mut fault = self.schedule.acts.get(number).unwrap_or(&Fault::None);
        loop {
            let Some(run) = self.run_id() else {
                return Err("the run's folder is gone".to_owned());
            };
            let words: Vec<&str> = act
                .iter()
                .map(|&word| if word == "RUN" { run.as_str() } else { word })
                .collect();
            let process = self.start(self.command(&words), fault);
            let ended = self.finish(Role::Act(number), fault, process)?;
            if ended.how == How::Exited(0) || self.over.load(Ordering::Acquire) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("{act:?} does not succeed"));
            }
            fault = &Fault::None;
            thread::sleep(GLANCE);
        }
    }

    /// Kills what the scenario says, once the agent works.
    fn murder(&self) {
        let state = self.installation.state_dir();
        let kill = || match (self.schedule.engine, self.schedule.scenario) {
            (Engine::Docker, _) => {
                let mut ours = our_containers().into_iter();
                let running = ours.find(|one| one.uses(&state) && one.state == "running");
                running
                    .inspect(|container| kill_container(&container.id))
                    .is_some()
            }
            (Engine::Sandbox, scenario) => {
                let part = match scenario {
                    Scenario::ShimKilled => Part::Shim,
                    _ => Part::Helper,
                };
                sandboxes(&state).iter().any(|sandbox| sandbox.kill(part))
            }
        };
        self.wait(|| self.begun().exists() && kill());
    }

    fn make_trouble(&self) {
        let (Some(trouble), Some(proxy)) = (&self.schedule.trouble, &self.proxy) else {
            return;
        };
        match trouble {
            Trouble::Socket { request, fault } => proxy.next(request, *fault),
            Trouble::Away { after, lasting } => {
                let began = Instant::now();
                if self.wait(|| began.elapsed() >= *after) {
                    proxy.go_away();
                    thread::sleep(*lasting);
                    proxy.come_back();
                }
            }
        }
        self.calm.store(true, Ordering::Release);
    }

    /// Waits until something is so; returns whether it is, and not all over before.
    fn wait(&self, condition: impl Fn() -> bool) -> bool {
        loop {
            if condition() {
                return true;
            }
            if self.over.load(Ordering::Acquire) {
                return false;
            }
            thread::sleep(GLANCE);
        }
    }

    /// Returns the file that the agent makes once it has begun.
    pub(super) fn begun(&self) -> PathBuf {
        self.project.path().join(BEGUN)
    }

    /// Returns the id of the run that has a folder.
    fn run_id(&self) -> Option<String> {
        let runs = fs::read_dir(self.installation.state_dir().join("runs")).ok()?;
        let folder = runs.flatten().next()?.file_name();
        let (run, _) = folder.to_str()?.split_once('-')?;
        Some(run.to_owned())
    }

    fn run(&self) -> Command {
        let schedule = self.schedule;
        let flags: &[&str] = match schedule.scenario {
            Scenario::Limited => &["--timeout", "1s"],
            _ => &[],
        };
        let mut command = self.command(&["run", "--quiet", "--agent", "command"]);
        command
            .args(["--network", "none"])
            .args(["--image", &schedule.engine.agent_image()])
            .args(flags)
            .args(["prompt.md", "--"])
            .args(schedule.engine.agent(&schedule.script_text()))
            .env("TOKEN", SECRET);
        command
    }

    /// Returns a command of the product.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.installation.dark_factory();
        command.args(arguments).current_dir(self.project.path());
        self.schedule.engine.choose(&mut command);
        if let Some(proxy) = &self.proxy {
            command.env("DOCKER_HOST", proxy.host());
        }
        command
    }

    /// Runs a command of the product without a fault, for what it says.
    pub(super) fn ask(&self, arguments: &[&str]) -> Ended {
        let mut command = self.command(arguments);
        command.env_remove("DOCKER_HOST");
        self.start(command, &Fault::None).ended(&self.begun())
    }

    fn start(&self, mut command: Command, fault: &Fault) -> Process {
        let number = self.processes.fetch_add(1, Ordering::Relaxed);
        let arguments = command.get_args().next().unwrap_or_default();
        let name = format!("log/{number:02}-{}", arguments.to_string_lossy());
        let files = self.installation.folder().join(name);
        Process::start(&mut command, fault, &files)
    }

    fn finish(&self, role: Role, fault: &Fault, process: Process) -> Result<Ended, String> {
        let ended = process.ended(&self.begun());
        let mut history = self.history();
        history.push((role, fault.clone(), ended.clone()));
        match ended.how {
            How::Stuck => Err(format!("{role:?} does not end")),
            _ => Ok(ended),
        }
    }

    /// Returns every process so far, with its fault.
    pub(super) fn history(&self) -> std::sync::MutexGuard<'_, Vec<(Role, Fault, Ended)>> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn into_played(self) -> Played {
        let history = self.history.into_inner();
        let history = history.unwrap_or_else(PoisonError::into_inner);
        let recovered = history.iter().filter(|(role, ..)| *role == Role::Recovery);
        let longest_recovery = recovered
            .clone()
            .filter(|(_, fault, _)| *fault == Fault::None)
            .map(|(_, _, ended)| ended.took)
            .max();
        let struck = history.iter().filter(|(_, _, ended)| ended.struck);
        let faults = struck.map(|(_, fault, _)| name(fault));
        let trouble = self.schedule.trouble.iter().map(|trouble| match trouble {
            Trouble::Away { .. } => "engine away".to_owned(),
            Trouble::Socket { request, fault } => {
                let fault = format!("{fault:?}");
                let kind = fault.split('(').next().unwrap_or_default();
                format!("{request} {kind}")
            }
        });
        let killed = match self.schedule.scenario {
            Scenario::HelperKilled => Some("helper killed".to_owned()),
            Scenario::ShimKilled => Some("shim killed".to_owned()),
            _ => None,
        };
        let faults = faults.chain(trouble).chain(killed).collect();
        let recoveries = recovered.count();
        let mut first: Vec<(Role, Ended)> = Vec::new();
        for (role, _, ended) in history {
            if first.iter().all(|(known, _)| *known != role) {
                first.push((role, ended));
            }
        }
        Played {
            schedule: self.schedule.clone(),
            first,
            faults,
            recoveries,
            longest_recovery: longest_recovery.unwrap_or_default(),
        }
    }

    /// Describes all that happened, for a person who plays it again.
    fn description(&self, why: &str) -> String {
        let mut text = format!(
            "{}\n{why}\n{:#?}\nkept: {} and {}\n",
            self.schedule.name,
            self.schedule,
            self.installation.folder().display(),
            self.project.path().display(),
        );
        let mut files = entries(&self.installation.folder().join("log"));
        files.sort();
        for file in files {
            let bytes = fs::read(&file).unwrap_or_default();
            let _written = write!(
                text,
                "-- {}\n{}",
                file.display(),
                String::from_utf8_lossy(&bytes)
            );
        }
        text
    }
}

/// Names a fault without what differs from one schedule to the next.
fn name(fault: &Fault) -> String {
    match fault {
        Fault::None => "none".to_owned(),
        Fault::Point { point, effect, .. } => format!("{point} {effect:?}"),
        Fault::KillAfter(_) => "killed at a random time".to_owned(),
        Fault::KillOnceBegun => "killed while the agent works".to_owned(),
    }
}

/// Returns what is in a folder.
pub(super) fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("it panicked")
        .to_owned()
}
