//! Images: whether they are there, which one it is, pulling, making and removing them.
//!
//! Owns: the reading of image references.
//! Reads: the engine's images.
//! Never: removes an image that a container uses.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use bollard::errors::Error as ClientError;
use bollard::models::{CreateImageInfo, ImageInspect};
use bollard::query_parameters::{
    CreateImageOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder,
};
use bytes::Bytes;
use dark_factory_executor::engine::{EngineError, PullAmount, PullNews, PullProgress};
use dark_factory_executor::spec::PullPolicy;
use dark_factory_types::ImageRecord;
use futures_util::{Stream, StreamExt};
use tokio::time::timeout;

use super::agent_image::LABEL_KIND;
use super::client::{Client, Fault, INSPECT_IMAGE, Operation, PULL};
use super::endpoint::DockerEndpoint;
use super::logins::Logins;

/// How long a pull may bring no news; a registry that is slow still has some every second.
const PULL_SILENCE: Duration = Duration::from_secs(300);
const IMPORT: Operation = Operation {
    name: "import the image",
    deadline: Duration::from_secs(120),
};
const TAG: Operation = Operation {
    name: "name the image",
    deadline: Duration::from_secs(30),
};
const REMOVE_IMAGE: Operation = Operation {
    name: "remove the image",
    deadline: Duration::from_secs(60),
};

/// What an imported image says of itself: it is needed for a moment, as by a probe.
const KIND_SCRATCH: &str = "scratch";

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
    /// The image has no configuration but the label by which `image list` finds it. One that had the reference before loses it, and stays without a name.
    ///
    /// # Errors
    ///
    /// [`EngineError::BadImageReference`], also for a digest, which cannot be chosen; or whatever keeps the engine from
    /// importing it.
    pub async fn import_image(&self, reference: &str, tar: Vec<u8>) -> Result<(), EngineError> {
        if !is_safe_in_a_path(reference) || reference.contains('@') {
            return Err(bad_reference(reference));
        }
        let docker = self.client.docker().await?;
        let (repo, tag) = self.client.dialect().import_as(name_and_tag(reference));
        let options = CreateImageOptionsBuilder::default()
            .from_src("-")
            .repo(&repo)
            .tag(tag)
            .changes(vec![format!("LABEL {LABEL_KIND}={KIND_SCRATCH}")])
            .build();
        let body = bollard::body_full(Bytes::from(tar));
        let import = drain(docker.create_image(Some(options), Some(body), None));
        self.client
            .call(IMPORT, import)
            .await
            .map_err(|fault| match fault {
                Fault::Status { code: 400, .. } => bad_reference(reference),
                fault => fault.into(),
            })
    }

    /// Returns whether the engine has an image.
    ///
    /// # Errors
    ///
    /// [`EngineError::BadImageReference`], or whatever keeps the engine from saying so.
    pub async fn has_image(&self, reference: &str) -> Result<bool, EngineError> {
        Ok(inspect(&self.client, reference).await?.is_some())
    }

    /// Removes an image's reference, and with its last one the image; one that is not there is no error.
    ///
    /// # Errors
    ///
    /// [`EngineError::BadImageReference`], or [`EngineError::Failed`] while a container uses the image.
    pub async fn remove_image(&self, reference: &str) -> Result<(), EngineError> {
        if !is_safe_in_a_path(reference) {
            return Err(bad_reference(reference));
        }
        let docker = self.client.docker().await?;
        let options = RemoveImageOptionsBuilder::default().build();
        match self
            .client
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
}

/// Makes sure that an image is there, and says which one it is.
pub(super) async fn ensure(
    client: &Client,
    logins: &Logins,
    reference: &str,
    policy: PullPolicy,
    progress: PullProgress<'_>,
) -> Result<ImageRecord, EngineError> {
    // Asked also where it will be pulled: pulling reads some references leniently that are none.
    let there = inspect(client, reference).await?;
    let found = match (there, policy) {
        (Some(found), PullPolicy::Never | PullPolicy::Missing) => found,
        (None, PullPolicy::Never) => return Err(missing(reference)),
        (None, PullPolicy::Missing) | (_, PullPolicy::Always) => {
            pull(client, logins, reference, progress).await?;
            inspect(client, reference)
                .await?
                .ok_or_else(|| missing(reference))?
        }
    };
    Ok(ImageRecord {
        reference: reference.to_owned(),
        digest: digest(reference, &found),
    })
}

/// Returns what the engine knows of an image, if it has it.
pub(super) async fn inspect(
    client: &Client,
    reference: &str,
) -> Result<Option<ImageInspect>, EngineError> {
    if !is_safe_in_a_path(reference) {
        return Err(bad_reference(reference));
    }
    let path = format!("/images/{reference}/json");
    match client.ask(INSPECT_IMAGE, &path).await {
        Ok(found) => Ok(Some(found)),
        Err(Fault::Status { code: 404, .. }) => Ok(None),
        Err(Fault::Status { code: 400, .. }) => Err(bad_reference(reference)),
        Err(fault) => Err(fault.into()),
    }
}

/// Reads the news of an import to their end.
pub(super) async fn drain(
    news: impl Stream<Item = Result<CreateImageInfo, ClientError>>,
) -> Result<(), ClientError> {
    let mut news = pin!(news);
    while let Some(item) = news.next().await {
        item?;
    }
    Ok(())
}

/// Gives an image a name, taking it from the image that had it.
pub(super) async fn tag(client: &Client, id: &str, reference: &str) -> Result<(), EngineError> {
    let (name, tag) = name_and_tag(reference);
    let options = TagImageOptionsBuilder::default()
        .repo(name)
        .tag(tag)
        .build();
    let docker = client.docker().await?;
    let tagged = client.call(TAG, docker.tag_image(id, Some(options))).await;
    Ok(tagged?)
}

/// Removes an image that has no name and no container; any other stays.
pub(super) async fn remove_unused(client: &Client, id: &str) {
    let remove = async {
        // Asked for by its id, the engine removes an image together with the only name it has.
        let has_name = |image: ImageInspect| image.repo_tags.is_some_and(|tags| !tags.is_empty());
        if inspect(client, id).await?.is_none_or(has_name) {
            return Ok(());
        }
        let docker = client.docker().await?;
        let options = RemoveImageOptionsBuilder::default().build();
        let removed = docker.remove_image(id, Some(options), None);
        client.call(REMOVE_IMAGE, removed).await?;
        Ok::<(), EngineError>(())
    };
    if let Err(error) = remove.await {
        tracing::debug!(image = id, %error, "the image stays");
    }
}

/// Returns the error for an image that the engine does not have.
pub(super) fn missing(reference: &str) -> EngineError {
    EngineError::ImageMissing {
        image: reference.to_owned(),
    }
}

fn bad_reference(reference: &str) -> EngineError {
    EngineError::BadImageReference {
        image: reference.to_owned(),
    }
}

async fn pull(
    client: &Client,
    logins: &Logins,
    reference: &str,
    progress: PullProgress<'_>,
) -> Result<(), EngineError> {
    let (name, tag) = name_and_tag(reference);
    let options = CreateImageOptionsBuilder::default()
        .from_image(name)
        .tag(tag)
        .build();
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| EngineError::Pull {
        image: reference.to_owned(),
        source,
    };
    let docker = client.docker().await?;
    let login = logins.at(reference, client.dialect()).await;
    let mut told = PullTold::default();
    let mut news = docker.create_image(Some(options), None, login);
    loop {
        let item = match timeout(PULL_SILENCE, news.next()).await {
            Ok(Some(item)) => item,
            Ok(None) => break,
            Err(silence) => return Err(client.unreachable(PULL, silence)),
        };
        match item {
            Ok(info) => {
                let (line, amount) = told.next(info);
                if let Some(line) = line {
                    progress(PullNews::Step(&line));
                }
                if let Some(amount) = amount {
                    progress(PullNews::Amount(amount));
                }
            }
            Err(ClientError::DockerStreamError { error }) => return Err(failed(error.into())),
            Err(error) => {
                return Err(match client.fault(PULL, error) {
                    Fault::Status { code: 400, .. } => bad_reference(reference),
                    Fault::Status { message, .. } => failed(message.into()),
                    Fault::Other(error) => error,
                });
            }
        }
    }
    Ok(())
}

/// Turns the news of a pull into lines, one for each step of each layer, and into how much of it is done.
#[derive(Debug, Default)]
struct PullTold {
    last: HashMap<Option<String>, String>,
    layers: HashMap<String, Layer>,
    amount: PullAmount,
}

/// How much of a layer is fetched.
#[derive(Debug, Default)]
struct Layer {
    bytes: u64,
    all_bytes: u64,
    is_done: bool,
}

impl PullTold {
    /// Returns the line, if there is a new one, and the amount, if it has changed.
    fn next(&mut self, info: CreateImageInfo) -> (Option<String>, Option<PullAmount>) {
        let Some(status) = info.status else {
            return (None, None);
        };
        if let Some(id) = &info.id {
            let detail = info.progress_detail.unwrap_or_default();
            let size = |bytes: Option<i64>| bytes.and_then(|bytes| u64::try_from(bytes).ok());
            self.layer(id, &status, size(detail.current), size(detail.total));
        }
        let amount = self.sum();
        let is_new = std::mem::replace(&mut self.amount, amount) != amount;
        let line = match &info.id {
            Some(id) => format!("{id}: {status}"),
            None => status.clone(),
        };
        let previous = self.last.insert(info.id, status.clone());
        let line = (previous.as_deref() != Some(&status)).then_some(line);
        (line, is_new.then_some(amount))
    }

    /// Takes in what the engine says of a layer; these are its fixed words, and others are no layer's.
    fn layer(&mut self, id: &str, status: &str, current: Option<u64>, total: Option<u64>) {
        match status {
            "Pulling fs layer" | "Waiting" => {
                self.layers.entry(id.to_owned()).or_default();
            }
            "Downloading" => {
                let layer = self.layers.entry(id.to_owned()).or_default();
                layer.bytes = current.unwrap_or(layer.bytes);
                layer.all_bytes = total.unwrap_or(layer.all_bytes).max(layer.bytes);
            }
            "Download complete" => {
                let layer = self.layers.entry(id.to_owned()).or_default();
                layer.bytes = layer.all_bytes;
            }
            "Pull complete" | "Already exists" => {
                let layer = self.layers.entry(id.to_owned()).or_default();
                layer.bytes = layer.all_bytes;
                layer.is_done = true;
            }
            _ => {}
        }
    }

    fn sum(&self) -> PullAmount {
        let layers = self.layers.values();
        let mut amount = PullAmount {
            layers: layers.clone().filter(|layer| layer.is_done).count(),
            all_layers: self.layers.len(),
            ..PullAmount::default()
        };
        for layer in layers {
            amount.bytes.0 += layer.bytes;
            amount.all_bytes.0 += layer.all_bytes;
        }
        amount
    }
}

/// Returns whether a reference can stand in a request's path and mean itself there.
///
/// The client puts it there as it is; a `?`, or a `..` between slashes, would make it another request.
fn is_safe_in_a_path(reference: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    !reference.is_empty()
        && reference.chars().all(plain)
        && reference
            .split('/')
            .all(|part| !part.is_empty() && part.chars().any(|c| c != '.'))
}

/// Splits a reference where the pull request wants it; without a tag the engine would pull all of them.
pub(super) fn name_and_tag(reference: &str) -> (&str, &str) {
    if let Some(split) = reference.split_once('@') {
        return split;
    }
    match reference.rsplit_once(':') {
        // A colon before a slash belongs to a registry's port.
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (reference, "latest"),
    }
}

/// Returns the digest that the repository knows the image by, else the image's id.
fn digest(reference: &str, image: &ImageInspect) -> String {
    let repository = familiar(repository(reference));
    let digests = image.repo_digests.as_deref().unwrap_or_default();
    digests
        .iter()
        .find(|entry| {
            entry
                .split_once('@')
                .is_some_and(|(name, _)| familiar(name) == repository)
        })
        .or(image.id.as_ref())
        .cloned()
        .unwrap_or_default()
}

/// Returns a reference's repository: without digest and tag.
pub(super) fn repository(reference: &str) -> &str {
    let name = reference
        .split_once('@')
        .map_or(reference, |(name, _)| name);
    name_and_tag(name).0
}

/// Returns a repository's name as the engine writes it: without what stands for Docker Hub.
pub(super) fn familiar(name: &str) -> &str {
    let name = name
        .strip_prefix("index.docker.io/")
        .or_else(|| name.strip_prefix("docker.io/"))
        .unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;

    use super::*;

    #[test]
    fn a_tag_that_is_left_out_is_latest() {
        for (reference, split) in [
            ("debian", ("debian", "latest")),
            ("debian:12", ("debian", "12")),
            ("host:5000/a/b", ("host:5000/a/b", "latest")),
            ("host:5000/a/b:c", ("host:5000/a/b", "c")),
            ("debian@sha256:0a", ("debian", "sha256:0a")),
            ("debian:12@sha256:0a", ("debian:12", "sha256:0a")),
        ] {
            assert_eq!(name_and_tag(reference), split, "{reference}");
        }
    }

    #[test]
    fn the_digest_is_that_of_the_repository_that_was_asked_for() {
        let image = ImageInspect {
            id: Some("sha256:id".to_owned()),
            repo_digests: Some(vec![
                "other@sha256:1".to_owned(),
                "debian@sha256:2".to_owned(),
            ]),
            ..ImageInspect::default()
        };

        for reference in [
            "debian",
            "docker.io/library/debian:12",
            "debian:12@sha256:2",
        ] {
            assert_eq!(digest(reference, &image), "debian@sha256:2", "{reference}");
        }
        assert_eq!(digest("local:1", &image), "sha256:id");
        assert_eq!(digest("sha256:id", &image), "sha256:id");
    }

    #[test]
    fn a_reference_that_would_be_another_request_is_no_reference() {
        for reference in [
            "",
            "../containers",
            "a/../b",
            "a//b",
            "/a",
            "a/",
            "a?b",
            "a#b",
            "a b",
            "a%2fb",
            "é",
        ] {
            assert!(!is_safe_in_a_path(reference), "{reference}");
        }
        for reference in ["a", "host:1/a.b/c_d-e:f.g", "a@sha256:0a", "sha256:0a"] {
            assert!(is_safe_in_a_path(reference), "{reference}");
        }
    }

    #[test]
    fn a_pull_tells_each_step_of_each_layer_once() {
        let mut told = PullTold::default();
        let mut next = |id: Option<&str>, status: &str| {
            let info = CreateImageInfo {
                id: id.map(str::to_owned),
                status: Some(status.to_owned()),
                ..CreateImageInfo::default()
            };
            told.next(info).0
        };

        assert_eq!(
            next(None, "Pulling from a").as_deref(),
            Some("Pulling from a")
        );
        assert_eq!(
            next(Some("l1"), "Downloading").as_deref(),
            Some("l1: Downloading")
        );
        assert_eq!(
            next(Some("l2"), "Downloading").as_deref(),
            Some("l2: Downloading")
        );
        assert_eq!(next(Some("l1"), "Downloading"), None);
        assert_eq!(
            next(Some("l1"), "Pull complete").as_deref(),
            Some("l1: Pull complete")
        );
    }

    #[test]
    fn a_pull_tells_how_much_of_it_is_done() {
        let mut told = PullTold::default();
        let mut next = |id: &str, status: &str, current: i64, total: i64| {
            let info = CreateImageInfo {
                id: Some(id.to_owned()),
                status: Some(status.to_owned()),
                progress_detail: Some(ProgressDetail {
                    current: (total > 0).then_some(current),
                    total: (total > 0).then_some(total),
                }),
                ..CreateImageInfo::default()
            };
            let amount = told.next(info).1?;
            Some((
                (amount.layers, amount.all_layers),
                (amount.bytes.0, amount.all_bytes.0),
            ))
        };

        // The tag is no layer.
        assert_eq!(next("12", "Pulling from library/debian", 0, 0), None);
        assert_eq!(next("l1", "Pulling fs layer", 0, 0), Some(((0, 1), (0, 0))));
        assert_eq!(next("l2", "Already exists", 0, 0), Some(((1, 2), (0, 0))));
        assert_eq!(next("l1", "Downloading", 5, 9), Some(((1, 2), (5, 9))));
        assert_eq!(next("l1", "Downloading", 5, 9), None);
        assert_eq!(
            next("l1", "Download complete", 0, 0),
            Some(((1, 2), (9, 9)))
        );
        assert_eq!(next("l1", "Extracting", 1, 9), None);
        assert_eq!(next("l1", "Pull complete", 0, 0), Some(((2, 2), (9, 9))));
    }
}
