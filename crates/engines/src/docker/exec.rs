//! Programs that are executed in a container.
//!
//! Owns: the calls for them, and taking their two outputs apart.
//! Reads: status codes.
//! Never: touches what runs in the container already.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::exec::{CreateExecOptions, ResizeExecOptions};
use dark_factory_executor::engine::{
    Channel, EngineError, Executed, Execution, Program, TerminalSize,
};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use serde_json::json;
use tokio::io::{AsyncReadExt, ReadHalf, split};

use super::client::{Client, EXEC, Fault, INSPECT_EXEC, RESIZE};
use super::container::{Container, Phase, phase};
use super::dialect::Conflict;
use super::hijack::{self, Duplex};

/// How often, and how long each time, is waited for the engine to know what it is asked for.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// The exit code of a program that SIGKILL ended.
const KILLED: i64 = 128 + 9;

/// Most of what a terminal shows at once.
const CHUNK: usize = 32 * 1024;

/// A program that was executed.
#[derive(Debug)]
struct DockerProgram {
    client: Client,
    id: String,
}

/// Executes a program in a running container.
pub(super) async fn exec(
    container: &Container,
    execution: &Execution,
) -> Result<Executed, EngineError> {
    let client = &container.client;
    let docker = client.docker().await?;
    let env = execution
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    let options = CreateExecOptions {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(execution.terminal.is_some()),
        // None: no key that is typed is the engine's.
        detach_keys: Some(String::new()),
        env: Some(env.collect()),
        cmd: Some(execution.argv.clone()),
        ..CreateExecOptions::default()
    };
    let created = match client
        .call(EXEC, docker.create_exec(&container.id, options))
        .await
    {
        Ok(created) => created,
        Err(fault) => return Err(refused(container, fault).await),
    };
    let mut body = json!({ "Detach": false, "Tty": execution.terminal.is_some() });
    if let Some(size) = execution.terminal {
        // Engines from 23 on make it of this size from its first moment.
        body["ConsoleSize"] = json!([size.rows, size.columns]);
    }
    let path = format!("/v{}/exec/{}/start", docker.client_version(), created.id);
    let start = hijack::post(client.address(), &path, &body.to_string()).await;
    let stream = match client.call(EXEC, async { start }).await {
        Ok(stream) => stream,
        Err(fault) => return Err(refused(container, fault).await),
    };
    let (output, input) = split(stream);
    let program = Arc::new(DockerProgram {
        client: client.clone(),
        id: created.id,
    });
    if let Some(size) = execution.terminal {
        program.resize(size).await?;
    }
    Ok(Executed {
        input: Box::new(input),
        output: match execution.terminal {
            Some(_) => terminal(output),
            None => pipes(output),
        },
        program,
    })
}

/// Returns why nothing is executed: the container has ended, or is frozen.
async fn refused(container: &Container, fault: Fault) -> EngineError {
    let dialect = container.client.dialect();
    if !matches!(&fault, Fault::Status { code, .. } if dialect.conflict(*code) != Conflict::No) {
        return container.error(fault).await;
    }
    match container.state().await {
        Ok(state) if phase(&state) != Phase::Running => EngineError::NoSuchContainer {
            name: container.name.clone(),
        },
        Ok(_) => fault.into(),
        Err(error) => error,
    }
}

#[async_trait]
impl Program for DockerProgram {
    async fn resize(&self, size: TerminalSize) -> Result<(), EngineError> {
        let docker = self.client.docker().await?;
        let size = ResizeExecOptions {
            height: size.rows,
            width: size.columns,
        };
        for _ in 0..TRIES {
            match self
                .client
                .call(RESIZE, docker.resize_exec(&self.id, size))
                .await
            {
                Ok(()) => return Ok(()),
                Err(Fault::Other(error)) => return Err(error),
                // The engine agrees to talk before it executes anything.
                Err(Fault::Status { .. }) if !self.has_ended().await? => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(Fault::Status { .. }) => return Ok(()),
            }
        }
        Ok(())
    }

    async fn exit_code(&self) -> Result<i64, EngineError> {
        let docker = self.client.docker().await?;
        // The engine sees the end of the output before that of the program.
        for _ in 0..TRIES {
            let inspect = docker.inspect_exec(&self.id);
            let found = match self.client.call(INSPECT_EXEC, inspect).await {
                Ok(found) => found,
                // It went with its container, which kills whatever lives in it.
                Err(Fault::Status { code: 404, .. }) => return Ok(KILLED),
                Err(fault) => return Err(fault.into()),
            };
            match found.exit_code {
                Some(code) if found.running != Some(true) => return Ok(code),
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
        Err(EngineError::Failed {
            operation: INSPECT_EXEC.name.to_owned(),
            source: "its output has ended, and it runs on".into(),
        })
    }
}

impl DockerProgram {
    async fn has_ended(&self) -> Result<bool, EngineError> {
        let docker = self.client.docker().await?;
        let inspect = docker.inspect_exec(&self.id);
        let found = self.client.call(INSPECT_EXEC, inspect).await?;
        Ok(found.exit_code.is_some())
    }
}

/// Returns what a terminal shows, as it comes.
fn terminal(
    output: ReadHalf<Box<dyn Duplex>>,
) -> BoxStream<'static, io::Result<(Channel, Vec<u8>)>> {
    let read = async |mut output: ReadHalf<Box<dyn Duplex>>| {
        let mut bytes = vec![0; CHUNK];
        match output.read(&mut bytes).await {
            Ok(0) => None,
            Ok(read) => {
                bytes.truncate(read);
                Some((Ok((Channel::Output, bytes)), output))
            }
            Err(error) => Some((Err(error), output)),
        }
    };
    stream::unfold(output, read).boxed()
}

/// Takes the two outputs of a program apart: each piece has a header of its channel and its length.
fn pipes(output: ReadHalf<Box<dyn Duplex>>) -> BoxStream<'static, io::Result<(Channel, Vec<u8>)>> {
    let read = async |mut output: ReadHalf<Box<dyn Duplex>>| {
        let mut header = [0; 8];
        match output.read_exact(&mut header).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return None,
            Err(error) => return Some((Err(error), output)),
        }
        let [channel, _, _, _, length @ ..] = header;
        let channel = if channel == 2 {
            Channel::Error
        } else {
            Channel::Output
        };
        let mut bytes = Vec::new();
        let length = u64::from(u32::from_be_bytes(length));
        let read = (&mut output).take(length).read_to_end(&mut bytes).await;
        Some((read.map(|_| (channel, bytes)), output))
    };
    stream::unfold(output, read).boxed()
}
