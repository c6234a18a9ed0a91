//! Which engine it is that answers at an endpoint.
//!
//! Owns: the engine's own id, and what a 404 means where another engine says it.
//! Reads: what the engine says of itself.
//! Never: keeps an id: another engine may answer at the same endpoint next time.

use bollard::models::SystemInfo;
use dark_factory_executor::engine::{EngineError, OnRestart};

use super::client::{Client, INFO};

/// What an engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineIdentity {
    /// Its own id, which stays the same as long as its data folder does; `None` if it has none that lasts.
    pub id: Option<String>,
    /// What becomes of containers when it goes down.
    pub on_restart: OnRestart,
}

/// Asks an engine who it is (6 ms on an idle 20.10).
pub(super) async fn identity(client: &Client) -> Result<EngineIdentity, EngineError> {
    let docker = client.docker().await?;
    // Boxed, because it is part of every future that may meet a 404, and rarely runs.
    let ask = || Box::pin(async { Ok::<_, EngineError>(client.call(INFO, docker.info()).await?) });
    let (info, again) = tokio::try_join!(ask(), ask())?;
    Ok(EngineIdentity {
        id: lasting(info.id.as_deref(), again.id.as_deref()),
        on_restart: on_restart(&info),
    })
}

/// Returns what becomes of an engine's containers when it goes down.
pub(super) fn on_restart(info: &SystemInfo) -> OnRestart {
    if info.live_restore_enabled == Some(true) {
        OnRestart::Survive
    } else {
        OnRestart::End
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
    match identity(client).await {
        Ok(EngineIdentity { id: Some(id), .. }) if id == holder => gone,
        Ok(_) => EngineError::OtherEngine {
            endpoint: client.endpoint(),
            name: name.to_owned(),
        },
        Err(error) => error,
    }
}

/// Returns the id that two answers agree on: what an engine makes up for every answer says nothing.
fn lasting(first: Option<&str>, second: Option<&str>) -> Option<String> {
    first
        .filter(|id| !id.is_empty() && second == Some(id))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_counts_if_the_engine_says_it_twice() {
        assert_eq!(lasting(Some("a"), Some("a")).as_deref(), Some("a"));
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
