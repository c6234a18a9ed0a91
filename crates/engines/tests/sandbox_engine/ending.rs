//! How sandboxes are made to end, and frozen; and what they may use.

use std::time::Duration;

use dark_factory_executor::engine::{EndedBy, Engine, EngineError, LimitKind, OomSeen, Recovered};
use dark_factory_executor::spec::{LaunchSpec, Limits, StopPolicy};
use dark_factory_spool::{End, Intervention};
use dark_factory_types::ByteSize;

use super::lab::{Lab, Spool};

fn grace(time: Duration) -> StopPolicy {
    StopPolicy {
        grace: time,
        ..StopPolicy::default()
    }
}

/// A script that says when it has begun, and then goes on for too long.
fn endless(before: &str) -> String {
    format!("{before}; write /workspace/begun; sleep 120")
}

#[tokio::test]
async fn a_stop_gives_the_agent_time_to_leave() {
    let lab = Lab::new();
    let (workload, dir) = lab.start(&lab.spec(&endless("on-term exit 7"))).await;
    lab.wait_for("begun").await;

    workload
        .stop(&grace(Duration::from_secs(30)))
        .await
        .unwrap();

    let exit = workload.wait().await.unwrap();
    assert_eq!(exit.code, 7);
    assert_eq!(exit.ended_by, EndedBy::Request { signal: 15 });
    assert_eq!(Spool::read(&dir).exit.unwrap().end, End::Code(7));
    workload
        .stop(&grace(Duration::from_secs(30)))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_stubborn_agent_is_killed_and_its_record_is_whole() {
    let lab = Lab::new();
    let script = endless("ignore-term; print mine");
    let (workload, dir) = lab.start(&lab.spec(&script)).await;
    lab.wait_for("begun").await;

    workload
        .stop(&grace(Duration::from_millis(300)))
        .await
        .unwrap();

    let spool = Spool::read(&dir);
    assert!(spool.is_complete());
    assert_eq!(spool.text(), "mine\n");
    assert_eq!(spool.exit.unwrap().end, End::Signal(9));
}

#[tokio::test]
async fn without_grace_a_stop_kills_at_once_and_the_record_says_so() {
    let lab = Lab::new();
    let (workload, dir) = lab.start(&lab.spec(&endless("on-term exit 7"))).await;
    lab.wait_for("begun").await;

    workload.stop(&StopPolicy::kill()).await.unwrap();

    let exit = Spool::read(&dir).exit.unwrap();
    assert_eq!(exit.end, End::Signal(9));
    assert_eq!(exit.intervention, Some(Intervention::Kill));
}

#[tokio::test]
async fn one_that_was_never_started_can_be_stopped_and_removed() {
    let lab = Lab::new();
    let dir = lab.attempt();
    let handle = lab.create(&lab.spec("print hello"), &dir).await;
    let Recovered::Created(workload) = lab.engine.recover(&handle).await.unwrap() else {
        panic!("it was only created");
    };

    workload.stop(&StopPolicy::default()).await.unwrap();
    workload.remove().await.unwrap();

    assert!(matches!(
        lab.engine.recover(&handle).await.unwrap(),
        Recovered::Gone
    ));
}

#[tokio::test]
async fn a_frozen_agent_does_nothing_until_it_is_thawed() {
    let lab = Lab::new();
    let script = "while :; do echo x >> /workspace/ticks; sleep 0.02; done";
    let (workload, _dir) = lab.start(&lab.shell(script)).await;
    lab.wait_for("ticks").await;
    let ticks = || {
        std::fs::metadata(lab.project.path().join("ticks"))
            .unwrap()
            .len()
    };

    workload.pause().await.unwrap();
    workload.pause().await.unwrap();
    let frozen = ticks();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(ticks(), frozen);

    workload.unpause().await.unwrap();
    workload.unpause().await.unwrap();
    let goes_on = async {
        while ticks() == frozen {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), goes_on)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_frozen_agent_can_be_stopped() {
    let lab = Lab::new();
    let (workload, _dir) = lab.start(&lab.spec(&endless("on-term exit 7"))).await;
    lab.wait_for("begun").await;
    workload.pause().await.unwrap();

    workload
        .stop(&grace(Duration::from_secs(30)))
        .await
        .unwrap();

    assert_eq!(workload.wait().await.unwrap().code, 7);
    assert!(matches!(
        workload.pause().await.unwrap_err(),
        EngineError::NoSuchContainer { .. }
    ));
}

#[tokio::test]
async fn what_it_uses_is_measured_while_it_runs() {
    let lab = Lab::new();
    let (workload, _dir) = lab
        .start(&lab.shell("touch /workspace/begun; while :; do :; done"))
        .await;
    lab.wait_for("begun").await;

    let first = workload.usage().await.unwrap();
    let busy = async {
        while workload.usage().await.unwrap().cpu <= first.cpu {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), busy)
        .await
        .unwrap();

    assert!(first.memory.0 > 0, "{first:?}");
    assert!(first.pids.is_some_and(|pids| pids >= 2), "{first:?}");
    workload.stop(&StopPolicy::kill()).await.unwrap();
    assert!(matches!(
        workload.usage().await.unwrap_err(),
        EngineError::NoSuchContainer { .. }
    ));
}

/// A script that has 256 MiB in memory, of which the agent's own first process is a part.
const GREEDY: &str = "head -c 268435456 /dev/zero | tail";

#[tokio::test]
async fn too_much_memory_ends_the_agent_and_where_the_kernel_does_it_that_is_told() {
    let lab = Lab::new();
    let limits = Limits {
        memory: Some(ByteSize(64 << 20)),
        ..Limits::default()
    };
    let kept = lab.engine.describe().await.unwrap().capabilities.limits;

    let (exit, spool) = lab
        .run(&LaunchSpec {
            limits,
            ..lab.shell(GREEDY)
        })
        .await;

    let seen = match kept.contains(&LimitKind::Memory) {
        true => OomSeen::Yes,
        false => OomSeen::No,
    };
    assert_ne!(exit.code, 0, "{spool:?}");
    assert_eq!(exit.oom_killed, seen, "{spool:?}");
}

#[tokio::test]
async fn too_many_processes_are_not_made_where_that_is_kept() {
    let lab = Lab::new();
    let limits = Limits {
        pids: Some(12),
        ..Limits::default()
    };
    let kept = lab.engine.describe().await.unwrap().capabilities.limits;
    assert!(kept.contains(&LimitKind::Pids), "{kept:?}");
    let script =
        "for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do sleep 60 & done; echo all of them";

    let (_exit, spool) = lab
        .run(&LaunchSpec {
            limits,
            ..lab.shell(script)
        })
        .await;

    assert!(!spool.text().contains("all of them"), "{spool:?}");
    assert!(spool.stderr().contains("fork"), "{spool:?}");
}

#[tokio::test]
async fn no_control_group_is_left() {
    let lab = Lab::new();
    let (workload, _dir) = lab.start(&lab.spec("print hello")).await;
    let config = lab
        .root
        .join(&workload.handle().container)
        .join("config.json");
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(config).unwrap()).unwrap();
    let groups: Vec<String> = serde_json::from_value(config["limits"]["cgroups"].clone()).unwrap();
    let there = |group: &&String| std::path::Path::new(group.as_str()).exists();

    assert_eq!(groups.iter().filter(there).count(), groups.len());
    workload.wait().await.unwrap();
    workload.remove().await.unwrap();

    assert_eq!(groups.iter().filter(there).count(), 0);
}
