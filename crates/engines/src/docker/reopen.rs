//! A running copy of an ended container.
//!
//! Owns: the copy's image and its create request.
//! Reads: the launch spec of the container that ended.
//! Never: touches that container: its helper would wait for another spool.

use bollard::models::{ContainerConfig, ContainerCreateBody, Mount, MountType};
use bollard::query_parameters::{CommitContainerOptionsBuilder, RemoveImageOptionsBuilder};
use dark_factory_executor::engine::EngineError;
use dark_factory_executor::error::sentence;
use dark_factory_executor::host::HostView;
use dark_factory_executor::spec::{AttemptDir, CONTAINER_INIT, CONTAINER_PROMPT, LaunchSpec};
use dark_factory_types::{NetworkMode, OwnerId};

use super::client::{COMMIT, Client, Fault, REMOVE_IMAGE};
use super::container::Container;
use super::launch::create_body;
use super::lower::launch_opts;

/// The repository of the images that copies are made of; each is gone with its copy.
const REPOSITORY: &str = "dark-factory-reopened";

/// What the helper executable does in a copy: nothing, for more than a year.
const IDLE: &str = "sleep 10000h";

/// Makes an image of what an ended container has written, and returns its name.
pub(super) async fn image(ended: &Container, name: &str) -> Result<String, EngineError> {
    let docker = ended.client.docker().await?;
    let options = CommitContainerOptionsBuilder::default()
        .container(&ended.id)
        .repo(REPOSITORY)
        .tag(name)
        .build();
    let commit = docker.commit_container(options, ContainerConfig::default());
    match ended.client.call(COMMIT, commit).await {
        Ok(_) => Ok(format!("{REPOSITORY}:{name}")),
        Err(fault) => Err(ended.error(fault).await),
    }
}

/// Removes the image of a copy; another one is left alone, and one that is gone is no error.
pub(super) async fn remove_image(client: &Client, image: &str) -> Result<(), EngineError> {
    if image.split(':').next() != Some(REPOSITORY) {
        return Ok(());
    }
    let docker = client.docker().await?;
    let options = RemoveImageOptionsBuilder::default().force(true).build();
    match client
        .call(
            REMOVE_IMAGE,
            docker.remove_image(image, Some(options), None),
        )
        .await
    {
        Ok(_) | Err(Fault::Status { code: 404, .. }) => Ok(()),
        Err(fault) => Err(fault.into()),
    }
}

/// Returns the create request of a copy: the ended container's, with something idle in place of the agent.
pub(super) fn request(
    spec: &LaunchSpec,
    owner: &OwnerId,
    dir: &AttemptDir,
    host: &HostView,
    name: &str,
    image: &str,
) -> Result<ContainerCreateBody, EngineError> {
    let refused = |reason| EngineError::CreateRefused {
        name: name.to_owned(),
        reason,
    };
    let copy = LaunchSpec {
        container: Some(name.to_owned()),
        image: image.to_owned(),
        command: Vec::new(),
        ..spec.clone()
    };
    let opts = launch_opts(&copy, dir.attempt(), owner, host);
    let mut body = create_body(&opts, host)
        .map_err(|error| refused(sentence(&error)))?
        .body;
    if spec.network == NetworkMode::None {
        body.network_disabled = Some(true);
    }
    let mount = |source: std::path::PathBuf, target: &str| Mount {
        typ: Some(MountType::BIND),
        source: Some(source.display().to_string()),
        target: Some(target.to_owned()),
        read_only: Some(true),
        ..Mount::default()
    };
    let mut mounts = vec![mount(dir.init().to_owned(), CONTAINER_INIT)];
    if dir.recorded_prompt().exists() {
        mounts.push(mount(dir.recorded_prompt(), CONTAINER_PROMPT));
    }
    body.host_config.get_or_insert_default().mounts = Some(mounts);
    let idle = [CONTAINER_INIT, "agent", "-e", IDLE];
    body.entrypoint = Some(idle.map(str::to_owned).to_vec());
    body.cmd = Some(Vec::new());
    Ok(body)
}
