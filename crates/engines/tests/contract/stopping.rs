//! Stopping, in every state.

use std::time::{Duration, Instant};

use dark_factory_executor::engine::Recovered;
use dark_factory_executor::spec::StopPolicy;
use dark_factory_spool::End;

use crate::site::{Site, grace};
use crate::spool::Spool;

/// Longer than any test waits.
const LONG: u64 = 600;

pub(crate) async fn stop_gives_the_agent_time_to_leave(site: &Site) {
    let (workload, dir) = site.begin("on-term exit 7; write begun; sleep 1h").await;

    workload.stop(&grace(LONG)).await.unwrap();

    assert_eq!(workload.wait().await.unwrap().code, 7);
    let spool = Spool::read(&dir);
    assert!(spool.is_complete());
    assert_eq!(spool.exit.unwrap().end, End::Code(7));
}

pub(crate) async fn stop_sends_the_policys_signal(site: &Site) {
    let (workload, dir) = site.begin("ignore-term; write begun; sleep 1h").await;
    let policy = StopPolicy {
        signal: "SIGUSR1".to_owned(),
        ..grace(LONG)
    };

    workload.stop(&policy).await.unwrap();

    assert_eq!(Spool::read(&dir).exit.unwrap().end, End::Signal(10));
}

pub(crate) async fn stop_kills_an_agent_that_ignores_its_signal(site: &Site) {
    let script = "ignore-term; print mine; fork 'ignore-term; write begun; sleep 1h'; sleep 1h";
    let (workload, dir) = site.begin(script).await;
    let begun = Instant::now();

    workload.stop(&grace(1)).await.unwrap();

    assert!(begun.elapsed() >= Duration::from_secs(1));
    workload.wait().await.unwrap();
    let spool = Spool::read(&dir);
    assert!(spool.is_complete());
    assert_eq!(spool.text(), "mine\n");
    assert_eq!(spool.exit.unwrap().end, End::Signal(9));
}

pub(crate) async fn stop_without_grace_kills_at_once(site: &Site) {
    let (workload, dir) = site.begin("on-term exit 7; write begun; sleep 1h").await;

    workload.stop(&StopPolicy::kill()).await.unwrap();

    let spool = Spool::read(&dir);
    assert!(spool.is_complete());
    assert_eq!(spool.exit.unwrap().end, End::Signal(9));
}

pub(crate) async fn stop_before_start(site: &Site) {
    let (spec, dir) = (site.spec("print hello"), site.attempt());
    let handle = site.create(&spec, &dir).await;
    let Recovered::Created(workload) = site.engine.recover(&handle).await.unwrap() else {
        panic!("not created")
    };

    workload.stop(&StopPolicy::default()).await.unwrap();

    let recovered = site.engine.recover(&handle).await.unwrap();
    assert!(matches!(recovered, Recovered::Created(_)), "{recovered:?}");
    workload.remove().await.unwrap();
    assert_eq!(site.engine.list_owned(&site.owner).await.unwrap(), []);
}

pub(crate) async fn stop_after_the_end(site: &Site) {
    let (workload, dir) = site.start(&site.spec("print hello; exit 3")).await;
    let exit = workload.wait().await.unwrap();

    for policy in [grace(LONG), StopPolicy::kill()] {
        workload.stop(&policy).await.unwrap();
    }

    assert_eq!(workload.wait().await.unwrap(), exit);
    assert_eq!(Spool::read(&dir).exit.unwrap().end, End::Code(3));
    workload.remove().await.unwrap();
    workload.stop(&grace(LONG)).await.unwrap();
}

pub(crate) async fn stop_twice(site: &Site) {
    let (workload, dir) = site.begin("on-term exit 7; write begun; sleep 1h").await;
    let other = site.lab.engine();
    let found = site.found(&*other, workload.handle()).await;

    let policy = grace(LONG);
    let stops = tokio::join!(workload.stop(&policy), found.stop(&policy));
    workload.stop(&policy).await.unwrap();

    assert!(matches!(stops, (Ok(()), Ok(()))), "{stops:?}");
    assert_eq!(Spool::read(&dir).exit.unwrap().end, End::Code(7));
}

pub(crate) async fn a_second_stop_may_have_less_patience(site: &Site) {
    let (workload, dir) = site.begin("ignore-term; write begun; sleep 1h").await;
    let other = site.lab.engine();
    let found = site.found(&*other, workload.handle()).await;

    let policy = grace(LONG);
    let stops = tokio::join!(workload.stop(&policy), async {
        found.stop(&StopPolicy::kill()).await
    });

    assert!(matches!(stops, (Ok(()), Ok(()))), "{stops:?}");
    assert_eq!(Spool::read(&dir).exit.unwrap().end, End::Signal(9));
}

pub(crate) async fn a_kill_from_outside_leaves_an_exact_beginning(site: &Site) {
    let (workload, dir) = site.begin("print hello; write begun; sleep 1h").await;

    site.lab.kill(&workload.handle().container);

    assert_eq!(workload.wait().await.unwrap().code, 137);
    let spool = Spool::read(&dir);
    assert_eq!(
        (spool.text().as_str(), spool.exit.is_none()),
        ("hello\n", true)
    );
}
