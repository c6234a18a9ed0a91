//! What an agent finds in its sandbox.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;

use dark_factory_executor::engine::Engine;
use dark_factory_executor::spec::{Access, GitVisibility, LaunchSpec, Mount};

use super::lab::{Lab, Spool};

#[tokio::test]
async fn the_workspace_is_written_as_its_user_and_nothing_else_can_be() {
    let lab = Lab::new();
    let script = "id -u; pwd; echo mine > made; for f in /x /usr/x /etc/x; do touch $f 2>/dev/null && echo $f; done; \
                  touch /tmp/x /home/agent/x && echo in memory";

    let (_exit, spool) = lab.run(&lab.shell(script)).await;

    assert_eq!(
        spool.text(),
        format!("{}\n/workspace\nin memory\n", lab.uid),
        "{spool:?}"
    );
    let made = std::fs::metadata(lab.project.path().join("made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (lab.uid, lab.uid));
}

#[tokio::test]
async fn the_environment_is_the_specs_and_nothing_of_ours() {
    let lab = Lab::new();
    let value = "two\nlines = ü";
    let spec = LaunchSpec {
        env: BTreeMap::from([("GIVEN".to_owned(), value.to_owned())]),
        ..lab.shell("printf '%s' \"$GIVEN\"; env | grep -c DARK_FACTORY_TEST_HELPER")
    };

    let (_exit, spool) = lab.run(&spec).await;

    assert_eq!(spool.text(), format!("{value}0\n"));
}

#[tokio::test]
async fn secrets_and_mounts_are_where_they_were_asked_for() {
    let lab = Lab::new();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("ünicode"), "in the folder\n").unwrap();
    let link = lab.project.path().join("link");
    std::os::unix::fs::symlink(outside.path().join("ünicode"), &link).unwrap();
    let mount = |source: &std::path::Path, target: &str| Mount {
        source: source.to_owned(),
        target: target.to_owned(),
        access: Access::ReadOnly,
    };
    let secret = ("token".to_owned(), "hush\n".to_owned());
    let spec = LaunchSpec {
        secrets: vec!["token".to_owned()],
        mounts: vec![mount(outside.path(), "/data"), mount(&link, "/file")],
        ..lab.shell(
            "cat /run/secrets/token /data/ünicode /file; touch /data/x 2>/dev/null || echo read-only",
        )
    };
    let dir = lab.attempt_with("p", &[secret]);

    let handle = lab.create(&spec, &dir).await;
    let workload = lab.engine.start(&spec, &handle, &dir).await.unwrap();
    workload.wait().await.unwrap();

    assert_eq!(
        Spool::read(&dir).text(),
        "hush\nin the folder\nin the folder\nread-only\n"
    );
}

#[tokio::test]
async fn what_hides_git_is_empty() {
    let lab = Lab::new();
    let git = lab.project.path().join(".git");
    std::fs::create_dir(&git).unwrap();
    std::fs::write(git.join("config"), "[core]").unwrap();
    let mut spec = lab.shell("ls -A .git | wc -l");
    spec.workspace.git = GitVisibility::Hidden;

    let (_exit, spool) = lab.run(&spec).await;

    assert_eq!(spool.text(), "0\n", "{spool:?}");
}

#[tokio::test]
async fn twenty_megabytes_come_through_whole() {
    let lab = Lab::new();

    let (_exit, spool) = lab
        .run(&lab.shell("head -c 20000000 /dev/zero | tr '\\0' x"))
        .await;

    assert!(spool.is_complete());
    assert_eq!(spool.text().len(), 20_000_000);
}
