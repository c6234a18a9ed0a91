//! Files of a project that later runs, git and editors obey: which of them a run changed.
//!
//! Owns: which files these are, and what of each is compared.
//! Reads: the project, by paths that cannot lead out of it.
//! Never: waits for a pipe, follows a link out of the project, or reads more than a person would write.
//!
//! What an agent reads as text, such as `CLAUDE.md`, is not among them: changing it is ordinary work.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{CWD, Dir, Mode, OFlags, ResolveFlags, openat, openat2, readlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The files. A `.git` that is a file says where the repository is.
const FILES: [&str; 10] = [
    ".claude/settings.json",
    ".claude/settings.local.json",
    ".dark-factory.yaml",
    ".envrc",
    ".git",
    ".git/config",
    ".git/config.worktree",
    ".git/info/attributes",
    ".gitattributes",
    "dark-factory.toml",
];

/// The folder of programs that git executes.
const HOOKS: &str = ".git/hooks";

/// The end of the names of those that git only shows.
const SAMPLE: &str = ".sample";

/// The most of them that are looked at. Where there are more, some of them are new, and that is told.
const MOST_HOOKS: usize = 200;

/// The largest file whose content is compared; of a larger one it is what an agent cannot set back.
const LARGEST: u64 = 1 << 20;

/// How many files are named.
const NAMED: usize = 10;

/// What stood at each path; what was not there is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Obeyed {
    Known(BTreeMap<String, String>),
    Unknown(String),
}

impl Obeyed {
    /// Looks at a project. Blocks.
    pub(crate) fn of(project: &Path) -> Self {
        match look(project) {
            Ok(found) => Self::Known(found),
            Err(error) => Self::Unknown(error.to_string()),
        }
    }

    /// Says what is another than `self` was; `None` if nothing is.
    pub(crate) fn difference(&self, now: &Self) -> Option<String> {
        let (before, now) = match (self, now) {
            (Self::Known(before), Self::Known(now)) => (before, now),
            (Self::Unknown(why), _) | (_, Self::Unknown(why)) => {
                return Some(format!(
                    "whether it changed what later runs, git or an editor obey could not be found out: {why}"
                ));
            }
        };
        let paths: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
        let changed = paths.iter().filter_map(|path| {
            let how = match (before.get(*path), now.get(*path)) {
                (None, _) => "new",
                (Some(_), None) => "removed",
                (Some(old), Some(new)) if old != new => "changed",
                _ => return None,
            };
            Some(format!("{} ({how})", path.escape_debug()))
        });
        let changed: Vec<String> = changed.collect();
        let more = match changed.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let named = changed.get(..NAMED).unwrap_or(&changed).join(", ");
        (!changed.is_empty()).then(|| {
            format!(
                "while it ran, files changed that later runs, git or an editor obey: {named}{more}; read them before \
                 you go on in this project"
            )
        })
    }
}

fn look(project: &Path) -> io::Result<BTreeMap<String, String>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, project, flags, Mode::empty())?;
    let mut found = BTreeMap::new();
    let hooks = hooks(&root)?;
    for path in FILES.map(str::to_owned).into_iter().chain(hooks) {
        if let Some(state) = state(&root, &path)? {
            found.insert(path, state);
        }
    }
    Ok(found)
}

/// Opens what is at a path below the project, through links that stay there.
fn open(root: &OwnedFd, path: &str) -> rustix::io::Result<OwnedFd> {
    // A pipe would be waited for until somebody writes to it.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, flags, Mode::empty(), within)
}

/// Lists the programs that git executes.
fn hooks(root: &OwnedFd) -> io::Result<Vec<String>> {
    let Some(folder) = open(root, HOOKS)
        .ok()
        .map(Dir::new)
        .transpose()
        .ok()
        .flatten()
    else {
        return Ok(Vec::new());
    };
    let mut hooks = Vec::new();
    for entry in folder {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy();
        if !matches!(name.as_ref(), "." | "..") && !name.ends_with(SAMPLE) {
            hooks.push(format!("{HOOKS}/{name}"));
        }
        if hooks.len() == MOST_HOOKS {
            break;
        }
    }
    Ok(hooks)
}

/// Returns what stands at a path, as a text that is another one if that is changed; `None` if nothing does.
fn state(root: &OwnedFd, path: &str) -> io::Result<Option<String>> {
    let opened = match open(root, path) {
        Ok(opened) => File::from(opened),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(Errno::NOSYS) => return Err(Errno::NOSYS.into()),
        // A link that leads out of the project, or a file that is not ours to read.
        Err(error) => {
            let target = readlinkat(root, path, Vec::new()).unwrap_or_default();
            return Ok(Some(format!("{error}: {}", target.to_string_lossy())));
        }
    };
    let found = opened.metadata()?;
    let executable = found.mode() & 0o111;
    Ok(Some(if found.is_dir() {
        "a folder".to_owned()
    } else if !found.is_file() {
        "something else".to_owned()
    } else if found.len() > LARGEST {
        let changed = (found.ctime(), found.ctime_nsec());
        format!("{executable:o} {} {} {changed:?}", found.len(), found.ino())
    } else {
        let mut content = Vec::new();
        opened.take(LARGEST).read_to_end(&mut content)?;
        format!("{executable:o} {:x?}", Sha256::digest(&content).as_slice())
    }))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use rustix::fs::{FileType, mknodat};
    use tempfile::TempDir;

    use super::*;

    fn project() -> TempDir {
        let project = tempfile::tempdir().unwrap();
        fs::create_dir_all(project.path().join(".git/hooks")).unwrap();
        for (name, content) in [
            ("dark-factory.toml", "memory = '1g'"),
            (".git/config", "[core]\n"),
            (".git/hooks/pre-commit", "#!/bin/sh\n"),
            (".git/hooks/pre-push.sample", "#!/bin/sh\n"),
            ("CLAUDE.md", "Be brief.\n"),
        ] {
            fs::write(project.path().join(name), content).unwrap();
        }
        project
    }

    /// Says what a change of a project is told as.
    fn told(change: impl FnOnce(&Path)) -> Option<String> {
        let project = project();
        let before = Obeyed::of(project.path());
        change(project.path());
        let told = before.difference(&Obeyed::of(project.path()))?;
        let (_, told) = told.split_once("obey: ").unwrap();
        Some(told.split_once("; read").unwrap().0.to_owned())
    }

    #[test]
    fn what_is_obeyed_is_told_and_what_is_only_read_is_not() {
        let all = told(|project| {
            fs::write(project.join("dark-factory.toml"), "memory = '2g'").unwrap();
            fs::remove_file(project.join(".git/hooks/pre-commit")).unwrap();
            fs::write(project.join(".git/hooks/post\x1b[2Jcheckout"), "x").unwrap();
            fs::create_dir(project.join(".claude")).unwrap();
            fs::write(project.join(".claude/settings.json"), "{}").unwrap();
        });
        let ordinary = told(|project| {
            fs::write(project.join("CLAUDE.md"), "Be verbose.\n").unwrap();
            fs::write(project.join(".git/hooks/pre-push.sample"), "x").unwrap();
            fs::write(project.join("main.rs"), "x").unwrap();
            // The same content, written anew.
            fs::write(project.join(".git/config"), "[core]\n").unwrap();
        });

        assert_eq!(
            all.as_deref(),
            Some(
                ".claude/settings.json (new), .git/hooks/post\\u{1b}[2Jcheckout (new), \
                 .git/hooks/pre-commit (removed), dark-factory.toml (changed)"
            )
        );
        assert_eq!(ordinary, None);
    }

    #[test]
    fn a_hook_that_can_be_executed_by_now_is_told() {
        let told = told(|project| {
            let hook = project.join(".git/hooks/pre-commit");
            fs::set_permissions(hook, fs::Permissions::from_mode(0o755)).unwrap();
        });

        assert_eq!(told.as_deref(), Some(".git/hooks/pre-commit (changed)"));
    }

    #[test]
    fn links_and_pipes_are_told_and_neither_followed_nor_waited_for() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "one").unwrap();
        let told = told(|project| {
            for name in ["dark-factory.toml", ".git/config"] {
                fs::remove_file(project.join(name)).unwrap();
            }
            symlink(
                outside.path().join("secret"),
                project.join("dark-factory.toml"),
            )
            .unwrap();
            mknodat(
                CWD,
                project.join(".git/config"),
                FileType::Fifo,
                Mode::RWXU,
                0,
            )
            .unwrap();
            fs::rename(project.join(".git/hooks"), project.join("hooks")).unwrap();
            symlink("../..", project.join(".git/hooks")).unwrap();
        });
        let link = tempfile::tempdir().unwrap();
        symlink(outside.path().join("secret"), link.path().join(".envrc")).unwrap();
        let before = Obeyed::of(link.path());
        fs::write(outside.path().join("secret"), "two").unwrap();

        assert_eq!(
            told.as_deref(),
            Some(
                ".git/config (changed), .git/hooks/pre-commit (removed), dark-factory.toml (changed)"
            )
        );
        assert_eq!(before.difference(&Obeyed::of(link.path())), None);
    }

    #[test]
    fn what_a_link_inside_of_the_project_leads_to_is_compared() {
        let project = project();
        fs::create_dir(project.path().join("hooks")).unwrap();
        fs::remove_dir_all(project.path().join(".git/hooks")).unwrap();
        symlink("../hooks", project.path().join(".git/hooks")).unwrap();
        let before = Obeyed::of(project.path());

        fs::write(project.path().join("hooks/pre-push"), "x").unwrap();

        let told = before.difference(&Obeyed::of(project.path())).unwrap();
        assert!(told.contains(".git/hooks/pre-push (new)"), "{told}");
    }

    #[test]
    fn a_large_file_and_a_flood_of_hooks_are_told() {
        let project = project();
        let large = File::create(project.path().join(".envrc")).unwrap();
        large.set_len(1 << 40).unwrap();
        let before = Obeyed::of(project.path());

        large.set_len((1 << 40) - 1).unwrap();
        for hook in 0..1000 {
            fs::write(project.path().join(format!(".git/hooks/{hook}")), "x").unwrap();
        }

        let told = before.difference(&Obeyed::of(project.path())).unwrap();
        assert!(told.contains(": .envrc (changed), .git/hooks/"), "{told}");
        assert!(told.contains(" more; read them"), "{told}");
    }

    #[test]
    fn a_project_that_cannot_be_looked_at_is_told() {
        let project = project();
        let nowhere = Obeyed::of(&project.path().join("nowhere"));

        let told = nowhere.difference(&Obeyed::of(project.path())).unwrap();

        assert!(told.contains("could not be found out: "), "{told}");
    }
}
