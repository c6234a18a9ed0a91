//! Output of 1 KiB lines into a file, beside a bare attach.
//!
//! Owns: the two ways, and what each costs every process that takes part.
//! Reads: the lengths of both files.
//! Never: counts the agent's own work.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use dark_factory::types::NetworkMode;
use nix::sys::resource::UsageWho;

use crate::Result;
use crate::accounts::{FirstProcess, Keeping};
use crate::api;
use crate::measure::{cpu, measure};
use crate::rig::Rig;
use crate::table::{Row, table};

const HEADINGS: [&str; 6] = ["MB/s", "CPU s/GB", "engine", "shim", "helper", "client"];

pub(crate) async fn bench(rig: &Rig, rounds: usize, mebibytes: u32) -> Result<()> {
    let script = format!("spew {mebibytes}m 1k");
    let bytes = u64::from(mebibytes) << 20;
    let mut rows = ["dark-factory run --quiet", "API attach, log driver none"]
        .map(|name| Row::new(name, HEADINGS.len()));
    for round in 0..=rounds {
        for who in [round % 2, 1 - round % 2] {
            let figures = match who {
                0 => ours(rig, &script, bytes)?,
                _ => attach(rig, &script, bytes).await?,
            };
            if round > 0 {
                rows[who].push(&figures);
            }
        }
    }
    let title = format!("{mebibytes} MiB of 1 KiB lines into a file");
    print!("{}", table(&title, &HEADINGS, &rows));
    Ok(())
}

fn ours(rig: &Rig, script: &str, bytes: u64) -> Result<[f64; 6]> {
    let accounts = Keeping::start(FirstProcess::OurHelper);
    let mut run = rig.run(&["prompt.md"], &["--quiet"], NetworkMode::None, script);
    let run = measure(&mut run, std::io::sink())?;
    let accounts = accounts.stop()?;
    let written = raw_log_length(&rig.state());
    fs::remove_dir_all(rig.state())?;
    figures(
        written,
        bytes,
        run.wall,
        [accounts.engine, accounts.shim, accounts.helper, run.cpu],
    )
}

async fn attach(rig: &Rig, script: &str, bytes: u64) -> Result<[f64; 6]> {
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
    let client = (cpu(UsageWho::RUSAGE_SELF)? - before).as_secs_f64();
    let accounts = accounts.stop()?;
    figures(
        fs::metadata(&path)?.len(),
        bytes,
        wall,
        [accounts.engine, accounts.shim, 0.0, client],
    )
}

#[expect(clippy::cast_precision_loss, reason = "a size in bytes")]
fn figures(written: u64, bytes: u64, wall: f64, cpu: [f64; 4]) -> Result<[f64; 6]> {
    if written != bytes {
        return Err(format!("{written} of {bytes} bytes were kept").into());
    }
    let giga = bytes as f64 / 1e9;
    let [engine, shim, helper, client] = cpu.map(|seconds| seconds / giga);
    Ok([
        giga * 1e3 / wall,
        engine + shim + helper + client,
        engine,
        shim,
        helper,
        client,
    ])
}

/// Returns the length of all raw logs below a folder, in bytes.
fn raw_log_length(folder: &Path) -> u64 {
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
