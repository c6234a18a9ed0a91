//! The images that the tests run: the scripted agent, and the real Claude Code.
//!
//! Owns: both recipes, their caches in `target/xtask`, and the label that tells whether an image is current.
//! Reads: the host's package configuration, for the mirror that it uses.
//! Never: pulls from a container registry.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use crate::engine::Engine;
use crate::packages::{self, Packages};
use crate::program::{self, Failure};

pub(crate) const AGENT: &str = "dark-factory-test/agent:latest";
pub(crate) const CLAUDE: &str = "dark-factory-test/claude:latest";

const INPUTS_LABEL: &str = "dark-factory.test.inputs";
/// Raised when a recipe below changes in a way that its other inputs don't show.
const RECIPE: u32 = 1;
/// The wheel that brings the Claude Code executable (2.1.331).
const CLAUDE_WHEEL: &str = "claude-agent-sdk==0.2.188";
const DEBIAN_PACKAGES: &str = "git,ca-certificates";
/// Folders of the Debian root that no test reads.
const NOT_NEEDED: [&str; 6] = [
    "etc/apt/sources.list",
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/lib/apt/lists",
];

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

/// Builds the image of the real Claude Code on a minimal Debian.
pub(crate) fn provide_claude(
    engine: &Engine,
    cache: &Path,
    packages: &mut Packages,
) -> Result<(), Failure> {
    let release = DebianRelease::of_host();
    let release_name = release.as_ref().map_or("", |release| &release.codename);
    let inputs = digest(&[
        &RECIPE.to_le_bytes(),
        release_name.as_bytes(),
        CLAUDE_WHEEL.as_bytes(),
        DEBIAN_PACKAGES.as_bytes(),
    ]);
    if is_current(engine, CLAUDE, &inputs) {
        return Ok(());
    }
    let release = release.filter(|_| packages::is_debian_root()).ok_or_else(|| {
        Failure::new(format!("building {CLAUDE} needs debootstrap, so Debian and root; it is kept once it is built"))
    })?;
    packages.provide(&[packages::DEBOOTSTRAP, packages::PYTHON, packages::PIP])?;
    let claude = claude_executable(cache)?;
    let root = debian_root(cache, &release, packages)?;
    let installed = root.join("usr/local/bin/claude");
    if installed.exists() {
        fs::remove_file(&installed)?;
    }
    fs::hard_link(claude, installed)?;
    import(
        engine,
        &root,
        CLAUDE,
        &inputs,
        &["USER agent", "CMD [\"bash\"]"],
    )
}

/// A release of Debian, by the name that its archive uses.
#[derive(Debug)]
struct DebianRelease {
    codename: String,
}

impl DebianRelease {
    fn of_host() -> Option<Self> {
        let text = fs::read_to_string("/etc/os-release").ok()?;
        let codename = text
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
        Some(Self {
            codename: codename.trim_matches('"').to_owned(),
        })
    }

    /// Returns the mirror that the host itself installs from.
    fn mirror(&self, packages: &mut Packages) -> Result<String, Failure> {
        // Which archive a mirror carries is known only from its lists.
        packages.update()?;
        let mut targets = Command::new("apt-get");
        targets
            .args([
                "indextargets",
                "--format",
                "$(REPO_URI)",
                "Created-By: Packages",
                "Component: main",
            ])
            .arg(format!("Codename: {}", self.codename));
        let mirrors = program::read(&mut targets)?;
        mirrors.lines().next().map(str::to_owned).ok_or_else(|| {
            Failure::new(format!(
                "apt-get knows no mirror of Debian {}",
                self.codename
            ))
        })
    }
}

/// Returns the folder of a minimal Debian with a user `agent`, uid 1000.
fn debian_root(
    cache: &Path,
    release: &DebianRelease,
    packages: &mut Packages,
) -> Result<PathBuf, Failure> {
    let root = cache.join(format!("debian-{}-{RECIPE}", release.codename));
    if root.exists() {
        return Ok(root);
    }
    eprintln!("   making a Debian root (a minute or two)");
    let unfinished = cache.join("debian-unfinished");
    remove_folder(&unfinished)?;
    let log = cache.join("debootstrap.log");
    // In a mount namespace of its own, what an interrupted debootstrap leaves mounted is gone with it.
    let mut bootstrap = Command::new("unshare");
    bootstrap
        .args(["--mount", "debootstrap", "--variant=minbase"])
        .arg(format!("--include={DEBIAN_PACKAGES}"))
        .arg(&release.codename)
        .arg(&unfinished)
        .arg(release.mirror(packages)?);
    program::run_logged(&mut bootstrap, &log)?;
    let mut user = Command::new("chroot");
    user.arg(&unfinished).args([
        "useradd",
        "--create-home",
        "--uid",
        "1000",
        "--shell",
        "/bin/bash",
        "agent",
    ]);
    program::run_logged(&mut user, &log)?;
    for path in NOT_NEEDED.map(|path| unfinished.join(path)) {
        if path.is_dir() {
            fs::remove_dir_all(path)?;
        } else {
            fs::remove_file(path)?;
        }
    }
    fs::rename(&unfinished, &root)?;
    Ok(root)
}

/// Returns the Claude Code executable out of its wheel.
fn claude_executable(cache: &Path) -> Result<PathBuf, Failure> {
    let claude = cache.join(CLAUDE_WHEEL.replace("==", "-"));
    if claude.exists() {
        return Ok(claude);
    }
    eprintln!("   downloading {CLAUDE_WHEEL}");
    let folder = cache.join("wheel");
    remove_folder(&folder)?;
    let log = cache.join("pip.log");
    let mut download = Command::new("python3");
    download
        .args([
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "--dest",
        ])
        .arg(&folder)
        .arg(CLAUDE_WHEEL);
    program::run_logged(&mut download, &log)?;
    let script = "import glob, os, shutil, sys, zipfile
wheel, = glob.glob(sys.argv[1] + '/*.whl')
with zipfile.ZipFile(wheel).open('claude_agent_sdk/_bundled/claude') as member, open(sys.argv[2], 'wb') as out:
    shutil.copyfileobj(member, out, 1 << 20)
os.chmod(sys.argv[2], 0o755)";
    let unfinished = folder.join("claude");
    program::run_logged(
        Command::new("python3")
            .args(["-c", script])
            .arg(&folder)
            .arg(&unfinished),
        &log,
    )?;
    fs::rename(&unfinished, &claude)?;
    remove_folder(&folder)?;
    Ok(claude)
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
