//! The configuration around a command: which files count, and what is said about them.
//!
//! Owns: finding the project whose configuration counts.
//! Reads: configuration files, through the library.
//! Never: knows a key.

use std::path::{Path, PathBuf};

use dark_factory_executor::config::{ConfigFile, Stack, load_project};
use dark_factory_executor::error::sentence;
use dark_factory_executor::prompt::Prompt;
use dark_factory_executor::resolve::{ResolveError, project_root, resolve_layers};
use dark_factory_executor::settings::{Layer, Settings, ToolSettings};

use crate::context::Context;
use crate::error::CommandError;
use crate::tell;

/// Returns all layers of the run of a prompt, or of one without a front matter in the working directory.
///
/// What a person should know about the files is printed.
pub(crate) fn stack(
    context: &Context,
    prompt: Option<&Prompt>,
    flags: &Layer,
) -> Result<Stack, CommandError> {
    let files = files(context, prompt, flags)?;
    let warnings = files.iter().flat_map(|file| &file.warnings);
    for warning in context.environment()?.warnings.iter().chain(warnings) {
        if context.is_news(warning) {
            tell::warning(warning);
        }
    }
    for notice in files.iter().flat_map(|file| &file.notices) {
        if context.is_news(notice) {
            tell::note(notice);
        }
    }
    over_each_other(context, &files, prompt, flags)
}

/// Checks that there are layers of such a run, and that a prompt could be launched with them but for what flags may
/// still add: an image and credentials. Prints nothing.
pub(crate) fn check(context: &Context, prompt: Option<&Prompt>) -> Result<(), CommandError> {
    let flags = Layer::default();
    let files = files(context, prompt, &flags)?;
    let stack = over_each_other(context, &files, prompt, &flags)?;
    let Some(prompt) = prompt else {
        return Ok(());
    };
    let layers = stack.layers();
    let layers: Vec<&Settings> = layers.iter().collect();
    let grounds = context.resolve_context(context.state_dir.clone());
    match resolve_layers(prompt, &layers, &context.host, &grounds) {
        Ok(_)
        | Err(
            ResolveError::NoImage { .. }
            | ResolveError::Key(_)
            | ResolveError::Auth(_)
            | ResolveError::OwnAuth { .. },
        ) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Returns the configuration files of such a run.
pub(crate) fn files(
    context: &Context,
    prompt: Option<&Prompt>,
    flags: &Layer,
) -> Result<Vec<ConfigFile>, CommandError> {
    let root = root(context, prompt, flags)?;
    let of_project = load_project(&root, &context.host);
    match (context.user_config(), of_project) {
        (Ok(of_user), Ok(of_project)) => {
            Ok(of_user.cloned().into_iter().chain(of_project).collect())
        }
        (of_user, of_project) => {
            let of_project = of_project.err().map(|error| CommandError::from(&error));
            Err(CommandError::all(
                of_user.err().into_iter().chain(of_project),
            ))
        }
    }
}

fn over_each_other(
    context: &Context,
    files: &[ConfigFile],
    prompt: Option<&Prompt>,
    flags: &Layer,
) -> Result<Stack, CommandError> {
    let front_matter = prompt.map(|prompt| &prompt.settings);
    Stack::new(files, front_matter, &context.environment()?.layer, flags)
        .map_err(|error| CommandError::from(&error))
}

/// Returns the root of the project of a prompt, or of the working directory.
pub(crate) fn root(
    context: &Context,
    prompt: Option<&Prompt>,
    flags: &Layer,
) -> Result<PathBuf, CommandError> {
    let none = Prompt::from_text("-", "");
    let prompt = prompt.unwrap_or(&none);
    let environment = &context.environment()?.layer.run.project;
    let chosen = [&flags.run.project, environment, &prompt.settings.project];
    let chosen = chosen.into_iter().find_map(Option::as_ref);
    project_root(prompt, chosen, &context.host)
        .map_err(|error| CommandError::new(error.exit_code(), sentence(&error)))
}

/// Returns the settings of the tool for runs in these projects, which are resolved; the first one's count.
pub(crate) fn tool<'a>(
    context: &Context,
    mut roots: impl Iterator<Item = &'a PathBuf>,
) -> Result<ToolSettings, CommandError> {
    let user = context.user_config()?.map(|file| file.layer.tool.clone());
    let lower = match roots.next() {
        Some(root) => of_project(context, root, user.unwrap_or_default())?,
        None => user.unwrap_or_default(),
    };
    Ok(context.environment()?.layer.tool.clone().over(lower))
}

fn of_project(
    context: &Context,
    root: &Path,
    user: ToolSettings,
) -> Result<ToolSettings, CommandError> {
    let files = load_project(root, &context.host).map_err(|error| CommandError::from(&error))?;
    Ok(files
        .into_iter()
        .fold(user, |lower, file| file.layer.tool.over(lower)))
}
