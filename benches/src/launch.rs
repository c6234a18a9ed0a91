//! From the start of a client to the end of an agent that prints a line, beside the docker command line.
//!
//! Owns: the pairs that are compared.
//! Reads: nothing.
//! Never: measures the engine's own CPU.

use std::fs;
use std::io::sink;
use std::process::Command;

use dark_factory::engines::docker::launch::build_docker_run_args;
use dark_factory::engines::docker::launch_opts;
use dark_factory::executor::spec::Profile;
use dark_factory::types::{NetworkMode, OwnerId};

use crate::Result;
use crate::measure::{Measurement, measure};
use crate::rig::Rig;
use crate::table::{Row, table};

const SCRIPT: &str = "print x";
const HEADINGS: [&str; 3] = ["to removed ms", "first byte ms", "client CPU ms"];

pub(crate) fn bench(rig: &Rig, rounds: usize) -> Result<()> {
    let seed = |round| seed_shape(rig, round);
    let same = |network: NetworkMode| {
        move |round| docker_run(rig, network.clone(), Profile::Hardened, round)
    };
    let bridge = same(NetworkMode::Open);
    let guarded = NetworkMode::Allow(vec!["example.org".parse()?]);
    let none = same(NetworkMode::None);
    pair(
        rig,
        rounds,
        "launch without network, to the seed's rm and run",
        &NetworkMode::None,
        &seed,
    )?;
    pair(
        rig,
        rounds,
        "launch with a way out through the guard, to the seed's rm and run",
        &guarded,
        &seed,
    )?;
    pair(
        rig,
        rounds,
        "launch without network, to docker run of the same",
        &NetworkMode::None,
        &none,
    )?;
    pair(
        rig,
        rounds,
        "launch on the bridge, to docker run of the same",
        &NetworkMode::Open,
        &bridge,
    )?;
    help(rig)
}

/// A program and its name, by the round.
type Rival<'a> = (&'static str, &'a dyn Fn(usize) -> Result<Command>);

fn pair(
    rig: &Rig,
    rounds: usize,
    title: &str,
    network: &NetworkMode,
    docker: &dyn Fn(usize) -> Result<Command>,
) -> Result<()> {
    let ours = |_| Ok(rig.run(&["prompt.md"], &[], network.clone(), SCRIPT));
    let ours: Rival<'_> = ("dark-factory run", &ours);
    compare(title, rounds, &HEADINGS, ours, ("docker", docker))
}

/// Compares our run with another program, each round beginning with the other one; the headings are the first of
/// wall time, first byte and CPU.
pub(crate) fn compare(
    title: &str,
    rounds: usize,
    headings: &[&str],
    ours: Rival<'_>,
    theirs: Rival<'_>,
) -> Result<()> {
    let rivals = [ours, theirs];
    let mut rows = rivals.map(|(name, _)| Row::new(name, headings.len()));
    for round in 0..=rounds {
        for who in [round % 2, 1 - round % 2] {
            let run = measure(&mut rivals[who].1(round)?, sink())?;
            // The first round warms up.
            if round > 0 {
                let Measurement {
                    wall,
                    first_byte,
                    cpu,
                } = run;
                rows[who].push(&[wall * 1e3, first_byte * 1e3, cpu * 1e3]);
            }
        }
    }
    print!("{}", table(title, headings, &rows));
    Ok(())
}

/// The docker command line for the container that ours makes.
fn docker_run(rig: &Rig, network: NetworkMode, profile: Profile, round: usize) -> Result<Command> {
    let mut docker = Command::new("docker");
    docker.args(run_arguments(rig, network, profile, round)?);
    Ok(docker)
}

/// The arguments of that command line.
pub(crate) fn run_arguments(
    rig: &Rig,
    network: NetworkMode,
    profile: Profile,
    round: usize,
) -> Result<Vec<String>> {
    let mut spec = rig
        .resolved(&rig.image, network, &["/bin/agent", "-e", SCRIPT])?
        .spec;
    spec.profile = profile;
    spec.container = Some(format!("dark-factory-bench-{}-{round}", std::process::id()));
    if profile == Profile::Seed {
        let credentials = rig.beside("claude");
        fs::create_dir_all(&credentials)?;
        let netrc = rig.beside("netrc");
        fs::write(&netrc, "")?;
        spec.seed.claude_dir = Some(credentials);
        spec.seed.netrc_file = Some(netrc);
    }
    let attempt = dark_factory::types::RunId::from_random_bits(0).attempt(1);
    let opts = launch_opts(&spec, attempt, &OwnerId("bench".to_owned()), &rig.host);
    Ok(build_docker_run_args(&opts, &rig.host).argv)
}

/// What the seed does for each prompt.
fn seed_shape(rig: &Rig, round: usize) -> Result<Command> {
    let run = docker_run(rig, NetworkMode::Open, Profile::Seed, round)?;
    let name = format!("dark-factory-bench-{}-{round}", std::process::id());
    let mut shell = Command::new("sh");
    // The seed's first step, for a container that is not there.
    shell
        .args([
            "-c",
            "docker rm -f \"$0\" >/dev/null 2>&1; exec \"$@\"",
            &name,
        ])
        .arg(run.get_program())
        .args(run.get_args());
    Ok(shell)
}

/// The binary's size, and its quickest answer.
fn help(rig: &Rig) -> Result<()> {
    let walls: Result<Vec<f64>> = (0..50)
        .map(|_| Ok(measure(&mut rig.dark_factory(&["--help"]), sink())?.wall * 1e3))
        .collect();
    #[expect(clippy::cast_precision_loss, reason = "the size of a file")]
    let size = fs::metadata(&rig.binary)?.len() as f64 / f64::from(1 << 20);
    println!(
        "\nthe binary has {size:.1} MiB (goal 20 MiB); --help takes {:.1} ms at the median (goal 10 ms)",
        crate::measure::median(walls?)
    );
    Ok(())
}
