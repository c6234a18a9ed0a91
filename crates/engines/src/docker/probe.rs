//! Finding out what the engine can do.
//!
//! Owns: the probe's folder, for as long as the probe takes.
//! Reads: the engine's version and capabilities.
//! Never: leaves a container or a folder behind.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use bollard::ClientVersion;
use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType, SystemInfo};
use bollard::query_parameters::{CreateContainerOptions, RemoveContainerOptionsBuilder};
use dark_factory_executor::engine::{Capabilities, Description, EngineError};

use super::client::{Client, Fault, INFO, PROBE, REMOVE};
use super::dialect::Dialect;
use super::identity::Said;
use super::images;

/// What an engine says of itself and of an image to whoever only asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// What it can do.
    pub capabilities: Capabilities,
    /// The CPUs of its host.
    pub cpus: Option<NonZeroUsize>,
    /// The id of the image, if the engine has it.
    pub image: Option<String>,
}

/// Asks what can be asked without making anything.
pub(super) async fn survey(client: &Client, image: &str) -> Result<Survey, EngineError> {
    let docker = client.docker().await?;
    let info = client.call(INFO, docker.info()).await?;
    let image = images::inspect(client, image).await?;
    Ok(Survey {
        capabilities: capabilities(&info, docker.client_version(), client.dialect()),
        cpus: info
            .ncpu
            .and_then(|cpus| NonZeroUsize::new(usize::try_from(cpus).ok()?)),
        image: image.map(|image| image.id.unwrap_or_default()),
    })
}

/// Contacts the engine and finds out what it can do, including whether it sees the folder `dir`.
pub(super) async fn probe(client: &Client, dir: &Path) -> Result<Capabilities, EngineError> {
    let docker = client.docker().await?;
    let info = async { Ok(client.call(INFO, docker.info()).await?) };
    let (info, ()) = tokio::try_join!(info, look_for(client, dir))?;
    Ok(capabilities(
        &info,
        docker.client_version(),
        client.dialect(),
    ))
}

/// Contacts the engine and makes sure that it sees the folder `dir`.
pub(super) async fn check(client: &Client, dir: &Path) -> Result<(), EngineError> {
    look_for(client, dir).await
}

/// Has the engine describe itself.
pub(super) async fn describe(client: &Client) -> Result<Description, EngineError> {
    let docker = client.docker().await?;
    let info = client.call(INFO, docker.info()).await?;
    let time = info.system_time.as_deref();
    Ok(Description {
        capabilities: capabilities(&info, docker.client_version(), client.dialect()),
        facts: facts(&info),
        data_dir: info.docker_root_dir.as_deref().map(PathBuf::from),
        time: time.and_then(|time| time.parse().ok()),
    })
}

fn capabilities(info: &SystemInfo, api: ClientVersion, dialect: Dialect) -> Capabilities {
    Said::from(info).capabilities(api, dialect)
}

/// Returns how the engine works; what it does not say is left out.
fn facts(info: &SystemInfo) -> Vec<(&'static str, String)> {
    let version = info.cgroup_version.map(|version| version.to_string());
    let driver = info.cgroup_driver.map(|driver| driver.to_string());
    let cgroup = [version, driver].into_iter().flatten().collect::<Vec<_>>();
    let security = info.security_options.as_deref().unwrap_or_default();
    let security: Vec<&str> = security
        .iter()
        .map(|option| security_name(option))
        .collect();
    [
        ("storage driver", info.driver.clone()),
        ("log driver", info.logging_driver.clone()),
        ("cgroup", Some(cgroup.join(" "))),
        ("security", Some(security.join(", "))),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value.filter(|value| !value.is_empty())?)))
    .collect()
}

/// Returns the name in `name=seccomp,profile=default`; before 1.24 of the API it was all there is.
fn security_name(option: &str) -> &str {
    let name = option.split(',').next().unwrap_or(option);
    name.strip_prefix("name=").unwrap_or(name)
}

/// Looks whether the engine sees a folder that we just made, without having or needing an image.
///
/// An engine checks the sources of mounts before it looks for the image: 400 says that the source is not there, 404
/// that only the image is missing. That a 400 is about the source is seen by asking once more without it. Podman looks
/// for the image first; with it, a source that is not there is seen when a container is created.
async fn look_for(client: &Client, dir: &Path) -> Result<(), EngineError> {
    let local = |source| EngineError::Local {
        operation: "making a folder to probe the engine with".to_owned(),
        source,
    };
    let folder = tempfile::Builder::new()
        .prefix("probe-")
        .tempdir_in(dir)
        .map_err(local)?;
    let seen = create_without_image(client, Some(folder.path())).await?;
    if seen == 400 && create_without_image(client, None).await? == 404 {
        return Err(EngineError::ForeignFilesystem {
            endpoint: client.endpoint(),
        });
    }
    if seen == 404 {
        return Ok(());
    }
    Err(EngineError::Failed {
        operation: PROBE.name.to_owned(),
        source: format!("it answered with status {seen}").into(),
    })
}

/// Asks for a container of an image that does not exist, and returns the answer's status.
async fn create_without_image(client: &Client, source: Option<&Path>) -> Result<u16, EngineError> {
    let mount = |source: &Path| Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_string_lossy().into_owned()),
        target: Some("/probe".to_owned()),
        read_only: Some(true),
        ..Mount::default()
    };
    let body = ContainerCreateBody {
        image: Some("dark-factory/this-image-does-not-exist:probe".to_owned()),
        host_config: Some(HostConfig {
            mounts: source.map(|source| vec![mount(source)]),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let docker = client.docker().await?;
    match client
        .call(
            PROBE,
            docker.create_container(None::<CreateContainerOptions>, body),
        )
        .await
    {
        Err(Fault::Status { code, .. }) => Ok(code),
        Err(Fault::Other(error)) => Err(error),
        Ok(created) => {
            // Somebody has an image of that name; the folder was seen all the same.
            let options = RemoveContainerOptionsBuilder::default().v(true).build();
            client
                .call(REMOVE, docker.remove_container(&created.id, Some(options)))
                .await?;
            Ok(404)
        }
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::SystemInfoCgroupDriverEnum as CgroupDriver;

    use super::*;

    #[test]
    fn an_engine_is_described_by_what_it_says() {
        let info = SystemInfo {
            driver: Some("overlay2".to_owned()),
            cgroup_driver: Some(CgroupDriver::SYSTEMD),
            security_options: Some(vec![
                "name=seccomp,profile=default".to_owned(),
                "name=rootless".to_owned(),
            ]),
            ..SystemInfo::default()
        };

        assert_eq!(
            facts(&info),
            [
                ("storage driver", "overlay2".to_owned()),
                ("cgroup", "systemd".to_owned()),
                ("security", "seccomp, rootless".to_owned()),
            ]
        );
    }
}
