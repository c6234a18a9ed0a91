//! The few questions that tests put to the engine itself, over its socket.
//!
//! Owns: one short connection for each question.
//! Reads: the list of containers.
//! Never: goes through a proxy: what it says is what the engine holds.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use crate::proxy::ENGINE;

/// A container of some installation, ended or not.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its id.
    pub id: String,
    /// Its state, in the engine's word: `running`, `exited`, `paused`, `created`.
    pub state: String,
    mounts: Vec<String>,
}

impl Seen {
    /// Returns whether it mounts something below a folder.
    pub fn uses(&self, folder: &Path) -> bool {
        self.mounts
            .iter()
            .any(|source| Path::new(source).starts_with(folder))
    }
}

/// Returns every container that carries an owner's label of ours, ended ones included.
///
/// # Panics
///
/// If the engine does not answer.
pub fn our_containers() -> Vec<Seen> {
    let all = "/containers/json?all=1&filters=%7B%22label%22%3A%5B%22dark-factory.owner%22%5D%7D";
    let (status, body) = ask("GET", all);
    assert_eq!(status, 200, "the engine does not list containers: {body}");
    let listed: Vec<Value> = serde_json::from_str(&body).expect("a list is JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    listed
        .iter()
        .map(|container| Seen {
            id: text(&container["Id"]),
            state: text(&container["State"]),
            mounts: container["Mounts"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|mount| text(&mount["Source"]))
                .collect(),
        })
        .collect()
}

/// Kills a container's first process, which is the helper; one that has ended is left as it is.
///
/// # Panics
///
/// If the engine does not answer.
pub fn kill_container(id: &str) {
    let (status, body) = ask("POST", &format!("/containers/{id}/kill?signal=KILL"));
    assert!(
        matches!(status, 204 | 404 | 409),
        "the engine does not kill {id}: {status} {body}"
    );
}

/// Makes a container from a create request; returns its id.
///
/// # Panics
///
/// If the engine does not make it.
pub fn create_container(request: &Value) -> String {
    let (status, body) = send("POST", "/containers/create", &request.to_string());
    assert_eq!(status, 201, "the engine makes no container: {body}");
    let created: Value = serde_json::from_str(&body).expect("an answer is JSON");
    created["Id"].as_str().unwrap_or_default().to_owned()
}

fn ask(method: &str, path: &str) -> (u16, String) {
    send(method, path, "")
}

/// Sends one request; returns the answer's status and body.
fn send(method: &str, path: &str, content: &str) -> (u16, String) {
    let mut engine = UnixStream::connect(ENGINE).expect("the engine's socket");
    // Version 1.0, so that the answer ends with the connection.
    let length = content.len();
    write!(
        engine,
        "{method} {path} HTTP/1.0\r\nHost: engine\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{content}"
    )
    .expect("the engine listens");
    let mut answer = Vec::new();
    engine.read_to_end(&mut answer).expect("the engine answers");
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head
        .split_whitespace()
        .nth(1)
        .and_then(|status| status.parse().ok());
    (status.expect("an answer has a status"), body.to_owned())
}
