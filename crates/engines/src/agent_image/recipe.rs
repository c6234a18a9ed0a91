//! What an agent's image is made of: the wheel, the version that is pinned, and where its files go.
//!
//! Owns: the pinned versions with their checksums, and the names of the images.
//! Reads: nothing.
//! Never: names a version that was not tried.

use std::collections::BTreeMap;

use dark_factory_types::ByteSize;

/// Raised when an image comes out differently from the same wheel and base.
pub(crate) const REVISION: u32 = 1;

/// Where the wheels are published.
const INDEX: &str = "https://files.pythonhosted.org/packages";

/// How one agent gets into an image.
#[derive(Debug, PartialEq, Eq)]
pub struct Recipe {
    /// The agent's name, and its program's.
    pub agent: &'static str,
    /// The agent's name as its makers write it.
    pub title: &'static str,
    /// The Python package that brings it.
    pub package: &'static str,
    /// The package's version.
    pub package_version: &'static str,
    /// The agent's own version.
    pub agent_version: &'static str,
    /// The package's files, one for each architecture.
    pub(crate) wheels: &'static [PinnedWheel],
    /// Room that downloading a wheel takes: clients write it twice.
    pub(crate) wheel_room: ByteSize,
    /// The wheel's folder that is needed.
    pub(crate) folder: &'static str,
    /// The executable, in this folder.
    pub(crate) executable: &'static str,
    /// How much of the folder is needed.
    pub(crate) extent: Extent,
    /// Where that goes in the image.
    pub(crate) target: &'static str,
}

/// How much of a wheel's folder is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The executable alone.
    Executable,
    /// Everything but Python's own files: the executable starts others beside it.
    Folder,
}

/// A file of a package, as it was published.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PinnedWheel {
    /// The engine's name of the architecture.
    pub(crate) arch: &'static str,
    pub(crate) file: &'static str,
    pub(crate) platform: &'static str,
    pub(crate) sha256: &'static str,
    path: &'static str,
}

impl PinnedWheel {
    /// Returns where it can be downloaded.
    pub(crate) fn url(&self) -> String {
        format!("{INDEX}/{}/{}", self.path, self.file)
    }
}

impl Recipe {
    /// Returns the repository of the agent's images.
    pub fn repository(&self) -> String {
        format!("dark-factory/{}", self.agent)
    }

    /// Returns the image that the agent has where none is named.
    pub fn default_image(&self) -> String {
        format!("{}:latest", self.repository())
    }

    pub(crate) fn wheel(&self, arch: &str) -> Option<&'static PinnedWheel> {
        self.wheels.iter().find(|wheel| wheel.arch == arch)
    }
}

/// The recipes, one for each agent that there is an image for.
pub const RECIPES: [Recipe; 2] = [
    Recipe {
        agent: "claude",
        title: "Claude Code",
        package: "claude-agent-sdk",
        package_version: "0.2.188",
        agent_version: "2.1.331",
        wheels: &[
            PinnedWheel {
                arch: "amd64",
                file: "claude_agent_sdk-0.2.188-py3-none-manylinux_2_17_x86_64.whl",
                platform: "manylinux_2_17_x86_64",
                sha256: "00a6ee72f8d7eb3b027ba8883ecd32108106ecf46068cb632c4401be465c9364",
                path: "a1/9c/362016e0b1ccd24193a6a41650c753e4d3db00a2903a1c7118eb622dde3f",
            },
            PinnedWheel {
                arch: "arm64",
                file: "claude_agent_sdk-0.2.188-py3-none-manylinux_2_17_aarch64.whl",
                platform: "manylinux_2_17_aarch64",
                sha256: "8e21bb2f7d3c1cd08a019df2899bbb39be6c986e25d3c951023d0540e37a7820",
                path: "2b/7d/0054b1bb0bd58613694ee4f0bd286ee5580fe80e7d3b6c9473ac40175afd",
            },
        ],
        wheel_room: ByteSize(400 << 20),
        folder: "claude_agent_sdk/_bundled",
        executable: "claude",
        extent: Extent::Executable,
        target: "usr/local/bin",
    },
    Recipe {
        agent: "codex",
        title: "Codex CLI",
        package: "openai-codex-cli-bin",
        package_version: "0.163.0",
        agent_version: "0.163.0",
        wheels: &[
            PinnedWheel {
                arch: "amd64",
                file: "openai_codex_cli_bin-0.163.0-py3-none-manylinux_2_17_x86_64.whl",
                platform: "manylinux_2_17_x86_64",
                sha256: "76db41fb07fdf9ddacbe892b48d21dfde270031ec0f5666b5e558114355f006d",
                path: "5f/64/eb70467d717510b78da54e2ae604a1b5348c17f535086e2825a283e540e2",
            },
            PinnedWheel {
                arch: "arm64",
                file: "openai_codex_cli_bin-0.163.0-py3-none-manylinux_2_17_aarch64.whl",
                platform: "manylinux_2_17_aarch64",
                sha256: "bb2b0d117eeb02608738cf2bcdf51f6a036343d0028272e11a94e72b0d23b141",
                path: "ed/50/5d60d97ebfa2f238fcc209d1764077a11d24eebd028f8a80bd0a180e1125",
            },
        ],
        wheel_room: ByteSize(400 << 20),
        folder: "codex_cli_bin",
        executable: "bin/codex",
        extent: Extent::Folder,
        target: "usr/local/lib/codex",
    },
];

/// Returns an agent's recipe.
pub fn recipe(agent: &str) -> Option<&'static Recipe> {
    RECIPES.iter().find(|recipe| recipe.agent == agent)
}

/// Returns the image of each agent that has one where none is named.
pub fn default_images() -> BTreeMap<String, String> {
    RECIPES
        .iter()
        .map(|recipe| (recipe.agent.to_owned(), recipe.default_image()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pinned_wheel_names_its_package_version_and_platform() {
        for recipe in &RECIPES {
            for wheel in recipe.wheels {
                let package = recipe.package.replace('-', "_");
                let version = recipe.package_version;
                let platform = wheel.platform;

                assert_eq!(
                    wheel.file,
                    format!("{package}-{version}-py3-none-{platform}.whl")
                );
                assert_eq!(wheel.sha256.len(), 64);
            }
        }
    }

    #[test]
    fn the_default_images_are_the_recipes_ones() {
        let images: Vec<_> = default_images().into_iter().collect();

        assert_eq!(
            images,
            [
                ("claude", "dark-factory/claude:latest"),
                ("codex", "dark-factory/codex:latest"),
            ]
            .map(|(agent, image)| (agent.to_owned(), image.to_owned()))
        );
    }
}
