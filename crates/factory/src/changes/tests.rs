//! Real git, real projects, and what an agent could leave in them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use dark_factory_types::RunId;

use super::*;

/// A project, an attempt's folder, and somewhere to put a canary that nothing may make.
struct Scene {
    folder: TempDir,
    dir: AttemptDir,
    recorder: GitChanges,
}

impl Scene {
    fn new() -> Self {
        let scene = Self::unversioned();
        scene.write("kept.txt", "one\ntwo\nthree\n");
        scene.write("gone.txt", "gone\n");
        scene.write("sub/deep.txt", "deep\n");
        scene.git(&["init", "--quiet", "--initial-branch", "main"]);
        scene.commit();
        scene
    }

    fn unversioned() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["project", "attempt", "home"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let dir = AttemptDir::new(
            RunId::from_random_bits(7).attempt(1),
            folder.path().join("attempt"),
            folder.path().join("init"),
        );
        let mut host = HostView {
            cwd: folder.path().to_owned(),
            home: Some(folder.path().join("home")),
            ..HostView::default()
        };
        host.env
            .insert("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned());
        Self {
            recorder: GitChanges::new(host, folder.path()),
            dir,
            folder,
        }
    }

    fn project(&self) -> PathBuf {
        self.folder.path().join("project")
    }

    fn canary(&self) -> PathBuf {
        self.folder.path().join("canary")
    }

    fn touched(&self) -> Touched {
        Touched {
            workspace: self.project(),
            mounts: vec![self.folder.path().join("mounted")],
        }
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.project().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.project().join(name)).unwrap();
    }

    fn git_at(&self, folder: &Path, args: &[&str]) -> String {
        let output = Command::new("git")
            .args([
                "-c",
                "user.name=t",
                "-c",
                "user.email=t@localhost",
                "-c",
                "protocol.file.allow=always",
            ])
            .args(args)
            .current_dir(folder)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {args:?}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn git(&self, args: &[&str]) -> String {
        self.git_at(&self.project(), args)
    }

    fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", "more"]);
    }

    async fn before(&self) {
        self.recorder.before(&self.touched(), &self.dir).await;
    }

    async fn after(&self) -> Recorded {
        self.recorder.after(&self.touched(), &self.dir).await
    }

    fn patch(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.changes_patch()).unwrap()).into_owned()
    }

    /// Copies the project as it is.
    fn snapshot(&self, name: &str) -> PathBuf {
        let copy = self.folder.path().join(name);
        let status = Command::new("cp")
            .arg("-a")
            .arg(self.project())
            .arg(&copy)
            .status();
        assert!(status.unwrap().success());
        copy
    }

    /// Checks that the patch turns what was before into what is there now, byte for byte.
    fn assert_patch_applies_to(&self, before: &Path) {
        let patch = self.dir.changes_patch();
        fs::remove_dir_all(before.join(".git")).unwrap();
        self.git_at(
            before,
            &["apply", "--whitespace=nowarn", patch.to_str().unwrap()],
        );
        let output = Command::new("diff")
            .args(["-r", "--no-dereference", "-x", ".git"])
            .args([before, &self.project()])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
}

fn numbers(recorded: &Recorded) -> (u64, u64, u64) {
    let changes = &recorded.changes;
    assert_eq!(recorded.warning, None);
    (
        changes.files.unwrap(),
        changes.insertions.unwrap(),
        changes.deletions.unwrap(),
    )
}

#[tokio::test]
async fn the_patch_is_what_changed_since_the_baseline_and_applies_to_it() {
    let scene = Scene::new();
    scene.write("mine.txt", "the user's own, not committed\n");
    scene.write("kept.txt", "one\ntwo\nthree\nuser\n");
    scene.write("binary", [0, 159, 146, 150]);
    scene.write(".gitignore", "ignored\n");
    scene.write("file-to-folder", "x\n");
    let before = scene.snapshot("before");
    scene.before().await;

    scene.write("kept.txt", "one\n2\nthree\nuser\n");
    scene.write("new/file.txt", "new\n");
    scene.write("binary", [0, 1, 2, 255]);
    scene.write("ignored", "x");
    scene.write("caf\u{e9} \"quoted\"\n.txt", "odd\n");
    scene.remove("gone.txt");
    fs::rename(
        scene.project().join("sub/deep.txt"),
        scene.project().join("sub/moved.txt"),
    )
    .unwrap();
    scene.remove("file-to-folder");
    scene.write("file-to-folder/inside", "y\n");
    symlink("/etc/passwd", scene.project().join("link")).unwrap();
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(scene.project().join("mine.txt"), executable).unwrap();
    let recorded = scene.after().await;

    assert_eq!(numbers(&recorded).0, 10, "{recorded:?}");
    assert!(
        scene.patch().contains("rename from sub/deep.txt\n"),
        "{}",
        scene.patch()
    );
    assert!(scene.patch().contains("old mode 100644\nnew mode 100755\n"));
    assert!(
        !scene.patch().contains("not committed"),
        "{}",
        scene.patch()
    );
    fs::remove_file(scene.project().join("ignored")).unwrap();
    scene.assert_patch_applies_to(&before);
}

#[tokio::test]
async fn a_patch_applies_whatever_the_names_of_files_are() {
    const NAMES: [&[u8]; 14] = [
        b"-dash.txt",
        b"--force",
        b"with\ttab",
        b"with\nline",
        b"with \"quotes\"",
        b"back\\slash",
        b" blank in front",
        b"blank behind ",
        b"not\xff\xfeutf8",
        b"caf\xc3\xa9",
        b"a b/ b c/d",
        b"bell\x07\x1b[31m",
        b"{a => b}",
        b":(glob)*",
    ];
    let scene = Scene::new();
    let path = |prefix: &str, name: &[u8]| {
        let folder = scene.project().join(prefix);
        folder.join(OsStr::from_bytes(name))
    };
    let write = |path: PathBuf, content: &str| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    for name in NAMES {
        for kind in ["changed", "removed", "moved"] {
            write(path(kind, name), &format!("{kind} {name:?}\n1\n2\n3\n"));
        }
        write(path("binary", name), "\0old");
    }
    let before = scene.snapshot("before");
    scene.before().await;

    for name in NAMES {
        write(path("changed", name), "changed\n");
        write(path("added", name), "added, no line end");
        write(path("binary", name), "\0new");
        fs::remove_file(path("removed", name)).unwrap();
        let to = path("to", name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::rename(path("moved", name), to).unwrap();
    }
    // At the top, where a name could be taken for a flag.
    write(path("", b"-rf"), "x\n");
    let recorded = scene.after().await;

    let count = u64::try_from(NAMES.len()).unwrap();
    assert_eq!(numbers(&recorded).0, 5 * count + 1, "{recorded:?}");
    // Git keeps no folders: those that became empty go where the patch is applied.
    for folder in ["removed", "moved"] {
        fs::remove_dir_all(scene.project().join(folder)).unwrap();
    }
    scene.assert_patch_applies_to(&before);
}

#[tokio::test]
async fn commits_of_the_agent_and_its_index_change_nothing_about_the_patch() {
    let scene = Scene::new();
    scene.before().await;

    scene.write("kept.txt", "one\ntwo\nthree\nfour\n");
    scene.commit();
    scene.write("staged.txt", "staged\n");
    scene.git(&["add", "staged.txt"]);
    scene.git(&["checkout", "--quiet", "-b", "other"]);
    let recorded = scene.after().await;

    assert_eq!(numbers(&recorded), (2, 2, 0));
    assert_eq!(
        fs::read_to_string(scene.dir.changes_stat()).unwrap(),
        "1\t0\tkept.txt\n1\t0\tstaged.txt\n"
    );
}

#[tokio::test]
async fn nothing_of_the_project_is_touched_and_nothing_of_ours_stays() {
    let scene = Scene::new();
    scene.write("kept.txt", "changed\n");
    scene.write("new.txt", "new\n");
    scene.git(&["add", "new.txt"]);
    let listing = || {
        let output = Command::new("find")
            .arg(scene.project())
            .args(["-printf", "%p %T@ %C@ %s %m\n"])
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let as_it_was = listing();

    scene.before().await;
    scene.after().await;

    assert_eq!(listing(), as_it_was);
    scene.recorder.forget(&scene.dir).unwrap();
    assert_eq!(fs::read_dir(scene.dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn nothing_changed_is_no_patch() {
    let scene = Scene::new();
    scene.write("mine.txt", "not committed\n");
    scene.before().await;

    let recorded = scene.after().await;

    assert_eq!(numbers(&recorded), (0, 0, 0));
    assert_eq!(recorded.changes.patch, None);
    assert!(!scene.dir.changes_patch().exists());
}

#[tokio::test]
async fn a_change_of_the_same_size_in_the_same_moment_is_seen() {
    let scene = Scene::new();
    scene.write("kept.txt", "aaaa\n");
    scene.git(&["add", "--all"]);
    scene.before().await;

    scene.write("kept.txt", "bbbb\n");
    let recorded = scene.after().await;

    assert_eq!(numbers(&recorded), (1, 1, 1));
    assert!(
        scene.patch().contains("-aaaa\n+bbbb\n"),
        "{}",
        scene.patch()
    );
}

#[tokio::test]
async fn an_attempt_after_others_begins_with_what_they_left() {
    let scene = Scene::new();
    scene.write("mine.txt", "not committed\n");
    scene.before().await;
    scene.write("kept.txt", "one\n");
    scene.write("new.txt", "new\n");
    scene.after().await;
    scene.recorder.forget(&scene.dir).unwrap();
    let before = scene.snapshot("before");
    scene.before().await;

    scene.write("kept.txt", "two\n");
    scene.write("mine.txt", "changed\n");
    scene.remove("new.txt");
    let recorded = scene.after().await;

    assert_eq!(numbers(&recorded), (3, 2, 3));
    scene.assert_patch_applies_to(&before);
}

#[tokio::test]
async fn a_file_that_became_ignored_is_no_change_and_a_tracked_one_is() {
    let scene = Scene::new();
    scene.write("new.txt", "new\n");
    scene.before().await;
    scene.write(".gitignore", "*.txt\n");
    scene.before().await;

    scene.write("new.txt", "changed\n");
    scene.write("kept.txt", "changed\n");
    let recorded = scene.after().await;

    assert_eq!(numbers(&recorded), (1, 1, 3));
}

#[tokio::test]
async fn a_project_without_git_has_no_patch_and_the_note_says_so() {
    let scene = Scene::unversioned();
    scene.write("a.txt", "a\n");
    scene.before().await;

    let recorded = scene.after().await;

    assert_eq!(recorded.changes.note.as_deref(), Some("not a git project"));
    assert_eq!((recorded.changes.files, recorded.warning), (None, None));
}

#[tokio::test]
async fn a_worktree_is_a_project_like_any_other() {
    let mut scene = Scene::new();
    let tree = scene.folder.path().join("tree");
    scene.git(&["worktree", "add", "--quiet", tree.to_str().unwrap()]);
    fs::rename(scene.project(), scene.folder.path().join("main")).unwrap();
    fs::rename(&tree, scene.project()).unwrap();
    let link = fs::read_to_string(scene.project().join(".git")).unwrap();
    fs::write(
        scene.project().join(".git"),
        link.replace("/project/", "/main/"),
    )
    .unwrap();
    scene.recorder.host.cwd = scene.folder.path().to_owned();
    scene.before().await;

    scene.write("kept.txt", "one\n");
    let recorded = scene.after().await;

    assert_eq!(numbers(&recorded), (1, 0, 2));
}

#[tokio::test]
async fn bytes_are_compared_as_they_are_whatever_attributes_and_settings_say() {
    let scene = Scene::new();
    scene.write(
        ".gitattributes",
        "*.txt text=auto eol=lf\n*.id ident\n*.bin -diff\n*.lfs filter=lfs diff=lfs\n",
    );
    scene.write("windows.txt", "a\r\nb\r\n");
    scene.write("stamp.id", "$Id$\n");
    scene.write("large.lfs", "content\n");
    scene.write("plain.bin", "text\n");
    scene.git(&["config", "filter.lfs.clean", "tr a-z A-Z"]);
    scene.commit();
    let before = scene.snapshot("before");
    scene.before().await;

    scene.write("windows.txt", "a\r\nc\r\n");
    scene.write("stamp.id", "$Id: x $\n");
    scene.write("large.lfs", "contents\n");
    scene.write("plain.bin", "texts\n");
    let recorded = scene.after().await;

    assert_eq!(numbers(&recorded), (4, 4, 4), "{}", scene.patch());
    assert!(
        scene.patch().contains("-content\n+contents\n"),
        "{}",
        scene.patch()
    );
    scene.assert_patch_applies_to(&before);
}

#[tokio::test]
async fn line_ends_that_the_users_settings_convert_are_compared_as_they_are() {
    let scene = Scene::new();
    scene.git(&["config", "core.autocrlf", "input"]);
    scene.write("windows.txt", "a\r\nb\r\n");
    scene.commit();
    let before = scene.snapshot("before");
    scene.before().await;

    scene.write("windows.txt", "a\r\nc\r\n");
    let recorded = scene.after().await;

    assert_eq!(numbers(&recorded), (1, 1, 1), "{}", scene.patch());
    scene.assert_patch_applies_to(&before);
}

#[tokio::test]
async fn what_the_user_ignores_everywhere_is_ignored_here_too() {
    let scene = Scene::new();
    let home = scene.folder.path().join("home");
    fs::write(
        home.join(".gitconfig"),
        "[Core]\n\texcludesFile = ~/everywhere\n",
    )
    .unwrap();
    fs::write(home.join("everywhere"), "*.swp\n").unwrap();
    fs::write(scene.project().join(".git/info/exclude"), "*.local\n").unwrap();
    scene.before().await;

    scene.write("a.swp", "x");
    scene.write("a.local", "x");
    scene.write("a.txt", "x\n");
    let recorded = scene.after().await;

    assert_eq!(numbers(&recorded), (1, 1, 0));
}

#[tokio::test]
async fn a_sha256_repository_works() {
    let scene = Scene::unversioned();
    scene.write("a.txt", "a\n");
    scene.git(&["init", "--quiet", "--object-format=sha256"]);
    scene.commit();
    scene.before().await;

    scene.write("a.txt", "b\n");
    let recorded = scene.after().await;

    assert_eq!(numbers(&recorded), (1, 1, 1));
}

#[tokio::test]
async fn a_split_index_and_merge_conflicts_and_files_git_was_told_not_to_look_at_are_looked_at() {
    let scene = Scene::new();
    scene.git(&["checkout", "--quiet", "-b", "other"]);
    scene.write("kept.txt", "other\n");
    scene.commit();
    scene.git(&["checkout", "--quiet", "main"]);
    scene.write("kept.txt", "main\n");
    scene.commit();
    let merge = Command::new("git")
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@localhost",
            "merge",
            "other",
        ])
        .current_dir(scene.project())
        .output()
        .unwrap();
    assert!(!merge.status.success());
    scene.git(&["update-index", "--assume-unchanged", "gone.txt"]);
    scene.git(&["update-index", "--split-index"]);
    let before = scene.snapshot("before");
    scene.before().await;

    scene.write("kept.txt", "resolved\n");
    scene.write("gone.txt", "still here\n");
    let recorded = scene.after().await;

    assert_eq!(numbers(&recorded).0, 2, "{}", scene.patch());
    scene.assert_patch_applies_to(&before);
}

#[tokio::test]
async fn submodules_are_not_looked_into_and_their_git_is_not_run() {
    let scene = Scene::new();
    let other = scene.folder.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("x"), "x\n").unwrap();
    scene.git_at(&other, &["init", "--quiet"]);
    scene.git_at(&other, &["add", "--all"]);
    scene.git_at(&other, &["commit", "--quiet", "--message", "one"]);
    scene.git(&[
        "submodule",
        "--quiet",
        "add",
        other.to_str().unwrap(),
        "module",
    ]);
    scene.commit();
    scene.before().await;

    let canary = scene.canary();
    let touch = format!("touch {}; false", canary.display());
    let module = scene.project().join("module");
    scene.git_at(&module, &["config", "core.fsmonitor", &touch]);
    fs::write(module.join("x"), "y\n").unwrap();
    scene.write("kept.txt", "one\ntwo\n");
    let recorded = scene.after().await;

    assert_eq!(numbers(&recorded), (1, 0, 1));
    assert_eq!(
        recorded.changes.note.as_deref(),
        Some("repositories inside of the project that were not looked into: 1")
    );
    assert!(!canary.exists());
    scene.git(&["status"]);
    assert!(canary.exists());
}

#[tokio::test]
async fn large_and_unreadable_things_are_left_out_and_said_and_pipes_hold_nothing_up() {
    let scene = Scene::new();
    let sparse = |name: &str| {
        let file = File::create(scene.project().join(name)).unwrap();
        file.set_len(LARGEST_FILE + 1).unwrap();
    };
    sparse("old-large");
    scene.before().await;

    sparse("new-large");
    let pipe = scene.project().join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    scene.remove("gone.txt");
    assert!(
        Command::new("mkfifo")
            .arg(scene.project().join("gone.txt"))
            .status()
            .unwrap()
            .success()
    );
    scene.write("small", "s\n");
    let recorded = scene.after().await;

    assert_eq!(numbers(&recorded), (2, 1, 1), "{}", scene.patch());
    assert_eq!(
        recorded.changes.note.as_deref(),
        Some(
            "files that are not in the patch because they have more than 64 MiB or cannot be read: 1"
        )
    );
}

#[tokio::test]
async fn a_patch_that_is_too_large_is_left_out_whole() {
    let scene = Scene::new();
    scene.before().await;

    for part in 0..3 {
        let line = format!("{part:07}\n");
        scene.write(
            &format!("part-{part}"),
            line.repeat((30 << 20) / line.len()),
        );
    }
    let recorded = scene.after().await;

    assert_eq!(numbers(&recorded).0, 3);
    let note = recorded.changes.note.unwrap();
    assert!(
        note.starts_with("the patch is left out: it has 10"),
        "{note}"
    );
    assert_eq!(recorded.changes.patch, None);
    assert!(!scene.dir.changes_patch().exists());
    assert!(scene.dir.changes_stat().exists());
}

#[tokio::test]
async fn what_was_recorded_is_found_by_another_process_and_compared_again() {
    let scene = Scene::new();
    scene.before().await;
    scene.write("kept.txt", "one\n");
    let first = scene.after().await;
    let patch = scene.patch();

    let other = GitChanges::new(scene.recorder.host.clone(), scene.folder.path());
    let again = other.after(&scene.touched(), &scene.dir).await;

    assert_eq!(again, first);
    assert_eq!(scene.patch(), patch);
}

#[tokio::test]
async fn a_baseline_that_was_cut_short_leaves_none_and_is_made_again() {
    let scene = Scene::new();

    {
        let before = scene.before();
        tokio::select! {
            biased;
            () = before => panic!("it took no time"),
            () = tokio::task::yield_now() => {}
        }
    }
    assert!(!scene.recorder.is_recorded(&scene.dir));
    scene.before().await;
    scene.write("kept.txt", "one\n");

    assert_eq!(numbers(&scene.after().await), (1, 0, 2));
}

#[tokio::test]
async fn without_a_baseline_nothing_is_made_up() {
    let scene = Scene::new();

    let recorded = scene.after().await;

    assert_eq!(recorded.changes.files, None);
    assert_eq!(
        recorded.changes.note.as_deref(),
        Some("there is no record of the project as it was before")
    );
}

mod attacks;
