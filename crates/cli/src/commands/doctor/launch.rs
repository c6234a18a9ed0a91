//! What would be launched, and each thing that is wrong with it.
//!
//! Owns: telling apart what is wrong with a prompt file, its image, and its credentials.
//! Reads: the prompt file; without one, the project around the working directory.
//! Never: has a rule of its own: what resolves once something else stands in its place was wrong.

use std::fs;
use std::path::{Path, PathBuf};

use dark_factory_agents::{AGENT_NAMES, agent};
use dark_factory_executor::clock::{Clock, SystemClock};
use dark_factory_executor::doctor::{self, Finding, Status};
use dark_factory_executor::engine::Capabilities;
use dark_factory_executor::resolve::{ResolveContext, Resolved};
use dark_factory_executor::settings::{EnvValue, Settings, Sourced};
use dark_factory_executor::spec::{Disposal, User};
use dark_factory_types::exit_code;

use super::HOST;
use crate::args::DoctorArgs;
use crate::commands::run::prepare_one;
use crate::context::Context;
use crate::error::CommandError;
use crate::flags::env;

/// Stands for an image that is not named.
const IMAGE: &str = "dark-factory-doctor/none:named";
/// Stand for credentials that are not there; each agent takes its own.
const CREDENTIALS: [&str; 3] = ["ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY"];

/// What would be launched.
pub(super) struct Launch {
    /// Whether the prompt file can be run, its image and its credentials aside.
    pub(super) prompt: Finding,
    /// What is wrong with the image's name, if anything.
    pub(super) image: Option<Finding>,
    /// What is wrong with the credentials, if anything.
    auth: Option<Finding>,
    /// As it would be, if it can be run, with what stands in for image and credentials.
    pub(super) resolved: Option<Resolved>,
    /// The project, if there is one.
    pub(super) project: Option<PathBuf>,
    /// An empty folder of ours, for containers that have nothing to do with the project.
    pub(super) workspace: PathBuf,
}

impl Launch {
    /// Finds it out, with a folder of ours to work in, for an engine that can do this, if that is known.
    pub(super) fn find(
        context: &Context,
        args: &DoctorArgs,
        folder: &Path,
        capabilities: Option<Capabilities>,
    ) -> Self {
        let workspace = folder.join("workspace");
        let mut launch = Self {
            prompt: Finding::skipped(""),
            image: None,
            auth: None,
            resolved: None,
            project: None,
            workspace,
        };
        match launch.look(context, args, folder, capabilities) {
            Ok(()) => {}
            Err(error) => launch.prompt = Finding::from(error),
        }
        launch
    }

    fn look(
        &mut self,
        context: &Context,
        args: &DoctorArgs,
        folder: &Path,
        capabilities: Option<Capabilities>,
    ) -> Result<(), CommandError> {
        let failed = |error| CommandError::internal("make a folder for the probes", error);
        fs::create_dir(&self.workspace).map_err(failed)?;
        let mut flags = Settings {
            agent: flag("--agent", args.agent.as_ref()),
            image: flag("--image", args.image.as_ref()),
            env: env(&args.env)?,
            ..Settings::default()
        };
        let file = match &args.file {
            Some(file) if file == Path::new("-") => {
                return Err(CommandError::usage("standard input cannot be probed")
                    .hint("name a prompt file, or none"));
            }
            Some(file) => {
                let path = context.host.absolute(file);
                self.project = path.parent().and_then(git_root);
                file.clone()
            }
            None => {
                self.project = git_root(&context.host.cwd);
                let file = folder.join("doctor.md");
                fs::write(&file, "Nothing is to be done.\n").map_err(failed)?;
                let project = self.project.as_ref().unwrap_or(&self.workspace);
                let project = project.display().to_string();
                flags.project = Some(Sourced::flag("--project", project));
                file
            }
        };
        let mut context_of_run = ResolveContext {
            capabilities,
            ..context.resolve_context(context.state_dir.clone())
        };
        if context.is_sandbox() && args.file.is_none() {
            // What every sandbox can run on; a file says what it wants.
            let of = |agent: &&str| ((*agent).to_owned(), HOST.to_owned());
            context_of_run.default_images = AGENT_NAMES.iter().map(of).collect();
        }
        let resolve = |flags: &Settings| {
            prepare_one(context, &file, flags, &context_of_run, Disposal::Remove)
                .map(|job| job.launch.resolved().clone())
                .map_err(CommandError::all)
        };
        let with_image = with_image(flags.clone());
        let with_both = with_credentials(with_image.clone());
        let (resolved, image, auth) = match resolve(&flags) {
            Ok(resolved) => (resolved, None, None),
            Err(first) => match resolve(&with_image) {
                Ok(resolved) => (resolved, Some(first), None),
                Err(second) => match resolve(&with_credentials(flags)) {
                    Ok(resolved) => (resolved, None, Some(first)),
                    Err(_) => (resolve(&with_both)?, Some(first), Some(second)),
                },
            },
        };
        // Our own file is nothing that a user could look into.
        let nameless = |error| {
            let mut finding = Finding::from(error);
            if args.file.is_none() {
                let name = format!("{}: ", file.display());
                finding.found = finding.found.replace(&name, "");
            }
            finding
        };
        self.image = image.map(nameless);
        self.auth = auth.map(nameless).map(|finding| match &args.file {
            Some(_) => finding,
            // Where the credential comes from is said by a file or by the command line of a run.
            None => Finding {
                status: Status::Warning,
                exit_code: exit_code::SUCCEEDED,
                ..finding
            },
        });
        let spec = &resolved.spec;
        let project = &spec.workspace.source;
        let named = args.file.as_ref().map(|file| file.display().to_string());
        self.prompt = Finding::ok(format!(
            "{}: agent {} in {} as {}",
            named.unwrap_or("no file was named".to_owned()),
            spec.agent,
            match (args.file.as_ref(), &self.project) {
                (None, None) => "no project".to_owned(),
                _ => project.display().to_string(),
            },
            match &spec.user {
                User::Image => "the image's user".to_owned(),
                user => user.to_string(),
            },
        ));
        if args.file.is_some() {
            self.project = Some(project.clone());
        }
        self.resolved = Some(resolved);
        Ok(())
    }

    /// Says which credentials the agent will find.
    pub(super) fn auth(&self, context: &Context) -> Finding {
        if let Some(finding) = &self.auth {
            return finding.clone();
        }
        let spec = self.resolved.as_ref().map(|resolved| &resolved.spec);
        match spec.and_then(|spec| Some((agent(&spec.agent)?, spec))) {
            Some((agent, spec)) => doctor::auth(
                agent,
                spec,
                &context.host,
                &context.keys(),
                SystemClock.now(),
            ),
            None => Finding::skipped("it is not known what would be launched"),
        }
    }
}

fn with_image(flags: Settings) -> Settings {
    Settings {
        image: Some(Sourced::flag("--image", IMAGE.to_owned())),
        ..flags
    }
}

fn with_credentials(flags: Settings) -> Settings {
    let stand_in = |name: &str| {
        let value = EnvValue::Text("stand-in".to_owned());
        (name.to_owned(), Sourced::flag("--env", value))
    };
    let mut env = flags.env.clone();
    env.extend(CREDENTIALS.map(stand_in));
    Settings { env, ..flags }
}

fn flag(name: &'static str, value: Option<&String>) -> Option<Sourced<String>> {
    value.map(|value| Sourced::flag(name, value.clone()))
}

/// Returns the git project that a folder is in, links resolved.
fn git_root(folder: &Path) -> Option<PathBuf> {
    let folder = folder.canonicalize().ok()?;
    let root = folder
        .ancestors()
        .find(|folder| folder.join(".git").exists());
    root.map(Path::to_owned)
}
