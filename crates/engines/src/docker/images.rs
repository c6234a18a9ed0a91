//! Images that are made here instead of being pulled, and their removal.
//!
//! Owns: the two requests.
//! Reads: nothing.
//! Never: removes an image that a container uses.

use std::time::Duration;

use bollard::errors::Error as ClientError;
use bollard::query_parameters::{CreateImageOptionsBuilder, RemoveImageOptionsBuilder};
use bytes::Bytes;
use dark_factory_executor::engine::EngineError;
use futures_util::StreamExt;

use super::client::{Client, Fault, Operation};
use super::endpoint::DockerEndpoint;
use super::image::{bad_reference, is_safe_in_a_path, name_and_tag};

const IMPORT: Operation = Operation {
    name: "import the image",
    deadline: Duration::from_secs(120),
};
const REMOVE_IMAGE: Operation = Operation {
    name: "remove the image",
    deadline: Duration::from_secs(60),
};

/// The images of one Docker engine.
#[derive(Debug, Clone)]
pub struct DockerImages {
    client: Client,
}

impl DockerImages {
    /// Names the images of the engine at `endpoint`; it is contacted when something is asked of it.
    pub fn connect(endpoint: &DockerEndpoint) -> Self {
        Self {
            client: Client::new(endpoint.clone()),
        }
    }

    /// Makes an image of a root file system, given as a tar archive, plain or compressed with gzip.
    ///
    /// The image has no configuration. One that had the reference before loses it, and stays without a name.
    ///
    /// # Errors
    ///
    /// [`EngineError::BadImageReference`], also for a digest, which cannot be chosen; or whatever keeps the engine from
    /// importing it.
    pub async fn import_image(&self, reference: &str, tar: Vec<u8>) -> Result<(), EngineError> {
        import(&self.client, reference, tar).await
    }

    /// Removes an image's reference, and with its last one the image; one that is not there is no error.
    ///
    /// # Errors
    ///
    /// [`EngineError::BadImageReference`], or [`EngineError::Failed`] while a container uses the image.
    pub async fn remove_image(&self, reference: &str) -> Result<(), EngineError> {
        remove(&self.client, reference).await
    }
}

/// Makes an image of a root file system.
pub(super) async fn import(
    client: &Client,
    reference: &str,
    tar: Vec<u8>,
) -> Result<(), EngineError> {
    if !is_safe_in_a_path(reference) || reference.contains('@') {
        return Err(bad_reference(reference));
    }
    let (name, tag) = name_and_tag(reference);
    let options = CreateImageOptionsBuilder::default()
        .from_src("-")
        .repo(name)
        .tag(tag)
        .build();
    let docker = client.docker().await?;
    let import = async {
        let mut news = docker.create_image(
            Some(options),
            Some(bollard::body_full(Bytes::from(tar))),
            None,
        );
        while let Some(item) = news.next().await {
            item?;
        }
        Ok::<_, ClientError>(())
    };
    client
        .call(IMPORT, import)
        .await
        .map_err(|fault| match fault {
            Fault::Status { code: 400, .. } => bad_reference(reference),
            fault => fault.into(),
        })
}

/// Removes an image's reference.
pub(super) async fn remove(client: &Client, reference: &str) -> Result<(), EngineError> {
    if !is_safe_in_a_path(reference) {
        return Err(bad_reference(reference));
    }
    let docker = client.docker().await?;
    let options = RemoveImageOptionsBuilder::default().build();
    match client
        .call(
            REMOVE_IMAGE,
            docker.remove_image(reference, Some(options), None),
        )
        .await
    {
        Ok(_) | Err(Fault::Status { code: 404, .. }) => Ok(()),
        Err(fault) => Err(fault.into()),
    }
}
