//! The command line.
//!
//! Owns: the flags, their help, and how they become settings.
//! Reads: nothing.
//! Never: gives a flag a default that a prompt file could not then override.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use dark_factory_types::exit_code;

use crate::commands::Format;
use crate::error::CommandError;
use crate::logging::Log;

/// Runs agent prompt files unattended inside containers.
#[derive(Debug, Parser)]
#[command(name = "dark-factory", version, about, after_help = exit_codes(), arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    /// Returns who reads what is told.
    pub(crate) fn reader(&self) -> Format {
        match self.global.json {
            true => Format::Json,
            false => Format::Text,
        }
    }

    /// Returns the arguments with `--json` set where `--format json` says the same.
    pub(crate) fn settled(mut self) -> Result<Self, CommandError> {
        let view = match &self.command {
            Command::Run(args) => args.format,
            Command::Explain(args) => args.run.format,
            Command::Replay(args) => args.format,
            Command::Logs(args) => args.format.map(View::from),
            Command::Attach(args) => args.format.map(View::from),
            _ => None,
        };
        match view {
            Some(View::Json) => self.global.json = true,
            Some(_) if self.global.json => {
                return Err(
                    CommandError::usage("--json and --format ask for different things")
                        .hint("leave one of them out"),
                );
            }
            Some(_) | None => {}
        }
        Ok(self)
    }

    /// Returns how our own log is written.
    pub(crate) fn log(&self) -> Log {
        match &self.command {
            Command::Daemon(DaemonCommand::Start(start)) if start.foreground => Log::Journal,
            _ => Log::Terminal,
        }
    }
}

/// Flags of every command.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Global {
    /// Container engine: auto, docker, podman or sandbox [default: the one that an endpoint names, else the first that answers, else sandbox]
    #[arg(long, global = true, value_name = "ENGINE")]
    pub(crate) engine: Option<String>,
    /// The engine's endpoint: a Unix socket or tcp://HOST:PORT [default: DOCKER_HOST or CONTAINER_HOST, else the configuration's, else the engine's usual socket]
    #[arg(long, global = true, value_name = "ENDPOINT")]
    pub(crate) host: Option<String>,
    /// Folder of runs and their logs [default: DARK_FACTORY_STATE_DIR, else ~/.local/state/dark-factory]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Where the broker takes a provider's key from: PROVIDER=env:VAR, file:PATH, command:PROGRAM ARGS or claude-dir:PATH
    #[arg(long, global = true, value_name = "PROVIDER=SOURCE")]
    pub(crate) api_key: Vec<String>,
    /// Where the broker sends a provider's requests
    #[arg(long, global = true, value_name = "PROVIDER=URL")]
    pub(crate) api_base: Vec<String>,
    /// Dangerous folder or file of the host that may be mounted all the same, itself alone
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        visible_alias = "allow-mounts"
    )]
    pub(crate) allow_mount: Vec<String>,
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Colours: on a terminal that wants them, always, or never
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = ColorWhen::Auto)]
    pub(crate) color: ColorWhen,
}

/// When colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorWhen {
    /// On a terminal, unless `NO_COLOR` is set or `TERM` is dumb; anywhere if `CLICOLOR_FORCE` is set.
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

/// How an agent's stream is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum View {
    /// Lines for people.
    Text,
    /// Objects, as with --json.
    Json,
    /// The seed's lines, with Claude's decoder for any input.
    Seed,
}

/// How a log is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogView {
    /// The lines as they are.
    Text,
    /// Objects, as with --json.
    Json,
}

impl From<LogView> for View {
    fn from(view: LogView) -> Self {
        match view {
            LogView::Text => Self::Text,
            LogView::Json => Self::Json,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run prompt files, one after the other
    Run(Box<RunArgs>),
    /// Show what `run` with the same flags would launch, as a spec, a create request and a docker line; starts nothing
    Explain(Box<ExplainArgs>),
    /// Run a finished run's prompt again, as a new attempt of the same run
    Retry(RetryArgs),
    /// List open runs
    Ps(PsArgs),
    /// Show what a run's agent did
    Logs(LogsArgs),
    /// Stop a run and wait for its end
    Stop(StopArgs),
    /// Freeze runs; the time counts for no limit
    Pause(RunNames),
    /// Let frozen runs go on
    Resume(RunNames),
    /// Wait for the end of runs
    Wait(RunNames),
    /// Show what a run's agent did and does, to its end; Ctrl-C leaves the run alone
    Attach(AttachArgs),
    /// Execute a program in a run's container: while it runs, or after a `run --keep`
    Exec(ExecArgs),
    /// Open a shell in a run's container
    Shell(RunName),
    /// Show what running runs use
    Stats(StatsArgs),
    /// Show everything that is known of a run
    Inspect(RunName),
    /// Show a recorded agent stream
    Replay(ReplayArgs),
    /// Show, check or describe the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Finish runs that a dead process left
    Recover,
    /// Remove runs that have ended, with their logs
    Rm(RmArgs),
    /// List containers and folders that no open run owns; remove them with --apply
    Prune(PruneArgs),
    /// The background process that goes on with runs
    #[command(subcommand)]
    Daemon(DaemonCommand),
    /// Images for agents: make, list and remove them
    #[command(subcommand)]
    Image(ImageCommand),
    /// Run three prompt files with a scripted stand-in agent, to see that all works
    Demo(DemoArgs),
    /// Try everything that a run needs, and say what to do about what is missing
    Doctor(DoctorArgs),
    /// The process that carries requests out of containers; started by whoever needs it
    #[command(hide = true)]
    Guard,
    /// Print a script that completes commands, flags and run ids in a shell
    Completion(CompletionArgs),
    /// Print the manual page, or write one for each command into a folder
    Man(ManArgs),
}

/// Flags of `run`; each is also a key of a prompt file's front matter, which it beats.
#[derive(Debug, ClapArgs)]
pub(crate) struct RunArgs {
    /// Prompt files; - reads one from standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Program and arguments for `--agent command`
    #[arg(last = true, value_name = "ARGV")]
    pub(crate) command: Vec<String>,
    /// Agent: claude, codex, gemini or command
    #[arg(long)]
    pub(crate) agent: Option<String>,
    /// Container image
    #[arg(long)]
    pub(crate) image: Option<String>,
    /// Model, by the agent's own name for it
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Environment variable; K alone takes the value from this environment
    #[arg(long, short, value_name = "K[=V]")]
    pub(crate) env: Vec<String>,
    /// File of environment variables
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<String>,
    /// Mount a host file or folder
    #[arg(long, short, value_name = "SRC:DST[:ro]")]
    pub(crate) mount: Vec<String>,
    /// Wall time limit, such as 30m, or none
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<String>,
    /// Time without any output, such as 15m, or none
    #[arg(long, value_name = "DURATION")]
    pub(crate) idle_timeout: Option<String>,
    /// Most output, such as 200m, or none
    #[arg(long, value_name = "SIZE")]
    pub(crate) log_limit: Option<String>,
    /// Memory limit, swap included, such as 2g, or none
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// CPU limit, such as 1.5, or none
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cpus: Option<String>,
    /// Limit of processes and threads, or none
    #[arg(long, value_name = "NUMBER")]
    pub(crate) pids: Option<String>,
    /// Most bytes of one file that the agent writes, or none
    #[arg(long, value_name = "SIZE")]
    pub(crate) file_size: Option<String>,
    /// Most bytes written into the container's own file system, or none [default: 10g with profile seed]
    #[arg(long, value_name = "SIZE")]
    pub(crate) disk_limit: Option<String>,
    /// Most files that one process has open, or none
    #[arg(long, value_name = "NUMBER")]
    pub(crate) open_files: Option<String>,
    /// User of the agent [default: the project folder's owner]
    #[arg(long, value_name = "UID[:GID]")]
    pub(crate) user: Option<String>,
    /// Network: none, open, or allow:HOST,HOST for these hosts only [default: only the agent's API]
    #[arg(long)]
    pub(crate) network: Option<String>,
    /// How the agent comes to its credentials: broker, mount or none
    #[arg(long, value_name = "HOW")]
    pub(crate) credentials: Option<String>,
    /// Providers that are used without a key in the container [default: the agent's own]
    #[arg(long, value_name = "PROVIDER,PROVIDER")]
    pub(crate) providers: Option<String>,
    /// Most tokens of all kinds, or none
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_tokens: Option<String>,
    /// Most requests that a model answers, or none
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_requests: Option<String>,
    /// Most cost in US dollars by our table of list prices, or none
    #[arg(long, value_name = "USD")]
    pub(crate) max_cost: Option<String>,
    /// Tell the agent its limits, in a section behind the prompt [default: true, but for `command` and under seed]
    #[arg(long, value_name = "true|false", action = clap::ArgAction::Set)]
    pub(crate) tell_limits: Option<bool>,
    /// Hide the project's .git from the agent
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(crate) hide_git: Option<bool>,
    /// Label on the container
    #[arg(long, value_name = "K=V")]
    pub(crate) label: Vec<String>,
    /// When to pull the image: never, missing or always
    #[arg(long, value_name = "WHEN")]
    pub(crate) pull: Option<String>,
    /// Project folder [default: the git top level of the prompt file]
    #[arg(long, value_name = "DIR")]
    pub(crate) project: Option<String>,
    /// Named defaults: hardened, seed, or a [profile.NAME] of the configuration
    #[arg(long)]
    pub(crate) profile: Option<String>,
    /// How output leaves the container: spool, or attach where an entrypoint can't be wrapped
    #[arg(long)]
    pub(crate) transport: Option<String>,
    /// Secret, for a file below /run/secrets in the container
    #[arg(long, alias = "secrets", value_name = "NAME=env:VAR|file:PATH")]
    pub(crate) secret: Vec<String>,
    /// How long an agent that has given its result may take to leave, such as 2m, or none
    #[arg(long, value_name = "DURATION")]
    pub(crate) completion_grace: Option<String>,
    /// Where the project is mounted in the container
    #[arg(long, value_name = "PATH")]
    pub(crate) workspace: Option<String>,
    /// The agent's working directory in the container
    #[arg(long, value_name = "PATH")]
    pub(crate) workdir: Option<String>,
    /// First signal of a stop [default: SIGTERM]
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) stop_signal: Option<String>,
    /// How long a stop waits before it kills, such as 10s
    #[arg(long, value_name = "DURATION")]
    pub(crate) stop_grace: Option<String>,
    /// Credential folder of the seed profile
    #[arg(long, value_name = "DIR")]
    pub(crate) claude_dir: Option<String>,
    /// Project's name in labels and container names [default: its folder's]
    #[arg(long, value_name = "NAME")]
    pub(crate) project_name: Option<String>,
    /// Runs at the same time; they share the project, so it is your word that they do not collide [default: 1]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) jobs: Option<u16>,
    /// Show only how each run ends
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// How what the agents do is shown [default: text]
    #[arg(long, value_enum)]
    pub(crate) format: Option<View>,
    /// Keep each container after its end, for `exec` and `shell`; `rm` and `prune --apply` remove it
    #[arg(long)]
    pub(crate) keep: bool,
    /// Queue the files for the daemon, starting one if none runs, and print the ids of their runs
    #[arg(long, short, conflicts_with_all = ["jobs", "on_interrupt"])]
    pub(crate) detach: bool,
    /// What Ctrl-C does: stop the agent, or leave it running in a daemon (detach) [default: stop]
    #[arg(long, value_name = "WHAT")]
    pub(crate) on_interrupt: Option<String>,
}

/// Flags of `ps`.
#[derive(Debug, ClapArgs)]
pub(crate) struct PsArgs {
    /// Finished runs too
    #[arg(long, short)]
    pub(crate) all: bool,
}

/// Flags of `logs`.
#[derive(Debug, ClapArgs)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    pub(crate) run: RunName,
    /// Go on until the run has ended
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// The agent's standard output, byte for byte
    #[arg(long, conflicts_with = "json")]
    pub(crate) raw: bool,
    /// The agent's standard error, byte for byte
    #[arg(long, conflicts_with_all = ["json", "raw"])]
    pub(crate) stderr: bool,
    /// Only the last lines
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) tail: Option<u64>,
    /// Only what is not older: a time such as 2026-11-28T13:00:00Z, or a time ago such as 10m
    #[arg(long, value_name = "WHEN")]
    pub(crate) since: Option<String>,
    /// How the log is shown [default: text]
    #[arg(long, value_enum, conflicts_with_all = ["raw", "stderr"])]
    pub(crate) format: Option<LogView>,
}

/// Flags of `attach`.
#[derive(Debug, ClapArgs)]
pub(crate) struct AttachArgs {
    #[command(flatten)]
    pub(crate) run: RunName,
    /// How the log is shown [default: text]
    #[arg(long, value_enum)]
    pub(crate) format: Option<LogView>,
}

/// Flags of `stop`.
#[derive(Debug, ClapArgs)]
pub(crate) struct StopArgs {
    /// Runs, by id or the beginning or end of one
    #[arg(required = true, value_name = "RUN")]
    pub(crate) runs: Vec<String>,
    /// How long the agent may take to leave by itself; 0s kills at once [default: the run's own]
    #[arg(long, value_name = "DURATION")]
    pub(crate) grace: Option<String>,
}

/// Runs, as people name them.
#[derive(Debug, ClapArgs)]
pub(crate) struct RunNames {
    /// Runs, by id or the beginning or end of one
    #[arg(required = true, value_name = "RUN")]
    pub(crate) runs: Vec<String>,
}

/// Flags of `prune`.
#[derive(Debug, ClapArgs)]
pub(crate) struct PruneArgs {
    /// Remove them; without this they are only listed
    #[arg(long)]
    pub(crate) apply: bool,
    /// Leave alone what is younger than this
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    pub(crate) grace: String,
    #[command(flatten)]
    pub(crate) retention: RetentionArgs,
}

/// What is done with the daemon of a state folder.
#[derive(Debug, Subcommand)]
pub(crate) enum DaemonCommand {
    /// Start the daemon; a second one of the same state folder refuses
    Start(DaemonStartArgs),
    /// End the daemon; containers go on, and the next daemon or `recover` with them
    Stop,
    /// Let the daemon begin no more runs, and end once those it has have ended
    Drain,
    /// Let the daemon execute its binary anew; runs are not touched
    Reload,
    /// Show what the daemon does; exit code 3 if there is none
    Status,
}

/// Flags of `daemon start`.
#[derive(Debug, ClapArgs)]
pub(crate) struct DaemonStartArgs {
    /// Stay in the foreground
    #[arg(long)]
    pub(crate) foreground: bool,
    /// Queued runs that are begun at the same time [default: 4]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) jobs: Option<u16>,
    #[command(flatten)]
    pub(crate) retention: RetentionArgs,
    /// Leave the terminal's session; given by a process that starts a daemon
    #[arg(long, hide = true, requires = "foreground")]
    pub(crate) detached: bool,
    /// The lock is standard input; given by a daemon that executes its binary anew
    #[arg(long, hide = true, requires = "foreground")]
    pub(crate) inherit: bool,
}

/// A run, as people name it.
#[derive(Debug, ClapArgs)]
pub(crate) struct RunName {
    /// Run, by id or the beginning or end of one
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
}

/// Flags of `replay`.
#[derive(Debug, ClapArgs)]
pub(crate) struct ReplayArgs {
    /// Recorded stream, or the folder of a run that was recorded here; - reads standard input
    #[arg(value_name = "RAW.jsonl")]
    pub(crate) file: PathBuf,
    /// How it is shown [default: text]
    #[arg(long, value_enum)]
    pub(crate) format: Option<View>,
    /// Whose stream it is [default: as it looks]
    #[arg(long, value_name = "NAME")]
    pub(crate) agent: Option<String>,
    /// Go on while the file grows: until its run has ended, or Ctrl-C
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only what is not older: a time such as 2026-11-28T13:00:00Z, or a time ago such as 10m
    #[arg(long, value_name = "WHEN")]
    pub(crate) since: Option<String>,
}

/// Flags of `demo`.
#[derive(Debug, ClapArgs)]
pub(crate) struct DemoArgs {
    /// Keep the demo's project, state and image
    #[arg(long)]
    pub(crate) keep: bool,
}

/// Flags of `explain`: those of `run`, so that any line of it can be explained.
#[derive(Debug, ClapArgs)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// Show secrets too
    #[arg(long)]
    pub(crate) reveal: bool,
}

/// What is done with the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show each effective value, where it is from and what it overrides
    Show(ConfigShowArgs),
    /// Check the configuration files, the environment and prompt files; tell every problem
    Validate(ConfigValidateArgs),
    /// Print the JSON Schema of configuration files, for editors
    Schema,
}

/// Flags of `config show`.
#[derive(Debug, ClapArgs)]
pub(crate) struct ConfigShowArgs {
    /// Prompt file whose front matter counts too [default: none, in the working directory]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// Flags of `config validate`.
#[derive(Debug, ClapArgs)]
pub(crate) struct ConfigValidateArgs {
    /// Prompt files, and their projects' configuration
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

/// Commands of `image`.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Make the image that an agent's runs use where none is named
    Build(ImageBuildArgs),
    /// List the images that were made here
    List,
    /// Remove images that were made here
    Rm(ImageRmArgs),
}

/// Flags of `image build`.
#[derive(Debug, ClapArgs)]
pub(crate) struct ImageBuildArgs {
    /// Agent: claude or codex
    pub(crate) agent: String,
    /// The agent's wheel, or a folder of what is in it [default: the pinned wheel, downloaded once]
    #[arg(long, value_name = "FILE.whl|DIR")]
    pub(crate) from: Option<PathBuf>,
    /// What the agent is put on [default: debootstrap as root on Debian, else debian:bookworm-slim; in the sandbox host]
    #[arg(long, value_name = "IMAGE|debootstrap|host|PATH")]
    pub(crate) base: Option<String>,
    /// Name of the image [default: dark-factory/AGENT, tagged latest and with the agent's version]
    #[arg(long, value_name = "NAME[:TAG]")]
    pub(crate) tag: Option<String>,
    /// Make it anew even if it was made of the same wheel and base
    #[arg(long)]
    pub(crate) force: bool,
}

/// Flags of `image rm`.
#[derive(Debug, ClapArgs)]
pub(crate) struct ImageRmArgs {
    /// An agent, for all its dark-factory/AGENT images, or an image's name
    #[arg(required = true, value_name = "AGENT|NAME")]
    pub(crate) names: Vec<String>,
}

/// Flags of `doctor`.
#[derive(Debug, ClapArgs)]
pub(crate) struct DoctorArgs {
    /// Prompt file whose agent, image and project are probed
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Agent, as for `run`
    #[arg(long)]
    pub(crate) agent: Option<String>,
    /// Container image, as for `run`
    #[arg(long)]
    pub(crate) image: Option<String>,
    /// Environment variable, as for `run`: a credential that its command line brings
    #[arg(long, short, value_name = "K[=V]")]
    pub(crate) env: Vec<String>,
}

/// Flags of `retry`.
#[derive(Debug, ClapArgs)]
pub(crate) struct RetryArgs {
    #[command(flatten)]
    pub(crate) run: RunName,
    /// Show only how the run ends
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Queue it for the daemon, starting one if none runs
    #[arg(long, short, conflicts_with = "quiet")]
    pub(crate) detach: bool,
}

/// Flags of `exec`.
#[derive(Debug, ClapArgs)]
pub(crate) struct ExecArgs {
    /// For habit's sake: standard input is always passed on
    #[arg(short)]
    pub(crate) interactive: bool,
    /// Insist on a terminal, which is given anyway where there is one
    #[arg(short)]
    pub(crate) tty: bool,
    #[command(flatten)]
    pub(crate) run: RunName,
    /// Program and arguments
    #[arg(last = true, required = true, value_name = "ARGV")]
    pub(crate) command: Vec<String>,
}

/// Flags of `stats`.
#[derive(Debug, ClapArgs)]
pub(crate) struct StatsArgs {
    /// Runs, by id or the beginning or end of one [default: all that run]
    #[arg(value_name = "RUN")]
    pub(crate) runs: Vec<String>,
    /// Once, also on a terminal
    #[arg(long)]
    pub(crate) no_stream: bool,
}

/// Flags of `rm`.
#[derive(Debug, ClapArgs)]
pub(crate) struct RmArgs {
    /// Runs, by id or the beginning or end of one
    #[arg(required_unless_present = "all_finished", value_name = "RUN")]
    pub(crate) runs: Vec<String>,
    /// Every run that has ended
    #[arg(long, conflicts_with = "runs")]
    pub(crate) all_finished: bool,
}

/// How long runs are kept after their end.
#[derive(Debug, Clone, Copy, Default, ClapArgs)]
pub(crate) struct RetentionArgs {
    /// Remove runs that ended more days ago than this
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_days: Option<u32>,
    /// Remove runs that have ended, except the last N of them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_runs: Option<u32>,
}

/// Flags of `completion`.
#[derive(Debug, ClapArgs)]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub(crate) shell: CompletionShell,
}

/// The shells that completion is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompletionShell {
    Bash,
    Zsh,
    Fish,
    Elvish,
    Powershell,
}

/// Flags of `man`.
#[derive(Debug, ClapArgs)]
pub(crate) struct ManArgs {
    /// Folder for the pages; it is made if it is not there
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

fn exit_codes() -> String {
    let mut text = "Exit codes:".to_owned();
    for (code, meaning) in exit_code::MEANINGS {
        text = format!("{text}\n  {code:>3}  {meaning}");
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn what_follows_two_hyphens_is_the_command() {
        let args =
            Args::try_parse_from(["dark-factory", "run", "a.md", "b.md", "--", "sh", "-c", "x"])
                .unwrap();

        let Command::Run(run) = args.command else {
            panic!("not run")
        };
        assert_eq!(run.files, [PathBuf::from("a.md"), PathBuf::from("b.md")]);
        assert_eq!(run.command, ["sh", "-c", "x"]);
    }
}
