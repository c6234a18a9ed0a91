//! The names of the Go seed's package `executor`, each with what it is here; `docs/seed.md` says what differs.
//!
//! Each name has an example of its own, which the tests compile and run, on a real engine where it needs one. In the
//! order in which a program meets them:
//!
//! 1. what a container is made of: [`ContainerLaunchOpts`], [`ExtraMount`], [`HostView`], [`ENV_MANAGED_MARKER`];
//! 2. the two ways to make it: [`build_docker_run_args`] and [`create_body`], with [`insert_prompt_mount`];
//! 3. a project's launches (the seed's `launchpolicy` and `claudeargv`): [`Profile`], [`launch_opts`],
//!    [`check_claude_auth`];
//! 4. running prompts: [`Executor`], [`DockerExecutor`], [`DockerExecutorBuilder`], [`CancellationToken`],
//!    [`Outcome`], [`Clock`];
//! 5. containers by name: [`ContainerChecker`], [`ContainerCounter`], [`ContainerStopper`], and [`EngineError`] for an
//!    engine that does not say;
//! 6. what an agent said: [`Formatter`], [`parse_completion_report`], [`CompletionReport`].
//!
//! # What is not here
//!
//! The seed's second backend runs `claude` on the host itself (`NewLocalSubprocessExecutor`, its checker and stopper,
//! `NewNoopContainerCounter`, `ErrClaudeNotFound`, `ErrReattachUnsupported`). An agent that nothing keeps in is what
//! this project is there to prevent, so there is no such backend, and nothing falls back to one: an engine that is away
//! is an error.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::collections::BTreeMap;
//!
//! use dark_factory::engines::docker::DockerEndpoint;
//! use dark_factory::seed::{ContainerCounter, DockerContainerCounter, EngineError};
//!
//! let nobody = DockerEndpoint::resolve(Some("unix:///nowhere/docker.sock"), &BTreeMap::new())?;
//!
//! let counted = DockerContainerCounter::new(&nobody).count_running().await;
//!
//! assert!(matches!(counted, Err(EngineError::Unreachable { .. })));
//! # Ok(())
//! # }
//! ```

/// The seed's check of Claude's credentials.
///
/// ```
/// use std::path::Path;
///
/// use dark_factory::seed::check_claude_auth;
///
/// let read = |_: &Path| Ok(br#"{"claudeAiOauth": {"accessToken": "t"}}"#.to_vec());
///
/// check_claude_auth(&[].into(), &[].into(), Path::new("/home/me/.claude-yolo"), &read)?;
/// # Ok::<(), dark_factory::seed::AuthError>(())
/// ```
#[doc(inline)]
pub use dark_factory_agents::check_claude_auth;

/// The seed's error of that check, in its words.
///
/// ```
/// use std::path::Path;
///
/// use dark_factory::seed::{AuthError, check_claude_auth};
///
/// let read = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
///
/// let refused = check_claude_auth(&[].into(), &[].into(), Path::new("/c"), &read);
///
/// assert!(matches!(&refused, Err(AuthError::SeedToken { .. })));
/// let text = refused.unwrap_err().to_string();
/// assert!(text.contains("Claude OAuth token missing or expired in /c"), "{text}");
/// ```
#[doc(inline)]
pub use dark_factory_agents::AuthError;

/// The seed's `formatter.Formatter`.
///
/// ```
/// use dark_factory::seed::Formatter;
/// use jiff::civil::time;
/// use jiff::tz::TimeZone;
///
/// let stream = br#"{"type":"assistant","message":{"content":[{"type":"text","text":"Hello."}]}}"#;
/// let (mut raw, mut formatted) = (Vec::new(), Vec::new());
///
/// let noon = || time(12, 0, 0, 0);
/// Formatter::new(TimeZone::UTC).process_stream(&stream[..], &mut raw, &mut formatted, &noon)?;
///
/// assert_eq!(raw, stream);
/// assert_eq!(formatted, b"[12:00:00] Hello.\n");
/// # Ok::<(), std::io::Error>(())
/// ```
#[doc(inline)]
pub use dark_factory_agents::Formatter;

/// The seed's reader of completion reports.
///
/// ```
/// use dark_factory::seed::{ReportStatus, parse_completion_report};
///
/// let said = "Done.\n<!-- DARK-FACTORY-REPORT\n{\"status\": \"success\"}\nDARK-FACTORY-REPORT -->\n";
///
/// let report = parse_completion_report(said).expect("there is one")?;
///
/// assert_eq!(report.status, ReportStatus::Success);
/// assert!(parse_completion_report("Done.").is_none());
/// # Ok::<(), dark_factory::agents::ReportError>(())
/// ```
#[doc(inline)]
pub use dark_factory_agents::parse_completion_report;

/// The seed's markers around a completion report.
///
/// ```
/// use dark_factory::seed::{REPORT_END, REPORT_START, parse_completion_report};
///
/// let said = format!("{REPORT_START} {{\"status\": \"failed\"}} {REPORT_END}");
///
/// assert!(parse_completion_report(&said).is_some());
/// ```
#[doc(inline)]
pub use dark_factory_agents::{REPORT_END, REPORT_START};

/// The seed's completion report.
///
/// ```
/// use dark_factory::seed::{CompletionReport, ReportStatus, parse_completion_report};
///
/// let said = r#"<!-- DARK-FACTORY-REPORT
/// {"status": "success", "verification": {"command": "make test", "exitCode": 2}}
/// DARK-FACTORY-REPORT -->"#;
///
/// let report: CompletionReport = parse_completion_report(said).expect("there is one")?;
///
/// assert_eq!(report.status, ReportStatus::Partial, "what failed its own check is no success");
/// # Ok::<(), dark_factory::agents::ReportError>(())
/// ```
#[doc(inline)]
pub use dark_factory_types::{CompletionReport, ReportStatus, Verification};

/// The seed's `ContainerLaunchOpts`.
///
/// ```
/// use dark_factory::seed::{ContainerLaunchOpts, HostView, build_docker_run_args};
///
/// let opts = ContainerLaunchOpts {
///     container_name: "n".to_owned(),
///     container_image: "img:1".to_owned(),
///     project_name: "p".to_owned(),
///     memory_limit: "8g".to_owned(),
///     ..ContainerLaunchOpts::default()
/// };
///
/// let argv = build_docker_run_args(&opts, &HostView::default()).argv;
///
/// assert!(argv.windows(2).any(|flag| flag == ["--memory", "8g"]));
/// ```
#[doc(inline)]
pub use dark_factory_engines::docker::launch::ContainerLaunchOpts;

/// The seed's `BuildDockerRunArgs`.
///
/// ```
/// use dark_factory::seed::{ContainerLaunchOpts, HostView, build_docker_run_args};
///
/// let opts = ContainerLaunchOpts {
///     container_name: "n".to_owned(),
///     container_image: "img:1".to_owned(),
///     project_name: "p".to_owned(),
///     ..ContainerLaunchOpts::default()
/// };
///
/// let launch = build_docker_run_args(&opts, &HostView::default());
///
/// assert_eq!(
///     launch.argv.join(" "),
///     "run --rm --name n --label dark-factory.project=p \
///      --add-host=host.docker.internal:host-gateway -e DARK_FACTORY_MANAGED=true img:1"
/// );
/// ```
#[doc(inline)]
pub use dark_factory_engines::docker::launch::build_docker_run_args;

/// What the seed's `BuildDockerRunArgs` returns, and what it keeps to itself.
///
/// ```
/// use dark_factory::seed::{
///     ContainerLaunchOpts, ExtraMount, HostView, LaunchArgs, SkippedMount, build_docker_run_args,
/// };
///
/// let opts = ContainerLaunchOpts {
///     extra_mounts: vec![ExtraMount {
///         src: "/nowhere".to_owned(),
///         dst: "/docs".to_owned(),
///         ..ExtraMount::default()
///     }],
///     ..ContainerLaunchOpts::default()
/// };
///
/// let LaunchArgs { argv, skipped_mounts } = build_docker_run_args(&opts, &HostView::default());
///
/// assert!(!argv.contains(&"-v".to_owned()));
/// let [SkippedMount { src, .. }] = &skipped_mounts[..] else { panic!("it is told") };
/// assert_eq!(src, "/nowhere");
/// ```
#[doc(inline)]
pub use dark_factory_engines::docker::launch::{LaunchArgs, SkippedMount};

/// What the seed has not: the same container as a request of the Engine API.
///
/// ```
/// use dark_factory::seed::{ContainerLaunchOpts, HostView, create_body};
///
/// let opts = ContainerLaunchOpts {
///     container_image: "img:1".to_owned(),
///     memory_limit: "64m".to_owned(),
///     ..ContainerLaunchOpts::default()
/// };
///
/// let request = create_body(&opts, &HostView::default())?.body;
///
/// let host_config = request.host_config.expect("it has one");
/// assert_eq!(host_config.memory, Some(64 << 20));
/// assert_eq!(host_config.auto_remove, None, "the engine would take the exit with it");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(inline)]
pub use dark_factory_engines::docker::launch::create_body;

/// The seed's mount of the prompt.
///
/// ```
/// use dark_factory::seed::{PROMPT_MOUNT_TARGET, insert_prompt_mount};
///
/// let argv = ["run", "--entrypoint", "sh", "img:1", "-c", "x"].map(str::to_owned);
///
/// let with_prompt = insert_prompt_mount(&argv, "/tmp/prompt-1.md", "img:1");
///
/// assert_eq!(with_prompt[3..6], ["-v", "/tmp/prompt-1.md:/tmp/prompt.md:ro", "img:1"]);
/// assert_eq!(PROMPT_MOUNT_TARGET, "/tmp/prompt.md");
/// ```
#[doc(inline)]
pub use dark_factory_engines::docker::launch::{PROMPT_MOUNT_TARGET, insert_prompt_mount};

/// The seed's `EnvManagedMarker`.
///
/// ```
/// use dark_factory::seed::{
///     ContainerLaunchOpts, ENV_MANAGED_MARKER, HostView, build_docker_run_args,
/// };
///
/// let opts = ContainerLaunchOpts {
///     env: [(ENV_MANAGED_MARKER.to_owned(), "no".to_owned())].into(),
///     ..ContainerLaunchOpts::default()
/// };
///
/// let argv = build_docker_run_args(&opts, &HostView::default()).argv;
///
/// assert!(argv.contains(&"DARK_FACTORY_MANAGED=true".to_owned()));
/// ```
#[doc(inline)]
pub use dark_factory_engines::docker::launch::ENV_MANAGED_MARKER;

/// The seed's `launchpolicy.Policy.BuildOpts`, with `claudeargv.EnvOverlay`.
///
/// ```
/// use dark_factory::executor::prompt::Prompt;
/// use dark_factory::executor::resolve::{ResolveContext, resolve};
/// use dark_factory::executor::settings::Settings;
/// use dark_factory::seed::{HostView, launch_opts};
/// use dark_factory::types::{OwnerId, RunId};
///
/// let project = tempfile::tempdir()?;
/// let host = HostView { cwd: project.path().to_owned(), ..HostView::default() };
/// let prompt = b"---\nprofile: seed\nimage: yolo:1\nmodel: m\n\
///     env: {ANTHROPIC_BASE_URL: 'http://proxy', ANTHROPIC_AUTH_TOKEN: t}\n---\nDo it.\n";
/// let prompt = Prompt::parse("042-fix.md", prompt)?;
/// let context = ResolveContext::new("/nowhere/state".into());
/// let spec = resolve(&prompt, &Settings::default(), &host, &context)?.spec;
///
/// let attempt = RunId::from_random_bits(7).attempt(1);
/// let opts = launch_opts(&spec, attempt, &OwnerId("me".to_owned()), &host);
///
/// assert_eq!(opts.cap_add, ["NET_ADMIN", "NET_RAW"]);
/// assert_eq!(opts.env["ANTHROPIC_MODEL"], "m");
/// assert_eq!(opts.env["YOLO_OUTPUT"], "json");
/// assert_eq!(opts.env["YOLO_PROMPT_FILE"], "/tmp/prompt.md");
/// assert_eq!(opts.extra_labels["dark-factory.prompt"], "042-fix");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(inline)]
pub use dark_factory_engines::docker::launch_opts;

/// The seed's `launchpolicy.Policy` is one of two named profiles.
///
/// ```
/// use dark_factory::seed::{DockerExecutor, Profile};
///
/// // The seed's container is chosen by name; the default is the hardened one.
/// let builder = DockerExecutor::builder().profile(Profile::seed());
///
/// assert_eq!(Profile::seed(), Profile::Seed);
/// assert_eq!(Profile::default(), Profile::hardened());
/// # drop(builder);
/// ```
#[doc(inline)]
pub use dark_factory_executor::spec::Profile;

/// The seed's `NewDockerContainerChecker`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::collections::BTreeMap;
/// use std::time::Duration;
///
/// use dark_factory::engines::docker::DockerEndpoint;
/// use dark_factory::seed::{ContainerChecker, DockerContainerChecker, WaitError};
///
/// let checker = DockerContainerChecker::new(&DockerEndpoint::resolve(None, &BTreeMap::new())?);
///
/// assert!(!checker.is_running("p-042-nobody-has-this-name").await?);
/// let waited = checker
///     .wait_until_running("p-042-nobody-has-this-name", Duration::from_millis(1))
///     .await;
/// assert!(matches!(waited, Err(WaitError::Timeout { .. })));
/// # Ok(())
/// # }
/// ```
#[doc(inline)]
pub use dark_factory_engines::docker::seed::DockerContainerChecker;

/// The seed's `NewDockerContainerCounter`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::collections::BTreeMap;
///
/// use dark_factory::engines::docker::DockerEndpoint;
/// use dark_factory::seed::{ContainerCounter, DockerContainerCounter};
///
/// let counter = DockerContainerCounter::new(&DockerEndpoint::resolve(None, &BTreeMap::new())?);
///
/// let slots_taken = counter.count_running().await?;
/// # assert!(slots_taken < usize::MAX);
/// # Ok(())
/// # }
/// ```
#[doc(inline)]
pub use dark_factory_engines::docker::seed::DockerContainerCounter;

/// The seed's `NewDockerContainerStopper`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::collections::BTreeMap;
///
/// use dark_factory::engines::docker::DockerEndpoint;
/// use dark_factory::seed::{ContainerStopper, DockerContainerStopper};
///
/// let stopper = DockerContainerStopper::new(&DockerEndpoint::resolve(None, &BTreeMap::new())?);
///
/// // One that is not there is stopped already; one that neither tool made would be refused.
/// stopper.stop_container("p-042-nobody-has-this-name").await?;
/// # Ok(())
/// # }
/// ```
#[doc(inline)]
pub use dark_factory_engines::docker::seed::DockerContainerStopper;

/// The seed's `NewDockerExecutor`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use dark_factory::HELPER;
/// use dark_factory::executor::settings::{Settings, Sourced};
/// use dark_factory::seed::{CancellationToken, DockerExecutor, Executor, HostView};
///
/// # let folder = tempfile::tempdir()?;
/// # let (project, state_dir) = (folder.path().join("project"), folder.path().join("state"));
/// # std::fs::create_dir(&project)?;
/// # let image = std::env::var("DARK_FACTORY_TEST_AGENT_IMAGE")?;
/// let command = ["/bin/agent", "-e", "print hello"].map(str::to_owned).to_vec();
/// let executor = DockerExecutor::builder()
///     .container_image(image)
///     .project_root(&project)
///     .state_dir(&state_dir)
///     .host(HostView::default())
///     .helper(HELPER)
///     .agent("command")
///     .settings(Settings {
///         command: Some(Sourced::flag("command", command)),
///         ..Settings::default()
///     })
///     .build()?;
/// let log = project.join("log/042-fix.log");
/// # let name = format!("seed-example-{}", std::process::id());
///
/// let outcome = executor
///     .execute("Say hello.", &log, &name, &CancellationToken::new())
///     .await?;
///
/// outcome.into_result()?;
/// assert_eq!(std::fs::read_to_string(log.with_extension("jsonl"))?, "hello\n");
/// # Ok(())
/// # }
/// ```
#[doc(inline)]
pub use dark_factory_engines::docker::seed::DockerExecutor;

/// The inputs of the seed's `NewDockerExecutor` and of its `launchpolicy.Policy`.
///
/// ```
/// use dark_factory::HELPER;
/// use dark_factory::engines::docker::seed::BuildError;
/// use dark_factory::seed::{DockerExecutor, DockerExecutorBuilder, HostView};
///
/// let builder: DockerExecutorBuilder = DockerExecutor::builder()
///     .container_image("claude:1")
///     .project_root("/home/me/p")
///     .host(HostView::default())
///     .helper(HELPER);
///
/// let missing = builder.build();
///
/// assert!(matches!(missing, Err(BuildError::Missing { input: "state_dir" })));
/// ```
#[doc(inline)]
pub use dark_factory_engines::docker::seed::DockerExecutorBuilder;

/// The seed's `CurrentDateTimeGetter`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use dark_factory::seed::{Clock, DockerExecutor, SystemClock};
///
/// // Whatever needs the time gets a clock; what the engine tells by itself needs none.
/// let builder = DockerExecutor::builder().clock(std::sync::Arc::new(SystemClock));
///
/// let before = SystemClock.moment();
/// SystemClock.alarm(std::time::Duration::from_millis(1)).await;
/// assert!(before.until(&SystemClock.moment()) >= std::time::Duration::from_millis(1));
/// # drop(builder);
/// # Ok(())
/// # }
/// ```
#[doc(inline)]
pub use dark_factory_executor::clock::{Clock, SystemClock};

/// The seed's `ContainerChecker`, later `ExecutionChecker`.
///
/// ```
/// # use dark_factory::seed::{ContainerChecker, EngineError};
/// /// Takes silence for what it is, not for an end.
/// async fn has_ended(checker: &dyn ContainerChecker, name: &str) -> Result<bool, EngineError> {
///     Ok(!checker.is_running(name).await?)
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let endpoint = dark_factory::engines::docker::DockerEndpoint::resolve(None, &[].into())?;
/// # let checker = dark_factory::seed::DockerContainerChecker::new(&endpoint);
///
/// assert!(has_ended(&checker, "p-042-nobody-has-this-name").await?);
/// # Ok(())
/// # }
/// ```
#[doc(inline)]
pub use dark_factory_executor::containers::ContainerChecker;

/// The seed's `ContainerCounter`.
///
/// ```
/// # use dark_factory::seed::{ContainerCounter, EngineError};
/// /// Both tools' containers count, so they share one pool.
/// async fn has_slot(counter: &dyn ContainerCounter, slots: usize) -> Result<bool, EngineError> {
///     Ok(counter.count_running().await? < slots)
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let endpoint = dark_factory::engines::docker::DockerEndpoint::resolve(None, &[].into())?;
/// # let counter = dark_factory::seed::DockerContainerCounter::new(&endpoint);
///
/// assert!(has_slot(&counter, usize::MAX).await?);
/// # Ok(())
/// # }
/// ```
#[doc(inline)]
pub use dark_factory_executor::containers::ContainerCounter;

/// The seed's `ContainerStopper`, later `ExecutionStopper`.
///
/// ```
/// # use dark_factory::seed::{ContainerStopper, EngineError};
/// async fn stop_all(stopper: &dyn ContainerStopper, names: &[&str]) -> Result<(), EngineError> {
///     for name in names {
///         stopper.stop_container(name).await?;
///     }
///     Ok(())
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let endpoint = dark_factory::engines::docker::DockerEndpoint::resolve(None, &[].into())?;
/// # let stopper = dark_factory::seed::DockerContainerStopper::new(&endpoint);
///
/// stop_all(&stopper, &["p-042-nobody-has-this-name"]).await?;
/// # Ok(())
/// # }
/// ```
#[doc(inline)]
pub use dark_factory_executor::containers::ContainerStopper;

/// The errors of the seed's `WaitUntilRunning`.
///
/// ```
/// use std::time::Duration;
///
/// use dark_factory::seed::WaitError;
///
/// let error = WaitError::Timeout { name: "p-042".to_owned(), timeout: Duration::from_secs(30) };
///
/// assert_eq!(error.to_string(), "container p-042 did not start within 30s");
/// ```
#[doc(inline)]
pub use dark_factory_executor::containers::WaitError;

/// The seed's `ErrDockerDaemonUnavailable` is one of these, and is never taken for "does not run".
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use dark_factory::engines::docker::DockerEndpoint;
/// use dark_factory::seed::{ContainerChecker, DockerContainerChecker, EngineError};
///
/// let nobody = DockerEndpoint::resolve(Some("unix:///nowhere/docker.sock"), &[].into())?;
///
/// let answer = DockerContainerChecker::new(&nobody).is_running("p-042").await;
///
/// assert!(matches!(answer, Err(EngineError::Unreachable { .. })));
/// # Ok(())
/// # }
/// ```
#[doc(inline)]
pub use dark_factory_executor::engine::EngineError;

/// The seed's `Executor`.
///
/// A run that ended while nobody looked is followed to its end all the same, and both logs hold its whole output:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use dark_factory::HELPER;
/// # use dark_factory::executor::settings::{Settings, Sourced};
/// use dark_factory::seed::{CancellationToken, DockerExecutor, Executor, HostView};
///
/// # let folder = tempfile::tempdir()?;
/// # let (project, state_dir) = (folder.path().join("project"), folder.path().join("state"));
/// # std::fs::create_dir(&project)?;
/// # let command = ["/bin/agent", "-e", "print hello"].map(str::to_owned).to_vec();
/// # let executor = DockerExecutor::builder()
/// #     .container_image(std::env::var("DARK_FACTORY_TEST_AGENT_IMAGE")?)
/// #     .project_root(&project)
/// #     .state_dir(&state_dir)
/// #     .host(HostView::default())
/// #     .helper(HELPER)
/// #     .agent("command")
/// #     .settings(Settings {
/// #         command: Some(Sourced::flag("command", command)),
/// #         ..Settings::default()
/// #     })
/// #     .build()?;
/// # let log = project.join("042.log");
/// # let name = format!("seed-example-reattach-{}", std::process::id());
/// executor.execute("Say hello.", &log, &name, &CancellationToken::new()).await?;
/// std::fs::remove_file(&log)?;
///
/// executor.reattach(&log, &name, None).await?.into_result()?;
///
/// assert!(std::fs::read_to_string(&log)?.ends_with("hello\n"));
/// executor.stop_and_remove_container(&name).await?; // It is gone already, which is no error.
/// # Ok(())
/// # }
/// ```
#[doc(inline)]
pub use dark_factory_executor::execute::Executor;

/// The seed's `config.ExtraMount`.
///
/// ```
/// use dark_factory::seed::{ContainerLaunchOpts, ExtraMount, HostView, build_docker_run_args};
///
/// let opts = ContainerLaunchOpts {
///     extra_mounts: vec![ExtraMount {
///         src: "$CACHE/go".to_owned(),
///         dst: "/go".to_owned(),
///         read_only: Some(true), // `None` is read-write.
///         ..ExtraMount::default()
///     }],
///     ..ContainerLaunchOpts::default()
/// };
/// # let cache = tempfile::tempdir()?;
/// # std::fs::create_dir(cache.path().join("go"))?;
/// # let cache = cache.path().to_str().expect("UTF-8").to_owned();
/// let host = HostView {
///     env: [("CACHE".to_owned(), cache.clone())].into(),
///     ..HostView::default()
/// };
///
/// let argv = build_docker_run_args(&opts, &host).argv;
///
/// assert!(argv.contains(&format!("{cache}/go:/go:ro")));
/// # Ok::<(), std::io::Error>(())
/// ```
#[doc(inline)]
pub use dark_factory_executor::settings::ExtraMount;

/// What the seed reads from its process: environment, home and working directory.
///
/// ```
/// use dark_factory::seed::HostView;
///
/// // The seed reads the process's environment and folder; here whoever calls decides what may be seen.
/// let host = HostView {
///     env: [("HOME".to_owned(), "/home/me".to_owned())].into(),
///     home: Some("/home/me".into()),
///     cwd: "/home/me/p".into(),
/// };
///
/// assert_eq!(host.absolute("prompts".as_ref()), std::path::Path::new("/home/me/p/prompts"));
/// ```
#[doc(inline)]
pub use dark_factory_executor::host::HostView;

/// What the seed's `Execute` returns as an error or none.
///
/// ```
/// use dark_factory::seed::{Outcome, UnsuccessfulOutcome};
/// use dark_factory::types::OutcomeKind;
///
/// let outcome = Outcome::new(OutcomeKind::Failed, "exit code 3");
///
/// let error: UnsuccessfulOutcome = outcome.into_result().unwrap_err();
///
/// assert_eq!(error.to_string(), "run failed: exit code 3");
/// ```
#[doc(inline)]
pub use dark_factory_types::{Outcome, UnsuccessfulOutcome};

/// The seed's `context.Context` of an [`Executor::execute`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use dark_factory::HELPER;
/// # use dark_factory::executor::settings::{Settings, Sourced};
/// use dark_factory::seed::{CancellationToken, DockerExecutor, Executor, HostView};
/// use dark_factory::types::OutcomeKind;
///
/// # let folder = tempfile::tempdir()?;
/// # let (project, state_dir) = (folder.path().join("project"), folder.path().join("state"));
/// # std::fs::create_dir(&project)?;
/// # let command = ["/bin/agent", "-e", "wait-file never"].map(str::to_owned).to_vec();
/// # let executor = DockerExecutor::builder()
/// #     .container_image(std::env::var("DARK_FACTORY_TEST_AGENT_IMAGE")?)
/// #     .project_root(&project)
/// #     .state_dir(&state_dir)
/// #     .host(HostView::default())
/// #     .helper(HELPER)
/// #     .agent("command")
/// #     .settings(Settings {
/// #         command: Some(Sourced::flag("command", command)),
/// #         ..Settings::default()
/// #     })
/// #     .build()?;
/// # let log = project.join("042.log");
/// # let name = format!("seed-example-cancel-{}", std::process::id());
/// let cancel = CancellationToken::new();
/// let run = executor.execute("Wait.", &log, &name, &cancel);
/// cancel.cancel();
///
/// assert_eq!(run.await?.kind, OutcomeKind::Cancelled);
/// # Ok(())
/// # }
/// ```
#[doc(inline)]
pub use tokio_util::sync::CancellationToken;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    const MODULE: &str = include_str!("seed.rs");
    const TABLE: &str = include_str!("../../../docs/seed.md");

    /// Returns each `pub use` of the module, with the documentation in front of it.
    fn reexports() -> Vec<(&'static str, Vec<&'static str>)> {
        let (module, _) = MODULE.split_once("#[cfg(test)]").unwrap();
        let statements = module.split("#[doc(inline)]\npub use ");
        let statements: Vec<&str> = statements.collect();
        let pairs = statements.windows(2).map(|pair| {
            let path = pair[1].split_once(';').unwrap().0;
            let names = path.rsplit_once("::").unwrap().1;
            let names = names.trim_matches(['{', '}']).split(',').map(str::trim);
            let docs = pair[0].split_once(";\n").map_or("", |(_, docs)| docs);
            (docs, names.filter(|name| !name.is_empty()).collect())
        });
        pairs.collect()
    }

    #[test]
    fn every_name_has_an_example_and_a_row() {
        let reexports = reexports();

        assert!(reexports.len() > 25, "{}", reexports.len());
        for (docs, names) in reexports {
            for name in names {
                assert!(docs.contains("/// ```\n"), "{name} has no example");
                assert!(TABLE.contains(name), "docs/seed.md does not name {name}");
            }
        }
    }

    #[test]
    fn every_case_of_the_seed_names_a_test_that_exists() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut sources = String::new();
        for folder in ["crates", "integration-tests"] {
            read_sources(&root.join(folder), &mut sources);
        }
        let (_, cases) = TABLE.split_once("## The fifty cases").unwrap();
        let rows = cases.lines().filter_map(|line| {
            let mut cells = line.strip_prefix("| ")?.split(" | ");
            let number: u32 = cells.next()?.parse().ok()?;
            Some((number, cells.last()?.split('`').rev().nth(1)?))
        });

        let mut numbers = BTreeSet::new();
        for (number, test) in rows {
            assert!(
                sources.contains(&format!("fn {test}(")),
                "case {number}: {test}"
            );
            numbers.insert(number);
        }

        assert_eq!(numbers, (1..=50).collect());
    }

    fn read_sources(folder: &Path, sources: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read_sources(&path, sources);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
}
