//! `doctor`: everything that a run needs, tried in the order in which a run needs it.
//!
//! Owns: the order of the probes, what each needs of earlier ones, the command's output; its image and its folder.
//! Reads: a prompt file, if one is named; what is installed on this machine.
//! Never: changes anything that stays, or needs an image of the user's for what is not about that image.

mod launch;
mod local;

use std::os::unix::fs::chown;
use std::path::Path;
use std::time::{Duration, Instant};

use dark_factory_agents::agent;
#[cfg(target_os = "linux")]
use dark_factory_engines::sandbox::SandboxEngine;
use dark_factory_executor::attempt::Control;
use dark_factory_executor::clock::{Clock, SystemClock};
use dark_factory_executor::doctor::{self, Bench, Finding, Remedies, Status, Trial};
use dark_factory_executor::engine::{Capabilities, Description, EngineError};
use dark_factory_executor::error::ExecutorError;
use dark_factory_executor::resolve::Resolved;
use dark_factory_executor::spec::{Profile, PullPolicy, User};
use dark_factory_executor::supervisor::Supervisor;
use dark_factory_types::exit_code;
use serde_json::json;
use tempfile::TempDir;

use self::launch::Launch;
use super::Format;
use crate::args::DoctorArgs;
use crate::context::Context;
use crate::error::CommandError;
use crate::helper::image_archive;
use crate::interrupt::{Interrupts, Reaction};
use crate::tell;
use crate::terminal;

/// The probes' own image and folder; each doctor has its own.
const NAME: &str = "dark-factory-doctor";
/// What is younger than this may be in use; as `prune` has it.
const GRACE: Duration = Duration::from_secs(600);
/// Why what depends on the profile is not probed under the seed's.
const UNLIKE_SEED: &str = "probes run hardened, and a run under profile: seed does not";
/// The image of the probes in a sandbox: the machine's own system, in which our helper is mounted as in any.
const HOST: &str = "host";
/// The configuration of a project of the seed.
const SEED_CONFIG: &str = ".dark-factory.yaml";

pub(crate) async fn doctor(
    context: &Context,
    args: &DoctorArgs,
    format: Format,
) -> Result<u8, CommandError> {
    let folder = tempfile::Builder::new()
        .prefix(&format!("{NAME}-"))
        .tempdir()
        .map_err(|error| CommandError::internal("make a temporary folder", error))?;
    let control = Control::new("Ctrl-C");
    let _interrupts = Interrupts::listen(Reaction::Stop(control.clone()))?;
    let mut ledger = Ledger {
        format,
        control: control.clone(),
        codes: Vec::new(),
        since: Instant::now(),
    };
    let examination = Examination {
        context,
        args,
        folder: &folder,
        control: &control,
    };
    Box::pin(examination.examine(&mut ledger)).await;
    Ok(if control.is_cancelled() {
        exit_code::CANCELLED
    } else {
        exit_code::combine(ledger.codes)
    })
}

/// What was found, told as it is found.
struct Ledger {
    format: Format,
    control: Control,
    codes: Vec<u8>,
    since: Instant,
}

impl Ledger {
    /// Tells what a probe found, which took from the one before until now; nothing more once that is cancelled.
    fn tell(&mut self, probe: &str, finding: &Finding) {
        if self.control.is_cancelled() {
            return;
        }
        let took = self.since.elapsed();
        self.since = Instant::now();
        self.codes.push(finding.exit_code);
        let Finding {
            status,
            found,
            advice,
            ..
        } = finding;
        match self.format {
            Format::Json => terminal::print_json(&json!({
                "probe": probe,
                "status": status,
                "found": found,
                "advice": advice,
                "ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            })),
            Format::Text => {
                let status = match status {
                    Status::Ok => "ok",
                    Status::Warning => "warning",
                    Status::Failed => "failed",
                    Status::Skipped => "skipped",
                };
                let advice = advice.as_ref().map(|advice| format!("; {advice}"));
                let words = format!("{found}{}", advice.unwrap_or_default());
                // One line a probe, whatever an engine or an image says.
                let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
                let words = dark_factory_agents::neutralise(&words);
                terminal::print(&format!("{status:<8} {probe:<13} {words}\n"));
            }
        }
    }

    fn skip(&mut self, probes: &[&str], why: &str) {
        for probe in probes {
            self.tell(probe, &Finding::skipped(why));
        }
    }
}

/// What is examined, and with what.
struct Examination<'a> {
    context: &'a Context,
    args: &'a DoctorArgs,
    folder: &'a TempDir,
    control: &'a Control,
}

impl Examination<'_> {
    async fn examine(&self, ledger: &mut Ledger) {
        let supervisor = self.context.supervisor();
        let description = self.engine(ledger).await;
        let capabilities = description.as_ref().map(|it| it.capabilities.clone());
        let launch = Launch::find(self.context, self.args, self.folder.path(), capabilities);
        let project = launch.project.as_deref();
        let supervisor = match self.context.engine_name() {
            Ok(_) => supervisor.map_err(Finding::from),
            // Told of above; it says nothing about the state folder.
            Err(_) => Err(Finding::skipped("no engine is named")),
        };
        let opened = supervisor.as_ref();
        self.containers(ledger, description.as_ref(), opened, &launch)
            .await;
        ledger.tell("auth", &launch.auth(self.context));
        let spec = launch.resolved.as_ref().map(|resolved| &resolved.spec);
        ledger.tell("api", &local::api(self.context, spec).await);
        let guard = match opened {
            Ok(_) => local::guard(self.context).await,
            Err(_) => Finding::skipped("the state folder cannot be used"),
        };
        ledger.tell("guard", &guard);
        self.disk(ledger, description.as_ref());
        match (&supervisor, &description) {
            (Ok(supervisor), Some(_)) => {
                ledger.tell("leftovers", &doctor::leftovers(supervisor, GRACE).await);
            }
            (Err(_), _) => ledger.skip(&["leftovers"], "the state folder cannot be used"),
            (_, None) => ledger.skip(&["leftovers"], "the engine cannot be used"),
        }
        let state = match opened {
            Ok(supervisor) => doctor::state_folder(supervisor, project),
            Err(finding) => finding.clone(),
        };
        ledger.tell("state folder", &state);
        ledger.tell("daemon", &local::daemon(self.context).await);
        ledger.tell("git", &local::git(project));
        self.clock(ledger, description.as_ref()).await;
        ledger.tell("seed", &seed(project));
    }

    async fn engine(&self, ledger: &mut Ledger) -> Option<Description> {
        let named_by = match &self.context.endpoint {
            Some(endpoint) => format!("from {}", endpoint.origin),
            None if self.is_sandbox() => match self.context.names_engine() {
                true => "named as the engine".to_owned(),
                false => "nothing names an engine, and none is where Docker and Podman usually are"
                    .to_owned(),
            },
            None => "the default socket".to_owned(),
        };
        let engine = match self.context.engine() {
            Ok(engine) => engine,
            Err(error) => {
                ledger.tell("engine", &Finding::from(error));
                ledger.skip(&["version", "setup"], "no engine is named");
                return None;
            }
        };
        let mut contact = doctor::contact(engine.as_ref(), &named_by).await;
        if let Some(advice) = &mut contact.engine.advice
            && let Some(socket) = local::rootless_socket(self.context)
        {
            *advice = format!("{advice}; yours may be the rootless one: --host unix://{socket}");
        }
        ledger.tell("engine", &contact.engine);
        ledger.tell("version", &contact.version);
        match &contact.description {
            Some(description) => ledger.tell("setup", &doctor::setup(description)),
            None => ledger.skip(&["setup"], "the engine cannot be used"),
        }
        contact.description
    }

    fn is_sandbox(&self) -> bool {
        self.context.is_sandbox()
    }

    /// Returns what the bench's containers may ask for: where limits depend on who we are, what is declared; else all, to
    /// find out.
    fn asked_for(&self, description: &Description) -> Option<Capabilities> {
        self.is_sandbox().then(|| description.capabilities.clone())
    }

    fn remedies(&self) -> Remedies {
        #[cfg(target_os = "linux")]
        if self.is_sandbox() {
            return Remedies {
                refuted: "the kernel's log may say more (`dmesg`); run with RUST_LOG=debug"
                    .to_owned(),
                limits: SandboxEngine::limits_advice(),
            };
        }
        Remedies::default()
    }

    /// The probes that start containers, and those in between.
    async fn containers(
        &self,
        ledger: &mut Ledger,
        description: Option<&Description>,
        supervisor: Result<&Supervisor, &Finding>,
        launch: &Launch,
    ) {
        const OURS: [&str; 3] = ["boot", "mount", "owner"];
        const AGENTS: [&str; 2] = ["agent starts", "agent works"];
        let ground = match (description, supervisor) {
            (None, _) => Err("the engine cannot be used"),
            (_, Err(_)) => Err("the state folder cannot be used; see below"),
            (Some(description), Ok(supervisor)) => Ok((description, supervisor)),
        };
        let (description, supervisor) = match ground {
            Ok(ground) => ground,
            Err(why) => {
                if self.is_sandbox() {
                    ledger.skip(&["namespaces"], why);
                }
                ledger.skip(&["limits"], why);
                ledger.tell("prompt", &launch.prompt);
                ledger.skip(&["image"], why);
                ledger.skip(&OURS, why);
                ledger.skip(&AGENTS, why);
                return;
            }
        };
        // The probe that an engine fails that cannot start containers of ours.
        let mut culprit = "boot";
        // What a run does first: the engine must see our files, or make a sandbox.
        let probed = supervisor.probe().await;
        if self.is_sandbox() {
            ledger.tell("namespaces", &namespaces(&probed, description));
        }
        let mut bench = match probed {
            Ok(_) => Bench::set_up(
                supervisor,
                &self.context.host,
                self.control,
                self.asked_for(description),
                self.remedies(),
            )
            .map_err(|error| Finding::from(&error)),
            Err(error) if self.is_sandbox() => {
                // It was told above.
                culprit = "";
                Err(Finding::from(&error))
            }
            Err(error) => {
                if let ExecutorError::Engine(EngineError::ForeignFilesystem { .. }) = error {
                    culprit = "mount";
                }
                Err(Finding::from(&error))
            }
        };
        let image = match self.is_sandbox() {
            true => HOST.to_owned(),
            false => format!("{NAME}:{}", self.tag()),
        };
        let images = match &bench {
            Ok(_) if !self.is_sandbox() => self.import(&image).await,
            _ => Ok(()),
        };
        let was_imported = bench.is_ok() && !self.is_sandbox();
        if let Err(error) = images {
            bench = Err(Finding::from(error));
        }
        let workspace = launch.workspace.as_path();
        let spec = launch.resolved.as_ref().map(|resolved| &resolved.spec);
        let is_seed = spec.is_some_and(|spec| spec.profile == Profile::Seed);
        match &bench {
            Ok(bench) => ledger.tell(
                "limits",
                &bench.limits(&image, workspace, description).await,
            ),
            Err(_) => ledger.skip(&["limits"], "no container can be started"),
        }
        ledger.tell("prompt", &launch.prompt);
        let own_image = self.image(launch, supervisor).await;
        ledger.tell("image", &own_image);
        match &bench {
            Ok(bench) => {
                let project = spec.map_or(workspace, |spec| &spec.workspace.source);
                let user = spec.map(|spec| &spec.user);
                let Trial {
                    boot,
                    mount,
                    mut owner,
                } = bench.boot(&image, project, user).await;
                if is_seed {
                    owner = Finding::skipped(UNLIKE_SEED);
                }
                for (probe, finding) in OURS.iter().zip([boot, mount, owner]) {
                    ledger.tell(probe, &finding);
                }
            }
            Err(finding) => {
                for probe in OURS {
                    if probe == culprit {
                        ledger.tell(probe, finding);
                    } else {
                        ledger.skip(&[probe], "no container can be started");
                    }
                }
            }
        }
        match (&bench, &launch.resolved) {
            (Err(_), _) => ledger.skip(&AGENTS, "no container can be started"),
            _ if is_seed => ledger.skip(&AGENTS, UNLIKE_SEED),
            (_, None) => ledger.skip(&AGENTS, "it is not known what would be launched"),
            (Ok(_), _) if own_image.status != Status::Ok => {
                ledger.skip(&AGENTS, "there is no image");
            }
            (Ok(bench), Some(resolved)) => {
                self.agent(ledger, bench, resolved, workspace).await;
            }
        }
        if was_imported
            && let Ok(images) = self.context.images()
            && let Err(error) = images.remove_image(&image).await
        {
            let why = error.sentence();
            tell::warning(&format!("image {image} is left behind: {why}"));
        }
    }

    async fn import(&self, image: &str) -> Result<(), CommandError> {
        let images = self.context.images()?;
        Ok(images.import_image(image, image_archive()?).await?)
    }

    async fn image(&self, launch: &Launch, supervisor: &Supervisor) -> Finding {
        if let Some(finding) = &launch.image {
            return finding.clone();
        }
        let Some(resolved) = &launch.resolved else {
            return Finding::skipped("it is not known what would be launched");
        };
        let image = &resolved.spec.image;
        let engine = supervisor.engine();
        match engine
            .ensure_image(image, PullPolicy::Never, &mut |_| ())
            .await
        {
            Ok(record) => Finding::ok(format!("{image} is there: {}", record.digest)),
            Err(error @ EngineError::ImageMissing { .. }) => {
                let found = format!("{image} is not on the engine");
                match resolved.spec.pull {
                    PullPolicy::Never => Finding::failed(exit_code::ENGINE, found, error.advice()),
                    PullPolicy::Missing | PullPolicy::Always => Finding::warning(
                        format!("{found}, so a run pulls it"),
                        format!(
                            "check its name; `docker pull {image}` shows whether a registry has it"
                        ),
                    ),
                }
            }
            Err(error) if self.is_sandbox() => Finding {
                advice: Some(format!(
                    "name an image that a sandbox runs on with --image: `{HOST}`, a folder, an archive"
                )),
                ..Finding::from(error)
            },
            Err(error) => Finding::from(error),
        }
    }

    async fn agent(
        &self,
        ledger: &mut Ledger,
        bench: &Bench<'_>,
        resolved: &Resolved,
        workspace: &Path,
    ) {
        let spec = &resolved.spec;
        let Some(agent) = agent(&spec.agent) else {
            return;
        };
        if let User::Ids { uid, gid } = spec.user
            // Only root may; elsewhere the agent cannot write there, which no probe needs.
            && let Err(error) = chown(workspace, Some(uid), Some(gid))
        {
            tracing::debug!(%error, "the probes' workspace keeps its owner");
        }
        let starts = bench
            .agent_starts(agent, &spec.image, &spec.user, workspace)
            .await;
        ledger.tell("agent starts", &self.on_host(starts, &spec.image));
        let works = bench
            .agent_works(agent, &spec.image, &spec.user, workspace)
            .await;
        ledger.tell("agent works", &self.on_host(works, &spec.image));
    }

    /// Changes the advice of a failure on the machine's own system: it is no image that could be built.
    fn on_host(&self, mut finding: Finding, image: &str) -> Finding {
        if self.is_sandbox() && image == HOST && finding.status == Status::Failed {
            finding.advice = Some(
                "install it where the sandbox sees it: `host` is /usr, /bin and /lib of this machine, without homes and \
                 /opt; or name an image that has it with --image"
                    .to_owned(),
            );
        }
        finding
    }

    fn disk(&self, ledger: &mut Ledger, description: Option<&Description>) {
        let state = &self.context.state_dir;
        // A folder that is not there yet will be on the disk of the one that is to hold it.
        let state = state.ancestors().find(|path| path.exists());
        let state = state.unwrap_or(Path::new("/"));
        ledger.tell(
            "disk",
            &doctor::room(state, "the state folder", exit_code::USAGE),
        );
        let data = description.and_then(|description| description.data_dir.as_deref());
        // The sandboxes' folder is made with the first of them.
        match data.and_then(|data| data.ancestors().find(|path| path.exists())) {
            Some(data) => ledger.tell(
                "engine's disk",
                &doctor::room(data, "the engine's data folder", exit_code::ENGINE),
            ),
            None => ledger.skip(
                &["engine's disk"],
                "the engine does not say where its data is",
            ),
        }
    }

    async fn clock(&self, ledger: &mut Ledger, description: Option<&Description>) {
        let before = SystemClock.now();
        let described = match (self.context.engine(), description) {
            (Ok(engine), Some(_)) => engine.describe().await.ok(),
            _ => None,
        };
        let finding = match described {
            Some(description) => doctor::clock(before, description.time, SystemClock.now()),
            None => Finding::skipped("the engine cannot be used"),
        };
        ledger.tell("clock", &finding);
    }

    /// Returns the part of the folder's name that no other doctor has.
    fn tag(&self) -> String {
        let name = self.folder.path().file_name().unwrap_or_default();
        // Case means something in a folder's name, and is not allowed everywhere in an image's; in a tag it is.
        name.to_string_lossy()
            .rsplit('-')
            .next()
            .unwrap_or("latest")
            .to_owned()
    }
}

/// Says whether a sandbox could be made, with every wall.
fn namespaces(probed: &Result<Capabilities, ExecutorError>, description: &Description) -> Finding {
    match probed {
        Ok(Capabilities { only_user, .. }) => {
            let facts = description.facts.iter();
            let of: Vec<&str> = facts
                .filter(|(name, _)| *name == "namespaces of")
                .map(|(_, value)| value.as_str())
                .collect();
            let who = match only_user {
                None => "root needs no user namespace".to_owned(),
                Some((uid, gid)) => {
                    format!("user namespaces are allowed; agents are {uid}:{gid} and nobody else")
                }
            };
            Finding::ok(format!(
                "a sandbox was made and removed, with namespaces of {}; {who}",
                of.join(", ")
            ))
        }
        Err(error) => Finding::from(error),
    }
}

/// Says whether the project is one of the seed's.
fn seed(project: Option<&Path>) -> Finding {
    match project {
        Some(project) if project.join(SEED_CONFIG).exists() => Finding::ok(format!(
            "the project has a {SEED_CONFIG}: `profile: seed` runs its prompts as the seed does"
        )),
        Some(_) => Finding::ok(format!("the project has no {SEED_CONFIG}")),
        None => Finding::skipped("there is no project"),
    }
}
