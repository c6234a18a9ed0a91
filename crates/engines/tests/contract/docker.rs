//! The contract, kept by the Docker Engine of this machine.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;

use dark_factory_engines::docker::{DockerEndpoint, DockerEngine};
use dark_factory_executor::clock::SystemClock;
use dark_factory_executor::engine::Engine;
use dark_factory_executor::host::HostView;
use dark_factory_types::OwnerId;

use crate::lab::{Lab, provision};

/// The Docker Engine at its usual socket, and its command line for whoever else uses it.
#[derive(Debug)]
struct Docker;

impl Lab for Docker {
    fn engine(&self) -> Arc<dyn Engine> {
        let socket = Some("unix:///var/run/docker.sock");
        Arc::new(DockerEngine::connect(
            &DockerEndpoint::resolve(socket, &BTreeMap::new()).unwrap(),
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
        let id = docker(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        id.unwrap().trim().to_owned()
    }

    fn remove_foreign(&self, name: &str) {
        docker(&["rm", "--force", name]).unwrap();
    }

    fn describe(&self, name: &str) -> Option<String> {
        docker(&["container", "inspect", name]).ok()
    }

    fn labels(&self, name: &str) -> BTreeMap<String, String> {
        let labels = inspect(name, "{{json .Config.Labels}}");
        serde_json::from_str(&labels).unwrap()
    }

    fn is_frozen(&self, name: &str) -> bool {
        inspect(name, "{{.State.Paused}}") == "true"
    }

    fn kill(&self, name: &str) {
        docker(&["kill", name]).unwrap();
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
                let listed = docker(&[kind, &["--filter", &filter][..]].concat()).unwrap();
                listed.lines().map(str::to_owned).collect::<Vec<_>>()
            })
            .collect()
    }

    fn clear(&self, owner: &OwnerId) {
        let filter = format!("label=dark-factory.owner={owner}");
        let listed = docker(&["ps", "--all", "--quiet", "--filter", &filter]).unwrap_or_default();
        for container in listed.split_whitespace() {
            // The test has failed already, and says of what.
            let _removed = docker(&["rm", "--force", "--volumes", container]);
        }
    }
}

/// Runs the `docker` command; returns what it prints, or what it says of why it failed.
fn docker(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("docker")
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
fn inspect(name: &str, template: &str) -> String {
    let said = docker(&["container", "inspect", "--format", template, name]);
    said.unwrap().trim().to_owned()
}

contract!(Docker);
