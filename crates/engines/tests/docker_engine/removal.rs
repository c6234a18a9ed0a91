//! Removing by label: what is ours goes, and nothing else.

use dark_factory_executor::clock::{Clock, SystemClock};
use dark_factory_executor::engine::{Engine, EngineError, OwnedContainer};
use dark_factory_types::OwnerId;

use super::lab::{Lab, docker, inspect, wait_for_file};

#[tokio::test]
async fn a_listed_container_goes_whatever_it_does() {
    let lab = Lab::new();
    let (running, _dir) = lab.start(&lab.spec("ignore-term; sleep 120")).await;
    let (paused, _dir) = lab
        .start(&lab.spec("write /workspace/begun; sleep 120"))
        .await;
    wait_for_file(&lab.project.path().join("begun")).await;
    paused.pause().await.unwrap();
    let (ended, _dir) = lab.start(&lab.spec("print hello")).await;
    ended.wait().await.unwrap();
    lab.create(&lab.spec("print hello"), &lab.attempt()).await;
    let owned = lab.engine.list_owned(&lab.owner).await.unwrap();
    assert_eq!(owned.len(), 4);
    let runs = owned.iter().filter(|container| container.is_running);
    assert_eq!(runs.count(), 2, "a frozen one too: {owned:?}");

    for container in &owned {
        lab.engine
            .remove_owned(&lab.owner, container)
            .await
            .unwrap();
        lab.engine
            .remove_owned(&lab.owner, container)
            .await
            .unwrap();
    }

    assert_eq!(lab.engine.list_owned(&lab.owner).await.unwrap(), []);
    drop(running);
}

#[tokio::test]
async fn a_listed_container_says_when_it_was_created() {
    let lab = Lab::new();
    let before = SystemClock.now().as_second();
    lab.create(&lab.spec("print hello"), &lab.attempt()).await;

    let owned = lab.engine.list_owned(&lab.owner).await.unwrap();

    let created = owned[0].created_at.unwrap().as_second();
    assert!((before..=SystemClock.now().as_second()).contains(&created));
}

#[tokio::test]
async fn another_owners_container_is_left_alone() {
    let lab = Lab::new();
    let (workload, _dir) = lab.start(&lab.spec("sleep 120")).await;
    let owned = lab.engine.list_owned(&lab.owner).await.unwrap();
    let other = OwnerId(format!("{}-other", lab.owner));

    let error = lab
        .engine
        .remove_owned(&other, &owned[0])
        .await
        .unwrap_err();

    assert!(matches!(error, EngineError::NotOurs { .. }), "{error:?}");
    assert_eq!(
        inspect(&workload.handle().container, "{{.State.Running}}"),
        "true"
    );
}

#[tokio::test]
async fn a_container_without_our_label_is_left_alone() {
    let lab = Lab::new();
    let name = format!("{}-foreign", lab.owner);
    docker(&["create", "--name", &name, &lab.image, "/bin/agent"]);
    let foreign = OwnedContainer {
        id: inspect(&name, "{{.Id}}"),
        name: name.clone(),
        attempt: None,
        created_at: None,
        is_running: false,
    };

    let error = lab
        .engine
        .remove_owned(&lab.owner, &foreign)
        .await
        .unwrap_err();

    assert!(matches!(error, EngineError::NotOurs { .. }), "{error:?}");
    assert_eq!(inspect(&name, "{{.State.Status}}"), "created");
    docker(&["rm", &name]);
}

#[tokio::test]
async fn an_id_that_only_leads_to_a_container_removes_none() {
    let lab = Lab::new();
    lab.create(&lab.spec("print hello"), &lab.attempt()).await;
    let owned = lab.engine.list_owned(&lab.owner).await.unwrap();
    let short = OwnedContainer {
        id: owned[0].id[..12].to_owned(),
        ..owned[0].clone()
    };

    lab.engine.remove_owned(&lab.owner, &short).await.unwrap();

    assert_eq!(lab.engine.list_owned(&lab.owner).await.unwrap(), owned);
}
