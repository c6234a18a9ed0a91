//! A running copy of an ended container.
//!
//! Owns: the copy's image and its create request.
//! Reads: the launch spec of the container that ended.
//! Never: touches that container: its helper would wait for another spool.

use std::collections::HashMap;

use bollard::models::{ContainerConfig, ContainerCreateBody, ImageSummary, Mount, MountType};
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptionsBuilder,
};
use dark_factory_executor::engine::{EngineError, OwnedImage};
use dark_factory_executor::error::sentence;
use dark_factory_executor::host::HostView;
use dark_factory_executor::spec::{
    AttemptDir, CONTAINER_INIT, CONTAINER_PROMPT, LABEL_ATTEMPT, LABEL_OWNER, LaunchSpec,
};
use dark_factory_types::{NetworkMode, OwnerId};
use jiff::Timestamp;

use super::client::{COMMIT, Client, Fault, LIST_IMAGES, REMOVE_IMAGE};
use super::container::Container;
use super::images::{familiar, repository};
use super::launch::create_body;
use super::listing::{self, Which};
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
    if !is_of_a_copy(image) {
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

/// Returns whether an image is one of a copy: engines write the same name with and without what stands for Docker Hub.
fn is_of_a_copy(image: &str) -> bool {
    familiar(repository(image)) == REPOSITORY
}

/// Returns the owner's images of copies that no container has; they have the labels of the containers that ended.
pub(super) async fn unused_images(
    client: &Client,
    owner: &OwnerId,
) -> Result<Vec<OwnedImage>, EngineError> {
    let docker = client.docker().await?;
    let filters = HashMap::from([
        ("label", vec![format!("{LABEL_OWNER}={owner}")]),
        ("reference", vec![REPOSITORY.to_owned()]),
    ]);
    let options = ListImagesOptionsBuilder::default()
        .filters(&filters)
        .build();
    let found = client
        .call(LIST_IMAGES, docker.list_images(Some(options)))
        .await?;
    let mut unused = Vec::new();
    for image in found.into_iter().flat_map(named) {
        if !has_container(client, &image.id).await? {
            unused.push(image);
        }
    }
    Ok(unused)
}

fn named(image: ImageSummary) -> Vec<OwnedImage> {
    let attempt = image.labels.get(LABEL_ATTEMPT);
    let attempt = attempt.and_then(|id| id.parse().ok());
    let created_at = Timestamp::from_second(image.created).ok();
    let names = image.repo_tags.into_iter();
    names
        .filter(|name| is_of_a_copy(name))
        .map(|name| OwnedImage {
            name,
            id: image.id.clone(),
            attempt,
            created_at,
        })
        .collect()
}

async fn has_container(client: &Client, image: &str) -> Result<bool, EngineError> {
    let found = listing::containers(client, Which::All, ("ancestor", image)).await?;
    Ok(!found.is_empty())
}

/// Removes an image of a copy unless it has a container by now, or its name is another image's.
pub(super) async fn remove_unused_image(
    client: &Client,
    image: &OwnedImage,
) -> Result<(), EngineError> {
    let found = super::images::inspect(client, &image.name).await?;
    let is_the_same = found.is_some_and(|found| found.id.as_ref() == Some(&image.id));
    if is_the_same && !has_container(client, &image.id).await? {
        remove_image(client, &image.name).await?;
    }
    Ok(())
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
    if spec.network != NetworkMode::Open {
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
