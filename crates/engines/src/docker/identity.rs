//! Which engine it is that answers at an endpoint, and what it can do.
//!
//! Owns: the engine's own id, which of its words are which of our capabilities, and what a 404 means where another engine says it.
//! Reads: what the engine says of itself.
//! Never: keeps an id: another engine may answer at the same endpoint next time; see `memory` for who may.

use std::path::{Path, PathBuf};

use bollard::ClientVersion;
use bollard::models::SystemInfo;
use dark_factory_executor::engine::{Capabilities, EngineError, LimitKind, OnRestart};
use serde::Deserialize;

use super::client::{Client, INFO, INSPECT};
use super::dialect::Dialect;

/// What an engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineIdentity {
    /// Its own id and its data folder, which stay the same when it restarts; `None` if it has no id that lasts.
    ///
    /// Up to version 22 the id is that of a key in `/etc/docker`, which engines of one machine share. Podman makes an
    /// id up for every answer, and is told by its data folder alone.
    pub id: Option<String>,
    /// What becomes of containers when it goes down.
    pub on_restart: OnRestart,
}

/// Asks an engine who it is (6 ms on an idle 20.10).
pub(super) async fn identity(client: &Client) -> Result<EngineIdentity, EngineError> {
    Ok(acquaint(client).await?.0)
}

/// Asks an engine what it can do.
pub(super) async fn capabilities(client: &Client) -> Result<Capabilities, EngineError> {
    let said: Said = client.ask(INFO, "/info").await?;
    let api = client.docker().await?.client_version();
    Ok(said.capabilities(api, client.dialect()))
}

/// Asks an engine who it is and what it can do.
pub(super) async fn acquaint(
    client: &Client,
) -> Result<(EngineIdentity, Capabilities), EngineError> {
    // Boxed, because it is part of every future that may meet a 404, and rarely runs.
    let ask = || Box::pin(async { Ok::<Said, EngineError>(client.ask(INFO, "/info").await?) });
    // Who answers is known once it has answered.
    let api = client.docker().await?.client_version();
    let (info, id) = match client.dialect() {
        Dialect::Docker => {
            let (info, again) = tokio::try_join!(ask(), ask())?;
            let id = lasting(&info, &again);
            (info, id)
        }
        Dialect::Podman => {
            let info = ask().await?;
            let id = info.folder.as_deref().map(|it| podman(Path::new(it)));
            (info, id)
        }
    };
    let capabilities = info.capabilities(api, client.dialect());
    let identity = EngineIdentity {
        id,
        on_restart: capabilities.on_restart,
    };
    Ok((identity, capabilities))
}

/// Asks who the engine is that has this container, which was just made.
///
/// Podman's `/info` counts what its containers do, and waits for each that is being made, started or put away. With
/// many at once that takes longer than anybody waits. A container says by itself in which data folder it is.
pub(super) async fn engine_of(client: &Client, id: &str) -> Result<Option<String>, EngineError> {
    let kept: Kept = client
        .ask(INSPECT, &format!("/libpod/containers/{id}/json"))
        .await?;
    match kept
        .folder
        .as_deref()
        .and_then(|folder| data_folder(folder, id))
    {
        Some(folder) => Ok(Some(podman(folder))),
        None => Ok(Box::pin(identity(client)).await?.id),
    }
}

/// Where Podman keeps a container.
#[derive(Debug, Deserialize)]
struct Kept {
    #[serde(rename = "StaticDir")]
    folder: Option<PathBuf>,
}

/// Returns the data folder that has a container's folder: `DATA/DRIVER-containers/ID/userdata`.
fn data_folder<'a>(folder: &'a Path, id: &str) -> Option<&'a Path> {
    let its_own = folder.parent().filter(|_| folder.ends_with("userdata"))?;
    let containers = its_own.parent().filter(|_| its_own.ends_with(id))?;
    let kind = containers.file_name()?.to_str()?;
    containers
        .parent()
        .filter(|_| kind.ends_with("-containers"))
}

/// Returns the id of the Podman with this data folder.
fn podman(folder: &Path) -> String {
    format!("podman {}", folder.display())
}

/// What tells one engine from another, and what it can do.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Said {
    #[serde(rename = "ID")]
    id: Option<String>,
    #[serde(rename = "DockerRootDir")]
    folder: Option<String>,
    #[serde(rename = "LiveRestoreEnabled")]
    live_restore: Option<bool>,
    #[serde(rename = "ServerVersion")]
    version: Option<String>,
    #[serde(rename = "MemoryLimit")]
    memory: Option<bool>,
    #[serde(rename = "CpuCfsPeriod")]
    cpu_period: Option<bool>,
    #[serde(rename = "CpuCfsQuota")]
    cpu_quota: Option<bool>,
    #[serde(rename = "PidsLimit")]
    pids: Option<bool>,
}

impl Said {
    /// Returns what an engine that speaks this version of the API can do.
    pub(super) fn capabilities(&self, api: ClientVersion, dialect: Dialect) -> Capabilities {
        let has = |flags: &[Option<bool>]| flags.iter().all(|flag| *flag == Some(true));
        let limits = [
            // Where the host does not account for swap, Docker limits memory alone, which is most of it.
            (LimitKind::Memory, has(&[self.memory])),
            (LimitKind::Cpus, has(&[self.cpu_period, self.cpu_quota])),
            (LimitKind::Pids, has(&[self.pids])),
        ];
        Capabilities {
            version: self.version.clone().unwrap_or_default(),
            api_version: api.to_string(),
            limits: limits
                .into_iter()
                .filter_map(|(limit, is_kept)| is_kept.then_some(limit))
                .collect(),
            on_restart: dialect.on_restart(self.live_restore),
            lacks: Vec::new(),
            only_user: None,
        }
    }
}

impl From<&SystemInfo> for Said {
    fn from(info: &SystemInfo) -> Self {
        Self {
            id: info.id.clone(),
            folder: info.docker_root_dir.clone(),
            live_restore: info.live_restore_enabled,
            version: info.server_version.clone(),
            memory: info.memory_limit,
            cpu_period: info.cpu_cfs_period,
            cpu_quota: info.cpu_cfs_quota,
            pids: info.pids_limit,
        }
    }
}

/// Returns the error for a container that the engine does not know: it is gone, but only if this is the engine that
/// had it, `holder`.
pub(super) async fn missing(client: &Client, name: &str, holder: Option<&str>) -> EngineError {
    let gone = EngineError::NoSuchContainer {
        name: name.to_owned(),
    };
    let Some(holder) = holder else {
        return gone;
    };
    // On the heap: it is rare, and would make every call's future larger.
    match Box::pin(identity(client)).await {
        Ok(EngineIdentity { id: Some(id), .. }) if id == holder => gone,
        Ok(_) => EngineError::OtherEngine {
            endpoint: client.endpoint(),
            name: name.to_owned(),
        },
        Err(error) => error,
    }
}

/// Returns the id that two answers agree on: what an engine makes up for every answer says nothing.
fn lasting(first: &Said, second: &Said) -> Option<String> {
    let id = first.id.as_deref().filter(|id| !id.is_empty())?;
    let folder = first.folder.as_deref().unwrap_or_default();
    (first.id == second.id).then(|| format!("{id} {folder}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_podman_is_told_by_the_folder_that_a_container_of_its_is_in() {
        let found = |folder| data_folder(Path::new(folder), "abc").map(podman);

        assert_eq!(
            found("/var/lib/containers/storage/overlay-containers/abc/userdata").as_deref(),
            Some("podman /var/lib/containers/storage")
        );
        for folder in [
            "/data/overlay-containers/other/userdata",
            "/data/overlay-containers/abc/elsewhere",
            "/data/containers/abc/userdata",
            "abc/userdata",
            "",
        ] {
            assert_eq!(found(folder), None, "{folder}");
        }
    }

    #[test]
    fn memory_is_limited_also_where_swap_is_not_accounted_for() {
        let said = serde_json::json!({ "MemoryLimit": true, "SwapLimit": false });
        let said: Said = serde_json::from_value(said).unwrap();
        let api = ClientVersion {
            major_version: 1,
            minor_version: 41,
        };

        let limits = said.capabilities(api, Dialect::Docker).limits;

        assert!(limits.contains(&LimitKind::Memory), "{limits:?}");
        assert!(!limits.contains(&LimitKind::Cpus), "{limits:?}");
    }

    #[test]
    fn an_id_counts_if_the_engine_says_it_twice() {
        let info = |id: Option<&str>| Said {
            id: id.map(str::to_owned),
            folder: Some("/data".to_owned()),
            ..Said::default()
        };
        let lasting = |first, second| lasting(&info(first), &info(second));

        assert_eq!(lasting(Some("a"), Some("a")).as_deref(), Some("a /data"));
        for (first, second) in [
            (Some("a"), Some("b")),
            (Some("a"), None),
            (Some(""), Some("")),
            (None, None),
        ] {
            assert_eq!(lasting(first, second), None);
        }
    }
}
