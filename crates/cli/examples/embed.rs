//! Runs one prompt file from a program of your own: `cargo run --example embed -- STATE_DIR FILE`.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use dark_factory::HELPER;
use dark_factory::egress::{GuardProcess, GuardProgram, guard_main};
use dark_factory::engines::docker::{DockerEndpoint, DockerEngine};
use dark_factory::executor::attempt::Control;
use dark_factory::executor::clock::{Clock, SystemClock};
use dark_factory::executor::host::HostView;
use dark_factory::executor::keys::KeySources;
use dark_factory::executor::prompt::Prompt;
use dark_factory::executor::resolve::{ResolveContext, resolve};
use dark_factory::executor::settings::Settings;
use dark_factory::executor::supervisor::Supervisor;
use dark_factory::types::Report;

async fn run(state_dir: &Path, file: &str) -> Result<Report, Box<dyn Error>> {
    // The library reads no environment: what may be seen of it is passed in.
    let env: BTreeMap<String, String> = std::env::vars().collect();
    let host = HostView {
        home: env.get("HOME").map(PathBuf::from),
        cwd: std::env::current_dir()?,
        env,
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let endpoint = DockerEndpoint::resolve(None, &host.env)?;
    let engine = DockerEngine::connect(&endpoint, host.clone(), Arc::clone(&clock));
    // A process of its own, and this program: it carries the run's requests, and outlives us.
    let keys = KeySources::default();
    let guard = GuardProcess::new(state_dir, GuardProgram::this(), keys, host.clone());
    let supervisor =
        Supervisor::open(Arc::new(engine), state_dir, HELPER, clock)?.with_guard(Arc::new(guard));
    supervisor.probe().await?;

    let prompt = Prompt::parse(file, &std::fs::read(file)?)?;
    let context = ResolveContext::new(state_dir.to_path_buf());
    let resolved = resolve(&prompt, &Settings::default(), &host, &context)?;

    // Durable from here on: if this process dies, `recover` goes on with the run.
    let submitted = supervisor.submit(&resolved).await?;
    let control = Control::new("the embedding program");
    Ok(supervisor
        .run(submitted, Vec::new(), &control, &|_| {})
        .await?)
}

#[expect(clippy::print_stdout, reason = "an example shows its result")]
fn main() -> Result<ExitCode, Box<dyn Error>> {
    // First of all: this process may have been started as the guard.
    if let Some(code) = guard_main(std::env::args_os().skip(1)) {
        return Ok(code);
    }
    let mut arguments = std::env::args().skip(1);
    let (Some(state_dir), Some(file)) = (arguments.next(), arguments.next()) else {
        return Err("usage: embed STATE_DIR FILE".into());
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let report = runtime.block_on(run(Path::new(&state_dir), &file))?;
    println!("{}: {}", report.outcome, report.cause);
    Ok(ExitCode::SUCCESS)
}
