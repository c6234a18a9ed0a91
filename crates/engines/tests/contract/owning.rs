//! What is ours, and what is not.

use std::collections::BTreeMap;

use dark_factory_executor::clock::{Clock, SystemClock};
use dark_factory_executor::engine::{EngineError, OwnedContainer, Recovered};
use dark_factory_executor::spec::{LABEL_ATTEMPT, LABEL_OWNER, LABEL_PROMPT};
use dark_factory_types::OwnerId;

use crate::site::{Site, until};

pub(crate) async fn only_what_is_ours_is_listed(site: &Site) {
    let other = OwnerId(format!("{}-other", site.owner));
    let dir = site.attempt();
    let handle = site.create(&site.spec("print hello"), &dir).await;
    let neighbour = site.attempt();
    let theirs = site
        .engine
        .create(&site.spec("print hello"), &other, &neighbour)
        .await
        .unwrap();
    let strangers = [
        BTreeMap::new(),
        BTreeMap::from([(LABEL_OWNER.to_owned(), String::new())]),
        BTreeMap::from([(LABEL_PROMPT.to_owned(), site.owner.0.clone())]),
        BTreeMap::from([(LABEL_ATTEMPT.to_owned(), dir.attempt().to_string())]),
    ];
    let names: Vec<String> = (0..strangers.len())
        .map(|number| format!("{}-stranger-{number}", site.owner))
        .collect();
    for (name, labels) in names.iter().zip(&strangers) {
        site.lab.make_foreign(name, labels);
    }

    let (ours, others) = tokio::join!(
        site.engine.list_owned(&site.owner),
        site.engine.list_owned(&other)
    );

    names.iter().for_each(|name| site.lab.remove_foreign(name));
    let others = others.unwrap();
    for container in &others {
        site.engine.remove_owned(&other, container).await.unwrap();
    }
    let listed = |list: &[OwnedContainer]| -> Vec<_> {
        list.iter()
            .map(|it| (it.name.clone(), it.attempt))
            .collect()
    };
    assert_eq!(
        listed(&ours.unwrap()),
        [(handle.container, Some(dir.attempt()))]
    );
    assert_eq!(
        listed(&others),
        [(theirs.container, Some(neighbour.attempt()))]
    );
}

pub(crate) async fn what_is_listed_says_when_it_was_created(site: &Site) {
    let before = SystemClock.now().as_second();
    site.create(&site.spec("print hello"), &site.attempt())
        .await;

    let owned = site.engine.list_owned(&site.owner).await.unwrap();

    let created = owned[0].created_at.unwrap().as_second();
    assert!((before..=SystemClock.now().as_second()).contains(&created));
}

pub(crate) async fn what_is_listed_goes_whatever_it_does(site: &Site) {
    let (_running, _dir) = site.start(&site.spec("ignore-term; sleep 1h")).await;
    let (frozen, _dir) = site.begin("write begun; sleep 1h").await;
    frozen.pause().await.unwrap();
    let (ended, _dir) = site.start(&site.spec("print hello")).await;
    ended.wait().await.unwrap();
    site.create(&site.spec("print hello"), &site.attempt())
        .await;
    let owned = site.engine.list_owned(&site.owner).await.unwrap();
    assert_eq!(owned.len(), 4);
    let runs = owned.iter().filter(|container| container.is_running);
    assert_eq!(runs.count(), 2, "a frozen one too: {owned:?}");

    for container in &owned {
        for _ in 0..2 {
            let removed = site.engine.remove_owned(&site.owner, container).await;
            removed.unwrap();
        }
    }

    assert_eq!(site.engine.list_owned(&site.owner).await.unwrap(), []);
    let gone = site.engine.recover(frozen.handle()).await.unwrap();
    assert!(matches!(gone, Recovered::Gone), "{gone:?}");
}

pub(crate) async fn what_is_just_ending_is_listed_and_found(site: &Site) {
    let (workload, _dir) = site.begin("write begun; wait-file go").await;

    site.write("go", "");

    until("it is said to have ended", async || {
        let owned = site.engine.list_owned(&site.owner).await.unwrap();
        let found = site.engine.recover(workload.handle()).await.unwrap();
        assert_eq!(owned.len(), 1);
        let has_ended = match found {
            Recovered::Running(_) => false,
            Recovered::Exited(..) => true,
            other => panic!("it ran, and is {other:?}"),
        };
        has_ended && !owned[0].is_running
    })
    .await;
}

pub(crate) async fn what_is_another_owners_is_left_alone(site: &Site) {
    let (workload, _dir) = site.start(&site.spec("sleep 1h")).await;
    let owned = site.engine.list_owned(&site.owner).await.unwrap();
    let other = OwnerId(format!("{}-other", site.owner));

    let error = site
        .engine
        .remove_owned(&other, &owned[0])
        .await
        .unwrap_err();

    assert!(matches!(error, EngineError::NotOurs { .. }), "{error:?}");
    let recovered = site.engine.recover(workload.handle()).await.unwrap();
    assert!(matches!(recovered, Recovered::Running(_)), "{recovered:?}");
}

pub(crate) async fn what_has_no_label_of_ours_is_left_alone(site: &Site) {
    let name = format!("{}-stranger", site.owner);
    let id = site.lab.make_foreign(&name, &BTreeMap::new());
    let before = site.lab.describe(&name);
    let stranger = OwnedContainer {
        id,
        name: name.clone(),
        attempt: None,
        created_at: None,
        is_running: false,
    };

    let result = site.engine.remove_owned(&site.owner, &stranger).await;

    let after = site.lab.describe(&name);
    site.lab.remove_foreign(&name);
    assert!(
        matches!(result, Err(EngineError::NotOurs { .. })),
        "{result:?}"
    );
    assert_eq!(after, before);
}

pub(crate) async fn what_has_ended_is_removed_and_then_gone(site: &Site) {
    let (workload, _dir) = site.start(&site.spec("write left; print hello")).await;
    workload.wait().await.unwrap();

    for _ in 0..2 {
        workload.remove().await.unwrap();
    }

    let recovered = site.engine.recover(workload.handle()).await.unwrap();
    assert!(matches!(recovered, Recovered::Gone), "{recovered:?}");
    assert_eq!(site.engine.list_owned(&site.owner).await.unwrap(), []);
    assert_eq!(site.lab.leftovers(&site.owner), Vec::<String>::new());
    assert!(site.file("left").exists(), "the workspace stays");
}

pub(crate) async fn what_runs_is_not_removed(site: &Site) {
    let (workload, _dir) = site.start(&site.spec("sleep 1h")).await;

    let error = workload.remove().await.unwrap_err();

    assert!(matches!(error, EngineError::Failed { .. }), "{error:?}");
    let recovered = site.engine.recover(workload.handle()).await.unwrap();
    assert!(matches!(recovered, Recovered::Running(_)), "{recovered:?}");
}

pub(crate) async fn fifty_at_once(site: &Site) {
    let runs = (0..50).map(async |number| {
        let script = format!("print number {number}; spew 64k; stderr done; exit {number}");
        (number, site.run(&site.spec(&script)).await)
    });

    for (number, (exit, spool)) in futures_util::future::join_all(runs).await {
        let code = i64::from(number);
        assert_eq!((exit.code, spool.stderr().as_str()), (code, "done\n"));
        assert!(spool.text().starts_with(&format!("number {number}\n0000")));
        assert!(spool.is_complete());
    }
    assert_eq!(site.engine.list_owned(&site.owner).await.unwrap(), []);
    assert_eq!(site.lab.leftovers(&site.owner), Vec::<String>::new());
}
