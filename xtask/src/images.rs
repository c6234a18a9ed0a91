//! The images that the tests run: the scripted agent, and the real Claude Code and Codex.
//!
//! Owns: the recipe of the first, and the label that tells whether it is current.
//! Reads: the helper.
//! Never: knows how a real agent gets into an image; the product does.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use crate::engine::Engine;
use crate::packages::{self, Packages};
use crate::program::{self, Failure};

pub(crate) const AGENT: &str = "dark-factory-test/agent:latest";
pub(crate) const CLAUDE: &str = "dark-factory-test/claude:latest";
pub(crate) const CODEX: &str = "dark-factory-test/codex:latest";

const INPUTS_LABEL: &str = "dark-factory.test.inputs";
/// Raised when the recipe below changes in a way that its other inputs don't show.
const RECIPE: u32 = 1;

/// Builds the image of the scripted agent: nothing but the helper, under two names.
pub(crate) fn provide_agent(engine: &Engine, cache: &Path, helper: &Path) -> Result<(), Failure> {
    let inputs = digest(&[&RECIPE.to_le_bytes(), &fs::read(helper)?]);
    if is_current(engine, AGENT, &inputs) {
        return Ok(());
    }
    let root = cache.join("agent-root");
    remove_folder(&root)?;
    for folder in ["bin", "usr/local/bin", "tmp"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::set_permissions(root.join("tmp"), Permissions::from_mode(0o1777))?;
    fs::copy(helper, root.join("bin/agent"))?;
    fs::hard_link(root.join("bin/agent"), root.join("usr/local/bin/claude"))?;
    import(
        engine,
        &root,
        AGENT,
        &inputs,
        &["ENV PATH=/usr/local/bin:/bin"],
    )
}

/// Has the product make the images of the real agents, as it makes them for its users.
///
/// They lie in the engine, and the wheels in the user's cache folder; what is there is not made again.
pub(crate) fn provide_real_agents(binary: &Path, packages: &mut Packages) -> Result<(), Failure> {
    packages.provide(&[packages::PYTHON, packages::PIP])?;
    if packages::is_debian_root() {
        packages.provide(&[packages::DEBOOTSTRAP])?;
    }
    for (agent, image) in [("claude", CLAUDE), ("codex", CODEX)] {
        program::run_quietly(Command::new(binary).args(["image", "build", agent, "--tag", image]))?;
    }
    Ok(())
}

fn is_current(engine: &Engine, image: &str, inputs: &str) -> bool {
    let format = format!("{{{{index .Config.Labels \"{INPUTS_LABEL}\"}}}}");
    let mut inspect = engine.docker();
    program::read(inspect.args(["image", "inspect", "--format", &format, image]))
        .is_ok_and(|label| label == inputs)
}

/// Makes a folder an image of one layer, in place of the image that had the name.
fn import(
    engine: &Engine,
    root: &Path,
    image: &str,
    inputs: &str,
    changes: &[&str],
) -> Result<(), Failure> {
    eprintln!("   importing {image}");
    let previous = program::read(
        engine
            .docker()
            .args(["image", "inspect", "--format", "{{.Id}}", image]),
    )
    .ok();
    let mut tar = Command::new("tar")
        .args([
            "--create",
            "--numeric-owner",
            "--exclude=./dev/*",
            "--directory",
        ])
        .arg(root)
        .arg(".")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let archive = tar
        .stdout
        .take()
        .ok_or_else(|| Failure::new("tar has no output"))?;
    let mut import = engine.docker();
    import.args(["import", "--change", "LABEL dark-factory.test=1"]);
    import.args(["--change", &format!("LABEL {INPUTS_LABEL}={inputs}")]);
    for change in changes {
        import.args(["--change", change]);
    }
    let imported = import
        .args(["-", image])
        .stdin(archive)
        .stdout(Stdio::null())
        .status()?;
    let packed = tar.wait()?;
    if !imported.success() || !packed.success() {
        return Err(Failure::new(format!(
            "importing {image} failed: docker {imported}, tar {packed}"
        )));
    }
    if let Some(previous) = previous {
        // It stays where a container still uses it.
        program::succeeds(engine.docker().args(["image", "rm", &previous]));
    }
    Ok(())
}

fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn remove_folder(folder: &Path) -> Result<(), Failure> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    Ok(())
}
