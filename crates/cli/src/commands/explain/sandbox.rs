//! What `run` would launch in the embedded sandbox.
//!
//! Owns: what is said of a sandbox in place of a create request and a `docker run` line.
//! Reads: the launch spec; which limits this machine keeps.
//! Never: makes a sandbox, a folder of one, or a control group that stays.

use dark_factory_engines::sandbox::{SandboxEngine, wrapping};
use dark_factory_executor::error::sentence;
use dark_factory_executor::resolve::{Resolved, limits_section, spec_record};
use dark_factory_executor::spec::{AttemptDir, LaunchSpec};
use dark_factory_types::{OwnerId, RunId};
use serde_json::{Value, json};

use super::{Explanation, Made, OWNER, On, defaults, hidden, placeholders, pretty, said};
use crate::context::Context;
use crate::error::CommandError;
use crate::shell;

/// The engine's name, as `launch.json` has it.
const ENGINE: &str = "sandbox";
/// In place of the helper's file, whose name is that of its version.
const HELPER: &str = "HELPER";

/// Explains a launch by `spec`, which is the launch's own or the masked one.
pub(super) fn explanation(
    context: &Context,
    resolved: &Resolved,
    spec: &LaunchSpec,
) -> Result<Explanation, CommandError> {
    // The first run id there is; a run has its own.
    let attempt = RunId::from_random_bits(0).attempt(1);
    let state = &context.state_dir;
    let dir = AttemptDir::new(
        attempt,
        state.join("runs").join(attempt.to_string()),
        state.join("init").join(HELPER),
    );
    let engine = context.sandbox(state);
    let config = engine
        .preview(spec, &OwnerId(OWNER.to_owned()), &dir)
        .map_err(|error| {
            let refused = CommandError::usage(sentence(&error));
            match error.advice() {
                Some(advice) => refused.hint(advice),
                None => refused,
            }
        })?;

    let mut notes = defaults(spec, On::Sandbox);
    let wrapping = wrapping(spec, attempt);
    notes.push(format!(
        "around it: our helper as its first process: {} ARGV…; mounted read-only: {}",
        shell::line(wrapping.entrypoint.iter().map(String::as_str)),
        wrapping.mounts.join(", ")
    ));
    notes.push(placeholders(attempt));
    notes.push(format!(
        "placeholders: {HELPER} is our helper's file; each sandbox has control groups of its own name"
    ));
    notes.extend(hidden(&resolved.spec, spec));
    notes.push("engine: the embedded sandbox: no container, no daemon, no registry".to_owned());
    let facts = SandboxEngine::facts();
    notes.extend(facts.iter().map(|(name, value)| format!("{name}: {value}")));
    notes.push(image(spec));
    notes.extend(said(resolved));
    Ok(Explanation {
        spec: spec_record(spec, ENGINE),
        made: Made::Sandbox(json!(config)),
        notes,
        told: limits_section(spec),
    })
}

/// Returns what is known of the image, which is not touched.
fn image(spec: &LaunchSpec) -> String {
    let image = &spec.image;
    if image == "host" {
        return "image: host: this machine's own system folders, and of /etc what programs need; read-only".to_owned();
    }
    match std::path::Path::new(image).is_dir() {
        true => format!("image: the root file system in the folder {image}, read-only"),
        false => format!(
            "image: {image} is unpacked before its first run; its own environment, working folder and command are not \
             looked at here"
        ),
    }
}

/// Writes what a person reads.
pub(super) fn text(config: &Value) -> String {
    format!(
        "# The sandbox\n{}\n\n# By the docker command line\nThere is no such line: no container engine makes this \
         sandbox.\n",
        pretty(config)
    )
}
