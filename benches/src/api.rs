//! The bare Engine API, as a program that does nothing else would use it.
//!
//! Owns: the calls, in the order that loses no output: create, attach, start, wait, remove.
//! Reads: nothing.
//! Never: does anything for safety or for a record.

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, HostConfigLogConfig};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
    WaitContainerOptionsBuilder,
};
use dark_factory::engines::docker::launch::create_body;
use dark_factory::engines::docker::launch_opts;
use dark_factory::executor::resolve::Resolved;
use dark_factory::types::{OwnerId, RunId};
use futures_util::StreamExt;

use crate::Result;
use crate::rig::Rig;

/// A container that is created and attached to, not started yet.
pub(crate) struct Created {
    pub(crate) id: String,
    output: bollard::container::AttachContainerResults,
}

/// Returns the request for the container that ours makes, without helper, and with the log driver `none`.
pub(crate) fn body(rig: &Rig, resolved: &Resolved) -> Result<ContainerCreateBody> {
    let attempt = RunId::from_random_bits(0).attempt(1);
    let opts = launch_opts(
        &resolved.spec,
        attempt,
        &OwnerId("bench".to_owned()),
        &rig.host,
    );
    let mut body = create_body(&opts, &rig.host)?.body;
    if let Some(host) = &mut body.host_config {
        host.log_config = Some(HostConfigLogConfig {
            typ: Some("none".to_owned()),
            config: None,
        });
    }
    body.attach_stdout = Some(true);
    body.attach_stderr = Some(true);
    Ok(body)
}

pub(crate) async fn create(api: &Docker, body: ContainerCreateBody) -> Result<Created> {
    let id = api.create_container(None, body).await?.id;
    let options = AttachContainerOptionsBuilder::default()
        .stream(true)
        .stdout(true)
        .stderr(true)
        .build();
    let output = api.attach_container(&id, Some(options)).await?;
    Ok(Created { id, output })
}

pub(crate) async fn start(api: &Docker, id: &str) -> Result<()> {
    Ok(api
        .start_container(id, None::<StartContainerOptions>)
        .await?)
}

/// Gives every piece of output away, to the end of it.
pub(crate) async fn drain(
    created: Created,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut output = created.output.output;
    while let Some(piece) = output.next().await {
        if let LogOutput::StdOut { message } = piece? {
            take(&message)?;
        }
    }
    Ok(())
}

pub(crate) async fn wait(api: &Docker, id: &str) -> Result<i64> {
    let options = WaitContainerOptionsBuilder::default()
        .condition("not-running")
        .build();
    match api.wait_container(id, Some(options)).next().await {
        Some(Ok(exit)) => Ok(exit.status_code),
        // That it did not exit with 0 is no error of the call.
        Some(Err(Error::DockerContainerWaitError { code, .. })) => Ok(code),
        Some(Err(error)) => Err(error.into()),
        None => Err("the engine says nothing of the end".into()),
    }
}

pub(crate) async fn remove(api: &Docker, id: &str) -> Result<()> {
    let options = RemoveContainerOptionsBuilder::default()
        .v(true)
        .force(true)
        .build();
    Ok(api.remove_container(id, Some(options)).await?)
}
