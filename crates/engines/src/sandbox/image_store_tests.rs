//! Which images go, and which never do.

use std::thread;

use dark_factory_types::RunId;
use tempfile::TempDir;

use super::super::config::{Network, SandboxBind, SandboxConfig, SandboxLimits};
use super::super::folder::{Folder, Made};
use super::*;

const NOW: &str = "2026-06-01T00:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

struct Scene {
    sandboxes: TempDir,
    store: ImageStore,
}

impl Scene {
    fn new() -> Self {
        let sandboxes = tempfile::tempdir().unwrap();
        Self {
            store: ImageStore::new(sandboxes.path()),
            sandboxes,
        }
    }

    /// Keeps an image that was unpacked from an archive.
    fn archive(&self, id: &str, archive: &str, made: &str) -> Stored {
        self.keep(id, |note| note.archive = Some(archive.into()), made)
    }

    /// Keeps an agent's image, and names it.
    fn agent(&self, id: &str, name: &str) -> Stored {
        let agent = |note: &mut ImageNote| {
            note.agent = Some(AgentNote {
                agent: "claude".to_owned(),
                version: "1".to_owned(),
                base: "host".to_owned(),
                source: "wheel".to_owned(),
                recipe: id.to_owned(),
            });
        };
        let kept = self.keep(id, agent, NOW);
        let hold = self.store.hold().unwrap();
        self.store.name(&kept, name, &hold).unwrap();
        kept
    }

    fn keep(&self, id: &str, describe: impl Fn(&mut ImageNote), made: &str) -> Stored {
        let hold = self.store.hold().unwrap();
        let new = self.store.begin(&hold).unwrap();
        fs::write(new.files().join("file"), id).unwrap();
        let mut note = ImageNote {
            made: Some(at(made)),
            ..ImageNote::default()
        };
        describe(&mut note);
        self.store.keep(&new, id, &note, &hold).unwrap()
    }

    /// Makes a sandbox that is made of these.
    fn sandbox(&self, root: Root, binds: Vec<PathBuf>) -> Folder {
        let folder = Folder::new(self.sandboxes.path(), "sandbox");
        let bind = |source| SandboxBind {
            source,
            target: "/agent".into(),
            access: dark_factory_executor::spec::Access::ReadOnly,
        };
        let config = SandboxConfig {
            version: 1,
            attempt: RunId::from_random_bits(1).attempt(1),
            owner: dark_factory_types::OwnerId("me".to_owned()),
            created_at: at(NOW),
            labels: BTreeMap::new(),
            root,
            binds: binds.into_iter().map(bind).collect(),
            tmpfs: Vec::new(),
            argv: Vec::new(),
            env: BTreeMap::new(),
            workdir: "/".to_owned(),
            hostname: "h".to_owned(),
            uid: 0,
            gid: 0,
            network: Network::Loopback,
            limits: SandboxLimits::default(),
        };
        assert!(matches!(folder.make(&config).unwrap(), Made::Yes));
        folder
    }

    fn ids(&self) -> Vec<String> {
        let listed = self.store.list().unwrap();
        listed.into_iter().map(|image| image.id).collect()
    }
}

#[test]
fn an_archive_goes_once_it_was_not_used_for_long_or_its_file_is_another_one() {
    let scene = Scene::new();
    scene.archive("old", "/a.tar", "2026-04-01T00:00:00Z");
    let used = scene.archive("used", "/b.tar", "2026-04-01T00:00:00Z");
    used.note_use(at("2026-05-20T00:00:00Z"));
    scene.archive("outdated", "/c.tar", "2026-05-30T00:00:00Z");
    scene.archive("newest", "/c.tar", "2026-05-31T00:00:00Z");

    scene.store.prune(at(NOW)).unwrap();

    assert_eq!(scene.ids(), ["newest", "used"]);
}

#[test]
fn an_agents_image_goes_once_another_one_has_its_name() {
    let scene = Scene::new();
    scene.agent("first", "dark-factory/claude:latest");
    scene.agent("second", "dark-factory/claude:latest");

    scene.store.prune(at("2036-01-01T00:00:00Z")).unwrap();

    assert_eq!(scene.ids(), ["second"]);
    let named = scene.store.named("dark-factory/claude:latest").unwrap();
    assert_eq!(named.unwrap().id, "second");
    assert_eq!(
        scene.store.list().unwrap()[0].names,
        ["dark-factory/claude:latest"]
    );
}

#[test]
fn what_a_sandbox_is_made_of_stays_until_it_is_gone() {
    let scene = Scene::new();
    let outdated = scene.archive("outdated", "/c.tar", "2026-05-30T00:00:00Z");
    scene.archive("newest", "/c.tar", "2026-05-31T00:00:00Z");
    let nameless = scene.agent("first", "n:1");
    scene.agent("second", "n:1");
    let sandbox = scene.sandbox(
        Root::Folder(outdated.files()),
        vec![nameless.files().join("usr/local")],
    );

    scene.store.prune(at(NOW)).unwrap();
    let before = scene.ids();
    sandbox.remove().unwrap();
    scene.store.prune(at(NOW)).unwrap();

    assert_eq!(before, ["first", "newest", "outdated", "second"]);
    assert_eq!(scene.ids(), ["newest", "second"]);
}

#[test]
fn nothing_goes_while_a_sandbox_may_be_made_of_anything() {
    let scene = Scene::new();
    scene.archive("old", "/a.tar", "2026-04-01T00:00:00Z");
    let hold = scene.store.hold().unwrap();

    scene.store.prune(at(NOW)).unwrap();
    let held = scene.ids();
    drop(hold);
    let broken = scene.sandboxes.path().join("broken");
    fs::create_dir(&broken).unwrap();
    fs::write(broken.join("config.json"), r#"{"version":7}"#).unwrap();
    let refused = scene.store.prune(at(NOW));

    assert!(refused.is_err());
    assert_eq!(
        (held, scene.ids()),
        (vec!["old".to_owned()], vec!["old".to_owned()])
    );
}

#[test]
fn what_killed_processes_left_goes_with_the_next_removal() {
    let scene = Scene::new();
    scene.archive("kept", "/a.tar", NOW);
    let hold = scene.store.hold().unwrap();
    Box::leak(Box::new(scene.store.begin(&hold).unwrap()));
    drop(hold);
    fs::create_dir_all(scene.store.path().join(".gone-1/files")).unwrap();
    fs::create_dir_all(scene.store.path().join(NAMES)).unwrap();
    fs::write(scene.store.path().join(NAMES).join(".new-1"), "half").unwrap();

    scene.store.prune(at(NOW)).unwrap();

    let mut left = entries(scene.store.path()).unwrap();
    left.extend(entries(&scene.store.path().join(NAMES)).unwrap());
    assert_eq!(left, ["kept", "lock", "names"]);
}

#[test]
fn an_image_that_two_make_at_once_is_kept_once() {
    let scene = Scene::new();

    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| scene.archive("same", "/a.tar", NOW));
        }
    });

    assert_eq!(entries(scene.store.path()).unwrap(), ["lock", "same"]);
}
