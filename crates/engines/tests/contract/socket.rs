//! Engines with Docker's API on a socket of this machine: how they are met, and whoever else uses them.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;

use dark_factory_engines::docker::{DockerEndpoint, DockerEngine};
use dark_factory_executor::clock::SystemClock;
use dark_factory_executor::engine::Engine;
use dark_factory_executor::host::HostView;
use dark_factory_types::OwnerId;

use crate::lab::{Lab, provision};

/// An engine at a socket; the `docker` command stands for whoever else uses it.
#[derive(Debug)]
pub(crate) struct Socket {
    /// `unix:///PATH`.
    pub(crate) url: String,
}

impl Lab for Socket {
    fn engine(&self) -> Arc<dyn Engine> {
        Arc::new(DockerEngine::connect(
            &DockerEndpoint::resolve(Some(&self.url), &BTreeMap::new()).unwrap(),
            HostView {
                cwd: "/".into(),
                ..HostView::default()
            },
            Arc::new(SystemClock),
        ))
    }

    fn image(&self) -> String {
        provision("DARK_FACTORY_TEST_AGENT_IMAGE")
    }

    fn make_foreign(&self, name: &str, labels: &BTreeMap<String, String>) -> String {
        let labels = labels
            .iter()
            .map(|(label, value)| format!("--label={label}={value}"));
        let mut arguments = vec!["create".to_owned(), "--name".to_owned(), name.to_owned()];
        arguments.extend(labels);
        arguments.extend([self.image(), self.agent()]);
        let id = self.docker(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        id.unwrap().trim().to_owned()
    }

    fn remove_foreign(&self, name: &str) {
        self.docker(&["rm", "--force", name]).unwrap();
    }

    fn describe(&self, name: &str) -> Option<String> {
        self.docker(&["container", "inspect", name]).ok()
    }

    fn labels(&self, name: &str) -> BTreeMap<String, String> {
        let labels = self.inspect(name, "{{json .Config.Labels}}");
        serde_json::from_str(&labels).unwrap()
    }

    fn is_frozen(&self, name: &str) -> bool {
        self.inspect(name, "{{.State.Paused}}") == "true"
    }

    fn kill(&self, name: &str) {
        self.docker(&["kill", name]).unwrap();
    }

    fn leftovers(&self, owner: &OwnerId) -> Vec<String> {
        let filter = format!("label=dark-factory.owner={owner}");
        let kinds: [&[&str]; 4] = [
            &["ps", "--all", "--format", "container {{.Names}}"],
            &["volume", "ls", "--format", "volume {{.Name}}"],
            &["network", "ls", "--format", "network {{.Name}}"],
            &["images", "--format", "image {{.Repository}}"],
        ];
        kinds
            .iter()
            .flat_map(|kind| {
                let listed = self
                    .docker(&[kind, &["--filter", &filter][..]].concat())
                    .unwrap();
                listed.lines().map(str::to_owned).collect::<Vec<_>>()
            })
            .collect()
    }

    fn clear(&self, owner: &OwnerId) {
        let filter = format!("label=dark-factory.owner={owner}");
        let listed = self
            .docker(&["ps", "--all", "--quiet", "--filter", &filter])
            .unwrap_or_default();
        for container in listed.split_whitespace() {
            // The test has failed already, and says of what.
            let _removed = self.docker(&["rm", "--force", "--volumes", container]);
        }
    }
}

impl Socket {
    /// Runs the `docker` command; returns what it prints, or what it says of why it failed.
    fn docker(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new("docker")
            .args(["--host", &self.url])
            .args(arguments)
            .output()
            .map_err(|error| format!("docker cannot be started: {error}"))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Returns one value out of what `docker inspect` says.
    fn inspect(&self, name: &str, template: &str) -> String {
        let said = self.docker(&["container", "inspect", "--format", template, name]);
        said.unwrap().trim().to_owned()
    }
}
