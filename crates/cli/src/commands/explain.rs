//! `explain`: what `run` would launch.
//!
//! Owns: the command's output, and what each default of a launch is in words.
//! Reads: prompt files, flags; what the engine says of itself, if it answers.
//! Never: makes or changes anything.

#[cfg(target_os = "linux")]
mod sandbox;

use std::fmt::Write as _;
use std::sync::Arc;

use dark_factory_agents::neutralise;
use dark_factory_engines::docker::launch::{
    SkipReason, SkippedMount, build_docker_run_args, create_body,
};
use dark_factory_engines::docker::{DockerEngine, Survey, launch_opts, wrapping};
use dark_factory_executor::clock::SystemClock;
use dark_factory_executor::error::sentence;
use dark_factory_executor::resolve::{Resolved, limits_section, masked, spec_record};
use dark_factory_executor::spec::{GitVisibility, LaunchSpec, Profile, PullPolicy};
use dark_factory_types::{AttemptId, NetworkMode, OwnerId, RunId, exit_code};
use serde_json::{Value, json};

use super::{Format, run};
use crate::args::ExplainArgs;
use crate::context::Context;
use crate::error::CommandError;
use crate::{shell, terminal};

/// The engine's name, as `launch.json` has it.
const ENGINE: &str = "docker";
/// The owner of a container that is pasted: no installation has this id.
const OWNER: &str = "explain";

/// What is said of one file.
struct Explanation {
    spec: Value,
    made: Made,
    notes: Vec<String>,
    /// What stands behind the prompt.
    told: Option<String>,
}

/// What the engine would make.
enum Made {
    /// A container, by the Engine API and by the command line.
    Container {
        name: String,
        create: Value,
        docker_run: Vec<String>,
    },
    /// A sandbox.
    #[cfg(target_os = "linux")]
    Sandbox(Value),
}

/// On what engine a launch is explained: what it leaves open of the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    Docker,
    Sandbox,
}

pub(crate) async fn explain(
    context: &Context,
    args: &ExplainArgs,
    format: Format,
) -> Result<u8, CommandError> {
    let mut jobs = run::prepare(context, &args.run)?;
    let mut surveys = Vec::new();
    if !context.is_sandbox() {
        for job in &jobs {
            surveys.push(survey(context, &job.launch.resolved().spec.image).await);
        }
        // It is the same engine each time.
        if let Some(survey) = surveys.iter().flatten().next() {
            run::fit(context, &mut jobs, &survey.capabilities)?;
        }
    }
    for (index, job) in jobs.iter().enumerate() {
        let resolved = job.launch.resolved();
        let spec = if args.reveal {
            resolved.spec.clone()
        } else {
            masked(&resolved.spec, &resolved.env_from_host)
        };
        let explanation = match surveys.get(index) {
            Some(survey) => explanation(context, resolved, &spec, survey)?,
            #[cfg(target_os = "linux")]
            None => sandbox::explanation(context, resolved, &spec)?,
            #[cfg(not(target_os = "linux"))]
            None => continue,
        };
        match format {
            Format::Json => terminal::print_json(&object(&explanation)),
            Format::Text => terminal::print(&text(&explanation)),
        }
    }
    Ok(exit_code::SUCCEEDED)
}

/// Returns what a program reads: of each engine the same fields.
fn object(explanation: &Explanation) -> Value {
    let Explanation {
        spec,
        made,
        notes,
        told,
    } = explanation;
    let (create, docker_run, sandbox) = match made {
        Made::Container {
            create, docker_run, ..
        } => (json!(create), json!(docker_run), Value::Null),
        #[cfg(target_os = "linux")]
        Made::Sandbox(config) => (Value::Null, Value::Null, json!(config)),
    };
    json!({
        "spec": spec,
        "create": create,
        "docker_run": docker_run,
        "sandbox": sandbox,
        "notes": notes,
        "told": told,
    })
}

/// Asks the engine; an engine that does not answer is a reason in words.
async fn survey(context: &Context, image: &str) -> Result<Survey, String> {
    let endpoint = context
        .docker()
        .map_err(|error| error.message().to_owned())?;
    let engine = DockerEngine::connect(&endpoint, context.host.clone(), Arc::new(SystemClock));
    engine.survey(image).await.map_err(|error| sentence(&error))
}

/// Explains a launch by `spec`, which is the launch's own or the masked one.
fn explanation(
    context: &Context,
    resolved: &Resolved,
    spec: &LaunchSpec,
    survey: &Result<Survey, String>,
) -> Result<Explanation, CommandError> {
    // The first run id there is; a run has its own.
    let attempt = RunId::from_random_bits(0).attempt(1);
    let opts = launch_opts(spec, attempt, &OwnerId(OWNER.to_owned()), &context.host);
    let refused = |error| CommandError::usage(sentence(&error));
    let launch = create_body(&opts, &context.host).map_err(refused)?;
    let mut docker_run = vec!["docker".to_owned()];
    docker_run.extend(build_docker_run_args(&opts, &context.host).argv);

    let mut notes: Vec<String> = defaults(spec, On::Docker);
    notes.push(around(spec, attempt));
    notes.push(placeholders(attempt));
    notes.extend(hidden(&resolved.spec, spec));
    notes.extend(launch.skipped_mounts.iter().map(skipped));
    notes.extend(probed(spec, survey));
    notes.extend(said(resolved));
    Ok(Explanation {
        spec: spec_record(spec, ENGINE),
        made: Made::Container {
            name: opts.container_name,
            create: json!(launch.body),
            docker_run,
        },
        notes,
        told: limits_section(spec),
    })
}

/// Returns what is shown in place of what only a run has.
fn placeholders(attempt: AttemptId) -> String {
    format!(
        "placeholders: a run has its own id in place of {attempt}, in the container's name and label, and its \
         installation's in place of {OWNER}"
    )
}

/// Returns what resolving had to say.
fn said(resolved: &Resolved) -> impl Iterator<Item = String> + '_ {
    let said = |kind: &'static str| move |text: &String| format!("{kind}: {text}");
    let warnings = resolved.warnings.iter().map(said("warning"));
    warnings.chain(resolved.notices.iter().map(said("note")))
}

/// Returns a line for each default that keeps the agent in: what it does, and what opts out of it.
fn defaults(spec: &LaunchSpec, on: On) -> Vec<String> {
    let mut lines: Vec<String> = match spec.profile {
        Profile::Hardened if on == On::Sandbox => [
            "read-only root: the system's files cannot be changed; /tmp and the home are memory, and go with the \
             sandbox; no opt-out in a sandbox",
            "no capabilities: not even root inside has privileges; no opt-out in a sandbox",
            "no new privileges: set-user-id programs gain nothing; no opt-out in a sandbox",
        ]
        .map(str::to_owned)
        .to_vec(),
        Profile::Hardened => [
            "read-only root: the image's files cannot be changed; /tmp and the home are memory, and go with the \
             container; opt out: --profile seed",
            "no capabilities: not even root inside has privileges; opt out: --profile seed",
            "no new privileges: set-user-id programs gain nothing; opt out: --profile seed",
        ]
        .map(str::to_owned)
        .to_vec(),
        Profile::Seed => vec![
            "profile seed: writable root, NET_ADMIN and NET_RAW, no limits but those of disk and output and \
             those that are set; opt out: --profile hardened"
                .to_owned(),
        ],
    };
    let user = match spec.user.to_string() {
        user if user.is_empty() => "the image's".to_owned(),
        user => user,
    };
    lines.push(format!("user: {user}; change it: --user UID:GID"));
    let limits = &spec.limits;
    for (name, limit, flag) in [
        (
            "memory and swap",
            limits.memory.map(|size| size.to_string()),
            "--memory SIZE",
        ),
        (
            "CPUs",
            limits.cpus.map(|cpus| cpus.to_string()),
            "--cpus NUMBER",
        ),
        (
            "processes and threads",
            limits.pids.map(|pids| pids.to_string()),
            "--pids NUMBER",
        ),
        (
            "one file's size",
            limits.file_size.map(|size| size.to_string()),
            "--file-size SIZE",
        ),
        (
            "the container's own file system",
            limits.disk.map(|size| size.to_string()),
            "--disk-limit SIZE",
        ),
        (
            "open files of a process",
            limits.open_files.map(|files| files.to_string()),
            "--open-files NUMBER",
        ),
        (
            "output",
            limits.log.map(|size| size.to_string()),
            "--log-limit SIZE",
        ),
        (
            "wall time",
            limits.timeout.map(|time| format!("{time:?}")),
            "--timeout DURATION",
        ),
        (
            "time without output",
            limits.idle.map(|time| format!("{time:?}")),
            "--idle-timeout DURATION",
        ),
        (
            "time after a result",
            spec.completion_grace.map(|time| format!("{time:?}")),
            "--completion-grace DURATION",
        ),
    ] {
        let limit = limit.unwrap_or_else(|| "none".to_owned());
        lines.push(format!(
            "limit of {name}: {limit}; change it: {flag}, or none"
        ));
    }
    lines.push(
        match &spec.network {
            NetworkMode::Open if on == On::Sandbox => {
                "network open: the machine's own network, but for sockets without a path; shut it: --network none"
            }
            NetworkMode::Open => {
                "network open: whatever the engine's bridge reaches, the host included; shut it: --network none"
            }
            NetworkMode::None => "network none: nothing but loopback; opt out: --network open",
            NetworkMode::Allow(rules) if rules.is_empty() && spec.providers.is_empty() => {
                "network allow, with nothing on the list: nothing but loopback; opt out: --network open"
            }
            NetworkMode::Allow(_) => {
                "network allow: no network, and a guard on the host that carries requests to the hosts of the list; \
                 opt out: --network open"
            }
        }
        .to_owned(),
    );
    lines.push(credentials(spec));
    lines.push(format!(
        "mounts: the project, and {} more that are asked for; dangerous places of the host are refused; opt out: \
         --allow-mount PATH",
        spec.mounts.len()
    ));
    lines.push(
        match spec.workspace.git {
            GitVisibility::Visible => "git: the agent can read and write .git; hide it: --hide-git",
            GitVisibility::Hidden => {
                "git: something empty covers .git; opt out: leave out hide-git"
            }
        }
        .to_owned(),
    );
    lines.push(
        match spec.tell_limits {
            true => "limits told: the agent reads its limits behind the prompt; opt out: --tell-limits false",
            false => "limits not told: the agent gets the prompt as it is; opt in: --tell-limits true",
        }
        .to_owned(),
    );
    lines
}

/// Returns in one line how the agent reaches its API, and what limits that.
fn credentials(spec: &LaunchSpec) -> String {
    if spec.providers.is_empty() {
        return "credentials: no key of this machine is put into its requests; what is in its environment, image and \
                mounts is all it has"
            .to_owned();
    }
    let names: Vec<&str> = spec.providers.iter().map(|one| one.name()).collect();
    let budget = &spec.budget;
    let most = [
        budget.tokens.map(|tokens| format!("{tokens} tokens")),
        budget
            .requests
            .map(|requests| format!("{requests} requests")),
        budget.cost.map(|cost| format!("${cost}")),
    ];
    let most: Vec<String> = most.into_iter().flatten().collect();
    let most = match most.as_slice() {
        [] => "without a budget; set one: --max-tokens, --max-requests, --max-cost".to_owned(),
        most => format!("at most {}", most.join(", ")),
    };
    format!(
        "credentials: the key of {} stays outside; the guard puts it into the agent's requests, {most}; opt out: \
         --credentials mount or none",
        names.join(", ")
    )
}

/// Returns in one line what the engine puts around the container.
fn around(spec: &LaunchSpec, attempt: AttemptId) -> String {
    let wrapping = wrapping(spec, attempt);
    let mut line = "around it: ".to_owned();
    if !wrapping.entrypoint.is_empty() {
        line.push_str("our helper as the entrypoint: ");
        line.push_str(&shell::line(wrapping.entrypoint.iter().map(String::as_str)));
        line.push_str(" ARGV…; ");
    }
    line.push_str("mounted read-only: ");
    line.push_str(&wrapping.mounts.join(", "));
    if spec.network != NetworkMode::Open {
        line.push_str("; and NetworkDisabled, the same as network mode none and faster");
    }
    line
}

/// Returns which values are not shown, if any.
fn hidden(whole: &LaunchSpec, shown: &LaunchSpec) -> Option<String> {
    let shown_as_they_are =
        |(name, value): &(&String, &String)| shown.env.get(*name) == Some(value);
    let names: Vec<&str> = whole
        .env
        .iter()
        .filter(|variable| !shown_as_they_are(variable))
        .map(|(name, _)| name.as_str())
        .collect();
    (!names.is_empty()).then(|| format!("masked: {}; --reveal shows them", names.join(", ")))
}

fn skipped(mount: &SkippedMount) -> String {
    let why = match mount.reason {
        SkipReason::Missing => "it is not there",
        SkipReason::Unreadable => "it cannot be looked at",
        SkipReason::ColonInSource => "it has a : in its path",
    };
    format!("not mounted: {} at {}: {why}", mount.resolved, mount.dst)
}

/// Returns what the engine says; each thing that it was not asked is marked so.
fn probed(spec: &LaunchSpec, survey: &Result<Survey, String>) -> Vec<String> {
    let survey = match survey {
        Ok(survey) => survey,
        Err(why) => {
            return vec![
                format!("engine: not probed: {why}"),
                "limits, CPUs: not probed: whether the engine's host has and keeps them".to_owned(),
                format!("image: not probed: whether the engine has {}", spec.image),
            ];
        }
    };
    let version = &survey.capabilities.version;
    let mut lines = vec![match survey.cpus {
        Some(cpus) => format!("engine: Docker {version}, {cpus} CPUs"),
        None => format!("engine: Docker {version}, CPUs not told"),
    }];
    let limits = &spec.limits;
    let cpus = survey.cpus.and_then(|cpus| u64::try_from(cpus.get()).ok());
    if let (Some(limit), Some(cpus)) = (limits.cpus, cpus)
        && limit.nanos > cpus.saturating_mul(1_000_000_000)
    {
        lines.push(format!(
            "limit of CPUs: the engine refuses {limit}: its host has {cpus}"
        ));
    }
    let image = &spec.image;
    lines.push(match (&survey.image, spec.pull) {
        (_, PullPolicy::Always) => format!("image: {image} is pulled before the run"),
        (Some(id), _) => format!("image: {image} is there: {id}"),
        (None, PullPolicy::Missing) => format!("image: {image} is not there, and is pulled first"),
        (None, PullPolicy::Never) => format!("image: {image} is not there, and may not be pulled"),
    });
    lines
}

fn text(explanation: &Explanation) -> String {
    let Explanation {
        spec,
        made,
        notes,
        told,
    } = explanation;
    let told = told.iter().flat_map(|section| section.lines());
    let told: String = told
        .map(|line| format!("> {}\n", neutralise(line)))
        .collect();
    let told = match told.as_str() {
        "" => told,
        told => format!("# Behind the prompt\n{told}\n"),
    };
    let notes: String = notes
        .iter()
        .map(|note| format!("{}\n", neutralise(note)))
        .collect();
    let made = match made {
        Made::Container {
            name,
            create,
            docker_run,
        } => format!(
            "# Create request: POST /containers/create?name={name}\n{}\n\n\
             # The same container by the command line\n{}\n",
            pretty(create),
            shell::line(docker_run.iter().map(String::as_str)),
        ),
        #[cfg(target_os = "linux")]
        Made::Sandbox(config) => sandbox::text(config),
    };
    format!(
        "# Launch spec\n{}\n\n# Notes\n{notes}\n{told}{made}",
        pretty(spec)
    )
}

/// Writes JSON over several lines, with nothing in it that a terminal would obey.
fn pretty(value: &Value) -> String {
    let json = format!("{value:#}");
    let mut shown = String::with_capacity(json.len());
    for char in json.chars() {
        let text = char.to_string();
        if neutralise(&text) == text {
            shown.push(char);
        } else {
            // It can only be in a string. Writing to one of ours does not fail.
            let _written = write!(shown, "\\u{:04x}", u32::from(char));
        }
    }
    shown
}
