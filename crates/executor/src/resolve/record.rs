//! What was started, for people: the content of `launch.json`.
//!
//! Owns: which values are masked.
//! Reads: the spec.
//! Never: is read back by us.

use dark_factory_types::NetworkMode;
use serde_json::{Value, json};

use crate::spec::LaunchSpec;

/// Parts of names whose values are probably secrets.
const SECRET_WORDS: [&str; 5] = ["KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL"];
const MASK: &str = "***";

/// Returns the content of `launch.json`.
///
/// It is the spec with the engine's name and with the network in words. Values of the environment are masked
/// where the name has `KEY`, `TOKEN`, `SECRET`, `PASSWORD` or `CREDENTIAL` in it, in any case.
pub fn launch_record(spec: &LaunchSpec, engine: &str) -> Value {
    let env: serde_json::Map<String, Value> = spec
        .env
        .iter()
        .map(|(name, value)| {
            let upper = name.to_ascii_uppercase();
            let is_secret = SECRET_WORDS.iter().any(|word| upper.contains(word));
            let shown = if is_secret { MASK } else { value };
            (name.clone(), json!(shown))
        })
        .collect();
    let network = match spec.network {
        NetworkMode::None => "none: nothing but the container's own loopback",
        NetworkMode::Open => "open: the engine's bridge; host.docker.internal is the host",
    };
    // A path that is not UTF-8 is the one thing that JSON cannot hold.
    let mut record = serde_json::to_value(spec).unwrap_or_else(|_| json!({ "file": spec.file }));
    record["engine"] = json!(engine);
    record["env"] = Value::Object(env);
    record["network"] = json!(network);
    record
}
