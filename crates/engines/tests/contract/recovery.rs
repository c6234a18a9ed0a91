//! What another process finds, and what it may do again.

use std::sync::Arc;

use dark_factory_executor::clock::SystemClock;
use dark_factory_executor::engine::{Engine, EngineError, Handle, Recovered, Workload};
use dark_factory_executor::spec::{LABEL_OWNER, LaunchSpec};
use dark_factory_executor::spool::SpoolWriter;

use crate::site::{Site, grace};
use crate::spool::Spool;

pub(crate) async fn another_process_finds_each_state(site: &Site) {
    let spec = site.spec("on-term exit 7; write begun; sleep 1h");
    let dir = site.attempt();
    // As the store has it.
    let handle = serde_json::to_string(&site.create(&spec, &dir).await).unwrap();
    let handle: Handle = serde_json::from_str(&handle).unwrap();
    let recover = async || {
        let other = site.lab.engine();
        other.recover(&handle).await.unwrap()
    };

    let Recovered::Created(_) = recover().await else {
        panic!("not created")
    };
    drop(site.engine.start(&spec, &handle, &dir).await.unwrap());
    site.wait_for("begun").await;
    let Recovered::Running(workload) = recover().await else {
        panic!("not running")
    };
    workload.stop(&grace(600)).await.unwrap();
    let Recovered::Exited(exit, workload) = recover().await else {
        panic!("not exited")
    };
    let waited = workload.wait().await.unwrap();
    workload.remove().await.unwrap();
    let Recovered::Gone = recover().await else {
        panic!("not gone")
    };

    assert_eq!((exit.code, &waited), (7, &exit));
    let gone = workload.wait().await.unwrap_err();
    assert!(
        matches!(gone, EngineError::NoSuchContainer { .. }),
        "{gone:?}"
    );
}

pub(crate) async fn creating_twice_is_one_workload(site: &Site) {
    let (spec, dir) = (site.spec("print hello"), site.attempt());
    let other = site.lab.engine();

    let (first, second) = tokio::join!(
        site.engine.create(&spec, &site.owner, &dir),
        other.create(&spec, &site.owner, &dir)
    );
    let third = other.create(&spec, &site.owner, &dir).await.unwrap();

    assert_eq!((&first.unwrap(), &second.unwrap()), (&third, &third));
    let owned = other.list_owned(&site.owner).await.unwrap();
    let names: Vec<&str> = owned.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, [third.container.as_str()]);
    assert_eq!(owned[0].attempt, Some(dir.attempt()));
    assert!(!owned[0].is_running);
}

pub(crate) async fn starting_twice_is_one_run(site: &Site) {
    let script = "append starts x; print hello; write begun; wait-file go; exit 3";
    let (spec, dir) = (site.spec(script), site.attempt());
    let handle = site.create(&spec, &dir).await;
    let other = site.lab.engine();

    drop(site.engine.start(&spec, &handle, &dir).await.unwrap());
    site.wait_for("begun").await;
    let workload = other.start(&spec, &handle, &dir).await.unwrap();
    site.write("go", "");
    assert_eq!(workload.wait().await.unwrap().code, 3);
    let ended = other.start(&spec, &handle, &dir).await.unwrap();

    assert_eq!(ended.wait().await.unwrap().code, 3);
    let spool = Spool::read(&dir);
    assert_eq!((spool.starts, spool.text().as_str()), (1, "hello\n"));
    assert!(spool.is_complete());
    assert_eq!(std::fs::read(site.file("starts")).unwrap(), b"x");
}

pub(crate) async fn a_workload_goes_on_without_whoever_started_it(site: &Site) {
    let engine: Arc<dyn Engine> = site.lab.engine();
    let spec = site.spec("print one; write begun; wait-file go; spew 1m; print two; exit 4");
    let dir = site.attempt();
    let handle = engine.create(&spec, &site.owner, &dir).await.unwrap();
    let workload: Box<dyn Workload> = engine.start(&spec, &handle, &dir).await.unwrap();
    site.wait_for("begun").await;

    drop(workload);
    drop(engine);
    site.write("go", "");
    let next = site.lab.engine();
    let workload = next.start(&spec, &handle, &dir).await.unwrap();

    assert_eq!(workload.wait().await.unwrap().code, 4);
    let spool = Spool::read(&dir);
    assert!(spool.is_complete());
    assert_eq!((spool.starts, spool.stdout().len()), (1, 8 + (1 << 20)));
}

pub(crate) async fn an_agent_that_ran_is_not_started_again(site: &Site) {
    let (spec, dir) = (site.spec("print hello"), site.attempt());
    let handle = site.create(&spec, &dir).await;
    // What a workload would have left whose engine has forgotten that it ran.
    SpoolWriter::open(&dir)
        .unwrap()
        .start(&SystemClock)
        .unwrap();

    let error = site.engine.start(&spec, &handle, &dir).await.unwrap_err();

    assert!(matches!(error, EngineError::Handover { .. }), "{error:?}");
    let recovered = site.engine.recover(&handle).await.unwrap();
    assert!(matches!(recovered, Recovered::Created(_)), "{recovered:?}");
}

pub(crate) async fn what_is_gone_cannot_be_started(site: &Site) {
    let (spec, dir) = (site.spec("print hello"), site.attempt());
    let handle = site.create(&spec, &dir).await;
    let Recovered::Created(workload) = site.engine.recover(&handle).await.unwrap() else {
        panic!("not created")
    };
    workload.remove().await.unwrap();

    let error = site.engine.start(&spec, &handle, &dir).await.unwrap_err();

    assert!(
        matches!(error, EngineError::NoSuchContainer { .. }),
        "{error:?}"
    );
}

pub(crate) async fn a_name_that_somebody_else_has_is_refused(site: &Site) {
    let name = format!("{}-holder", site.owner);
    site.lab.make_foreign(
        &name,
        &[(LABEL_OWNER.to_owned(), site.owner.0.clone())].into(),
    );
    let before = site.lab.describe(&name);
    let spec = LaunchSpec {
        container: Some(name.clone()),
        ..site.spec("print hello")
    };

    let error = site
        .engine
        .create(&spec, &site.owner, &site.attempt())
        .await;

    let after = site.lab.describe(&name);
    site.lab.remove_foreign(&name);
    let error = error.unwrap_err();
    assert!(
        matches!(&error, EngineError::NameTaken { name: taken, .. } if *taken == name),
        "{error:?}"
    );
    assert_eq!(after, before);
}
