//! Freezing a workload, and stopping a frozen one.

use dark_factory_executor::engine::{EngineError, Recovered};
use dark_factory_executor::spec::StopPolicy;
use dark_factory_spool::End;

use crate::site::{Site, grace};
use crate::spool::Spool;

pub(crate) async fn a_workload_is_frozen_and_goes_on_however_often_it_is_told(site: &Site) {
    let (workload, dir) = site
        .begin("write begun; wait-file go; print hello; wait-file end")
        .await;
    let is_frozen = || site.lab.is_frozen(&workload.handle().container);

    for _ in 0..2 {
        workload.pause().await.unwrap();
        assert!(is_frozen());
    }
    let recovered = site.lab.engine().recover(workload.handle()).await.unwrap();
    assert!(matches!(recovered, Recovered::Running(_)), "{recovered:?}");
    site.write("go", "");
    assert_eq!(Spool::read(&dir).text(), "");
    for _ in 0..2 {
        workload.unpause().await.unwrap();
        assert!(!is_frozen());
    }
    site.write("end", "");

    assert_eq!(workload.wait().await.unwrap().code, 0);
    assert_eq!(Spool::read(&dir).text(), "hello\n");
}

pub(crate) async fn what_does_not_run_cannot_be_frozen(site: &Site) {
    let (ended, _dir) = site.start(&site.spec("print hello")).await;
    ended.wait().await.unwrap();
    let handle = site
        .create(&site.spec("print hello"), &site.attempt())
        .await;
    let Recovered::Created(created) = site.engine.recover(&handle).await.unwrap() else {
        panic!("not created")
    };
    let (removed, _dir) = site.start(&site.spec("print hello")).await;
    removed.wait().await.unwrap();
    removed.remove().await.unwrap();

    for workload in [ended, created, removed] {
        for result in [workload.pause().await, workload.unpause().await] {
            assert!(
                matches!(result, Err(EngineError::NoSuchContainer { .. })),
                "{result:?}"
            );
        }
    }
}

pub(crate) async fn a_frozen_agent_gets_its_time_to_leave(site: &Site) {
    let (workload, dir) = site.begin("on-term exit 7; write begun; sleep 1h").await;
    workload.pause().await.unwrap();

    workload.stop(&grace(600)).await.unwrap();

    assert_eq!(workload.wait().await.unwrap().code, 7);
    assert_eq!(Spool::read(&dir).exit.unwrap().end, End::Code(7));
}

pub(crate) async fn a_frozen_agent_is_thawed_for_any_signal(site: &Site) {
    let mut spec = site.spec("on-term exit 7; write begun; sleep 1h");
    spec.stop = StopPolicy {
        signal: "SIGINT".to_owned(),
        ..StopPolicy::default()
    };
    let (workload, dir) = site.start(&spec).await;
    site.wait_for("begun").await;
    workload.pause().await.unwrap();

    workload.stop(&grace(600)).await.unwrap();

    assert_eq!(Spool::read(&dir).exit.unwrap().end, End::Code(7));
}

pub(crate) async fn a_frozen_stubborn_agent_is_killed_and_its_record_is_whole(site: &Site) {
    let (workload, dir) = site
        .begin("ignore-term; print mine; write begun; sleep 1h")
        .await;
    workload.pause().await.unwrap();

    workload.stop(&StopPolicy::kill()).await.unwrap();

    let spool = Spool::read(&dir);
    assert!(spool.is_complete());
    assert_eq!(spool.text(), "mine\n");
    assert_eq!(spool.exit.unwrap().end, End::Signal(9));
}
