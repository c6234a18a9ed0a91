//! Prompts in containers with names of the caller's, over Docker.
//!
//! Owns: what the seed's executor adds to a resolved prompt: the container's name, its labels, its credential files.
//! Reads: the store, for who has a name.
//! Never: supervises anything itself; see [`Supervisor`].

use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use dark_factory_executor::attempt::{Control, TimeLimit};
use dark_factory_executor::engine::{EngineError, Workload};
use dark_factory_executor::error::ExecutorError;
use dark_factory_executor::execute::Executor;
use dark_factory_executor::host::HostView;
use dark_factory_executor::prompt::Prompt;
use dark_factory_executor::resolve::{ResolveContext, Resolved, resolve};
use dark_factory_executor::settings::Settings;
use dark_factory_executor::sink::{LogFileSink, Sink};
use dark_factory_executor::spec::{Access, LaunchSpec, Mount, Profile};
use dark_factory_executor::store::{Attempt, Store, StoreError};
use dark_factory_executor::supervisor::{Recovery, Submitted, Supervisor};
use dark_factory_types::{Outcome, Report};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::builder::DockerExecutorBuilder;
use super::containers::CALLER;
use super::found::{Adopter, Found, find, prompt_base};
use crate::docker::client::Client;
use crate::docker::identity::identity;
use crate::docker::launch::{CLAUDE_DIR_TARGET, GITCONFIG_TARGET, NETRC_TARGET};

/// Runs prompts in containers of a Docker engine; the twin of the seed's `NewDockerExecutor`.
///
/// Its attempts are those of the state folder: `dark-factory ps` shows them, `recover` and `stop` work on them.
/// The guard of its containers' ways out is a process: see `dark_factory_egress`.
///
/// ```no_run
/// # async fn example(
/// #     host: dark_factory_executor::host::HostView,
/// #     helper: dark_factory_executor::state_dir::HelperExe,
/// #     guard: std::sync::Arc<dyn dark_factory_executor::egress::EgressGuard>,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// use std::path::Path;
///
/// use dark_factory_engines::docker::seed::DockerExecutor;
/// use dark_factory_executor::execute::Executor;
/// use tokio_util::sync::CancellationToken;
///
/// let executor = DockerExecutor::builder()
///     .container_image("claude:1")
///     .project_root("/home/me/p")
///     .state_dir("/home/me/.local/state/dark-factory")
///     .host(host)
///     .helper(helper)
///     .guard(guard)
///     .build()?;
/// let cancel = CancellationToken::new();
/// let log = Path::new("/home/me/p/prompts/log/042-fix.log");
/// executor.execute("Fix it.", log, "p-042-fix", &cancel).await?.into_result()?;
/// # Ok(())
/// # }
/// ```
pub struct DockerExecutor {
    pub(super) client: Client,
    pub(super) supervisor: Supervisor,
    pub(super) host: HostView,
    pub(super) settings: Settings,
    pub(super) context: ResolveContext,
    pub(super) project_name: Option<String>,
    pub(super) claude_dir_access: Access,
    pub(super) agent: String,
    pub(super) time_zone: TimeZone,
    pub(super) probed: OnceCell<()>,
}

impl fmt::Debug for DockerExecutor {
    /// Leaves the settings out: their environment may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerExecutor")
            .field("endpoint", &self.client.endpoint())
            .field("project_root", &self.host.cwd)
            .field("state_dir", &self.context.state_dir)
            .finish_non_exhaustive()
    }
}

impl DockerExecutor {
    /// Begins an executor.
    pub fn builder() -> DockerExecutorBuilder {
        DockerExecutorBuilder::default()
    }

    /// Returns the supervisor that all attempts go through.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// Makes the launch of a prompt in a container of that name.
    fn resolve(&self, prompt: &str, name: &str) -> Result<Resolved, ExecutorError> {
        let prompt = Prompt::from_text("-", prompt);
        let mut resolved = resolve(&prompt, &self.settings, &self.host, &self.context)?;
        for warning in resolved.warnings.iter().chain(&resolved.notices) {
            tracing::warn!(container = name, "{warning}");
        }
        let spec = &mut resolved.spec;
        if let Some(project) = &self.project_name {
            spec.project.clone_from(project);
        }
        spec.prompt = prompt_base(name, &spec.project).to_owned();
        spec.container = Some(name.to_owned());
        if spec.profile == Profile::Seed {
            self.add_seed_mounts(spec);
        }
        Ok(resolved)
    }

    /// Puts the credential files where the seed's lowering has them; resolving has checked them as mounts.
    fn add_seed_mounts(&self, spec: &mut LaunchSpec) {
        let mut take = |target: &str| {
            let is_it = |mount: &Mount| mount.target == target && mount.access == Access::ReadOnly;
            let index = spec.mounts.iter().position(is_it)?;
            Some(spec.mounts.remove(index).source)
        };
        spec.seed.netrc_file = take(NETRC_TARGET);
        spec.seed.gitconfig_file = take(GITCONFIG_TARGET);
        if self.claude_dir_access == Access::ReadOnly
            && let Some(source) = spec.seed.claude_dir.take()
        {
            let target = CLAUDE_DIR_TARGET.to_owned();
            spec.mounts.insert(
                0,
                Mount {
                    source,
                    target,
                    access: Access::ReadOnly,
                },
            );
        }
    }

    fn log_file(&self, path: &Path) -> std::io::Result<LogFileSink> {
        LogFileSink::create(path, self.time_zone.clone())
    }

    /// Makes sure, once, that the engine can be used and sees our files.
    async fn probe(&self) -> Result<(), ExecutorError> {
        self.probed
            .get_or_try_init(|| async { self.supervisor.probe().await.map(drop) })
            .await
            .map(drop)
    }

    /// Brings an attempt that the store knows to its outcome, and fills the log from its first byte.
    async fn follow(
        &self,
        attempt: Attempt,
        log_file: &Path,
        name: &str,
        limit: Option<Duration>,
    ) -> Result<Outcome, ExecutorError> {
        if let Some(report) = &attempt.report {
            let sink = self
                .log_file(log_file)
                .map_err(ExecutorError::ReattachLogFile)?;
            self.copy_raw_log(&attempt, report.finished_at, sink)
                .await?;
            return Ok(outcome(report));
        }
        let supervised = || ExecutorError::AlreadyRunning {
            file: name.to_owned(),
            run: attempt.id.run(),
        };
        // Before the log is truncated, which its supervisor may be writing.
        if self.supervisor.is_supervised(attempt.id)? {
            return Err(supervised());
        }
        let sink = self
            .log_file(log_file)
            .map_err(ExecutorError::ReattachLogFile)?;
        let control = control(limit);
        match self
            .supervisor
            .recover(attempt.id, vec![Box::new(sink)], &control, &|_| {})
            .await?
        {
            Recovery::Finished(report) => Ok(outcome(&report)),
            Recovery::Supervised(_) => Err(supervised()),
            Recovery::Failed(_, error) => Err(error),
        }
    }

    /// Fills a log from the raw log of a finished attempt; its times are gone, so all lines have that of the end.
    async fn copy_raw_log(
        &self,
        attempt: &Attempt,
        at: Timestamp,
        mut sink: LogFileSink,
    ) -> Result<(), ExecutorError> {
        let (id, raw_log) = (
            attempt.id,
            self.supervisor.state_dir().attempt(attempt.id).raw_log(),
        );
        let copied = tokio::task::spawn_blocking(move || {
            let mut raw_log = BufReader::with_capacity(1 << 20, File::open(raw_log)?);
            loop {
                let bytes = raw_log.fill_buf()?;
                if bytes.is_empty() {
                    return Ok(sink.finish());
                }
                sink.stdout(bytes, at);
                let length = bytes.len();
                raw_log.consume(length);
            }
        });
        let doubt = copied.await?.map_err(|source| ExecutorError::Output {
            attempt: id,
            source,
        })?;
        if let Some(doubt) = doubt {
            tracing::warn!(attempt = %id, "{doubt}");
        }
        Ok(())
    }

    fn adopter(
        &self,
        max_prompt_duration: Option<Duration>,
        engine: Option<String>,
    ) -> Adopter<'_> {
        Adopter {
            engine,
            agent: &self.agent,
            project_root: &self.host.cwd,
            max_prompt_duration,
        }
    }

    async fn run(
        &self,
        submitted: Submitted,
        sink: LogFileSink,
        control: &Control,
    ) -> Result<Outcome, ExecutorError> {
        let report = self
            .supervisor
            .run(submitted, vec![Box::new(sink)], control, &|_| {})
            .await?;
        Ok(outcome(&report))
    }
}

#[async_trait]
impl Executor for DockerExecutor {
    async fn execute(
        &self,
        prompt: &str,
        log_file: &Path,
        name: &str,
        cancel: &CancellationToken,
    ) -> Result<Outcome, ExecutorError> {
        let resolved = self.resolve(prompt, name)?;
        let sink = self.log_file(log_file).map_err(ExecutorError::LogFile)?;
        self.probe().await?;
        let submitted = self.supervisor.submit(&resolved).await?;
        let control = Control::with_token(CALLER, cancel.clone());
        self.run(submitted, sink, &control).await
    }

    async fn reattach(
        &self,
        log_file: &Path,
        name: &str,
        max_prompt_duration: Option<Duration>,
    ) -> Result<Outcome, ExecutorError> {
        let store = self.supervisor.store();
        let Some(found) = find(&self.client, name).await? else {
            let last = store.of_container(name).await?.pop();
            let attempt = last.ok_or_else(|| EngineError::NoSuchContainer {
                name: name.to_owned(),
            })?;
            return self
                .follow(attempt, log_file, name, max_prompt_duration)
                .await;
        };
        if let Some(attempt) = known(store, &found, name).await? {
            return self
                .follow(attempt, log_file, name, max_prompt_duration)
                .await;
        }
        found.check_ours()?;
        let engine = Box::pin(identity(&self.client)).await?.id;
        let adoptable = found.adoptable(&self.adopter(max_prompt_duration, engine))?;
        let sink = self
            .log_file(log_file)
            .map_err(ExecutorError::ReattachLogFile)?;
        let submitted = self.supervisor.adopt(adoptable).await?;
        self.run(submitted, sink, &control(max_prompt_duration))
            .await
    }

    async fn stop_and_remove_container(&self, name: &str) -> Result<(), ExecutorError> {
        let store = self.supervisor.store();
        let found = find(&self.client, name).await?;
        let attempt = match &found {
            Some(found) => {
                found.check_ours()?;
                known(store, found, name).await?
            }
            None => store.of_container(name).await?.pop(),
        };
        let mut policy = found.as_ref().map(Found::stop_policy);
        if let Some(attempt) = attempt
            && attempt.report.is_none()
        {
            self.supervisor.stop(attempt.id.run(), CALLER, None).await?;
            policy = policy.map(|_| attempt.spec.stop);
        }
        // Of an attempt of ours it is gone by now, and both are no errors then.
        if let (Some(found), Some(policy)) = (found, policy) {
            let workload = found.workload();
            workload.stop(&policy).await?;
            workload.remove().await?;
        }
        Ok(())
    }
}

/// Returns the attempt that has this very container, if the store knows it.
pub(super) async fn known(
    store: &Store,
    found: &Found,
    name: &str,
) -> Result<Option<Attempt>, StoreError> {
    if let Some(id) = found.made_for(store.owner())
        && let Some(attempt) = store.attempt(id).await?
    {
        return Ok(Some(attempt));
    }
    let attempts = store.of_container(name).await?;
    Ok(attempts
        .into_iter()
        .rev()
        .find(|attempt| found.is_of(attempt)))
}

fn control(limit: Option<Duration>) -> Control {
    let mut control = Control::new(CALLER);
    control.time_limit = TimeLimit::Instead(limit);
    control
}

fn outcome(report: &Report) -> Outcome {
    Outcome::new(report.outcome, report.cause.clone())
}
