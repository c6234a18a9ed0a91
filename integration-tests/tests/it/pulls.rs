//! Images from a registry: pulled when they are to be, with the user's login, and stopped in the middle.
//!
//! Owns: one registry for each test, whose images are removed with it.
//! Reads: what `run` says, and which image its report names.
//! Never: reaches a registry of somebody else.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use integration_tests::Registry;
use serde_json::{Value, json};

use crate::scene::{Scene, eventually, report, text};
use crate::support::{Ended, Watched};

/// User and password, and what files of logins make of them: base64 that means something else in the alphabet of URLs.
const BASIC: &str = "bWU6Pz8/Pn4+fj8+";
const USER: &str = "me";
const PASSWORD: &str = "???>~>~?>";

/// A scene beside a registry.
pub(crate) struct Harbour {
    pub(crate) scene: Scene,
    pub(crate) registry: Registry,
}

impl Harbour {
    pub(crate) fn new() -> Self {
        Self::of(Scene::new())
    }

    fn of(scene: Scene) -> Self {
        Self {
            scene,
            registry: Registry::open(),
        }
    }

    /// Returns a `run` of a script in an image of the registry, by a user with these logins.
    pub(crate) fn run(&self, tag: &str, flags: &[&str], script: &str) -> Command {
        let image = self.registry.reference(tag);
        let mut run = self
            .scene
            .run_argv(&image, flags, &["/bin/agent", "-e", script]);
        run.env("DOCKER_CONFIG", self.config());
        run
    }

    /// Writes the user's file of logins.
    fn log_in(&self, logins: &Value) {
        fs::create_dir_all(self.config()).unwrap();
        fs::write(self.config().join("config.json"), logins.to_string()).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.scene.installation.folder().join("docker")
    }

    /// Checks that a run succeeds in an image with this digest.
    #[track_caller]
    fn runs(&self, run: &mut Command, digest: &str) {
        let ended = Ended::of(run);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let runs = self.scene.runs();
        let last = runs
            .iter()
            .max_by_key(|run| text(run, "created_at"))
            .unwrap();
        let image = &report(Path::new(&text(last, "dir")))["image"];
        assert!(
            text(image, "digest").ends_with(digest),
            "{image} is not {digest}"
        );
    }

    /// Checks that a run ends before it begins, for this reason; returns what it said.
    #[track_caller]
    fn refuses(&self, run: &mut Command, reason: &str) -> String {
        let ended = Ended::of(run);
        assert_eq!(ended.code, 4, "{}", ended.stderr);
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert!(said.contains(reason), "{reason:?} is not in {said}");
        assert!(!said.contains(PASSWORD), "{said}");
        said
    }
}

impl Drop for Harbour {
    fn drop(&mut self) {
        let repository = format!("reference={}/agent", self.registry.name());
        let images = ["images", "--quiet", "--filter", &repository];
        for image in self.scene.docker(&images).split_whitespace() {
            self.scene.docker(&["rmi", "--force", image]);
        }
    }
}

#[test]
fn an_image_is_pulled_if_it_is_missing_or_always_and_the_report_says_which_one_it_was() {
    let harbour = Harbour::new();
    let first = harbour.registry.offer("1", 0);

    let run = Ended::of(&mut harbour.run("1", &["--json", "--pull", "never"], "exit 0"));
    assert_eq!(
        (run.code, harbour.registry.pulls()),
        (4, 0),
        "{}",
        run.stderr
    );

    let told = Ended::of(&mut harbour.run("1", &[], "exit 0"));
    assert_eq!(told.code, 0, "{}", told.stderr);
    let pulling = format!("pulling {}", harbour.registry.reference("1"));
    assert!(told.stderr.contains(&pulling), "{}", told.stderr);
    let asked = harbour.registry.pulls();
    assert!(asked > 0);

    // Another image by the same name is nobody's business until it is asked for.
    let second = harbour.registry.offer("1", 1);
    harbour.runs(&mut harbour.run("1", &[], "exit 0"), &first);
    assert_eq!(harbour.registry.pulls(), asked);
    harbour.runs(
        &mut harbour.run("1", &["--pull", "always"], "exit 0"),
        &second,
    );
    assert!(harbour.registry.pulls() > asked);
}

#[test]
fn a_run_is_stopped_while_its_image_is_pulled() {
    let harbour = Harbour::new();
    harbour.registry.offer("large", 64 << 20);
    harbour.registry.slow_down();
    let run = Watched::of(&mut harbour.run("large", &["--json"], "write made x"));
    eventually("the pull", || {
        let [run] = harbour.scene.runs().try_into().ok()?;
        (text(&run, "state") == "pulling" && harbour.registry.pulls() > 0).then_some(())
    });

    let id = text(&harbour.scene.only_run(), "run_id");
    let stop = Ended::of(&mut harbour.scene.dark_factory(&["stop", &id]));

    assert_eq!(stop.code, 0, "{}", stop.stderr);
    run.ended();
    let run = harbour.scene.only_run();
    assert_eq!(text(&run, "outcome"), "cancelled", "{run}");
    assert_eq!(run["started_at"], Value::Null, "{run}");
    assert!(!harbour.scene.project.path().join("made").exists());
}

#[test]
fn a_layer_that_is_not_what_the_registry_promised_is_refused() {
    let harbour = Harbour::new();
    harbour.registry.offer("damaged", 1);
    harbour.registry.damage();

    harbour.refuses(
        &mut harbour.run("damaged", &[], "exit 0"),
        "cannot be pulled",
    );
}

#[test]
fn a_registry_that_wants_a_login_gets_that_of_the_docker_command_line() {
    let harbour = Harbour::new();
    let digest = harbour.registry.offer("1", 0);
    harbour.registry.demand(BASIC);
    let run = || harbour.run("1", &[], "exit 0");

    let said = harbour.refuses(&mut run(), "cannot be pulled");
    assert!(said.contains("docker login"), "{said}");
    harbour.log_in(&json!({ "auths": { harbour.registry.name(): { "auth": "bWU6bm90IGl0" } } }));
    harbour.refuses(&mut run(), "cannot be pulled");
    harbour.log_in(&json!({ "auths": { harbour.registry.name(): { "auth": BASIC } } }));
    harbour.runs(&mut run(), &digest);
}

#[test]
fn podman_gets_the_login_of_its_own_command_line() {
    let harbour = Harbour::of(Scene::on_podman());
    let digest = harbour.registry.offer("1", 0);
    harbour.registry.demand(BASIC);
    let logins = harbour.scene.installation.folder().join("auth.json");
    let run = || {
        let mut run = harbour.run("1", &[], "exit 0");
        run.env("REGISTRY_AUTH_FILE", &logins);
        run
    };

    harbour.refuses(&mut run(), "cannot be pulled");
    let auths = json!({ "auths": { harbour.registry.name(): { "auth": BASIC } } });
    fs::write(&logins, auths.to_string()).unwrap();
    harbour.runs(&mut run(), &digest);
}

#[test]
fn a_login_may_be_kept_by_a_credential_helper() {
    let harbour = Harbour::new();
    let digest = harbour.registry.offer("1", 0);
    harbour.registry.demand(BASIC);
    let tools = harbour.scene.installation.folder().join("tools");
    fs::create_dir(&tools).unwrap();
    let helper = |name: &str, script: &str| {
        let path = tools.join(format!("docker-credential-{name}"));
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    };
    // What it is asked for comes on its standard input.
    let name = harbour.registry.name();
    helper(
        "knowing",
        &format!(
            r#"[ "$1 $(cat)" = "get {name}" ] && echo '{{"ServerURL":"{name}","Username":"{USER}","Secret":"{PASSWORD}"}}'"#
        ),
    );
    helper("broken", &format!("cat; echo '{PASSWORD}'; exit 1"));
    helper(
        "empty",
        "cat; echo 'credentials not found in native keychain'; exit 1",
    );
    let run = || {
        let mut run = harbour.run("1", &[], "exit 0");
        let path = std::env::var("PATH").unwrap();
        run.env("PATH", format!("{}:{path}", tools.display()));
        run
    };

    harbour.log_in(&json!({ "credsStore": "empty" }));
    let said = harbour.refuses(&mut run(), "cannot be pulled");
    assert!(!said.contains("docker-credential"), "{said}");
    harbour.log_in(&json!({ "credHelpers": { name.as_str(): "broken" } }));
    harbour.refuses(&mut run(), "docker-credential-broken fails");
    harbour.log_in(&json!({ "credHelpers": { name.as_str(): "no-such" } }));
    harbour.refuses(&mut run(), "has to be in PATH");
    harbour.log_in(&json!({ "credHelpers": { name.as_str(): "knowing" } }));
    harbour.runs(&mut run(), &digest);
}
