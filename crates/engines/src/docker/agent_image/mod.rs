//! Images for agents on Docker: a base, the agent's own files, and a user.
//!
//! An image is made in one container: the files go in, a script makes git, certificates and the user be there and
//! starts the agent once, and what came of it is the image. It gets its name last.
//!
//! Owns: the labels that tell our images, and the containers in which they are made.
//! Reads: wheels, the user's cache, the engine's images.
//! Never: executes an agent's files outside a container, or removes an image that it did not make.

mod archive;
mod debian;
mod workshop;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bollard::models::{ImageInspect, ImageSummary};
use bollard::query_parameters::{CreateImageOptionsBuilder, ListImagesOptionsBuilder};
use dark_factory_executor::engine::{EngineError, PullNews};
use dark_factory_executor::host::HostView;
use dark_factory_executor::resolve::check_image;
use dark_factory_executor::spec::PullPolicy;
use dark_factory_types::ByteSize;
use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::client::{Client, INFO, LIST_IMAGES, Operation};
use super::endpoint::DockerEndpoint;
use super::images::{self, DockerImages};
use super::listing::{self, Which};
use super::logins::Logins;
use crate::agent_image::{
    AgentImageError, AgentImageRequest, Base, BuildProgress, BuiltImage, Files, ListedImage,
    REVISION, Rebuild, Recipe, Source, digest, recipe, require_room, to_the_second,
    unless_cancelled,
};
use debian::Debian;
use workshop::Workshop;

/// The base where none is named and none can be made.
const PULLED_BASE: &str = "debian:bookworm-slim";

/// Room that an image takes while it is made: the agent's files are in a container and then in the image, on a base.
const IMAGE_ROOM: ByteSize = ByteSize(1 << 30);

/// What the engine says of how an image was made here, which images on top of it do not inherit.
pub(super) const COMMENT: &str = "made by dark-factory image build";
/// Longer than a build takes from its image's label to its image's name.
const BUILD_TIME: SignedDuration = SignedDuration::from_hours(1);

/// Label of every image that is made here; its value says what it is.
pub(super) const LABEL_KIND: &str = "dark-factory.image";
const KIND_AGENT: &str = "agent";
const KIND_BASE: &str = "base";
/// Said by a container in which an image is made; the image itself says otherwise.
const KIND_WORKSHOP: &str = "workshop";
/// Label: the agent, and its version.
const LABEL_AGENT: &str = "dark-factory.agent";
const LABEL_AGENT_VERSION: &str = "dark-factory.agent.version";
/// Label: what the agent's files came from, and what tells them from others.
const LABEL_SOURCE: &str = "dark-factory.source";
const LABEL_SOURCE_DIGEST: &str = "dark-factory.source.sha256";
/// Label: everything that decides what comes out.
const LABEL_RECIPE: &str = "dark-factory.recipe";
const LABEL_BASE: &str = "org.opencontainers.image.base.name";
const LABEL_CREATED: &str = "org.opencontainers.image.created";

const VERSION: Operation = Operation {
    name: "tell its architecture",
    deadline: Duration::from_secs(20),
};
const IMPORT: Operation = Operation {
    name: "import the base image",
    deadline: Duration::from_secs(600),
};

/// The agents' images of one Docker engine.
#[derive(Debug, Clone)]
pub struct AgentImages {
    client: Client,
    logins: Logins,
    images: DockerImages,
}

impl AgentImages {
    /// Names the images of the engine at `endpoint`; it is contacted when something is asked of it.
    ///
    /// `host` says where its user's logins at registries are.
    pub fn connect(endpoint: &DockerEndpoint, host: &HostView) -> Self {
        Self {
            client: Client::new(endpoint.clone()),
            logins: Logins::of(host),
            images: DockerImages::connect(endpoint),
        }
    }

    /// Makes an agent's image.
    ///
    /// Its names are given last, so a build that fails changes nothing that had them. `cancel` ends it early, or once
    /// the engine has made what it is making; dropping the future instead may leave its container behind.
    ///
    /// # Errors
    ///
    /// [`AgentImageError`]; nothing of the build is left but the wheel in the cache and the Debian base.
    pub async fn build(
        &self,
        request: &AgentImageRequest,
        cancel: &CancellationToken,
        progress: BuildProgress<'_>,
    ) -> Result<BuiltImage, AgentImageError> {
        let recipe = request.recipe;
        let latest = request.image()?;
        let plan = self.plan(request, &latest, cancel, &mut *progress).await?;
        let (source, base, labels) = match plan {
            Plan::Current(built) => return Ok(built),
            Plan::Make {
                source,
                base,
                labels,
            } => (source, base, labels),
        };
        let workshop = Workshop::open(&self.client, recipe, &base).await?;
        let ready = tokio::select! {
            ready = workshop.prepare(source, &mut *progress) => ready,
            () = cancel.cancelled() => Err(AgentImageError::Interrupted),
        };
        let made = match ready {
            // The engine makes an image to its end, whoever has stopped waiting for it.
            Ok(version) => workshop.commit(labels, version, &mut *progress).await,
            Err(error) => Err(error),
        };
        workshop.close().await;
        let made = made?;
        if cancel.is_cancelled() {
            images::remove_unused(&self.client, &made.id).await;
            return Err(AgentImageError::Interrupted);
        }
        let mut references = vec![latest];
        if request.tag.is_none() {
            references.push(format!("{}:{}", recipe.repository(), made.agent_version));
        }
        self.name(&made.id, &references).await?;
        self.sweep(recipe, request.created).await;
        Ok(BuiltImage {
            agent: recipe.agent,
            agent_version: made.agent_version,
            references,
            id: made.id,
            built: true,
        })
    }

    /// Lists the images that were made here.
    ///
    /// # Errors
    ///
    /// Whatever keeps the engine from listing them.
    pub async fn list(&self) -> Result<Vec<ListedImage>, AgentImageError> {
        let filters = HashMap::from([("label", vec![LABEL_KIND])]);
        let options = ListImagesOptionsBuilder::default()
            .filters(&filters)
            .build();
        let docker = self.client.docker().await?;
        let found = self
            .client
            .call(LIST_IMAGES, docker.list_images(Some(options)))
            .await
            .map_err(EngineError::from)?;
        let mut listed: Vec<ListedImage> = found.into_iter().flat_map(listed).collect();
        listed.sort_by(|one, other| one.reference.cmp(&other.reference));
        Ok(listed)
    }

    /// Removes the images of an agent, or one by its name; returns the names that are gone.
    ///
    /// # Errors
    ///
    /// [`AgentImageError::NoSuchImage`], [`AgentImageError::NotOurs`], [`AgentImageError::InUse`] while a container
    /// has it, or whatever keeps the engine from removing it.
    pub async fn remove(&self, name: &str) -> Result<Vec<String>, AgentImageError> {
        let references = match recipe(name) {
            Some(recipe) => {
                let prefix = format!("{}:", recipe.repository());
                // One that has lost its names while a container had it has its id for a name.
                let is_asked_for = |image: &ListedImage| {
                    image.reference.starts_with(&prefix)
                        || image.reference == image.id && image.agent.as_deref() == Some(name)
                };
                let listed = self.list().await?.into_iter().filter(is_asked_for);
                listed.map(|image| image.reference).collect()
            }
            None => vec![name.to_owned()],
        };
        if references.is_empty() {
            return Err(AgentImageError::NoSuchImage {
                name: name.to_owned(),
            });
        }
        for reference in &references {
            self.check_removable(reference).await?;
        }
        for reference in &references {
            self.images.remove_image(reference).await?;
        }
        Ok(references)
    }

    async fn check_removable(&self, reference: &str) -> Result<(), AgentImageError> {
        let name = || reference.to_owned();
        let found = images::inspect(&self.client, reference)
            .await?
            .ok_or_else(|| AgentImageError::NoSuchImage { name: name() })?;
        let labels = found.config.and_then(|config| config.labels);
        if !labels.is_some_and(|labels| labels.contains_key(LABEL_KIND)) {
            return Err(AgentImageError::NotOurs { name: name() });
        }
        let users = self.users(&found.id.unwrap_or_default()).await?;
        if users.is_empty() {
            Ok(())
        } else {
            Err(AgentImageError::InUse {
                name: name(),
                users: users.join(", "),
            })
        }
    }

    /// Returns the containers of an image, with their runs.
    async fn users(&self, id: &str) -> Result<Vec<String>, AgentImageError> {
        let found = listing::containers(&self.client, Which::All, ("ancestor", id)).await?;
        // The filter finds the containers of images on top of this one too.
        let own = found
            .iter()
            .filter(|container| container.image.as_deref() == Some(id));
        Ok(own
            .map(|container| match (container.attempt(), container.name()) {
                (Some(attempt), name) => format!("run {} (container {name})", attempt.run()),
                (None, name) => format!("container {name}"),
            })
            .collect())
    }

    /// Finds everything that decides what comes out, and whether it is there already.
    async fn plan(
        &self,
        request: &AgentImageRequest,
        latest: &str,
        cancel: &CancellationToken,
        progress: BuildProgress<'_>,
    ) -> Result<Plan, AgentImageError> {
        let base = unless_cancelled(cancel, ChosenBase::choose(&request.base)).await?;
        let planned = self.plan_on(base, request, latest, cancel, &mut *progress);
        match planned.await {
            Err(error @ AgentImageError::Program { .. }) if request.base == Base::Automatic => {
                progress(&format!("{error}; going on with {PULLED_BASE}"));
                let base = ChosenBase::Image(PULLED_BASE.to_owned());
                self.plan_on(base, request, latest, cancel, progress).await
            }
            planned => planned,
        }
    }

    async fn plan_on(
        &self,
        base: ChosenBase,
        request: &AgentImageRequest,
        latest: &str,
        cancel: &CancellationToken,
        progress: BuildProgress<'_>,
    ) -> Result<Plan, AgentImageError> {
        let found = self.plan_made(&base, request, latest, &mut *progress);
        let plan = unless_cancelled(cancel, found).await?;
        if let (Plan::Make { .. }, ChosenBase::Debian(debian)) = (&plan, &base) {
            self.provide_debian(debian, request, cancel, progress)
                .await?;
        }
        Ok(plan)
    }

    /// Finds out everything but whether a Debian base is there.
    async fn plan_made(
        &self,
        base: &ChosenBase,
        request: &AgentImageRequest,
        latest: &str,
        progress: BuildProgress<'_>,
    ) -> Result<Plan, AgentImageError> {
        let recipe = request.recipe;
        let docker = self.client.docker().await?;
        let version = self.client.call(VERSION, docker.version()).await;
        let arch = version.map_err(EngineError::from)?.arch.unwrap_or_default();
        let files = Files::find(request, &arch).await?;
        // Pulled before anything large is looked at: it is what is missing most often.
        let base_id = self.base_id(base, &mut *progress).await?;
        let base_name = base.name();
        let recipe_digest = digest(&[
            &REVISION.to_string(),
            recipe.agent,
            files.digest(),
            base_id.as_deref().unwrap_or(&base_name),
        ]);
        if request.rebuild == Rebuild::IfOutdated
            && let Some(built) = self.current(recipe, latest, &recipe_digest).await?
        {
            return Ok(Plan::Current(built));
        }
        self.check_room().await?;
        let source = files.provide(request, &arch, progress).await?;
        let labels = HashMap::from([
            (LABEL_KIND, KIND_AGENT.to_owned()),
            (LABEL_AGENT, recipe.agent.to_owned()),
            (LABEL_SOURCE, source.name()),
            (LABEL_SOURCE_DIGEST, source.digest.clone()),
            (LABEL_RECIPE, recipe_digest),
            (LABEL_BASE, base_name.clone()),
            (LABEL_CREATED, to_the_second(request.created)),
            ("org.opencontainers.image.title", recipe.title.to_owned()),
        ]);
        Ok(Plan::Make {
            source,
            base: base_name,
            labels: labels
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        })
    }

    /// Refuses an engine whose data folder has no room for an image, if that is a folder of this machine.
    async fn check_room(&self) -> Result<(), AgentImageError> {
        let docker = self.client.docker().await?;
        let info = self.client.call(INFO, docker.info()).await;
        let data_dir = info.map_err(EngineError::from)?.docker_root_dir;
        match data_dir.map(PathBuf::from) {
            Some(folder) if folder.is_dir() => require_room(
                &folder,
                IMAGE_ROOM,
                "the image",
                "give the engine another data folder (`data-root` in /etc/docker/daemon.json)",
            ),
            _ => Ok(()),
        }
    }

    /// Returns the id of a base that is an image, after pulling it if it is not there.
    async fn base_id(
        &self,
        base: &ChosenBase,
        progress: BuildProgress<'_>,
    ) -> Result<Option<String>, AgentImageError> {
        let ChosenBase::Image(image) = base else {
            return Ok(None);
        };
        let missing = |source| match source {
            error @ (EngineError::Pull { .. }
            | EngineError::ImageMissing { .. }
            | EngineError::BadImageReference { .. }) => AgentImageError::Base {
                image: image.clone(),
                source: error,
            },
            error => error.into(),
        };
        let mut news = |news: PullNews<'_>| {
            if let PullNews::Step(step) = news {
                progress(step);
            }
        };
        images::ensure(
            &self.client,
            &self.logins,
            image,
            PullPolicy::Missing,
            &mut news,
        )
        .await
        .map_err(missing)?;
        let found = images::inspect(&self.client, image).await?;
        Ok(found.and_then(|found| found.id))
    }

    /// Returns the image that has the name, if it was made of the same things.
    async fn current(
        &self,
        recipe: &'static Recipe,
        reference: &str,
        recipe_digest: &str,
    ) -> Result<Option<BuiltImage>, AgentImageError> {
        let Some(found) = images::inspect(&self.client, reference).await? else {
            return Ok(None);
        };
        let labels = found.config.and_then(|config| config.labels);
        let labels = labels.unwrap_or_default();
        if labels.get(LABEL_RECIPE).map(String::as_str) != Some(recipe_digest) {
            return Ok(None);
        }
        Ok(Some(BuiltImage {
            agent: recipe.agent,
            agent_version: labels.get(LABEL_AGENT_VERSION).cloned().unwrap_or_default(),
            references: vec![reference.to_owned()],
            id: found.id.unwrap_or_default(),
            built: false,
        }))
    }

    /// Makes the Debian base, unless the engine has it from an earlier build and may keep it.
    async fn provide_debian(
        &self,
        debian: &Debian,
        request: &AgentImageRequest,
        cancel: &CancellationToken,
        progress: BuildProgress<'_>,
    ) -> Result<(), AgentImageError> {
        let image = debian.image();
        let before = images::inspect(&self.client, &image).await?;
        if before.is_some() && request.rebuild == Rebuild::IfOutdated {
            return Ok(());
        }
        let folder = debian
            .make_root(&request.temp_dir, cancel, &mut *progress)
            .await?;
        progress(&format!("importing {image}"));
        let docker = self.client.docker().await?;
        let dialect = self.client.dialect();
        let (repository, tag) = dialect.import_as(images::name_and_tag(&image));
        let label = |name: &str, value: &str| format!("LABEL {name}=\"{value}\"");
        let options = CreateImageOptionsBuilder::default()
            .from_src("-")
            .repo(&repository)
            .tag(tag)
            .message(COMMENT)
            .changes(vec![
                label(LABEL_KIND, KIND_BASE),
                label(LABEL_BASE, &debian.description()),
                label(LABEL_CREATED, &to_the_second(request.created)),
                "CMD [\"bash\"]".to_owned(),
            ])
            .build();
        let root = folder.path().join("root");
        let (pieces, writing) = archive::pieces(move |output| archive::write_root(&root, output));
        let body = bollard::body_try_stream(pieces);
        let import = images::drain(docker.create_image(Some(options), Some(body), None));
        unless_cancelled(cancel, async {
            let imported = self.client.call_slow(IMPORT, import).await;
            finish(writing, "pack the Debian base").await?;
            Ok(imported.map_err(EngineError::from)?)
        })
        .await?;
        if let Some(before) = before.and_then(|before| before.id) {
            images::remove_unused(&self.client, &before).await;
        }
        Ok(())
    }

    /// Removes images of earlier builds of the agent that have no name any more, as builds leave that were killed, or
    /// whose images a container had when they lost their name.
    async fn sweep(&self, recipe: &'static Recipe, now: Timestamp) {
        let listed = match self.list().await {
            Ok(listed) => listed,
            Err(error) => {
                tracing::debug!(%error, "older images are not looked for");
                return;
            }
        };
        // One that is younger may be about to get its name from a build beside this one.
        let is_old = |image: &ListedImage| {
            let created = image.created.as_ref().and_then(|text| text.parse().ok());
            created.is_some_and(|created: Timestamp| now.duration_since(created) > BUILD_TIME)
        };
        for image in listed {
            let is_nameless = image.reference == image.id;
            if !is_nameless || image.agent.as_deref() != Some(recipe.agent) || !is_old(&image) {
                continue;
            }
            // Images that somebody made on top of ours have our labels, too.
            let found = images::inspect(&self.client, &image.id).await;
            if found.is_ok_and(|found| found.is_some_and(|found| has_our_comment(&found))) {
                images::remove_unused(&self.client, &image.id).await;
            }
        }
    }

    /// Gives an image its names; the images that had them go, unless something else uses them or they have others.
    async fn name(&self, id: &str, references: &[String]) -> Result<(), AgentImageError> {
        let mut before = Vec::new();
        for reference in references {
            before.extend(images::inspect(&self.client, reference).await?);
            if let Err(error) = images::tag(&self.client, id, reference).await {
                // It goes only if this was to be its first name.
                images::remove_unused(&self.client, id).await;
                return Err(error.into());
            }
        }
        for image in before {
            if let Some(former) = image.id
                && former != id
            {
                images::remove_unused(&self.client, &former).await;
            }
        }
        Ok(())
    }
}

fn has_our_comment(image: &ImageInspect) -> bool {
    image.comment.as_deref() == Some(COMMENT)
}

/// What a build comes to.
enum Plan {
    Current(BuiltImage),
    Make {
        source: Source,
        base: String,
        labels: HashMap<String, String>,
    },
}

enum ChosenBase {
    Debian(Debian),
    Image(String),
}

impl ChosenBase {
    /// Finds out what a base is to be on this machine.
    async fn choose(base: &Base) -> Result<Self, AgentImageError> {
        match base {
            Base::Image(image) => match check_image(image) {
                Ok(()) => Ok(Self::Image(image.clone())),
                Err(problem) => Err(AgentImageError::Tag {
                    tag: image.clone(),
                    reason: problem.to_string(),
                }),
            },
            Base::Debootstrap => Debian::here().await.map(Self::Debian),
            Base::Automatic => Ok(match Debian::here().await {
                Ok(debian) => Self::Debian(debian),
                Err(reason) => {
                    tracing::debug!(%reason, "no Debian base is made here");
                    Self::Image(PULLED_BASE.to_owned())
                }
            }),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Debian(debian) => debian.image(),
            Self::Image(image) => image.clone(),
        }
    }
}

/// Waits for a writing thread; that the engine stopped reading is for the engine to explain.
async fn finish(
    writing: JoinHandle<io::Result<()>>,
    operation: &str,
) -> Result<(), AgentImageError> {
    match writing.await.map_err(io::Error::from).flatten() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(AgentImageError::local(operation, error))
        }
        _ => Ok(()),
    }
}

/// Returns an image under each of its names.
fn listed(image: ImageSummary) -> Vec<ListedImage> {
    let mut references = image.repo_tags;
    references.retain(|reference| reference != "<none>:<none>");
    if references.is_empty() {
        references.push(image.id.clone());
    }
    let label = |name: &str| image.labels.get(name).cloned();
    let rows = references.into_iter().map(|reference| ListedImage {
        reference,
        id: image.id.clone(),
        agent: label(LABEL_AGENT),
        agent_version: label(LABEL_AGENT_VERSION),
        base: label(LABEL_BASE),
        created: label(LABEL_CREATED),
        bytes: image.size,
    });
    rows.collect()
}
