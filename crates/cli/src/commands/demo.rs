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
use std::process::{Command, Stdio};
use std::sync::Arc;

use dark_factory_executor::attempt::Control;
use dark_factory_executor::prompt::Prompt;
use dark_factory_executor::resolve::resolve;
use dark_factory_executor::settings::{Settings, Sourced};
use dark_factory_types::{OutcomeKind, exit_code};

use super::run::{Ended, Events, Job, Show, run_jobs};
use super::{Format, human_seconds, seconds, summary};
use crate::args::DemoArgs;
use crate::context::Context;
use crate::error::CommandError;
use crate::helper::HELPER;
use crate::interrupt::Interrupts;
use crate::terminal;

/// The demo's image; its only file is the helper, under the name of the agent that it stands in for.
const IMAGE: &str = "dark-factory-demo";
/// Who owns the project where the demo is run by root.
const ROOT_DEMO_OWNER: u32 = 1000;

/// The prompt files, and how each is expected to end.
const PROMPTS: [(&str, &str, OutcomeKind); 3] = [
    ("greeting.md", include_str!("../demo/greeting.md"), OutcomeKind::Succeeded),
    ("impossible.md", include_str!("../demo/impossible.md"), OutcomeKind::Failed),
    ("hungry.md", include_str!("../demo/hungry.md"), OutcomeKind::OutOfMemory),
];

pub(crate) async fn demo(context: &Context, args: &DemoArgs, format: Format) -> Result<u8, CommandError> {
    terminal::eprint("demo: a scripted stand-in agent works on three prompt files; no model and no key are used\n");
    let folder = tempfile::Builder::new()
        .prefix("dark-factory-demo-")
        .tempdir()
        .map_err(|error| CommandError::internal("make a temporary folder", error))?;
    let (project, state_dir) = (folder.path().join("project"), folder.path().join("state"));
    let docker = context.docker()?;
    let supervisor = Arc::new(context.supervisor_in(&state_dir)?);
    supervisor.probe().await?;
    // TMP docker.import_image(IMAGE, image_archive()?).await?;
    make_project(&project).map_err(|error| CommandError::internal("make the demo's project", error))?;

    let control = Control::new("Ctrl-C");
    let _interrupts = Interrupts::listen(&control)?;
    let mut rows = vec![["PROMPT", "OUTCOME", "TIME", "EXIT", "TOKENS", "FILES CHANGED", "CAUSE"].map(str::to_owned)];
    let mut as_expected = true;
    for (name, text, expected) in PROMPTS {
        let before = snapshot(&project);
        let job = job(context, &project, &state_dir, name, text)?;
        let show = Show { format: Format::Text, events: if format == Format::Json { Events::Hidden } else { Events::Shown } };
        let ended = run_jobs(&supervisor, vec![job], 1, &control, show).await?;
        let [Ended::Report(report)] = ended.as_slice() else {
            as_expected = false;
            break;
        };
        as_expected &= report.outcome == expected;
        if format == Format::Json {
            let dir = supervisor.state_dir().attempt(report.attempt_id);
            terminal::print_json(&summary(report, dir.path()));
        }
        let exit = report.exit.and_then(|exit| exit.code());
        rows.push([
            name.to_owned(),
            report.outcome.to_string(),
            seconds(report).map_or("-".to_owned(), human_seconds),
            exit.map_or("-".to_owned(), |code| code.to_string()),
            report.usage.total_tokens().to_string(),
            changed(&before, &snapshot(&project)).to_string(),
            report.cause.clone(),
        ]);
    }
    if format == Format::Text {
        terminal::print(&format!("\n{}", terminal::table(rows)));
    }
    if args.keep {
        let kept = folder.keep();
        terminal::eprint(&format!("kept: {} and the image {IMAGE}\n", kept.display()));
    } else {
        // TMP docker.remove_image(IMAGE).await?;
    }
    if as_expected {
        return Ok(exit_code::SUCCEEDED);
    }
    terminal::eprint("the demo did not end as expected\n");
    Ok(exit_code::FAILED)
}

fn job(
    context: &Context,
    project: &Path,
    state_dir: &Path,
    name: &str,
    text: &str,
) -> Result<Job, CommandError> {
    let path = project.join("prompts").join(name);
    let prompt = Prompt::parse(&path.display().to_string(), text.as_bytes())
        .map_err(|error| CommandError::internal("read the demo's prompt", error))?;
    let resolve_context = context.resolve_context(state_dir.to_owned());
    let project = Sourced::flag("--project", project.display().to_string());
    let flags = Settings { project: Some(project), ..Settings::default() };
    let resolved = resolve(&prompt, &flags, &context.host, &resolve_context)
        .map_err(|error| CommandError::new(error.exit_code(), crate::error::chain(&error)))?;
    Ok(Job { name: name.to_owned(), resolved })
}

/// Returns the image's file system as a tar archive: the helper as `/usr/local/bin/claude`, and an empty `/tmp`.
fn image_archive() -> Result<Vec<u8>, CommandError> {
    let build = || -> io::Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut folder = tar::Header::new_gnu();
        folder.set_entry_type(tar::EntryType::Directory);
        folder.set_mode(0o1777);
        folder.set_size(0);
        archive.append_data(&mut folder, "tmp/", io::empty())?;
        let mut file = tar::Header::new_gnu();
        file.set_mode(0o755);
        file.set_size(HELPER.0.len() as u64);
        archive.append_data(&mut file, "usr/local/bin/claude", HELPER.0)?;
        archive.into_inner()
    };
    build().map_err(|error| CommandError::internal("pack the demo's image", error))
}

/// Makes a small git project, owned by the caller, or by an ordinary user if the caller is root.
fn make_project(project: &Path) -> io::Result<()> {
    fs::create_dir_all(project.join("prompts"))?;
    fs::write(project.join("greeting.txt"), "Hey, world!\n")?;
    for (name, text, _) in PROMPTS {
        fs::write(project.join("prompts").join(name), text)?;
    }
    for arguments in [
        &["init", "--quiet"][..],
        &["add", "--all"],
        &["-c", "user.name=dark-factory", "-c", "user.email=demo@localhost", "commit", "--quiet", "-m", "demo: begin"],
    ] {
        git(project, arguments)?;
    }
    if fs::metadata(project)?.uid() == 0 {
        give_to(project, ROOT_DEMO_OWNER)?;
    }
    Ok(())
}

fn git(project: &Path, arguments: &[&str]) -> io::Result<()> {
    let status = Command::new("git")
        .arg("-C")
        .arg(project)
        .args(["-c", &format!("safe.directory={}", project.display()), "-c", "core.hooksPath=/dev/null"])
        .args(arguments)
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|error| io::Error::new(error.kind(), format!("git: {error} (is git installed?)")))?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("git {} failed", arguments[0]))) }
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
    let changed_or_removed = before.iter().filter(|(path, bytes)| after.get(*path) != Some(bytes)).count();
    changed_or_removed + after.keys().filter(|path| !before.contains_key(*path)).count()
}
