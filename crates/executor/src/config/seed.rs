//! The configuration file of a project of the seed: `.dark-factory.yaml`.
//!
//! Owns: which of its keys mean something here, with the seed's own checks.
//! Reads: the text of the file.
//! Never: chooses the seed's container; what is for that only is kept apart.

use std::time::Duration;

use super::file::{ConfigFile, problems};
use super::{ConfigError, SEED_FILE};
use crate::host::HostView;
use crate::settings::{
    EnvValue, ExtraMount, Fault, KeyNode, Level, Limit, Node, Origin, Sourced, Value,
    is_secret_name, nearest, parse_yaml,
};
use crate::spec::GitVisibility;

/// Keys that mean something here.
const TAKEN: [&str; 12] = [
    "project",
    "projectName",
    "containerImage",
    "model",
    "claudeDir",
    "netrcFile",
    "gitconfigFile",
    "env",
    "extraMounts",
    "hideGit",
    "maxPromptDuration",
    "maxContainers",
];

/// Keys of what dark-factory does not have.
const LEFT: [&str; 33] = [
    "workflow",
    "pr",
    "worktree",
    "autoMerge",
    "autoRelease",
    "defaultBranch",
    "prompts",
    "specs",
    "backend",
    "validationCommand",
    "testCommand",
    "validationPrompt",
    "additionalInstructions",
    "generateCommand",
    "autoGeneratePrompts",
    "autoApprovePrompts",
    "autoRetryLimit",
    "dirtyFileThreshold",
    "preflightCommand",
    "preflightInterval",
    "healthcheckInterval",
    "healthcheckEnabled",
    "queueInterval",
    "sweepInterval",
    "idleLogInterval",
    "debounceMs",
    "serverPort",
    "verificationGate",
    "provider",
    "bitbucket",
    "github",
    "notifications",
    // The seed counts containers of all projects on the host; runs here share no such count.
    "maxContainers",
];

/// Keys that the seed itself refuses.
const REMOVED: [&str; 3] = ["autoReview", "allowedReviewers", "useCollaborators"];

/// Variables that the seed sets itself.
const RESERVED: [&str; 2] = ["ANTHROPIC_MODEL", "YOLO_PROMPT_FILE"];

const NETRC_TARGET: &str = "/home/node/.netrc";
const GITCONFIG_TARGET: &str = "/home/node/.gitconfig-extra";

/// Reads the text of a file whose permission bits are `mode`.
pub(super) fn parse(
    file: &str,
    text: &str,
    mode: u32,
    host: &HostView,
) -> Result<ConfigFile, ConfigError> {
    let root = parse_yaml(text, 0).map_err(|fault| problems(file, text, vec![fault]))?;
    let mut reader = Reader {
        config: ConfigFile::new(file, Level::SeedProject),
        faults: Vec::new(),
        left: Vec::new(),
        host,
    };
    match root.value {
        Value::Map(entries) => {
            for (key, node) in &entries {
                reader.key(key, node, text);
            }
        }
        Value::Null => {}
        _ => {
            let message = format!("{SEED_FILE} must be lines of KEY: VALUE");
            reader
                .faults
                .push(Fault::new(root.place, message).help("write a space behind each colon"));
        }
    }
    if !reader.faults.is_empty() {
        return Err(problems(file, text, reader.faults));
    }
    let mut config = reader.config;
    if !reader.left.is_empty() {
        config.notices.push(format!(
            "{file}: left alone, as they mean nothing to dark-factory's runs: {}",
            reader.left.join(", ")
        ));
    }
    let has_secret = config.layer.run.env.keys().any(|name| is_secret_name(name));
    if has_secret && mode & 0o004 != 0 {
        config.warnings.push(format!(
            "{file} may be read by everybody and has what looks like a secret; `chmod o-r {file}`"
        ));
    }
    Ok(config)
}

struct Reader<'a> {
    config: ConfigFile,
    faults: Vec<Fault>,
    left: Vec<String>,
    host: &'a HostView,
}

impl Reader<'_> {
    fn key(&mut self, key: &KeyNode, node: &Node, text: &str) {
        let name = key.name.as_str();
        if REMOVED.contains(&name) {
            let message =
                format!("{name} was removed from the seed in v0.151.0, which refuses it too");
            self.faults
                .push(Fault::new(key.place, message).help("remove it"));
        } else if TAKEN.contains(&name) {
            // An empty value is as none, as the seed's decoder has it.
            if node.value != Value::Null
                && let Err(fault) = self.take(key, node)
            {
                self.faults.push(fault);
            }
        } else if !LEFT.contains(&name) {
            let message = format!("the key {name} is not known and does nothing");
            let mut warning = Fault::new(key.place, message);
            let known = TAKEN.into_iter().chain(LEFT);
            warning.help = nearest(name, known).map(|name| format!("did you mean {name}?"));
            let warning = warning.in_file(&self.config.file, text);
            self.config.warnings.push(warning.to_string());
        }
        if LEFT.contains(&name) {
            self.left.push(name.to_owned());
        }
    }

    fn take(&mut self, key: &KeyNode, node: &Node) -> Result<(), Fault> {
        let name = key.name.as_str();
        match name {
            "project" | "projectName" => {
                let project = filled(name, node, "must not be empty or whitespace-only when set")?;
                // The seed's older name of the key does not beat the newer one, wherever they stand.
                if name == "project" || self.config.layer.run.project_name.is_none() {
                    self.config.layer.run.project_name = Some(self.sourced(node, project));
                }
            }
            "containerImage" => {
                let image = filled(name, node, "must not be empty")?;
                self.config.layer.run.image = Some(self.sourced(node, image));
            }
            "model" => {
                let model = filled(name, node, "must not be empty")?;
                let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._:/[]-".contains(c);
                if model.len() > 256 || !model.chars().all(is_allowed) {
                    return Err(Fault::new(
                        node.place,
                        "model must be up to 256 letters, digits and . _ : / [ ] -",
                    ));
                }
                self.config.layer.run.model = Some(self.sourced(node, model));
            }
            "claudeDir" => {
                let path = self.path(name, node)?;
                self.config.seed_only.claude_dir = Some(self.sourced(node, path));
            }
            "netrcFile" => self.credential(name, node, NETRC_TARGET)?,
            "gitconfigFile" => self.credential(name, node, GITCONFIG_TARGET)?,
            "env" => self.env(node)?,
            "extraMounts" => self.mounts(node)?,
            "hideGit" => {
                let git = match node.value {
                    Value::Bool(true) => GitVisibility::Hidden,
                    Value::Bool(false) => GitVisibility::Visible,
                    _ => return Err(wrong(name, node, "true or false")),
                };
                self.config.layer.run.git = Some(self.sourced(node, git));
            }
            "maxPromptDuration" => {
                let limit = limit(name, node)?;
                self.config.layer.run.timeout = limit.map(|limit| self.sourced(node, limit));
            }
            _ => {
                let text = text(name, node, "a whole number")?;
                let is_count = text.parse::<u32>().is_ok();
                if !is_count {
                    let message = format!("{name} must be a whole number, not negative");
                    return Err(Fault::new(node.place, message));
                }
            }
        }
        Ok(())
    }

    fn env(&mut self, node: &Node) -> Result<(), Fault> {
        let Value::Map(entries) = &node.value else {
            return Err(Fault::new(node.place, "env must be a map of names to texts").hidden());
        };
        for (key, node) in entries {
            let name = key.name.as_str();
            let refused = |message: &str| {
                let message = format!("the variable {name:?} of env {message}");
                Err(Fault::new(key.place, message).hidden())
            };
            let is_first = |c: char| c.is_ascii_uppercase() || c == '_';
            let is_rest = |c: char| is_first(c) || c.is_ascii_digit();
            if !name.starts_with(is_first) || !name.chars().all(is_rest) {
                return refused("must be capital letters, digits and _, no digit in front");
            }
            if RESERVED.contains(&name) {
                return refused("is reserved; the seed sets it itself");
            }
            let value = match (&node.value, node.text()) {
                (Value::Null, _) => "",
                (_, Some(text)) => text,
                _ => return refused("must be a text"),
            };
            if value.contains(['\0', '\r', '\n']) {
                return refused("must not have a NUL or a line end in its value");
            }
            let value = self.sourced(node, EnvValue::Text(value.to_owned()));
            self.config.layer.run.env.insert(name.to_owned(), value);
        }
        Ok(())
    }

    fn mounts(&mut self, node: &Node) -> Result<(), Fault> {
        let Value::List(items) = &node.value else {
            return Err(wrong(
                "extraMounts",
                node,
                "a list of maps with src, dst and readOnly",
            ));
        };
        for (index, item) in items.iter().enumerate() {
            let label = |field: &str| format!("extraMounts[{index}].{field}");
            let Value::Map(fields) = &item.value else {
                return Err(wrong(
                    &format!("extraMounts[{index}]"),
                    item,
                    "a map with src, dst and readOnly",
                ));
            };
            // What is not there yet is no obstacle, as in the seed.
            let mut mount = ExtraMount {
                optional: true,
                ..ExtraMount::default()
            };
            for (key, node) in fields {
                match key.name.as_str() {
                    "src" => mount.src = text(&label("src"), node, "a path")?,
                    "dst" => mount.dst = text(&label("dst"), node, "a path")?,
                    "readOnly" => match node.value {
                        Value::Bool(read_only) => mount.read_only = Some(read_only),
                        _ => return Err(wrong(&label("readOnly"), node, "true or false")),
                    },
                    _ => {}
                }
            }
            for (field, value) in [("src", &mount.src), ("dst", &mount.dst)] {
                if value.is_empty() {
                    let message = format!("{} must not be empty", label(field));
                    return Err(Fault::new(item.place, message).help("write src: and dst:"));
                }
            }
            let mount = self.sourced(item, mount);
            self.config.layer.run.mounts.push(mount);
        }
        Ok(())
    }

    /// Takes a file of credentials, which only the seed's container has a place for.
    fn credential(&mut self, name: &str, node: &Node, target: &str) -> Result<(), Fault> {
        let src = self.path(name, node)?;
        if src.is_empty() {
            return Ok(());
        }
        let mount = ExtraMount {
            src,
            dst: target.to_owned(),
            read_only: Some(true),
            optional: false,
        };
        let mount = self.sourced(node, mount);
        self.config.seed_only.mounts.push(mount);
        Ok(())
    }

    /// Reads a path; one that is `${VAR}` as a whole is the host's value, if it has one.
    fn path(&self, name: &str, node: &Node) -> Result<String, Fault> {
        let path = text(name, node, "a path")?;
        let variable = path
            .strip_prefix("${")
            .and_then(|rest| rest.strip_suffix('}'));
        let value = variable.and_then(|variable| self.host.var(variable));
        Ok(value.map_or(path, str::to_owned))
    }

    fn sourced<T>(&self, node: &Node, value: T) -> Sourced<T> {
        let origin = Origin::file(&self.config.file, node.place, None);
        Sourced { value, origin }
    }
}

fn wrong(name: &str, node: &Node, expected: &str) -> Fault {
    let message = format!("{name} must be {expected}, not {}", node.describe());
    Fault::new(node.place, message)
}

fn text(name: &str, node: &Node, expected: &str) -> Result<String, Fault> {
    let text = node.text().ok_or_else(|| wrong(name, node, expected))?;
    Ok(text.to_owned())
}

fn filled(name: &str, node: &Node, refusal: &str) -> Result<String, Fault> {
    let text = text(name, node, "a text")?;
    if text.trim().is_empty() {
        return Err(Fault::new(node.place, format!("{name} {refusal}")));
    }
    Ok(text)
}

/// Reads a duration of Go; none at all and zero are no limit.
fn limit(name: &str, node: &Node) -> Result<Option<Limit<Duration>>, Fault> {
    let expected = "a duration such as 90m or 1h30m";
    let text = text(name, node, expected)?;
    if text.is_empty() {
        return Ok(None);
    }
    if text == "0" {
        return Ok(Some(Limit::Off));
    }
    // The seed takes a negative one, and then ends everything at once.
    let total = go_duration(&text).ok_or_else(|| wrong(name, node, expected))?;
    Ok(Some(if total.is_zero() {
        Limit::Off
    } else {
        Limit::At(total)
    }))
}

fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let (number, behind) = rest.split_at(rest.find(|c| !is_number(c))?);
        let (unit, next) = behind.split_at(behind.find(is_number).unwrap_or(behind.len()));
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        total = total.checked_add(part)?;
        rest = next;
    }
    Some(total)
}
