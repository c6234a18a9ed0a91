//! Looking into a workload while it runs.

use dark_factory_executor::engine::{
    Channel, EngineError, Execution, LimitKind, OwnedContainer, Recovered, Workload,
};
use dark_factory_types::ByteSize;
use futures_util::TryStreamExt;
use tokio::io::AsyncWriteExt;

use crate::site::Site;

fn execution(argv: &[&str]) -> Execution {
    Execution {
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        env: [("ADDED".to_owned(), "a b\nc".to_owned())].into(),
        terminal: None,
    }
}

/// Executes a program that is given `input`; returns its code, its output and its errors.
async fn execute(workload: &dyn Workload, argv: &[&str], input: &str) -> (i64, String, String) {
    let mut executed = workload.exec(&execution(argv)).await.unwrap();
    executed.input.write_all(input.as_bytes()).await.unwrap();
    executed.input.shutdown().await.unwrap();
    let said: Vec<_> = executed.output.try_collect().await.unwrap();
    let text = |channel| {
        let bytes = said
            .iter()
            .filter(|(from, _)| *from == channel)
            .flat_map(|(_, bytes)| bytes.clone())
            .collect();
        String::from_utf8(bytes).unwrap()
    };
    let code = executed.program.exit_code().await.unwrap();
    (code, text(Channel::Output), text(Channel::Error))
}

pub(crate) async fn a_program_is_executed_as_the_agent_is(site: &Site) {
    let (workload, _dir) = site.begin("write begun; write /tmp/note x; sleep 1h").await;
    let agent = site.lab.agent();
    let (uid, gid) = site.lab.user();

    let script = "id; pwd; env ADDED; prompt; stderr oops; exit 9";
    let (code, output, errors) = execute(&*workload, &[&agent, "-e", script], "typed\n").await;

    let expected = format!(
        "uid={uid} gid={gid} cap_eff=0000000000000000 no_new_privs=1\n/workspace\na b\nc\ntyped\n"
    );
    assert_eq!((code, output.as_str()), (9, expected.as_str()));
    assert_eq!(errors, "oops\n");
}

pub(crate) async fn a_program_that_cannot_be_executed_says_so(site: &Site) {
    let (workload, _dir) = site.begin("write begun; sleep 1h").await;

    let (missing, output, errors) = execute(&*workload, &["/no/such/program"], "").await;
    let (forbidden, ..) = execute(&*workload, &["/workspace"], "").await;

    assert!(matches!(missing, 126 | 127), "{missing}");
    assert_eq!(forbidden, 126);
    assert!(!(output + &errors).is_empty());
}

pub(crate) async fn nothing_is_executed_or_measured_in_what_has_ended(site: &Site) {
    let (workload, _dir) = site.start(&site.spec("print hello")).await;
    workload.wait().await.unwrap();

    let executed = workload.exec(&execution(&["/bin/agent"])).await.map(drop);
    let measured = workload.usage().await.map(drop);

    for result in [executed, measured] {
        assert!(
            matches!(result, Err(EngineError::NoSuchContainer { .. })),
            "{result:?}"
        );
    }
}

pub(crate) async fn what_a_workload_uses_is_measured(site: &Site) {
    let mut spec = site.spec("allocate 32m; write begun; sleep 1h");
    let keeps_memory = site.keeps(LimitKind::Memory).await;
    if keeps_memory {
        spec.limits.memory = Some(ByteSize(256 << 20));
    }
    let (workload, _dir) = site.start(&spec).await;
    site.wait_for("begun").await;

    let usage = workload.usage().await.unwrap();

    assert!(usage.memory >= ByteSize(32 << 20), "{usage:?}");
    assert!(!usage.cpu.is_zero(), "{usage:?}");
    assert!(usage.pids.is_none_or(|pids| pids >= 2), "{usage:?}");
    if keeps_memory {
        assert_eq!(usage.memory_limit, Some(ByteSize(256 << 20)));
    }
}

pub(crate) async fn what_has_ended_is_opened_again_with_its_files(site: &Site) {
    let spec = site.spec("write note kept; exit 3");
    let (workload, dir) = site.start(&spec).await;
    workload.wait().await.unwrap();
    let name = format!("{}-again", workload.handle().container);

    let opened = site
        .engine
        .reopen(&spec, &site.owner, &dir, workload.handle(), &name)
        .await
        .unwrap();
    let script = [&site.lab.agent(), "-e", "read note; pwd"];
    let (code, output, _) = execute(&*opened.workload, &script, "").await;
    let owned = site.engine.list_owned(&site.owner).await.unwrap();
    let removed = site
        .engine
        .remove_owned(&site.owner, &opened.container)
        .await;

    assert_eq!((code, output.as_str()), (0, "kept/workspace\n"));
    assert_eq!(opened.container.name, name);
    let is_listed = |it: &&OwnedContainer| it.name == name && it.is_running;
    assert_eq!(owned.iter().filter(is_listed).count(), 1, "{owned:?}");
    removed.unwrap();
    for image in site.engine.list_owned_images(&site.owner).await.unwrap() {
        site.engine.remove_owned_image(&image).await.unwrap();
    }
    let images = site.engine.list_owned_images(&site.owner).await.unwrap();
    assert_eq!(images, []);
    let ended = site.engine.recover(workload.handle()).await.unwrap();
    assert!(matches!(ended, Recovered::Exited(..)), "{ended:?}");
}
