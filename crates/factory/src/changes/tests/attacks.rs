//! What an agent may leave behind so that the host's git executes it, hangs, or lies.

use super::*;

/// A program that leaves a canary.
fn trap(scene: &Scene) -> String {
    let trap = scene.project().join(".git/trap");
    let script = format!("#!/bin/sh\ntouch {}\ncat\n", scene.canary().display());
    fs::write(&trap, script).unwrap();
    fs::set_permissions(&trap, fs::Permissions::from_mode(0o755)).unwrap();
    trap.display().to_string()
}

/// Lets an agent change a file and leave something behind, and a second attempt begin on what it left.
async fn attacked(scene: &Scene, attack: impl Fn(&Scene)) -> Recorded {
    scene.before().await;
    scene.write("kept.txt", "one\ntwo\nthree\nfour\n");
    scene.write("new.txt", "new\n");
    attack(scene);

    let recorded = scene.after().await;

    assert!(!scene.canary().exists(), "the host executed it afterwards");
    // The next attempt finds what the first one left.
    let patch = fs::read(scene.dir.changes_patch()).ok();
    scene.before().await;
    scene.write("kept.txt", "one\n");
    scene.after().await;
    assert!(
        !scene.canary().exists(),
        "the host executed it before the next attempt"
    );
    if let Some(patch) = patch {
        fs::write(scene.dir.changes_patch(), patch).unwrap();
    }
    recorded
}

#[tokio::test]
async fn programs_in_the_configuration_are_not_executed() {
    let scene = Scene::new();

    let recorded = attacked(&scene, |scene| {
        let trap = trap(scene);
        for key in [
            "core.fsmonitor",
            "core.sshCommand",
            "core.pager",
            "core.editor",
            "core.gitProxy",
            "core.askPass",
            "core.alternateRefsCommand",
            "diff.external",
            "diff.x.command",
            "diff.x.textconv",
            "filter.x.clean",
            "filter.x.smudge",
            "filter.x.process",
            "merge.x.driver",
            "gpg.program",
            "credential.helper",
            "uploadpack.packObjectsHook",
            "pager.diff",
            "interactive.diffFilter",
            "sequence.editor",
        ] {
            scene.git(&["config", key, &trap]);
        }
        for name in [
            "ls-files",
            "update-index",
            "diff-index",
            "write-tree",
            "pack-objects",
        ] {
            scene.git(&["config", &format!("alias.{name}"), &format!("!{trap}")]);
        }
        scene.git(&["config", "filter.x.required", "true"]);
        scene.write(".gitattributes", "* filter=x diff=x merge=x\n");
        fs::write(
            scene.project().join(".git/info/attributes"),
            "* filter=x diff=x\n",
        )
        .unwrap();
    })
    .await;

    assert_eq!(numbers(&recorded), (3, 3, 0));
    // The traps are good: git itself falls into them.
    let mut status = Command::new("git");
    status.arg("status").current_dir(scene.project());
    status.output().unwrap();
    assert!(scene.canary().exists());
}

#[tokio::test]
async fn hooks_are_not_executed_wherever_they_are() {
    let scene = Scene::new();

    let recorded = attacked(&scene, |scene| {
        let trap = trap(scene);
        let hooks = scene.project().join(".git/hooks");
        fs::create_dir_all(&hooks).unwrap();
        for name in [
            "post-index-change",
            "pre-commit",
            "fsmonitor-watchman",
            "reference-transaction",
        ] {
            let hook = hooks.join(name);
            let _replaced = fs::remove_file(&hook);
            symlink(&trap, hook).unwrap();
        }
        scene.git(&["config", "core.hooksPath", hooks.to_str().unwrap()]);
    })
    .await;

    assert_eq!(numbers(&recorded), (2, 2, 0));
    scene.git(&["update-index", "--add", "new.txt"]);
    assert!(scene.canary().exists());
}

#[tokio::test]
async fn configuration_that_is_included_or_of_another_worktree_is_not_read() {
    let scene = Scene::new();

    let recorded = attacked(&scene, |scene| {
        let trap = trap(scene);
        scene.write(
            "evil.config",
            format!("[core]\n\tfsmonitor = {trap}\n\tworktree = /\n"),
        );
        let evil = scene.project().join("evil.config");
        scene.git(&["config", "include.path", evil.to_str().unwrap()]);
        scene.git(&["config", "extensions.worktreeConfig", "true"]);
        fs::copy(&evil, scene.project().join(".git/config.worktree")).unwrap();
        scene.git(&["config", "core.worktree", "/"]);
    })
    .await;

    assert_eq!(numbers(&recorded).0, 3);
}

#[tokio::test]
async fn a_git_that_the_agent_put_into_the_path_is_not_executed() {
    let mut scene = Scene::new();
    let mounted = scene.folder.path().join("mounted");
    let path = format!(
        "{}:{}:.:/usr/bin:/bin",
        scene.project().join("bin").display(),
        mounted.display()
    );
    scene.recorder.host.env.insert("PATH".to_owned(), path);

    let recorded = attacked(&scene, |scene| {
        let trap = trap(scene);
        fs::create_dir_all(scene.project().join("bin")).unwrap();
        fs::create_dir_all(&mounted).unwrap();
        fs::copy(&trap, mounted.join("git")).unwrap();
        for name in ["bin/git", "git"] {
            let _replaced = fs::remove_file(scene.project().join(name));
            fs::copy(&trap, scene.project().join(name)).unwrap();
        }
    })
    .await;

    assert_eq!(numbers(&recorded).0, 4);
}

#[tokio::test]
async fn a_nested_repository_is_not_asked_anything() {
    let scene = Scene::new();

    let recorded = attacked(&scene, |scene| {
        let trap = trap(scene);
        let nested = scene.project().join("nested");
        fs::create_dir_all(&nested).unwrap();
        fs::write(nested.join("x"), "x").unwrap();
        scene.git_at(&nested, &["init", "--quiet"]);
        scene.git_at(&nested, &["add", "--all"]);
        scene.git_at(
            &nested,
            &["commit", "--quiet", "--allow-empty", "--message", "one"],
        );
        scene.git_at(&nested, &["config", "core.fsmonitor", &trap]);
        fs::write(nested.join("x"), "y").unwrap();
    })
    .await;

    assert_eq!(numbers(&recorded).0, 2);
}

#[tokio::test]
async fn an_index_that_is_rubbish_changes_nothing() {
    let scene = Scene::new();

    let recorded = attacked(&scene, |scene| {
        fs::write(scene.project().join(".git/index"), vec![0xff; 1 << 20]).unwrap();
    })
    .await;

    assert_eq!(numbers(&recorded), (2, 2, 0));
}

#[tokio::test]
async fn pipes_in_place_of_what_git_reads_hold_nothing_up() {
    let scene = Scene::new();

    let recorded = attacked(&scene, |scene| {
        for name in [
            "config",
            "index",
            "HEAD",
            "info/exclude",
            "packed-refs",
            "commondir",
        ] {
            let path = scene.project().join(".git").join(name);
            let _replaced = fs::remove_file(&path);
            assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        }
    })
    .await;

    assert_eq!(numbers(&recorded), (2, 2, 0));
}

#[tokio::test]
async fn a_git_folder_that_leads_elsewhere_or_is_gone_changes_nothing() {
    let scene = Scene::new();

    let recorded = attacked(&scene, |scene| {
        let git = scene.project().join(".git");
        if git.is_symlink() {
            return;
        }
        fs::rename(&git, scene.folder.path().join("moved.git")).unwrap();
        symlink("/", &git).unwrap();
    })
    .await;

    // What was there before can no longer be read, so there is no patch, and the number of files is right.
    assert_eq!(recorded.changes.files, Some(2));
    assert_eq!(recorded.changes.patch, None);
    assert!(
        recorded
            .warning
            .unwrap()
            .contains("what was there before cannot be used")
    );
}

#[tokio::test]
async fn references_that_loop_and_objects_that_replace_others_change_nothing() {
    let scene = Scene::new();
    let blob = scene.git(&["rev-parse", "HEAD:kept.txt"]);

    let recorded = attacked(&scene, |scene| {
        let git = scene.project().join(".git");
        fs::write(scene.folder.path().join("lie"), "a lie\n").unwrap();
        let lie = scene.folder.path().join("lie");
        let lie = scene.git(&["hash-object", "-w", lie.to_str().unwrap()]);
        fs::create_dir_all(git.join("refs/replace")).unwrap();
        fs::write(git.join("refs/replace").join(blob.trim()), lie).unwrap();
        fs::create_dir_all(git.join("info")).unwrap();
        fs::write(git.join("info/grafts"), format!("{blob}\n")).unwrap();
        fs::write(git.join("refs/heads/loop"), "ref: refs/heads/loop\n").unwrap();
        fs::write(git.join("HEAD"), "ref: refs/heads/loop\n").unwrap();
        fs::write(
            git.join("objects/info/alternates"),
            "/\n/proc/self/root\n../objects\n",
        )
        .unwrap();
    })
    .await;

    assert_eq!(numbers(&recorded), (2, 2, 0));
    assert!(!scene.patch().contains("lie"), "{}", scene.patch());
}

#[tokio::test]
async fn an_object_that_is_not_what_its_name_says_is_not_believed() {
    let scene = Scene::new();
    let blob = scene.git(&["rev-parse", "HEAD:kept.txt"]).trim().to_owned();
    let object = |id: &str| {
        scene
            .project()
            .join(".git/objects")
            .join(&id[..2])
            .join(&id[2..])
    };

    let recorded = attacked(&scene, |scene| {
        let lie = scene.folder.path().join("lie");
        fs::write(&lie, "one\ntwo\nthree\nfour\n").unwrap();
        let lie = scene.git(&["hash-object", "-w", lie.to_str().unwrap()]);
        fs::remove_file(object(&blob)).unwrap();
        fs::copy(object(lie.trim()), object(&blob)).unwrap();
    })
    .await;

    // The forged contents would have hidden the change.
    assert_eq!(recorded.changes.patch, None);
    assert_eq!(recorded.changes.files, Some(2));
    assert!(
        recorded
            .warning
            .unwrap()
            .contains("what was there before cannot be used")
    );
}

#[tokio::test]
async fn a_new_file_is_shown_as_it_is_even_if_its_object_was_forged_before() {
    let scene = Scene::new();

    let recorded = attacked(&scene, |scene| {
        let object = |id: &str| {
            scene
                .project()
                .join(".git/objects")
                .join(&id[..2])
                .join(&id[2..])
        };
        let lie = scene.folder.path().join("lie");
        fs::write(&lie, "harmless\n").unwrap();
        let lie = scene.git(&["hash-object", "-w", lie.to_str().unwrap()]);
        let new = scene.git(&["hash-object", "-w", "new.txt"]);
        let _replaced = fs::remove_file(object(new.trim()));
        fs::copy(object(lie.trim()), object(new.trim())).unwrap();
    })
    .await;

    assert_eq!(numbers(&recorded), (2, 2, 0));
    assert!(scene.patch().contains("+new\n"), "{}", scene.patch());
    assert!(!scene.patch().contains("harmless"));
}

#[tokio::test]
async fn links_out_of_the_project_are_links_and_nothing_behind_them_is_read() {
    let scene = Scene::new();
    let secret = scene.folder.path().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("deep.txt"), "hunter2\n").unwrap();

    let recorded = attacked(&scene, |scene| {
        let sub = scene.project().join("sub");
        if !sub.is_symlink() {
            fs::remove_dir_all(&sub).unwrap();
            symlink(&secret, sub).unwrap();
        }
    })
    .await;

    assert_eq!(numbers(&recorded).0, 4);
    assert!(!scene.patch().contains("hunter2"), "{}", scene.patch());
}

#[tokio::test]
async fn names_of_files_are_nothing_but_names() {
    let scene = Scene::new();
    let names = [
        "-n",
        "--exec=touch canary",
        "$(touch canary)",
        "`touch canary`",
        "a\tb",
        "\u{1b}[31mred",
    ];

    let recorded = attacked(&scene, |scene| {
        for name in names {
            scene.write(name, "x\n");
        }
    })
    .await;

    assert_eq!(numbers(&recorded), (8, 8, 0));
    assert!(!scene.project().join("canary").exists());
    assert!(
        !fs::read_to_string(scene.dir.changes_stat())
            .unwrap()
            .contains('\u{1b}')
    );
}

#[tokio::test]
async fn a_pipe_that_git_waits_for_costs_the_patch_and_no_more_than_the_time_limit() {
    let mut scene = Scene::new();
    scene.before().await;
    scene.write("kept.txt", "one\n");
    let pipe = scene.project().join(".gitignore");
    assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
    scene.recorder = scene.recorder.with_time_limit(Duration::from_millis(200));

    let recorded = scene.after().await;

    assert_eq!(recorded.changes.files, None);
    let warning = recorded.warning.unwrap();
    assert!(
        warning.ends_with("git did not compare the workspace in time"),
        "{warning}"
    );
}

#[tokio::test]
async fn a_file_that_an_agent_told_git_not_to_look_at_is_looked_at() {
    for flag in ["--skip-worktree", "--assume-unchanged"] {
        let scene = Scene::new();
        scene.git(&["update-index", flag, "kept.txt"]);
        scene.before().await;

        scene.write("kept.txt", "hidden\n");
        let recorded = scene.after().await;

        assert_eq!(numbers(&recorded), (1, 1, 3), "{flag}");
    }
}

#[tokio::test]
async fn an_object_that_leads_out_of_the_project_is_not_written_to() {
    let scene = Scene::new();
    let blob = scene.git(&["rev-parse", "HEAD:gone.txt"]);
    let (folder, name) = blob.trim().split_at(2);
    let object = scene.project().join(".git/objects").join(folder).join(name);
    let elsewhere = scene.folder.path().join("elsewhere");
    fs::rename(&object, &elsewhere).unwrap();
    symlink(&elsewhere, &object).unwrap();
    let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let file = File::options().append(true).open(&elsewhere).unwrap();
    file.set_modified(long_ago).unwrap();
    scene.write("same.txt", "gone\n");

    scene.before().await;
    scene.after().await;

    let time = fs::metadata(&elsewhere).unwrap().modified().unwrap();
    assert_eq!(time, long_ago);
}

#[tokio::test]
async fn parts_of_an_index_that_are_too_large_together_are_not_copied() {
    let scene = Scene::new();
    let half = scene.project().join(".git/sharedindex.half");
    File::create(&half).unwrap().set_len(512 << 20).unwrap();

    scene.before().await;

    assert!(scene.dir.path().join(FOLDER).join("index").exists());
    assert!(
        !scene
            .dir
            .path()
            .join(FOLDER)
            .join("sharedindex.half")
            .exists()
    );
}

#[tokio::test]
async fn a_file_whose_size_and_times_the_projects_index_tells_for_other_contents_is_read() {
    let scene = Scene::new();
    let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let forged = scene.project().join("forged.txt");
    fs::write(&forged, "bad\n").unwrap();
    let file = File::options().append(true).open(&forged).unwrap();
    file.set_modified(long_ago).unwrap();
    scene.git(&["update-index", "--add", "forged.txt"]);
    let [bad, good] = ["bad\n", "ok!\n"].map(|content| {
        let file = scene.folder.path().join("content");
        fs::write(&file, content).unwrap();
        let id = scene.git(&["hash-object", "-w", file.to_str().unwrap()]);
        let digits = id.trim().as_bytes().chunks(2);
        let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.map(byte).collect::<Vec<u8>>()
    });
    let index = scene.project().join(".git/index");
    let mut bytes = fs::read(&index).unwrap();
    let place = bytes.windows(20).position(|id| id == bad).unwrap();
    bytes[place..place + 20].copy_from_slice(&good);
    fs::write(&index, bytes).unwrap();
    let before = scene.snapshot("before");
    scene.before().await;

    scene.write("forged.txt", "ok!\n");
    let recorded = scene.after().await;

    assert_eq!(numbers(&recorded), (1, 1, 1));
    assert!(scene.patch().contains("-bad\n+ok!\n"), "{}", scene.patch());
    scene.assert_patch_applies_to(&before);
}
