//! What was started, for people: the content of `launch.json`, and what `explain` shows.
//!
//! Owns: which values are masked.
//! Reads: the spec.
//! Never: is read back by us.

use std::collections::BTreeSet;

use dark_factory_agents::Mask;
use dark_factory_types::NetworkMode;
use serde_json::{Value, json};

use crate::settings::{MASK, is_secret_name, without_passwords};
use crate::spec::LaunchSpec;

/// Returns the content of `launch.json`: the [`spec_record`] of the [`masked`] spec.
pub fn launch_record(spec: &LaunchSpec, engine: &str) -> Value {
    spec_record(&masked(spec, &spec.env_from_host), engine)
}

/// Returns a spec without the values that look secret; nothing can be launched from it.
///
/// Values of the environment are masked where the name looks secret (`KEY`, `TOKEN`, `PASS` and others in it, in any
/// case), and where it is one of `hidden`. In command, labels and other variables such a value is masked as [`Mask`] does
/// it; so is the password of a URL.
pub fn masked(spec: &LaunchSpec, hidden: &BTreeSet<String>) -> LaunchSpec {
    let mut masked = spec.clone();
    let mut values: Vec<&str> = Vec::new();
    for (name, value) in &spec.env {
        if is_secret_name(name) || hidden.contains(name) {
            masked.env.insert(name.clone(), MASK.to_owned());
            values.push(value);
        }
    }
    let mask = Mask::new(values);
    let shown = masked.command.iter_mut().chain(masked.labels.values_mut());
    for text in shown.chain(masked.env.values_mut()) {
        mask.string(text);
        *text = without_passwords(text);
    }
    masked
}

/// Returns a spec as people read it, with the engine's name and with the network in words. Nothing is masked.
pub fn spec_record(spec: &LaunchSpec, engine: &str) -> Value {
    let network = match &spec.network {
        NetworkMode::None => "none: nothing but the container's own loopback".to_owned(),
        NetworkMode::Open if engine == "sandbox" => {
            "open: the machine's own network, without sockets that have no path".to_owned()
        }
        NetworkMode::Open => {
            "open: the engine's bridge; host.docker.internal is the host".to_owned()
        }
        NetworkMode::Allow(rules) => {
            let rules = rules.iter().map(ToString::to_string);
            let apis = spec.providers.iter();
            let apis = apis.map(|provider| format!("the API of {provider} through the broker"));
            let reached: Vec<String> = apis.chain(rules).collect();
            match reached.as_slice() {
                [] => "allow: nothing but the container's own loopback".to_owned(),
                reached => format!("allow: {}; everything else is refused", reached.join(", ")),
            }
        }
    };
    // A path that is not UTF-8 is the one thing that JSON cannot hold.
    let mut record = serde_json::to_value(spec).unwrap_or_else(|_| json!({ "file": spec.file }));
    record["engine"] = json!(engine);
    record["network"] = json!(network);
    record
}
