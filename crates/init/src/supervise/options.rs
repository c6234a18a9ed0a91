//! The command line of `dark-factory-init run`.
//!
//! Owns: its grammar and defaults.
//! Reads: the arguments.
//! Never: touches what they name.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use dark_factory_spool::{EGRESS_PORT, RecordId};
use rustix::process::Resource;

use super::stage;

const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// What `run` was asked to do.
pub(super) struct Options {
    /// The handover socket.
    pub(super) socket: PathBuf,
    /// The attempt's id, as every record carries it.
    pub(super) id: RecordId,
    /// The file that is the agent's stdin; `/dev/null` without one.
    pub(super) stdin: Option<PathBuf>,
    /// How long a supervisor may take to hand the spool over.
    pub(super) connect_timeout: Duration,
    /// Bytes of output, of both streams together, after which the agent is killed.
    pub(super) log_limit: Option<u64>,
    /// What each process of the agent may have at most: bytes of one file, open files.
    pub(super) rlimits: Vec<(Resource, u64)>,
    /// The guard's socket, for a container whose only way out it is.
    pub(super) egress: Option<PathBuf>,
    /// The port on the loopback that leads to it.
    pub(super) egress_port: u16,
    /// The agent's program and arguments; never empty.
    pub(super) argv: Vec<OsString>,
}

impl Options {
    /// Parses the arguments after `run`; the error is a sentence for people.
    pub(super) fn parse(args: &[OsString]) -> Result<Self, String> {
        let mut socket = None;
        let mut id = None;
        let mut stdin = None;
        let mut connect_timeout = DEFAULT_CONNECT_TIMEOUT;
        let mut log_limit = None;
        let mut rlimits = Vec::new();
        let mut egress = None;
        let mut egress_port = EGRESS_PORT;
        let mut args = args.iter();
        while let Some(name) = args.next() {
            if name == OsStr::new("--") {
                break;
            }
            let value = args
                .next()
                .ok_or_else(|| format!("{} needs a value", name.display()))?;
            match name.to_str() {
                Some("--socket") => socket = Some(PathBuf::from(value)),
                Some("--id") => id = value.to_str().and_then(RecordId::new),
                Some("--stdin") => stdin = Some(PathBuf::from(value)),
                Some("--connect-timeout") => connect_timeout = seconds(value)?,
                Some("--log-limit") => log_limit = Some(number(value)?),
                Some("--egress") => egress = Some(PathBuf::from(value)),
                Some("--egress-port") => egress_port = port(value)?,
                _ => match stage::limited_by(name) {
                    Some(resource) => rlimits.push((resource, number(value)?)),
                    None => return Err(format!("unknown option {}", name.display())),
                },
            }
        }
        let argv: Vec<OsString> = args.cloned().collect();
        if argv.is_empty() {
            return Err("no program after --".to_owned());
        }
        Ok(Self {
            socket: socket.ok_or("--socket is missing")?,
            id: id.ok_or("--id is missing or not an attempt id")?,
            stdin,
            connect_timeout,
            log_limit,
            rlimits,
            egress,
            egress_port,
            argv,
        })
    }
}

fn seconds(value: &OsStr) -> Result<Duration, String> {
    value
        .to_str()
        .and_then(|text| text.parse().ok())
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("{} is not a number of seconds", value.display()))
}

fn number(value: &OsStr) -> Result<u64, String> {
    value
        .to_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("{} is not a whole number", value.display()))
}

fn port(value: &OsStr) -> Result<u16, String> {
    value
        .to_str()
        .and_then(|text| text.parse().ok())
        .filter(|port| *port != 0)
        .ok_or_else(|| format!("{} is not a port", value.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        Options::parse(&args)
    }

    #[test]
    fn everything_after_the_dashes_belongs_to_the_agent() {
        let options = parse("--socket s --id a-1 --connect-timeout 0.5 -- prog --id -- x").unwrap();

        assert_eq!(options.argv, ["prog", "--id", "--", "x"]);
        assert_eq!(options.connect_timeout, Duration::from_millis(500));
        assert_eq!(options.id.as_str(), "a-1");
    }

    #[test]
    fn a_log_is_limited_only_where_a_limit_is_named() {
        let limited = parse("--socket s --id a-1 --log-limit 1024 -- prog").unwrap();
        let unlimited = parse("--socket s --id a-1 -- prog").unwrap();

        assert_eq!(limited.log_limit, Some(1024));
        assert_eq!(unlimited.log_limit, None);
    }

    #[test]
    fn incomplete_or_unknown_arguments_are_refused() {
        for line in [
            "--socket s --id a-1",
            "--socket s --id a-1 --",
            "--id a-1 -- prog",
            "--socket s -- prog",
            "--socket s --id seventeen-letters -- prog",
            "--socket s --id a-1 --connect-timeout -1 -- prog",
            "--socket s --id a-1 --log-limit 1k -- prog",
            "--socket s --id a-1 --egress-port 0 -- prog",
            "--socket s --id a-1 --what x -- prog",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
