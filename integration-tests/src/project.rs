//! A git project for one test.
//!
//! Owns: its folder, a repository with one commit.
//! Reads: nothing.
//! Never: is owned by root; the container's user is the project's owner.

use std::fs;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Uid and gid of the project where the tests run as root; elsewhere the project is the caller's.
pub const PROJECT_OWNER: u32 = 1000;

/// A repository with `README.md` committed, in a folder that is removed at the end of the test.
#[derive(Debug)]
pub struct Project {
    folder: TempDir,
}

impl Project {
    /// Creates the repository.
    ///
    /// # Panics
    ///
    /// If git fails.
    #[expect(
        clippy::new_without_default,
        reason = "it creates a repository; a default would hide that"
    )]
    pub fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("dark-factory-project-")
            .tempdir()
            .expect("a temporary folder");
        let project = Self { folder };
        fs::write(project.path().join("README.md"), "# A project\n")
            .expect("a file of the project");
        project.git(&["init", "--quiet", "--initial-branch", "main"]);
        project.git(&["add", "--all"]);
        project.git(&["commit", "--quiet", "--message", "one"]);
        project.hand_over();
        project
    }

    /// Creates a project that git was never run in; a run takes it for one all the same.
    ///
    /// # Panics
    ///
    /// If there is no room for it.
    pub fn unversioned() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("dark-factory-project-")
            .tempdir()
            .expect("a temporary folder");
        fs::create_dir(folder.path().join(".git")).expect("a folder of the project");
        let project = Self { folder };
        project.hand_over();
        project
    }

    /// Keeps the project's folder for a person to look at.
    pub fn keep(&mut self) {
        self.folder.disable_cleanup(true);
    }

    /// Returns the project's root.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file of the project and returns its path.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a file has a folder"))
            .expect("a folder of the project");
        fs::write(&path, content).expect("a file of the project");
        self.hand_over();
        path
    }

    /// Returns a file's text.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    pub fn read(&self, name: &str) -> String {
        let path = self.path().join(name);
        fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{} cannot be read: {error}", path.display()))
    }

    /// Runs git in the project and returns what it printed.
    ///
    /// # Panics
    ///
    /// If git fails.
    pub fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args([
                "-c",
                "safe.directory=*",
                "-c",
                "user.name=test",
                "-c",
                "user.email=test@localhost",
            ])
            .args(arguments)
            .current_dir(self.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .expect("git can be started");
        assert!(
            output.status.success(),
            "git {arguments:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Gives everything to the owner, where the test is root and may.
    fn hand_over(&self) {
        if fs::metadata("/proc/self").expect("this process").uid() == 0 {
            give(self.path());
        }
    }
}

fn give(path: &Path) {
    lchown(path, Some(PROJECT_OWNER), Some(PROJECT_OWNER)).expect("root may give files away");
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("a folder of the project") {
            give(&entry.expect("an entry of the project").path());
        }
    }
}
