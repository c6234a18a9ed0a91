//! Programs that are executed beside the agent.

use std::collections::BTreeMap;

use dark_factory_executor::engine::{
    Channel, EngineError, Executed, Execution, TerminalSize, Workload,
};
use dark_factory_executor::spec::StopPolicy;
use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;

use super::lab::Lab;

fn execution(script: &str) -> Execution {
    Execution {
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: BTreeMap::from([("GIVEN".to_owned(), "a value".to_owned())]),
        terminal: None,
    }
}

/// Reads what a program writes, until it has ended.
async fn finish(executed: &mut Executed) -> (String, String, i64) {
    let (mut output, mut error) = (Vec::new(), Vec::new());
    while let Some(piece) = executed.output.next().await {
        let (channel, bytes) = piece.unwrap();
        match channel {
            Channel::Output => output.extend(bytes),
            Channel::Error => error.extend(bytes),
        }
    }
    let code = executed.program.exit_code().await.unwrap();
    assert_eq!(executed.program.exit_code().await.unwrap(), code);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output), text(error), code)
}

async fn running(lab: &Lab) -> Box<dyn Workload> {
    let (workload, _dir) = lab
        .start(&lab.spec("write /workspace/begun; sleep 120"))
        .await;
    lab.wait_for("begun").await;
    workload
}

#[tokio::test]
async fn a_program_has_the_agents_files_user_and_its_own_streams() {
    let lab = Lab::new();
    let workload = running(&lab).await;
    let script = "id -u; ls; echo \"$GIVEN\"; cat; echo oops >&2; exit 5";

    let mut executed = workload.exec(&execution(script)).await.unwrap();
    executed.input.write_all(b"typed\n").await.unwrap();
    executed.input.shutdown().await.unwrap();
    let ended = finish(&mut executed).await;

    let output = format!("{}\nbegun\na value\ntyped\n", lab.uid);
    assert_eq!(ended, (output, "oops\n".to_owned(), 5));
}

#[tokio::test]
async fn a_program_that_is_not_there_ends_with_127_and_says_so() {
    let lab = Lab::new();
    let workload = running(&lab).await;
    let missing = Execution {
        argv: vec!["/no/such/program".to_owned()],
        ..execution("")
    };

    let mut executed = workload.exec(&missing).await.unwrap();
    let (_, error, code) = finish(&mut executed).await;

    assert_eq!(code, 127);
    assert!(error.contains("/no/such/program"), "{error}");
}

#[tokio::test]
async fn a_terminal_has_its_size_and_keys_and_can_change() {
    let lab = Lab::new();
    let workload = running(&lab).await;
    let size = |columns, rows| TerminalSize { columns, rows };
    let in_terminal = Execution {
        terminal: Some(size(100, 30)),
        ..execution("stty size; read line; stty size; test -t 0 && echo \"got $line\"")
    };

    let mut executed = workload.exec(&in_terminal).await.unwrap();
    let mut shown = Vec::new();
    while !shown.ends_with(b"30 100\r\n") {
        shown.extend(executed.output.next().await.unwrap().unwrap().1);
    }
    executed.program.resize(size(80, 25)).await.unwrap();
    executed.input.write_all(b"typed\r").await.unwrap();
    executed.input.flush().await.unwrap();
    let (output, _, code) = finish(&mut executed).await;

    assert_eq!(code, 0, "{output}");
    assert!(
        output.contains("25 80\r\n") && output.contains("got typed\r\n"),
        "{output}"
    );
}

#[tokio::test]
async fn nothing_is_executed_in_one_that_has_ended() {
    let lab = Lab::new();
    let workload = running(&lab).await;
    workload.stop(&StopPolicy::kill()).await.unwrap();

    let refused = workload.exec(&execution("true")).await;

    assert!(matches!(
        refused.unwrap_err(),
        EngineError::NoSuchContainer { .. }
    ));
}
