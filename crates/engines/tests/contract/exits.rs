//! How a workload ends, as its engine and its helper tell it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use dark_factory_executor::engine::OomSeen;
use dark_factory_executor::spec::LaunchSpec;
use dark_factory_spool::End;
use futures_util::future::join_all;

use crate::site::Site;

pub(crate) async fn exit_codes_are_the_agents(site: &Site) {
    let codes = [0, 1, 7, 126, 127, 137];

    let ends = join_all(codes.map(async |code| {
        let (exit, spool) = site.run(&site.spec(&format!("exit {code}"))).await;
        (exit, spool.exit.unwrap().end)
    }))
    .await;

    for (code, (exit, end)) in codes.into_iter().zip(ends) {
        assert_eq!(
            (exit.code, end),
            (code, End::Code(i32::try_from(code).unwrap()))
        );
        assert_eq!((exit.oom_killed, exit.error), (OomSeen::No, None));
    }
}

pub(crate) async fn a_signal_that_ended_the_agent_is_in_its_record(site: &Site) {
    let signals = [
        ("HUP", 1),
        ("ABRT", 6),
        ("KILL", 9),
        ("SEGV", 11),
        ("TERM", 15),
    ];

    let ends = join_all(signals.map(async |(name, _)| {
        let (exit, spool) = site.run(&site.spec(&format!("kill-self {name}"))).await;
        (exit.code, spool.exit.unwrap().end)
    }))
    .await;

    let expected = signals.map(|(_, number)| (128 + i64::from(number), End::Signal(number)));
    assert_eq!(ends, expected);
}

pub(crate) async fn a_program_that_cannot_be_executed_is_in_the_record(site: &Site) {
    let plain = site.write("plain", "#!/bin/agent\n");
    fs::set_permissions(plain, fs::Permissions::from_mode(0o644)).unwrap();

    for (program, errno) in [("/no/such/agent", 2), ("/workspace/plain", 13)] {
        let spec = LaunchSpec {
            command: vec![program.to_owned()],
            ..site.spec("")
        };

        let (exit, spool) = site.run(&spec).await;

        let failed = spool.exec_failed.unwrap();
        assert_eq!(
            (exit.code, failed.program.as_str(), failed.errno),
            (127, program, errno)
        );
    }
}

pub(crate) async fn the_end_is_told_as_often_as_it_is_asked_for(site: &Site) {
    let (workload, _dir) = site.start(&site.spec("print last words; exit 3")).await;

    let [one, other] = [workload.wait(), workload.wait()];
    let (one, other) = tokio::join!(one, other);
    let later = workload.wait().await.unwrap();

    assert_eq!(later.code, 3);
    assert_eq!((one.unwrap(), other.unwrap()), (later.clone(), later));
}
