//! Output of 1 KiB lines into a file, beside a bare attach and beside what the kernel takes for the same bytes.
//!
//! Owns: the ways, and what each costs every process that takes part.
//! Reads: the lengths of both files.
//! Never: counts the agent's own work.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use dark_factory::HELPER;
use dark_factory::types::NetworkMode;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::UsageWho;

use crate::Result;
use crate::accounts::{FirstProcess, Keeping};
use crate::api;
use crate::measure::{cpu, measure};
use crate::rig::Rig;
use crate::table::{Row, table};

/// What the helper asks for, and reads at once.
const PIPE: i32 = 256 << 10;
const HEADINGS: [&str; 6] = ["MB/s", "CPU s/GB", "engine", "shim", "helper", "client"];

/// Seconds that something took, and those of CPU: of engine, shim, helper and client.
#[derive(Debug, Clone, Copy)]
struct Spent {
    wall: f64,
    cpu: [f64; 4],
}

impl Spent {
    /// Returns what is left without another.
    fn without(self, other: Self) -> Self {
        Self {
            wall: self.wall - other.wall,
            cpu: std::array::from_fn(|whose| self.cpu[whose] - other.cpu[whose]),
        }
    }

    /// Returns the figures of a table for so many bytes.
    #[expect(clippy::cast_precision_loss, reason = "a size in bytes")]
    fn of(self, bytes: u64) -> [f64; 6] {
        let giga = bytes as f64 / 1e9;
        let [engine, shim, helper, client] = self.cpu.map(|seconds| seconds / giga);
        let all = engine + shim + helper + client;
        [giga * 1e3 / self.wall, all, engine, shim, helper, client]
    }
}

pub(crate) async fn bench(rig: &Rig, rounds: usize, mebibytes: u32) -> Result<()> {
    let bytes = u64::from(mebibytes) << 20;
    let names = [
        "dark-factory run --quiet",
        "floor: a pipe into 1 file, synced",
        "floor: the same, and a second file",
        "API attach, log driver none",
    ];
    let mut whole = names.map(|name| Row::new(name, HEADINGS.len()));
    let mut output = whole.clone();
    for round in 0..=rounds {
        for turn in 0..names.len() {
            let who = (round + turn) % names.len();
            let full = spent(rig, who, mebibytes).await;
            let full = full.map_err(|error| format!("{}: {error}", names[who]))?;
            let empty = spent(rig, who, 0).await?;
            if round > 0 {
                whole[who].push(&full.of(bytes));
                output[who].push(&full.without(empty).of(bytes));
            }
        }
    }
    let title = format!("{mebibytes} MiB of 1 KiB lines into a file, container and all");
    print!("{}", table(&title, &HEADINGS, &whole));
    let title = "the output alone: less the same with an agent that prints nothing";
    print!("{}", table(title, &HEADINGS, &output));
    Ok(())
}

/// Returns what it takes one of the ways.
async fn spent(rig: &Rig, who: usize, mebibytes: u32) -> Result<Spent> {
    let script = format!("spew {mebibytes}m 1k");
    let (kept, spent) = match who {
        0 => ours(rig, &script)?,
        1 => floor(rig, &script, 1)?,
        2 => floor(rig, &script, 2)?,
        _ => attach(rig, &script).await?,
    };
    let bytes = u64::from(mebibytes) << 20;
    if kept != bytes {
        return Err(format!("{kept} of {bytes} bytes were kept").into());
    }
    Ok(spent)
}

/// Returns how many bytes were kept, and what that took.
fn ours(rig: &Rig, script: &str) -> Result<(u64, Spent)> {
    let accounts = Keeping::start(FirstProcess::OurHelper);
    let mut run = rig.run(&["prompt.md"], &["--quiet"], NetworkMode::None, script);
    let run = measure(&mut run, std::io::sink())?;
    let accounts = accounts.stop()?;
    let kept = raw_log_length(&rig.state());
    fs::remove_dir_all(rig.state())?;
    let spent = Spent {
        wall: run.wall,
        cpu: [accounts.engine, accounts.shim, accounts.helper, run.cpu],
    };
    Ok((kept, spent))
}

/// Copies what the agent prints, without a container, from its pipe into files, and syncs the first of them.
fn floor(rig: &Rig, script: &str, files: usize) -> Result<(u64, Spent)> {
    let before = cpu(UsageWho::RUSAGE_SELF)?;
    let (copied, wall) = piped(rig, script, files, Disk::Synced)?;
    let client = (cpu(UsageWho::RUSAGE_SELF)? - before).as_secs_f64();
    let cpu = [0.0, 0.0, 0.0, client];
    Ok((copied, Spent { wall, cpu }))
}

/// Whether what was written has to be on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    Synced,
    Cached,
}

/// Copies what the agent prints, without a container, from its pipe into files; returns the bytes, and the seconds.
pub(crate) fn piped(rig: &Rig, script: &str, files: usize, disk: Disk) -> Result<(u64, f64)> {
    let agent = rig.beside("helper");
    fs::write(&agent, HELPER.bytes())?;
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o755))?;
    let paths: Vec<_> = (0..files)
        .map(|file| rig.beside(&format!("floor-{file}")))
        .collect();
    let created: std::io::Result<Vec<File>> = paths.iter().map(File::create).collect();
    let mut created = created?;
    let mut buffer = vec![0; usize::try_from(PIPE)?];
    let start = Instant::now();
    let mut child = Command::new(&agent)
        .args(["agent", "-e", script])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut pipe = child.stdout.take().ok_or("no pipe")?;
    fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(PIPE))?;
    let mut copied = 0;
    loop {
        let length = pipe.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        for file in &mut created {
            file.write_all(&buffer[..length])?;
        }
        copied += u64::try_from(length)?;
    }
    child.wait()?;
    if disk == Disk::Synced {
        created[0].sync_data()?;
    }
    let wall = start.elapsed().as_secs_f64();
    paths.iter().try_for_each(fs::remove_file)?;
    Ok((copied, wall))
}

async fn attach(rig: &Rig, script: &str) -> Result<(u64, Spent)> {
    let resolved = rig.resolved(&rig.image, NetworkMode::None, &["/bin/agent", "-e", script])?;
    let body = api::body(rig, &resolved)?;
    let path = rig.beside("attached");
    let mut file = File::create(&path)?;
    let accounts = Keeping::start(FirstProcess::TheAgent);
    let (start, before) = (Instant::now(), cpu(UsageWho::RUSAGE_SELF)?);
    let created = api::create(&rig.api, body).await?;
    let id = created.id.clone();
    api::start(&rig.api, &id).await?;
    api::drain(created, |piece| Ok(file.write_all(piece)?)).await?;
    api::wait(&rig.api, &id).await?;
    api::remove(&rig.api, &id).await?;
    let wall = start.elapsed().as_secs_f64();
    let accounts = accounts.stop()?;
    let client = (cpu(UsageWho::RUSAGE_SELF)? - before).as_secs_f64() - accounts.keeping;
    let cpu = [accounts.engine, accounts.shim, 0.0, client];
    Ok((fs::metadata(&path)?.len(), Spent { wall, cpu }))
}

/// Returns the length of all raw logs below a folder, in bytes.
pub(crate) fn raw_log_length(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => raw_log_length(&entry.path()),
            Ok(_) if entry.file_name() == "raw.jsonl" => {
                entry.metadata().map_or(0, |raw| raw.len())
            }
            _ => 0,
        })
        .sum()
}
