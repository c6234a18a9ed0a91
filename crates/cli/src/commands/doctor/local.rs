//! What is installed and running on this machine besides the engine: the daemon, the guard, git; the way to the APIs.
//!
//! Owns: what is wrong with each.
//! Reads: the daemon's seat and answer, processes, git's own words.
//! Never: starts or stops anything that stays, or sends a request to an API.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use dark_factory_executor::daemon::{Ask, Mode, Seat, ask};
use dark_factory_executor::doctor::Finding;
use dark_factory_executor::spec::LaunchSpec;
use dark_factory_types::exit_code;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::context::Context;
use crate::detach;
use crate::git;

/// How long an API may take to let us connect.
const REACH: Duration = Duration::from_secs(5);

/// Says whether the state folder's daemon works with this engine, and is of this binary.
pub(super) async fn daemon(context: &Context) -> Finding {
    let internal = |found: String, advice: &str| {
        Finding::failed(exit_code::INTERNAL, found, Some(advice.to_owned()))
    };
    let holder = match Seat::holder(&context.state_dir) {
        Ok(None) => return Finding::ok("none runs; `run --detach` starts one"),
        Ok(Some(holder)) => holder,
        Err(error) => {
            return internal(
                format!("its lock cannot be looked at: {error}"),
                "the state folder must be yours",
            );
        }
    };
    let status = match ask(&context.state_dir, Ask::Status).await {
        Ok(status) => status,
        Err(error) => {
            let pid = holder.pid.map_or("?".to_owned(), |pid| pid.to_string());
            return internal(
                format!("process {pid} is the daemon, and does not answer: {error}"),
                "daemon.log in the state folder says more; a daemon may be killed, its runs go on",
            );
        }
    };
    if let Err(error) = detach::check_engine(context, &status).await {
        return Finding::from(error);
    }
    let pid = status.pid;
    if !is_our_binary(pid) {
        return Finding::warning(
            format!(
                "the daemon (process {pid}) is of another binary, version {}",
                status.program
            ),
            "`dark-factory daemon reload` lets it execute the one that is installed",
        );
    }
    if status.mode == Mode::Draining {
        return Finding::warning(
            format!("the daemon (process {pid}) begins no more runs: it is draining"),
            "`dark-factory daemon start` starts a new one once it has ended",
        );
    }
    if let Some(failing) = status.failing.first() {
        return Finding::warning(
            format!(
                "the daemon (process {pid}) cannot go on with {} runs: {}",
                status.failing.len(),
                failing.why
            ),
            "it tries again by itself; `dark-factory daemon status` shows them",
        );
    }
    Finding::ok(format!(
        "process {pid} serves, with this engine and this binary"
    ))
}

/// Returns whether a process executes the file that we do; one that cannot be looked at does.
fn is_our_binary(pid: u32) -> bool {
    let file = |process: &str| {
        fs::metadata(format!("/proc/{process}/exe"))
            .ok()
            .map(|found| (found.dev(), found.ino()))
    };
    match (file(&pid.to_string()), file("self")) {
        (Some(theirs), Some(ours)) => theirs == ours,
        _ => true,
    }
}

/// Says whether git is there and works on the project; no run fails for want of it.
pub(super) fn git(project: Option<&Path>) -> Finding {
    let advice = "install git: on Debian apt-get install git";
    let version = match git::command().arg("--version").output() {
        Ok(output) if output.status.success() => text(&output.stdout),
        Ok(output) => return Finding::warning(text(&output.stderr), advice),
        Err(error) => return Finding::warning(format!("git cannot be started: {error}"), advice),
    };
    let Some(project) = project else {
        return Finding::ok(format!("{version}; there is no project"));
    };
    if !project.join(".git").exists() {
        return Finding::ok(format!(
            "{version}; {} is not a repository",
            project.display()
        ));
    }
    let mut command = git::command();
    command
        // Named here, because the project may belong to whom the agent runs as.
        .args(["-c", &format!("safe.directory={}", project.display())])
        .arg("-C")
        .arg(project)
        .args(["rev-parse", "--git-dir"]);
    match command.output() {
        Ok(output) if output.status.success() => {
            Finding::ok(format!("{version} reads {}", project.display()))
        }
        Ok(output) => Finding::warning(
            format!(
                "{version} cannot read {}: {}",
                project.display(),
                text(&output.stderr)
            ),
            "git 2.38 or newer is needed for a project of somebody else's",
        ),
        Err(error) => Finding::warning(error.to_string(), advice),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// Says whether the guard starts and answers; it ends by itself soon after.
pub(super) async fn guard(context: &Context) -> Finding {
    match context.guard_of(&context.state_dir).probe().await {
        Ok(pid) => Finding::ok(format!("process {pid} answers")),
        Err(error) => Finding::failed(
            exit_code::INTERNAL,
            format!("the guard does not answer: {error}"),
            Some("guard.log in the state folder says more".to_owned()),
        ),
    }
}

/// Says whether the APIs that a launch uses through the broker can be reached from here.
pub(super) async fn api(context: &Context, spec: Option<&LaunchSpec>) -> Finding {
    let Some(spec) = spec else {
        return Finding::skipped("it is not known what would be launched");
    };
    let keys = context.keys();
    let mut reached = Vec::new();
    for provider in &spec.providers {
        let base = keys.base(*provider, &context.host);
        let Some(place) = place(&base) else {
            return Finding::failed(
                exit_code::USAGE,
                format!("{base} is no address of {provider}'s API"),
                Some("write https://HOST[:PORT][/PATH]".to_owned()),
            );
        };
        let connected = timeout(REACH, TcpStream::connect(place.as_str())).await;
        let why = match connected {
            Ok(Ok(_)) => {
                reached.push(place);
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {}s", REACH.as_secs()),
        };
        return Finding::warning(
            format!("{provider}'s API at {place} cannot be reached from here: {why}"),
            "look at this machine's network and names; api-base names another address",
        );
    }
    Finding::ok(match reached.as_slice() {
        [] => "no API is used through the broker".to_owned(),
        reached => format!("{} can be reached; no request was sent", reached.join(", ")),
    })
}

/// Returns `HOST:PORT` of a URL.
fn place(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    match (scheme, has_port) {
        (_, _) if authority.is_empty() => None,
        (_, true) => Some(authority.to_owned()),
        ("https", false) => Some(format!("{authority}:443")),
        ("http", false) => Some(format!("{authority}:80")),
        _ => None,
    }
}

/// Returns the socket of the user's own rootless engine, if there is one that is not looked for.
pub(super) fn rootless_socket(context: &Context) -> Option<String> {
    let socket = Path::new(context.host.var("XDG_RUNTIME_DIR")?).join("docker.sock");
    let is_chosen = context
        .docker()
        .is_ok_and(|endpoint| endpoint.to_string() == format!("unix://{}", socket.display()));
    (socket.exists() && !is_chosen).then(|| socket.display().to_string())
}
