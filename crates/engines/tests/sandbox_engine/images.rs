//! What sandboxes run on.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use dark_factory_executor::engine::{Engine, EngineError, PullNews};
use dark_factory_executor::spec::{LaunchSpec, PullPolicy};
use tar::{Builder, Header};

use super::lab::Lab;

/// A root file system with nothing but the scripted agent.
fn root_folder(lab: &Lab) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("bin")).unwrap();
    fs::copy(lab.attempt().init(), root.path().join("bin/agent")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(
        root.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    fs::set_permissions(root.path().join("bin/agent"), mode).unwrap();
    root
}

/// The archive of an image with one layer, as `docker save` writes it.
fn archive(root: &Path, folder: &Path) -> PathBuf {
    let mut layer = Builder::new(Vec::new());
    layer.append_dir_all(".", root).unwrap();
    let path = folder.join("image.tar");
    let mut saved = Builder::new(File::create(&path).unwrap());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        saved.append_data(&mut header, name, bytes).unwrap();
    };
    add("l/layer.tar", &layer.into_inner().unwrap());
    add(
        "c.json",
        br#"{"config":{"Env":["OF_IMAGE=yes"],"Cmd":["/bin/agent","-e","print env OF_IMAGE"]}}"#,
    );
    add(
        "manifest.json",
        br#"[{"Config":"c.json","RepoTags":["x:1"],"Layers":["l/layer.tar"]}]"#,
    );
    saved.finish().unwrap();
    path
}

fn agent(lab: &Lab, image: &Path) -> LaunchSpec {
    LaunchSpec {
        image: image.to_str().unwrap().to_owned(),
        ..lab.command(&["/bin/agent", "-e", "print hello"])
    }
}

#[tokio::test]
async fn a_folder_is_a_root_file_system() {
    let lab = Lab::new();
    let root = root_folder(&lab);

    let (exit, spool) = lab.run(&agent(&lab, root.path())).await;

    assert_eq!((exit.code, spool.text().as_str()), (0, "hello\n"));
}

#[tokio::test]
async fn a_saved_image_is_unpacked_once_and_run() {
    let lab = Lab::new();
    let root = root_folder(&lab);
    let path = archive(root.path(), lab.project.path());
    let name = path.to_str().unwrap();
    let ensure = || async {
        let mut told = |_: PullNews<'_>| {};
        let ensured = lab.engine.ensure_image(name, PullPolicy::Never, &mut told);
        ensured.await.unwrap()
    };

    let first = ensure().await;
    let second = ensure().await;
    let (exit, spool) = lab.run(&agent(&lab, &path)).await;

    assert_eq!(first, second);
    assert!(first.digest.starts_with("sha256:"), "{first:?}");
    assert_eq!((exit.code, spool.text().as_str()), (0, "hello\n"));
    let kept = fs::read_dir(lab.root.join(".images")).unwrap().flatten();
    assert_eq!(kept.filter(|entry| entry.path().is_dir()).count(), 1);
}

#[tokio::test]
async fn what_was_unpacked_of_an_archive_goes_once_the_archive_is_another_one() {
    let lab = Lab::new();
    let root = root_folder(&lab);
    let path = archive(root.path(), lab.project.path());
    let kept = || {
        let entries = fs::read_dir(lab.root.join(".images")).unwrap().flatten();
        let folders = entries.filter(|entry| entry.path().is_dir());
        let mut names: Vec<_> = folders.map(|entry| entry.file_name()).collect();
        names.sort();
        names
    };
    let ensure = || async {
        let mut told = |_: PullNews<'_>| {};
        let name = path.to_str().unwrap();
        let ensured = lab.engine.ensure_image(name, PullPolicy::Never, &mut told);
        ensured.await.unwrap()
    };

    ensure().await;
    let first = kept();
    fs::write(root.path().join("more"), "more").unwrap();
    archive(root.path(), lab.project.path());
    ensure().await;
    let second = kept();

    assert_eq!((first.len(), second.len()), (1, 1));
    assert_ne!(first, second);
}

#[tokio::test]
async fn anything_else_says_what_is_possible() {
    let lab = Lab::new();

    for image in ["debian:bookworm", "/no/such/folder"] {
        let refused = lab
            .engine
            .ensure_image(image, PullPolicy::Missing, &mut |_| {})
            .await;

        let error = refused.unwrap_err();
        assert!(matches!(error, EngineError::Pull { .. }), "{error:?}");
        assert!(error.sentence().contains("`host`"), "{}", error.sentence());
    }
}
