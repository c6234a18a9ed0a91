//! The engine's containers, as it lists them.
//!
//! Owns: the question, and what a listed state means.
//! Reads: the engine's list.
//! Never: fails for a word that only one engine has: a list of many would be lost for one of them.

use std::collections::{BTreeMap, HashMap};

use dark_factory_executor::engine::{EngineError, OwnedContainer};
use dark_factory_executor::spec::{LABEL_ATTEMPT, LABEL_OWNER};
use dark_factory_types::{AttemptId, OwnerId};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::client::{Client, LIST};
use super::dialect::dockers_word;
use super::question::encoded;

/// Which containers are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// Whatever they do.
    All,
    /// Those that run.
    Running,
}

/// A container in a list.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    pub(super) id: Option<String>,
    /// The id of its image.
    #[serde(rename = "ImageID")]
    pub(super) image: Option<String>,
    names: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
    /// Seconds since 1970.
    created: Option<i64>,
    state: Option<String>,
}

impl Listed {
    /// Returns its name, or its id where it has none.
    pub(super) fn name(&self) -> &str {
        let names = self.names.as_deref().unwrap_or_default();
        let name = names.first().or(self.id.as_ref());
        name.map_or("", |name| name.trim_start_matches('/'))
    }

    /// Returns the attempt that its label names.
    pub(super) fn attempt(&self) -> Option<AttemptId> {
        self.labels.as_ref()?.get(LABEL_ATTEMPT)?.parse().ok()
    }

    /// Returns whether it may have processes; what the engine does not say may.
    fn may_run(&self) -> bool {
        let state = self.state.as_deref().map(dockers_word);
        !matches!(state, Some("created" | "exited" | "dead" | "removing"))
    }
}

/// Lists the containers that a filter lets through: its kind, and its value.
pub(super) async fn containers(
    client: &Client,
    which: Which,
    (kind, value): (&str, &str),
) -> Result<Vec<Listed>, EngineError> {
    let filters = encoded(&json!(HashMap::from([(kind, [value])])).to_string());
    let all = which == Which::All;
    let path = format!("/containers/json?all={all}&filters={filters}");
    Ok(client.ask(LIST, &path).await?)
}

/// Lists all containers of an owner.
pub(super) async fn owned(
    client: &Client,
    owner: &OwnerId,
) -> Result<Vec<OwnedContainer>, EngineError> {
    let label = format!("{LABEL_OWNER}={owner}");
    let listed = containers(client, Which::All, ("label", &label)).await?;
    let owned = listed.into_iter().filter_map(|container| {
        Some(OwnedContainer {
            name: container.name().to_owned(),
            attempt: container.attempt(),
            created_at: container
                .created
                .and_then(|seconds| Timestamp::from_second(seconds).ok()),
            is_running: container.may_run(),
            id: container.id?,
        })
    });
    Ok(owned.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_an_engine_calls_it_what_has_ended_does_not_run_and_what_is_unknown_may() {
        for (state, may_run) in [
            (Some("running"), true),
            (Some("paused"), true),
            (Some("stopping"), true),
            (Some("a word of tomorrow"), true),
            (None, true),
            (Some("created"), false),
            (Some("exited"), false),
            (Some("stopped"), false),
            (Some("removing"), false),
        ] {
            let listed = json!({ "Id": "1", "Names": ["/c"], "State": state, "Labels": null });
            let listed: Listed = serde_json::from_value(listed).unwrap();

            assert_eq!(
                (listed.name(), listed.may_run()),
                ("c", may_run),
                "{state:?}"
            );
        }
    }
}
