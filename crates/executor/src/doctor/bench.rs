//! Containers of ours, launched as every run is, whose records go with the bench.
//!
//! Owns: their launch, and the file that one of them writes into the project.
//! Reads: their reports and logs.
//! Never: takes a slot of a project, or leaves a container behind that `prune` does not find.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dark_factory_types::{
    ByteSize, CpuCount, ExitStatus, LogState, NetworkMode, Report, exit_code,
};
use uuid::Uuid;

use super::Finding;
use crate::attempt::{Control, OnSilence};
use crate::engine::{Capabilities, Description, LimitKind};
use crate::error::ExecutorError;
use crate::host::HostView;
use crate::prompt::Prompt;
use crate::resolve::{ResolveContext, resolve};
use crate::settings::{Limit, Settings, Sourced, UserSetting};
use crate::spec::{CONTAINER_INIT, PullPolicy, User};
use crate::supervisor::{ShortLived, Supervisor};

/// What a probe's container is named after.
const NAME: &str = "dark-factory-doctor";
const PROMPT: &str = "A probe of `dark-factory doctor`.\n";
/// How long a probe's container may run.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The code with which the boot probe's process ends: none that stands for anything else.
const CODE: i32 = 42;

/// Limits that are tried. The processes are more than the helper and the agent have.
const MEMORY: ByteSize = ByteSize(64 << 20);
const PIDS: u32 = 32;
const CPUS: CpuCount = CpuCount { nanos: 500_000_000 };
/// Half a CPU, as a cgroup has it: of 100 ms.
const QUOTA: &str = "50000";

/// What a container is started for.
pub(super) struct Launch<'a> {
    pub(super) image: &'a str,
    pub(super) project: &'a Path,
    /// Who it runs as; `None` is the project's owner.
    pub(super) user: Option<&'a User>,
    pub(super) argv: Vec<String>,
    pub(super) limits: Settings,
}

/// What a container came to.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) report: Report,
    pub(super) stdout: String,
    pub(super) stderr: String,
    user: User,
}

/// Where probes start their containers.
#[derive(Debug)]
pub struct Bench<'a> {
    supervisor: ShortLived,
    context: ResolveContext,
    host: &'a HostView,
    control: &'a Control,
    remedies: Remedies,
}

/// What to do about what an engine fails, which depends on the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedies {
    /// About a container that does not do what it should.
    pub refuted: String,
    /// About limits that are not kept.
    pub limits: String,
}

impl Default for Remedies {
    /// What an engine with a daemon needs.
    fn default() -> Self {
        Self {
            refuted: "the engine's log says more (`journalctl -u docker` or `-u podman`)".to_owned(),
            limits: "the kernel needs its memory, pids and cpu cgroups: on Debian add `cgroup_enable=memory swapaccount=1` to \
                     its command line; a rootless engine needs them delegated to its user by systemd"
                .to_owned(),
        }
    }
}

/// What one container showed about starting, mounting and owning.
#[derive(Debug)]
pub struct Trial {
    /// Whether it starts and ends as it should, with all of its output.
    pub boot: Finding,
    /// Whether the project is what it sees, and may write to.
    pub mount: Finding,
    /// Whether what it writes has the right owner.
    pub owner: Finding,
}

impl<'a> Bench<'a> {
    /// Sets a bench up on a supervisor's engine; cancelling `control` ends what runs on it.
    ///
    /// With `capabilities`, its containers ask for nothing that the engine says that it lacks.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::StateDir`] or [`ExecutorError::Store`].
    pub fn set_up(
        supervisor: &Supervisor,
        host: &'a HostView,
        control: &'a Control,
        capabilities: Option<Capabilities>,
        remedies: Remedies,
    ) -> Result<Self, ExecutorError> {
        Ok(Self {
            supervisor: supervisor.short_lived()?,
            context: ResolveContext {
                capabilities,
                ..ResolveContext::new(supervisor.state_dir().path().to_owned())
            },
            host,
            control,
            remedies,
        })
    }

    /// Tries whether the host keeps a limit on memory, processes and CPU time, in a container of `image` that has
    /// `project` as its workspace and touches nothing in it. Of an engine whose capabilities are known, those are tried
    /// that it says that it keeps; that there are others is a warning.
    pub async fn limits(&self, image: &str, project: &Path, description: &Description) -> Finding {
        let declared = &description.capabilities.limits;
        let is_tried = |limit| self.context.capabilities.is_none() || declared.contains(&limit);
        let more = "fork sleep 1m\n".repeat(usize::try_from(PIDS).unwrap_or_default() + 8);
        let script = format!(
            "read /sys/fs/cgroup/cpu.max\nread /sys/fs/cgroup/cpu/cpu.cfs_quota_us\n{more}\
             print allocating\nallocate {}\nprint allocated\n",
            MEMORY.0 * 2
        );
        let launch = Launch {
            image,
            project,
            user: None,
            argv: scripted(&script),
            limits: Settings {
                memory: is_tried(LimitKind::Memory)
                    .then(|| Sourced::flag("--memory", Limit::At(MEMORY))),
                pids: is_tried(LimitKind::Pids).then(|| Sourced::flag("--pids", Limit::At(PIDS))),
                cpus: is_tried(LimitKind::Cpus).then(|| Sourced::flag("--cpus", Limit::At(CPUS))),
                ..Settings::default()
            },
        };
        let ran = match Box::pin(self.run(launch)).await {
            Ok(ran) => ran,
            Err(error) => return Finding::from(&error),
        };
        if !ran.stdout.contains("allocating\n") {
            return ran.refuted(&self.remedies);
        }
        let keeps_cpus = match ran.stdout.split("allocating").next() {
            // No cgroup of its own can be read in there: the engine's word counts.
            None | Some("") => declared.contains(&LimitKind::Cpus),
            Some(quota) => quota.contains(QUOTA),
        };
        let limits = [
            (
                LimitKind::Memory,
                "memory with swap",
                !ran.stdout.contains("allocated\n"),
            ),
            (LimitKind::Pids, "processes", ran.stderr.contains("fork: ")),
            (LimitKind::Cpus, "CPU time", keeps_cpus),
        ];
        let named = |wanted: &dyn Fn(LimitKind, bool) -> bool| {
            let names = limits
                .iter()
                .filter(|(limit, _, is_kept)| wanted(*limit, *is_kept));
            names
                .map(|(_, name, _)| *name)
                .collect::<Vec<_>>()
                .join(", ")
        };
        let broken = named(&|limit, is_kept| is_tried(limit) && !is_kept);
        let lacking = named(&|limit, _| !is_tried(limit));
        let kept = named(&|limit, is_kept| is_tried(limit) && is_kept);
        let advice = self.remedies.limits.clone();
        match (broken.as_str(), lacking.as_str()) {
            ("", "") => {
                Finding::ok("memory with swap, processes and CPU time are kept within limits")
            }
            ("", lacking) if kept.is_empty() => {
                Finding::warning(format!("no limit is kept on {lacking}"), advice)
            }
            ("", lacking) => Finding::warning(
                format!("{kept} are kept within limits; no limit is kept on {lacking}"),
                advice,
            ),
            (broken, _) => Finding::failed(
                exit_code::ENGINE,
                format!("no limit is kept on {broken}"),
                Some(advice),
            ),
        }
    }

    /// Starts a container of `image` that writes a file into `project` as `user`, else as its owner, and ends.
    pub async fn boot(&self, image: &str, project: &Path, user: Option<&User>) -> Trial {
        let word = Uuid::new_v4().simple().to_string();
        let file = ProbeFile(project.join(format!(".{NAME}-{word}")));
        let name = file.name();
        let script = format!("write {name} {word}\nprint {word}\nexit {CODE}\n");
        let launch = Launch {
            image,
            project,
            user,
            argv: scripted(&script),
            limits: Settings::default(),
        };
        let before = self.supervisor.supervisor().clock().moment();
        let ran = match Box::pin(self.run(launch)).await {
            Ok(ran) => ran,
            Err(error) => {
                let skipped = || Finding::skipped("no container could be started");
                return Trial {
                    boot: Finding::from(&error),
                    mount: skipped(),
                    owner: skipped(),
                };
            }
        };
        let took = before.until(&self.supervisor.supervisor().clock().moment());
        let (mount, owner) = file.look(&ran, &word);
        Trial {
            boot: ran.boot(&word, took, &self.remedies),
            mount,
            owner,
        }
    }

    /// Launches a container as every run is launched, but for the project's label, and waits for its end.
    pub(super) async fn run(&self, launch: Launch<'_>) -> Result<Ran, ExecutorError> {
        let user = match launch.user {
            Some(User::Ids { uid, gid }) => Some(Sourced::flag(
                "--user",
                UserSetting::Ids {
                    uid: *uid,
                    gid: Some(*gid),
                },
            )),
            _ => None,
        };
        let text = |flag, value: &str| Some(Sourced::flag(flag, value.to_owned()));
        let settings = Settings {
            agent: text("--agent", "command"),
            image: text("--image", launch.image),
            project: text("--project", &launch.project.to_string_lossy()),
            command: Some(Sourced::flag("--", launch.argv)),
            user,
            network: Some(Sourced::flag("--network", NetworkMode::None)),
            pull: Some(Sourced::flag("--pull", PullPolicy::Never)),
            timeout: Some(Sourced::flag("--timeout", Limit::At(TIMEOUT))),
            ..launch.limits
        };
        // Not a file: nothing of the user's is named by it, and several may be probed at once.
        let prompt = Prompt::from_text("-", PROMPT);
        let mut resolved = resolve(&prompt, &settings, self.host, &self.context)?;
        resolved.spec.project = String::new();
        resolved.spec.prompt = NAME.to_owned();
        let user = resolved.spec.user.clone();

        let supervisor = self.supervisor.supervisor();
        let submitted = supervisor.submit(&resolved).await?;
        let dir = submitted.dir().clone();
        let mut control = self.control.clone();
        control.on_silence = OnSilence::LeaveOpen;
        let report = supervisor
            .run(submitted, Vec::new(), &control, &|_| ())
            .await?;
        let read = |path: PathBuf| {
            let bytes = fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Ok(Ran {
            report,
            stdout: read(dir.raw_log()),
            stderr: read(dir.stderr_log()),
            user,
        })
    }
}

impl Ran {
    /// Returns how the main process ended.
    pub(super) fn status(&self) -> Option<ExitStatus> {
        self.report.exit.map(|exit| exit.status)
    }

    /// Returns why it ended so, with the first of its last words.
    pub(super) fn cause(&self) -> String {
        let words = self.stderr.lines().chain(self.stdout.lines());
        match words.map(str::trim).find(|line| !line.is_empty()) {
            Some(line) => {
                let line: String = line.chars().take(200).collect();
                format!("{}: {line}", self.report.cause)
            }
            None => self.report.cause.clone(),
        }
    }

    /// Returns the finding for a container of ours that did not do what it was to do.
    fn refuted(&self, remedies: &Remedies) -> Finding {
        Finding::failed(
            exit_code::ENGINE,
            self.cause(),
            Some(remedies.refuted.clone()),
        )
    }

    fn boot(&self, word: &str, took: Duration, remedies: &Remedies) -> Finding {
        if self.status() != Some(ExitStatus::Code(CODE)) {
            return self.refuted(remedies);
        }
        if self.report.log != LogState::Complete || self.stdout != format!("{word}\n") {
            return Finding::failed(
                exit_code::INTERNAL,
                "a container ran, and not all of its output arrived",
                Some("this is a bug of ours: report it, with the versions of both".to_owned()),
            );
        }
        Finding::ok(format!(
            "a container started, ended with the code it should, and its log is complete, in {:.1} s",
            took.as_secs_f64()
        ))
    }
}

/// The file that a probe's container writes; gone with the value.
#[derive(Debug)]
struct ProbeFile(PathBuf);

impl ProbeFile {
    fn name(&self) -> String {
        let name = self.0.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Says whether what the container wrote is here, and whose it is.
    fn look(&self, ran: &Ran, word: &str) -> (Finding, Finding) {
        let project = self.0.parent().unwrap_or(&self.0).display();
        let user = &ran.user;
        let Some(owner) = self.owner_if_it_says(word) else {
            let mount = match ran.stderr.lines().next() {
                Some(why) => Finding::failed(
                    exit_code::USAGE,
                    format!("{project} cannot be written to as {user}: {why}"),
                    Some(
                        "give it to whom the agent runs as, or name another with --user".to_owned(),
                    ),
                ),
                None => Finding::failed(
                    exit_code::ENGINE,
                    format!("what a container writes to its workspace is not in {project}"),
                    Some("the engine must run on this machine and see its files".to_owned()),
                ),
            };
            return (mount, Finding::skipped("nothing was written"));
        };
        let mount = Finding::ok(format!(
            "{project} is what a container sees, and it may write to it"
        ));
        let owner = if owner == *user {
            Finding::ok(format!("what a container writes belongs to {user}"))
        } else {
            Finding::failed(
                exit_code::ENGINE,
                format!("what a container writes as {user} belongs to {owner} here"),
                Some(
                    "the engine gives its containers other user ids (userns-remap, or rootless): switch that off, or \
                     name with --user the id that becomes yours"
                        .to_owned(),
                ),
            )
        };
        (mount, owner)
    }

    fn owner_if_it_says(&self, word: &str) -> Option<User> {
        let content = fs::read_to_string(&self.0).ok()?;
        let found = fs::metadata(&self.0).ok()?;
        (content == word).then(|| User::Ids {
            uid: found.uid(),
            gid: found.gid(),
        })
    }
}

impl Drop for ProbeFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.0.display(), "the file of a probe stays");
        }
    }
}

/// Runs a script in the helper that every container of ours has, whatever its image.
fn scripted(script: &str) -> Vec<String> {
    [CONTAINER_INIT, "agent", "-e", script]
        .map(str::to_owned)
        .into()
}
