//! Which engine it is that answers at an endpoint.
//!
//! Owns: the engine's own id, and what a 404 means where another engine says it.
//! Reads: what the engine says of itself.
//! Never: keeps an id: another engine may answer at the same endpoint next time; see `memory` for who may.

use dark_factory_executor::engine::{EngineError, OnRestart};
use serde::Deserialize;

use super::client::{Client, INFO};
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
    // Boxed, because it is part of every future that may meet a 404, and rarely runs.
    let ask = || Box::pin(async { Ok::<Said, EngineError>(client.ask(INFO, "/info").await?) });
    // Who answers is known once it has answered.
    client.docker().await?;
    let (info, id) = match client.dialect() {
        Dialect::Docker => {
            let (info, again) = tokio::try_join!(ask(), ask())?;
            let id = lasting(&info, &again);
            (info, id)
        }
        Dialect::Podman => {
            let info = ask().await?;
            let folder = info.folder.as_ref();
            let id = folder.map(|folder| format!("podman {folder}"));
            (info, id)
        }
    };
    Ok(EngineIdentity {
        id,
        on_restart: client.dialect().on_restart(info.live_restore),
    })
}

/// What tells one engine from another.
#[derive(Debug, Default, Deserialize)]
struct Said {
    #[serde(rename = "ID")]
    id: Option<String>,
    #[serde(rename = "DockerRootDir")]
    folder: Option<String>,
    #[serde(rename = "LiveRestoreEnabled")]
    live_restore: Option<bool>,
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
