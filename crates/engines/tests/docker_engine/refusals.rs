//! What the engine refuses, and what happens when it is not there.

use std::os::unix::net::UnixListener;

use dark_factory_executor::engine::{Engine, EngineError, Fate, LimitKind, Recovered};
use dark_factory_executor::spec::{LaunchSpec, PullPolicy};

use super::lab::{Lab, docker, engine};

async fn ensure(lab: &Lab, image: &str, policy: PullPolicy) -> Result<String, EngineError> {
    lab.engine
        .ensure_image(image, policy, &mut |_| ())
        .await
        .map(|image| image.digest)
}

#[tokio::test]
async fn a_probe_tells_versions_and_limits_and_leaves_nothing_behind() {
    let lab = Lab::new();
    let folder = tempfile::tempdir().unwrap();

    let found = lab.engine.probe(folder.path()).await.unwrap();

    assert_eq!(
        found.version,
        docker(&["version", "--format", "{{.Server.Version}}"]).trim()
    );
    assert!(found.api_version.starts_with("1."), "{found:?}");
    assert!(found.limits.contains(&LimitKind::Cpus), "{found:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn an_image_that_is_there_is_told_by_its_id() {
    let lab = Lab::new();
    let id = docker(&["image", "inspect", "--format", "{{.Id}}", &lab.image]);

    for policy in [PullPolicy::Never, PullPolicy::Missing] {
        assert_eq!(ensure(&lab, &lab.image, policy).await.unwrap(), id.trim());
    }
}

#[tokio::test]
async fn a_pull_that_fails_says_what_the_engine_says() {
    let lab = Lab::new();
    let image = "127.0.0.1:1/no-such-image:1";

    let error = ensure(&lab, image, PullPolicy::Missing).await.unwrap_err();

    assert!(matches!(error, EngineError::Pull { .. }), "{error:?}");
    assert!(
        error.sentence().contains("127.0.0.1:1"),
        "{}",
        error.sentence()
    );
    assert_eq!(error.fate(), Fate::Refused);
}

#[tokio::test]
async fn an_image_that_must_be_pulled_is_not_taken_from_the_engine() {
    let lab = Lab::new();
    let image = format!("127.0.0.1:1/{}", lab.image);
    docker(&["tag", &lab.image, &image]);

    let result = ensure(&lab, &image, PullPolicy::Always).await;

    docker(&["rmi", &image]);
    assert!(
        matches!(result, Err(EngineError::Pull { .. })),
        "{result:?}"
    );
}

#[tokio::test]
async fn a_bad_image_reference_is_told_whoever_sees_it_first() {
    let lab = Lab::new();

    for image in [
        "UPPER:1",
        "a:b:c",
        "-a",
        "bad name",
        "../containers/json",
        "",
    ] {
        for policy in [PullPolicy::Never, PullPolicy::Missing, PullPolicy::Always] {
            let error = ensure(&lab, image, policy).await.unwrap_err();
            assert!(
                matches!(error, EngineError::BadImageReference { .. }),
                "{image}: {error:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_container_with_the_command_of_an_image_that_is_gone_is_not_created() {
    let lab = Lab::new();
    let spec = LaunchSpec {
        image: "dark-factory-test/no-such-image:1".to_owned(),
        command: Vec::new(),
        ..lab.spec("")
    };

    let error = lab
        .engine
        .create(&spec, &lab.owner, &lab.attempt())
        .await
        .unwrap_err();

    assert!(
        matches!(error, EngineError::ImageMissing { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_image_without_a_command_needs_one() {
    let lab = Lab::new();
    let spec = LaunchSpec {
        command: Vec::new(),
        ..lab.spec("")
    };

    let error = lab
        .engine
        .create(&spec, &lab.owner, &lab.attempt())
        .await
        .unwrap_err();

    assert!(error.to_string().contains("no command"), "{error}");
}

#[tokio::test]
async fn a_name_that_no_container_can_have_is_refused_with_the_engines_words() {
    let lab = Lab::new();
    let spec = LaunchSpec {
        container: Some("-no-".to_owned()),
        ..lab.spec("")
    };

    let error = lab
        .engine
        .create(&spec, &lab.owner, &lab.attempt())
        .await
        .unwrap_err();

    assert!(
        matches!(&error, EngineError::CreateRefused { reason, .. } if reason.contains("-no-")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_start_that_is_refused_leaves_a_created_container() {
    let lab = Lab::new();
    let (spec, dir) = (
        LaunchSpec {
            secrets: vec!["s".to_owned()],
            ..lab.spec("print hello")
        },
        lab.attempt(),
    );
    std::fs::create_dir(dir.secrets()).unwrap();
    let handle = lab.create(&spec, &dir).await;
    std::fs::remove_dir(dir.secrets()).unwrap();

    let error = lab.engine.start(&spec, &handle, &dir).await.unwrap_err();

    assert!(
        matches!(&error, EngineError::StartRefused { reason, .. } if reason.contains("secrets")),
        "{error:?}"
    );
    assert!(matches!(
        lab.engine.recover(&handle).await.unwrap(),
        Recovered::Created(_)
    ));
}

#[tokio::test]
async fn an_engine_that_does_not_see_our_files_is_refused() {
    let lab = Lab::new();
    let folder = tempfile::tempdir().unwrap();
    let (engine, path) = (lab.engine.clone(), folder.path().to_owned());

    // In a mount namespace of its own a thread has a folder that the engine does not have.
    let probing = std::thread::spawn(move || {
        if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).is_err() {
            println!("not run: a mount namespace needs root");
            return None;
        }
        let mount = |source: Option<&str>, target: &str, kind: Option<&str>, flags| {
            nix::mount::mount(source, target, kind, flags, None::<&str>).unwrap();
        };
        mount(
            None,
            "/",
            None,
            nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE,
        );
        mount(
            Some("none"),
            path.to_str().unwrap(),
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
        );
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Some(runtime.block_on(engine.probe(&path)))
    });

    if let Some(result) = probing.join().unwrap() {
        assert!(
            matches!(result, Err(EngineError::ForeignFilesystem { .. })),
            "{result:?}"
        );
    }
}

#[tokio::test]
async fn a_dead_socket_and_a_missing_one_are_an_engine_that_does_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    let dead = folder.path().join("dead.sock");
    drop(UnixListener::bind(&dead).unwrap());

    for path in [dead, folder.path().join("missing.sock")] {
        let engine = engine(&format!("unix://{}", path.display()));
        let error = engine.probe(folder.path()).await.unwrap_err();
        assert!(
            matches!(error, EngineError::Unreachable { .. }),
            "{error:?}"
        );
        assert_eq!(error.fate(), Fate::Unknown);
    }
}

#[tokio::test]
async fn an_engine_that_hangs_up_says_nothing_about_a_container() {
    let lab = Lab::new();
    let (spec, dir) = (lab.spec("print hello"), lab.attempt());
    let handle = lab.create(&spec, &dir).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rude.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let rude = std::thread::spawn(move || drop(listener.accept()));

    let error = engine(&format!("unix://{}", path.display()))
        .recover(&handle)
        .await
        .unwrap_err();

    rude.join().unwrap();
    assert!(
        matches!(error, EngineError::Unreachable { .. }),
        "{error:?}"
    );
}
