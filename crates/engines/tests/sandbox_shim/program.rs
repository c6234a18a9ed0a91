//! The program that the tests of the sandbox start as a shim, as the command line is one.

use std::ffi::OsStr;
use std::process::ExitCode;

use dark_factory_engines::sandbox::config::SHIM_ARG;
use dark_factory_engines::sandbox::shim_main;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(first) if first == OsStr::new(SHIM_ARG) => shim_main(args),
        _ => ExitCode::FAILURE,
    }
}
