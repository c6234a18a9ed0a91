//! The static helper inside every container: supervisor of the agent, the agent's process until it is the agent, or the
//! scripted agent itself.
//!
//! Owns: which of them the command line asks for.
//! Reads: the command line.
//! Never: does their work; see `supervise` and `script`.

mod script;
mod supervise;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
usage: dark-factory-init run --socket PATH --id ATTEMPT_ID [--stdin PATH] [--connect-timeout SECONDS]
                             [--log-limit BYTES] [--egress SOCKET [--egress-port PORT]] -- ARGV...
       dark-factory-init agent [-e SCRIPT | FILE]
";

fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    let name = args.first().map_or_else(OsString::new, |program| {
        Path::new(program)
            .file_name()
            .unwrap_or_default()
            .to_os_string()
    });
    args.drain(..args.len().min(1));

    // The demo image has this program under the agents' names.
    match name.to_str() {
        Some("claude") => return script::run_as_claude(),
        Some("agent") => return script::run(&args),
        _ => {}
    }
    match args.first().and_then(|arg| OsStr::to_str(arg)) {
        Some("run") => supervise::run(&args[1..]),
        Some(supervise::STAGE_ARG) => supervise::run_stage(&args[1..]),
        Some("agent") => script::run(&args[1..]),
        _ => {
            // Nowhere is left to report a stderr that cannot be written.
            let _reported = io::stderr().write_all(USAGE.as_bytes());
            ExitCode::from(2)
        }
    }
}
