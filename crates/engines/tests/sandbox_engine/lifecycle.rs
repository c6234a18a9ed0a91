//! A sandbox's life: created, started, waited for, removed.

use std::collections::BTreeMap;

use dark_factory_executor::engine::{
    Engine, EngineError, Execution, OnRestart, OomSeen, OwnedContainer, Recognized, Recovered,
};
use dark_factory_executor::spec::{LaunchSpec, Profile};
use dark_factory_spool::End;
use dark_factory_types::{OwnerId, Transport};

use futures_util::StreamExt as _;

use super::lab::{Lab, Spool};

#[tokio::test]
async fn a_sandbox_goes_from_create_to_remove_and_its_output_is_in_the_spool() {
    let lab = Lab::new();
    let spec = lab.spec("print hello; stderr oops; prompt");
    let dir = lab.attempt();

    let handle = lab.create(&spec, &dir).await;
    let workload = lab.engine.start(&spec, &handle, &dir).await.unwrap();
    let exit = workload.wait().await.unwrap();
    let again = workload.wait().await.unwrap();

    assert_eq!(
        (exit.code, exit.oom_killed, &exit.error),
        (0, OomSeen::No, &None)
    );
    assert_eq!(exit, again);
    let spool = Spool::read(&dir);
    assert_eq!(spool.text(), "hello\nthe prompt\n");
    assert_eq!(spool.stderr(), "oops\n");
    assert!(spool.is_complete());
    workload.remove().await.unwrap();
    workload.remove().await.unwrap();
    assert!(matches!(
        lab.engine.recover(&handle).await.unwrap(),
        Recovered::Gone
    ));
    assert!(matches!(
        workload.wait().await.unwrap_err(),
        EngineError::NoSuchContainer { .. }
    ));
    assert_eq!(std::fs::read_dir(&lab.root).unwrap().count(), 0);
}

#[tokio::test]
async fn the_exit_code_is_the_agents() {
    let lab = Lab::new();

    for code in [0, 1, 7, 126, 127, 137] {
        let (exit, spool) = lab.run(&lab.spec(&format!("exit {code}"))).await;

        assert_eq!(exit.code, i64::from(code));
        assert_eq!(spool.exit.unwrap().end, End::Code(code));
    }
}

#[tokio::test]
async fn a_command_that_cannot_be_executed_is_in_the_spool() {
    let lab = Lab::new();

    let (exit, spool) = lab.run(&lab.command(&["/no/such/agent"])).await;

    assert_eq!(exit.code, 127);
    assert_eq!(spool.exec_failed.unwrap().program, "/no/such/agent");
}

#[tokio::test]
async fn creating_twice_is_one_sandbox() {
    let lab = Lab::new();
    let (spec, dir) = (lab.spec("print hello"), lab.attempt());

    let first = lab.create(&spec, &dir).await;
    let second = lab.create(&spec, &dir).await;

    assert_eq!(first, second);
    let mut owned = lab.engine.list_owned(&lab.owner).await.unwrap();
    assert!(
        owned
            .iter_mut()
            .all(|sandbox| sandbox.created_at.take().is_some())
    );
    assert_eq!(
        owned,
        [OwnedContainer {
            name: first.container.clone(),
            id: first.container,
            attempt: Some(dir.attempt()),
            created_at: None,
            is_running: false,
        }]
    );
}

#[tokio::test]
async fn a_name_that_something_else_has_is_refused_and_its_holder_left_alone() {
    let lab = Lab::new();
    let spec = LaunchSpec {
        container: Some("taken".to_owned()),
        ..lab.spec("print hello")
    };
    let first = lab.attempt();
    lab.create(&spec, &first).await;
    std::fs::create_dir(lab.root.join("folder")).unwrap();
    std::fs::write(lab.root.join("folder/file"), "somebody's").unwrap();

    let by_sandbox = lab.engine.create(&spec, &lab.owner, &lab.attempt()).await;
    let in_folder = LaunchSpec {
        container: Some("folder".to_owned()),
        ..spec
    };
    let by_folder = lab
        .engine
        .create(&in_folder, &lab.owner, &lab.attempt())
        .await;

    for (error, taken) in [(by_sandbox, "taken"), (by_folder, "folder")] {
        let error = error.unwrap_err();
        assert!(
            matches!(&error, EngineError::NameTaken { name, .. } if name == taken),
            "{error:?}"
        );
    }
    let owned = lab.engine.list_owned(&lab.owner).await.unwrap();
    assert_eq!(owned.len(), 1);
    assert_eq!(owned[0].attempt, Some(first.attempt()));
    assert!(lab.root.join("folder/file").exists());
}

#[tokio::test]
async fn what_a_sandbox_cannot_do_is_refused_before_anything_is_made() {
    let lab = Lab::new();
    let seed = LaunchSpec {
        profile: Profile::Seed,
        ..lab.spec("print hello")
    };
    let attach = LaunchSpec {
        transport: Transport::Attach,
        ..lab.spec("print hello")
    };

    for (spec, word) in [(seed, "profile: seed"), (attach, "transport: attach")] {
        let refused = lab.engine.create(&spec, &lab.owner, &lab.attempt()).await;

        let error = refused.unwrap_err();
        assert!(
            matches!(&error, EngineError::CreateRefused { reason, .. } if reason.contains(word)),
            "{error:?}"
        );
    }
    assert!(lab.engine.list_owned(&lab.owner).await.unwrap().is_empty());
}

#[tokio::test]
async fn starting_twice_is_one_run() {
    let lab = Lab::new();
    let (spec, dir) = (lab.spec("print hello; sleep 1"), lab.attempt());
    let handle = lab.create(&spec, &dir).await;

    lab.engine.start(&spec, &handle, &dir).await.unwrap();
    let workload = lab.engine.start(&spec, &handle, &dir).await.unwrap();
    workload.wait().await.unwrap();
    let ended = lab.engine.start(&spec, &handle, &dir).await.unwrap();

    assert_eq!(ended.wait().await.unwrap().code, 0);
    let spool = Spool::read(&dir);
    assert_eq!((spool.starts, spool.text().as_str()), (1, "hello\n"));
    assert_eq!(spool.gaps, Vec::<String>::new());
}

#[tokio::test]
async fn what_cannot_be_mounted_refuses_the_start_and_says_why() {
    let lab = Lab::new();
    let mut spec = lab.spec("print hello");
    spec.workspace.source = lab.project.path().join("missing");
    let dir = lab.attempt();
    let handle = lab.create(&spec, &dir).await;

    let error = lab.engine.start(&spec, &handle, &dir).await.unwrap_err();

    assert!(
        matches!(&error, EngineError::StartRefused { reason, .. } if reason.contains("missing")),
        "{error:?}"
    );
}

#[tokio::test]
async fn whether_this_machine_makes_sandboxes_is_tried_once_in_a_boot() {
    let lab = Lab::new();
    let notes = lab.project.path();
    assert_eq!(lab.engine.recognize(notes).await.unwrap(), Recognized::No);

    lab.engine.check(notes, notes).await.unwrap();

    assert_eq!(lab.engine.recognize(notes).await.unwrap(), Recognized::Yes);
    let found = lab.engine.probe(notes).await.unwrap();
    assert_eq!(found.on_restart, OnRestart::Survive);
    assert_eq!(std::fs::read_dir(&lab.root).unwrap().count(), 0);
}

#[tokio::test]
async fn a_copy_of_an_ended_sandbox_has_its_workspace_and_not_its_secrets() {
    let lab = Lab::new();
    let spec = LaunchSpec {
        secrets: vec!["token".to_owned()],
        ..lab.shell("echo left > left")
    };
    let dir = lab.attempt_with("p", &[("token".to_owned(), "hush".to_owned())]);
    let handle = lab.create(&spec, &dir).await;
    let ended = lab.engine.start(&spec, &handle, &dir).await.unwrap();
    ended.wait().await.unwrap();

    let reopened = lab.engine.reopen(&spec, &lab.owner, &dir, &handle, "copy");
    let reopened = reopened.await.unwrap();
    let execution = Execution {
        argv: ["/bin/sh", "-c", "cat left; ls /run/secrets 2>/dev/null"]
            .map(str::to_owned)
            .into(),
        env: BTreeMap::new(),
        terminal: None,
    };
    let mut executed = reopened.workload.exec(&execution).await.unwrap();
    let first = executed.output.next().await.unwrap().unwrap().1;

    assert_eq!(first, b"left\n");
    assert_ne!(executed.program.exit_code().await.unwrap(), 0);
    lab.engine
        .remove_owned(&lab.owner, &reopened.container)
        .await
        .unwrap();
    assert_eq!(lab.engine.list_owned(&lab.owner).await.unwrap().len(), 1);
}

#[tokio::test]
async fn only_the_owners_sandboxes_are_listed_and_removed() {
    let lab = Lab::new();
    let dir = lab.attempt();
    lab.create(&lab.spec("print hello"), &dir).await;
    let listed = lab.engine.list_owned(&lab.owner).await.unwrap();
    let other = OwnerId("somebody-else".to_owned());

    let not_theirs = lab.engine.remove_owned(&other, &listed[0]).await;

    assert!(lab.engine.list_owned(&other).await.unwrap().is_empty());
    assert!(matches!(
        not_theirs.unwrap_err(),
        EngineError::NotOurs { .. }
    ));
    lab.engine
        .remove_owned(&lab.owner, &listed[0])
        .await
        .unwrap();
    lab.engine
        .remove_owned(&lab.owner, &listed[0])
        .await
        .unwrap();
    assert!(lab.engine.list_owned(&lab.owner).await.unwrap().is_empty());
}
