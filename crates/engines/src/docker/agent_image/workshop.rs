//! The container that becomes an agent's image.
//!
//! Owns: its life: created, filled, run once, committed, removed.
//! Reads: what its script prints.
//! Never: gives the image a name.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error as ClientError;
use bollard::models::{ContainerConfig, ContainerCreateBody, HostConfig, HostConfigLogConfig};
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, CreateContainerOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use dark_factory_executor::engine::EngineError;
use futures_util::StreamExt;
use uuid::Uuid;

use super::{COMMENT, KIND_WORKSHOP, LABEL_AGENT_VERSION, LABEL_KIND, archive};
use crate::agent_image::{
    AgentImageError, BuildProgress, Extent, Recipe, Source, expected, version,
};
use crate::docker::client::{CREATE, Client, Fault, LOGS, Operation, REMOVE, START, WAIT};

/// Makes git, certificates and the user be there, and starts the agent once.
const SCRIPT: &str = include_str!("install.sh");
/// Where the agent's user may write without a run's mounts.
const WORKDIR: &str = "/workspace";
/// How the script says the agent's version.
const VERSION_LINE: &str = "version: ";
/// Lines of a failed script that are shown.
const LAST_LINES: usize = 8;

const UPLOAD: Operation = Operation {
    name: "copy the agent into the image",
    deadline: Duration::from_secs(900),
};
const COMMIT: Operation = Operation {
    name: "make the image",
    deadline: Duration::from_secs(900),
};

/// A container in which an image is made.
#[derive(Debug)]
pub(super) struct Workshop<'a> {
    client: &'a Client,
    recipe: &'static Recipe,
    base: &'a str,
    name: String,
}

/// An image without a name.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) id: String,
    pub(super) agent_version: String,
}

impl<'a> Workshop<'a> {
    /// Creates the container.
    pub(super) async fn open(
        client: &'a Client,
        recipe: &'static Recipe,
        base: &'a str,
    ) -> Result<Self, AgentImageError> {
        let name = format!(
            "dark-factory-image-{}-{}",
            recipe.agent,
            Uuid::new_v4().simple()
        );
        let link = match recipe.extent {
            Extent::Executable => String::new(),
            Extent::Folder => format!("/{}/{}", recipe.target, recipe.executable),
        };
        let words = ["/bin/sh", "-c", SCRIPT, "install", recipe.agent, &link];
        let body = ContainerCreateBody {
            image: Some(base.to_owned()),
            user: Some("0:0".to_owned()),
            entrypoint: Some(Vec::new()),
            cmd: Some(words.map(str::to_owned).to_vec()),
            labels: Some(HashMap::from([(
                LABEL_KIND.to_owned(),
                KIND_WORKSHOP.to_owned(),
            )])),
            host_config: Some(HostConfig {
                // What the agent's first start writes is no part of the image.
                tmpfs: Some(HashMap::from([("/tmp".to_owned(), String::new())])),
                log_config: Some(HostConfigLogConfig {
                    typ: Some("json-file".to_owned()),
                    config: None,
                }),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let docker = client.docker().await?;
        client
            .call(CREATE, docker.create_container(Some(options), body))
            .await
            .map_err(EngineError::from)?;
        Ok(Self {
            client,
            recipe,
            base,
            name,
        })
    }

    /// Fills the container and runs its script; returns the version that the agent told.
    pub(super) async fn prepare(
        &self,
        source: Source,
        progress: BuildProgress<'_>,
    ) -> Result<String, AgentImageError> {
        let title = self.recipe.title;
        progress(&format!("copying {title} into {}", self.base));
        self.fill(source).await?;
        progress(&format!("setting up, and starting {title} once"));
        self.run_script(progress).await
    }

    /// Makes an image of the prepared container.
    ///
    /// Not cancel-safe: dropping the future may leave an image without a name.
    pub(super) async fn commit(
        &self,
        mut labels: HashMap<String, String>,
        agent_version: String,
        progress: BuildProgress<'_>,
    ) -> Result<Made, AgentImageError> {
        let title = self.recipe.title;
        progress(&format!("making the image of {title} {agent_version}"));
        for name in [LABEL_AGENT_VERSION, "org.opencontainers.image.version"] {
            labels.insert(name.to_owned(), agent_version.clone());
        }
        let config = ContainerConfig {
            user: Some("agent".to_owned()),
            working_dir: Some(WORKDIR.to_owned()),
            entrypoint: Some(Vec::new()),
            cmd: Some(vec!["/bin/sh".to_owned()]),
            labels: Some(labels),
            ..ContainerConfig::default()
        };
        let options = CommitContainerOptionsBuilder::default()
            .container(&self.name)
            .comment(COMMENT)
            .build();
        let docker = self.client.docker().await?;
        let image = self
            .client
            .call_slow(COMMIT, docker.commit_container(options, config))
            .await
            .map_err(EngineError::from)?;
        Ok(Made {
            id: image.id,
            agent_version,
        })
    }

    /// Removes the container; one that cannot be removed is told of, and is no reason to fail.
    pub(super) async fn close(self) {
        let remove = async {
            let docker = self.client.docker().await?;
            let options = RemoveContainerOptionsBuilder::default()
                .force(true)
                .v(true)
                .build();
            let removed = docker.remove_container(&self.name, Some(options));
            self.client.call(REMOVE, removed).await
        };
        match remove.await {
            Ok(()) | Err(Fault::Status { code: 404, .. }) => {}
            Err(fault) => {
                let error = EngineError::from(fault);
                tracing::warn!(container = self.name, %error, "the build's container is left");
            }
        }
    }

    async fn fill(&self, source: Source) -> Result<(), AgentImageError> {
        let docker = self.client.docker().await?;
        let path = source.path().to_owned();
        let (pieces, writing) = archive::pieces(move |output| source.write_archive(output));
        let body = bollard::body_try_stream(pieces);
        let options = UploadToContainerOptionsBuilder::default().path("/").build();
        let uploaded = self
            .client
            .call_slow(
                UPLOAD,
                docker.upload_to_container(&self.name, Some(options), body),
            )
            .await;
        // A wheel that turns out to be damaged breaks the request too; its own words say more.
        super::finish(writing, "")
            .await
            .map_err(|error| match error {
                AgentImageError::Local { source, .. } => AgentImageError::Source {
                    path,
                    agent: self.recipe.agent,
                    reason: format!("it cannot be unpacked: {source}"),
                    expected: expected(self.recipe, None),
                },
                error => error,
            })?;
        Ok(uploaded.map_err(EngineError::from)?)
    }

    /// Runs the script to its end; returns the version that the agent told.
    async fn run_script(&self, progress: BuildProgress<'_>) -> Result<String, AgentImageError> {
        let docker = self.client.docker().await?;
        match self
            .client
            .call(START, docker.start_container(&self.name, None))
            .await
        {
            // The engine says so of a program that it cannot execute.
            Err(Fault::Status {
                code: 400 | 404,
                message,
                ..
            }) => return Err(self.unfit(format!("/bin/sh cannot be started: {message}"))),
            started => started.map_err(EngineError::from)?,
        }
        let options = LogsOptionsBuilder::default()
            .follow(true)
            .stdout(true)
            .stderr(true)
            .build();
        let mut output = Box::pin(docker.logs(&self.name, Some(options)));
        let mut lines = Lines::default();
        while let Some(piece) = output.next().await {
            let piece = piece.map_err(|error| EngineError::from(self.client.fault(LOGS, error)))?;
            lines.add(piece, &mut *progress);
        }
        lines.end(&mut *progress);
        let mut ends = Box::pin(docker.wait_container(&self.name, None));
        match ends.next().await {
            Some(Ok(_)) => {}
            Some(Err(ClientError::DockerContainerWaitError { .. })) => {
                return Err(self.unfit(lines.last.make_contiguous().join("; ")));
            }
            Some(Err(error)) => {
                return Err(EngineError::from(self.client.fault(WAIT, error)).into());
            }
            None => return Err(self.client.cut(WAIT).into()),
        }
        let said = lines.version.unwrap_or_default();
        version(&said)
            .map(str::to_owned)
            .ok_or_else(|| self.unfit(format!("--version prints no version: {said}")))
    }

    fn unfit(&self, reason: String) -> AgentImageError {
        AgentImageError::Unfit {
            title: self.recipe.title,
            base: self.base.to_owned(),
            reason,
        }
    }
}

/// The script's output: pieces of it are no lines yet.
#[derive(Debug, Default)]
struct Lines {
    partial: Vec<u8>,
    last: VecDeque<String>,
    version: Option<String>,
}

impl Lines {
    fn add(&mut self, piece: LogOutput, progress: BuildProgress<'_>) {
        self.partial.extend_from_slice(&piece.into_bytes());
        while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            self.line(&line, &mut *progress);
        }
    }

    fn end(&mut self, progress: BuildProgress<'_>) {
        let line = std::mem::take(&mut self.partial);
        self.line(&line, progress);
    }

    fn line(&mut self, line: &[u8], progress: BuildProgress<'_>) {
        let line = String::from_utf8_lossy(line);
        let line = line.trim();
        if line.is_empty() {
            return;
        }
        if let Some(version) = line.strip_prefix(VERSION_LINE) {
            self.version = Some(version.to_owned());
            return;
        }
        progress(line);
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_from_pieces_and_the_version_is_no_progress() {
        let mut lines = Lines::default();
        let mut shown = Vec::new();
        let mut progress = |line: &str| shown.push(line.to_owned());

        for piece in ["inst", "alling git\nversi", "on: 1.2\nlast"] {
            let message = piece.as_bytes().to_vec().into();
            lines.add(LogOutput::StdOut { message }, &mut progress);
        }
        lines.end(&mut progress);

        assert_eq!(shown, ["installing git", "last"]);
        assert_eq!(lines.version.as_deref(), Some("1.2"));
    }
}
