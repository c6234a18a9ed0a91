//! Limits, where the engine says that it keeps them; `declared` has what becomes of the others.

use std::time::Instant;

use dark_factory_executor::engine::{Execution, LimitKind, OomSeen, Workload};
use dark_factory_executor::spec::{LaunchSpec, Limits};
use dark_factory_spool::End;
use dark_factory_types::{ByteSize, CpuCount};
use futures_util::TryStreamExt;

use crate::site::{Site, until};
use crate::spool::Spool;

fn with_memory(site: &Site, script: &str) -> LaunchSpec {
    LaunchSpec {
        limits: Limits {
            memory: Some(ByteSize(64 << 20)),
            ..Limits::default()
        },
        ..site.spec(script)
    }
}

pub(crate) async fn an_agent_without_enough_memory_is_killed_and_that_is_told(site: &Site) {
    if !site.keeps(LimitKind::Memory).await {
        return;
    }

    let (exit, spool) = site
        .run(&with_memory(site, "print big; allocate 256m"))
        .await;

    let record = spool.exit.as_ref().unwrap();
    assert_eq!(record.end, End::Signal(9));
    assert!(
        exit.oom_killed == OomSeen::Yes || record.oom_kills > Some(0),
        "{exit:?} {record:?}"
    );
    assert_eq!(spool.text(), "big\n");
    assert!(spool.is_complete());
}

pub(crate) async fn a_child_without_enough_memory_is_killed_and_that_is_told(site: &Site) {
    if !site.keeps(LimitKind::Memory).await {
        return;
    }
    // A grandchild: what the agent does not bury itself, the helper does.
    let script = "fork fork 'write child; wait-file eat; allocate 256m; write lived'; \
                  wait-file child; write begun; wait-file go; exit 3";
    let (workload, dir) = site.start(&with_memory(site, script)).await;
    site.wait_for("begun").await;
    let before = processes(site, &*workload).await;

    site.write("eat", "");
    until("the child is gone", async || {
        processes(site, &*workload).await < before
    })
    .await;
    site.write("go", "");
    let exit = workload.wait().await.unwrap();

    let record = Spool::read(&dir).exit.unwrap();
    assert_eq!((exit.code, record.end), (3, End::Code(3)));
    assert!(
        exit.oom_killed == OomSeen::Yes || record.oom_kills > Some(0),
        "{exit:?} {record:?}"
    );
    assert!(!site.file("lived").exists());
}

/// Counts the processes of a workload, as one in it sees them.
async fn processes(site: &Site, workload: &dyn Workload) -> usize {
    let execution = Execution {
        argv: vec![site.lab.agent(), "-e".to_owned(), "ls /proc".to_owned()],
        env: [].into(),
        terminal: None,
    };
    let executed = workload.exec(&execution).await.unwrap();
    let said: Vec<_> = executed.output.try_collect().await.unwrap();
    let said: Vec<u8> = said.into_iter().flat_map(|(_, bytes)| bytes).collect();
    let said = String::from_utf8(said).unwrap();
    said.lines()
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .count()
}

pub(crate) async fn processes_are_limited(site: &Site) {
    if !site.keeps(LimitKind::Pids).await {
        return;
    }
    let mut spec = site.spec(&format!("{}print done", "fork 'sleep 1h'; ".repeat(40)));
    spec.limits.pids = Some(20);

    let (exit, spool) = site.run(&spec).await;

    assert_eq!((exit.code, spool.text().as_str()), (1, "done\n"));
    assert!(
        spool
            .stderr()
            .contains("fork: Resource temporarily unavailable"),
        "{}",
        spool.stderr()
    );
}

pub(crate) async fn cpu_time_is_limited(site: &Site) {
    if !site.keeps(LimitKind::Cpus).await {
        return;
    }
    let mut spec = site.spec("spew 64m 20");
    spec.limits.cpus = Some(CpuCount { nanos: 200_000_000 });
    let (workload, dir) = site.start(&spec).await;
    let begun = Instant::now();

    workload.wait().await.unwrap();

    let wall = begun.elapsed().as_secs_f64();
    let record = Spool::read(&dir).exit.unwrap();
    let used = std::time::Duration::from_micros(record.user_us + record.system_us).as_secs_f64();
    // A period of 100 ms at each end may be used in full.
    assert!(used > 0.1, "too little to be sure: {used} s");
    assert!(used < wall * 0.2 + 0.1, "{used} s of {wall} s");
}

pub(crate) async fn files_are_limited_in_size_and_in_number(site: &Site) {
    let mut spec = site.spec("read /proc/self/limits");
    spec.limits.file_size = Some(ByteSize(1 << 20));
    spec.limits.open_files = Some(300);

    let (_, spool) = site.run(&spec).await;

    let said = spool.text();
    let limit = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap()
            .split_whitespace()
            .take(2)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(limit("Max file size"), ["1048576", "1048576"]);
    assert_eq!(limit("Max open files"), ["300", "300"]);
}
