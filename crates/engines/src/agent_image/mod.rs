//! Images for agents: what every engine's are made of.
//!
//! Owns: the recipes with their pinned wheels, what can be asked for, and what can go wrong.
//! Reads: wheels, the user's cache.
//! Never: knows an engine, or executes an agent's files.

mod error;
mod recipe;
mod room;
mod source;
mod wheels;

use std::path::PathBuf;

use dark_factory_executor::resolve::check_image;
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use recipe::PinnedWheel;

pub(crate) use error::expected;
pub use error::{AgentImageError, MissingWheel};
pub(crate) use recipe::{Extent, REVISION};
pub use recipe::{RECIPES, Recipe, default_images, recipe};
pub(crate) use room::require_room;
pub(crate) use source::Source;
#[cfg(all(feature = "sandbox", target_os = "linux"))]
pub(crate) use source::sha256;

/// Receives a line for each step of a build.
pub type BuildProgress<'a> = &'a mut (dyn FnMut(&str) + Send);

/// Where an agent's files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentFiles {
    /// The pinned wheel, out of the cache, or downloaded into it.
    Pinned,
    /// A wheel, or a folder of what is in one.
    At(PathBuf),
}

/// What an agent's files are put on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// What the engine does by itself: Docker's images are put on a minimal Debian made here if this machine can and that
    /// does not fail, else on Debian from the registry; a sandbox's on this machine's own system.
    Automatic,
    /// A minimal Debian made here: on Debian, as root; Docker only.
    Debootstrap,
    /// An image that the engine has or can pull; of a sandbox `host`, a folder, or an archive, by its path.
    Image(String),
}

/// When an image is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebuild {
    /// Unless the one that has the name was made of the same things.
    IfOutdated,
    /// Anyhow, and with it a Debian base that is made here.
    Always,
}

/// An image to be made.
#[derive(Debug, Clone)]
pub struct AgentImageRequest {
    /// The agent's recipe.
    pub recipe: &'static Recipe,
    /// Where its files come from.
    pub files: AgentFiles,
    /// What they are put on.
    pub base: Base,
    /// The image's name, instead of the two that `agent:` looks for.
    pub tag: Option<String>,
    /// When it is made.
    pub rebuild: Rebuild,
    /// The folder of what is kept for the next time.
    pub cache_dir: PathBuf,
    /// The folder for what is needed meanwhile.
    pub temp_dir: PathBuf,
    /// The time that the image will tell.
    pub created: Timestamp,
}

impl AgentImageRequest {
    /// Returns the name, with its tag, by which the image is found.
    ///
    /// # Errors
    ///
    /// [`AgentImageError::Tag`] if the name that was asked for is none.
    pub(crate) fn image(&self) -> Result<String, AgentImageError> {
        match &self.tag {
            Some(tag) => full_name(tag),
            None => Ok(self.recipe.default_image()),
        }
    }
}

/// An image that was asked for and is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BuiltImage {
    /// The agent.
    pub agent: &'static str,
    /// Its version.
    pub agent_version: String,
    /// The image's names, the one to use first.
    pub references: Vec<String>,
    /// The image's id.
    pub id: String,
    /// Whether it was made now.
    pub built: bool,
}

/// An image that was made here, under one of its names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedImage {
    /// The name, or the id where it has none left.
    pub reference: String,
    /// The image's id.
    pub id: String,
    /// The agent; a base has none.
    pub agent: Option<String>,
    /// The agent's version.
    pub agent_version: Option<String>,
    /// What it was put on.
    pub base: Option<String>,
    /// When it was made.
    pub created: Option<String>,
    /// Its size with its base, in bytes.
    pub bytes: i64,
}

/// An agent's files, before anything is downloaded for them.
#[derive(Debug)]
pub(crate) enum Files {
    Pinned(&'static PinnedWheel),
    Given(Source),
}

impl Files {
    /// Finds what a request names, for an engine of this architecture.
    pub(crate) async fn find(
        request: &AgentImageRequest,
        arch: &str,
    ) -> Result<Self, AgentImageError> {
        let recipe = request.recipe;
        match &request.files {
            AgentFiles::Pinned => match recipe.wheel(arch) {
                Some(wheel) => Ok(Self::Pinned(wheel)),
                None => Err(AgentImageError::Architecture {
                    title: recipe.title,
                    arch: arch.to_owned(),
                }),
            },
            AgentFiles::At(path) => open(recipe, path.clone(), arch).await.map(Self::Given),
        }
    }

    /// Returns what tells these files from others.
    pub(crate) fn digest(&self) -> &str {
        match self {
            Self::Pinned(wheel) => wheel.sha256,
            Self::Given(source) => &source.digest,
        }
    }

    /// Returns the files, after downloading what is not in the cache.
    pub(crate) async fn provide(
        self,
        request: &AgentImageRequest,
        arch: &str,
        progress: BuildProgress<'_>,
    ) -> Result<Source, AgentImageError> {
        match self {
            Self::Given(source) => Ok(source),
            Self::Pinned(wheel) => {
                let recipe = request.recipe;
                let path = wheels::provide(recipe, wheel, &request.cache_dir, progress).await?;
                open(recipe, path, arch).await
            }
        }
    }
}

/// Does something unless the build is cancelled, and then drops it.
pub(crate) async fn unless_cancelled<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, AgentImageError>>,
) -> Result<T, AgentImageError> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(AgentImageError::Interrupted),
        done = work => done,
    }
}

/// Returns the full name that an image gets.
fn full_name(tag: &str) -> Result<String, AgentImageError> {
    let bad = |reason: String| AgentImageError::Tag {
        tag: tag.to_owned(),
        reason,
    };
    check_image(tag).map_err(|problem| bad(problem.to_string()))?;
    if tag.contains('@') {
        return Err(bad("a digest cannot be chosen".to_owned()));
    }
    Ok(match tag.rsplit_once(':') {
        // A colon before a slash belongs to a registry's port.
        Some((_, last)) if !last.contains('/') => tag.to_owned(),
        _ => format!("{tag}:latest"),
    })
}

async fn open(
    recipe: &'static Recipe,
    path: PathBuf,
    arch: &str,
) -> Result<Source, AgentImageError> {
    let arch = arch.to_owned();
    tokio::task::spawn_blocking(move || Source::open(recipe, &path, &arch))
        .await
        .map_err(|error| AgentImageError::local("look at the agent's files", error.into()))?
}

/// Returns a time as OCI writes it, to the second.
pub(crate) fn to_the_second(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Returns one digest of several texts.
pub(crate) fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
        hash.update([0]);
    }
    source::hex(&hash.finalize())
}

/// Returns the version in what a program says of itself, such as `2.1.331 (Claude Code)` or `codex-cli 0.163.0`.
pub(crate) fn version(said: &str) -> Option<&str> {
    let is_version = |word: &&str| {
        word.starts_with(|c: char| c.is_ascii_digit())
            && word.len() <= 64
            && word
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    said.split_whitespace().find(is_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_what_an_agent_says() {
        for (said, found) in [
            ("2.1.331 (Claude Code)", Some("2.1.331")),
            ("codex-cli 0.163.0", Some("0.163.0")),
            ("codex-cli 0.163.0-alpha.1", Some("0.163.0-alpha.1")),
            ("no version", None),
            ("1/2", None),
            ("", None),
        ] {
            assert_eq!(version(said), found, "{said}");
        }
    }
}
