//! From a prompt and flags to a launch spec.
//!
//! Owns: the defaults, the rules of what may be launched, and their errors.
//! Reads: the prompt, the flags, the host's file system, and its environment through a [`HostView`].
//! Never: talks to an engine, changes anything, or degrades silently: what cannot be done is an error.

mod access;
mod agent;
mod danger;
mod defaults;
mod demand;
mod environment;
mod error;
mod image;
mod mounts;
mod places;
mod project;
mod record;
mod target;
mod told;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dark_factory_agents::Agent;
use dark_factory_types::{ByteSize, Transport};

use crate::engine::Capabilities;
use crate::host::{HostView, PathKind};
use crate::keys::KeySources;
use crate::prompt::Prompt;
use crate::settings::{
    Limit, Origin, ProfileName, Settings, Sourced, UserSetting, nearest, quoted,
};
use crate::spec::{
    Disposal, GitVisibility, LaunchSpec, Limits, OUR_IMAGES, Profile, PullPolicy, SPEC_VERSION,
    SeedSpec, StopPolicy, User, WORKSPACE_TARGET, Workspace,
};
use danger::{Border, Purpose};
use defaults::{COMPLETION_GRACE, DISK, FILE_SIZE, LOG, MEMORY, OPEN_FILES, PIDS};
use project::Project;

pub use danger::Danger;
pub use defaults::{DAEMON_JOBS, RUN_JOBS, default_of};
pub use demand::Demands;
pub(crate) use environment::env_file;
pub(crate) use environment::secrets_again;
pub use environment::{EnvProblem, SecretProblem};
pub use error::ResolveError;
pub use image::{ImageProblem, check_image};
pub use mounts::MountProblem;
pub(crate) use project::host_path;
pub use project::project_root;
pub use record::{launch_record, masked, spec_record};
pub use target::TargetProblem;
pub use told::limits_section;
pub(crate) use told::prompt_with;

/// The least log limit: what one pipe holds.
const LEAST_LOG: ByteSize = ByteSize(64 << 10);
/// Below what many a program writes at its start.
const LEAST_DISK: ByteSize = ByteSize(1 << 20);
/// The least memory that Docker accepts.
const LEAST_MEMORY: ByteSize = ByteSize(6 << 20);
/// What our helper needs for itself and for the requests that it carries.
const LEAST_OPEN_FILES: u32 = 256;
/// What kernels let any process have, unless somebody changed them.
const MOST_OPEN_FILES: u32 = 1 << 20;
const LEAST_TIMEOUT: Duration = Duration::from_secs(1);

/// Where the seed's container has its prompt.
const SEED_PROMPT: &str = "/tmp/prompt.md";
/// Where the seed's container has its credentials.
const SEED_CLAUDE_DIR: &str = "/home/node/.claude";
/// The seed's credential folder on the host, if nothing else is asked for.
const SEED_HOST_CLAUDE_DIR: &str = ".claude-yolo";

/// The profiles that need no table.
pub(crate) const BUILT_IN_PROFILES: [&str; 2] = ["hardened", "seed"];

/// Labels that begin like this are ours.
const OUR_LABELS: &str = "dark-factory.";

type Warnings = Vec<String>;

/// What resolving needs to know besides prompt, flags and host.
#[derive(Debug, Clone)]
pub struct ResolveContext {
    /// The state folder, which nothing that is mounted may touch.
    pub state_dir: PathBuf,
    /// The image of each agent where none is named; for an agent without one, naming none is an error.
    pub default_images: BTreeMap<String, String>,
    /// The CPUs of the engine's host, if known; the default limit is not above them, as engines refuse that.
    pub host_cpus: Option<NonZeroUsize>,
    /// The socket of the engine in use, if it has one; nothing that is mounted may hold it.
    pub engine_socket: Option<PathBuf>,
    /// Where the keys of providers are, besides the usual places.
    pub keys: KeySources,
    /// What the engine can do, if it was asked: what it cannot do is refused. Unasked, it refuses by itself.
    pub capabilities: Option<Capabilities>,
    /// Whether the engine takes a folder or an archive of this machine, by its absolute path, for an image.
    pub path_images: bool,
    /// Dangerous paths that the machine's owner lets be mounted: each is written like the source of a mount, and stands
    /// for itself alone, not for what is in it or around it.
    pub allow_mounts: Vec<Sourced<String>>,
}

impl ResolveContext {
    /// Knows of nothing but the state folder.
    pub fn new(state_dir: PathBuf) -> Self {
        Self {
            state_dir,
            default_images: BTreeMap::new(),
            host_cpus: None,
            engine_socket: None,
            keys: KeySources::default(),
            capabilities: None,
            path_images: false,
            allow_mounts: Vec::new(),
        }
    }
}

/// A launch spec, and what goes with it.
#[derive(Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The launch spec.
    pub spec: LaunchSpec,
    /// What the agent gets.
    pub prompt_text: String,
    /// Names and values of the secrets.
    pub secrets: Vec<(String, String)>,
    /// Names of the environment whose values were taken from the host's; nobody wrote them down, so they are not shown.
    pub env_from_host: BTreeSet<String>,
    /// What of the settings not every engine can do.
    pub demands: Demands,
    /// Things that are probably not as they were meant.
    pub warnings: Vec<String>,
    /// Things that a person should know.
    pub notices: Vec<String>,
}

impl fmt::Debug for Resolved {
    /// Leaves out what may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolved")
            .field("file", &self.spec.file)
            .field("warnings", &self.warnings)
            .field("notices", &self.notices)
            .finish_non_exhaustive()
    }
}

impl Resolved {
    /// Fits the launch to an engine that was asked only now: what [`ResolveContext::capabilities`] would have done, but for
    /// the user. Returns what there is to warn of.
    ///
    /// # Errors
    ///
    /// [`ResolveError::LimitNotKept`] or [`ResolveError::FeatureLacking`].
    pub fn fit(&mut self, capabilities: &Capabilities) -> Result<Vec<String>, ResolveError> {
        let mut warnings = Vec::new();
        self.demands
            .meet(&mut self.spec.limits, capabilities, &mut warnings)?;
        self.warnings.extend_from_slice(&warnings);
        Ok(warnings)
    }
}

/// Makes a launch spec of a prompt; flags beat the front matter.
///
/// It is [`resolve_layers`] without configuration files and environment.
///
/// # Errors
///
/// [`ResolveError`], the first in the order of the spec's making; all of them are usage errors.
pub fn resolve(
    prompt: &Prompt,
    flags: &Settings,
    host: &HostView,
    context: &ResolveContext,
) -> Result<Resolved, ResolveError> {
    resolve_layers(prompt, &[&prompt.settings, flags], host, context)
}

/// Makes a launch spec of a prompt and of layers of settings, the lowest first.
///
/// The prompt's own settings count only if they are one of the layers; see [`crate::config::Stack::layers`].
///
/// The file system is only looked at. Relative paths in a front matter and in a project's configuration are below
/// the project's root, `project` itself below the prompt's folder; those of the user's configuration are below its
/// folder, and those of environment and flags below the working directory. Mount and secret sources of environment
/// and flags are below the project's root.
///
/// # Errors
///
/// [`ResolveError`], the first in the order of the spec's making; all of them are usage errors.
pub fn resolve_layers(
    prompt: &Prompt,
    layers: &[&Settings],
    host: &HostView,
    context: &ResolveContext,
) -> Result<Resolved, ResolveError> {
    let mut warnings: Warnings = prompt.warnings.iter().map(ToString::to_string).collect();
    let mut notices = Vec::new();
    let lowest = Settings::default();
    let settings = layers
        .iter()
        .fold(lowest, |lower, layer| (*layer).clone().over(lower));
    let profile = profile(settings.profile.as_ref())?;

    let project = Project::find(prompt, settings.project.as_ref(), host)?;
    let border = Border::new(context, host)?;
    match border.check(&project.root, Purpose::Mount) {
        Ok(allowed) => {
            let mounted = || format!("the project {}", project.root.display());
            notices.extend(allowed.map(|allowed| allowed.notice(&mounted())));
        }
        Err(danger) => {
            return Err(ResolveError::Workspace {
                path: project.root,
                danger,
            });
        }
    }
    let workspace = container_path("workspace", settings.workspace.as_ref(), target::mountable)?
        .unwrap_or_else(|| WORKSPACE_TARGET.to_owned());
    let workdir = container_path("workdir", settings.workdir.as_ref(), target::absolute)?
        .unwrap_or_else(|| match profile {
            Profile::Hardened => workspace.clone(),
            Profile::Seed => String::new(),
        });

    let mut user = user(settings.user.as_ref(), profile, project.owner)?;
    if let Some(capabilities) = &context.capabilities {
        user = demand::user(settings.user.as_ref(), user, capabilities, &mut warnings)?;
    }
    let is_owner_root = matches!(user, User::Ids { uid: 0, .. }) && settings.user.is_none();
    if profile == Profile::Hardened && is_owner_root {
        notices.push(
            "the project belongs to root: the agent runs as uid 0 without capabilities; \
             --user UID:GID changes that"
                .to_owned(),
        );
    }

    if profile == Profile::Hardened
        && let User::Ids { uid, gid } = user
        && !project.may_be_written_by(uid, gid)
    {
        warnings.push(format!(
            "the project belongs to uid {owner} and the agent runs as uid {uid}, which may not write to it: \
             leave out --user, or change the folder's permissions",
            owner = project.owner.0,
        ));
    }

    if project.is_read_only {
        warnings.push(
            "the project is on a mount that is read-only, so the agent may not write to it: mount it \
             for writing, or run a copy"
                .to_owned(),
        );
    }

    let agent = agent::chosen(settings.agent.as_ref())?;
    let request = agent::request(agent, &settings, &user, &mut warnings)?;
    let claude_dir = claude_dir(&settings, profile, &project, host, &border)?;
    let user_env = environment::environment(layers, &project.root, host)?;
    let secrets = environment::secrets(&settings.secrets, &project.root, host)?;
    let access = access::Wish {
        agent,
        settings: &settings,
        profile,
        env: &user_env,
        host,
        border: &border,
    };
    let access = access.decide()?;
    let launch = agent::launch(agent, &request, profile, &user_env, &access.env);

    let mut taken = vec![(workspace.clone(), "the project".to_owned())];
    if profile == Profile::Seed {
        taken.push((SEED_PROMPT.to_owned(), "the prompt".to_owned()));
        taken.push((
            SEED_CLAUDE_DIR.to_owned(),
            "the credential folder".to_owned(),
        ));
    }
    if let Some(folder) = &access.folder {
        taken.push((folder.target.clone(), "the credential folder".to_owned()));
    }
    let grounds = mounts::Grounds {
        host,
        root: &project.root,
        border: &border,
        taken,
    };
    let mut mounts = mounts::resolve(&settings.mounts, grounds, &mut warnings, &mut notices)?;
    mounts.extend(access.folder);
    let image = image(&settings, prompt, agent, profile, context)?;
    let pull = pull(&settings, &image, &mut warnings);
    let mut limits = limits(&settings, profile, context)?;
    let demands = Demands::of(&settings);
    if let Some(capabilities) = &context.capabilities {
        demands.meet(&mut limits, capabilities, &mut warnings)?;
    }
    if agent.name() == defaults::AGENT {
        environment::refuse_empty_credentials(&user_env)?;
    }
    for provider in &access.providers {
        context.keys.find(*provider, host)?;
    }
    if !access.is_settled {
        agent::check_auth(agent, &launch.env, claude_dir.as_deref(), host, profile).map_err(
            |error| match (error, &access.why_own) {
                (ResolveError::Auth(source), Some(why)) => ResolveError::OwnAuth {
                    source,
                    why: why.clone(),
                },
                (error, _) => error,
            },
        )?;
    }
    notices.extend(access.why_own);
    let git = match (chosen(settings.git.as_ref()), project.git) {
        (Some(GitVisibility::Hidden), PathKind::Folder | PathKind::File) => GitVisibility::Hidden,
        _ => GitVisibility::Visible,
    };
    let defaults = StopPolicy::default();
    let env_from_host: BTreeSet<String> = user_env
        .iter()
        .filter(|(_, variable)| variable.is_from_host)
        .map(|(name, _)| name.clone())
        .collect();
    let spec = LaunchSpec {
        version: SPEC_VERSION,
        project: match settings.project_name {
            Some(name) => name.value,
            None => project.name(),
        },
        file: project.file,
        prompt: project.prompt,
        container: None,
        agent: agent.name().to_owned(),
        profile,
        image,
        pull,
        command: launch.argv,
        env: launch.env,
        env_from_host: env_from_host.clone(),
        secrets: secrets.iter().map(|(name, _)| name.clone()).collect(),
        secret_sources: environment::sources(&settings.secrets, &project.root, host),
        labels: labels(&settings.labels)?,
        workspace: Workspace {
            source: project.root,
            target: workspace,
            git,
            git_is_file: project.git == PathKind::File,
        },
        mounts,
        workdir,
        user,
        limits,
        network: access.network,
        providers: access.providers,
        budget: access.budget,
        stop: StopPolicy {
            signal: settings
                .stop_signal
                .map_or(defaults.signal, |signal| signal.value),
            grace: chosen(settings.stop_grace.as_ref()).unwrap_or(defaults.grace),
        },
        engine_identity: None,
        completion_grace: limit_or(&settings.completion_grace, Some(COMPLETION_GRACE)),
        transport: chosen(settings.transport.as_ref()).unwrap_or_default(),
        disposal: Disposal::default(),
        tell_limits: chosen(settings.tell_limits.as_ref())
            .unwrap_or_else(|| defaults::tell_limits(agent, profile)),
        prompt_digests: None,
        seed: SeedSpec {
            claude_dir,
            ..SeedSpec::default()
        },
    };
    Ok(Resolved {
        spec,
        prompt_text: prompt.body.clone(),
        secrets,
        env_from_host,
        demands,
        warnings,
        notices,
    })
}

fn chosen<T: Copy>(setting: Option<&Sourced<T>>) -> Option<T> {
    setting.map(|setting| setting.value)
}

fn profile(setting: Option<&Sourced<ProfileName>>) -> Result<Profile, ResolveError> {
    match setting {
        None => Ok(Profile::default()),
        Some(Sourced {
            value: ProfileName::BuiltIn(profile),
            ..
        }) => Ok(*profile),
        Some(Sourced {
            value: ProfileName::Named(name),
            origin,
        }) => Err(ResolveError::UnknownProfile {
            origin: origin.clone(),
            name: name.clone(),
            known: BUILT_IN_PROFILES.join(", "),
            suggestion: nearest(name, BUILT_IN_PROFILES),
        }),
    }
}

fn container_path(
    setting: &'static str,
    path: Option<&Sourced<String>>,
    check: fn(&str) -> Result<String, TargetProblem>,
) -> Result<Option<String>, ResolveError> {
    let Some(Sourced { value, origin }) = path else {
        return Ok(None);
    };
    let refused = |problem| ResolveError::ContainerPath {
        origin: origin.clone(),
        setting,
        path: value.clone(),
        problem,
    };
    check(value).map(Some).map_err(refused)
}

fn user(
    setting: Option<&Sourced<UserSetting>>,
    profile: Profile,
    owner: (u32, u32),
) -> Result<User, ResolveError> {
    match (setting, profile) {
        (None, Profile::Hardened) => Ok(User::Ids {
            uid: owner.0,
            gid: owner.1,
        }),
        (None, Profile::Seed) => Ok(User::Image),
        (
            Some(Sourced {
                value: UserSetting::Ids { uid, gid },
                ..
            }),
            _,
        ) => {
            let same = if *uid == owner.0 { owner.1 } else { *uid };
            Ok(User::Ids {
                uid: *uid,
                gid: gid.unwrap_or(same),
            })
        }
        (
            Some(Sourced {
                value: UserSetting::Named(name),
                ..
            }),
            Profile::Seed,
        ) => Ok(User::Named(name.clone())),
        (
            Some(Sourced {
                value: UserSetting::Named(name),
                origin,
            }),
            Profile::Hardened,
        ) => Err(ResolveError::UserName {
            origin: origin.clone(),
            name: name.clone(),
        }),
    }
}

fn claude_dir(
    settings: &Settings,
    profile: Profile,
    project: &Project,
    host: &HostView,
    border: &Border<'_>,
) -> Result<Option<PathBuf>, ResolveError> {
    let path = match (&settings.claude_dir, profile) {
        (None, Profile::Hardened) => return Ok(None),
        (Some(Sourced { origin, .. }), Profile::Hardened) => {
            return Err(ResolveError::ClaudeDirProfile {
                origin: origin.clone(),
            });
        }
        (None, Profile::Seed) => {
            let path = host
                .home
                .as_ref()
                .map(|home| home.join(SEED_HOST_CLAUDE_DIR));
            match path {
                Some(path) if host.kind(&path) == PathKind::Folder => {
                    project::canonical_so_far(&path)
                }
                _ => return Ok(None),
            }
        }
        (Some(Sourced { value, origin }), Profile::Seed) => {
            let base = origin.folder(&project.root, &host.cwd);
            let path = host_path(value, base, host);
            project::canonical_folder(&path).map_err(|source| ResolveError::ClaudeDirFolder {
                origin: origin.clone(),
                path,
                source,
            })?
        }
    };
    match border.check(&path, Purpose::AgentFolder) {
        Ok(_) => Ok(Some(path)),
        Err(danger) => Err(ResolveError::ClaudeDir { path, danger }),
    }
}

fn image(
    settings: &Settings,
    prompt: &Prompt,
    agent: &dyn Agent,
    profile: Profile,
    context: &ResolveContext,
) -> Result<String, ResolveError> {
    let default = match profile {
        Profile::Hardened => context.default_images.get(agent.name()),
        // Its image launches the agent itself; ours do not.
        Profile::Seed => None,
    };
    match (&settings.image, default) {
        (Some(image), _) if context.path_images && is_path(image) => Ok(image.value.clone()),
        (Some(image), _) => checked_image(image).map(|()| image.value.clone()),
        (None, Some(image)) => Ok(image.clone()),
        (None, None) => Err(ResolveError::NoImage {
            file: prompt.file.clone(),
            note: agent.image_note(),
        }),
    }
}

fn is_path(image: &Sourced<String>) -> bool {
    Path::new(&image.value).is_absolute()
}

fn checked_image(image: &Sourced<String>) -> Result<(), ResolveError> {
    check_image(&image.value).map_err(|problem| ResolveError::Image {
        origin: image.origin.clone(),
        image: quoted(&image.value),
        problem,
    })
}

/// Returns when the image is pulled: never one of ours, which no registry has, and somebody else's might.
fn pull(settings: &Settings, image: &str, warnings: &mut Warnings) -> PullPolicy {
    if !image.starts_with(OUR_IMAGES) {
        return chosen(settings.pull.as_ref()).unwrap_or_default();
    }
    if let Some(Sourced { value, origin }) = &settings.pull
        && *value != PullPolicy::Never
    {
        warnings.push(format!(
            "{origin}: images named {OUR_IMAGES}… are made on this machine; the key does nothing"
        ));
    }
    PullPolicy::Never
}

/// Returns what every run of these settings would be refused for, whatever the host and other layers are.
pub(crate) fn faults(settings: &Settings) -> Vec<ResolveError> {
    let paths = [
        container_path("workspace", settings.workspace.as_ref(), target::mountable),
        container_path("workdir", settings.workdir.as_ref(), target::absolute),
    ];
    // Some engines take a path for an image.
    let image = settings.image.as_ref().filter(|image| !is_path(image));
    let one = [
        agent::chosen(settings.agent.as_ref()).map(drop),
        image.map_or(Ok(()), checked_image),
        least(settings),
        labels(&settings.labels).map(drop),
    ];
    let all = one.into_iter().chain(paths.map(|path| path.map(drop)));
    let mut faults: Vec<ResolveError> = all.filter_map(Result::err).collect();
    faults.extend(settings.mounts.iter().filter_map(mounts::fault));
    faults.extend(settings.env.iter().filter_map(|(name, value)| {
        let problem = environment::name_problem(name)?;
        Some(environment::refused(
            name,
            &value.value,
            &value.origin,
            problem,
        ))
    }));
    faults
}

fn least(settings: &Settings) -> Result<(), ResolveError> {
    let below = |origin: &Origin, setting, least, value: String| {
        Err(ResolveError::Limit {
            origin: origin.clone(),
            setting,
            least,
            value,
        })
    };
    if let Some((value, origin)) = limit_at(&settings.memory)
        && value < LEAST_MEMORY
    {
        return below(origin, "memory", "6m", value.to_string());
    }
    if let Some((0, origin)) = limit_at(&settings.pids) {
        return below(origin, "pids", "1", "0".to_owned());
    }
    if let Some((value, origin)) = limit_at(&settings.open_files) {
        if value < LEAST_OPEN_FILES {
            return below(origin, "open-files", "256", value.to_string());
        }
        if value > MOST_OPEN_FILES {
            return Err(ResolveError::TooManyOpenFiles {
                origin: origin.clone(),
                value,
                most: MOST_OPEN_FILES,
            });
        }
    }
    for (key, setting) in [
        ("timeout", &settings.timeout),
        ("idle-timeout", &settings.idle_timeout),
    ] {
        if let Some((value, origin)) = limit_at(setting)
            && value < LEAST_TIMEOUT
        {
            return below(origin, key, "1s", format!("{value:?}"));
        }
    }
    if let Some((value, origin)) = limit_at(&settings.log_limit)
        && value < LEAST_LOG
    {
        return below(origin, "log-limit", "64k", value.to_string());
    }
    if let Some((value, origin)) = limit_at(&settings.disk_limit)
        && value < LEAST_DISK
    {
        return below(origin, "disk-limit", "1m", value.to_string());
    }
    Ok(())
}

fn limits(
    settings: &Settings,
    profile: Profile,
    context: &ResolveContext,
) -> Result<Limits, ResolveError> {
    least(settings)?;
    let is_hardened = profile == Profile::Hardened;
    let cpus = || defaults::cpus(context);
    // An engine refuses to start what may have more open files than itself; our helper then gives what there is.
    let is_ours = chosen(settings.transport.as_ref()).unwrap_or_default() == Transport::Spool;
    let open_files = (is_hardened && is_ours).then_some(OPEN_FILES);
    Ok(Limits {
        file_size: limit_or(&settings.file_size, is_hardened.then_some(FILE_SIZE)),
        open_files: limit_or(&settings.open_files, open_files),
        memory: limit_or(&settings.memory, is_hardened.then_some(MEMORY)),
        cpus: limit_or(&settings.cpus, is_hardened.then(cpus)),
        pids: limit_or(&settings.pids, is_hardened.then_some(PIDS)),
        timeout: limit_or(&settings.timeout, None),
        idle: limit_or(&settings.idle_timeout, None),
        log: limit_or(&settings.log_limit, Some(LOG)),
        disk: limit_or(&settings.disk_limit, (!is_hardened).then_some(DISK)),
    })
}

/// Returns the limit that a setting says, unless it says that there is none.
fn limit_at<T: Copy>(setting: &Option<Sourced<Limit<T>>>) -> Option<(T, &Origin)> {
    let Sourced { value, origin } = setting.as_ref()?;
    value.at().map(|limit| (limit, origin))
}

/// Returns the limit that holds: `default` only where nothing is said.
fn limit_or<T: Copy>(setting: &Option<Sourced<Limit<T>>>, default: Option<T>) -> Option<T> {
    match setting {
        Some(setting) => setting.value.at(),
        None => default,
    }
}

fn labels(
    labels: &BTreeMap<String, Sourced<String>>,
) -> Result<BTreeMap<String, String>, ResolveError> {
    let mut checked = BTreeMap::new();
    for (name, Sourced { value, origin }) in labels {
        let reason = if name.starts_with(OUR_LABELS) {
            "names that begin with dark-factory. belong to dark-factory"
        } else if name.is_empty() || name.contains(char::is_whitespace) || name.contains('=') {
            "a label's name has no blanks and no ="
        } else if name.contains('\0') || value.contains('\0') {
            "it has a NUL byte in it"
        } else {
            checked.insert(name.clone(), value.clone());
            continue;
        };
        return Err(ResolveError::Label {
            origin: origin.clone(),
            name: name.clone(),
            reason,
        });
    }
    Ok(checked)
}
