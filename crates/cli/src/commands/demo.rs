//! `demo`: three prompt files in containers, on this machine, with nothing to fetch.
//!
//! Owns: the demo's project, image and state, in a temporary folder.
//! Reads: nothing of the user's.
//! Never: needs a model, a key, or a registry.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use dark_factory_executor::engine::{Capabilities, LimitKind};
use dark_factory_executor::prompt::Prompt;
use dark_factory_executor::resolve::{ResolveContext, resolve};
use dark_factory_executor::settings::{Settings, Sourced};
use dark_factory_executor::supervisor::Supervisor;
use dark_factory_types::{OutcomeKind, exit_code};

use super::run::{Batch, Ended, Events, Job, Launch, Show, run_jobs};
use super::{Format, cause, human_seconds, seconds};
use crate::args::DemoArgs;
use crate::context::Context;
use crate::error::CommandError;
use crate::git;
use crate::helper::image_archive;
use crate::interrupt::{Interrupts, Reaction};
use crate::live::Live;
use crate::tell;
use crate::terminal::{self, Lines};

/// The demo's image, a tag for each demo; its only file is the helper, named as the agent that it stands in for.
const IMAGE: &str = "dark-factory-demo";
const FOLDER_PREFIX: &str = "dark-factory-demo-";
/// Who owns the project where the demo is run by root.
const ROOT_DEMO_OWNER: u32 = 1000;

/// A prompt file: its name, its text, and how it is expected to end.
type Scene = (&'static str, &'static str, OutcomeKind);

const BEGIN: [Scene; 2] = [
    (
        "greeting.md",
        include_str!("../demo/greeting.md"),
        OutcomeKind::Succeeded,
    ),
    (
        "impossible.md",
        include_str!("../demo/impossible.md"),
        OutcomeKind::Failed,
    ),
];
const OVER_MEMORY: Scene = (
    "hungry.md",
    include_str!("../demo/hungry.md"),
    OutcomeKind::OutOfMemory,
);
/// Instead of [`OVER_MEMORY`], where the engine keeps no limit of memory.
const OVER_TIME: Scene = (
    "endless.md",
    include_str!("../demo/endless.md"),
    OutcomeKind::TimedOut,
);

pub(crate) async fn demo(
    context: &Context,
    args: &DemoArgs,
    format: Format,
) -> Result<u8, CommandError> {
    tell::progress(
        "demo: a scripted stand-in agent works on three prompt files; no model and no key are used",
    );
    let folder = tempfile::Builder::new()
        .prefix(FOLDER_PREFIX)
        .tempdir()
        .map_err(|error| CommandError::internal("make a temporary folder", error))?;
    let supervisor = Arc::new(context.supervisor_in(&folder.path().join("state"))?);
    let capabilities = supervisor
        .probe()
        .await
        .map_err(|error| CommandError::from(error).in_one_line())?;
    let third = match capabilities.limits.contains(&LimitKind::Memory) {
        true => OVER_MEMORY,
        false => OVER_TIME,
    };
    let [first, second] = BEGIN;
    let in_sandbox = in_sandbox(&capabilities);
    let stage = Stage::set(context, folder.path(), capabilities, [first, second, third])?;
    let images = match context.is_sandbox() {
        true => {
            tell::progress(&in_sandbox);
            unpack(Path::new(&stage.image))?;
            None
        }
        false => {
            let images = context.images()?;
            images.import_image(&stage.image, image_archive()?).await?;
            Some(images)
        }
    };

    let result = stage.play(&supervisor, format).await;

    if args.keep {
        let kept = folder.keep();
        let image = match images {
            Some(_) => format!(" and the image {}", stage.image),
            None => String::new(),
        };
        tell::progress(&format!("kept: {}{image}", kept.display()));
    } else if let Some(images) = images {
        images.remove_image(&stage.image).await?;
    }
    match result? {
        Ending::AsExpected => Ok(exit_code::SUCCEEDED),
        Ending::Otherwise => {
            tell::progress("the demo did not end as expected");
            Ok(exit_code::FAILED)
        }
    }
}

/// Returns what is said where no container engine is used: which one it is then, and what it does not keep apart.
fn in_sandbox(capabilities: &Capabilities) -> String {
    let kept = |limit: &LimitKind| capabilities.limits.contains(limit);
    let not_kept: Vec<String> = LimitKind::ALL
        .iter()
        .filter(|limit| !kept(limit))
        .map(ToString::to_string)
        .collect();
    let not_kept = match not_kept.as_slice() {
        [] => String::new(),
        names => format!(", and keeps no limit of {} here", names.join(" and ")),
    };
    format!(
        "engine: the embedded sandbox of this machine: no daemon, image or registry; it shares the machine's kernel, as \
         containers do{not_kept}"
    )
}

/// Whether every prompt ended as expected.
enum Ending {
    AsExpected,
    Otherwise,
}

/// Makes the image as a folder, which a sandbox takes for one.
fn unpack(folder: &Path) -> Result<(), CommandError> {
    let archive = image_archive()?;
    let unpacked =
        fs::create_dir(folder).and_then(|()| tar::Archive::new(archive.as_slice()).unpack(folder));
    unpacked.map_err(|error| CommandError::internal("unpack an image of our own", error))
}

/// A demo's project and image.
struct Stage<'a> {
    context: &'a Context,
    project: PathBuf,
    state_dir: PathBuf,
    image: String,
    capabilities: Capabilities,
    scenes: [Scene; 3],
}

impl<'a> Stage<'a> {
    fn set(
        context: &'a Context,
        folder: &Path,
        capabilities: Capabilities,
        scenes: [Scene; 3],
    ) -> Result<Self, CommandError> {
        let project = folder.join("project");
        make_project(&project, &scenes)
            .map_err(|error| CommandError::internal("make the demo's project", error))?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let tag = name.trim_start_matches(FOLDER_PREFIX);
        Ok(Self {
            context,
            project,
            state_dir: folder.join("state"),
            image: match context.is_sandbox() {
                true => folder.join("image").display().to_string(),
                false => format!("{IMAGE}:{tag}"),
            },
            capabilities,
            scenes,
        })
    }

    /// Runs the prompts and prints the table.
    async fn play(
        &self,
        supervisor: &Arc<Supervisor>,
        format: Format,
    ) -> Result<Ending, CommandError> {
        let control = supervisor.control("Ctrl-C");
        let _interrupts = Interrupts::listen(Reaction::Stop(control.clone()))?;
        let events = if format == Format::Json {
            Events::Hidden
        } else {
            Events::Shown
        };
        let live = match events {
            Events::Hidden => None,
            Events::Shown | Events::ShownWithName => Live::start(),
        };
        let mut rows = vec![
            [
                "PROMPT",
                "OUTCOME",
                "TIME",
                "EXIT",
                "TOKENS",
                "FILES CHANGED",
                "CAUSE",
            ]
            .map(str::to_owned),
        ];
        let mut ending = Ending::AsExpected;
        for (name, text, expected) in self.scenes {
            let before = snapshot(&self.project);
            let jobs = vec![self.job(name, text)?];
            let show = Show {
                format,
                events,
                lines: Lines::Ours,
                live: live.clone(),
            };
            let mut batch = Batch::default();
            let ended = run_jobs(supervisor, jobs, 1, &control, show, &mut batch).await?;
            let [Ended::Report(report)] = ended.as_slice() else {
                ending = Ending::Otherwise;
                break;
            };
            if report.outcome != expected {
                ending = Ending::Otherwise;
            }
            let exit = report.exit.and_then(|exit| exit.code());
            rows.push([
                name.to_owned(),
                report.outcome.to_string(),
                seconds(report).map_or("-".to_owned(), human_seconds),
                exit.map_or("-".to_owned(), |code| code.to_string()),
                report.usage.total_tokens().to_string(),
                changed(&before, &snapshot(&self.project)).to_string(),
                cause(report).into_owned(),
            ]);
        }
        if format == Format::Text {
            terminal::print(&format!("\n{}", terminal::table(rows)));
        }
        Ok(ending)
    }

    fn job(&self, name: &str, text: &str) -> Result<Job, CommandError> {
        let path = self.project.join("prompts").join(name);
        let prompt = Prompt::parse(&path.display().to_string(), text.as_bytes())
            .map_err(|error| CommandError::internal("read the demo's prompt", error))?;
        let flags = Settings {
            project: Some(Sourced::flag(
                "--project",
                self.project.display().to_string(),
            )),
            image: Some(Sourced::flag("--image", self.image.clone())),
            ..Settings::default()
        };
        let resolve_context = ResolveContext {
            capabilities: Some(self.capabilities.clone()),
            ..self.context.resolve_context(self.state_dir.clone())
        };
        let resolved = resolve(&prompt, &flags, &self.context.host, &resolve_context)?;
        Ok(Job {
            name: name.to_owned(),
            launch: Launch::New(resolved),
        })
    }
}

/// Makes a small git project, owned by the caller, or by an ordinary user if the caller is root.
fn make_project(project: &Path, scenes: &[Scene]) -> io::Result<()> {
    fs::create_dir_all(project.join("prompts"))?;
    fs::write(project.join("greeting.txt"), "Hey, world!\n")?;
    for (name, text, _) in scenes {
        fs::write(project.join("prompts").join(name), text)?;
    }
    for arguments in [
        &["init", "--quiet"][..],
        &["add", "--all"],
        &[
            "-c",
            "user.name=dark-factory",
            "-c",
            "user.email=demo@localhost",
            "commit",
            "--quiet",
            "-m",
            "demo: begin",
        ],
    ] {
        git(project, arguments)?;
    }
    if fs::metadata(project)?.uid() == 0 {
        give_to(project, ROOT_DEMO_OWNER)?;
    }
    Ok(())
}

fn git(project: &Path, arguments: &[&str]) -> io::Result<()> {
    let status = git::command()
        .arg("-C")
        .arg(project)
        .args([
            "-c",
            &format!("safe.directory={}", project.display()),
            "-c",
            "core.hooksPath=/dev/null",
        ])
        .args(arguments)
        // Without the user's own settings, such as signed commits.
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .stdout(Stdio::null())
        .status()
        .map_err(|error| {
            io::Error::new(error.kind(), format!("git: {error} (is git installed?)"))
        })?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("git {} failed", arguments[0])))
    }
}

fn give_to(path: &Path, owner: u32) -> io::Result<()> {
    chown(path, Some(owner), Some(owner))?;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            give_to(&entry?.path(), owner)?;
        }
    }
    Ok(())
}

/// Reads every file of the project but git's own.
fn snapshot(project: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![project.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && entry.file_name() != ".git" => folders.push(path),
                Ok(kind) if kind.is_file() => {
                    let bytes = fs::read(&path).unwrap_or_default();
                    files.insert(path, bytes);
                }
                _ => {}
            }
        }
    }
    files
}

/// Counts the files that were added, removed or changed.
fn changed(before: &BTreeMap<PathBuf, Vec<u8>>, after: &BTreeMap<PathBuf, Vec<u8>>) -> usize {
    let changed_or_removed = before
        .iter()
        .filter(|(path, bytes)| after.get(*path) != Some(bytes))
        .count();
    changed_or_removed
        + after
            .keys()
            .filter(|path| !before.contains_key(*path))
            .count()
}
